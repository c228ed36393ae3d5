"""The async learner: PPO itself on data of its own policy, and each correction against NumPy where they are not."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ppo_rollouts import BOUNDED, DISCRETE, A, B, T, make, make_trajectory

from jaxrl_engine.algos.chunks import cut_into_chunks
from jaxrl_engine.algos.impact import Drawn, Impact
from jaxrl_engine.algos.ppo_types import make_hyper
from jaxrl_engine.core.algo_config import PPOConfig
from jaxrl_engine.core.async_config import ImpactConfig

PLAIN = PPOConfig(num_epochs=2, num_minibatches=3, anneal_learning_rate=False, entropy_coefficient=0.01)


def learner(ppo, **impact) -> Impact:
    return Impact(ppo.spec, ppo.config, ImpactConfig(**impact), ppo.network)


@functools.partial(jax.jit, static_argnums=0)
def update(algorithm, *arguments):
    return algorithm.update(*arguments)


def drawn(chunks, actor=None, critic=None, new=None) -> Drawn:
    ones = jnp.ones(chunks.valid.shape[0])
    return Drawn(
        chunks=chunks, actor_weight=ones if actor is None else actor, critic_weight=ones if critic is None else critic,
        new=jnp.ones(len(ones), bool) if new is None else new,
    )  # fmt: skip


def cuts(rows):
    """One truncated step in some environments."""
    truncated = np.zeros((T, B), bool)
    for environment, step in rows.items():
        truncated[step, environment] = True
    return jnp.asarray(truncated)


def started(ppo, key):
    return jax.jit(ppo.init)(key, make_hyper(ppo.config, 100))


@pytest.mark.parametrize(
    ("action", "changes"),
    [(DISCRETE, {}), (BOUNDED, {"clip_value": True}), (DISCRETE, {"normalize_values": True, "huber_delta": 1.0}),
     (DISCRETE, {"normalize_advantages": False, "normalize_rewards": False, "normalize_observations": False})],
    ids=["discrete", "Gaussian, clipped values", "normalised values", "nothing normalised"],
)  # fmt: skip
def test_on_data_of_its_own_policy_it_is_ppo(key, action, changes):
    ppo = make(action, dataclasses.replace(PLAIN, **changes))
    state = started(ppo, key)
    # The statistics hold something, so that being frozen and being updated alike is part of what is compared.
    for seed in (1, 2):
        trajectory = make_trajectory(ppo, state, jax.random.key(seed), cuts({0: 2, 3: 4}))
        expected, losses = update(ppo, state, trajectory, jax.random.key(5))
        chunks = jax.jit(cut_into_chunks)(trajectory)
        found, _, _, metrics = update(learner(ppo), state, state.params, drawn(chunks), jax.random.key(5))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6),
            dataclasses.asdict(found.replace(hyper=None)), dataclasses.asdict(expected.replace(hyper=None)),
        )  # fmt: skip
        for name in ("Losses/Policy", "Losses/Value", "Losses/Entropy", "Losses/ApproxKL"):
            np.testing.assert_allclose(metrics[name], losses[name], rtol=1e-3, atol=1e-6)
        assert metrics["Losses/FirstRatioError"] < 1e-5
        np.testing.assert_allclose(metrics["Async/RatioMean"], 1.0, rtol=1e-5)
        np.testing.assert_allclose(metrics["Async/EffectiveSampleSize"], 1.0, rtol=1e-5)
        state = expected


@pytest.fixture(scope="module")
def stale():
    """Chunks of a policy that is not the learner's, whose networks are plain: no statistics, one epoch of one batch."""
    config = PPOConfig(
        num_epochs=1, num_minibatches=1, normalize_observations=False, normalize_rewards=False,
        normalize_advantages=False, anneal_learning_rate=False,
    )  # fmt: skip
    ppo = make(DISCRETE, config)
    actor, state, proximal = (started(ppo, jax.random.key(seed)) for seed in (1, 2, 3))
    trajectory = make_trajectory(ppo, actor, jax.random.key(4), cuts({1: 1, 2: 4}))
    return ppo, state, proximal.params, jax.jit(cut_into_chunks)(trajectory), trajectory


