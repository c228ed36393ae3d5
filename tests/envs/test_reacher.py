"""The reacher against plane geometry and its own task worked out by hand."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
import scipy.stats

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.envs.reacher.body import (
    ARMATURE,
    link_positions,
    make_body,
    random_body,
    target_radii,
    uniform_body,
)
from jaxrl_engine.envs.reacher.env import METRICS, Reacher
from jaxrl_engine.envs.reacher.system import to_mjcf
from jaxrl_engine.envs.reacher.view import GLOBAL, TOKEN
from jaxrl_engine.envs.registry import make_env


@pytest.fixture(scope="module", autouse=True)
def _brax_broadcasts_across_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


def arm(num_links=2, **kwargs):
    """A reacher, its body and its compiled step."""
    env = Reacher(num_links=num_links, **kwargs)
    return env, env.default_params(), jax.jit(env.step)


@pytest.fixture(scope="module")
def two():
    """The default arm; most tests share its one program."""
    return arm()


def rollout(env_body_step, angles, actions):
    """Return the states `[T]` and TimeSteps `[T]` from rest at `angles` under `actions` [T, n]."""
    env, body, step = env_body_step
    state, _ = env.reset(jax.random.key(0), body)
    state = state.replace(angles=jnp.asarray(angles, jnp.float32))
    outcomes = []
    for action in np.asarray(actions, np.float32):
        state, timestep = step(jax.random.key(1), state, jnp.asarray(action)[None], body)
        outcomes.append((state, timestep))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *outcomes)


@pytest.mark.slow
def test_mjx_agrees(two):
    actions = np.random.default_rng(1).uniform(-1, 1, (11, 2))
    ours, _ = rollout(two, [0.3, -2.0], actions)
    mjx, _ = rollout(arm(2, physics="mjx"), [0.3, -2.0], actions)
    np.testing.assert_allclose(ours.angles, mjx.angles, atol=2e-5)


def test_forward_kinematics_is_a_sum_of_complex_exponentials():
    random = np.random.default_rng(0)
    lengths, angles = random.uniform(0.1, 1, (7, 5)), random.uniform(-9, 9, (7, 5))
    heading = np.cumsum(angles, axis=1)
    expected = np.cumsum(lengths * np.exp(1j * heading), axis=1)
    found = np.asarray(jax.vmap(link_positions)(jnp.asarray(lengths), jnp.asarray(angles)))
    assert found.shape == (7, 6, 2) and not found[:, 0].any()
    np.testing.assert_allclose(found[:, 1:, 0] + 1j * found[:, 1:, 1], expected, atol=1e-5)
    # An elbow: up by two, then left by three.
    np.testing.assert_allclose(
        link_positions(jnp.array([2.0, 3.0]), jnp.array([jnp.pi / 2, jnp.pi / 2])),
        [[0, 0], [0, 2], [-3, 2]], atol=1e-6,
    )  # fmt: skip


@pytest.mark.parametrize("num_links", [1, 2, 3, 5, 8])
def test_links_outweigh_rotors(num_links):
    """At least half of the mean diagonal of the mass matrix is the links' own inertia, so that bodies matter."""

    def mean_diagonal(armature):
        body = uniform_body(num_links, 1.0).replace(armature=np.full(num_links, armature, np.float32))
        model = mujoco.MjModel.from_xml_string(to_mjcf(body, 0.02))
        data, column, total = mujoco.MjData(model), np.zeros(num_links), 0.0
        for angles in np.random.default_rng(5).uniform(-np.pi, np.pi, (101, num_links)):
            data.qpos[:] = angles
            mujoco.mj_forward(model, data)
            for joint, unit in enumerate(np.eye(num_links)):
                mujoco.mj_mulM(model, data, column, unit)
                total += column[joint] / num_links
        return total / 101

    links_alone = mean_diagonal(0.0)
    assert links_alone / mean_diagonal(ARMATURE) >= 0.5
    assert links_alone / mean_diagonal(1.0) < 0.3  # what the armature of the stock reacher would leave of it


