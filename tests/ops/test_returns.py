"""GAE and discounted returns against brute-force sums in float64 and against worked examples."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.ops.returns import corrected_gae, discounted_returns, gae, temporal_differences

STEPS, ENVS = 13, 7
jitted_gae = jax.jit(gae, static_argnames="unroll")
jitted_correction = jax.jit(corrected_gae)
jitted_returns = jax.jit(discounted_returns, static_argnames="unroll")


def draw_stream(seed, steps=STEPS):
    """Random rewards, values and flags; about a third of the steps end an episode, in all three ways."""
    rng = np.random.default_rng(seed)
    reward, value, next_value = rng.normal(size=(3, steps)) * 3.0
    terminated, truncated = rng.random((2, steps)) < 0.2
    return reward, value, next_value, terminated, terminated | truncated


def to_device(stream):
    return [jnp.asarray(array, jnp.bool_ if array.dtype == bool else jnp.float32) for array in stream]


def brute_force_advantage(reward, value, next_value, terminated, done, gamma, gae_lambda):
    """A_t = Σ_l (γλ)^l δ_{t+l}, summed term by term up to and including the step that ends the episode."""
    advantage = np.zeros_like(reward)
    for t in range(len(reward)):
        for last in range(t, len(reward)):
            bootstrap = 0.0 if terminated[last] else gamma * next_value[last]
            advantage[t] += (gamma * gae_lambda) ** (last - t) * (reward[last] + bootstrap - value[last])
            if done[last]:
                break
    return advantage


def brute_force_return(reward, next_value, terminated, done, gamma):
    total = np.zeros_like(reward)
    for t in range(len(reward)):
        ends = next((s for s in range(t, len(reward)) if done[s]), len(reward) - 1)
        total[t] = sum(gamma ** (s - t) * reward[s] for s in range(t, ends + 1))
        if not terminated[ends]:
            total[t] += gamma ** (ends - t + 1) * next_value[ends]
    return total


@hypothesis.given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.5, 0.97, 1.0]), st.sampled_from([0.0, 0.9, 1.0]))
def test_gae_equals_the_sum_over_every_later_step(seed, gamma, gae_lambda):
    stream = draw_stream(seed)
    advantage, target = jitted_gae(*to_device(stream), gamma, gae_lambda)
    expected = brute_force_advantage(*stream, gamma, gae_lambda)
    np.testing.assert_allclose(advantage, expected, rtol=1e-5, atol=3e-5)
    np.testing.assert_allclose(target, expected + stream[1], rtol=1e-5, atol=3e-5)


@hypothesis.given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.5, 0.97, 1.0]))
def test_discounted_returns_equal_the_sum_over_every_later_step(seed, gamma):
    reward, _, next_value, terminated, done = draw_stream(seed)
    stream = reward, next_value, terminated, done
    expected = brute_force_return(*stream, gamma)
    np.testing.assert_allclose(jitted_returns(*to_device(stream), gamma), expected, rtol=1e-5, atol=3e-5)


def test_gae_worked_by_hand():
    # γ = λ = ½. Step 0 goes on, step 1 is truncated (bootstraps, cuts), step 2 goes on, step 3 terminates.
    # δ = [1 + ½·2 − 4, 2 + ½·6 − 1, 3 + ½·4 − 2, 5 + 0 − 3] = [−2, 4, 3, 2]
    # A_3 = 2, A_2 = 3 + ¼·2 = 3.5, A_1 = 4, A_0 = −2 + ¼·4 = −1
    flags = jnp.array([False, False, False, True]), jnp.array([False, True, False, True])
    reward, value = jnp.array([1.0, 2.0, 3.0, 5.0]), jnp.array([4.0, 1.0, 2.0, 3.0])
    advantage, target = gae(reward, value, jnp.array([2.0, 6.0, 4.0, 100.0]), *flags, 0.5, 0.5)
    np.testing.assert_array_equal(advantage, [-1.0, 4.0, 3.5, 2.0])
    np.testing.assert_array_equal(target, [3.0, 5.0, 5.5, 5.0])


def test_a_time_limit_does_not_change_the_value_of_an_endless_reward():
    # Reward 1 for ever is worth 1 / (1 − γ) = 10; so must be every target when all values say so already.
    ten, no = jnp.full(STEPS, 10.0), jnp.zeros(STEPS, bool)
    truncated = jnp.arange(STEPS) % 5 == 4
    advantage, target = gae(jnp.ones(STEPS), ten, ten, no, truncated, 0.9, 0.95)
    np.testing.assert_allclose(advantage, np.zeros(STEPS), atol=1e-5)
    np.testing.assert_allclose(target, np.full(STEPS, 10.0), rtol=1e-6)
    np.testing.assert_allclose(discounted_returns(jnp.ones(STEPS), ten, no, truncated, 0.9), target, rtol=1e-6)


def test_termination_wins_over_truncation():
    yes = jnp.ones(1, bool)
    advantage, _ = gae(jnp.array([2.0]), jnp.array([0.5]), jnp.array([1e6]), yes, yes, 0.9, 0.9)
    np.testing.assert_array_equal(advantage, [1.5])


def test_targets_with_lambda_one_are_discounted_returns():
    reward, value, next_value, terminated, done = to_device(draw_stream(3))
    next_value = jnp.where(done, next_value, jnp.append(value[1:], 0.7))
    _, target = jitted_gae(reward, value, next_value, terminated, done, 0.9, 1.0)
    np.testing.assert_allclose(target, jitted_returns(reward, next_value, terminated, done, 0.9), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("unroll", [2, 5, STEPS])
def test_unrolling_changes_nothing(unroll):
    stream = to_device(draw_stream(5))
    for unrolled, plain in zip(jitted_gae(*stream, 0.9, 0.8, unroll=unroll), gae(*stream, 0.9, 0.8), strict=True):
        np.testing.assert_allclose(unrolled, plain, rtol=1e-6, atol=1e-6)


def test_jit_and_batch_agree_with_one_stream_at_a_time():
    streams = [to_device(draw_stream(seed)) for seed in range(ENVS)]
    batch = [jnp.stack(arrays, axis=1) for arrays in zip(*streams, strict=True)]  # [T, B], as in a rollout
    over_envs = functools.partial(jax.vmap, out_axes=1)
    advantage, target = jax.jit(over_envs(gae, in_axes=(1, 1, 1, 1, 1, None, None)))(*batch, 0.97, 0.9)
    returns = over_envs(discounted_returns, in_axes=(1, 1, 1, 1, None))(*batch[:1], *batch[2:], 0.97)
    for env, (reward, value, *rest) in enumerate(streams):
        expected = gae(reward, value, *rest, 0.97, 0.9)
        np.testing.assert_allclose(advantage[:, env], expected[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(target[:, env], expected[1], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(returns[:, env], discounted_returns(reward, *rest, 0.97), rtol=1e-5, atol=1e-5)


def test_discounts_may_be_traced_and_differentiated():
    stream = to_device(draw_stream(11))
    slope = jax.grad(lambda gamma: gae(*stream, gamma, 0.9)[0].sum())(jnp.float32(0.9))
    ahead, behind = (brute_force_advantage(*draw_stream(11), 0.9 + h, 0.9).sum() for h in (1e-6, -1e-6))
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-6, rtol=1e-4)


def brute_force_correction(delta, done, ratio, gamma, gae_lambda, limit):
    """A_t = Σ_l γ^l (Π_{i<l} c_{t+i}) ρ_{t+l} δ_{t+l} up to and including the step that ends the episode."""
    advantage = np.zeros_like(delta)
    for t in range(len(delta)):
        trace = 1.0
        for last in range(t, len(delta)):
            advantage[t] += trace * min(limit, ratio[last]) * delta[last]
            if done[last]:
                break
            trace *= gamma * gae_lambda * min(1.0, ratio[last])
    return advantage


@hypothesis.given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.9, 1.0]), st.sampled_from([0.5, 1.0, 2.0]))
def test_corrected_advantages_equal_the_sum_over_every_later_step(seed, gae_lambda, limit):
    reward, value, next_value, terminated, done = draw_stream(seed)
    ratio = np.exp(np.random.default_rng(seed).normal(size=STEPS))
    delta = reward + 0.97 * np.where(terminated, 0.0, next_value) - value
    found = temporal_differences(*to_device([reward, value, next_value, terminated]), 0.97)
    np.testing.assert_allclose(found, delta, rtol=1e-5, atol=1e-5)
    advantage = jitted_correction(*to_device([delta, done, ratio]), 0.97, gae_lambda, limit)
    expected = brute_force_correction(delta, done, ratio, 0.97, gae_lambda, limit)
    np.testing.assert_allclose(advantage, expected, rtol=1e-5, atol=3e-5)


def test_corrected_advantages_of_the_policy_that_acted_are_gae():
    stream = to_device(draw_stream(3))
    delta = temporal_differences(*stream[:4], 0.97)
    advantage = jitted_correction(delta, stream[4], jnp.ones(STEPS), 0.97, 0.9)
    np.testing.assert_allclose(advantage, jitted_gae(*stream, 0.97, 0.9)[0], rtol=1e-6)


def test_value_targets_with_lambda_one_are_those_of_v_trace():
    """Espeholt et al. 2018, remark 1: v_s = V_s + δ_s V + γ c_s (v_{s+1} − V(x_{s+1})), run backwards."""
    reward, value, _, terminated, _ = draw_stream(11)
    terminated = np.zeros_like(terminated)
    after = 0.7
    following = np.append(value[1:], after)
    ratio = np.exp(np.random.default_rng(5).normal(size=STEPS))
    target = np.zeros(STEPS + 1)
    target[-1] = after
    for t in reversed(range(STEPS)):
        surprise = min(1.0, ratio[t]) * (reward[t] + 0.97 * following[t] - value[t])
        target[t] = value[t] + surprise + 0.97 * min(1.0, ratio[t]) * (target[t + 1] - following[t])
    delta = temporal_differences(*to_device([reward, value, following, terminated]), 0.97)
    advantage = jitted_correction(delta, jnp.zeros(STEPS, bool), to_device([ratio])[0], 0.97, 1.0)
    np.testing.assert_allclose(advantage + value, target[:-1], rtol=1e-5, atol=3e-5)
