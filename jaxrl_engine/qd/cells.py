"""How descriptor space is divided: a grid looked up by arithmetic, or Voronoi cells around centroids.

Both tell of one descriptor which cell it is in and whether it is in any: what is not finite or lies outside the range
is said to be outside, never moved to the nearest edge.
"""

import functools
import math
from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxrl_engine.core.checks import require
from jaxrl_engine.core.struct import Struct, static_field
from jaxrl_engine.core.types import Leaf

LLOYD_ITERATIONS = 30
"""Nothing moves any more by then with 1,024 cells and 25,000 samples in two axes."""

SAMPLES_AT_ONCE = 1024
"""Samples whose distances to all centroids are held in memory together."""


class Grid(Struct):
    """Equal boxes between `low` and `high`, numbered row by row: the last axis varies fastest."""

    low: Float[Leaf, "*batch D"]
    high: Float[Leaf, "*batch D"]
    shape: tuple[int, ...] = static_field()  # bins of every axis

    @property
    def num_cells(self) -> int:
        return math.prod(self.shape)

    @property
    def centroids(self) -> Float[Array, "N D"]:
        """The middle of every cell."""
        axes = [(jnp.arange(bins) + 0.5) / bins for bins in self.shape]
        share = jnp.stack([axis.ravel() for axis in jnp.meshgrid(*axes, indexing="ij")], axis=-1)
        return self.low[None] + share * (self.high - self.low)[None]

    def cell_of(self, descriptor: Float[Array, "D"]) -> tuple[Int[Array, ""], Bool[Array, ""]]:
        """Return the number of the cell of one descriptor, and whether it is in any (if not, the number is 0).

            bin_d = min(floor(shape_d (x_d − low_d) / (high_d − low_d)), shape_d − 1)

        A cell holds its lower edge; the last one holds its upper edge too.
        """
        inside = _inside(descriptor, self.low, self.high)
        last = np.asarray(self.shape, np.int32) - 1
        steps = np.cumprod([1, *self.shape[:0:-1]], dtype=np.int32)[::-1]
        share = (descriptor - self.low) * (np.asarray(self.shape, np.float32) / (self.high - self.low))
        bins = jnp.minimum(jnp.where(inside, share, 0.0).astype(jnp.int32), last)
        return jnp.sum(bins * steps, dtype=jnp.int32), inside


class Voronoi(Struct):
    """Cells of all points nearer to their centroid than to any other, by Euclidean distance in the descriptors' units.

    Where these units differ from axis to axis, scale the descriptors first.
    """

    centroids: Float[Leaf, "*batch N D"]
    low: Float[Leaf, "*batch D"]
    high: Float[Leaf, "*batch D"]

    @property
    def num_cells(self) -> int:
        return self.centroids.shape[-2]

    def cell_of(self, descriptor: Float[Array, "D"]) -> tuple[Int[Array, ""], Bool[Array, ""]]:
        """Return the cell of one descriptor (at equal distance the lowest number), and whether it is in any (else 0).

        Work O(N D).
        """
        inside = _inside(descriptor, self.low, self.high)
        return jnp.where(inside, _nearest(self.centroids, descriptor), 0), inside


Cells: TypeAlias = Grid | Voronoi


def grid(low: Sequence[float], high: Sequence[float], shape: Sequence[int]) -> Grid:
    """Return a grid over the box from `low` to `high`, one number of each and of `shape` for every axis.

    Raises:
        ValueError: `low` is not below `high`, `shape` is empty or holds a number below 1, or the lengths differ.
    """
    bins = tuple(int(number) for number in shape)
    require(bool(bins) and min(bins) >= 1, "shape", "one whole number >= 1 for every axis", tuple(shape))
    _check_box(low, high, len(bins))
    return Grid(low=jnp.asarray(low, jnp.float32), high=jnp.asarray(high, jnp.float32), shape=bins)


def make_voronoi(
    key: PRNGKeyArray, num_cells: int, low: Sequence[float], high: Sequence[float], num_samples: int = 25_000
) -> Voronoi:
    """Return a centroidal Voronoi tessellation of the box: centroids by k-means of uniform samples.

    Lloyd's algorithm from `num_cells` of the samples, `LLOYD_ITERATIONS` times. Source: Vassiliades, Chatzilygeroudis
    and Mouret 2018 (arXiv:1610.05729), algorithm 2.

    Raises:
        ValueError: `num_cells` is below 1, `num_samples` below `num_cells`, or `low` not below `high`.
    """
    require(num_cells >= 1, "num_cells", "a whole number >= 1", num_cells)
    require(num_samples >= num_cells, "num_samples", f"at least num_cells = {num_cells}", num_samples)
    _check_box(low, high, len(low))
    least, most = jnp.asarray(low, jnp.float32), jnp.asarray(high, jnp.float32)
    samples = jax.random.uniform(key, (num_samples, len(low)), minval=least, maxval=most)
    return Voronoi(centroids=_lloyd(samples, num_cells), low=least, high=most)


def _check_box(low: Sequence[float], high: Sequence[float], axes: int) -> None:
    same = len(low) == len(high) == axes
    require(same, "low and high", f"one number for each of {axes} axes", (tuple(low), tuple(high)))
    ordered = all(math.isfinite(a) and math.isfinite(b) and a < b for a, b in zip(low, high, strict=True))
    require(axes >= 1 and ordered, "low", f"finite and below high = {tuple(high)} on every axis", tuple(low))


def _inside(descriptor: Array, low: Array, high: Array) -> Array:
    return jnp.all((descriptor >= low) & (descriptor <= high))


def _nearest(centroids: Array, point: Array) -> Array:
    return jnp.argmin(jnp.sum((centroids - point[None]) ** 2, axis=-1)).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames="num_cells")
def _lloyd(samples: Float[Array, "samples D"], num_cells: int) -> Float[Array, "N D"]:
    def improve(_: Array, centroids: Array) -> Array:
        owner = jax.lax.map(lambda sample: _nearest(centroids, sample), samples, batch_size=SAMPLES_AT_ONCE)
        count = jax.ops.segment_sum(jnp.ones(len(samples)), owner, num_cells)[:, None]
        total = jax.ops.segment_sum(samples, owner, num_cells)
        return jnp.where(count > 0.0, total / jnp.maximum(count, 1.0), centroids)

    return jax.lax.fori_loop(0, LLOYD_ITERATIONS, improve, samples[:num_cells])
