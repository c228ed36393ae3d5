"""What an arm sees: one token per link slot and a global vector, laid out flat, and its picture.

A flat observation is the tokens `[links, TOKEN]`, row by row, then the global vector `[GLOBAL]`
(`core.spaces.Tokens.split` takes it apart). Lengths are over the arm's total length, speeds over the motor's top speed.
All entries of a disabled slot are zero.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxrl_engine.core.scene import Ink, Scene, make_scene
from jaxrl_engine.core.spaces import Tokens
from jaxrl_engine.envs.reacher.body import LINEAR_DENSITY, TORQUE, Body

TOKEN = 10
"""cos θ, sin θ, θ̇, length, joint → tip (2), joint → target (2), pull, enabled (0 or 1).

What a world adds of its own for each link stands between pull and enabled.
A joint's pull is (joint → tip) × (tip → target): the moment of the way that is left, which says how turning this joint
alone moves the tip towards the target. It follows from the rest, but as a product, which takes a network long to learn.
"""

GLOBAL = 9
"""tip (2), target (2), tip → target (2), total length in metres, ln(mass / the family's), ln(torque / TORQUE).

An arm's mass is compared with that of an arm of the family as long as it is, its first motor with the family's: both
numbers are 0 for the family's own arms, whose `thickness` and `gear` are 1.
"""

SLIGHTEST = 1e-6
"""Shares of mass and torque below this are shown as this: an arm may weigh nothing, and a motor may be missing."""


def layout(links: int, extra: int = 0) -> Tokens:
    """How the view of an arm with this many link slots is laid out, with `extra` numbers of its own for each link."""
    return Tokens(count=links, size=TOKEN + extra)


def observation_size(tokens: Tokens) -> int:
    """Entries of the flat view laid out so."""
    return tokens.count * tokens.size + GLOBAL


def observe(
    body: Body,
    angles: Float[Array, "links"],
    velocities: Float[Array, "links"],
    target: Float[Array, "2"],
    points: Float[Array, "points 2"],
    extra: Float[Array, "links own"] | None = None,
) -> Float[Array, "D"]:
    """Return the flat view; `points` are shoulder, joints and tip in metres, `extra` the world's own of each link."""
    total = body.lengths.sum()
    tip = points[-1]
    top_speed = jnp.where(body.mask, body.torque / body.damping, 1.0)
    scalars = jnp.stack([jnp.cos(angles), jnp.sin(angles), velocities / top_speed, body.lengths / total], axis=-1)
    ways = jnp.concatenate([tip[None] - points[:-1], target[None] - points[:-1]], axis=-1) / total
    pull = ways[:, :1] * ways[:, 3:] - ways[:, 1:2] * ways[:, 2:3]
    own = jnp.zeros((len(angles), 0)) if extra is None else extra
    tokens = jnp.concatenate([scalars, ways, pull, own, jnp.ones((len(angles), 1))], axis=-1) * body.mask[:, None]
    shares = jnp.stack([body.masses.sum() / (LINEAR_DENSITY * total), body.torque[0] / TORQUE])
    ends = jnp.concatenate([tip, target, target - tip]) / total
    return jnp.concatenate([tokens.reshape(-1), ends, total[None], jnp.log(jnp.maximum(shares, SLIGHTEST))])


def arm_scene(
    points: Float[Array, "points 2"],
    goal: Float[Array, "2"],
    goal_radius: float,
    reached: Bool[Array, ""],
    extent: tuple[float, float, float, float],
    walls: Any = None,
) -> Scene:
    """Return the picture of an arm through `points` (shoulder, joints, tip), its goal, and walls `[n, 2, 2]`."""
    width = 0.02 * (extent[2] - extent[0])
    barriers = jnp.zeros((0, 2, 2)) if walls is None else jnp.asarray(walls)
    ends = jnp.concatenate([barriers, jnp.stack([points[:-1], points[1:]], axis=1)])
    lines = jnp.concatenate([ends.reshape(-1, 4), jnp.full((len(ends), 1), width)], axis=1)
    joints = jnp.concatenate([points, jnp.full((len(points), 1), 0.7 * width)], axis=1)
    target = jnp.append(goal, goal_radius)[None]
    return make_scene(
        extent,
        lines=lines,
        line_inks=jnp.array([Ink.WALL] * len(barriers) + [Ink.BODY] * (len(points) - 1)),
        discs=jnp.concatenate([target, joints]),
        disc_inks=jnp.append(jnp.where(reached, Ink.REACHED, Ink.GOAL), jnp.full(len(points), Ink.JOINT)),
    )
