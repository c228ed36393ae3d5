"""Color Lines against a plain Python game, its chance, and published statistics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from color_lines_boards import CELLS, SIDE, nearly_full

from jaxrl_engine.envs.color_lines.env import METRICS, ColorLines
from jaxrl_engine.envs.color_lines.mask import legal_moves
from jaxrl_engine.envs.color_lines.rules import EMPTY, draw, play, start_board
from jaxrl_engine.modes.evaluate import one_of
from tests.reference import color_lines as reference

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
        good = one_of(legal_moves(state.areas).reshape(-1), key_move)
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
        move = one_of(legal_moves(state.areas).reshape(-1), key_move)
        after, timestep = env.step_with(draw(key_draw), state, move[None])
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
