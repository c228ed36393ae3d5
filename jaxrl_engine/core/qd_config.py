"""Settings of the map-elites mode; like `core.config`, which holds them, free of jax."""

import dataclasses
import math
from typing import ClassVar, Literal

from jaxrl_engine.core.checks import require, require_positive_int, require_range

DESCRIPTORS = ("links", "length", "area", "asymmetry", "energy")


FEWEST_LINKS, MOST_LINKS = 2, 8


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What arms may be.

    Raises:
        ValueError: the numbers of links are not ordered within 2 to 8, the lengths not positive with min_length below
            max_length, or a range is not positive and ordered; the message names the field.
    """

    group: ClassVar[str] = ""  # of settings these belong to

    min_links: int = FEWEST_LINKS
    """Least number of links of a body."""
    max_links: int = MOST_LINKS
    """Greatest number of links."""
    min_length: float = 0.1
    """Least length of a link, in metres."""
    max_length: float = 0.25
    """Greatest length of a link, in metres."""
    thickness: tuple[float, ...] = (1.0, 1.0)
    """Least and greatest thickness of the links, over the family's; equal: it does not evolve."""
    gear: tuple[float, ...] = (1.0, 1.0)
    """Least and greatest reduction of the motors, over the family's; equal: it does not evolve."""

    def __post_init__(self) -> None:
        group = self.group
        for name, fewest in (("min_links", FEWEST_LINKS), ("max_links", self.min_links)):
            value = getattr(self, name)
            valid = isinstance(value, int) and not isinstance(value, bool) and fewest <= value <= MOST_LINKS
            require(valid, f"{group}{name}", f"a whole number from {fewest} to {MOST_LINKS}", value)
        require(_positive(self.min_length), f"{group}min_length", "a number above 0 (metres)", self.min_length)
        longer = _positive(self.max_length) and self.max_length > self.min_length
        require(longer, f"{group}max_length", f"above min_length = {self.min_length} (metres)", self.max_length)
        for name in ("thickness", "gear"):
            value = getattr(self, name)
            valid = len(value) == 2 and all(map(_positive, value)) and value[0] <= value[1]
            require(valid, f"{group}{name}", "two numbers above 0, the lower one first", value)


@dataclasses.dataclass(frozen=True)
class Variation:
    """How offspring differ from their parents.

    Raises:
        ValueError: a number is outside [0, 1]; the message names the field.
    """

    group: ClassVar[str] = ""

    iso_sigma: float = 0.05
    """Standard deviation of a gene's own mutation, as a share of its range."""
    line_sigma: float = 0.2
    """Standard deviation of the step along the line to another elite, as a share of the way to it (0: one parent)."""
    link_rate: float = 0.3
    """Probability that a child has one link more or one less, half of it each."""
    immigrants: float = 0.1
    """Share of the offspring that are random bodies, against collapse; 1: random search."""

    def __post_init__(self) -> None:
        require_range(self, self.group, 0.0, 1.0, "iso_sigma", "line_sigma", "link_rate", "immigrants")


@dataclasses.dataclass(frozen=True)
class MapElitesConfig(Bounds, Variation):
    """Bodies that evolve while one policy learns to move all of them, read by `--mode map-elites`."""

    group: ClassVar[str] = "qd."

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

    def __post_init__(self) -> None:
        Bounds.__post_init__(self)
        Variation.__post_init__(self)
        known = len(set(self.descriptors)) == 2 and set(self.descriptors) <= set(DESCRIPTORS)
        require(known, "qd.descriptors", f"two different of {', '.join(DESCRIPTORS)}", self.descriptors)
        counts = ("num_cells", "num_initial", "num_offspring", "num_targets", "updates_per_generation")
        require_positive_int(self, self.group, *counts)
        bins = isinstance(self.bins, int) and 2 <= self.bins <= 1024
        require(bins, "qd.bins", "a whole number from 2 to 1024", self.bins)
        require_range(self, self.group, 0.0, 1.0, "elites", "offspring")
        require(self.elites + self.offspring <= 1.0, "qd.offspring", "at most 1 - qd.elites", self.offspring)
        require(0.0 <= self.warm_up < 1.0, "qd.warm_up", "from 0 to below 1", self.warm_up)


def _positive(value: float) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0.0