def test_links_weigh_what_they_are_long():
    model = mujoco.MjModel.from_xml_string(to_mjcf(uniform_body(5, 2.0), 0.02))
    np.testing.assert_allclose(model.body_mass[1:], 0.4, rtol=1e-6)
    assert model.ngeom == 5 and model.nv == 5 and not model.jnt_limited.any()


def test_motors_cross_the_workspace_well_within_an_episode(two):
    states, _ = rollout(two, [0.0, 0.0], np.tile([1.0, 0.0], (25, 1)))
    assert np.argmax(np.abs(states.angles[:, 0]) > np.pi) > 0  # the stretched arm turned half round in half an episode


def starts(env, body=None, count=4001):
    keys = jax.random.split(jax.random.key(2), count)
    return jax.vmap(env.reset, in_axes=(0, None))(keys, env.default_params() if body is None else body)[0]


@pytest.mark.parametrize("target", ["ring", "disc"])
def test_targets_of_equal_links_are_uniform_over_the_disc(target):
    state = starts(Reacher(num_links=3, total_length=2.0, target=target))
    x, y = np.asarray(state.target).T
    assert scipy.stats.kstest((x**2 + y**2) / 4, "uniform").pvalue > 0.01  # area within a radius goes as its square
    assert scipy.stats.kstest(np.arctan2(y, x) / (2 * np.pi) + 0.5, "uniform").pvalue > 0.01
    for angle in np.asarray(state.angles).T:
        assert scipy.stats.kstest(angle / (2 * np.pi) + 0.5, "uniform").pvalue > 0.01
    assert not np.asarray(state.velocities).any()


def test_ring_is_what_the_tip_can_reach():
    distance = np.linalg.norm(starts(Reacher(num_links=1)).target, axis=1)
    np.testing.assert_allclose(distance, 1.0, rtol=1e-6)
    # With links 0.7 + 0.1 + 0.2 the hole has radius 0.7 - 0.3 = 0.4, and r² is uniform between 0.16 and 1.
    body = make_body(np.float32([0.7, 0.1, 0.2]), np.ones(3, bool))
    np.testing.assert_allclose(target_radii(body), [0.4, 1.0], rtol=1e-6)
    distance = np.linalg.norm(starts(Reacher(num_links=3), body).target, axis=1)
    assert scipy.stats.kstest((distance**2 - 0.16) / 0.84, "uniform").pvalue > 0.01


def test_mixed_bodies_are_of_every_number_of_links_and_keep_their_length():
    state = starts(Reacher(num_links=7, bodies="mixed", min_links=3, total_length=2.0))
    counts = np.asarray(state.body.mask).sum(axis=1)
    observed = np.bincount(counts, minlength=8)
    assert not observed[:3].any() and scipy.stats.chisquare(observed[3:]).pvalue > 0.01
    lengths, mask = np.asarray(state.body.lengths), np.asarray(state.body.mask)
    np.testing.assert_allclose(lengths.sum(axis=1), 2.0, rtol=1e-5)
    assert ((lengths > 0) == mask).all() and (mask == (np.arange(7)[None] < counts[:, None])).all()
    np.testing.assert_allclose(state.body.masses.sum(axis=1), 2.0, rtol=1e-5)  # one kilogram per metre
    assert not np.asarray(state.angles)[~mask].any()
    longest = lengths.max(axis=1) / lengths.sum(axis=1) * counts  # over the mean link
    assert longest.min() > 1.0 and longest.max() < 1.5 / 0.5
    one = random_body(jax.random.key(3), jnp.int32(4), 1.0, 7)
    assert one.mask.tolist() == [True] * 4 + [False] * 3


