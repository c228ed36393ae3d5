"""The board and what may happen on it: lines, scores, balls that move and balls that appear.

A board is int8 `[9, 9]`: a colour from 0 to 6, or `EMPTY`. A *window* is k cells in a row, in one of four directions,
of one colour. A maximal run of length L ≥ k - 1 holds L - k + 1 windows, so with N_k windows of each length there are
N_k - 2 N_{k+1} + N_{k+2} runs of length k exactly, and N_5 - N_6 runs of five or more: counting windows, which takes
no search, is enough to score.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int8, Key, Shaped

from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf

SIDE = 9
CELLS = SIDE * SIDE
COLOURS = 7
SPAWNS = 3  # balls that appear after a move without a line
START_BALLS = 24
LINE = 5  # balls in a row that vanish
EMPTY = -1

STRIDE = SIDE + 1
"""Boards are walked flat, with a wall to the right and below: a step in any direction stays on the board or hits it."""

DIRECTIONS = (1, STRIDE, STRIDE + 1, STRIDE - 1)  # right, down, and the two diagonals downward
MARGIN = (LINE - 1) * max(DIRECTIONS)  # places of a flat board between the two ends of a line, at most

Scoring = Literal["code", "readme"]
Freeze = Literal["fixed", "original"]
SCORINGS, FREEZES = get_args(Scoring), get_args(Freeze)


class Chance(Struct):
    """All that is random in one step, uniform in [0, 1): where balls appear, and the colours of the next three."""

    places: Float[Leaf, "*batch 3"]
    colours: Float[Leaf, "*batch 3"]


class Lines(Struct):
    """What stands in a row on a board."""

    complete: Bool[Leaf, "*batch 9 9"]  # cells of runs of five or more
    windows: Int[Leaf, "*batch 5"]  # N_2 … N_6


class Turn(Struct):
    """What a legal move leads to."""

    board: Int8[Leaf, "*batch 9 9"]
    upcoming: Int8[Leaf, "*batch 3"]
    lines: Lines  # as they stood after the move, before they were cleared


def walled(cells: Shaped[Array, "9 9"], wall: int) -> Shaped[Array, "100"]:
    """Lay the cells out flat, with a wall after each row and below the last."""
    return jnp.pad(cells, ((0, 1), (0, 1)), constant_values=wall).reshape(-1)


def unwalled(cells: Shaped[Array, "100"]) -> Shaped[Array, "9 9"]:
    """Undo `walled`."""
    return cells.reshape(STRIDE, STRIDE)[:SIDE, :SIDE]


def find_lines(board: Int8[Array, "9 9"]) -> Lines:
    """Find every window of two to six cells, and the cells of those of five.

    Wide margins let every shift be a slice: shifts that pad anew take three times as long on a CPU.
    """
    cells = jnp.pad(walled(board, EMPTY), MARGIN, constant_values=EMPTY)
    complete, counts = jnp.zeros(STRIDE * STRIDE, bool), []
    for direction in DIRECTIONS:
        windows = [(cells[:-direction] == cells[direction:]) & (cells[:-direction] != EMPTY)]
        for reach in range(1, LINE):
            windows.append(windows[-1][:-direction] & windows[0][reach * direction :])
        starts = [each[MARGIN : MARGIN + STRIDE * STRIDE] for each in windows]
        counts.append(jnp.stack([each.sum(dtype=jnp.uint8) for each in starts]).astype(jnp.int32))
        for reach in range(LINE):
            first = MARGIN - reach * direction
            complete |= windows[LINE - 2][first : first + STRIDE * STRIDE]
    return Lines(complete=unwalled(complete), windows=jnp.stack(counts).sum(axis=0))


def points(lines: Lines, scoring: Scoring) -> Int[Array, ""]:
    """Score a board's runs of five or more: Σ 2 L as `code`, Σ 10 + 4 (L - 5) as `readme`, L a run's length.

    Σ over runs of a + b (L - 5) = a N_5 + (b - a) N_6: five balls and each one beyond add a window of five, and all
    but the first of these a window of six. A ball that two runs share counts in both.
    """
    five, six = lines.windows[3], lines.windows[4]
    return 10 * five - (8 if scoring == "code" else 6) * six


def promise(lines: Lines) -> Float[Array, ""]:
    """Φ = 0.1 · (runs of two) + 0.5 · (runs of three) + 2 · (runs of four): the shaped reward pays its change."""
    exactly = lines.windows[:3] - 2 * lines.windows[1:4] + lines.windows[2:]
    return (exactly * jnp.array([0.1, 0.5, 2.0])).sum()


def draw(key: Key[Array, ""]) -> Chance:
    """Draw a step's random numbers. The key is consumed."""
    numbers = jax.random.uniform(key, (2, SPAWNS))
    return Chance(places=numbers[0], colours=numbers[1])


