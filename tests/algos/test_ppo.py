"""PPO against NumPy in float64, hand-worked bootstraps, and the promises of its docstring."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ppo_rollouts import BOUNDED, DISCRETE, A, B, D, T, make, make_trajectory, timestep
from scipy import special, stats

from jaxrl_engine.algos import ppo_update
from jaxrl_engine.algos.minibatches import Minibatch
from jaxrl_engine.algos.ppo_types import PPOExtras, make_hyper
from jaxrl_engine.core.config import PPOConfig
from jaxrl_engine.core.spaces import MultiDiscrete

update = jax.jit(lambda ppo, *args: ppo.update(*args), static_argnums=0)


def forward(params, observation, last):
    """A tanh network of two hidden layers, in NumPy."""
    layers = params["params"]
    hidden = layers["MLP_0"]
    x = np.asarray(observation, np.float64)
    for name in ("Dense_0", "Dense_1"):
        x = np.tanh(x @ np.asarray(hidden[name]["kernel"], np.float64) + np.asarray(hidden[name]["bias"]))
    return x @ np.asarray(last["kernel"], np.float64) + np.asarray(last["bias"], np.float64)


@pytest.mark.parametrize("clip_value", [False, True])
def test_loss_equals_numpy(key, clip_value):
    config = PPOConfig(entropy_coefficient=0.07, value_coefficient=0.3, clip_epsilon=0.13, clip_value=clip_value)
    ppo = make(config=config)
    state = ppo.init(key, make_hyper(config, 10))
    trajectory = make_trajectory(ppo, state, key)
    samples = jax.tree.map(lambda leaf: leaf.reshape(T * B, *leaf.shape[2:]), ppo._samples(state, trajectory))
    rng = np.random.default_rng(0)
    samples = samples.replace(
        log_prob=samples.log_prob + rng.normal(0, 0.3, (T * B, A)).astype(np.float32),
        value=samples.value + rng.normal(0, 0.3, (T * B, A)).astype(np.float32),
    )
    total, metrics = ppo._loss(state.params, state.hyper, Minibatch(samples=samples, memory=None, key=key))

    actor, critic = state.params.actor, state.params.critic
    logits = forward(actor, samples.observation, actor["params"]["DiscreteHead_0"]["logits"])
    log_probs = special.log_softmax(logits, axis=-1)
    chosen = np.take_along_axis(log_probs, np.asarray(samples.action)[..., None], -1)[..., 0]
    ratio = np.exp(chosen - np.asarray(samples.log_prob, np.float64))
    advantage, target = np.asarray(samples.advantage, np.float64), np.asarray(samples.target, np.float64)
    policy = -np.minimum(ratio * advantage, np.clip(ratio, 0.87, 1.13) * advantage).mean()
    value = forward(critic, samples.observation, critic["params"]["value"])[..., 0]
    error = 0.5 * (value - target) ** 2
    if clip_value:
        old = np.asarray(samples.value, np.float64)
        error = np.maximum(error, 0.5 * (old + np.clip(value - old, -0.13, 0.13) - target) ** 2)
    entropy = stats.entropy(np.exp(log_probs), axis=-1).mean()
    np.testing.assert_allclose(metrics["Losses/Policy"], policy, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(metrics["Losses/Value"], error.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["Losses/Entropy"], entropy, rtol=1e-5)
    np.testing.assert_allclose(total, policy + 0.3 * error.mean() - 0.07 * entropy, rtol=1e-5)
    np.testing.assert_allclose(metrics["Losses/ClipFraction"], (np.abs(ratio - 1) > 0.13).mean(), rtol=1e-5)


def test_values_bootstrap_from_the_true_final_observation(key):
    ppo = make()
    state = ppo.init(key, make_hyper(ppo.config, 10))
    flags = np.zeros((T, B), bool)
    flags[1, 2] = flags[4, 3] = True
    trajectory = make_trajectory(ppo, state, key, jnp.asarray(flags))
    steps, critic = trajectory.transitions, state.params.critic
    value, next_value = ppo._values(state, trajectory, steps.observation)
    head = critic["params"]["value"]
    np.testing.assert_allclose(value, forward(critic, steps.observation, head)[..., 0], rtol=1e-4, atol=1e-6)
    # `final_observation` is the true next one everywhere, and differs from the next row only where flagged
    expected = forward(critic, steps.final_observation, head)[..., 0]
    np.testing.assert_allclose(next_value, expected, rtol=1e-4, atol=1e-6)
    after_reset = forward(critic, steps.observation[2, 2], head)[..., 0]
    assert np.abs(np.asarray(next_value[1, 2]) - after_reset).min() > 1e-3


@pytest.mark.parametrize(
    ("action", "network"),
    [(DISCRETE, {}), (MultiDiscrete((2, 3)), {}), (BOUNDED, {}), (BOUNDED, {"gaussian": "tanh"}),
     (DISCRETE, {"recurrent": "gru", "recurrent_size": 5})],
)  # fmt: skip
def test_first_ratio_is_one_for_every_kind_of_policy(key, action, network):
    ppo = make(action, PPOConfig(num_minibatches=3, num_epochs=2, normalize_rewards=True), **network)
    state = ppo.init(key, make_hyper(ppo.config, 10))
    flags = jax.random.bernoulli(key, 0.3, (T, B))
    trajectory = make_trajectory(ppo, state, key, flags)
    state, metrics = update(ppo, state, trajectory, jax.random.key(1))
    assert float(metrics["Losses/FirstRatioError"]) < 1e-5
    assert float(metrics["Losses/ApproxKL"]) > 1e-9  # later minibatches have moved
    assert int(state.policy_version) == 1


def test_statistics_move_only_after_the_update(key):
    """With statistics that changed between acting and learning, the first ratio would not be 1."""
    ppo = make(config=PPOConfig(num_minibatches=3))
    state = ppo.init(key, make_hyper(ppo.config, 10))
    for index in range(3):
        trajectory = make_trajectory(ppo, state, jax.random.key(index))
        state, metrics = update(ppo, state, trajectory, jax.random.key(index + 10))
        assert float(metrics["Losses/FirstRatioError"]) < 1e-5
        seen = trajectory.transitions.observation
        if index == 0:
            np.testing.assert_allclose(state.statistics.observation.mean, seen.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    assert float(state.statistics.observation.count[0]) == 3 * T * B * A


def test_accumulated_gradients_are_the_whole_minibatch_gradient(key):
    whole = make(config=PPOConfig(num_minibatches=1, num_epochs=1))
    parts = dataclasses.replace(whole, config=dataclasses.replace(whole.config, accumulate_gradients=5))
    state = whole.init(key, make_hyper(whole.config, 10))
    samples = jax.tree.map(
        lambda leaf: leaf.reshape(T * B, *leaf.shape[2:]), whole._samples(state, make_trajectory(whole, state, key))
    )
    batch = Minibatch(samples=samples, memory=None, key=key, beforehand=samples.normalized_advantage())
    one, _ = ppo_update.gradient(whole._loss, whole.config, state.params, state.hyper, batch)
    five, _ = ppo_update.gradient(parts._loss, parts.config, state.params, state.hyper, batch)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(five), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("poison", ["reward", "observation"])
def test_an_update_that_is_not_finite_changes_nothing_but_the_count(key, poison):
    ppo = make(config=PPOConfig(normalize_rewards=True, num_minibatches=3))
    state = ppo.init(key, make_hyper(ppo.config, 10))
    trajectory = make_trajectory(ppo, state, key)
    good, _ = update(ppo, state, trajectory, jax.random.key(1))
    steps = trajectory.transitions
    broken = steps.replace(**{poison: getattr(steps, poison).at[2, 3].set(jnp.nan)})
    bad, _ = update(ppo, good, trajectory.replace(transitions=broken), jax.random.key(2))
    for name in ("params", "optimizer", "statistics", "policy_version"):
        before, after = jax.tree.leaves(getattr(good, name)), jax.tree.leaves(getattr(bad, name))
        for a, b in zip(before, after, strict=True):
            np.testing.assert_array_equal(a, b)
    assert (int(bad.skipped_updates), int(bad.skipped_in_a_row)) == (1, 1)
    again, _ = update(ppo, bad, trajectory, jax.random.key(3))
    assert (int(again.skipped_updates), int(again.skipped_in_a_row), int(again.policy_version)) == (1, 0, 2)


def test_learning_rate_falls_linearly_with_minibatch_steps(key):
    config = PPOConfig(learning_rate=0.1, num_epochs=2, num_minibatches=5, max_grad_norm=1e-3)
    ppo = make(config=config)
    state = ppo.init(key, make_hyper(config, 4))
    rates = []
    for index in range(5):
        state, metrics = update(ppo, state, make_trajectory(ppo, state, key), jax.random.key(index))
        rates.append(float(metrics["Losses/LearningRate"]))
    np.testing.assert_allclose(rates, [0.1, 0.075, 0.05, 0.025, 0.0], atol=1e-7)
    assert float(ppo_update.learning_rate(config, state.hyper, jnp.int32(13))) == pytest.approx(0.1 * (1 - 13 / 40))
    constant = make_hyper(dataclasses.replace(config, anneal_learning_rate=False), 4)
    assert float(ppo_update.learning_rate(config, constant, jnp.int32(10**6))) == pytest.approx(0.1)


def test_discounted_return_of_rewards_by_hand(key):
    """G_t = r_t + γ G_{t−1}, starting afresh after an episode; the terminal reward itself still counts."""
    config = PPOConfig(gamma=0.5, normalize_rewards=True)
    ppo = make(config=config)
    state = ppo.init(key, make_hyper(config, 10))
    carry, seen = ppo.initial_carry(B), []
    for reward, done in [(1.0, False), (2.0, True), (4.0, False)]:
        step = timestep(jnp.zeros((B, A, D)), jnp.full(B, done), jnp.full((B, A), reward))
        decision, carry = ppo.act(state, carry, step, None)
        assert isinstance(decision.extras, PPOExtras)
        seen.append(float(decision.extras.discounted_return[0, 0]))
    assert seen == [1.0, 2.5, 4.0]


def test_memory_is_cleared_where_an_episode_starts(key):
    ppo = make(recurrent="gru", recurrent_size=5)
    state = ppo.init(key, make_hyper(ppo.config, 10))
    observation = jax.random.normal(key, (B, A, D))
    empty = ppo.initial_carry(B)
    no, some = jnp.zeros(B, bool), jnp.arange(B) % 2 == 0
    _, carry = ppo.act(state, empty, timestep(observation, no), None)
    _, fresh = ppo.act(state, empty, timestep(observation, no), None)
    _, mixed = ppo.act(state, carry, timestep(observation, some), None)
    np.testing.assert_array_equal(mixed.actor[::2], fresh.actor[::2])
    np.testing.assert_array_equal(mixed.critic[::2], fresh.critic[::2])
    assert np.abs(np.asarray(mixed.actor[1::2] - fresh.actor[1::2])).min() > 1e-6


@pytest.mark.parametrize("gaussian", ["diagonal", "tanh"])
def test_environment_actions_stay_in_their_box(key, gaussian):
    ppo = make(BOUNDED, gaussian=gaussian, initial_log_std=2.0)
    state = ppo.init(key, make_hyper(ppo.config, 10))
    decision, _ = ppo.act(
        state, ppo.initial_carry(B), timestep(jnp.zeros((B, A, D)), jnp.zeros(B, bool)), ppo.noise(key, B)
    )
    expected = np.clip if gaussian == "diagonal" else lambda x, *_: np.tanh(x)
    np.testing.assert_allclose(
        decision.env_action, 1.0 + 2.0 * expected(decision.action, -1.0, 1.0), rtol=1e-5, atol=1e-6
    )
    assert np.abs(np.asarray(decision.action)).max() > 1.0
    greedy, _ = ppo.act(state, ppo.initial_carry(B), timestep(jnp.zeros((B, A, D)), jnp.zeros(B, bool)), None)
    np.testing.assert_allclose(greedy.env_action, 1.0, atol=0.3)  # the middle of the box: the first policy is centred


def test_bfloat16_layers_keep_float32_outputs_near_the_exact_ones(key):
    exact, half = make(), make(compute_dtype="bfloat16")
    state = exact.init(key, make_hyper(exact.config, 10))
    step = timestep(jax.random.normal(key, (B, A, D)), jnp.zeros(B, bool))
    _, one = exact.actor.apply(state.params.actor, (), step.observation, None)
    _, two = half.actor.apply(state.params.actor, (), step.observation, None)
    assert two.logits.dtype == jnp.float32
    np.testing.assert_allclose(one.logits, two.logits, atol=2e-3)
    assert np.abs(np.asarray(one.logits - two.logits)).max() > 0
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.params))


def test_a_sweep_changes_what_it_names_and_nothing_else():
    plain, swept = make_hyper(PPOConfig(), 10), make_hyper(PPOConfig(), 10, {"ppo.gamma": 0.5})
    assert float(swept.gamma) == 0.5
    assert swept.replace(gamma=plain.gamma) == plain
    with pytest.raises(ValueError, match=r"ppo\.num_epochs is not traced; choose from ppo\.learning_rate"):
        make_hyper(PPOConfig(), 10, {"ppo.num_epochs": 3.0})