def test_reward_and_metrics_by_hand(two):
    env, body, step = two
    state, start = env.reset(jax.random.key(4), body)
    assert set(start.metrics) == set(METRICS) == set(env.spec.metric_names)
    assert not any(start.metrics.values())
    # At rest without torque nothing moves: straight along x, the tip is at (1, 0).
    state = state.replace(angles=jnp.zeros(2), target=jnp.array([1.0, 0.045]))
    _, near = step(jax.random.key(5), state, jnp.zeros((1, 2)), body)
    assert near.metrics["success"] == 1 and near.metrics["energy"] == 0
    assert near.metrics["final_distance"] == pytest.approx(0.045)
    _, far = step(jax.random.key(5), state.replace(target=jnp.array([1.0, 0.25])), jnp.zeros((1, 2)), body)
    assert far.metrics["success"] == 0 and far.metrics["final_distance"] == pytest.approx(0.25)
    # Nothing was gained, nothing spent: only the delay and the bonus for being there.
    assert near.reward[0] == pytest.approx(-0.1 * 0.045 + 0.05) and far.reward[0] == pytest.approx(-0.1 * 0.25)
    # Energy: motor torque times joint speed, held for one step, in magnitude.
    after, moved = step(jax.random.key(5), state, jnp.array([[0.5, -1.0]]), body)
    torque = np.asarray(body.torque) * [0.5, -1.0]
    assert moved.metrics["energy"] == pytest.approx(np.abs(torque * after.velocities).sum() * 0.04, rel=1e-5)
    tip = np.asarray(body.lengths) @ np.exp(1j * np.cumsum(after.angles))
    distance = abs(tip - (1 + 0.045j))
    stays = 0.05 * (distance <= 0.05)
    gained = 0.045 - distance
    assert moved.reward[0] == pytest.approx(gained - 0.1 * distance + stays - 0.001 * (0.25 + 1) / 2, abs=1e-6)
    # A motor that brakes spends energy too.
    braked, _ = step(jax.random.key(5), state.replace(velocities=jnp.array([3.0, 0.0])), jnp.array([[-0.1, 0.0]]), body)
    assert braked.velocities[0] > 0 and braked.energy > 0
    again, _ = step(jax.random.key(5), after, jnp.array([[0.5, -1.0]]), body)
    assert again.energy > after.energy


def test_observation_by_hand():
    env = Reacher(num_links=4, total_length=2.0)
    body = make_body(np.float32([0.5, 1.0, 0.5, 0.0]), np.array([True, True, True, False]))
    state, _ = env.reset(jax.random.key(4), body)
    angles, velocities = np.array([0.4, -1.1, 2.0, 0.0]), np.array([1.0, -2.0, 4.0, 0.0])
    state = state.replace(angles=jnp.asarray(angles), velocities=jnp.asarray(velocities), target=jnp.array([0.6, -1.0]))
    _, timestep = env.step(jax.random.key(5), state.replace(velocities=jnp.zeros(4)), jnp.zeros((1, 4)), body)
    assert timestep.observation.shape == (1, 4 * TOKEN + GLOBAL) == (1, *env.spec.observation.shape)
    places = np.concatenate([[0], np.cumsum(np.array([0.5, 1.0, 0.5]) * np.exp(1j * np.cumsum(angles[:3])))])
    tip, target = places[-1], 0.6 - 1.0j
    tokens, mask, whole = env.spec.tokens.split(env._observe(state))
    assert mask.tolist() == [True, True, True, False] and not np.asarray(tokens[3]).any()
    for link, (length, start) in enumerate(zip((0.5, 1.0, 0.5), places[:3], strict=True)):
        to_tip, to_target = (tip - start) / 2, (target - start) / 2
        pull = (to_tip.conjugate() * (target - tip) / 2).imag
        expected = [np.cos(angles[link]), np.sin(angles[link]), velocities[link] / 8, length / 2,
                    to_tip.real, to_tip.imag, to_target.real, to_target.imag, pull, 1]  # fmt: skip
        np.testing.assert_allclose(tokens[link], expected, atol=1e-6)
    way = (target - tip) / 2
    expected = [tip.real / 2, tip.imag / 2, 0.3, -0.5, way.real, way.imag, 2]
    np.testing.assert_allclose(whole[:7], expected, atol=1e-6)
    assert whole[7:].tolist() == [0, 0]  # weight and motors of the family