def start_board(key: Key[Array, ""]) -> Int8[Array, "9 9"]:
    """Put balls of uniform colours on `START_BALLS` uniform distinct cells. The key is consumed."""
    key_cells, key_colours = jax.random.split(key)
    occupied = jax.random.permutation(key_cells, CELLS) < START_BALLS
    colours = colours_of(jax.random.uniform(key_colours, (CELLS,)))
    return jnp.where(occupied, colours, jnp.int8(EMPTY)).reshape(SIDE, SIDE)


def colours_of(numbers: Float[Array, "balls"]) -> Int8[Array, "balls"]:
    """Turn uniform numbers in [0, 1) into uniform colours."""
    return (numbers * COLOURS).astype(jnp.int8)


def play(
    board: Int8[Array, "9 9"],
    upcoming: Int8[Array, "3"],
    origin: Int[Array, ""],
    target: Int[Array, ""],
    chance: Chance,
    freeze: Freeze,
) -> Turn:
    """Make a legal move from cell to cell (row · 9 + column): clear all lines on the board, else let balls appear."""
    moved = _moved(board, origin, target)
    lines = find_lines(moved)
    matched = lines.windows[3] > 0
    cleared = jnp.where(lines.complete, jnp.int8(EMPTY), moved)
    quiet = ~matched
    if freeze == "fixed":
        quiet |= (cleared == EMPTY).all()
    return Turn(
        board=jnp.where(quiet, _spawned(cleared, upcoming, chance.places, freeze), cleared),
        upcoming=jnp.where(quiet, colours_of(chance.colours), upcoming),
        lines=lines,
    )


def _moved(board: Int8[Array, "9 9"], origin: Int[Array, ""], target: Int[Array, ""]) -> Int8[Array, "9 9"]:
    # Masks, not indices: a batch of single-cell updates is a scatter, which is what CPUs and GPUs are slow at.
    cell = jnp.arange(CELLS).reshape(SIDE, SIDE)
    ball = jnp.where(cell == origin, board, 0).sum(dtype=jnp.int8)
    return jnp.where(cell == target, ball, jnp.where(cell == origin, jnp.int8(EMPTY), board))


def _spawned(
    board: Int8[Array, "9 9"], upcoming: Int8[Array, "3"], places: Float[Array, "3"], freeze: Freeze
) -> Int8[Array, "9 9"]:
    """Put the upcoming balls on distinct empty cells, as many as fit (`original`: all three or none)."""
    empty = (board == EMPTY).reshape(-1)
    order = jnp.cumsum(empty, dtype=jnp.int32)  # an empty cell is the order-th, counted from 1
    count = order[-1]
    balls = SPAWNS if freeze == "fixed" else jnp.where(count >= SPAWNS, SPAWNS, 0)
    cells = board.reshape(-1)
    for index, choice in enumerate(_distinct(places, count)):
        here = empty & (order == choice + 1) & (index < jnp.minimum(balls, count))
        cells = jnp.where(here, upcoming[index], cells)
    return cells.reshape(SIDE, SIDE)


def _distinct(numbers: Float[Array, "3"], count: Int[Array, ""]) -> list[Int[Array, ""]]:
    """Turn uniform numbers into a uniform sequence of distinct whole numbers below `count` (as far as there are any).

    Each is drawn among those left, in ascending order, and moved up past the ones taken before it.
    """
    first, second, third = (jnp.floor(numbers[i] * (count - i)).astype(jnp.int32) for i in range(SPAWNS))
    second += second >= first
    low, high = jnp.minimum(first, second), jnp.maximum(first, second)
    third += third >= low
    third += third >= high
    return [first, second, third]