def by_hand(stale, *, correction=True, limit=1.0):
    """Advantages, value targets, δ and ratios in float64, stream by stream."""
    ppo, state, proximal, _, trajectory = stale
    steps = trajectory.transitions
    value, final = (
        np.asarray(ppo.critic.apply(state.params.critic, (), seen)[1], np.float64)
        for seen in (steps.observation, steps.final_observation)
    )
    law = ppo.actor.apply(proximal.actor, (), steps.observation, None)[1]
    log_prob = np.asarray(law.log_prob(steps.action), np.float64) if correction else np.asarray(steps.log_prob)
    ratio = np.exp(log_prob - np.asarray(steps.log_prob, np.float64))
    truncated, reward = np.asarray(steps.truncated), np.asarray(steps.reward, np.float64)
    advantage, delta = np.zeros_like(value), np.zeros_like(value)
    for environment in range(B):
        for agent in range(A):
            at = (slice(None), environment, agent)
            following = 0.0
            for t in reversed(range(T)):
                delta[at][t] = reward[at][t] + 0.99 * final[at][t] - value[at][t]
                trace = 0.0 if truncated[t, environment] else 0.99 * 0.95 * min(1.0, ratio[at][t])
                following = min(limit, ratio[at][t]) * delta[at][t] + trace * following
                advantage[at][t] = following
    return advantage, advantage + value, delta, ratio, log_prob


@pytest.mark.parametrize(("correction", "limit"), [(True, 1.0), (True, 2.0), (False, 1.0)])
def test_loss_of_stale_data_equals_numpy(stale, correction, limit):
    ppo, state, proximal, chunks, trajectory = stale
    actor, critic = jnp.linspace(0.1, 1.0, B), jnp.linspace(1.0, 0.3, B)
    algorithm = learner(ppo, correction=correction, ratio_limit=limit)
    _, _, surprise, metrics = update(algorithm, state, proximal, drawn(chunks, actor, critic), jax.random.key(0))
    advantage, target, delta, ratio, log_prob = by_hand(stale, correction=correction, limit=limit)
    steps = trajectory.transitions
    law = ppo.actor.apply(state.params.actor, (), steps.observation, None)[1]
    moved = np.exp(np.asarray(law.log_prob(steps.action), np.float64) - log_prob)
    surrogate = -np.minimum(moved * advantage, np.clip(moved, 0.8, 1.2) * advantage)
    value = np.asarray(ppo.critic.apply(state.params.critic, (), steps.observation)[1], np.float64)
    across = (None, slice(None), None)
    np.testing.assert_allclose(metrics["Losses/Policy"], (np.asarray(actor)[across] * surrogate).mean(), rtol=1e-4)
    errors = np.asarray(critic)[across] * 0.5 * np.square(value - target)
    np.testing.assert_allclose(metrics["Losses/Value"], errors.mean(), rtol=1e-4)
    entropy = (np.asarray(actor)[across] * np.asarray(law.entropy(jax.random.key(0)))).mean()
    np.testing.assert_allclose(metrics["Losses/Entropy"], entropy, rtol=1e-4)
    expected = 0.9 * np.abs(delta).max(axis=(0, 2)) + 0.1 * np.abs(delta).mean(axis=(0, 2))
    np.testing.assert_allclose(surprise, expected, rtol=1e-4)
    used = ratio if correction else np.ones_like(ratio)
    weights = np.asarray(actor)[across] * np.minimum(used, limit)
    size = weights.sum() ** 2 / np.square(weights).sum() / weights.size
    np.testing.assert_allclose(metrics["Async/EffectiveSampleSize"], size, rtol=1e-4)
    np.testing.assert_allclose(metrics["Async/RatioMean"], used.mean(), rtol=1e-4)


@pytest.mark.parametrize("limit", [1.0, 2.0])
def test_normalised_advantages_are_those_before_the_correction(stale, limit):
    """Mean and deviation are of B = A / ρ with weights w ρ, and the loss is that of B times w ρ."""
    ppo, state, proximal, chunks, trajectory = stale
    proximal = proximal.replace(actor=jax.tree.map(lambda leaf: 40.0 * leaf, proximal.actor))
    stale = (ppo, state, proximal, chunks, trajectory)
    normalising = dataclasses.replace(ppo, config=dataclasses.replace(ppo.config, normalize_advantages=True))
    actor = jnp.linspace(0.1, 1.0, B)
    algorithm = learner(normalising, ratio_limit=limit)
    metrics = update(algorithm, state, proximal, drawn(chunks, actor), jax.random.key(0))[3]
    corrected, _, _, ratio, log_prob = by_hand(stale, limit=limit)
    worth = np.minimum(ratio, limit)
    assert ratio.min() < 0.7 and ratio.max() > 1.4
    weights = np.asarray(actor)[None, :, None] * worth
    before = corrected / worth
    mean = np.average(before, weights=weights)
    advantage = (before - mean) / np.sqrt(np.average(np.square(before - mean), weights=weights))
    law = ppo.actor.apply(state.params.actor, (), trajectory.transitions.observation, None)[1]
    moved = np.exp(np.asarray(law.log_prob(trajectory.transitions.action), np.float64) - log_prob)
    surrogate = -np.minimum(moved * advantage, np.clip(moved, 0.8, 1.2) * advantage)
    np.testing.assert_allclose(metrics["Losses/Policy"], (weights * surrogate).mean(), rtol=1e-3, atol=1e-5)


