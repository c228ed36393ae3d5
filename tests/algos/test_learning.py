"""Learning is tested by learning: probe worlds whose values and best actions are known by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.core.config import Config, NetworkConfig, PPOConfig
from jaxrl_engine.modes.build import build
from jaxrl_engine.modes.train import make_program

PPO = PPOConfig(
    learning_rate=5e-3, gamma=0.9, num_epochs=4, num_minibatches=2, anneal_learning_rate=True, normalize_rewards=False,
    normalize_observations=False, max_grad_norm=10.0,
)  # fmt: skip


def learn(
    name, updates, *, ppo=PPO, network=NetworkConfig(hidden_sizes=(16,)), num_envs=16, num_steps=16, **env_params
):
    total_steps = updates * num_envs * num_steps
    config = Config(
        env=f"probe:{name}", env_params=env_params, total_steps=total_steps, num_envs=num_envs, num_steps=num_steps,
        ppo=ppo, network=network,
    )  # fmt: skip
    built = build(config)
    program = make_program(built)
    state = program.init(built.keys, built.hyper)
    state, _ = program.compile(state)(state, np.int32(updates))
    return built, state.train_state


def values(built, train_state, observations):
    """V at single-number observations of a memoryless critic."""
    batch = jnp.asarray(observations, jnp.float32).reshape(-1, 1, 1)
    return np.asarray(built.algorithm.critic.apply(train_state.params.critic, (), batch)[1])[:, 0]


def policy(built, train_state, observations):
    batch = jnp.asarray(observations, jnp.float32).reshape(-1, 1, 1)
    return built.algorithm.actor.apply(train_state.params.actor, (), batch, None)[1]


def test_constant_reward_is_the_value():
    built, state = learn("constant", 60)
    np.testing.assert_allclose(values(built, state, [1.0]), [1.0], atol=0.02)


def test_the_value_follows_the_observation():
    built, state = learn("observation", 60)
    np.testing.assert_allclose(values(built, state, [-1.0, 1.0]), [-1.0, 1.0], atol=0.05)


def test_a_later_reward_is_discounted_once_per_step():
    built, state = learn("discount", 100)
    np.testing.assert_allclose(values(built, state, [0.0, 1.0]), [0.9, 1.0], atol=0.03)


def test_the_action_that_pays_is_taken():
    built, state = learn("action", 60)
    assert float(jnp.exp(policy(built, state, [1.0]).log_prob(jnp.ones((1, 1), jnp.int32)))[0, 0]) > 0.95
    np.testing.assert_allclose(values(built, state, [1.0]), [1.0], atol=0.15)


def test_the_action_depends_on_what_is_seen():
    built, state = learn("policy", 100)
    chance = jnp.exp(policy(built, state, [-1.0, 1.0]).log_prob(jnp.array([[0], [1]], jnp.int32)))
    assert float(chance.min()) > 0.9


def test_a_truncated_episode_is_worth_what_would_have_followed():
    """Constant reward 1 cut every few steps: V = 1 / (1 − 0.9) = 10. Taken for a termination, it would be about 4."""
    built, state = learn("truncation", 250)
    np.testing.assert_allclose(values(built, state, [1.0]), [10.0], rtol=0.03)


def test_a_truncated_episode_bootstraps_from_its_own_end_not_from_the_next_start():
    """Every reward is the episode's cue ±1: V(±1) = ±10. Bootstrapped from the next episode, it would be about ±4."""
    built, state = learn("final", 300)
    np.testing.assert_allclose(values(built, state, [-1.0, 1.0]), [-10.0, 10.0], rtol=0.06)


@pytest.mark.parametrize("gaussian", ["diagonal", "tanh"])
def test_a_continuous_action_finds_its_target(gaussian):
    network = NetworkConfig(hidden_sizes=(16,), gaussian=gaussian, initial_log_std=-0.5)
    built, state = learn("continuous", 200, network=network)
    seen = np.array([-0.8, 0.0, 0.8])
    raw = np.asarray(policy(built, state, seen).mode())[:, 0, 0]
    np.testing.assert_allclose(np.tanh(raw) if gaussian == "tanh" else raw, seen / 2, atol=0.12)


@pytest.mark.slow
@pytest.mark.parametrize("recurrent", ["gru", "none"])
def test_only_memory_solves_the_memory_probe(recurrent):
    network = NetworkConfig(hidden_sizes=(16,), recurrent=recurrent, recurrent_size=16)
    built, state = learn("memory", 250, network=network)
    evaluation = jax.jit(built.evaluation(200))
    returned = float(evaluation(state, jax.random.key(1), jnp.asarray(False)).episode_return.mean())
    if recurrent == "gru":
        assert returned > 0.95
    else:
        assert abs(returned) < 0.3
