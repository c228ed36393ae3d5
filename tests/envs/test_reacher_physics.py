"""The arm's physics against MuJoCo's C engine."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from jaxrl_engine.envs.reacher.body import (
    ARMATURE,
    Body,
    link_inertia,
    link_positions,
    make_body,
)
from jaxrl_engine.envs.reacher.physics import physics
from jaxrl_engine.envs.reacher.system import to_mjcf

STEPS, SLOTS, TIMESTEP = 200, 8, 0.02


@pytest.fixture(scope="module", autouse=True)
def _brax_broadcasts_across_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


def uneven(num_links: int, slots: int, armature: float | None = None, seed: int = 0, **shares_of_ours: float) -> Body:
    """A one-metre arm of unequal links, with rotors of our choice or the family's, thick and geared as asked for."""
    shares = np.random.default_rng(seed + num_links).uniform(0.5, 1.5, num_links)
    lengths = np.zeros(slots, np.float32)
    lengths[:num_links] = shares / shares.sum()
    body = make_body(lengths, np.arange(slots) < num_links, **shares_of_ours)
    return body if armature is None else body.replace(armature=jnp.full(slots, armature))


def c_engine(body, angles, actions, substeps=2):
    """Joint angles and speeds [T, n] and the places of joints and tip [T, n+1, 2] that MuJoCo finds."""
    model = mujoco.MjModel.from_xml_string(to_mjcf(body, TIMESTEP))
    data = mujoco.MjData(model)
    data.qpos[:] = angles
    found = []
    for action in actions:
        data.ctrl[:] = action
        for _ in range(substeps):
            mujoco.mj_step(model, data)
        mujoco.mj_kinematics(model, data)
        tip = data.xpos[-1] + data.xmat[-1].reshape(3, 3) @ [body.lengths[-1], 0, 0]
        places = np.concatenate([data.xpos[1:, :2], tip[None, :2]])
        found.append((data.qpos.copy(), data.qvel.copy(), places))
    return [np.stack(column) for column in zip(*found, strict=True)]


@pytest.fixture(scope="module")
def simulate():
    """`(physics name) -> (body [8], angles [8], actions [T, 8]) -> angles, velocities [T, 8]`, compiled once each."""
    programs = {}

    def build(name):
        advance = physics(name, 2 * TIMESTEP, 2)

        def run(body, angles, actions):
            def step(joints, action):
                joints = advance(body, *joints, action)
                return joints, joints

            return jax.lax.scan(step, (angles, jnp.zeros_like(angles)), actions)[1]

        return jax.jit(run)

    return lambda name: programs.setdefault(name, None) or programs.update({name: build(name)}) or programs[name]


STOCK, LIGHT = {"armature": 1.0}, {"armature": 1e-4}
GEARED, THICK = {"gear": 1.7, "thickness": 0.6}, {"gear": 0.7, "thickness": 1.9}


@pytest.mark.parametrize("made", [STOCK, {}, LIGHT, GEARED, THICK], ids=["stock", "ours", "light", "geared", "thick"])
@pytest.mark.parametrize("name", ["planar", "brax"])
def test_padded_arms_move_as_mujocos_c_engine_moves_their_own_document(name, made, simulate):
    """200 steps, seven bodies: no chaos yet, the motors' damping holds it down."""
    for num_links in range(2, SLOTS + 1):
        random = np.random.default_rng(num_links)
        angles, actions = random.uniform(-3, 3, num_links), random.uniform(-1, 1, (STEPS, num_links))
        c_angles, c_speeds, c_places = c_engine(uneven(num_links, num_links, **made), angles, actions)
        assert np.abs(c_speeds).max() > (2.0 if made in ({}, LIGHT, GEARED) else 0.3)  # rad/s: it moved
        body = uneven(num_links, SLOTS, **made)
        start = jnp.zeros(SLOTS).at[:num_links].set(angles)
        found, speeds = simulate(name)(body, start, jnp.zeros((STEPS, SLOTS)).at[:, :num_links].set(actions))
        np.testing.assert_allclose(found[:, :num_links], c_angles, atol=2e-5)  # rad; single against double precision
        np.testing.assert_allclose(speeds[:, :num_links], c_speeds, atol=2e-4)  # rad/s
        np.testing.assert_allclose(found[:, num_links:], 0, atol=1e-5)  # disabled joints rest
        places = jax.vmap(link_positions, in_axes=(None, 0))(body.lengths, found)
        np.testing.assert_allclose(places[:, : num_links + 1], c_places, atol=2e-5)  # m
        np.testing.assert_allclose(places[:, num_links:], places[:, [num_links]].repeat(SLOTS + 1 - num_links, 1))


def test_different_bodies_in_one_program_move_as_each_alone(simulate):
    bodies = [uneven(num_links, SLOTS, ARMATURE) for num_links in (2, 5, 7)]
    random = np.random.default_rng(0)
    angles, actions = jnp.asarray(random.uniform(-3, 3, (3, SLOTS))), jnp.asarray(random.uniform(-1, 1, (3, 11, SLOTS)))
    together = jax.vmap(simulate("planar"))(jax.tree.map(lambda *x: jnp.stack(x), *bodies), angles, actions)
    for index, body in enumerate(bodies):
        alone = simulate("planar")(body, angles[index], actions[index])
        jax.tree.map(lambda a, b, index=index: np.testing.assert_allclose(a[index], b, atol=1e-5), together, alone)


def test_inertia_is_that_of_mujocos_capsule():
    body = uneven(5, 5, ARMATURE).replace(radii=np.array([0.02, 0.1, 0.3, 0.01, 0.05], np.float32))
    model = mujoco.MjModel.from_xml_string(to_mjcf(body, TIMESTEP))
    np.testing.assert_allclose(link_inertia(body), model.body_inertia[1:, 0], rtol=1e-5)


def test_substeps_are_physics_steps():
    actions = np.random.default_rng(1).uniform(-1, 1, (11, 2))
    body = uneven(2, 2, ARMATURE)
    advance = jax.jit(physics("planar", 5 * TIMESTEP, 5))
    joints, found = (jnp.array([0.3, -2.0]), jnp.zeros(2)), []
    for action in actions:
        joints = advance(body, *joints, jnp.asarray(action, jnp.float32))
        found.append(joints[0])
    np.testing.assert_allclose(found, c_engine(body, [0.3, -2.0], actions, substeps=5)[0], atol=2e-5)
