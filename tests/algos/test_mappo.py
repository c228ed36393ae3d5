"""MAPPO: what its critic sees, where its values bootstrap, what its statistics count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.algos.ppo import PPO
from jaxrl_engine.algos.ppo_types import make_hyper
from jaxrl_engine.core.config import NetworkConfig, PPOConfig
from jaxrl_engine.core.spaces import Box, Discrete
from jaxrl_engine.core.types import EnvSpec, TimeStep, Trajectory, Transition

T, B, A, D, S = 7, 5, 3, 2, 11
CONFIG = PPOConfig(num_minibatches=5, num_epochs=2, normalize_values=True, huber_delta=10.0, gamma=0.9)
PLAIN = NetworkConfig(hidden_sizes=(13,))
GRU = NetworkConfig(hidden_sizes=(13,), recurrent="gru", recurrent_size=6)


def make(network=PLAIN, state_shape=(S,)) -> PPO:
    seen, state = (Box.uniform(shape, -np.inf, np.inf) for shape in ((D,), state_shape))
    spec = EnvSpec(name="made-up", num_agents=A, observation=seen, global_state=state, action=Discrete(4))
    return PPO(spec, CONFIG, network, centralized=True)


def timestep(observation, state, truncated) -> TimeStep:
    never = jnp.zeros(B, bool)
    return TimeStep(
        observation=observation, global_state=state, action_mask=None, reward=jnp.zeros((B, A)), terminated=never,
        truncated=truncated, metrics={},
    )  # fmt: skip


def roll(ppo, train_state, key, shape=(S,)) -> Trajectory:
    """Random states, each agent rewarded apart, a few cuts; the memories are those of acting."""
    keys = jax.random.split(key, 7)
    observation = jax.random.normal(keys[0], (T + 1, B, A, D))
    state = 2.0 + jax.random.normal(keys[1], (T + 1, B, *shape))
    truncated = jax.random.bernoulli(keys[2], 0.25, (T + 1, B)).at[0].set(False)
    cut = truncated[1:].reshape(T, B, *[1] * len(shape))
    final_state = jnp.where(cut, jax.random.normal(keys[3], (T, B, *shape)), state[1:])
    final = jnp.where(truncated[1:, :, None, None], jax.random.normal(keys[4], (T, B, A, D)), observation[1:])
    noise = jax.vmap(ppo.noise, in_axes=(0, None))(jax.random.split(keys[5], T), B)
    seen = jax.vmap(timestep)(observation, state, truncated)

    def act(carry, x):
        decision, carry = ppo.act(train_state, carry, *x)
        return carry, (decision, carry)

    start = ppo.initial_carry(B)
    _, (decided, memories) = jax.lax.scan(act, start, (jax.tree.map(lambda leaf: leaf[:-1], seen), noise))
    steps = Transition(
        observation=observation[:-1], global_state=state[:-1], action_mask=None, action=decided.action,
        log_prob=decided.log_prob, reward=jax.random.normal(keys[6], (T, B, A)), terminated=jnp.zeros((T, B), bool),
        truncated=truncated[1:], final_observation=final, final_global_state=final_state, is_first=truncated[:-1],
        policy_version=jnp.zeros((T, B), jnp.int32), extras=decided.extras,
    )  # fmt: skip
    last = jax.tree.map(lambda leaf: leaf[-1], seen)
    return Trajectory(transitions=steps, initial_carry=start, last=last), memories


@pytest.fixture(scope="module", params=[PLAIN, GRU], ids=["feed-forward", "gru"])
def started(request):
    ppo = make(request.param)
    state = ppo.init(jax.random.key(0), make_hyper(CONFIG, 10))
    trajectory, memories = jax.jit(roll, static_argnums=0)(ppo, state, jax.random.key(1))
    return ppo, state, trajectory, memories


def identified(states):
    """Each state once per agent, a one-hot index behind it."""
    shared = np.repeat(np.asarray(states, np.float64)[..., None, :], A, axis=-2)
    return np.concatenate([shared, np.broadcast_to(np.eye(A), (*shared.shape[:-1], A))], axis=-1)


def forward(params, states):
    """The critic without memory, in NumPy: a tanh layer over state and index."""
    shared = params["params"]["shared"]
    hidden, last = shared["MLP_0"]["Dense_0"], shared["value"]
    x = np.tanh(identified(states) @ np.asarray(hidden["kernel"], np.float64) + np.asarray(hidden["bias"]))
    return (x @ np.asarray(last["kernel"], np.float64) + np.asarray(last["bias"]))[..., 0]


def test_the_critic_sees_the_state_and_who_asks():
    ppo = make()
    state = ppo.init(jax.random.key(0), make_hyper(CONFIG, 10))
    states = jax.random.normal(jax.random.key(2), (T, B, S))
    _, value = ppo.critic.apply(state.params.critic, (), states)
    expected = forward(state.params.critic, states)
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(np.diff(expected, axis=-1)).min() > 1e-4  # the index tells agents apart


def test_a_cut_episode_bootstraps_from_its_own_final_state(started):
    ppo, state, trajectory, memories = started
    steps = trajectory.transitions
    value, next_value = jax.jit(lambda s, t: ppo._values(s, t, t.transitions.global_state))(state, trajectory)
    assert np.asarray(steps.truncated).any()
    apply = jax.jit(lambda memory, seen: ppo.critic.apply(state.params.critic, memory, seen)[1])
    if not ppo.recurrent:
        np.testing.assert_allclose(value, forward(state.params.critic, steps.global_state), rtol=1e-4, atol=1e-5)
        expected = forward(state.params.critic, steps.final_global_state)
        np.testing.assert_allclose(next_value, expected, rtol=1e-4, atol=1e-5)
        return
    for t in range(T):  # the memory after the step, never cleared: the final state belongs to the same episode
        np.testing.assert_allclose(
            next_value[t], apply(memories.critic[t], steps.final_global_state[t]), rtol=1e-4, atol=1e-5
        )
        if t:
            before = np.where(np.asarray(steps.is_first[t])[:, None, None], 0.0, memories.critic[t - 1])
            np.testing.assert_allclose(value[t], apply(before, steps.global_state[t]), rtol=1e-4, atol=1e-5)


def test_statistics_count_states_apart_from_observations_and_targets_in_reward_units(started):
    ppo, state, trajectory, _ = started
    steps = trajectory.transitions
    learned, metrics = jax.jit(ppo.update)(state, trajectory, jax.random.key(3))
    assert float(metrics["Losses/FirstRatioError"]) < 1e-5
    seen = np.asarray(steps.global_state, np.float64)
    np.testing.assert_allclose(learned.statistics.global_state.mean, seen.mean((0, 1)), rtol=1e-4)
    np.testing.assert_allclose(
        learned.statistics.observation.mean, np.asarray(steps.observation).mean((0, 1, 2)), rtol=1e-3, atol=1e-5
    )
    # Unknown values are a tenth of what the critic predicts; GAE by hand, backwards.
    value, after = (0.1 * np.asarray(v, np.float64) for v in ppo._values(state, trajectory, steps.global_state))
    advantage, running = np.zeros((T, B, A)), np.zeros((B, A))
    for t in reversed(range(T)):
        delta = np.asarray(steps.reward[t]) + 0.9 * after[t] - value[t]
        running = delta + 0.9 * 0.95 * np.where(np.asarray(steps.truncated[t])[:, None], 0.0, running)
        advantage[t] = running
    target = advantage + value
    statistics = learned.statistics.value
    np.testing.assert_allclose(statistics.mean, target.mean(), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(np.sqrt(statistics.variance), target.std(), rtol=1e-3)


def test_the_second_update_learns_from_what_its_statistics_show_it(started):
    """With statistics that moved between acting and learning, or differed between them, the ratio would not be 1."""
    ppo, state, trajectory, _ = started
    learned, _ = jax.jit(ppo.update)(state, trajectory, jax.random.key(3))
    again, _ = jax.jit(roll, static_argnums=0)(ppo, learned, jax.random.key(4))
    _, metrics = jax.jit(ppo.update)(learned, again, jax.random.key(5))
    assert float(metrics["Losses/FirstRatioError"]) < 1e-5


def test_an_image_as_state_gets_the_index_as_channels():
    ppo = make(NetworkConfig(hidden_sizes=(13,), cnn_channels=(3,)), state_shape=(5, 7, 2))
    state = ppo.init(jax.random.key(0), make_hyper(CONFIG, 10))
    images = jax.random.normal(jax.random.key(1), (B, 5, 7, 2))
    _, value = ppo.critic.apply(state.params.critic, (), images)
    assert value.shape == (B, A)
    assert state.params.critic["params"]["shared"]["CNN_0"]["Conv_0"]["kernel"].shape == (3, 3, 2 + A, 3)
    assert np.abs(np.diff(np.asarray(value), axis=-1)).min() > 1e-4
