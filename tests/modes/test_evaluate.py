"""Evaluation: one whole episode each, counted by hand, and what is made of the results."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxrl_engine.core.spaces import Box, Discrete, MultiDiscrete
from jaxrl_engine.envs.vector import VectorEnv
from jaxrl_engine.modes.evaluate import EpisodeResults, evaluate, one_of, uniform_action
from jaxrl_engine.modes.session import as_plain, evaluation_points, per_run, summarize

EPISODES = 13


def always(choice):
    def policy(carry, timestep, key):
        return jnp.full((EPISODES, 1), choice, jnp.int32), carry + 1

    return policy


@pytest.mark.parametrize(("choice", "limit"), [(1, 100), (0, 100), (1, 2)])
def test_results_are_those_of_a_plain_loop(walk, choice, limit):
    key = jax.random.key(3)
    run = jax.jit(lambda: evaluate(always(choice), jnp.zeros(EPISODES), VectorEnv(walk, EPISODES), key, (), limit))
    results = run()
    key_reset, loop_key = jax.random.split(key)
    keys = jax.random.split(key_reset, EPISODES)
    states = [walk.reset(keys[index], ())[0] for index in range(EPISODES)]
    returns, lengths = np.zeros(EPISODES), np.zeros(EPISODES, int)
    running, success = np.ones(EPISODES, bool), np.zeros(EPISODES)
    step = jax.jit(walk.step)
    for _ in range(min(limit, 7)):
        loop_key, _, key_step = jax.random.split(loop_key, 3)
        for index, sub in enumerate(jax.random.split(key_step, EPISODES)):
            states[index], seen = step(sub, states[index], jnp.array([choice]), ())
            if running[index]:
                returns[index] += float(seen.reward[0])
                lengths[index] += 1
                success[index] = float(seen.metrics["success"])
                running[index] = not bool(seen.done)
    np.testing.assert_allclose(results.episode_return, returns)
    np.testing.assert_array_equal(results.episode_length, lengths)
    np.testing.assert_array_equal(results.metrics["success"], success)
    np.testing.assert_array_equal(results.cut, running)
    assert running.any() == (limit == 2)


def test_uniform_actions_cover_what_is_allowed_and_nothing_else(walk):
    shown = jax.vmap(walk.reset, in_axes=(0, None))(jax.random.split(jax.random.key(0), 5000), ())[1]
    three = uniform_action(Discrete(3), shown, jax.random.key(1))
    np.testing.assert_allclose(np.bincount(three.ravel(), minlength=3) / 5000, 1 / 3, atol=0.03)
    masked = shown.replace(action_mask=jnp.broadcast_to(jnp.array([True, False, True]), (5000, 1, 3)))
    assert set(np.unique(uniform_action(Discrete(3), masked, jax.random.key(1)))) == {0, 2}
    several = uniform_action(MultiDiscrete((2, 5)), shown, jax.random.key(1))
    assert several.shape == (5000, 1, 2) and several.max(axis=(0, 1)).tolist() == [1, 4]
    box = uniform_action(Box(shape=(2,), low=(-1.0, 2.0), high=(1.0, 6.0)), shown, jax.random.key(1))
    np.testing.assert_allclose(box.mean(axis=(0, 1)), [0.0, 4.0], atol=0.08)
    np.testing.assert_allclose(box.std(axis=(0, 1)), [2 / 12**0.5, 4 / 12**0.5], atol=0.05)


@pytest.mark.parametrize("width", [1, 2, 3, 13, 49, 50, 6561, 65537])
def test_every_rank_is_one_allowed_choice(width, monkeypatch):
    """Uniform ranks are then uniform choices: each allowed one has exactly one rank."""
    random = np.random.default_rng(width)
    allowed = random.uniform(size=width) < min(1.0, 101 / width)
    allowed[random.integers(width)] = True
    if width == 65537:
        allowed[::257] = True  # 256 choices in one column of 257: more than a byte counts
    count = allowed.sum()

    def ranks(key, shape, low, high):
        np.testing.assert_array_equal(high, np.full(shape, count))
        return jnp.arange(low, count)

    monkeypatch.setattr(jax.random, "randint", ranks)
    chosen = one_of(jnp.broadcast_to(jnp.asarray(allowed), (count, width)), jax.random.key(0))
    np.testing.assert_array_equal(np.sort(chosen), np.flatnonzero(allowed))


def test_draws_are_uniform_over_each_row_and_0_where_nothing_is_allowed():
    rows = np.zeros((3, 1, 131), bool)
    rows[0, 0, [2, 3, 5, 7, 11, 13, 127, 130]], rows[1] = True, True
    draw = jax.jit(jax.vmap(lambda key: one_of(jnp.asarray(rows), key)))
    chosen = np.asarray(draw(jax.random.split(jax.random.key(5), 20011)))
    assert chosen.shape == (20011, 3, 1) and chosen.dtype == np.int32 and not chosen[:, 2].any()
    for row in range(2):
        counts = np.bincount(chosen[:, row, 0], minlength=131)
        assert not counts[~rows[row, 0]].any() and scipy.stats.chisquare(counts[rows[row, 0]]).pvalue > 0.001


def test_summary_of_two_runs_by_hand():
    results = EpisodeResults(
        episode_return=np.array([[1.0, 3.0], [5.0, 7.0]], np.float32), episode_length=np.array([[2, 2], [4, 4]]),
        cut=np.zeros((2, 2), bool), metrics={"success": np.array([[0.0, 1.0], [1.0, 1.0]], np.float32)},
    )  # fmt: skip
    assert summarize(results) == {
        "return": 4.0, "return_per_seed": [2.0, 6.0], "length": 3.0, "length_per_seed": [2.0, 4.0],
        "success_rate": 0.75, "success_rate_per_seed": [0.5, 1.0],
    }  # fmt: skip


def test_evaluations_are_evenly_spaced_and_the_last_is_the_end():
    assert evaluation_points(100, 4) == {25, 50, 75, 100}
    assert evaluation_points(7, 3) == {2, 5, 7}
    assert evaluation_points(7, 0) == {7}
    assert evaluation_points(2, 10) == {1, 2}


def test_what_was_not_observed_is_null():
    assert as_plain(np.array([1.0, np.nan, 3.0])) == 2.0
    assert as_plain(np.float32(np.nan)) is None
    assert per_run({"a": np.array([1.0, np.nan]), "b": np.float32(2.0)}) == {"a_per_seed": [1.0, None]}
