"""What a world shows of itself: a few small arrays that a film, a browser or a plot draws without knowing the world."""

import enum
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf

Index = TypeVar("Index", int, jax.Array)


class Ink(enum.IntEnum):
    """What a shape stands for; whoever draws chooses the colours. From `FIRST` on they tell like things apart."""

    NOTHING = 0  # not drawn
    FAINT = 1
    WALL = 2
    BODY = 3
    JOINT = 4
    GOAL = 5
    REACHED = 6
    FIRST = 7


DISTINCT = 8
"""Inks from `Ink.FIRST` on; whoever has more things to tell apart begins again."""


class Scene(Struct):
    """A flat picture: x to the right, y up, in the world's own unit. Cells are drawn first, then lines, then discs."""

    extent: Float[Leaf, "*batch 4"]  # what to show: left, bottom, right, top
    cells: Int[Leaf, "*batch rows columns"]  # Ink of equal cells that fill the extent, the top row first
    lines: Float[Leaf, "*batch lines 5"]  # from x, y to x, y; width
    line_inks: Int[Leaf, "*batch lines"]
    discs: Float[Leaf, "*batch discs 3"]  # centre x, y; radius
    disc_inks: Int[Leaf, "*batch discs"]
    agents: Float[Leaf, "*batch A 2"]  # where each agent is; no rows where agents have no place


def make_scene(
    extent: tuple[float, float, float, float],
    *,
    cells: ArrayLike | None = None,
    lines: ArrayLike | None = None,
    line_inks: ArrayLike | None = None,
    discs: ArrayLike | None = None,
    disc_inks: ArrayLike | None = None,
    agents: ArrayLike | None = None,
) -> Scene:
    """Return the scene of one world; what is left out it does not have."""

    def reals(given: ArrayLike | None, width: int) -> Leaf:
        return jnp.zeros((0, width)) if given is None else jnp.asarray(given, jnp.float32)

    def inks(given: ArrayLike | None, shape: tuple[int, ...]) -> Leaf:
        return jnp.zeros(shape, jnp.int8) if given is None else jnp.asarray(given).astype(jnp.int8)

    return Scene(
        extent=jnp.asarray(extent, jnp.float32), cells=inks(cells, (0, 0)),
        lines=reals(lines, 5), line_inks=inks(line_inks, (0,)),
        discs=reals(discs, 3), disc_inks=inks(disc_inks, (0,)), agents=reals(agents, 2),
    )  # fmt: skip


def distinct(index: Index) -> Index:
    """Return the ink of the thing number `index`, counted from 0."""
    return Ink.FIRST + index % DISTINCT