def test_an_action_that_the_policy_would_not_take_teaches_nothing(key):
    """Such are replayed by the thousand: with advantages centred after the correction each pulls at the policy."""
    config = PPOConfig(num_epochs=1, num_minibatches=1, normalize_observations=False, normalize_rewards=False)
    ppo = make(BOUNDED, config)
    state = started(ppo, key)
    chunks = jax.jit(cut_into_chunks)(make_trajectory(ppo, state, key))
    chunks = chunks.replace(log_prob=chunks.log_prob.at[0, -1].set(100.0))  # the last step: no other leans on it
    norms = []
    for action in (3.0, -3.0):
        taken = chunks.replace(action=chunks.action.at[0, -1].set(action))
        norms.append(update(learner(ppo), state, state.params, drawn(taken), key)[3]["Losses/GradientNorm"])
    np.testing.assert_allclose(norms[0], norms[1], rtol=1e-5)


def test_a_chunk_of_weight_zero_and_steps_that_are_not_valid_teach_nothing(stale):
    ppo, state, proximal, chunks, _ = stale
    algorithm = learner(ppo)
    weight = jnp.ones(B).at[3].set(0.0)
    broken = chunks.replace(reward=chunks.reward.at[3].add(100.0))
    quiet, loud = (
        update(algorithm, state, proximal, drawn(each, weight, weight), jax.random.key(0))[0].params
        for each in (chunks, broken)
    )
    jax.tree.map(np.testing.assert_array_equal, quiet, loud)
    rest = jax.tree.map(lambda leaf: jnp.delete(leaf, 3, axis=0), chunks)
    alone = update(algorithm, state, proximal, drawn(rest), jax.random.key(0))[3]
    among = update(algorithm, state, proximal, drawn(chunks, weight, weight), jax.random.key(0))[3]
    for name in ("Losses/Policy", "Losses/Value", "Losses/Entropy", "Async/RatioMean", "Async/EffectiveSampleSize"):
        np.testing.assert_allclose(among[name], alone[name], rtol=1e-5)
    without = chunks.replace(valid=chunks.valid.at[3].set(False))
    louder = broken.replace(valid=without.valid)
    quiet, loud = (update(algorithm, state, proximal, drawn(each), jax.random.key(0)) for each in (without, louder))
    jax.tree.map(np.testing.assert_array_equal, quiet[0].params, loud[0].params)
    np.testing.assert_array_equal(quiet[2], loud[2])
    assert quiet[2][3] == 0.0 and quiet[3]["Async/InvalidSteps"] == T


def test_only_new_chunks_reach_the_statistics(key):
    ppo = make(DISCRETE, PLAIN)
    state = started(ppo, key)
    chunks = jax.jit(cut_into_chunks)(make_trajectory(ppo, state, key))
    new = jnp.arange(B) < 2
    found = update(learner(ppo), state, state.params, drawn(chunks, new=new), key)[0].statistics
    seen = np.asarray(chunks.observation[:2, :-1]).reshape(-1, 3)
    np.testing.assert_allclose(found.observation.mean, seen.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.observation.variance, seen.var(axis=0), rtol=1e-4)
    np.testing.assert_allclose(found.observation.count, 2 * T * A)
    np.testing.assert_allclose(found.discounted_return.count, 2 * T * A)


def test_the_proximal_policy_follows_as_a_moving_average(stale):
    ppo, state, proximal, chunks, _ = stale
    for decay in (0.0, 0.75):
        learned, moved, _, _ = update(
            learner(ppo, proximal_decay=decay), state, proximal, drawn(chunks), jax.random.key(0)
        )
        leaves = (jax.tree.leaves(tree) for tree in (learned.params, proximal, moved))
        for new, old, got in zip(*leaves, strict=True):
            np.testing.assert_allclose(got, decay * old + (1 - decay) * new, atol=1e-6)


def test_a_reward_that_is_no_number_rejects_the_update(stale):
    ppo, state, proximal, chunks, _ = stale
    poisoned = chunks.replace(reward=chunks.reward.at[0, 0, 0].set(jnp.nan))
    learned, _, _, _ = update(learner(ppo), state, proximal, drawn(poisoned), jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, learned.params, state.params)
    assert learned.skipped_updates == learned.skipped_in_a_row == 1
    assert learned.policy_version == state.policy_version


def test_a_network_with_memory_is_refused():
    ppo = make(DISCRETE, PLAIN, recurrent="gru")
    with pytest.raises(ValueError, match=r"network\.recurrent must be none with algo impact, not 'gru'"):
        learner(ppo)
