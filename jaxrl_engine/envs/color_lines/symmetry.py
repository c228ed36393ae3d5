"""The 8 · 7! symmetries of the game: turn or mirror the board, and rename the colours. For augmentation.

They commute with the rules: the moves legal on a transformed board are the transformed legal moves, and a move and its
image score alike. Where balls appear and what colours come next is random with the same distribution on both sides.
Each function transforms one thing; `vmap` serves batches.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Int8, Key, Shaped

from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf
from jaxrl_engine.envs.color_lines.rules import CELLS, COLOURS, SIDE

NUM_MOTIONS = 8


def _origins() -> np.ndarray:
    """For each motion of the square and each cell, the cell that comes to lie there: turns, then turns of a mirror."""
    cells = np.arange(CELLS, dtype=np.int32).reshape(SIDE, SIDE)
    turned = [np.rot90(side, turns) for side in (cells, cells.T) for turns in range(4)]
    return np.stack(turned).reshape(NUM_MOTIONS, CELLS)


ORIGINS = _origins()  # [motion, cell]
DESTINATIONS = np.argsort(ORIGINS, axis=1).astype(np.int32)  # [motion, cell]: where a cell goes


class Symmetry(Struct):
    """One motion of the square and one renaming of the colours. Motion 0 with colours 0 … 6 changes nothing."""

    motion: Int[Leaf, "*batch"]  # 0 … 7
    colours: Int8[Leaf, "*batch 7"]  # the new name of each colour


def random_symmetry(key: Key[Array, ""]) -> Symmetry:
    """Draw one of all symmetries uniformly. The key is consumed."""
    key_motion, key_colours = jax.random.split(key)
    return Symmetry(
        motion=jax.random.randint(key_motion, (), 0, NUM_MOTIONS),
        colours=jax.random.permutation(key_colours, jnp.arange(COLOURS, dtype=jnp.int8)),
    )


def transform_board(symmetry: Symmetry, board: Int8[Array, "9 9"]) -> Int8[Array, "9 9"]:
    """Move every ball to its cell's destination and give it its colour's new name."""
    cells = board.reshape(CELLS)[_origins_of(symmetry)]
    return transform_balls(symmetry, cells).reshape(SIDE, SIDE)


def transform_balls(symmetry: Symmetry, balls: Int8[Array, "*shape"]) -> Int8[Array, "*shape"]:
    """Rename the colours of balls wherever they are, such as the upcoming ones; `EMPTY` stays."""
    return jnp.where(balls < 0, balls, symmetry.colours[jnp.maximum(balls, 0).astype(jnp.int32)])


def transform_cell(symmetry: Symmetry, cell: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
    """Say where cells come to lie. A factored action is a pair of cells: this transforms it, too."""
    return jnp.asarray(DESTINATIONS)[symmetry.motion][cell]


def transform_action(symmetry: Symmetry, action: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
    """Transform flat actions from · 81 + to."""
    return transform_cell(symmetry, action // CELLS) * CELLS + transform_cell(symmetry, action % CELLS)


def transform_legal(symmetry: Symmetry, legal: Bool[Array, "81 81"]) -> Bool[Array, "81 81"]:
    """Transform the mask of legal moves [from, to]; flat masks are this in C order."""
    origins = _origins_of(symmetry)
    return legal[origins][:, origins]


def transform_observation(symmetry: Symmetry, observation: Shaped[Array, "9 9 14"]) -> Shaped[Array, "9 9 14"]:
    """Transform an observation: its cells by the motion, its two groups of seven colour planes by the renaming."""
    old_names = jnp.argsort(symmetry.colours)
    planes = jnp.concatenate([old_names, old_names + COLOURS])
    cells = observation.reshape(CELLS, 2 * COLOURS)[_origins_of(symmetry)]
    return cells[:, planes].reshape(observation.shape)


def _origins_of(symmetry: Symmetry) -> Int[Array, "81"]:
    return jnp.asarray(ORIGINS)[symmetry.motion]
