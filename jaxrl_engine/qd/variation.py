"""How offspring differ from their parents: iso+line on the continuous genes, a link more or less, and immigrants."""

import functools
import math
import statistics

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxrl_engine.core.qd_config import Bounds, Variation
from jaxrl_engine.qd.arms import Arms, between, random_arms
from jaxrl_engine.qd.repertoire import Repertoire, select

QUANTILES = 2**16
"""Different values of `gaussian`: a random word holds two."""


def gaussian(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Draw standard normal numbers at `QUANTILES` equally likely quantiles: the i-th is Φ⁻¹((i + ½) / 65,536).

    None is beyond 4.33 and the variance is 1 − 2e-5, which no mutation will notice. A random word and an inverse of Φ
    for each number took half the time of a generation where the fitness is a cheap function.
    """
    size = math.prod(shape)
    words = jax.random.bits(key, ((size + 1) // 2,), jnp.uint32)
    halves = jnp.concatenate([words & (QUANTILES - 1), words >> 16])[:size].reshape(shape)
    return jnp.asarray(_normal_quantiles()).at[halves].get(mode="promise_in_bounds")


@functools.cache
def _normal_quantiles() -> np.ndarray:
    inverse = statistics.NormalDist().inv_cdf
    lower = np.array([inverse((i + 0.5) / QUANTILES) for i in range(QUANTILES // 2)], np.float32)
    return np.concatenate([lower, -lower[::-1]])


def iso_line(
    key: PRNGKeyArray,
    a: Float[Array, "*batch D"],
    b: Float[Array, "*batch D"],
    iso_sigma: float,
    line_sigma: float,
) -> Float[Array, "*batch D"]:
    """Return a + iso_sigma ε + line_sigma ε_0 (b − a) with ε of D standard normal numbers and ε_0 of one, per vector.

    With `line_sigma` 0 this is plain Gaussian mutation of `a`. Source: Vassiliades and Mouret 2018 (arXiv:1804.03906),
    equation 2.
    """
    noise = gaussian(key, (*a.shape[:-1], a.shape[-1] + 1))  # one draw for the batch: a key each costs more
    return along_line(noise, a, b, iso_sigma, line_sigma)


def along_line(
    noise: Float[Array, "*batch noise"],
    a: Float[Array, "*batch D"],
    b: Float[Array, "*batch D"],
    iso_sigma: float,
    line_sigma: float,
) -> Float[Array, "*batch D"]:
    """`iso_line` of D + 1 numbers drawn before for each vector: the last one is that of the line."""
    return a + iso_sigma * noise[..., :-1] + line_sigma * noise[..., -1:] * (b - a)


def vary(key: PRNGKeyArray, parents_a: Arms, parents_b: Arms, settings: Variation, bounds: Bounds) -> Arms:
    """Return one child for each pair of parents: genes by iso+line, clipped to the bounds; links those of a, ± 1.

    All slots vary, silent ones too, each gene as its share of its range. A link is added or removed at the tip, so that
    the child's number of links differs by one at most; where the bounds forbid it, it stays.
    """
    genes_key, links_key = jax.random.split(key)
    genes = iso_line(genes_key, _genes(parents_a, bounds), _genes(parents_b, bounds), *_sigmas(settings))
    draw = jax.random.uniform(links_key, jnp.shape(parents_a.count))
    change = (draw < 0.5 * settings.link_rate).astype(jnp.int32) - (draw >= 1.0 - 0.5 * settings.link_rate)
    return Arms(
        lengths=between(genes[..., :-2], (bounds.min_length, bounds.max_length)),
        count=jnp.clip(parents_a.count + change, bounds.min_links, bounds.max_links),
        thickness=between(genes[..., -2], bounds.thickness),
        gear=between(genes[..., -1], bounds.gear),
    )


def _sigmas(settings: Variation) -> tuple[float, float]:
    return settings.iso_sigma, settings.line_sigma


def _genes(arms: Arms, bounds: Bounds) -> Float[Array, "*batch genes"]:
    """The continuous genes as shares of their ranges; 0 where a range is one number."""

    def share(values: Array, limits: tuple[float, ...]) -> Array:
        low, high = limits
        return (values - low) / (high - low if high > low else 1.0)

    lengths = share(arms.lengths, (bounds.min_length, bounds.max_length))
    others = jnp.stack([share(arms.thickness, bounds.thickness), share(arms.gear, bounds.gear)], axis=-1)
    return jnp.concatenate([lengths, others], axis=-1)


def offspring(key: PRNGKeyArray, repertoire: Repertoire, settings: Variation, bounds: Bounds, count: int) -> Arms:
    """Return arms `[count]`: children of uniformly drawn elites, and at the end round(immigrants × count) uniform arms.

    Without any elite all are uniform arms. The repertoire's genotypes are `Arms` of `max_links` slots.
    """
    parents_key, vary_key, immigrants_key = jax.random.split(key, 3)
    parents, _ = select(repertoire, parents_key, 2 * count)
    first, second = (jax.tree.map(lambda leaf, half=half: leaf[half], parents) for half in _halves(count))
    children = vary(vary_key, first, second, settings, bounds)
    immigrants = random_arms(immigrants_key, bounds, count)
    born = jnp.arange(count) < count - round(settings.immigrants * count)
    is_child = born & jnp.any(repertoire.occupied)

    def choose(child: Array, immigrant: Array) -> Array:
        return jnp.where(is_child.reshape((count,) + (1,) * (child.ndim - 1)), child, immigrant)

    return jax.tree.map(choose, children, immigrants)


def _halves(count: int) -> tuple[slice, slice]:
    return slice(count), slice(count, 2 * count)
