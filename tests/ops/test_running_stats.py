"""Running statistics against NumPy in float64 on everything seen at once."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.ops import running_stats

SIZE = 3
update = jax.jit(running_stats.update)
merge = jax.jit(running_stats.merge)
summarize = jax.jit(running_stats.summarize, static_argnums=1)


def draw(seed, *shape, mean=0.0, deviation=1.0):
    return np.float32(np.random.default_rng(seed).normal(mean, deviation, size=shape))


def assert_close(statistics, samples, rtol=1e-5, weights=None):
    """Compare with NumPy's moments of `samples` [n, *shape], each number weighted."""
    samples = np.float64(samples)
    weights = np.ones_like(samples) if weights is None else np.float64(weights)
    mean = np.average(samples, axis=0, weights=weights)
    deviation = np.sqrt(np.average((samples - mean) ** 2, axis=0, weights=weights))
    np.testing.assert_allclose(statistics.count, weights.sum(axis=0), rtol=1e-6)
    np.testing.assert_allclose(statistics.mean, mean, rtol=rtol, atol=rtol * deviation.max())
    np.testing.assert_allclose(running_stats.deviation(statistics), deviation, rtol=rtol)


def assert_same(one, other, rtol=1e-5):
    np.testing.assert_allclose(one.count, other.count, rtol=1e-6)
    np.testing.assert_allclose(one.mean, other.mean, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(one.variance, other.variance, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("shape", [(), (SIZE,), (2, 5)])
def test_update_equals_the_moments_of_everything_seen(shape):
    batches = [draw(seed, 11, 7, *shape, mean=seed - 2.0, deviation=seed + 0.5) for seed in range(4)]
    statistics = running_stats.init(shape)
    for batch in batches:
        statistics = update(statistics, jnp.asarray(batch))
    assert_close(statistics, np.concatenate(batches).reshape(-1, *shape))


@hypothesis.given(st.integers(0, 2**32 - 1), st.floats(-1e4, 1e4), st.floats(0.1, 1e3), st.sampled_from([1, 2, 13]))
def test_update_equals_the_moments_for_any_scale(seed, mean, deviation, size):
    first, second = draw(seed, 29, SIZE, mean=mean, deviation=deviation), draw(seed + 1, size, SIZE, mean=-mean)
    statistics = update(update(running_stats.init((SIZE,)), jnp.asarray(first)), jnp.asarray(second))
    assert_close(statistics, np.concatenate([first, second]), rtol=1e-4)


@pytest.mark.parametrize("size", [1, 32])
def test_a_large_mean_keeps_its_digits(size):
    # At 1e4 a float32 resolves 1e-3: statistics stored naively would stop moving after some hundred batches.
    batches = draw(1, 4001, size, SIZE, mean=1e4) + np.linspace(0.0, 3.0, 4001, dtype=np.float32)[:, None, None]
    scan = jax.jit(lambda batches: jax.lax.scan(
        lambda statistics, batch: (running_stats.update(statistics, batch), None), running_stats.init((SIZE,)), batches
    )[0])  # fmt: skip
    statistics = scan(jnp.asarray(batches))
    samples = np.float64(batches).reshape(-1, SIZE)
    mean = np.float64(statistics.offset) + np.float64(statistics.shift)
    np.testing.assert_allclose(mean, samples.mean(axis=0), rtol=0, atol=2e-3)
    np.testing.assert_allclose(running_stats.deviation(statistics), samples.std(axis=0), rtol=2e-3)
    normalised = running_stats.normalize(statistics, jnp.asarray(batches[0]))
    np.testing.assert_allclose(normalised, (batches[0] - samples.mean(axis=0)) / samples.std(axis=0), atol=5e-3)


def test_one_long_batch_keeps_its_digits():
    batch = draw(2, 200_003, 1, mean=1e4)
    assert_close(update(running_stats.init((1,)), jnp.asarray(batch)), batch, rtol=1e-4)


def test_merge_is_associative_and_commutative_and_knows_nothing():
    a, b, c = (summarize(jnp.asarray(draw(i, 5 + 6 * i, SIZE, mean=10.0 * i)), 1) for i in range(3))
    assert_same(merge(merge(a, b), c), merge(a, merge(b, c)))
    assert_same(merge(a, b), merge(b, a))
    nothing = running_stats.init((SIZE,))
    assert_same(merge(a, nothing), a, rtol=0)
    assert_same(merge(nothing, a), a, rtol=0)
    assert_same(merge(nothing, nothing), nothing, rtol=0)


def test_parts_merged_in_a_tree_equal_the_whole():
    batch = draw(4, 8, 13, SIZE, mean=3.0)
    parts = [summarize(jnp.asarray(part), 1) for part in batch]
    while len(parts) > 1:
        parts = [merge(left, right) for left, right in zip(parts[::2], parts[1::2], strict=True)]
    assert_close(parts[0], batch.reshape(-1, SIZE))


def test_after_the_cap_new_samples_still_count():
    cap, size = running_stats.MAX_COUNT, 2**20
    old = running_stats.init(()).replace(count=jnp.float32(cap), variance=jnp.float32(1.0))
    statistics = old
    for step in range(1, 4):
        statistics = update(statistics, jnp.full(size, 2.0))
        assert statistics.count == cap
        kept = (cap / (cap + size)) ** step  # what the old mean of 0 still weighs
        np.testing.assert_allclose(statistics.mean, 2.0 * (1.0 - kept), rtol=1e-5)
        np.testing.assert_allclose(statistics.variance, kept + 4.0 * kept * (1.0 - kept), rtol=1e-5)
    single = update(old, jnp.full(1, 2.0))
    np.testing.assert_allclose(single.mean, 2.0 / (cap + 1.0), rtol=1e-5)


def test_constant_features_do_not_explode():
    constants = np.float32([0.0, 5.0, 1e4, -3e-3])
    statistics = running_stats.init((4,))
    for _ in range(5):
        statistics = update(statistics, jnp.broadcast_to(jnp.asarray(constants), (7, 4)))
    np.testing.assert_array_equal(running_stats.normalize(statistics, jnp.asarray(constants)), np.zeros(4))
    # A feature that starts to move is not blown up either.
    moved = running_stats.normalize(statistics, jnp.asarray(constants + np.float32(0.25)))
    np.testing.assert_allclose(moved, np.full(4, 0.25), rtol=2e-3)


def test_rounding_noise_counts_as_constant():
    noisy = np.float32(1e4) + np.spacing(np.float32(1e4)) * np.random.default_rng(0).integers(-1, 2, size=(101, 1))
    statistics = update(running_stats.init((1,)), jnp.asarray(noisy, jnp.float32))
    assert running_stats.deviation(statistics) == 1.0


def test_small_features_are_scaled():
    batch = draw(8, 101, 1, deviation=1e-3)
    assert_close(update(running_stats.init((1,)), jnp.asarray(batch)), batch)


def test_masked_features_are_not_counted():
    batch, mask = draw(5, 31, SIZE, mean=4.0), np.random.default_rng(5).random((31, SIZE)) < 0.5
    mask[:, 2] = False
    batch[~mask] = np.nan
    start = update(running_stats.init((SIZE,)), jnp.asarray(draw(6, 5, SIZE)))
    statistics = update(start, jnp.asarray(batch), jnp.asarray(mask))
    for feature in range(SIZE):
        seen = np.concatenate([draw(6, 5, SIZE)[:, feature], batch[mask[:, feature], feature]])
        alone = jax.tree.map(lambda leaf, feature=feature: leaf[feature], statistics)
        assert_close(alone, seen)


def test_features_never_seen_stay_as_they_are():
    batch, mask = draw(7, 13, 2) * 5.0, np.array([True, False])
    statistics = update(running_stats.init((2,)), jnp.asarray(batch), jnp.asarray(np.broadcast_to(mask, batch.shape)))
    assert statistics.count[1] == 0.0
    assert running_stats.normalize(statistics, jnp.array([[0.0, 3.5]]))[0, 1] == 3.5


def test_weights_count_like_repetitions():
    batch, times = draw(9, 13, SIZE, mean=2.0), np.random.default_rng(9).integers(0, 4, size=13)
    weights = np.broadcast_to(times[:, None], batch.shape).astype(np.float32)
    statistics = update(running_stats.init((SIZE,)), jnp.asarray(batch), jnp.asarray(weights))
    assert_close(statistics, np.repeat(batch, times, axis=0))


def test_normalize_before_the_first_sample_only_clips():
    x = jnp.array([[-1e3, 0.5, 3.0]])
    np.testing.assert_array_equal(running_stats.normalize(running_stats.init((3,)), x), [[-10.0, 0.5, 3.0]])
    np.testing.assert_array_equal(running_stats.normalize(running_stats.init((3,)), x, clip=2.0), [[-2.0, 0.5, 2.0]])


def test_normalize_against_numpy():
    batch = draw(10, 5, 7, 2, SIZE, mean=-3.0, deviation=6.0)
    statistics = update(running_stats.init((2, SIZE)), jnp.asarray(batch))
    flat = np.float64(batch).reshape(-1, 2, SIZE)
    expected = (np.float64(batch) - flat.mean(axis=0)) / flat.std(axis=0)
    np.testing.assert_allclose(running_stats.normalize(statistics, jnp.asarray(batch)), expected, rtol=1e-4, atol=1e-5)


def test_normalize_keeps_the_digits_of_a_large_mean():
    # The mean 1e4 + 4e-4 is no float32 number; rounded to 1e4 first, it would leave 0 here.
    arrays = dict(zip(("count", "offset", "shift", "variance"), jnp.array([7.0, 1e4, 4e-4, 4e-4]), strict=True))
    normalised = running_stats.normalize(running_stats.RunningStatistics(**arrays), jnp.float32(1e4))
    np.testing.assert_allclose(normalised, -4e-4 / 2e-2, rtol=1e-5)


def test_statistics_of_nothing_can_be_donated():
    start = running_stats.init((SIZE,))
    donating = jax.jit(running_stats.update, donate_argnums=0)
    assert donating(start, jnp.ones((2, SIZE))).count[0] == 2.0


def test_images_are_counted_in_float():
    pixels = np.random.default_rng(0).integers(0, 256, size=(17, 2, 2), dtype=np.uint8)
    assert_close(update(running_stats.init((2, 2)), jnp.asarray(pixels)), pixels)


def test_jit_and_stacked_runs_agree_with_one_run_at_a_time():
    batches, mask = draw(11, 5, 13, SIZE), np.random.default_rng(1).random((5, 13, SIZE)) < 0.7
    mask[:, 0] = True
    starts = [running_stats.summarize(jnp.asarray(draw(i, 7, SIZE)), 1) for i in range(5)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    together = jax.jit(jax.vmap(running_stats.update))(stacked, jnp.asarray(batches), jnp.asarray(mask))
    normalised = jax.vmap(functools.partial(running_stats.normalize, clip=3.0))(together, jnp.asarray(batches))
    for run, start in enumerate(starts):
        alone = running_stats.update(start, jnp.asarray(batches[run]), jnp.asarray(mask[run]))
        assert_same(jax.tree.map(lambda leaf, run=run: leaf[run], together), alone)
        expected = running_stats.normalize(alone, jnp.asarray(batches[run]), clip=3.0)
        np.testing.assert_allclose(normalised[run], expected, rtol=1e-4, atol=1e-5)


def test_values_are_standardised_and_restored():
    """Targets 1, 3, 5, 7: mean 4, deviation √5."""
    statistics = update(running_stats.init(()), jnp.array([[1.0, 3.0], [5.0, 7.0]]))
    value = jnp.array([[4.0, 4.0 + 5**0.5, 4.0 - 100.0]])
    standard = running_stats.normalize_values(statistics, value)
    np.testing.assert_allclose(standard, [[0.0, 1.0, -100.0 / 5**0.5]], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(running_stats.denormalize_values(statistics, standard), value, rtol=1e-6)


def test_values_are_never_divided_by_less_than_a_tenth():
    nearly_equal = update(running_stats.init(()), jnp.array([2.0, 2.02]))  # mean 2.01, deviation 0.01
    for statistics, mean in ((nearly_equal, 2.01), (running_stats.init(()), 0.0)):
        standard = running_stats.normalize_values(statistics, jnp.array([3.01]))
        np.testing.assert_allclose(standard, [(3.01 - mean) / 0.1], rtol=1e-5)
        np.testing.assert_allclose(running_stats.denormalize_values(statistics, standard), [3.01], rtol=1e-6)


def test_gradients_are_finite():
    constant = update(running_stats.init((SIZE,)), jnp.ones((5, SIZE)))
    for statistics in (running_stats.init((SIZE,)), constant):
        gradients = jax.grad(lambda s, x: running_stats.normalize(s, x).sum(), argnums=(0, 1))(
            statistics, jnp.full(SIZE, 1.0)
        )
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