def test_thickness_and_gear_are_seen_by_hand():
    """Half as thick again: 2.25 of the mass. Four times the gear: four times the torque, a quarter of the speed."""
    env = Reacher(num_links=3, total_length=2.0)
    lengths, mask = np.float32([0.5, 1.5, 0.0]), np.array([True, True, False])
    state, _ = env.reset(jax.random.key(4), make_body(lengths, mask, thickness=1.5, gear=4.0))
    tokens, _, whole = env.spec.tokens.split(env._observe(state.replace(velocities=jnp.array([1.0, -3.0, 0.0]))))
    np.testing.assert_allclose(whole[7:], [0.8109302, 1.3862944], atol=1e-6)  # ln 2.25, ln 4
    np.testing.assert_allclose(tokens[:, 2], [1 / 2, -3 / 2, 0], atol=1e-6)  # over the free joint's 2 rad/s
    weightless = state.body.replace(masses=jnp.zeros(3), torque=jnp.zeros(3))
    _, _, whole = env.spec.tokens.split(env._observe(state.replace(body=weightless)))
    np.testing.assert_allclose(whole[7:], [-13.815511] * 2, rtol=1e-6)  # ln 1e-6: shown, and finite


def test_thickness_and_gear_make_another_arm_of_the_same_material_and_motors():
    lengths, mask = np.float32([0.4, 0.6, 0.0]), np.array([True, True, False])
    body = make_body(lengths, mask, thickness=3.0, gear=0.5)
    np.testing.assert_allclose(body.masses, [0.4 * 9, 0.6 * 9, 0], rtol=1e-6)
    np.testing.assert_allclose(body.radii, [0.06] * 3, rtol=1e-6)
    np.testing.assert_allclose(body.torque, [8, 8, 0], rtol=1e-6)
    np.testing.assert_allclose(body.damping, [0.5] * 3, rtol=1e-6)
    np.testing.assert_allclose(body.armature, [0.00125] * 3, rtol=1e-6)
    plain = make_body(lengths, mask)
    jax.tree.map(np.testing.assert_array_equal, make_body(lengths, mask, 1.0, 1.0), plain)
    many = jax.vmap(make_body, in_axes=(None, None, 0, 0))(lengths, mask, jnp.array([1.0, 3.0]), jnp.array([1.0, 0.5]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[1], rtol=1e-6), body, many)


def test_a_joints_pull_is_how_the_tip_nears_the_target():
    """By the differential of half the squared distance: -d(|target - tip|² / 2)/dθ = pull · L²."""
    env = Reacher(num_links=3, total_length=2.0)
    state, _ = env.reset(jax.random.key(8), env.default_params())

    def half_square(angles):
        tip = np.asarray(link_positions(state.body.lengths, angles))[-1]
        return 0.5 * np.square(tip - np.asarray(state.target)).sum()

    for joint in range(3):
        nudge = 1e-2 * np.eye(3, dtype=np.float32)[joint]
        slope = (half_square(state.angles + nudge) - half_square(state.angles - nudge)) / 2e-2
        pull = float(env.spec.tokens.split(env._observe(state))[0][joint, 8])
        assert pull * 4 == pytest.approx(-slope, abs=2e-3)


def test_actions_that_are_no_numbers_are_zero_and_counted(two):
    env, body, step = two
    state, _ = env.reset(jax.random.key(4), body)
    wrong, seen = step(jax.random.key(5), state, jnp.array([[jnp.nan, 1.0]]), body)
    right, _ = step(jax.random.key(5), state, jnp.array([[0.0, 1.0]]), body)
    np.testing.assert_array_equal(wrong.angles, right.angles)
    assert seen.metrics["nan_actions"] == 1 and np.isfinite(seen.observation).all() and np.isfinite(seen.reward).all()
    _, seen = step(jax.random.key(5), wrong, jnp.full((1, 2), jnp.nan), body)
    assert seen.metrics["nan_actions"] == 3


