"""MuJoCo's pictures against geometry: tip and goal are where a camera computed by hand sees them.

Rendered in a process of its own, as MuJoCo must be told what to render through before it is imported.
"""

import colorsys
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxrl_engine.envs.registry import make_env

PIXELS = 211
ANGLES = np.array([[0.6, 0.9, -1.3, 0.0, 0.0], [-2.1, 0.5, 0.7, 0.0, 0.0], [2.6, -0.4, -0.3, 0.0, 0.0]])
GOALS = np.array([[-0.5, 0.55], [0.7, -0.2], [0.35, 0.8]])
LENGTHS = np.array([0.5, 0.2, 0.3])  # m; of five slots two are empty
FIELD, ELEVATION, HALF = 45.0, -72.0, 1.05  # degrees of the picture's height; degrees; m

SCRIPT = f"""
import sys
from jaxrl_engine.runtime.graphics import find_graphics
if problem := find_graphics():
    sys.exit("no graphics: " + problem)
import jax, jax.numpy as jnp, numpy as np
from jaxrl_engine.core.types import TimeStep
from jaxrl_engine.envs.reacher.body import make_body
from jaxrl_engine.envs.registry import make_env
from jaxrl_engine.modes.record import Watched, film
from jaxrl_engine.modes.render import rendered
from jaxrl_engine.runtime import drawing
from jaxrl_engine.modes import render
render.PANEL_PIXELS = {PIXELS}
env, _ = make_env("reacher", {{"num_links": 5, "physics": sys.argv[2]}})
body = make_body(jnp.array({[*LENGTHS.tolist(), 0.0, 0.0]}), jnp.arange(5) < 3)
state, _ = env.reset(jax.random.key(0), body)
angles, goals = jnp.array({ANGLES.tolist()}), jnp.array({GOALS.tolist()})
states = jax.vmap(lambda a, g: state.replace(angles=a, target=g))(angles, goals)
one_world = jax.tree.map(lambda leaf: np.asarray(leaf)[:, None], (jax.vmap(env.scene, (0, None))(states, body), states))
scenes, states = one_world
flags = np.ones((3, 1), bool)
watched = Watched(
    scenes=scenes, reward=np.zeros((3, 1)), running=flags, done=~flags, metrics={{}}, skills=None,
    joints=env.joints(states), begun=jax.tree.map(lambda leaf: leaf[0], states),
)
panels = rendered(env, watched, film(watched)).panels
np.save(sys.argv[1], np.stack([np.asarray(picture) for picture in panels[0]]))
"""


def render(tmp_path_factory, physics):
    path = tmp_path_factory.mktemp(physics) / "pictures.npy"
    done = subprocess.run([sys.executable, "-c", SCRIPT, path, physics], capture_output=True, text=True, timeout=200)
    if "no graphics" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return np.load(path)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return render(tmp_path_factory, "planar")


def seen_at(point):
    """Where the camera has a point of the plane z = 0, in pixels from the left and from the top.

    It stands south of the middle, above it, and looks at it: right is (1, 0, 0), ahead (0, cos e, sin e), and up
    (0, -sin e, cos e).
    """
    e, focal = np.deg2rad(ELEVATION), 1 / np.tan(np.deg2rad(FIELD) / 2)
    ahead, up = np.array([0, np.cos(e), np.sin(e)]), np.array([0, -np.sin(e), np.cos(e)])
    away = np.array([*point, 0.0]) + HALF * (focal + np.cos(e)) * ahead
    x, y = focal * away[0] / (away @ ahead), focal * (away @ up) / (away @ ahead)
    return np.array([(1 + x) / 2 * PIXELS, (1 - y) / 2 * PIXELS])


def middle_of(picture, low, high):
    """The middle of all strongly coloured pixels with a hue (degrees) between two values."""
    hue, saturation, _ = np.vectorize(colorsys.rgb_to_hsv)(*np.moveaxis(picture / 255, -1, 0))
    turned = (360 * hue + 60) % 360 - 60
    rows, columns = np.nonzero((turned > low) & (turned < high) & (saturation > 0.35))
    assert len(rows) > 4
    return np.array([columns.mean() + 0.5, rows.mean() + 0.5])


def tip(angles):
    return (LENGTHS * np.exp(1j * np.cumsum(angles[:3]))).sum()


def test_the_tip_is_where_forward_kinematics_and_the_camera_say(pictures):
    for picture, angles in zip(pictures, ANGLES, strict=True):
        end = tip(angles)
        assert np.linalg.norm(middle_of(picture, -25, 10) - seen_at((end.real, end.imag))) < 1.0


def test_the_goal_is_where_the_camera_says(pictures):
    for picture, goal in zip(pictures, GOALS, strict=True):
        assert np.linalg.norm(middle_of(picture, 20, 50) - seen_at(goal)) < 1.0


def test_the_whole_extent_is_in_the_picture():
    corners = np.array([seen_at((x, y)) for x in (-HALF, HALF) for y in (-HALF, HALF)])
    assert corners.min() >= -1e-9 and corners.max() <= PIXELS + 1e-9
    assert np.isclose(corners[:, 0].min(), 0.0)


def test_the_same_arm_under_brax_looks_the_same(pictures, tmp_path_factory):
    np.testing.assert_array_equal(render(tmp_path_factory, "brax"), pictures)


@pytest.mark.slow
def test_coordinates_of_a_brax_world_are_those_of_its_mujoco_model():
    """The frames of a cheetah's links, once by Brax's kinematics and once by MuJoCo's."""
    import mujoco

    env, params = make_env("brax:halfcheetah", {})
    state, _ = jax.jit(env.reset)(jax.random.key(3), params)
    model = env.mujoco_model(state)
    data = mujoco.MjData(model)
    data.qpos[:] = env.joints(state)
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.xpos[1:], state.world.pipeline_state.x.pos, atol=1e-5)
