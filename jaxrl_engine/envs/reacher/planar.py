"""The arm's physics in closed form: a planar serial chain in O(links), two orders of magnitude faster than an engine.

Link k turns with the heading φ = cumsum(θ) about its joint; r_k is the way from there to the next joint, m_k its mass,
centred halfway, and I_k its inertia about its joint. The equations of motion are

    (M + diag(a + δ d)) θ̈ = τ − d θ̇ − h,

with M and h the mass matrix and the centrifugal terms of the links, motors' torque τ, damping d and rotor inertia
(armature) a. The term δ d (δ the time step) makes the damping implicit, as in MuJoCo's Euler integrator and in Brax's
with the exact inverse; then θ̇ += δ θ̈ and θ += δ θ̇.

They are solved without forming M. To the link before, everything from joint k on is a body that can be pushed and
turned: to move joint k with acceleration `a` and the link before it with angular acceleration α takes

    moment n = J α + h·a + n₀,    force f = h α + N a + f₀.

One pass from the tip to the shoulder finds (J, h, N, n₀, f₀) of what lies beyond each joint, one back again the
accelerations. A disabled link (no length, no mass) adds nothing, and its rotor keeps its joint at rest.

Source: Featherstone 2008, Rigid Body Dynamics Algorithms, ch. 7 (the articulated-body algorithm), written for the plane
with axes that do not turn; MuJoCo, Computation: Numerical integration.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf
from jaxrl_engine.envs.reacher.body import Body, link_inertia


class Chain(Struct):
    """What of a body the equations need; constant over an episode."""

    lengths: Float[Leaf, "*batch links"]  # m
    masses: Float[Leaf, "*batch links"]  # kg
    inertia: Float[Leaf, "*batch links"]  # I, kg m²
    rotor: Float[Leaf, "*batch links"]  # a + δ d, kg m²
    torque: Float[Leaf, "*batch links"]  # N m at action 1
    damping: Float[Leaf, "*batch links"]  # N m s/rad


class Moving(Struct):
    """The links as they stand and turn."""

    way: Float[Leaf, "*batch 2"]  # r, m
    turning: Float[Leaf, "*batch"]  # φ̇², 1/s²
    torque: Float[Leaf, "*batch"]  # τ − d θ̇, N m
    rotor: Float[Leaf, "*batch"]
    mass: Float[Leaf, "*batch"]
    inertia: Float[Leaf, "*batch"]


class Beyond(Struct):
    """How the arm beyond a joint resists: (J, h, N) times the accelerations, and what it does by itself."""

    turn: Float[Leaf, "*batch"]  # J, kg m²
    cross: Float[Leaf, "*batch 2"]  # h, kg m
    push: Float[Leaf, "*batch 2 2"]  # N, kg
    moment: Float[Leaf, "*batch"]  # n₀, N m
    force: Float[Leaf, "*batch 2"]  # f₀, N


class Response(Struct):
    """A joint's own acceleration: θ̈ = free − turn · α − push · a."""

    free: Float[Leaf, "*batch"]
    turn: Float[Leaf, "*batch"]
    push: Float[Leaf, "*batch 2"]


def make_chain(body: Body, timestep: float) -> Chain:
    """Return the constants of one body `[links]` for steps of `timestep` seconds."""
    lengths, masses, damping = jnp.asarray(body.lengths), jnp.asarray(body.masses), jnp.asarray(body.damping)
    return Chain(
        lengths=lengths, masses=masses, inertia=link_inertia(body) + masses * jnp.square(lengths) / 4,
        rotor=jnp.asarray(body.armature) + timestep * damping, torque=jnp.asarray(body.torque), damping=damping,
    )  # fmt: skip


def step(
    chain: Chain,
    angles: Float[Array, "links"],
    velocities: Float[Array, "links"],
    effort: Float[Array, "links"],
    timestep: float,
) -> tuple[Float[Array, "links"], Float[Array, "links"]]:
    """Advance one arm by `timestep` seconds under motors at `effort` of their torque; returns θ (rad) and θ̇ (rad/s)."""
    heading = jnp.cumsum(angles)
    links = Moving(
        way=chain.lengths[:, None] * jnp.stack([jnp.cos(heading), jnp.sin(heading)], axis=-1),
        turning=jnp.square(jnp.cumsum(velocities)), torque=chain.torque * effort - chain.damping * velocities,
        rotor=chain.rotor, mass=chain.masses, inertia=chain.inertia,
    )  # fmt: skip
    velocities = velocities + timestep * accelerations(links)
    return angles + timestep * velocities, velocities


def accelerations(links: Moving) -> Float[Array, "links"]:
    """Solve the equations of motion of one arm `[links]`: θ̈ in rad/s²."""
    zero, nowhere = jnp.zeros(()), jnp.zeros(2)
    nothing = Beyond(turn=zero, cross=nowhere, push=jnp.zeros((2, 2)), moment=zero, force=nowhere)
    _, responses = jax.lax.scan(_inwards, nothing, links, reverse=True)
    return jax.lax.scan(_outwards, (zero, nowhere), (links, responses))[1]


def _inwards(beyond: Beyond, link: Moving) -> tuple[Beyond, Response]:
    """Add one link to what lies beyond it, and let its joint turn freely under its torque."""
    across = _across(link.way)
    drawn_in = -link.turning * link.way  # acceleration of the far joint that turning alone gives, m/s²
    force = beyond.force + (beyond.push * drawn_in[None]).sum(axis=1)
    cross = beyond.cross + (beyond.push * across[None]).sum(axis=1)
    turn = beyond.turn + (across * (beyond.cross + cross)).sum() + link.inertia
    moment = beyond.moment + (beyond.cross * drawn_in).sum() + (across * force).sum()
    cross = cross + link.mass / 2 * across
    push = beyond.push + link.mass * jnp.eye(2)
    force = force + link.mass / 2 * drawn_in
    inverse = 1.0 / (turn + link.rotor)
    response = Response(free=(link.torque - moment) * inverse, turn=turn * inverse, push=cross * inverse)
    joined = Beyond(
        turn=turn - turn * response.turn, cross=cross - turn * response.push,
        push=push - cross[:, None] * response.push[None], moment=moment + turn * response.free,
        force=force + cross * response.free,
    )  # fmt: skip
    return joined, response


def _outwards(
    base: tuple[Float[Array, ""], Float[Array, "2"]], link: tuple[Moving, Response]
) -> tuple[tuple[Float[Array, ""], Float[Array, "2"]], Float[Array, ""]]:
    """From how the link before turns (α) and the joint moves (a), how this link turns and the next joint moves."""
    (turn, move), (moving, response) = base, link
    joint = response.free - response.turn * turn - (response.push * move).sum()
    turn = turn + joint
    return (turn, move + turn * _across(moving.way) - moving.turning * moving.way), joint


def _across(way: Float[Array, "2"]) -> Float[Array, "2"]:
    """A quarter turn to the left: how a point moves, per rad, that lies this way from the centre of a turn."""
    return jnp.stack([-way[1], way[0]])
