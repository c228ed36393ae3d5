"""The reacher against MuJoCo's C engine, plane geometry, and its own task worked out by hand."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
import scipy.stats

from jaxrl_engine.envs.reacher.body import ARMATURE, link_positions, to_mjcf, uniform_body
from jaxrl_engine.envs.reacher.env import METRICS, Reacher

STEPS = 53


@pytest.fixture(scope="module", autouse=True)
def _brax_broadcasts_across_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


def arm(num_links=2, lengths=None, armature=ARMATURE, **kwargs):
    """A reacher with a body of our choice, and its compiled step."""
    env = Reacher(num_links=num_links, **kwargs)
    body = env.body.replace(armature=np.full(num_links, armature, np.float32))
    if lengths is not None:
        body = body.replace(lengths=np.asarray(lengths, np.float32))
    vars(env)["body"] = body  # where functools.cached_property keeps it
    return env, jax.jit(env.step)


@pytest.fixture(scope="module")
def two():
    """The default arm; most tests share its one program."""
    return arm()


def rollout(env_and_step, angles, actions):
    """Return the states `[T]` and TimeSteps `[T]` from rest at `angles` under `actions` [T, n]."""
    env, step = env_and_step
    state, _ = env.reset(jax.random.key(0), ())
    state = state.replace(angles=jnp.asarray(angles, jnp.float32))
    outcomes = []
    for action in np.asarray(actions, np.float32):
        state, timestep = step(jax.random.key(1), state, jnp.asarray(action)[None], ())
        outcomes.append((state, timestep))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *outcomes)


def c_engine(env, angles, actions):
    """Joint angles, joint speeds [T, n] and the places of joints and tip [T, n+1, 2] that MuJoCo finds."""
    model = mujoco.MjModel.from_xml_string(to_mjcf(env.body, env.step_seconds / env.substeps))
    data = mujoco.MjData(model)
    data.qpos[:] = angles
    found = []
    for action in actions:
        data.ctrl[:] = action
        for _ in range(env.substeps):
            mujoco.mj_step(model, data)
        mujoco.mj_kinematics(model, data)
        tip = data.xpos[-1] + data.xmat[-1].reshape(3, 3) @ [env.body.lengths[-1], 0, 0]
        places = np.concatenate([data.xpos[1:, :2], tip[None, :2]])
        found.append((data.qpos.copy(), data.qvel.copy(), places))
    return [np.stack(column) for column in zip(*found, strict=True)]


@pytest.mark.parametrize("body", [(), (3, (0.2, 0.5, 0.3), 1e-4)], ids=["two equal", "three unequal, light rotors"])
def test_physics_equals_mujocos_c_engine(body, two):
    env, step = arm(*body) if body else two
    random = np.random.default_rng(3)
    angles = random.uniform(-3, 3, env.num_links)
    actions = random.uniform(-1, 1, (STEPS, env.num_links))
    states, _ = rollout((env, step), angles, actions)
    c_angles, c_speeds, c_places = c_engine(env, angles, actions)
    assert np.abs(c_speeds).max() > 1  # it moved
    np.testing.assert_allclose(states.angles, c_angles, atol=2e-5)  # rad; single against double precision
    np.testing.assert_allclose(states.velocities, c_speeds, atol=2e-4)  # rad/s
    places = jax.vmap(link_positions, in_axes=(None, 0))(env.body.lengths, jnp.asarray(states.angles))
    np.testing.assert_allclose(places, c_places, atol=2e-5)  # m


def test_substeps_are_physics_steps():
    env_and_step = arm(2, substeps=5, step_seconds=0.05)
    actions = np.random.default_rng(1).uniform(-1, 1, (11, 2))
    states, _ = rollout(env_and_step, [0.3, -2.0], actions)
    np.testing.assert_allclose(states.angles, c_engine(env_and_step[0], [0.3, -2.0], actions)[0], atol=2e-5)


@pytest.mark.slow
def test_mjx_agrees(two):
    actions = np.random.default_rng(1).uniform(-1, 1, (11, 2))
    ours, _ = rollout(two, [0.3, -2.0], actions)
    mjx, _ = rollout(arm(2, pipeline="mjx"), [0.3, -2.0], actions)
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
    body = uniform_body(5, 2.0)
    model = mujoco.MjModel.from_xml_string(to_mjcf(body, 0.02))
    np.testing.assert_allclose(model.body_mass[1:], 0.4, rtol=1e-6)
    assert model.ngeom == 5 and model.nv == 5 and not model.jnt_limited.any()


def test_motors_cross_the_workspace_well_within_an_episode(two):
    states, _ = rollout(two, [0.0, 0.0], np.tile([1.0, 0.0], (25, 1)))
    assert np.argmax(np.abs(states.angles[:, 0]) > np.pi) > 0  # the stretched arm turned half round in half an episode


def starts(env, count=4001):
    state, _ = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(jax.random.key(2), count), ())
    return state


def test_targets_are_uniform_over_the_disc():
    state = starts(Reacher(num_links=3, total_length=2.0))
    x, y = np.asarray(state.target).T
    assert scipy.stats.kstest((x**2 + y**2) / 4, "uniform").pvalue > 0.01  # area within a radius goes as its square
    assert scipy.stats.kstest(np.arctan2(y, x) / (2 * np.pi) + 0.5, "uniform").pvalue > 0.01
    for angle in np.asarray(state.angles).T:
        assert scipy.stats.kstest(angle / (2 * np.pi) + 0.5, "uniform").pvalue > 0.01
    assert not np.asarray(state.velocities).any()


def test_ring_is_what_the_tip_can_reach():
    distance = np.linalg.norm(starts(Reacher(num_links=1, target="ring")).target, axis=1)
    np.testing.assert_allclose(distance, 1.0, rtol=1e-6)
    # With links 0.7 + 0.1 + 0.2 the hole has radius 0.7 - 0.3 = 0.4, and r² is uniform between 0.16 and 1.
    distance = np.linalg.norm(starts(arm(3, (0.7, 0.1, 0.2), target="ring")[0]).target, axis=1)
    assert scipy.stats.kstest((distance**2 - 0.16) / 0.84, "uniform").pvalue > 0.01


def test_reward_and_metrics_by_hand(two):
    env, step = two
    state, start = env.reset(jax.random.key(4), ())
    assert set(start.metrics) == set(METRICS) == set(env.spec.metric_names)
    assert not any(start.metrics.values())
    # At rest without torque nothing moves: straight along x, the tip is at (1, 0).
    state = state.replace(angles=jnp.zeros(2), target=jnp.array([1.0, 0.045]))
    _, near = step(jax.random.key(5), state, jnp.zeros((1, 2)), ())
    assert near.metrics["success"] == 1 and near.metrics["energy"] == 0
    assert near.metrics["final_distance"] == pytest.approx(0.045)
    _, far = step(jax.random.key(5), state.replace(target=jnp.array([1.0, 0.25])), jnp.zeros((1, 2)), ())
    assert far.metrics["success"] == 0 and far.metrics["final_distance"] == pytest.approx(0.25)
    # Nothing was gained, nothing spent: only the delay and the bonus for being there.
    assert near.reward[0] == pytest.approx(-0.1 * 0.045 + 0.05) and far.reward[0] == pytest.approx(-0.1 * 0.25)
    # Energy: motor torque times joint speed, held for one step, in magnitude.
    after, moved = step(jax.random.key(5), state, jnp.array([[0.5, -1.0]]), ())
    torque = np.asarray(env.body.torque) * [0.5, -1.0]
    assert moved.metrics["energy"] == pytest.approx(np.abs(torque * after.velocities).sum() * 0.04, rel=1e-5)
    tip = env.body.lengths @ np.exp(1j * np.cumsum(after.angles))
    distance = abs(tip - (1 + 0.045j))
    stays = 0.05 * (distance <= 0.05)
    gained = 0.045 - distance
    assert moved.reward[0] == pytest.approx(gained - 0.1 * distance + stays - 0.001 * (0.25 + 1) / 2, abs=1e-6)
    # A motor that brakes spends energy too.
    braked, _ = step(jax.random.key(5), state.replace(velocities=jnp.array([3.0, 0.0])), jnp.array([[-0.1, 0.0]]), ())
    assert braked.velocities[0] > 0 and braked.energy > 0
    again, _ = step(jax.random.key(5), after, jnp.array([[0.5, -1.0]]), ())
    assert again.energy > after.energy


def test_observation_by_hand():
    env = Reacher(num_links=3, total_length=2.0)
    state, _ = env.reset(jax.random.key(4), ())
    assert env.spec.observation.shape == (15,) and env.spec.global_state.shape == (15,)
    angles, velocities = np.array([0.4, -1.1, 2.0]), np.array([1.0, -2.0, 4.0])
    state = state.replace(angles=jnp.asarray(angles), velocities=jnp.asarray(velocities), target=jnp.array([0.6, -1.0]))
    tip = (2 / 3 * np.exp(1j * np.cumsum(angles))).sum() / 2
    top_speed = env.body.torque / env.body.damping
    expected = [*np.cos(angles), *np.sin(angles), *(velocities / top_speed), tip.real, tip.imag, 0.3, -0.5,
                0.3 - tip.real, -0.5 - tip.imag]  # fmt: skip
    found = env._observe(state, env.link_positions(state)[-1])
    np.testing.assert_allclose(found, expected, atol=1e-6)


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
    env = Reacher()
    keys = jax.random.split(jax.random.key(6), 6)
    copies = jax.random.clone(keys)
    actions = jax.random.uniform(jax.random.key(7), (3, 1, 2), minval=-1.0)
    with jax.debug_key_reuse(True):
        state, start = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(keys[:3], ())
        batched = jax.jit(jax.vmap(env.step, in_axes=(0, 0, 0, None)))(keys[3:], state, actions, ())
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(batched))
    own, own_start = env.reset(copies[1], ())
    single = env.step(copies[4], own, actions[1], ())
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b[1], atol=1e-5), (own_start, *single), (start, *batched)
    )  # fmt: skip
