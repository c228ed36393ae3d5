"""What tells arms apart: functions of the genotype alone, so that they carry no noise and never go stale.

`DESCRIPTORS` maps names to them. `energy` has no function: an evaluation measures it, and its range is given.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrl_engine.core.checks import require
from jaxrl_engine.core.qd_config import Bounds
from jaxrl_engine.qd import cells
from jaxrl_engine.qd.arms import Arms, mask, random_arms, total_length
from jaxrl_engine.qd.cells import Grid

ROUNDING = 2e-6
"""Share by which a range is widened outwards: a float32 sum of links at their bound may lie about as far beyond it."""

SAMPLES = 2**18
"""Random arms that estimate which cells are feasible."""

Range: TypeAlias = tuple[float, float]
Ranges: TypeAlias = Mapping[str, Range]


def num_links(arm: Arms) -> Float[Array, ""]:
    """How many links the arm has."""
    return jnp.asarray(arm.count, jnp.float32)


def area(arm: Arms) -> Float[Array, ""]:
    """Return the area that the tip can reach, in m²: that of a ring.

        π (R² − r²),   r = max(0, 2 max_i l_i − R),   R = Σ_i l_i

    r is what the other links cannot fold back of the longest one.
    """
    reach = total_length(arm)
    hole = jnp.maximum(0.0, 2.0 * jnp.max(jnp.where(mask(arm), arm.lengths, 0.0)) - reach)
    return jnp.pi * (reach**2 - hole**2)


def asymmetry(arm: Arms) -> Float[Array, ""]:
    """Return the share of the total length that lies in the inner half of the links: 1/2 where both halves are equal.

        Σ_i w_i l_i / Σ_i l_i,   w_i = clip(n/2 − i, 0, 1),   i = 0 … n − 1 from the base

    The middle one of an odd number of links counts half.
    """
    place = jnp.arange(arm.lengths.shape[-1], dtype=jnp.float32)
    inner = jnp.clip(0.5 * num_links(arm) - place, 0.0, 1.0)
    return jnp.sum(inner * arm.lengths) / total_length(arm)


class Descriptor(NamedTuple):
    """A function of one arm and its range, low below high; both None where an evaluation measures it."""

    function: Callable[[Arms], Array] | None
    range: Callable[[Bounds], Range] | None


def _links_range(bounds: Bounds) -> Range:
    return bounds.min_links - 0.5, bounds.max_links + 0.5


def _length_range(bounds: Bounds) -> Range:
    return bounds.min_links * bounds.min_length, bounds.max_links * bounds.max_length


def _area_range(bounds: Bounds) -> Range:
    """A hole makes no smaller ring: R² − r² is then 4 l (R − l), l ≥ R − l ≥ (n − 1) min_length ≥ n/2 min_length."""
    low, high = _length_range(bounds)
    return math.pi * low**2, math.pi * high**2


def _asymmetry_range(bounds: Bounds) -> Range:
    """An even number of links, all short in one half and all long in the other."""
    low = bounds.min_length / (bounds.min_length + bounds.max_length)
    return low, 1.0 - low


DESCRIPTORS: dict[str, Descriptor] = {
    "links": Descriptor(num_links, _links_range),
    "length": Descriptor(total_length, _length_range),
    "area": Descriptor(area, _area_range),
    "asymmetry": Descriptor(asymmetry, _asymmetry_range),
    "energy": Descriptor(None, None),
}


def describe(names: Sequence[str], arm: Arms, measured: Mapping[str, Array] | None = None) -> Float[Array, "D"]:
    """Return the named descriptors of one arm; `measured` holds those that only an evaluation knows.

    Raises:
        ValueError: a name is unknown, or must be measured and was not.
    """
    given = measured or {}
    _check_names(names, given)
    functions = {name: DESCRIPTORS[name].function for name in names}
    return jnp.stack([given[name] if (of := functions[name]) is None else of(arm) for name in names])


def make_grid(names: Sequence[str], bins: Sequence[int], bounds: Bounds, ranges: Ranges | None = None) -> Grid:
    """Return the grid over the named descriptors; `ranges` holds those of measured ones, such as `energy`.

    Numbers of links are in the middle of their bins. Other ranges are widened by `ROUNDING`, so that an arm at its
    bounds is not turned away for the rounding of a sum.

    Raises:
        ValueError: a name is unknown or named twice, a range is missing, `bins` has not one number >= 1 for every name,
            or `links` has not one bin for every number of links.
    """
    given = ranges or {}
    _check_names(names, given)
    require(len(bins) == len(names), "bins", f"one number for each of {list(names)}", tuple(bins))
    lows, highs = [], []
    for name, number in zip(names, bins, strict=True):
        of = DESCRIPTORS[name].range
        low, high = given[name] if of is None else of(bounds)
        counts = bounds.max_links - bounds.min_links + 1
        require(name != "links" or number == counts, "bins", f"{counts} for links, one for each number", number)
        slack = 0.0 if name == "links" else ROUNDING * max(abs(low), abs(high))
        lows.append(low - slack)
        highs.append(high + slack)
    return cells.grid(lows, highs, bins)


def _check_names(names: Sequence[str], given: Mapping[str, object]) -> None:
    for name in names:
        require(name in DESCRIPTORS, "descriptors", f"among {', '.join(DESCRIPTORS)}", name)
        known = DESCRIPTORS[name].function is not None or name in given
        require(known, "descriptors", f"given from outside where it is measured, as {name} is", name)
    require(
        len(names) > 0 and len(set(names)) == len(names), "descriptors", "one or more different names", tuple(names)
    )


# --- which cells an arm can be in -----------------------------------------------------------------------------------


def feasible(names: Sequence[str], grid: Grid, bounds: Bounds) -> np.ndarray:
    """Return for every cell of `make_grid(names, …)` whether an arm can be in it, `[N]` bool.

    Exact for `links` and `length`, together or alone; for all others what `estimate_feasible` found.
    """
    is_exact = set(names) <= {"links", "length"}
    return _feasible_links_length(names, grid, bounds) if is_exact else estimate_feasible(names, grid, bounds)


def _feasible_links_length(names: Sequence[str], grid: Grid, bounds: Bounds) -> np.ndarray:
    """A cell of n links is feasible where its lengths and [n min_length, n max_length] share more than a point."""
    low, high = np.asarray(grid.low, np.float64), np.asarray(grid.high, np.float64)
    counts = np.arange(bounds.min_links, bounds.max_links + 1)[:, None]
    possible = np.ones((len(counts), 1), bool)
    if "length" in names:
        axis = list(names).index("length")
        edges = np.linspace(low[axis], high[axis], grid.shape[axis] + 1)[None]
        lower = np.maximum(edges[:, :-1], counts * bounds.min_length)
        upper = np.minimum(edges[:, 1:], counts * bounds.max_length)
        possible = upper - lower > 4.0 * ROUNDING * high[axis]
    if "links" not in names:
        return np.asarray(possible.any(axis=0))
    return possible.ravel() if names[0] == "links" else possible.T.ravel()


def estimate_feasible(names: Sequence[str], grid: Grid, bounds: Bounds) -> np.ndarray:
    """Return which cells a large sample of arms hits, `[N]` bool: an estimate from below, the same on every call.

    The sample is `SAMPLES` random arms and all those whose every link is as long or as short as may be. Descriptors
    that an evaluation measures are taken to be free: they rule no cell out.
    """
    free = [DESCRIPTORS[name].function is None for name in names]
    known = [axis for axis, is_free in enumerate(free) if not is_free]
    shape = [1 if is_free else bins for is_free, bins in zip(free, grid.shape, strict=True)]
    if not known:
        return np.ones(grid.num_cells, bool)
    axes = jnp.asarray(known)
    part = Grid(low=grid.low[axes], high=grid.high[axes], shape=tuple(grid.shape[axis] for axis in known))

    def locate(arm: Arms) -> tuple[Array, Array]:
        return part.cell_of(describe([names[axis] for axis in known], arm))

    hit = np.zeros(part.num_cells, bool)
    for arms in (random_arms(jax.random.key(0), bounds, SAMPLES), _extremes(bounds)):
        index, inside = jax.jit(jax.vmap(locate))(arms)
        hit[np.asarray(index)[np.asarray(inside)]] = True
    return np.broadcast_to(hit.reshape(shape), grid.shape).flatten()


def _extremes(bounds: Bounds) -> Arms:
    """All arms of shortest and longest links, of every number of links."""
    lengths, counts = [], []
    for count in range(bounds.min_links, bounds.max_links + 1):
        for links in itertools.product((bounds.min_length, bounds.max_length), repeat=count):
            lengths.append([*links, *[bounds.min_length] * (bounds.max_links - count)])
            counts.append(count)
    ones = jnp.ones(len(counts))
    return Arms(
        lengths=jnp.asarray(lengths, jnp.float32), count=jnp.asarray(counts, jnp.int32), thickness=ones, gear=ones
    )
