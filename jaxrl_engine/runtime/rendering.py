"""Articulated worlds in MuJoCo's own rendering: the joints' angles put into its model, seen from above at a slant.

What the flat drawing knows besides the arm (walls, the goal) stands in the plane z = 0 of the model. Shadows, mirrors
and multisampling are off: in software they take over a hundred times as long as the picture; smooth edges come from
drawing it larger.
"""

import copy
import math
from typing import Any

import jax
import mujoco
import numpy as np
from jaxtyping import Float
from PIL import Image, ImageColor

from jaxrl_engine.core.scene import Ink, Scene
from jaxrl_engine.core.types import Leaf
from jaxrl_engine.runtime.drawing import DISTINCT_COLOURS, SUPERSAMPLING, colour

ELEVATION = -72.0  # degrees: -90 would be the flat drawing
FLOOR, TABLE, LINK, TIP = "#ffffff", "#dfe4ea", "#5d8fc2", DISTINCT_COLOURS[1]
AMBIENT, DIFFUSE = 0.55, 0.5
JOINT_WIDTH = 1.4  # of the link's radius
GOAL_OPACITY = 0.7
NEARER = 0.6  # than MuJoCo's own camera, which shows far more than the body
_KINDS = mujoco.mjtGeom


def render_world(model: Any, joints: Float[Leaf, "frames q"], scenes: Scene | None, pixels: int) -> list[Image.Image]:
    """Return a square picture of each frame.

    Args:
        model: a `mujoco.MjModel`, left as it is.
        joints: its `qpos` in each frame.
        scenes: `[F, …]`, of an arm: what stands around it and what part of the plane to show. None: the model has a
            world of its own, and the camera follows its first body.
        pixels: of a side.

    Raises:
        mujoco.FatalError: there are no graphics (`runtime.graphics.find_graphics` tells).
    """
    size = SUPERSAMPLING * pixels
    model = _plain(model, size)
    data = mujoco.MjData(model)
    if scenes is not None:
        model.geom_rgba[:] = _paint(LINK)
        light = model.vis.headlight
        light.ambient[:], light.diffuse[:], light.specular[:] = AMBIENT, DIFFUSE, 0.0
    pictures = []
    with mujoco.Renderer(model, size, size) as renderer:
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            renderer.scene.flags[flag] = False
        for frame, qpos in enumerate(joints):
            data.qpos[:] = qpos
            mujoco.mj_forward(model, data)
            scene = None if scenes is None else jax.tree.map(lambda leaf, frame=frame: leaf[frame], scenes)
            renderer.update_scene(data, follow(model) if scene is None else above(model, scene))
            if scene is not None:
                _furnish(renderer.scene, model, data, scene)
            picture = Image.fromarray(renderer.render())
            pictures.append(picture.resize((pixels, pixels), Image.Resampling.LANCZOS))
    return pictures


def above(model: Any, scene: Scene) -> Any:
    """Return a camera that looks north and down, just high enough for the whole extent: D = h (1 / tan(f/2) + cos e).

    h is half the extent's longer side, f the field of view and e the elevation: the near corners touch the edges.
    """
    left, bottom, right, top = (float(edge) for edge in scene.extent)
    half = max(right - left, top - bottom) / 2
    camera = mujoco.MjvCamera()
    camera.lookat[:] = (left + right) / 2, (bottom + top) / 2, 0.0
    camera.azimuth, camera.elevation = 90.0, ELEVATION
    field = math.radians(model.vis.global_.fovy)
    camera.distance = half * (1 / math.tan(field / 2) + math.cos(math.radians(ELEVATION)))
    return camera


def follow(model: Any) -> Any:
    """Return a camera that keeps the first body of a model in its middle."""
    camera = mujoco.MjvCamera()
    mujoco.mjv_defaultFreeCamera(model, camera)
    camera.distance *= NEARER
    if model.nbody > 1:
        camera.type, camera.trackbodyid = mujoco.mjtCamera.mjCAMERA_TRACKING, 1
    return camera


def _plain(model: Any, size: int) -> Any:
    """A copy of the model that is quick to render."""
    model = copy.copy(model)
    model.vis.global_.offwidth = model.vis.global_.offheight = size
    model.vis.quality.offsamples = model.vis.quality.shadowsize = 0
    return model


def _furnish(canvas: Any, model: Any, data: Any, scene: Scene) -> None:
    """Put a table, walls and goal around the arm, and balls where its joints and its tip are."""
    radius = float(model.geom_size[:, 0].max())
    left, bottom, right, top = (float(edge) for edge in scene.extent)
    middle, wide, deep = ((left + right) / 2, (bottom + top) / 2), (right - left) / 2, (top - bottom) / 2
    _put(canvas, _KINDS.mjGEOM_BOX, (wide, deep, radius), (*middle, -3 * radius), TABLE)
    _put(canvas, _KINDS.mjGEOM_BOX, (50 * wide, 50 * deep, radius), (*middle, -5 * radius), FLOOR)
    for (x0, y0, x1, y1, width), ink in zip(scene.lines, scene.line_inks, strict=True):
        if ink == Ink.WALL:
            size = math.hypot(x1 - x0, y1 - y0) / 2, width / 2, 2 * radius
            _put(canvas, _KINDS.mjGEOM_BOX, size, ((x0 + x1) / 2, (y0 + y1) / 2, 0.0), colour(ink),
                 math.atan2(y1 - y0, x1 - x0))  # fmt: skip
    for place in data.xanchor:
        _put(canvas, _KINDS.mjGEOM_SPHERE, (JOINT_WIDTH * radius,) * 3, place, colour(Ink.JOINT))
    _put(canvas, _KINDS.mjGEOM_SPHERE, (JOINT_WIDTH * radius,) * 3, tip_of(data), TIP)
    for (x, y, goal), ink in zip(scene.discs, scene.disc_inks, strict=True):
        if ink in (Ink.GOAL, Ink.REACHED):
            _put(canvas, _KINDS.mjGEOM_SPHERE, (goal,) * 3, (x, y, 0.0), colour(ink), opacity=GOAL_OPACITY)


def tip_of(data: Any) -> Float[np.ndarray, "3"]:
    """Where the last link ends, in metres: as far beyond its middle as its joint lies before it."""
    return 2 * data.geom_xpos[-1] - data.xpos[-1]


def _put(canvas: Any, kind: Any, size: Any, place: Any, paint: str, turned: float = 0.0, opacity: float = 1.0) -> None:
    """Add a shape to what is about to be rendered, turned (rad) about the vertical axis."""
    cos, sin = math.cos(turned), math.sin(turned)
    turn = np.array([cos, -sin, 0.0, sin, cos, 0.0, 0.0, 0.0, 1.0])
    geom = canvas.geoms[canvas.ngeom]
    mujoco.mjv_initGeom(geom, kind, np.array(size, float), np.array(place, float), turn, _paint(paint, opacity))
    canvas.ngeom += 1


def _paint(name: str, opacity: float = 1.0) -> Float[np.ndarray, "4"]:
    return np.array([*(channel / 255 for channel in ImageColor.getrgb(name)), opacity], np.float32)
