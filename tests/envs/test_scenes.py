"""Scenes of every native world, against what their states say, worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.core.scene import DISTINCT, Ink, distinct, make_scene
from jaxrl_engine.core.spaces import Box
from jaxrl_engine.envs.protocol import Pictured
from jaxrl_engine.envs.registry import make_env, native_envs

PICTURED = [name for name in native_envs() if not name.startswith("probe:")]


@pytest.mark.parametrize("name", PICTURED)
def test_every_native_world_shows_itself_in_shapes_that_never_change(name, key):
    env, params = make_env(name, {})
    assert isinstance(env, Pictured)
    keys = jax.random.split(key, 3)
    state, _ = env.reset(keys[0], params)
    action = jnp.zeros(
        (env.spec.num_agents, *env.spec.action.shape), float if isinstance(env.spec.action, Box) else int
    )
    after, _ = env.step(keys[1], state, action, params)
    first, second = env.scene(state, params), jax.jit(env.scene)(after, params)
    assert jax.tree.map(jnp.shape, first) == jax.tree.map(jnp.shape, second)
    left, bottom, right, top = first.extent
    assert left < right and bottom < top
    for scene in (first, second):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(scene))
        inks = np.concatenate([np.ravel(each) for each in (scene.cells, scene.line_inks, scene.disc_inks)])
        assert inks.min() >= Ink.NOTHING and inks.max() < Ink.FIRST + DISTINCT
        assert np.any(inks)


def test_what_is_left_out_is_empty_and_inks_begin_again():
    scene = make_scene((0.0, 0.0, 1.0, 2.0), discs=np.ones((3, 3)), disc_inks=np.arange(3))
    assert (scene.cells.shape, scene.lines.shape, scene.agents.shape) == ((0, 0), (0, 5), (0, 2))
    assert distinct(0) == Ink.FIRST and distinct(DISTINCT + 1) == Ink.FIRST + 1


def test_alice_and_bob():
    env, params = make_env("alice_and_bob", {})
    state, _ = env.reset(jax.random.key(0), params)
    # Alice on the button in the upper left corner of the interior, Bob in the lower right one; no diamond collected.
    scene = env.scene(state.replace(position=jnp.array([[1, 1], [8, 8]], jnp.int8)), params)
    np.testing.assert_array_equal(scene.agents, [[1.5, 8.5], [8.5, 1.5]])
    assert (scene.cells[1, 1], scene.cells[1, 8]) == (Ink.REACHED, Ink.GOAL)
    assert (np.asarray(scene.cells) == Ink.WALL).sum() == 36  # the border of a square of 10 cells
    np.testing.assert_array_equal(scene.discs[:2, :2], [[1.5, 1.5], [8.5, 1.5]])  # diamonds of the buttons right, left
    np.testing.assert_array_equal(scene.discs[2:, :2], scene.agents)
    # Each join goes from a button to its reflection in the centre, and goes with its diamond.
    np.testing.assert_array_equal(scene.lines[:, :4], [[8.5, 8.5, 1.5, 1.5], [1.5, 8.5, 8.5, 1.5]])
    gone = env.scene(state.replace(collected=jnp.array([True, False])), params)
    np.testing.assert_array_equal(gone.line_inks, [Ink.NOTHING, Ink.FAINT])
    np.testing.assert_array_equal(gone.disc_inks[:2], [Ink.NOTHING, Ink.GOAL])


def test_color_lines():
    env, params = make_env("color_lines", {})
    board = jnp.full((9, 9), -1, jnp.int8).at[0, 8].set(3).at[8, 0].set(0)
    scene = env.scene(env.state_of(board, jnp.array([6, 1, 2], jnp.int8)), params)
    drawn = {tuple(disc[:2].tolist()): int(ink) for disc, ink in zip(scene.discs, scene.disc_inks, strict=True) if ink}
    # Row 0 is the top row of the board; what comes next stands above it.
    expected = {(8.5, 8.5): 3, (0.5, 0.5): 0, (3.5, 9.5): 6, (4.5, 9.5): 1, (5.5, 9.5): 2}
    assert drawn == {place: distinct(ball) for place, ball in expected.items()}


def test_arm_and_target():
    env, params = make_env("reacher", {"num_links": 2, "total_length": 0.4})
    state, _ = env.reset(jax.random.key(1), params)
    bent = state.replace(angles=jnp.array([np.pi / 2, -np.pi / 2]), target=jnp.array([0.2, 0.2]))
    scene = env.scene(bent, params)
    # Two links of 0.2 m: up, then to the right.
    np.testing.assert_allclose(scene.discs[1:, :2], [[0, 0], [0, 0.2], [0.2, 0.2]], atol=1e-6)
    np.testing.assert_allclose(scene.lines[:, :4], [[0, 0, 0, 0.2], [0, 0.2, 0.2, 0.2]], atol=1e-6)
    assert scene.disc_inks[0] == Ink.REACHED
    assert env.scene(bent.replace(target=jnp.array([0.2, -0.2])), params).disc_inks[0] == Ink.GOAL


def test_course_of_the_zigzag():
    env, params = make_env("reacher-zigzag", {})
    state, _ = env.reset(jax.random.key(1), params)
    scene = env.scene(state, params)
    assert (np.asarray(scene.line_inks) == Ink.WALL).sum() == 8
    np.testing.assert_allclose(scene.discs[0], [1.2, 0.7, 0.2], rtol=1e-6)  # the goal as the rules give it


def test_lines_of_a_fleet_join_users_to_the_uav_that_serves_them():
    env, params = make_env("uav_relay", {"num_uavs": 3, "num_users": 7, "link_range": 300.0})
    state, _ = env.reset(jax.random.key(2), params)
    # A chain from the station at (500, 0), 25 m high, and one UAV out of everybody's range.
    places = np.array([[500.0, 250, 60], [500, 500, 60], [950, 950, 60]], np.float32)
    state = state.replace(positions=jnp.asarray(places))
    scene, served = env.scene(state, params), env.serve(state, env.routes(state).hops > 0).serving
    serving = served.tolist()
    assert max(serving) >= 0 > min(serving)
    for uav, place, line, ink in zip(serving, state.users, scene.lines[:7], scene.line_inks[:7], strict=True):
        assert ink == (Ink.NOTHING if uav < 0 else distinct(uav))
        np.testing.assert_array_equal(line[:2], place)
        np.testing.assert_array_equal(line[2:4], places[uav, :2])
    links = {tuple(line[:4].tolist()) for line, ink in zip(scene.lines[7:], scene.line_inks[7:], strict=True) if ink}
    assert links == {(500, 250, 500, 500), (500, 500, 500, 250), (500, 250, 500, 0)}
    np.testing.assert_array_equal(scene.agents, places[:, :2])
