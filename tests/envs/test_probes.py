"""Probes by hand: episodes, rewards and the values their docstrings promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.envs.registry import available_envs, make_env

PROBES = [env_id for env_id in available_envs() if env_id.startswith("probe:")]
GAMMA = 0.9


def episode(env_id, actions, env_params=None, seed=0):
    """Return (observations incl. the first, rewards, terminated, truncated) under fixed actions."""
    env, params = make_env(env_id, env_params or {})
    reset_key, step_key = jax.random.split(jax.random.key(seed))
    state, timestep = env.reset(reset_key, params)
    assert timestep.reward.tolist() == [0.0] and not timestep.terminated and not timestep.truncated
    seen, rewards, terminated, truncated = [timestep.observation[0].tolist()], [], [], []
    for action in actions:
        state, timestep = env.step(jax.random.fold_in(step_key, len(seen)), state, jnp.asarray([action]), params)
        seen.append(timestep.observation[0].tolist())
        rewards.append(timestep.reward.item())
        terminated.append(timestep.terminated.item())
        truncated.append(timestep.truncated.item())
    return seen, rewards, terminated, truncated


def value(rewards):
    """The discounted return of an episode."""
    return sum(GAMMA**t * reward for t, reward in enumerate(rewards))


@pytest.mark.parametrize("action", [0, 1])
def test_constant_is_worth_one(action):
    seen, rewards, terminated, truncated = episode("probe:constant", [action])
    assert (seen[0], rewards, terminated, truncated) == ([1.0], [1.0], [True], [False])


@pytest.mark.parametrize("seed", range(5))
def test_observation_is_its_own_value(seed):
    seen, rewards, terminated, _ = episode("probe:observation", [0], seed=seed)
    assert abs(seen[0][0]) == 1 and rewards == seen[0] and terminated == [True]


def test_discount_pays_at_the_second_step():
    seen, rewards, terminated, truncated = episode("probe:discount", [1, 0])
    assert (seen[:2], rewards) == ([[0.0], [1.0]], [0.0, 1.0])
    assert terminated == [False, True] and truncated == [False, False]
    assert value(rewards) == pytest.approx(GAMMA)
    assert value(episode("probe:discount", [0] * 5, {"horizon": 5})[1]) == pytest.approx(GAMMA**4)


def test_action_pays_for_one_and_charges_for_zero():
    assert episode("probe:action", [1])[1:3] == ([1.0], [True])
    assert episode("probe:action", [0])[1:3] == ([-1.0], [True])


@pytest.mark.parametrize("seed", range(5))
def test_policy_pays_for_the_sign_of_the_observation(seed):
    (cue,), *_ = episode("probe:policy", [0], seed=seed)[0]
    right = int(cue > 0)
    assert episode("probe:policy", [right], seed=seed)[1] == [1.0]
    assert episode("probe:policy", [1 - right], seed=seed)[1] == [-1.0]


def test_truncation_is_cut_and_worth_what_would_have_followed():
    seen, rewards, terminated, truncated = episode("probe:truncation", [0] * 7, {"horizon": 7})
    assert seen == [[1.0]] * 8 and rewards == [1.0] * 7
    assert not any(terminated) and truncated == [False] * 6 + [True]
    # Bootstrapping at the cut gives the same value at every step: Σ_{k<n} γᵏ + γⁿ/(1-γ) = 1/(1-γ) = 10.
    assert value(rewards) + GAMMA**7 / (1 - GAMMA) == pytest.approx(10.0)
    assert make_env("probe:truncation", {})[0].spec.time_limit == 10


def test_final_shows_its_cue_throughout():
    kinds = set()
    for seed in range(8):
        seen, rewards, terminated, truncated = episode("probe:final", [0] * 3, {"horizon": 3}, seed=seed)
        kinds.add(rewards[0])
        assert seen == [[rewards[0]]] * 4 and len(set(rewards)) == 1
        assert not any(terminated) and truncated == [False, False, True]
    assert kinds == {-1.0, 1.0}


@pytest.mark.parametrize("seed", range(5))
def test_memory_shows_its_cue_once_and_pays_at_the_end(seed):
    seen, rewards, terminated, truncated = episode("probe:memory", [0, 1, 0, 1], {"horizon": 4}, seed=seed)
    cue = seen[0][0]
    assert abs(cue) == 1
    assert seen[:4] == [[cue, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 1.0]]
    assert rewards == [0.0, 0.0, 0.0, cue]
    assert terminated == [False, False, False, True] and not any(truncated)


def test_memory_pays_nothing_on_average_without_memory():
    env, params = make_env("probe:memory", {})
    states, _ = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(jax.random.key(1), 4001), params)
    assert abs(states.cue.mean()) < 0.05  # three standard deviations of a fair coin


@pytest.mark.parametrize("action", [-1.0, 0.25, 1.0])
def test_continuous_pays_most_at_half_the_observation(action):
    seen, rewards, terminated, _ = episode("probe:continuous", [[action]])
    assert rewards == [pytest.approx(-((action - seen[0][0] / 2) ** 2))] and terminated == [True]


@pytest.mark.parametrize("env_id", PROBES)
def test_batch_equals_loop_jit_equals_no_jit_and_no_key_is_used_twice(env_id):
    env, params = make_env(env_id, {})
    keys = jax.random.split(jax.random.key(5), 2 * 3)
    agents, dtype = env.spec.num_agents, jnp.float32 if env.spec.action.shape else jnp.int32
    actions = jnp.zeros((3, agents, *env.spec.action.shape), dtype)
    with jax.debug_key_reuse(True):
        state, start = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(keys[:3], params)
        _, batched = jax.jit(jax.vmap(env.step, in_axes=(0, 0, 0, None)))(keys[3:], state, actions, params)
    copies = jax.random.split(jax.random.key(5), 2 * 3)
    for index in range(3):
        own_state, own_start = env.reset(copies[index], params)
        _, own = env.step(copies[3 + index], own_state, actions[index], params)
        jax.tree.map(lambda a, b, i=index: np.testing.assert_allclose(a, b[i]), (own_start, own), (start, batched))
    assert own.observation.shape == (agents, *env.spec.observation.shape) and own.observation.dtype == jnp.float32
