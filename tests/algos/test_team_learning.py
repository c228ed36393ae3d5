"""Teams learn what a team can: probes of two agents whose best joint action and values are known by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.core.config import Config, MAPPOConfig, MATConfig, NetworkConfig, PPOConfig
from jaxrl_engine.modes.build import build
from jaxrl_engine.modes.train import make_program

PPO = PPOConfig(
    learning_rate=5e-3, num_epochs=4, num_minibatches=2, normalize_rewards=False, normalize_values=True,
    normalize_observations=False, max_grad_norm=10.0, huber_delta=10.0,
)  # fmt: skip
GRU = NetworkConfig(hidden_sizes=(16,), recurrent="gru", recurrent_size=8)


def learn(world, updates, *, ppo=PPO, network=NetworkConfig(hidden_sizes=(16,)), **config):
    shape = {"num_envs": 16, "num_steps": 16, "total_steps": updates * 256}
    built = build(Config(env=f"probe:{world}", ppo=ppo, network=network, mat=MATConfig(width=16), **shape, **config))
    program = make_program(built)
    state = program.init(built.keys, built.hyper)
    state, _ = program.compile(state)(state, np.int32(updates))
    return built, state.train_state


def greedy_return(built, train_state):
    results = jax.jit(built.evaluation(256))(train_state, jax.random.key(3), jnp.asarray(False))
    return float(results.episode_return.mean())


def values(built, train_state, network):
    """V of both cues, in units of reward, `[2, A]`."""
    critic, params = built.algorithm.critic, train_state.params.critic
    memory = jnp.zeros((2, 2, 8)) if network.recurrent == "gru" else ()
    seen = jnp.array([[-1.0], [1.0]]) if built.algorithm.centralized else jnp.ones((2, 2, 1))
    standard = np.asarray(critic.apply(params, memory, seen)[1])
    statistics = train_state.statistics.value
    return standard * np.maximum(np.sqrt(statistics.variance), 0.1) + np.asarray(statistics.mean)


@pytest.mark.parametrize("network", [NetworkConfig(hidden_sizes=(16,)), GRU], ids=["feed-forward", "gru"])
@pytest.mark.parametrize("centralized", [True, False], ids=["mappo", "ippo"])
def test_agents_coordinate_and_only_a_central_critic_sees_the_global_state(centralized, network):
    """Paid 1 + cue once both take action 1; a critic without the global state finds the mean over cues, 1."""
    built, state = learn("together", 100, algo="mappo", mappo=MAPPOConfig(centralized=centralized), network=network)
    assert greedy_return(built, state) == pytest.approx(1.0, abs=0.25)  # cues of either kind, half and half
    expected = [[0.0, 0.0], [2.0, 2.0]] if centralized else [[1.0, 1.0], [1.0, 1.0]]
    np.testing.assert_allclose(values(built, state, network), expected, atol=0.15)


def test_a_transformer_team_takes_the_joint_action():
    built, state = learn("together", 60, algo="mat")
    assert greedy_return(built, state) == pytest.approx(1.0, abs=0.25)


def test_only_who_decides_in_turn_can_take_different_actions():
    """Two agents who see the same: in turn they differ for certain, at once from the same weights half the time."""
    in_turn, trained = learn("apart", 60, algo="mat")
    assert greedy_return(in_turn, trained) == 1.0
    at_once, trained = learn("apart", 60, algo="mappo")
    assert greedy_return(at_once, trained) == 0.0  # the mode of one law, taken twice


def test_a_transformer_finds_a_real_action():
    """a*(o) = o / 2 for observations within [−1, 1)."""
    built, state = learn("continuous", 200, algo="mat")
    assert greedy_return(built, state) > -0.01  # −(0.1)²; the action 0 would earn −1/12