def test_only_the_limit_ends_an_episode(two):
    _, timestep = rollout(two, [1.0, 1.0], np.zeros((50, 2)))
    assert not timestep.terminated.any()
    assert timestep.truncated.tolist() == [False] * 49 + [True]
    assert two[0].spec.time_limit == 50


def test_actions_beyond_the_range_do_no_more(two):
    ours = rollout(two, [0.0, 1.0], [[1.0, -1.0]] * 3)
    beyond = rollout(two, [0.0, 1.0], [[7.0, -3.0]] * 3)
    jax.tree.map(np.testing.assert_array_equal, ours, beyond)


def test_batch_equals_loop_jit_equals_no_jit_and_no_key_is_used_twice():
    env = Reacher(num_links=3, bodies="mixed")
    body = env.default_params()
    keys = jax.random.split(jax.random.key(6), 6)
    copies = jax.random.clone(keys)
    actions = jax.random.uniform(jax.random.key(7), (3, 1, 3), minval=-1.0)
    with jax.debug_key_reuse(True):
        state, start = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(keys[:3], body)
        batched = jax.jit(jax.vmap(env.step, in_axes=(0, 0, 0, None)))(keys[3:], state, actions, body)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(batched))
    own, own_start = env.reset(copies[1], body)
    single = env.step(copies[4], own, actions[1], body)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b[1], atol=1e-5), (own_start, *single), (start, *batched)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lengths": np.float32([0.5, -0.1, 0.0])}, "body.lengths"),
        ({"lengths": np.float32([0.5, np.nan, 0.0])}, "body.lengths"),
        ({"lengths": np.float32([0.5, 0.5, 0.2])}, "body.lengths"),  # a disabled link has none
        ({"mask": np.array([True, False, True])}, "body.mask"),
        ({"mask": np.array([False, False, False])}, "body.mask"),
        ({"masses": np.float32([1.0, -1.0, 0.0])}, "body.masses"),
        ({"radii": np.zeros(3, np.float32)}, "body.radii"),
        ({"damping": np.float32([1.0, np.inf, 1.0])}, "body.damping"),
        ({"armature": np.zeros(3, np.float32), "damping": np.zeros(3, np.float32)}, "body.armature"),
    ],
)
def test_a_body_outside_the_family_is_refused(changes, named):
    env = Reacher(num_links=3)
    body = make_body(np.float32([0.5, 0.5, 0.0]), np.array([True, True, False]))
    env.reset(jax.random.key(0), body)
    with pytest.raises(ValueError, match=named):
        env.reset(jax.random.key(0), body.replace(**changes))


def test_a_body_of_another_number_of_slots_is_refused():
    with pytest.raises(ValueError, match=r"body.lengths must be 3 links, .*, not 2"):
        Reacher(num_links=3).reset(jax.random.key(0), uniform_body(2, 1.0))


def test_a_body_is_given_by_its_lengths():
    env, body = make_env("reacher", {"num_links": 3, "lengths": "0.5,0.25,1"})
    np.testing.assert_allclose(body.lengths, [0.5, 0.25, 1.0])
    assert env.spec.remark == "planar physics" and body.mask.all()
    for wrong in ("0.5,0.25", "0.5,0.25,-1", "0.5,0.25,far", "0.5,0.25,nan"):
        with pytest.raises(UserError, match="lengths must be 3 numbers"):
            make_env("reacher", {"num_links": 3, "lengths": wrong})
    with pytest.raises(UserError, match="lengths must be empty where bodies are mixed"):
        make_env("reacher", {"num_links": 2, "lengths": "0.5,0.5", "bodies": "mixed"})
