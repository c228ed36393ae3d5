"""Evaluation: one whole episode each, counted by hand, and what is made of the results."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.core.spaces import Box, Discrete, MultiDiscrete
from jaxrl_engine.envs.vector import VectorEnv
from jaxrl_engine.modes.evaluate import EpisodeResults, evaluate, uniform_action
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
