"""The arm as data: a planar chain of capsules with a motor in every joint.

A `Body` is a pytree of arrays `[*batch, links]` and is given to the world as its `params`: bodies `vmap`, and a new one
compiles nothing. Arms of different numbers of links share one shape: the last links of a shorter one are disabled.
The motors of an arm are the same for every joint: what is longer or heavier moves more slowly, and bodies matter.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxrl_engine.core.config import require
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf

MAX_LINKS = 8
LINEAR_DENSITY = 1.0  # kg per metre of arm
SLENDERNESS = 0.02  # radius of the capsules over the arm's total length
TORQUE = 16.0  # N m at full action
DAMPING = 2.0  # N m s/rad: a free joint settles at TORQUE / DAMPING = 8 rad/s
ARMATURE = 0.005  # kg m² of the rotor, small beside a link's own inertia (0.083 kg m² for half of a one-metre arm)
UNEVENNESS = 0.5  # a random body's links are 1 ± this, over their sum


class Body(Struct):
    """A chain of links from the shoulder to the tip, with the motor that turns each of them against the one before.

    Disabled links come last: no length, mass or torque. Their damping and armature stay, which keeps every matrix
    regular and their joints at rest.
    """

    lengths: Float[Leaf, "*batch links"]  # m, from joint to joint
    mask: Bool[Leaf, "*batch links"]  # which links the arm has
    masses: Float[Leaf, "*batch links"]  # kg
    radii: Float[Leaf, "*batch links"]  # m
    torque: Float[Leaf, "*batch links"]  # N m at action 1
    damping: Float[Leaf, "*batch links"]  # N m s/rad
    armature: Float[Leaf, "*batch links"]  # kg m²


def make_body(
    lengths: Float[Leaf, "links"],
    mask: Bool[Leaf, "links"],
    thickness: float | Float[Leaf, ""] = 1.0,
    gear: float | Float[Leaf, ""] = 1.0,
) -> Body:
    """Give links of these lengths (m) the family's material and motors; disabled ones get length 0.

    Both shares, above 0, are 1 for the family's own arm. `thickness` (t) scales the links' radii, of the same material:

        r = t · SLENDERNESS · Σ lengths,   m = t² · LINEAR_DENSITY · length.

    `gear` (g) is a gearbox on the same motor. Torque at the joint rises, and rotor inertia and damping, seen through
    the box, rise with its square, so that a free joint's top speed, torque over damping, falls as 1 / g:

        τ = g · TORQUE,   d = g² · DAMPING,   a = g² · ARMATURE.
    """
    enabled = jnp.asarray(mask, jnp.float32)
    lengths = jnp.asarray(lengths) * enabled
    ones = jnp.ones_like(lengths)
    return Body(
        lengths=lengths, mask=jnp.asarray(mask), masses=thickness**2 * LINEAR_DENSITY * lengths,
        radii=thickness * SLENDERNESS * lengths.sum() * ones, torque=gear * TORQUE * enabled,
        damping=gear**2 * DAMPING * ones, armature=gear**2 * ARMATURE * ones,
    )  # fmt: skip


def check_body(body: Body, slots: int) -> None:
    """Refuse an arm the equations do not hold for; traced arrays are let through, as nothing is known of them.

    Raises:
        ValueError: not `slots` links, a number that is not finite, a negative one, or links beyond a disabled one.
    """
    found = jnp.shape(body.lengths)[-1]
    require(found == slots, "body.lengths", f"{slots} links, as many as the world has room for", found)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(body)):
        return
    mask, lengths = np.asarray(body.mask), np.asarray(body.lengths)
    require(bool(mask[..., 0].all()), "body.mask", "true for the first link", mask.tolist())
    distal = not (mask[..., 1:] & ~mask[..., :-1]).any()
    require(distal, "body.mask", "true for the first links and false for the rest", mask.tolist())
    require(
        bool((lengths[mask] > 0).all()), "body.lengths", "above 0 metres for each link of the arm", lengths.tolist()
    )
    for name in ("lengths", "masses", "radii", "torque"):
        values = np.asarray(getattr(body, name))
        valid = bool((np.isfinite(values) & (values >= 0) & (mask | (values == 0) | (name == "radii"))).all())
        require(valid, f"body.{name}", "finite, not negative, and 0 for disabled links", values.tolist())
    for name in ("damping", "armature"):
        values = np.asarray(getattr(body, name))
        valid = bool((np.isfinite(values) & (values >= 0)).all())
        require(valid, f"body.{name}", "finite and not negative", values.tolist())
    bulk = np.asarray(body.radii) + lengths
    require(bool((bulk[~mask] > 0).all()), "body.radii", "above 0 where a link is disabled", bulk.tolist())
    inertia = np.asarray(body.damping) + np.asarray(body.armature)
    require(bool((inertia[~mask] > 0).all()), "body.armature", "above 0 where a link is disabled", inertia.tolist())


def uniform_body(num_links: int, total_length: float, slots: int | None = None) -> Body:
    """Return an arm of `num_links` equal links, `total_length` metres long, with room for `slots` links."""
    mask: Any = np.arange(slots or num_links) < num_links
    lengths: Any = np.full(mask.shape, total_length / num_links, np.float32)
    with jax.ensure_compile_time_eval():
        return make_body(lengths, mask)


def random_body(key: Key[Array, ""], num_links: Int[Array, ""], total_length: float, slots: int) -> Body:
    """Draw an arm of `num_links` links whose lengths are uniform in 1 ± `UNEVENNESS`, scaled to `total_length` metres.

    The key is consumed.
    """
    mask = jnp.arange(slots) < num_links
    shares = mask * jax.random.uniform(key, (slots,), minval=1 - UNEVENNESS, maxval=1 + UNEVENNESS)
    return make_body(total_length * shares / shares.sum(), mask)


def enabled_links(body: Body) -> Body:
    """Return the links `[enabled]` that a body `[links]` has, as NumPy arrays."""
    count = int(np.asarray(body.mask).sum())
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:count], body)


def link_inertia(body: Body) -> Float[Array, "*batch links"]:
    """Moment of inertia (kg m²) of each capsule about its centre and an axis across it.

    A cylinder of length l and two half spheres of radius r at its ends, of one density:

        I = m_c (l² / 12 + r² / 4) + m_s (l² / 4 + 3 l r / 8 + 2 r² / 5),   m_c : m_s = l : 4 r / 3.
    """
    length, radius, mass = (jnp.asarray(leaf) for leaf in (body.lengths, body.radii, body.masses))
    cylinder = mass * length / (length + 4 / 3 * radius)
    spheres = mass - cylinder
    across_cylinder = jnp.square(length) / 12 + jnp.square(radius) / 4
    across_spheres = jnp.square(length) / 4 + 3 / 8 * length * radius + 2 / 5 * jnp.square(radius)
    return cylinder * across_cylinder + spheres * across_spheres


def motor_effort(body: Body, action: Float[Array, "links"]) -> tuple[Float[Array, "links"], Float[Array, ""]]:
    """Return each motor's share of its torque, from -1 to 1, and how many actions were not a number (these mean 0)."""
    wrong = jnp.isnan(action)
    return jnp.where(wrong, 0.0, jnp.clip(action, -1.0, 1.0)) * body.mask, wrong.sum(dtype=jnp.float32)


def target_radii(body: Body) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """Inner and outer radius (m) of the ring the tip can reach: one link longer than all others leaves a hole."""
    lengths = jnp.asarray(body.lengths)
    outer = lengths.sum(axis=-1)
    return jnp.maximum(0.0, 2 * lengths.max(axis=-1) - outer), outer


def link_positions(lengths: Float[Leaf, "links"], angles: Float[Array, "links"]) -> Float[Array, "links+1 2"]:
    """Return where shoulder, joints and tip are: p_k = Σ_{i<k} l_i (cos φ_i, sin φ_i), φ_i = Σ_{j≤i} θ_j, in metres."""
    heading = jnp.cumsum(angles)
    links = jnp.asarray(lengths)[:, None] * jnp.stack([jnp.cos(heading), jnp.sin(heading)], axis=-1)
    return jnp.concatenate([jnp.zeros((1, 2)), jnp.cumsum(links, axis=0)])
