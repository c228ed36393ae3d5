"""The learner's step: what is new is learned from once and kept, what is broken never, and how old things are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ppo_rollouts import DISCRETE, B, T, make, make_trajectory

from jaxrl_engine.algos.chunks import cut_into_chunks
from jaxrl_engine.algos.impact import Drawn, Impact
from jaxrl_engine.algos.ppo_types import make_hyper
from jaxrl_engine.core.algo_config import PPOConfig
from jaxrl_engine.core.async_config import ImpactConfig
from jaxrl_engine.modes.actor_learner.learner import Learner, lags, without_broken
from jaxrl_engine.replay.sharded import ShardedReplay

PPO = make(DISCRETE, PPOConfig(num_epochs=1, num_minibatches=1, anneal_learning_rate=False, normalize_rewards=False))


def make_learner(**impact) -> Learner:
    config = ImpactConfig(**impact)
    algorithm = Impact(PPO.spec, PPO.config, config, PPO.network)
    replayed = 0 if config.replay == "none" else 4
    return Learner(algorithm, config, num_new=B, num_replayed=replayed, capacity=17, min_size=2 * B, total_updates=100)


@pytest.fixture(scope="module")
def chunks():
    """Rollouts of three parameters, as the actors of three updates might have made them."""
    hyper = make_hyper(PPO.config, 100)
    states = [jax.jit(PPO.init)(jax.random.key(seed), hyper) for seed in range(3)]
    cut = jax.jit(cut_into_chunks)
    return [cut(make_trajectory(PPO, state, jax.random.key(7 + seed))) for seed, state in enumerate(states)]


def begun(learner, chunks):
    return jax.jit(learner.init)(jax.random.key(0), make_hyper(PPO.config, 100), chunks[0])


def test_new_chunks_are_kept_as_they_came_and_replayed_only_once_there_are_enough(chunks):
    learner = make_learner()
    state, step = begun(learner, chunks), jax.jit(learner.step)
    shares = []
    for number, rollout in enumerate(chunks):
        state, metrics = step(state, (rollout,))
        shares.append(float(metrics["Async/NewShare"]))
        stored = jax.tree.map(lambda leaf, n=number: leaf[n * B : n * B + B], state.replay.items)
        kept = min(B, 17 - number * B)
        jax.tree.map(lambda a, b, k=kept: np.testing.assert_array_equal(a[:k], b[:k]), stored, rollout)
    np.testing.assert_allclose(shares, [1.0, 1.0, B / (B + 4)])
    assert state.replay.size == 17 and state.updates == 3 and state.train_state.policy_version == 3
    assert (state.replay.uses > 0).any()


def test_what_is_drawn_before_there_is_enough_keeps_its_priority(chunks):
    learner = make_learner()
    state, step = begun(learner, chunks), jax.jit(learner.step)
    state, _ = step(state, (chunks[0],))
    first = np.asarray(state.replay.tree.priorities[:B])
    state, _ = step(state, (chunks[1],))
    assert (state.replay.uses[:B] > 0).any() and (first > 0.0).all()
    np.testing.assert_array_equal(state.replay.tree.priorities[:B], first)


def test_two_rollouts_are_one_batch(chunks):
    learner = make_learner()
    state, step = begun(learner, chunks), jax.jit(learner.step)
    halves = [jax.tree.map(lambda leaf, s=s: leaf[s], chunks[0]) for s in (slice(0, 2), slice(2, B))]
    whole, parts = step(state, (chunks[0],)), step(state, tuple(halves))
    jax.tree.map(np.testing.assert_array_equal, *(jax.tree.map(_bits, each[0]) for each in (whole, parts)))


def _bits(leaf):
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def test_priorities_are_the_surprise_before_learning(chunks):
    learner = make_learner(replay="uniform")
    algorithm = learner.algorithm
    state = begun(learner, chunks)
    after, _ = jax.jit(learner.step)(state, (chunks[0],))
    np.testing.assert_array_equal(after.replay.tree.priorities[:B], np.ones(B))  # uniform: all alike
    learner = make_learner(per_alpha=1.0, staleness_decay=0.5)
    aged = chunks[0].replace(policy_version=jnp.arange(B) - B + 1)  # the learner is at 0: ages 5, 4, …, 0
    state = begun(learner, chunks)
    after, _ = jax.jit(learner.step)(state, (aged,))
    ones = jnp.ones(B)
    drawn = Drawn(chunks=aged, actor_weight=ones, critic_weight=ones, new=ones > 0)
    surprise = jax.jit(algorithm.update)(state.train_state, state.proximal, drawn, jax.random.key(1))[2]
    expected = surprise * 0.5 ** np.arange(B - 1, -1, -1)
    np.testing.assert_allclose(after.replay.tree.priorities[:B], expected, rtol=1e-4)


def test_with_shards_both_weights_hold_the_first_power_of_what_shards_change(chunks):
    learner = dataclasses.replace(
        make_learner(per_alpha=1.0, per_beta_start=0.25), replay=ShardedReplay(2), capacity=18, min_size=B
    )
    state, worth = begun(learner, chunks), np.array([1, 1, 1, 2, 4, 8])  # shares 3/17 and 14/17, where halves are drawn
    state = state.replace(replay=learner.replay.insert(state.replay, chunks[0], jnp.asarray(worth, jnp.float32), 0))
    _, drawn, sample = jax.jit(learner._draw)(state, chunks[1], jax.random.key(2))
    slots = np.asarray(sample.indices).reshape(2, 2) - np.array([[0], [9]])
    found = worth.reshape(2, 3)[[[0], [1]], slots].ravel()
    correction, rarest = np.repeat([2 * 3 / 17, 2 * 14 / 17], 2), found.min() / found
    assert rarest.min() < 1
    np.testing.assert_allclose(drawn.actor_weight, [*np.ones(B), *correction * rarest], rtol=1e-6)
    np.testing.assert_allclose(drawn.critic_weight, [*np.ones(B), *correction * rarest**0.25], rtol=1e-6)


def test_with_shards_there_is_enough_when_all_together_hold_enough(chunks):
    learner = dataclasses.replace(make_learner(), replay=ShardedReplay(2), capacity=18)
    state, step = begun(learner, chunks), jax.jit(learner.step)
    found = []
    for rollout in chunks:
        state, metrics = step(state, (rollout,))
        found.append([float(metrics[name]) for name in ("Async/NewShare", "Buffer/Size")])
    np.testing.assert_allclose(found, [[1.0, B], [1.0, 2 * B], [B / (B + 4), 3 * B]])
    stored = state.replay.items.reward.reshape(2, 3, 3, *state.replay.items.reward.shape[2:])
    rewards = np.stack([rollout.reward.reshape(2, 3, *rollout.reward.shape[1:]) for rollout in chunks], axis=1)
    np.testing.assert_array_equal(stored, rewards)  # half of every rollout in each shard, in order


@pytest.mark.parametrize("field", ["reward", "observation", "log_prob"])
def test_a_chunk_that_is_not_finite_is_never_learned_from(chunks, field):
    learner = make_learner()
    leaf = getattr(chunks[0], field)
    poisoned = chunks[0].replace(**{field: leaf.at[(2, *[0] * (leaf.ndim - 1))].set(jnp.nan)})
    clean, broken = without_broken(poisoned)
    np.testing.assert_array_equal(broken, np.arange(B) == 2)
    assert not clean.valid[2].any() and clean.valid.sum() == (B - 1) * T
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(clean))
    state, step = begun(learner, chunks), jax.jit(learner.step)
    state, metrics = step(state, (poisoned,))
    assert metrics["Async/DroppedNotFinite"] == 1 and state.train_state.skipped_updates == 0
    np.testing.assert_array_equal(state.replay.tree.priorities[:B] > 0, np.arange(B) != 2)
    for rollout in chunks[1:]:
        state, metrics = step(state, (rollout,))
    assert state.replay.uses[2] == 0 and state.train_state.skipped_updates == 0


def test_lag_is_counted_over_what_is_learned_from(chunks):
    weight = jnp.array([1.0, 1.0, 0.5, 0.0, 1.0, 1.0])
    versions = jnp.array([20, 19, 17, 1, 20, 10])
    drawn = Drawn(
        chunks=chunks[0].replace(policy_version=versions), actor_weight=weight, critic_weight=weight, new=weight > 0
    )
    found = lags(jnp.int32(20), drawn)  # ages 0, 1, 3, 0, 10
    np.testing.assert_allclose([found["Async/LagP50"], found["Async/LagMax"]], [1.0, 10.0])
    np.testing.assert_allclose(found["Async/LagP95"], np.percentile([0, 1, 3, 0, 10], 95), rtol=1e-6)


def test_without_replay_there_is_none(chunks):
    learner = make_learner(replay="none", new_fraction=1.0)
    state = begun(learner, chunks)
    assert state.replay is None
    after, metrics = jax.jit(learner.step)(state, (chunks[0],))
    assert metrics["Async/NewShare"] == 1.0 and not any(name.startswith("Buffer/") for name in metrics)
    assert after.updates == 1


def test_the_learners_settings_are_those_of_replay():
    learner = make_learner(max_lag=3, max_reuse=2)
    shapes = jax.eval_shape(lambda: learner.empty_replay(jax.tree.map(jnp.zeros_like, _shapes())))
    assert (shapes.max_lag, shapes.max_reuse, shapes.alpha, shapes.tree.capacity) == (3, 2, 0.6, 17)
    assert dataclasses.replace(learner, num_replayed=0).empty_replay(_shapes()) is None


def _shapes():
    state = jax.jit(PPO.init)(jax.random.key(0), make_hyper(PPO.config, 100))
    return jax.jit(cut_into_chunks)(make_trajectory(PPO, state, jax.random.key(1)))
