"""Films in MuJoCo's rendering instead of the flat drawing."""

from typing import Any

import jax

from jaxrl_engine.envs.protocol import Jointed
from jaxrl_engine.modes.record import Watched
from jaxrl_engine.runtime.drawing import PANEL_PIXELS, Film
from jaxrl_engine.runtime.rendering import render_world


def rendered(env: Jointed[Any], watched: Watched, film: Film) -> Film:
    """Return the film of what was watched with its joints, each world with a model of its own."""
    assert watched.joints is not None
    frames, panels = len(film.captions), []
    for world in range(watched.joints.shape[1]):
        model = env.mujoco_model(jax.tree.map(lambda leaf, world=world: leaf[world], watched.begun))
        joints = watched.joints[:frames, world, : model.nq]
        scenes = jax.tree.map(lambda leaf, world=world: leaf[:, world], film.scenes)
        panels.append(render_world(model, joints, scenes, PANEL_PIXELS))
    return film.replace(panels=panels)
