"""Color Lines against a plain Python game, boards worked out by hand, published statistics, and its own symmetries."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, strategies as st

from jaxrl_engine.envs.color_lines import symmetry
from jaxrl_engine.envs.color_lines.env import METRICS, ColorLines
from jaxrl_engine.envs.color_lines.mask import areas, legal_moves, marginals, random_move
from jaxrl_engine.envs.color_lines.rules import EMPTY, Chance, draw, find_lines, play, start_board
from jaxrl_engine.envs.vector import VectorEnv
from tests.reference import color_lines as reference

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


# --- the plain Python game ------------------------------------------------------------------------------------------

NUM_ENVS, NUM_STEPS = 43, 241  # 10,363 steps


def play_at_random(env, few_colours):
    """Play `T` steps of `B` games; a fifth of the moves are drawn from all numbers, most of them illegal.

    The colours of start and upcoming balls are folded to `few_colours`, so that lines occur; a third of the games
    start nearly full. Returns the starts `[T, B]` (what a game that ended goes on from) and what happened `[T, B]`.
    """

    def begin(key):
        key_reset, key_fill, key_dense, key_colours = jax.random.split(key, 4)
        state, _ = env.reset(key_reset, ())
        dense = jax.random.uniform(key_dense) < 1 / 3
        filled = dense & (jax.random.uniform(key_fill, (SIDE, SIDE)) < 0.95)
        board = jnp.where(state.board < 0, state.board, state.board % jnp.int8(few_colours))
        board = jnp.where(filled, jax.random.randint(key_colours, (SIDE, SIDE), 0, 7, jnp.int8), board)
        board = board.at[4, 4].set(EMPTY)  # no game starts on a full board
        return env.state_of(board, state.upcoming % jnp.int8(few_colours))

    def step(state, key):
        key_start, key_draw, key_move, key_wild, key_any = jax.random.split(key, 5)
        chance = draw(key_draw)
        chance = chance.replace(colours=chance.colours * (few_colours / 7))
        good = random_move(key_move, legal_moves(state.areas))
        wild = jax.random.randint(key_any, (), -50, CELLS * CELLS + 50)
        action = jnp.where(jax.random.uniform(key_wild) < 0.2, wild, good)
        given = action[None] if env.actions == "flat" else jnp.stack([action // CELLS, action % CELLS])[None]
        after, timestep = env.step_with(chance, state, given)
        start = begin(key_start)
        kept = jax.tree.map(lambda new, old: jnp.where(timestep.done, new, old), start, after)
        return kept, (start, chance, action, after, timestep)

    @jax.jit
    def run(key):
        key_begin, key_steps = jax.random.split(key)
        states = jax.vmap(begin)(jax.random.split(key_begin, NUM_ENVS))
        keys = jax.random.split(key_steps, (NUM_STEPS, NUM_ENVS))
        return states, jax.lax.scan(jax.vmap(step), states, keys)[1]

    return jax.tree.map(np.asarray, run(jax.random.key(11)))


@pytest.mark.parametrize(
    ("env", "few_colours"),
    [
        (ColorLines(time_limit=61), 2),
        (ColorLines("readme", "original", "shaped", "factored", time_limit=61), 3),
    ],
    ids=["default", "original, readme, shaped, factored"],
)
def test_every_step_equals_the_plain_game(env, few_colours):
    first, (starts, chances, actions, after, timesteps) = play_at_random(env, few_colours)
    settings = dict(
        scoring=env.scoring, freeze=env.freeze, shaped=env.reward == "shaped", time_limit=env.time_limit
    )  # fmt: skip
    seen = dict.fromkeys(["lines", "illegal", "terminated", "truncated", "nearly full"], 0)
    for b in range(NUM_ENVS):
        game = reference.Game(first.board[b], first.upcoming[b], **settings)
        for t in range(NUM_STEPS):
            at = (t, b)
            origin, target = divmod(int(actions[at]), CELLS)
            reward, terminated, truncated = game.step(origin, target, chances.places[at], chances.colours[at])
            np.testing.assert_array_equal(after.board[at], game.board)
            assert after.upcoming[at].tolist() == game.upcoming
            assert (timesteps.terminated[at], timesteps.truncated[at]) == (terminated, truncated)
            assert timesteps.reward[at][0] == pytest.approx(reward, abs=1e-5)
            counts = (game.score, game.lines, game.illegal_moves, (game.board == EMPTY).sum())
            assert tuple(timesteps.metrics[name][at] for name in METRICS) == counts
            assert after.time[at] == game.time
            if (b + t) % 3 == 0:
                legal = reference.legal_moves(game.board)
                mask = legal.reshape(-1) if env.actions == "flat" else np.concatenate([legal.any(1), legal.any(0)])
                np.testing.assert_array_equal(timesteps.action_mask[at][0], mask)
            seen["lines"] += reward > 5
            seen["illegal"] += reward == reference.ILLEGAL
            seen["terminated"] += terminated
            seen["truncated"] += truncated
            seen["nearly full"] += counts[3] <= 2
            if terminated or truncated:
                game = reference.Game(starts.board[at], starts.upcoming[at], **settings)
    assert min(seen.values()) > 20, seen  # everything that can happen did


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


def test_random_moves_are_uniform_over_the_legal_ones():
    board = jnp.asarray(
        board_of("1........ 2.0000000 .00000000 000000000 000000000 000000000 00000000. 00000000. 00000000.")
    )
    legal = legal_moves(areas(board))
    moves = np.asarray(jax.jit(jax.vmap(random_move, (0, None)))(jax.random.split(jax.random.key(1), 20011), legal))
    allowed = np.flatnonzero(np.asarray(legal))
    counts = np.bincount(np.searchsorted(allowed, moves), minlength=len(allowed))
    assert np.isin(moves, allowed).all() and scipy.stats.chisquare(counts).pvalue > 0.001
    assert random_move(jax.random.key(1), jnp.zeros((CELLS, CELLS), bool)) == 0


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


def nearly_full(empty_cells):
    """A board without any two neighbours of one colour in a line, its first row's first cells empty."""
    rows, columns = np.indices((SIDE, SIDE))
    board = ((rows + 3 * columns) % 7).astype(np.int8)
    board[0, :empty_cells] = EMPTY
    return board


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


