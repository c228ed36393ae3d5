"""The symmetries of Color Lines commute with its rules."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from color_lines_boards import CELLS, SIDE, board_of, turn
from hypothesis import given, strategies as st

from jaxrl_engine.envs.color_lines import symmetry
from jaxrl_engine.envs.color_lines.env import ColorLines
from jaxrl_engine.envs.color_lines.mask import areas, legal_moves
from jaxrl_engine.envs.color_lines.rules import EMPTY, find_lines
from jaxrl_engine.modes.evaluate import one_of

# --- symmetries -----------------------------------------------------------------------------------------------------


def random_case(seed):
    """A board of any density and few colours, upcoming balls, and a symmetry."""
    random = np.random.default_rng(seed)
    board = random.integers(0, random.integers(1, 8), (SIDE, SIDE)).astype(np.int8)
    board[random.uniform(size=(SIDE, SIDE)) < random.uniform()] = EMPTY
    upcoming = random.integers(0, 7, 3).astype(np.int8)
    chosen = symmetry.Symmetry(
        motion=jnp.asarray(random.integers(0, 8), jnp.int32), colours=jnp.asarray(random.permutation(7).astype(np.int8))
    )
    return jnp.asarray(board), jnp.asarray(upcoming), chosen, int(random.integers(0, CELLS * CELLS))


@jax.jit
def both_ways(board, upcoming, chosen, action):
    """Pairs that must be equal: what follows from the transformed board, and the transform of what follows."""
    env, image = ColorLines(), symmetry.transform_board(chosen, board)
    rename = chosen.replace(colours=jnp.arange(7, dtype=jnp.int8))
    lines, image_lines = find_lines(board), find_lines(image)
    legal, image_legal = legal_moves(areas(board)), legal_moves(areas(image))
    complete = symmetry.transform_board(rename, lines.complete.astype(jnp.int8)).astype(bool)
    ahead = env.state_of(board, upcoming)
    image_ahead = env.state_of(image, symmetry.transform_balls(chosen, upcoming))
    image_action = symmetry.transform_action(chosen, action)
    return {
        "windows": (image_lines.windows, lines.windows),
        "complete": (image_lines.complete, complete),
        "legal": (image_legal, symmetry.transform_legal(chosen, legal)),
        "one action": (image_legal.reshape(-1)[image_action], legal.reshape(-1)[action]),
        "observation": (env._observe(image_ahead), symmetry.transform_observation(chosen, env._observe(ahead))),
        "pair": (
            symmetry.transform_cell(chosen, jnp.stack([action // CELLS, action % CELLS])),
            jnp.stack([image_action // CELLS, image_action % CELLS]),
        ),
    }


@given(st.integers(0, 2**31 - 1))
def test_rules_commute_with_symmetries(seed):
    for name, (ours, theirs) in both_ways(*random_case(seed)).items():
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


@given(st.integers(0, 2**31 - 1))
def test_a_turn_commutes_with_symmetries(seed):
    """The ball that moved and the lines that vanished; where balls appear is drawn anew, so they are left out."""
    board, upcoming, chosen, _ = random_case(seed)
    action = _jit_move(jax.random.key(seed), board)
    env = ColorLines(freeze="original", reward="raw")
    state, timestep = turn(env, board, action, upcoming=upcoming)
    image, image_action = _jit_image(chosen, board, action)
    image_state, image_timestep = turn(env, image, image_action, upcoming=upcoming)
    assert image_timestep.reward == timestep.reward and image_state.score == state.score
    assert image_state.lines == state.lines and image_timestep.metrics == timestep.metrics
    if state.lines:
        np.testing.assert_array_equal(image_state.board, _jit_image(chosen, jnp.asarray(state.board), action)[0])


_jit_move = jax.jit(lambda key, board: one_of(legal_moves(areas(board)).reshape(-1), key))
_jit_image = jax.jit(
    lambda chosen, board, action: (
        symmetry.transform_board(chosen, board), symmetry.transform_action(chosen, action)
    )
)  # fmt: skip


def test_the_eight_motions_are_those_of_the_square():
    cells = np.arange(CELLS).reshape(SIDE, SIDE)
    expected = {np.rot90(side, turns).tobytes() for side in (cells, np.flip(cells, 0)) for turns in range(4)}
    assert {cells.reshape(-1)[origins].tobytes() for origins in symmetry.ORIGINS} == expected and len(expected) == 8
    turned = symmetry.transform_board(
        symmetry.Symmetry(motion=jnp.asarray(1), colours=jnp.arange(7, dtype=jnp.int8)[::-1]),
        jnp.asarray(board_of("12.......")),
    )
    assert turned[8, 0] == 5 and turned[7, 0] == 4 and (np.asarray(turned) != EMPTY).sum() == 2


def test_random_symmetries_are_uniform():
    drawn = jax.vmap(symmetry.random_symmetry)(jax.random.split(jax.random.key(3), 5003))
    assert scipy.stats.chisquare(np.bincount(np.asarray(drawn.motion), minlength=8)).pvalue > 0.001
    colours = np.asarray(drawn.colours)
    assert (np.sort(colours, axis=1) == np.arange(7)).all()
    assert scipy.stats.chisquare(np.unique(colours[:, 0] * 7 + colours[:, 3], return_counts=True)[1]).pvalue > 0.001
