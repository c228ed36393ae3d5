"""The arm as data, as MJCF and as a Brax system: a planar chain of capsules with a motor in every joint.

A `Body` is a pytree of arrays `[*batch, links]`, so that many bodies can become one batched argument. The motors are
the same for every body: what is longer or heavier moves more slowly, and bodies matter. MuJoCo's document of a body is
the reference for its physics; Brax reads the same document.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf
from jaxrl_engine.envs.chatter import without_chatter

with without_chatter():
    from brax.io import mjcf

MAX_LINKS = 8
LINEAR_DENSITY = 1.0  # kg per metre of arm
SLENDERNESS = 0.02  # radius of the capsules over the arm's total length
TORQUE = 16.0  # N m at full action
DAMPING = 2.0  # N m s/rad: a free joint settles at TORQUE / DAMPING = 8 rad/s
ARMATURE = 0.005  # kg m² of the rotor, small beside a link's own inertia (0.083 kg m² for half of a one-metre arm)


class Body(Struct):
    """A chain of links from the shoulder to the tip, with the motor that turns each of them against the one before."""

    lengths: Float[Leaf, "*batch links"]  # m, from joint to joint
    masses: Float[Leaf, "*batch links"]  # kg
    radii: Float[Leaf, "*batch links"]  # m
    torque: Float[Leaf, "*batch links"]  # N m at action 1
    damping: Float[Leaf, "*batch links"]  # N m s/rad
    armature: Float[Leaf, "*batch links"]  # kg m²


def uniform_body(num_links: int, total_length: float) -> Body:
    """Return an arm of `num_links` equal links that is `total_length` metres long."""
    lengths: Any = np.full(num_links, total_length / num_links, np.float32)
    ones: Any = np.ones(num_links, np.float32)
    return Body(
        lengths=lengths, masses=LINEAR_DENSITY * lengths, radii=SLENDERNESS * total_length * ones,
        torque=TORQUE * ones, damping=DAMPING * ones, armature=ARMATURE * ones,
    )  # fmt: skip


def to_mjcf(body: Body, timestep: float) -> str:
    """Write one body `[links]` as an MJCF document, integrated in steps of `timestep` seconds.

    There is no gravity and nothing to collide with; the hinges turn without limits (limits cost Brax a constraint
    solver per step). Setting `matrix_inv_iterations` to 0 makes Brax invert the mass matrix exactly and integrate the
    damping implicitly, as MuJoCo's Euler integrator does.
    """
    opening, motors = [], []
    offset = 0.0
    for link in range(len(body.lengths)):
        length = float(body.lengths[link])
        opening.append(
            f'<body name="link{link}" pos="{offset!r} 0 0">'
            f'<joint name="joint{link}" type="hinge" axis="0 0 1" damping="{float(body.damping[link])!r}"'
            f' armature="{float(body.armature[link])!r}"/>'
            f'<geom type="capsule" fromto="0 0 0 {length!r} 0 0" size="{float(body.radii[link])!r}"'
            f' mass="{float(body.masses[link])!r}" contype="0" conaffinity="0"/>'
        )
        motors.append(
            f'<motor joint="joint{link}" gear="{float(body.torque[link])!r}" ctrllimited="true" ctrlrange="-1 1"/>'
        )
        offset = length
    return (
        f'<mujoco model="reacher"><option timestep="{timestep!r}" gravity="0 0 0"/>'
        '<custom><numeric name="matrix_inv_iterations" data="0"/></custom>'
        f"<worldbody>{''.join(opening)}{'</body>' * len(opening)}</worldbody>"
        f"<actuator>{''.join(motors)}</actuator></mujoco>"
    )


def to_system(body: Body, timestep: float) -> Any:
    """Build the `brax.System` of one body `[links]`; it holds arrays, never tracers, wherever it is built."""
    with without_chatter(), jax.ensure_compile_time_eval():
        return mjcf.loads(to_mjcf(body, timestep))


def link_positions(lengths: Float[Leaf, "links"], angles: Float[Array, "links"]) -> Float[Array, "links+1 2"]:
    """Return where shoulder, joints and tip are: p_k = Σ_{i<k} l_i (cos φ_i, sin φ_i), φ_i = Σ_{j≤i} θ_j, in metres."""
    heading = jnp.cumsum(angles)
    links = lengths[:, None] * jnp.stack([jnp.cos(heading), jnp.sin(heading)], axis=-1)
    return jnp.concatenate([jnp.zeros((1, 2)), jnp.cumsum(links, axis=0)])
