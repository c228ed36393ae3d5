"""Color Lines on boards worked out by hand, and its contract with the engine."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from color_lines_boards import CELLS, CHANCE, SIDE, board_of, flat, nearly_full, turn

from jaxrl_engine.envs.color_lines.env import METRICS, ColorLines
from jaxrl_engine.envs.color_lines.mask import areas, legal_moves, marginals
from jaxrl_engine.envs.color_lines.rules import EMPTY, Chance, find_lines
from jaxrl_engine.envs.vector import VectorEnv
from tests.reference import color_lines as reference

# --- legal moves ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balls", [0, 1, 24, 40, 57, 70, 80, 81])
def test_mask_equals_breadth_first_search(balls):
    random = np.random.default_rng(balls)
    boards = []
    for _ in range(7):
        cells = np.full(CELLS, EMPTY, np.int8)
        cells[random.permutation(CELLS)[:balls]] = 3
        boards.append(cells.reshape(SIDE, SIDE))
    found = jax.jit(jax.vmap(lambda board: legal_moves(areas(board))))(jnp.asarray(np.stack(boards)))
    for board, legal in zip(boards, found, strict=True):
        np.testing.assert_array_equal(legal, reference.legal_moves(board))


def test_the_longest_way_is_found():
    snake = board_of("......... 00000000. ......... .00000000 ......... 00000000. ......... .00000000 .........")
    numbers = np.asarray(jax.jit(areas)(jnp.asarray(snake)))
    assert len(np.unique(numbers[snake == EMPTY])) == 1 and not numbers[snake != EMPTY].any()
    walled_in = board_of("..0...... 000......")
    numbers = np.asarray(jax.jit(areas)(jnp.asarray(walled_in)))
    assert numbers[0, 0] == numbers[0, 1] != numbers[0, 3] == numbers[8, 8]
    legal = np.asarray(legal_moves(jnp.asarray(numbers)))
    assert legal[2].sum() == 81 - 4  # the ball in the wall reaches both areas
    assert legal[9].sum() == 81 - 4 and not legal[0].any()


# --- boards by hand -------------------------------------------------------------------------------------------------

ALONG = {
    "row": ("1111.....", (4, 4), (0, 4)),
    "column": ("..1...... ..1...... ......... ..1...... ..1......", (8, 8), (2, 2)),
    "diagonal": ("1........ .1....... ..1...... ...1.....", (8, 0), (4, 4)),
    "antidiagonal": ("........1 .......1. ......1.. .....1...", (8, 0), (4, 4)),
}


@pytest.mark.parametrize("direction", ALONG)
def test_a_line_in_each_direction(direction):
    text, origin, target = ALONG[direction]
    board = board_of(text)
    board[origin], board[8, 5] = 1, 4
    state, timestep = turn(ColorLines(), board, flat(origin, target))
    assert timestep.reward.tolist() == [10.0] and state.score == 10 and state.lines == 1
    left = board_of("")
    left[8, 5] = 4
    np.testing.assert_array_equal(state.board, left)  # nothing appeared
    assert state.upcoming.tolist() == [6, 6, 6]
    assert timestep.metrics["empty_cells"] == 80


@pytest.mark.parametrize(("length", "code", "readme"), [(6, 12, 14), (7, 14, 18), (8, 16, 22), (9, 18, 26)])
def test_longer_lines_score_more(length, code, readme):
    board = board_of("." * (9 - length) + "1" * 3 + "." + "1" * (length - 4))
    board[4, 4], board[8, 8] = 1, 0
    action = flat((4, 4), (0, 12 - length))
    for scoring, points in (("code", code), ("readme", readme)):
        state, timestep = turn(ColorLines(scoring), board, action)
        assert timestep.reward.tolist() == [points] and state.lines == 1
        assert (state.board != EMPTY).sum() == 1


def test_lines_that_share_a_ball_both_count():
    column = "....1.... " * 4
    board = board_of(f"1111..... {column} ....3.... ......... ......... 1.......2")
    state, timestep = turn(ColorLines(), board, flat((8, 0), (0, 4)))
    assert timestep.reward.tolist() == [20.0] and state.lines == 2
    assert (state.board != EMPTY).sum() == 2
    # Φ before: two runs of four, and (0, 3) and (1, 4) are a pair on a diagonal; nothing is left of it.
    _, timestep = turn(ColorLines(reward="shaped"), board, flat((8, 0), (0, 4)))
    assert timestep.reward[0] == pytest.approx(20 + 10 - 2 * 2.0 - 0.1)


def test_the_whole_board_is_searched():
    board = board_of("......... 22222.... ......... 3.......4")
    state, timestep = turn(ColorLines(), board, flat((3, 0), (8, 8)))
    assert timestep.reward.tolist() == [10.0]
    assert (state.board != EMPTY).sum() == 2 and state.board[8, 8] == 3


def test_lines_do_not_go_round_the_edge():
    board = board_of("......111 11....... ........1 .......1. 1........ .1....... ..1...... 5........")
    # Runs of three in the first row and along a diagonal, two pairs.
    assert not find_lines(jnp.asarray(board)).complete.any()
    assert np.asarray(find_lines(jnp.asarray(board)).windows).tolist() == [6, 2, 0, 0, 0]


def test_balls_appear_after_a_quiet_move_and_their_line_waits():
    board = board_of("222.2.... ......... 3........")
    board[4:, :] = np.arange(45).reshape(5, 9) % 7
    # The empty cells are 4 + … in reading order; u = 0 takes the first of them, (0, 3), after the move as well.
    chance = Chance(places=np.float32([0.0, 0.0, 0.999]), colours=np.float32([0.0, 0.5, 0.999]))
    state, timestep = turn(ColorLines(), board, flat((2, 0), (2, 4)), chance, upcoming=(2, 5, 1))
    assert timestep.reward[0] == pytest.approx(0.1) and state.lines == 0
    assert state.board[0].tolist() == [2, 2, 2, 2, 2, 5, -1, -1, -1] and state.board[3, 8] == 1
    assert state.upcoming.tolist() == [0, 3, 6]
    state, timestep = turn(ColorLines(), state.board, flat((2, 4), (2, 5)), chance)
    assert timestep.reward.tolist() == [10.0] and (state.board[0] == EMPTY).sum() == 8


def test_freeze_exploit():
    """With one or two empty cells nothing appeared any more, and every move paid; now the board fills."""
    board = nearly_full(2)
    back_and_forth = [flat((0, 2), (0, 1)), flat((0, 1), (0, 2))]
    state, timestep = turn(ColorLines(), board, back_and_forth[0])
    assert timestep.terminated and not timestep.truncated and timestep.metrics["empty_cells"] == 0
    assert timestep.reward[0] == pytest.approx(0.1) and sorted(state.board[0][[0, 2]].tolist()) == [6, 6]
    assert not timestep.action_mask.any()

    env, chance = ColorLines(freeze="original"), jax.tree.map(jnp.asarray, CHANCE)

    def exploit(state, action):
        state, timestep = env.step_with(chance, state, action[None])
        return state, (timestep.reward[0], timestep.terminated, timestep.truncated)

    start = env.state_of(jnp.asarray(board), jnp.zeros(3, jnp.int8))
    end, outcome = jax.jit(lambda s, a: jax.lax.scan(exploit, s, a))(start, jnp.tile(jnp.array(back_and_forth), 500))
    rewards, terminated, truncated = map(np.asarray, outcome)
    assert rewards.sum() == pytest.approx(100, rel=1e-4) and end.score == 0
    assert not terminated.any() and truncated.tolist() == [False] * 999 + [True]
    # Three cells are filled in either case.
    assert turn(env, nearly_full(3), flat((0, 3), (0, 2)))[1].terminated


def test_an_emptied_board_gets_new_balls():
    board = board_of("1111..... ......... 1........")
    state, timestep = turn(ColorLines(), board, flat((2, 0), (0, 4)))
    assert (state.board == 6).sum() == 3 == (state.board != EMPTY).sum() and timestep.action_mask.any()
    assert state.upcoming.tolist() == [1, 3, 5] and timestep.reward.tolist() == [10.0]
    state, timestep = turn(ColorLines(freeze="original"), board, flat((2, 0), (0, 4)))
    assert (state.board == EMPTY).all() and not timestep.action_mask.any()


@pytest.mark.parametrize(
    "action",
    [flat((0, 0), (0, 1)), flat((3, 3), (3, 4)), flat((0, 0), (0, 0)), flat((0, 0), (5, 5)), -1, 6561, 2**31 - 1],
)
def test_illegal_moves_change_nothing_but_the_time(action):
    board = board_of("12....... 2........")  # the ball in the corner is walled in
    for env in (ColorLines(time_limit=8), ColorLines(freeze="original", reward="shaped", time_limit=8)):
        state, timestep = turn(env, board, action, time=7)
        np.testing.assert_array_equal(state.board, board)
        assert timestep.reward.tolist() == [-10.0] and state.time == 8 and state.illegal_moves == 1
        assert not timestep.terminated and timestep.truncated == (env.freeze == "fixed")
        assert state.upcoming.tolist() == [6, 6, 6] and timestep.metrics["illegal_moves"] == 1
    _, timestep = turn(env, board, flat((0, 1), (5, 5)), time=12)
    assert timestep.truncated


def test_shaped_reward_by_hand():
    """A pair becomes three: Φ goes from 0.1 to 0.5; the balls that appear are far from everything."""
    board = board_of("11....... ......... 1........")
    places = np.float32([(40 - 3) / 78 + 1e-4, 0.999, (58 - 3) / 76 + 1e-4])
    chance = CHANCE.replace(places=places)
    state, timestep = turn(ColorLines(reward="shaped"), board, flat((2, 0), (0, 2)), chance, upcoming=(3, 4, 5))
    assert (state.board != EMPTY).sum() == 6
    assert timestep.reward[0] == pytest.approx(0.1 + 0.5 - 0.1)
    four = board_of("1111....2 ......... ........2 .......2. ......2.. .....2...")
    _, timestep = turn(ColorLines(reward="shaped"), four, flat((0, 8), (8, 0)), chance, upcoming=(3, 4, 5))
    assert timestep.reward[0] == pytest.approx(0.1)  # two runs of four before and after


def test_factored_actions_are_the_same_moves():
    board = board_of("1........ .2.......")
    factored = ColorLines(actions="factored")
    ours, theirs = turn(ColorLines(), board, flat((1, 1), (8, 0))), turn(factored, board, [10, 72])
    for name in ("board", "upcoming", "time"):
        np.testing.assert_array_equal(getattr(ours[0], name), getattr(theirs[0], name))
    assert theirs[1].action_mask.shape == (1, 162) and factored.spec.action.nvec == (81, 81)
    for pair in ([-1, 40], [10, 81], [10, -1], [81, 3]):
        assert turn(factored, board, pair)[1].reward.tolist() == [-10.0]
    legal = jnp.zeros((CELLS, CELLS), bool).at[3, 5].set(True).at[3, 7].set(True).at[80, 7].set(True)
    assert np.flatnonzero(marginals(legal)).tolist() == [3, 80, 81 + 5, 81 + 7]


def test_observation_by_hand():
    env = ColorLines()
    board = board_of("1...6....")
    planes = np.asarray(env._observe(env.state_of(jnp.asarray(board), jnp.array([2, 0, 2], jnp.int8))))
    assert planes.dtype == np.uint8 and planes.shape == (9, 9, 14) == env.spec.observation.shape
    assert np.argwhere(planes[..., :7]).tolist() == [[0, 0, 1], [0, 4, 6]]
    np.testing.assert_array_equal(planes[..., 7:], np.broadcast_to([1, 0, 2, 0, 0, 0, 0], (9, 9, 7)))
    assert env.spec.masks_actions and env.spec.time_limit == 1000 and env.spec.metric_names == METRICS


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"scoring": "REDME"}, "scoring must be code or readme, not 'REDME'"),
        ({"freeze": "no"}, "freeze must be fixed or original"),
        ({"reward": ""}, "reward must be raw or shaped"),
        ({"actions": "pair"}, "actions must be flat or factored"),
        ({"time_limit": 0}, "time_limit must be a whole number >= 1"),
    ],
)
def test_wrong_settings_are_named(setting, complaint):
    given = types.SimpleNamespace(**vars(ColorLines()) | setting)  # the tests' own type checker must not come first
    with pytest.raises(ValueError, match=complaint):
        ColorLines.__post_init__(given)


# --- the contract ---------------------------------------------------------------------------------------------------


def test_batch_equals_loop_jit_equals_no_jit_and_no_key_is_used_twice():
    env = ColorLines(reward="shaped")
    keys = jax.random.split(jax.random.key(6), 6)
    copies = jax.random.clone(keys)
    with jax.debug_key_reuse(True):
        state, start = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(keys[:3], ())
        actions = jnp.argmax(start.action_mask, axis=-1).astype(jnp.int32)
        batched = jax.jit(jax.vmap(env.step, in_axes=(0, 0, 0, None)))(keys[3:], state, actions, ())
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(batched))
    shapes = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)  # noqa: E731
    assert shapes(batched) == shapes((state, start))
    assert not any(value.any() for value in start.metrics.values()) and not start.reward.any()
    own, own_start = env.reset(copies[1], ())
    single = env.step(copies[4], own, actions[1], ())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[1], atol=1e-5), (own_start, *single), (start, *batched))


def test_the_vector_layer_starts_anew():
    vector = VectorEnv(ColorLines(time_limit=2), 5)
    state, fresh = vector.reset(jax.random.key(0), ()), vector.fresh(jax.random.key(1), ())
    step = jax.jit(vector.step)
    for index, ended in enumerate((False, True, False)):
        actions = jnp.argmax(state.timestep.action_mask, axis=-1).astype(jnp.int32)
        keys = jax.random.split(jax.random.key(2 + index), 5)
        state, fresh, after, episodes = step(keys, state, actions, (), fresh)
        assert (np.asarray(after.truncated) == ended).all() and (np.asarray(episodes.ended) == ended).all()
        balls = np.asarray((state.env.board != EMPTY).sum((1, 2)))
        assert (balls == (24 if ended else 27)).all()
        assert (np.asarray(after.metrics["empty_cells"]) == (81 - 30 if ended else 81 - 27)).all()
