"""Shuffling: every sample once per epoch, in an order that is uniform; whole environments where there is memory."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxrl_engine.algos.minibatches import PACKED_LIMIT, Minibatch, Passes, random_orders, scan_minibatches


@pytest.mark.parametrize("count", [1, 2, 5, 1024, 1031, PACKED_LIMIT + 7])
def test_orders_are_permutations(key, count):
    orders = np.asarray(random_orders(key, 3, count))
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(count))
    if count > 5:
        assert not np.array_equal(orders[0], orders[1])


def test_each_of_the_24_orders_of_four_is_equally_likely(key):
    orders = np.asarray(random_orders(key, 24_000, 4))
    counts = np.unique(orders @ np.array([64, 16, 4, 1]), return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-3


def _collect(samples, memory, key, epochs, minibatches, groups=1, beforehand=lambda samples: None):
    def step(learner, batch: Minibatch):
        return learner + 1, batch

    return scan_minibatches(step, 0, samples, memory, key, Passes(epochs, minibatches, groups), beforehand)


@pytest.mark.parametrize("groups", [1, 7])
def test_every_sample_once_per_epoch(key, groups):
    num_steps, num_envs = 6, 7
    time, env = jnp.meshgrid(jnp.arange(num_steps), jnp.arange(num_envs), indexing="ij")
    steps, batches = _collect({"time": time, "env": env}, None, key, 5, 3, groups)
    assert int(steps) == 15
    assert batches.samples["time"].shape == (15, 14)
    flat = np.asarray(batches.samples["time"] * num_envs + batches.samples["env"]).reshape(5, -1)
    for epoch in flat:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(num_steps * num_envs))


def test_with_memory_environments_stay_whole_and_keep_their_memory(key):
    num_steps, num_envs = 5, 6
    env = jnp.broadcast_to(jnp.arange(num_envs), (num_steps, num_envs))
    time = jnp.broadcast_to(jnp.arange(num_steps)[:, None], (num_steps, num_envs))
    _, batches = _collect({"env": env, "time": time}, 10 * jnp.arange(num_envs), key, 2, 3)
    assert batches.samples["env"].shape == (6, num_steps, 2)
    for samples_env, samples_time, memory in zip(
        np.asarray(batches.samples["env"]), np.asarray(batches.samples["time"]), np.asarray(batches.memory), strict=True
    ):
        np.testing.assert_array_equal(samples_time, np.arange(num_steps)[:, None] * np.ones((1, 2)))
        np.testing.assert_array_equal(samples_env, np.ones((num_steps, 1)) * memory / 10)
    np.testing.assert_array_equal(
        np.sort(np.asarray(batches.memory).reshape(2, -1)), 10 * np.arange(6)[None] * np.ones((2, 1))
    )


@pytest.mark.parametrize("memory", [None, 10 * jnp.arange(6)])
def test_what_is_computed_beforehand_is_of_the_minibatch_it_comes_with(key, memory):
    numbers = jnp.square(jnp.arange(5 * 6.0)).reshape(5, 6)
    centred = lambda samples: samples["x"] - samples["x"].mean()  # noqa: E731
    _, batches = _collect({"x": numbers}, memory, key, 2, 3, 3, centred)
    assert batches.samples["x"].shape == ((6, 10) if memory is None else (6, 5, 2))
    for samples, known in zip(np.asarray(batches.samples["x"]), np.asarray(batches.beforehand), strict=True):
        np.testing.assert_allclose(known, samples - samples.mean(), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("memory", [None, 5 * jnp.arange(6)])
def test_split_cuts_without_loss(key, memory):
    shape = (6, 2) if memory is None else (5, 6)
    samples = {"x": jnp.arange(np.prod(shape)).reshape(shape)}
    parts = Minibatch(samples=samples, memory=memory, key=key, beforehand=-samples["x"]).split(3)
    np.testing.assert_array_equal(parts.beforehand, -parts.samples["x"])
    axis = 0 if memory is None else 1
    assert parts.samples["x"].shape == ((3, 2, 2) if memory is None else (3, 5, 2))
    np.testing.assert_array_equal(np.concatenate(list(np.asarray(parts.samples["x"])), axis=axis), samples["x"])
    if memory is not None:
        np.testing.assert_array_equal(np.asarray(parts.memory).reshape(-1), memory)


@pytest.mark.parametrize(("groups", "used"), [(2, 2), (4, 2), (6, 6), (8, 2)])
def test_every_minibatch_takes_as_many_from_each_group_and_keeps_them_together(key, groups, used):
    """Of 6 environments and minibatches of 10 × 6 / 5 = 12 samples: as many groups as divide both."""
    num_steps, num_envs = 10, 6
    time, env = jnp.meshgrid(jnp.arange(num_steps), jnp.arange(num_envs), indexing="ij")
    _, batches = _collect({"time": time, "env": env}, None, key, 3, 5, groups)
    group = np.asarray(batches.samples["env"]) // (num_envs // used)
    np.testing.assert_array_equal(group, np.broadcast_to(np.repeat(np.arange(used), 12 // used), (15, 12)))
    flat = np.asarray(batches.samples["time"] * num_envs + batches.samples["env"]).reshape(3, -1)
    for epoch in flat:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(num_steps * num_envs))
    assert not np.array_equal(flat[0], flat[1])


def test_with_memory_groups_are_of_whole_environments(key):
    num_steps, num_envs = 5, 12
    env = jnp.broadcast_to(jnp.arange(num_envs), (num_steps, num_envs))
    _, batches = _collect({"env": env}, 10 * jnp.arange(num_envs), key, 2, 3, 8)
    chosen = np.asarray(batches.samples["env"])  # four groups, of 12 environments in threes of four
    assert chosen.shape == (6, num_steps, 4)
    np.testing.assert_array_equal(chosen // 3, np.broadcast_to(np.arange(4), chosen.shape))
    np.testing.assert_array_equal(10 * chosen[:, 0], batches.memory)
