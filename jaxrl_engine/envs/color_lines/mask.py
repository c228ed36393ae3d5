"""Which moves are legal: a ball may go to any empty cell that a path of empty neighbouring cells leads to.

All 81 × 81 pairs follow from one flood fill: it numbers the connected empty areas, and a ball reaches exactly the areas
that touch it.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Int8, UInt8

from jaxrl_engine.envs.color_lines.rules import CELLS, EMPTY, SIDE, STRIDE, unwalled, walled

_SIDEWAYS = (1, -1, STRIDE, -STRIDE)


def areas(board: Int8[Array, "9 9"]) -> UInt8[Array, "9 9"]:
    """Number the connected empty areas: equal numbers from 1 to 81 within one, different between two, 0 for balls.

    Every empty cell takes the largest number among its own and its neighbours' until none changes, at most as often as
    the longest shortest path within an area has steps.
    """
    own = jnp.arange(1, CELLS + 1, dtype=jnp.uint8).reshape(SIDE, SIDE)
    empty = walled((board == EMPTY).astype(jnp.uint8), 0)

    def spread(loop: tuple[UInt8[Array, "100"], Bool[Array, ""]]) -> tuple[UInt8[Array, "100"], Bool[Array, ""]]:
        numbers, _ = loop
        margined = jnp.pad(numbers, STRIDE)  # slices of it cost less than rolls
        largest = numbers
        for direction in _SIDEWAYS:
            largest = jnp.maximum(largest, margined[STRIDE + direction : STRIDE + direction + numbers.size])
        largest = largest * empty
        return largest, (largest != numbers).any()

    numbers, _ = jax.lax.while_loop(lambda loop: loop[1], spread, (walled(own, 0) * empty, jnp.ones((), bool)))
    return unwalled(numbers)


def legal_moves(numbers: UInt8[Array, "9 9"]) -> Bool[Array, "81 81"]:
    """Say for every pair [from, to] whether the move is legal, given the numbers of the empty areas."""

    def answer(_: tuple[Bool[Array, ""], Bool[Array, "81 81"]]) -> tuple[Bool[Array, ""], Bool[Array, "81 81"]]:
        to = numbers.reshape(1, CELLS)
        reached = jnp.zeros((CELLS, CELLS), bool)
        for neighbour in _around(numbers):
            reached |= neighbour[:, None] == to
        return jnp.zeros((), bool), reached & (to > 0)

    # A loop that runs once, or not at all where no cell is empty and all answers are no. It keeps the CPU compiler from
    # working out each answer anew from its place in the flat mask, which takes ten times as long.
    anywhere = numbers.max() > 0
    return jax.lax.while_loop(lambda loop: loop[0], answer, (anywhere, jnp.zeros((CELLS, CELLS), bool)))[1]


def is_legal(numbers: UInt8[Array, "9 9"], origin: Int[Array, ""], target: Int[Array, ""]) -> Bool[Array, ""]:
    """Answer for one pair of cells what `legal_moves` answers for all; cells off the board are never legal."""
    cell = jnp.arange(CELLS)
    goal = jnp.where(cell == target, numbers.reshape(-1), 0).sum(dtype=jnp.uint8)
    touches = jnp.stack(_around(numbers)) == goal
    return (goal > 0) & (touches & (cell == origin)[None]).any()


def marginals(legal: Bool[Array, "81 81"]) -> Bool[Array, "162"]:
    """Say which balls can move at all, then which cells some ball can move to: the mask of the factored view."""
    return jnp.concatenate([legal.any(axis=1), legal.any(axis=0)])


def _around(numbers: UInt8[Array, "9 9"]) -> list[UInt8[Array, "81"]]:
    """For each ball the numbers of the four cells around it; 0 for balls, walls, and around empty cells."""
    flat = walled(numbers, 0)
    ball = (numbers == 0).astype(jnp.uint8)
    return [(unwalled(jnp.roll(flat, direction)) * ball).reshape(-1) for direction in _SIDEWAYS]
