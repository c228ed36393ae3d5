"""Settings of the map-elites mode; like `core.config`, which holds them, free of jax."""

import dataclasses
import math
from typing import Literal

from jaxrl_engine.core.checks import require, require_positive_int, require_range

DESCRIPTORS = ("links", "length", "area", "asymmetry", "energy")


@dataclasses.dataclass(frozen=True)
class MapElitesConfig:
    """Bodies that evolve while one policy learns to move all of them, read by `--mode map-elites`."""

    descriptors: tuple[str, ...] = ("links", "length")
    """The repertoire's axes, two of links, length (m), area (m² within reach), asymmetry and energy (J an episode; the
    only one that depends on the policy)."""
    cells: Literal["grid", "cvt"] = "grid"
    """How descriptors are divided into cells: a grid, or a centroidal Voronoi tessellation."""
    bins: int = 32
    """Grid: cells along each axis but links, which has one for each number."""
    num_cells: int = 224
    """Cvt: cells."""
    num_initial: int = 128
    """Random bodies that the repertoire begins with."""
    num_offspring: int = 128
    """New bodies evaluated in every generation after that."""
    num_targets: int = 32
    """Targets each body is evaluated on: the same for all bodies and generations of a run."""
    updates_per_generation: int = 16
    """Rollouts, with an update of the policy each, between two generations."""
    elites: float = 0.5
    """Share of the bodies trained on that are elites of the repertoire."""
    offspring: float = 0.25
    """Share that are their offspring; the rest are random."""
    warm_up: float = 0.25
    """Share of the run in which the policy learns on random bodies alone, before any is judged."""
    learn_after_warm_up: bool = True
    """Whether the policy goes on learning while bodies evolve; false: it is frozen."""
    refresh: bool = True
    """Evaluate every elite anew under each generation's policy. False: as archives that never look back."""
    immigrants: float = 0.1
    """Share of the offspring that are random bodies; 1: random search."""
    iso_sigma: float = 0.05
    """Standard deviation of a gene's own mutation, as a share of its range."""
    line_sigma: float = 0.2
    """Standard deviation of the step along the line to another elite (0: no crossover)."""
    link_rate: float = 0.3
    """Probability that a child has one link more or one less."""
    min_links: int = 2
    max_links: int = 8
    """Links of a body."""
    min_length: float = 0.1
    max_length: float = 0.25
    """Length of a link, in metres."""
    thickness: tuple[float, float] = (1.0, 1.0)
    """Least and greatest thickness of the links, over the family's; equal: it does not evolve."""
    gear: tuple[float, float] = (1.0, 1.0)
    """Least and greatest reduction of the motors, over the family's; equal: it does not evolve."""

    def __post_init__(self) -> None:
        group = "qd."
        known = len(set(self.descriptors)) == 2 and set(self.descriptors) <= set(DESCRIPTORS)
        require(known, "qd.descriptors", f"two different of {', '.join(DESCRIPTORS)}", self.descriptors)
        counts = ("num_cells", "num_initial", "num_offspring", "num_targets", "updates_per_generation")
        require_positive_int(self, group, *counts)
        require(2 <= self.bins <= 1024, "qd.bins", "a whole number from 2 to 1024", self.bins)
        require_range(self, group, 0.0, 1.0, "elites", "offspring", "immigrants", "link_rate")
        require(self.elites + self.offspring <= 1.0, "qd.offspring", "at most 1 - qd.elites", self.offspring)
        require(0.0 <= self.warm_up < 1.0, "qd.warm_up", "from 0 to below 1", self.warm_up)
        require_range(self, group, 0.0, math.inf, "iso_sigma", "line_sigma")
        require(2 <= self.min_links <= 8, "qd.min_links", "a whole number from 2 to 8", self.min_links)
        allowed = f"a whole number from qd.min_links = {self.min_links} to 8"
        require(self.min_links <= self.max_links <= 8, "qd.max_links", allowed, self.max_links)
        require(0.0 < self.min_length < 10.0, "qd.min_length", "above 0 and below 10 metres", self.min_length)
        longer = self.min_length < self.max_length <= 10.0
        require(longer, "qd.max_length", f"above qd.min_length = {self.min_length}, up to 10 metres", self.max_length)
        for name in ("thickness", "gear"):
            pair = getattr(self, name)
            ordered = len(pair) == 2 and 0.1 <= pair[0] <= pair[1] <= 10.0
            require(ordered, f"qd.{name}", "two numbers from 0.1 to 10, the lesser first", pair)
