"""The course against plane geometry by brute force, and its rules by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.envs.reacher.body import make_body
from jaxrl_engine.envs.reacher.geometry import segment_to_segment
from jaxrl_engine.envs.reacher.view import GLOBAL, TOKEN
from jaxrl_engine.envs.reacher.zigzag import (
    ARRIVAL,
    GOAL,
    GOAL_RADIUS,
    METRICS,
    SELF_GAP,
    WALL_GAP,
    WALLS,
    ReacherZigzag,
    touching,
)


@pytest.fixture(scope="module")
def world():
    env = ReacherZigzag()
    return env, env.default_params(), jax.jit(env.step)


def sampled_distance(one, two, count=401):
    """The smallest distance between points laid densely on both segments, in float64."""
    share = np.linspace(0, 1, count)[:, None]
    a, b = (np.asarray(s[0], float) + share * (np.asarray(s[1], float) - s[0]) for s in (one, two))
    return np.linalg.norm(a[:, None] - b[None], axis=-1).min()


def test_segment_distance_is_the_smallest_between_their_points():
    random = np.random.default_rng(0)
    for one, two in random.uniform(-1, 1, (101, 2, 2, 2)).astype(np.float32):
        found = float(segment_to_segment(jnp.asarray(one), jnp.asarray(two)))
        assert found == pytest.approx(sampled_distance(one, two), abs=8e-3)
    cross = jnp.array([[-1.0, 0.0], [1.0, 0.0]]), jnp.array([[0.0, -1.0], [0.0, 1.0]])
    assert float(segment_to_segment(*cross)) == 0.0
    point = jnp.zeros((2, 2))
    assert float(segment_to_segment(point, jnp.array([[3.0, 4.0], [6.0, 8.0]]))) == pytest.approx(5.0)


def test_the_course_is_eight_joined_walls_with_the_goal_between_them():
    assert WALLS.shape == (8, 2, 2)
    for half in (WALLS[:4], WALLS[4:]):
        np.testing.assert_array_equal(half[:-1, 1], half[1:, 0])
    assert WALLS[..., 0].min() == pytest.approx(0.2) and WALLS[..., 0].max() == pytest.approx(2.2)
    upper, lower = (np.interp(GOAL[0], half[:, 0, 0], half[:, 0, 1]) for half in (WALLS[:4], WALLS[4:]))
    assert lower + GOAL_RADIUS < GOAL[1] < upper - GOAL_RADIUS


def test_touching_by_brute_force(world):
    body = world[1]
    random = np.random.default_rng(1)
    found, expected = [], []
    for angles in random.uniform(-np.pi, np.pi, (53, 4)):
        heading = np.cumsum(angles)
        points = np.concatenate([[0], np.cumsum(np.asarray(body.lengths) * np.exp(1j * heading))])
        points = np.stack([points.real, points.imag], axis=1)
        links = np.stack([points[:-1], points[1:]], axis=1)
        wall = min(sampled_distance(link, w, 151) for link in links for w in WALLS)
        itself = min(sampled_distance(links[i], links[j], 151) for i, j in ((0, 2), (0, 3), (1, 3)))
        if abs(wall - WALL_GAP) > 0.02 and abs(itself - SELF_GAP) > 0.02:  # sampling is coarser than the code
            found.append([bool(flag) for flag in touching(jnp.asarray(points, jnp.float32), body.mask)])
            expected.append([wall < WALL_GAP, itself < SELF_GAP])
    assert found == expected and len(found) > 30
    assert {True, False} == {flag for pair in expected for flag in pair}


def test_an_arm_that_presses_on_a_wall_stays_in_front_of_it_and_pays(world):
    env, body, step = world
    state, start = env.reset(jax.random.key(0), body)
    assert not any(touching(env.link_positions(state), body.mask))
    push = jnp.array([[-1.0, 0.0, 0.0, 0.0]])  # clockwise: down onto the upper wall's first corner
    rewards = []
    for _ in range(60):
        before = env.goal_distance(state)
        state, seen = step(jax.random.key(1), state, push, body)
        gained = (before - env.goal_distance(state)) / np.hypot(*GOAL)
        rewards.append(float(seen.reward[0] - gained))
        assert not any(touching(env.link_positions(state), body.mask))
    assert state.wall_contacts > 0
    assert {round(reward, 4) for reward in rewards} == {0.0, -0.02}
    assert set(seen.metrics) == set(METRICS) == set(start.metrics)


def test_coming_nearer_without_touching_never_costs_and_to_and_fro_earns_nothing(world):
    env, body, step = world
    random = np.random.default_rng(2)
    state, _ = env.reset(jax.random.key(0), body)
    distances, total, touched = [float(env.goal_distance(state))], 0.0, 0
    for _ in range(120):
        contacts = state.wall_contacts + state.self_contacts
        state, seen = step(jax.random.key(1), state, jnp.asarray(random.uniform(-1, 1, (1, 4)), jnp.float32), body)
        distances.append(float(env.goal_distance(state)))
        touches = bool(state.wall_contacts + state.self_contacts > contacts)
        if distances[-1] < distances[-2] and not touches:
            assert seen.reward[0] > 0
        touched += touches
        total += float(seen.reward[0])
        assert not seen.terminated
    gained = (distances[0] - distances[-1]) / np.hypot(*GOAL)
    assert total == pytest.approx(gained - 0.02 * touched, abs=1e-4)


def test_arriving_ends_the_episode_and_is_paid(world):
    env, body, step = world
    state, _ = env.reset(jax.random.key(0), body)
    # Up past the lower wall, under the upper one's first corner, down and up again: found by hand.
    state = state.replace(angles=jnp.array([1.3, -0.7, -0.95, 0.85]))
    assert float(env.goal_distance(state)) < GOAL_RADIUS and not any(touching(env.link_positions(state), body.mask))
    state, seen = step(jax.random.key(1), state, jnp.zeros((1, 4)), body)
    assert seen.terminated and not seen.truncated and seen.metrics["success"] == 1
    assert seen.reward[0] == pytest.approx(ARRIVAL, abs=1e-3)


def test_a_links_token_tells_how_far_the_nearest_wall_is(world):
    env = world[0]
    body = make_body(np.float32([0.5, 0.9, 0.5, 0.0]), np.array([True, True, True, False]))
    state, start = env.reset(jax.random.key(0), body)
    assert start.observation.shape == (1, 4 * (TOKEN + 1) + GLOBAL) == (1, *env.spec.observation.shape)
    tokens, mask, whole = env.spec.tokens.split(np.asarray(start.observation[0]))
    assert mask.tolist() == [True, True, True, False] and not tokens[3].any()
    heading = np.cumsum(np.asarray(state.angles, float))
    places = np.concatenate([[0], np.cumsum(np.asarray(body.lengths) * np.exp(1j * heading))])
    points = np.stack([places.real, places.imag], axis=1)
    nearest = [min(sampled_distance(points[i : i + 2], wall) for wall in WALLS) for i in range(3)]
    np.testing.assert_allclose(tokens[:3, TOKEN - 1], nearest, atol=8e-3)
    np.testing.assert_allclose(tokens[:3, 3], [0.5 / 1.9, 0.9 / 1.9, 0.5 / 1.9], rtol=1e-5)
    np.testing.assert_allclose(whole[2:4], np.array(GOAL) / 1.9, rtol=1e-5)  # the goal is the target


def test_patience_ends_it_too_and_bad_actions_are_counted(world):
    body = world[1]
    short = ReacherZigzag(episode_length=1)
    state, _ = short.reset(jax.random.key(0), body)
    _, seen = short.step(jax.random.key(1), state, jnp.array([[jnp.nan, 9.0, 0.0, 0.0]]), body)
    assert seen.truncated and not seen.terminated and seen.metrics["nan_actions"] == 1
    assert np.isfinite(seen.observation).all()
    with pytest.raises(ValueError, match="total_length"):
        ReacherZigzag(total_length=1.0)
