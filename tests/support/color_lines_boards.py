"""Color Lines boards written as text, and one move on them."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_engine.envs.color_lines.rules import EMPTY, Chance

SIDE, CELLS = 9, 81


def board_of(text):
    """Read a board: a digit is a ball of that colour, a point an empty cell; rows left out are empty."""
    rows = text.split()
    assert len(rows) <= SIDE and all(len(row) == SIDE for row in rows)
    board = np.full((SIDE, SIDE), EMPTY, np.int8)
    for r, row in enumerate(rows):
        board[r] = [EMPTY if cell == "." else int(cell) for cell in row]
    return board


def flat(origin, target):
    """The action that moves from (row, column) to (row, column)."""
    return (origin[0] * SIDE + origin[1]) * CELLS + target[0] * SIDE + target[1]


def nearly_full(empty_cells):
    """A board without any two neighbours of one colour in a line, its first row's first cells empty."""
    rows, columns = np.indices((SIDE, SIDE))
    board = ((rows + 3 * columns) % 7).astype(np.int8)
    board[0, :empty_cells] = EMPTY
    return board


CHANCE = Chance(places=np.float32([0.1, 0.5, 0.9]), colours=np.float32([0.2, 0.5, 0.8]))
_steps = {}


def turn(env, board, action, chance=CHANCE, upcoming=(6, 6, 6), **state):
    """Make one move; returns the next state and the TimeStep as NumPy."""
    if env not in _steps:
        _steps[env] = jax.jit(lambda chance, state, action: env.step_with(chance, state, action))
    start = env.state_of(jnp.asarray(board), jnp.asarray(upcoming, jnp.int8)).replace(
        **{name: jnp.asarray(value, jnp.int32) for name, value in state.items()}
    )
    return jax.tree.map(np.asarray, _steps[env](chance, start, jnp.asarray(action, jnp.int32)[None]))