# --- chance ---------------------------------------------------------------------------------------------------------


def test_starts_are_uniform():
    boards = np.asarray(jax.jit(jax.vmap(start_board))(jax.random.split(jax.random.key(5), 4001)))
    assert ((boards != EMPTY).sum((1, 2)) == 24).all()
    assert scipy.stats.chisquare((boards != EMPTY).sum(0).reshape(-1)).pvalue > 0.001
    assert scipy.stats.chisquare(np.bincount(boards[boards != EMPTY], minlength=7)).pvalue > 0.001


def test_balls_appear_anywhere_and_in_any_colour():
    board, upcoming = jnp.asarray(nearly_full(5)), jnp.array([1, 2, 3], jnp.int8)
    move = jnp.asarray(5), jnp.asarray(4)
    go = jax.jit(jax.vmap(lambda key: play(board, upcoming, *move, draw(key), "fixed")))
    found = go(jax.random.split(jax.random.key(6), 6007))
    row = np.asarray(found.board)[:, 0, [0, 1, 2, 3, 5]]  # now empty: 0-3 and 5
    code = sum(np.argmax(row == ball, axis=1) * 5**place for place, ball in enumerate((1, 2, 3)))
    assert ((row != EMPTY).sum(1) == 3).all()
    counts = np.unique(code, return_counts=True)[1]
    assert len(counts) == 60 and scipy.stats.chisquare(counts).pvalue > 0.001  # all 5 · 4 · 3 ways alike
    colours = np.asarray(found.upcoming)
    for ball in colours.T:
        assert scipy.stats.chisquare(np.bincount(ball, minlength=7)).pvalue > 0.001
    assert scipy.stats.pearsonr(colours[:, 0], colours[:, 1]).pvalue > 0.001


@pytest.mark.slow
def test_random_play_has_the_published_statistics():
    """1,811 episodes of the earlier system under uniform random legal moves; ours must lie within sampling error."""
    env, episodes = ColorLines(freeze="original", reward="shaped"), 2039

    def step(carry, key):
        state, total, running = carry
        key_move, key_draw = jax.random.split(key)
        after, timestep = env.step_with(draw(key_draw), state, random_move(key_move, legal_moves(state.areas))[None])
        keep = lambda new, old: jnp.where(running, new, old)  # noqa: E731
        return (jax.tree.map(keep, after, state), total + running * timestep.reward[0], running & ~timestep.done), ()

    @functools.partial(jax.jit, static_argnums=2)
    def go_on(carry, key, steps):
        keys = jax.random.split(key, (steps, carry[1].shape[0]))
        return jax.lax.scan(jax.vmap(step), carry, keys)[0]

    state, _ = jax.jit(jax.vmap(env.reset, (0, None)))(jax.random.split(jax.random.key(8), episodes), ())
    carry = go_on((state, jnp.zeros(episodes), jnp.ones(episodes, bool)), jax.random.key(9), 31)
    long = np.flatnonzero(carry[2])  # few episodes are longer: only these go on
    rest = go_on(jax.tree.map(lambda leaf: leaf[long], carry), jax.random.key(10), 1000 - 31)
    state, total, running = jax.tree.map(lambda all_, some: np.asarray(all_.at[long].set(some)), carry, rest)
    assert not running.any()

    def agrees(sample, published):
        error = sample.std() * np.sqrt(1 / episodes + 1 / 1811)
        assert abs(sample.mean() - published) < 3 * error, (sample.mean(), published, error)

    assert np.median(state.time) == 19
    agrees(state.time, 60.7)
    agrees(state.score, 0.90)
    agrees(state.score > 0, 0.048)
    agrees(state.lines, 0.089)
    agrees((state.board != EMPTY).all((1, 2)), 0.964)
    agrees(total, 12.6)


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


_jit_move = jax.jit(lambda key, board: random_move(key, legal_moves(areas(board))))
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
