"""MAT: its rollout and its loss agree, every weight learns, cut episodes bootstrap from their true end."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from jaxrl_engine.algos.mat import MAT
from jaxrl_engine.algos.minibatches import Minibatch
from jaxrl_engine.algos.ppo_types import make_hyper
from jaxrl_engine.core.algo_config import MATConfig, PPOConfig
from jaxrl_engine.core.spaces import Box, Discrete
from jaxrl_engine.core.types import EnvSpec, TimeStep, Trajectory, Transition
from jaxrl_engine.nets.agents_transformer import AgentsTransformer

T, B, A, D, CHOICES = 7, 5, 3, 2, 11
CHOICE = Discrete(CHOICES)
CONFIG = PPOConfig(num_minibatches=5, num_epochs=2, normalize_values=True, huber_delta=0.7, entropy_coefficient=0.03)


def make(action=CHOICE, config=CONFIG) -> MAT:
    everything, state = (Box.uniform((size,), -np.inf, np.inf) for size in (D, A * D))
    spec = EnvSpec(name="made-up", num_agents=A, observation=everything, global_state=state, action=action)
    return MAT(spec, config, MATConfig(width=16))


def timestep(observation, mask, truncated, reward) -> TimeStep:
    return TimeStep(
        observation=observation, global_state=observation.reshape(B, -1), action_mask=mask, reward=reward,
        terminated=jnp.zeros(B, bool), truncated=truncated, metrics={},
    )  # fmt: skip


def full_size(state):
    """Random weights of full size everywhere: through the careful start of an attention hardly a gradient flows."""
    leaves, tree = jax.tree.flatten(state.params)
    keys = jax.random.split(jax.random.key(11), len(leaves))
    drawn = [jax.random.normal(k, x.shape) / x.shape[0] ** 0.5 for k, x in zip(keys, leaves, strict=True)]
    return state.replace(params=tree.unflatten(n if x.ndim == 2 else x for n, x in zip(drawn, leaves, strict=True)))


@functools.partial(jax.jit, static_argnums=0)
def roll(mat: MAT, state, key) -> Trajectory:
    """Random observations, rewards, masks and cuts; actions by the policy itself."""
    keys = jax.random.split(key, 6)
    observation = 3.0 + jax.random.normal(keys[0], (T + 1, B, A, D))
    truncated = jax.random.bernoulli(keys[1], 0.2, (T + 1, B)).at[0].set(False)
    final = jnp.where(truncated[1:, :, None, None], jax.random.normal(keys[2], (T, B, A, D)), observation[1:])
    mask = None
    if isinstance(mat.spec.action, Discrete):
        mask = jax.random.bernoulli(keys[3], 0.7, (T + 1, B, A, CHOICES)).at[..., 0].set(True)
    reward = jax.random.normal(keys[4], (T + 1, B, A))
    noise = jax.vmap(mat.noise, in_axes=(0, None))(jax.random.split(keys[5], T), B)
    seen = jax.vmap(timestep)(observation, mask, truncated, reward)

    def act(carry, x):
        decision, carry = mat.act(state, carry, *x)
        return carry, decision

    start = mat.initial_carry(B)
    _, decided = jax.lax.scan(act, start, (jax.tree.map(lambda leaf: leaf[:-1], seen), noise))
    steps = Transition(
        observation=seen.observation[:-1], global_state=seen.global_state[:-1],
        action_mask=None if mask is None else mask[:-1], action=decided.action, log_prob=decided.log_prob,
        reward=reward[1:], terminated=seen.terminated[1:], truncated=truncated[1:], final_observation=final,
        final_global_state=final.reshape(T, B, -1), is_first=truncated[:-1],
        policy_version=jnp.zeros((T, B), jnp.int32), extras=decided.extras,
    )  # fmt: skip
    return Trajectory(transitions=steps, initial_carry=start, last=jax.tree.map(lambda leaf: leaf[-1], seen))


@pytest.fixture(scope="module")
def started():
    mat = make()
    state = mat.init(jax.random.key(0), make_hyper(mat.config, 10))
    return mat, state, roll(mat, state, jax.random.key(1))


@pytest.mark.parametrize("action", [Discrete(CHOICES), Box.uniform((2,), -1.0, 3.0)], ids=["discrete", "real"])
def test_what_was_acted_is_what_is_learned_in_every_update(action):
    mat = make(action)
    state = full_size(mat.init(jax.random.key(0), make_hyper(mat.config, 10)))
    update = jax.jit(mat.update)
    for index in range(3):  # statistics of observations and values move in between
        before = state
        state, metrics = update(state, roll(mat, state, jax.random.key(index)), jax.random.key(index + 10))
        assert float(metrics["Losses/FirstRatioError"]) < 5e-6
    assert int(state.policy_version) == 3
    assert float(state.statistics.value.count) == 3 * T * B * A
    moved = jax.tree.map(lambda old, new: bool((old != new).any()), before.params, state.params)
    still = [path for path, changed in jax.tree_util.tree_leaves_with_path(moved) if not changed]
    assert still == []  # no weight is outside the optimiser


def test_loss_equals_numpy(started):
    mat, state, trajectory = started
    samples = jax.tree.map(lambda leaf: leaf.reshape(T * B, *leaf.shape[2:]), mat._samples(state, trajectory))
    chance = np.random.default_rng(0)
    old = samples.log_prob + chance.normal(0, 0.3, (T * B, A)).astype(np.float32)
    batch = Minibatch(samples=samples.replace(log_prob=old), memory=None, key=jax.random.key(2))
    total, metrics = mat._loss(state.params, state.hyper, batch)

    law, value = mat.network.apply(state.params, samples.observation, samples.action, samples.action_mask)
    logits = np.where(samples.action_mask, np.asarray(law.logits, np.float64), -np.inf)
    log_probs = special.log_softmax(logits, axis=-1)
    chosen = np.take_along_axis(log_probs, np.asarray(samples.action)[..., None], -1)[..., 0]
    ratio, advantage = np.exp(chosen - np.asarray(old)), np.asarray(samples.advantage, np.float64)
    policy = -np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage).mean()
    error = np.abs(np.asarray(value, np.float64) - np.asarray(samples.target))
    value_error = np.where(error <= 0.7, error**2 / 2, 0.7 * (error - 0.35)).mean()
    entropy = special.entr(np.exp(log_probs)).sum(axis=-1).mean()
    np.testing.assert_allclose(metrics["Losses/Policy"], policy, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics["Losses/Value"], value_error, rtol=1e-4)
    np.testing.assert_allclose(total, policy + 0.5 * value_error - 0.03 * entropy, rtol=1e-4, atol=1e-6)


def test_advantages_equal_numpy_with_cuts_and_standardised_values(started):
    """GAE in reward units: values are what the encoder predicts × deviation + mean of the targets seen before."""
    mat, state, trajectory = started
    value_statistics = state.statistics.value.replace(
        count=jnp.float32(100.0), offset=jnp.float32(5.0), variance=jnp.float32(4.0)
    )
    state = state.replace(statistics=dataclasses.replace(state.statistics, value=value_statistics))
    samples, steps = mat._samples(state, trajectory), trajectory.transitions

    def raw_value(observation):
        teams = jnp.asarray(observation).reshape(-1, A, D)
        value, _ = mat.network.apply(state.params, teams, method=AgentsTransformer.encode)
        return np.asarray(value, np.float64).reshape(T, B, A) * 2.0 + 5.0

    value, after = raw_value(steps.observation), raw_value(steps.final_observation)
    assert np.asarray(steps.truncated).any()
    advantage, running = np.zeros((T, B, A)), np.zeros((B, A))
    scale = 1.0  # the deviation of the discounted return before any was seen
    for t in reversed(range(T)):
        delta = np.asarray(steps.reward[t]) / scale + 0.99 * after[t] - value[t]
        running = delta + 0.99 * 0.95 * np.where(np.asarray(steps.truncated[t])[:, None], 0.0, running)
        advantage[t] = running
    np.testing.assert_allclose(samples.advantage, advantage, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(samples.target, (advantage + value - 5.0) / 2.0, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(samples.value, (value - 5.0) / 2.0, rtol=1e-4, atol=1e-4)


def test_an_update_that_is_not_finite_changes_nothing_but_the_count(started):
    mat, state, trajectory = started
    reward = trajectory.transitions.reward.at[1, 2, 0].set(jnp.nan)
    broken = trajectory.replace(transitions=trajectory.transitions.replace(reward=reward))
    after, _ = jax.jit(mat.update)(state, broken, jax.random.key(3))
    assert (int(after.skipped_updates), int(after.policy_version)) == (1, 0)
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(after.params), strict=True):
        np.testing.assert_array_equal(a, b)
