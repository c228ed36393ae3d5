"""Serial planar arms as genotypes: how many links, how long, how thick, how geared.

An arm has a gene for every slot of a link. Those beyond `count` are silent: inherited and mutated like the others, they
say what a link that is added there will measure. `thickness` and `gear` multiply what the family of bodies has.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxrl_engine.core.qd_config import Bounds
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf


class Arms(Struct):
    """Arms, or one of them."""

    lengths: Float[Leaf, "*batch links"]  # metres, one for every slot; those from `count` on are silent
    count: Int[Leaf, "*batch"]  # links it has
    thickness: Float[Leaf, "*batch"]  # times the family's
    gear: Float[Leaf, "*batch"]  # times the family's


def mask(arms: Arms) -> Bool[Array, "*batch links"]:
    """Which slots hold a link."""
    slot = jax.lax.broadcasted_iota(jnp.int32, arms.lengths.shape, arms.lengths.ndim - 1)
    return slot < jnp.asarray(arms.count)[..., None]


def total_length(arms: Arms) -> Float[Array, "*batch"]:
    """Metres from the base to the tip of the outstretched arm: the sum of the lengths that are not silent."""
    return jnp.sum(jnp.where(mask(arms), arms.lengths, 0.0), axis=-1)


def random_arms(key: PRNGKeyArray, bounds: Bounds, count: int) -> Arms:
    """Draw arms `[count]` whose number of links is uniform, and given it their total length as well.

    Lengths drawn one by one would add up to about the mean, whatever the number of links. Here a link of n measures

        l_i = min_length + (m + v s d_i) (max_length − min_length),   Σ_i d_i = 0,

    with m and v uniform in [0, 1], d the centred numbers of a uniform draw, and s the largest with all m + s d_i in
    [0, 1]. So the total is n (min_length + m (max_length − min_length)), and arms range from equal links (v = 0) to one
    link as long or as short as may be (v = 1). Silent genes, thickness and gear are uniform.
    """
    return jax.vmap(lambda key: _random_arm(key, bounds))(jax.random.split(key, count))


def _random_arm(key: PRNGKeyArray, bounds: Bounds) -> Arms:
    number, rest = jax.random.split(key)
    count = jax.random.randint(number, (), bounds.min_links, bounds.max_links + 1)
    share, spread, thickness, gear, *draws = jax.random.uniform(rest, (4 + 2 * bounds.max_links,))
    around, silent = jnp.stack(draws[: bounds.max_links]), jnp.stack(draws[bounds.max_links :])
    present = jnp.arange(bounds.max_links, dtype=jnp.int32) < count
    around = jnp.where(present, around - jnp.sum(jnp.where(present, around, 0.0)) / count, 0.0)
    room = jnp.where(around > 0.0, 1.0 - share, share) / jnp.where(around != 0.0, jnp.abs(around), jnp.inf)
    widest = jnp.min(jnp.where(around != 0.0, room, jnp.inf))
    genes = share + spread * jnp.where(jnp.isfinite(widest), widest, 0.0) * around
    return Arms(
        lengths=between(jnp.where(present, genes, silent), (bounds.min_length, bounds.max_length)),
        count=count,
        thickness=between(thickness, bounds.thickness),
        gear=between(gear, bounds.gear),
    )


def between(share: Float[Array, "*shape"], limits: tuple[float, ...]) -> Float[Array, "*shape"]:
    """Return low + share (high − low), held within the limits."""
    low, high = limits
    return jnp.clip(low + share * (high - low), low, high)
