"""What an arm sees: one token per link slot and a global vector, laid out flat, and how to tell them apart again.

A flat observation is the tokens `[links, TOKEN]`, row by row, then the global vector `[GLOBAL]`. Lengths are over the
arm's total length, speeds over the motor's top speed. All entries of a disabled slot are zero.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxrl_engine.core.scene import Ink, Scene, make_scene
from jaxrl_engine.envs.reacher.body import Body

TOKEN = 10
"""cos θ, sin θ, θ̇, length, joint → tip (2), joint → target (2), pull, enabled (0 or 1).

A joint's pull is (joint → tip) × (tip → target): the moment of the way that is left, which says how turning this joint
alone moves the tip towards the target. It follows from the rest, but as a product, which takes a network long to learn.
"""

GLOBAL = 7
"""tip (2), target (2), tip → target (2), total length in metres."""


def observation_size(links: int) -> int:
    """Entries of the flat view of an arm with this many link slots."""
    return TOKEN * links + GLOBAL


def observe(
    body: Body,
    angles: Float[Array, "links"],
    velocities: Float[Array, "links"],
    target: Float[Array, "2"],
    points: Float[Array, "points 2"],
) -> Float[Array, "D"]:
    """Return the flat view; `points` are shoulder, joints and tip in metres."""
    total = body.lengths.sum()
    tip = points[-1]
    top_speed = jnp.where(body.mask, body.torque / body.damping, 1.0)
    scalars = jnp.stack([jnp.cos(angles), jnp.sin(angles), velocities / top_speed, body.lengths / total], axis=-1)
    ways = jnp.concatenate([tip[None] - points[:-1], target[None] - points[:-1]], axis=-1) / total
    pull = ways[:, :1] * ways[:, 3:] - ways[:, 1:2] * ways[:, 2:3]
    tokens = jnp.concatenate([scalars, ways, pull, jnp.ones((len(angles), 1))], axis=-1) * body.mask[:, None]
    whole = jnp.concatenate([jnp.concatenate([tip, target, target - tip]) / total, total[None]])
    return jnp.concatenate([tokens.reshape(-1), whole])


def split(observation: Any) -> tuple[Float[Array, "*batch links token"], Bool[Array, "*batch links"], Array]:
    """Return the tokens, which of them are links, and the global vector `[*batch, GLOBAL]` of flat observations."""
    links = (observation.shape[-1] - GLOBAL) // TOKEN
    tokens = observation[..., : TOKEN * links].reshape(*observation.shape[:-1], links, TOKEN)
    return tokens, tokens[..., -1] > 0.5, observation[..., TOKEN * links :]


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
