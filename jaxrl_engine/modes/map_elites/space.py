"""What tells bodies apart in a run, and the cells it divides them into."""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxrl_engine.core.qd_config import Bounds, MapElitesConfig
from jaxrl_engine.qd.arms import Arms, random_arms
from jaxrl_engine.qd.cells import Cells, Voronoi, make_voronoi
from jaxrl_engine.qd.descriptors import DESCRIPTORS, describe, feasible, make_grid

MOST_ENERGY = 1000.0
"""Joules an episode: the end of the axis `energy`. A body that spends more is out of range, and counted."""
SAMPLES = 2**16
"""Random bodies that estimate which cells of a tessellation are feasible."""


@dataclasses.dataclass(frozen=True, eq=False)
class DescriptorSpace:
    """Two descriptors and the cells of their box; a tessellation's are those of the box scaled to the unit square."""

    names: tuple[str, str]
    cells: Cells
    feasible: Bool[np.ndarray, "N"]  # which cells a body can be in
    exact: bool  # whether that is known, not estimated
    low: Float[np.ndarray, "D"]  # of the box, in the descriptors' units
    high: Float[np.ndarray, "D"]

    @property
    def judged(self) -> Int[np.ndarray, "F"]:
        """The cells whose elites are evaluated: all but those that are known to stay empty.

        An estimate of the feasible ones may miss some, and an elite there must not go stale.
        """
        return np.flatnonzero(self.feasible) if self.exact else np.arange(len(self.feasible))

    def describe(self, arms: Arms, measured: Mapping[str, Float[Array, "n"]]) -> Float[Array, "n D"]:
        """Return where bodies lie among the cells; `measured` holds what only an evaluation can tell."""
        told = {name: measured[name] for name in self.names if DESCRIPTORS[name].function is None}
        where = jax.vmap(lambda arm, told: describe(self.names, arm, told))(arms, told)
        if isinstance(self.cells, Voronoi):
            return (where - self.low[None]) / (self.high - self.low)[None]
        return where

    def in_units(self, where: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n D"]:
        """Return what `describe` gave, or centroids, in the descriptors' units."""
        if isinstance(self.cells, Voronoi):
            return self.low + where * (self.high - self.low)
        return where


def make_space(config: MapElitesConfig, *, measures_energy: bool) -> DescriptorSpace:
    """Divide the descriptors of a configuration into cells.

    Raises:
        ValueError: energy is asked for in a world that does not measure it.
    """
    if "energy" in config.descriptors and not measures_energy:
        raise ValueError("qd.descriptors must not hold energy in a world that does not measure it")
    names = (config.descriptors[0], config.descriptors[1])
    counts = config.max_links - config.min_links + 1
    bins = [counts if name == "links" else config.bins for name in names]
    grid = make_grid(names, bins, config, {"energy": (0.0, MOST_ENERGY)})
    low, high = np.asarray(grid.low), np.asarray(grid.high)
    if config.cells == "grid":
        exact = set(names) == {"links", "length"}
        return DescriptorSpace(names, grid, feasible(names, grid, config), exact, low, high)
    cells = make_voronoi(jax.random.key(0), config.num_cells, (0.0, 0.0), (1.0, 1.0))
    space = DescriptorSpace(names, cells, np.ones(config.num_cells, bool), False, low, high)
    return dataclasses.replace(space, feasible=_visited(space, config))


def _visited(space: DescriptorSpace, bounds: Bounds) -> Bool[np.ndarray, "N"]:
    """Which cells a large sample of random bodies lies in: an estimate from below, the same on every call."""
    key_arms, key_measured = jax.random.split(jax.random.key(1))
    arms = random_arms(key_arms, bounds, SAMPLES)
    anything = jax.random.uniform(key_measured, (SAMPLES,), maxval=MOST_ENERGY)
    where = space.describe(arms, dict.fromkeys(space.names, anything))
    index, inside = jax.jit(jax.vmap(space.cells.cell_of))(where)
    return np.bincount(np.asarray(index)[np.asarray(inside)], minlength=space.cells.num_cells) > 0
