"""Losses and their statistics against NumPy in float64 and numbers worked by hand."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.ops import losses

SAMPLES = 17


def draw(seed, count=4):
    return np.random.default_rng(seed).normal(size=(count, SAMPLES)).astype(np.float32)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        # ε = 0.2. Slope is d loss / d log π = −ρ A where the surrogate still moves, 0 where it is clipped.
        (1.0, 2.0, -2.0, -2.0),
        (1.1, 2.0, -2.2, -2.2),
        (1.5, 2.0, -2.4, 0.0),  # already likelier than allowed, and asked to be likelier still
        (0.5, 2.0, -1.0, -1.0),  # became less likely although it was good: pulled back with full force
        (0.5, -2.0, 1.6, 0.0),  # already rarer than allowed, and asked to be rarer still
        (1.5, -2.0, 3.0, 3.0),  # became likelier although it was bad: pulled back
        (0.9, -2.0, 1.8, 1.8),
        (1.5, 0.0, 0.0, 0.0),
    ],
)
def test_clipped_surrogate_worked_by_hand(ratio, advantage, loss, slope):
    def surrogate(log_prob):
        return losses.clipped_surrogate(log_prob, jnp.log(jnp.float32(0.3)), jnp.float32(advantage), 0.2)

    value, gradient = jax.value_and_grad(surrogate)(jnp.log(jnp.float32(0.3 * ratio)))
    np.testing.assert_allclose(value, loss, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-7)


def test_clipped_surrogate_equals_the_formula():
    new, old, advantage, _ = draw(1)
    ratio = np.exp(new.astype(np.float64) - old)
    expected = -np.minimum(ratio * advantage, np.clip(ratio, 0.7, 1.3) * advantage)
    actual = losses.clipped_surrogate(jnp.asarray(new), jnp.asarray(old), jnp.asarray(advantage), 0.3)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize("log_prob", [-1e30, -3e4, 200.0, 3e4])
@pytest.mark.parametrize("advantage", [-1.0, 0.0, 1.0])
def test_hopeless_ratios_leave_loss_and_gradient_finite(log_prob, advantage):
    def loss(new):
        return losses.clipped_surrogate(new, jnp.float32(-1.0), jnp.float32(advantage), 0.2)

    assert np.isfinite(jax.value_and_grad(loss)(jnp.float32(log_prob))).all()
    assert np.isfinite(losses.clip_fraction(jnp.float32(log_prob), 0.2))


def test_approximate_kl_worked_by_hand():
    # ρ = 2: (2 − 1) − log 2; ρ = ½: (½ − 1) + log 2; ρ = 1: nothing.
    log_ratio = jnp.log(jnp.array([2.0, 0.5, 1.0]))
    np.testing.assert_allclose(losses.approximate_kl(log_ratio), [0.30685282, 0.19314718, 0.0], rtol=1e-5)


def test_approximate_kl_keeps_its_digits_near_zero():
    log_ratio = np.array([1e-3, -1e-3, 1e-4])
    expected = log_ratio**2 / 2 + log_ratio**3 / 6  # Taylor; the next term is 1e-4 times smaller
    actual = losses.approximate_kl(jnp.asarray(log_ratio, jnp.float32))
    np.testing.assert_allclose(actual, expected, atol=2e-10)


def test_approximate_kl_averages_to_the_divergence():
    # Exact over all outcomes of two known distributions: Σ μ k3 = KL(μ ‖ π).
    behaviour, policy = np.array([0.5, 0.3, 0.2]), np.array([0.25, 0.25, 0.5])
    estimate = losses.approximate_kl(jnp.asarray(np.log(policy / behaviour), jnp.float32))
    np.testing.assert_allclose((behaviour * estimate).sum(), (behaviour * np.log(behaviour / policy)).sum(), rtol=1e-5)


def test_clip_fraction_worked_by_hand():
    log_ratio = jnp.log(jnp.array([0.5, 0.79, 0.81, 1.0, 1.19, 1.21, 5.0]))
    np.testing.assert_array_equal(losses.clip_fraction(log_ratio, 0.2), [1, 1, 0, 0, 0, 1, 1])


def test_value_losses_worked_by_hand():
    value, old, target = jnp.array([3.0, 3.0, 1.1, -1.0]), jnp.ones(4), jnp.array([2.0, 0.0, 2.0, 1.5])
    np.testing.assert_allclose(losses.value_loss(value, target), [0.5, 4.5, 0.405, 3.125], rtol=1e-6)
    # Limited to [0.5, 1.5]: 1.5, 1.5, 1.1, 0.5; errors 0.5, 1.5, 0.9, 1.0; the larger square of the two counts.
    np.testing.assert_allclose(losses.clipped_value_loss(value, old, target, 0.5), [0.5, 4.5, 0.405, 3.125], rtol=1e-6)
    leapt = losses.clipped_value_loss(jnp.array([2.0]), jnp.ones(1), jnp.array([2.0]), 0.5)
    np.testing.assert_allclose(leapt, [0.125], rtol=1e-6)  # it hit the target, but by a leap of 1 where 0.5 is allowed


def test_clipped_value_loss_rewards_no_leap():
    def loss(value):
        return losses.clipped_value_loss(value, jnp.float32(1.0), jnp.float32(5.0), 0.5)

    assert jax.grad(loss)(jnp.float32(1.2)) == pytest.approx(-3.8)
    assert jax.grad(loss)(jnp.float32(2.5)) == 0.0


def test_huber_worked_by_hand():
    """δ = 2: half the square up to 2, then 2 (|e| − 1); slopes e and ±2."""
    error = jnp.array([0.0, -1.0, 2.0, 3.0, -5.0])
    np.testing.assert_allclose(losses.huber(error, 2.0), [0.0, 0.5, 2.0, 4.0, 8.0], rtol=1e-6)
    slopes = jax.vmap(jax.grad(lambda e: losses.huber(e, 2.0)))(error)
    np.testing.assert_allclose(slopes, [0.0, -1.0, 2.0, 2.0, -2.0], rtol=1e-6)


def test_huber_value_losses_worked_by_hand():
    """δ = 1, errors 1, 3 and (limited to ±0.5 around 1) 0.5 from 1.5 and 1.5 from 1.5: the larger loss counts."""
    value, old, target = jnp.array([3.0, 3.0, 2.0]), jnp.ones(3), jnp.array([2.0, 0.0, 2.0])
    np.testing.assert_allclose(losses.value_loss(value, target, 1.0), [0.5, 2.5, 0.0], rtol=1e-6)
    np.testing.assert_allclose(losses.clipped_value_loss(value, old, target, 0.5, 1.0), [0.5, 2.5, 0.125], rtol=1e-6)
    far = losses.clipped_value_loss(jnp.array([1.1]), jnp.ones(1), jnp.array([5.0]), 0.5, 1.0)
    np.testing.assert_allclose(far, [3.4], rtol=1e-6)  # 1 · (3.9 − ½)


def test_explained_variance_against_numpy():
    prediction, target, *_ = draw(2)
    expected = 1.0 - np.var(target.astype(np.float64) - prediction) / np.var(target.astype(np.float64))
    np.testing.assert_allclose(
        losses.explained_variance(jnp.asarray(prediction), jnp.asarray(target)), expected, rtol=1e-5
    )
    assert losses.explained_variance(jnp.asarray(target), jnp.asarray(target)) == 1.0
    assert losses.explained_variance(jnp.full(SAMPLES, 3.0), jnp.asarray(target)) == pytest.approx(0.0, abs=1e-6)


def test_explained_variance_of_constant_targets_is_zero():
    assert losses.explained_variance(jnp.asarray(draw(2)[0]), jnp.full(SAMPLES, 2.5)) == 0.0


@hypothesis.given(hnp.arrays(np.float32, (5, 3), elements=st.floats(-100, 100, width=32)))
def test_normalize_advantages_against_numpy(advantage):
    hypothesis.assume(np.std(advantage.astype(np.float64)) > 1e-3)
    expected = (advantage - np.mean(advantage, dtype=np.float64)) / np.std(advantage.astype(np.float64))
    np.testing.assert_allclose(losses.normalize_advantages(jnp.asarray(advantage)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1.0, -123.456, 1e6])
def test_equal_advantages_become_zero(constant):
    normalised = losses.normalize_advantages(jnp.full(SAMPLES, constant, jnp.float32))
    np.testing.assert_allclose(normalised, np.zeros(SAMPLES), atol=1e-5)


def test_a_single_advantage_is_returned_as_it_is():
    np.testing.assert_array_equal(losses.normalize_advantages(jnp.array([[4.25]])), [[4.25]])


ELEMENTWISE = {
    "clipped_surrogate": lambda a, b, c, d: losses.clipped_surrogate(a, b, c, 0.2),
    "approximate_kl": lambda a, b, c, d: losses.approximate_kl(a),
    "clip_fraction": lambda a, b, c, d: losses.clip_fraction(a, 0.2),
    "value_loss": lambda a, b, c, d: losses.value_loss(a, b),
    "clipped_value_loss": lambda a, b, c, d: losses.clipped_value_loss(a, b, c, 0.2),
    "huber": lambda a, b, c, d: losses.huber(a, 0.7),
    "huber_value_loss": lambda a, b, c, d: losses.value_loss(a, b, 0.7),
}
REDUCING = {
    "explained_variance": lambda a, b, c, d: losses.explained_variance(a, b),
    "normalize_advantages": lambda a, b, c, d: losses.normalize_advantages(a),
}


@pytest.mark.parametrize("function", ELEMENTWISE.values(), ids=ELEMENTWISE.keys())
def test_elementwise_jit_and_batch_agree_with_one_sample_at_a_time(function):
    samples = jnp.asarray(draw(3))
    expected = [function(*samples[:, i]) for i in range(SAMPLES)]
    np.testing.assert_allclose(function(*samples), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.jit(function)(*samples), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("function", REDUCING.values(), ids=REDUCING.keys())
def test_reducing_jit_and_batch_agree_with_one_batch_at_a_time(function):
    batches = [jnp.asarray(draw(seed)) for seed in range(3)]
    expected = [function(*batch) for batch in batches]
    np.testing.assert_allclose(jax.jit(jax.vmap(function))(*jnp.stack(batches, axis=1)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("function", [*ELEMENTWISE.values(), *REDUCING.values()], ids=[*ELEMENTWISE, *REDUCING])
def test_gradients_are_finite(function):
    samples = draw(4)
    for rows in (samples, np.zeros_like(samples), samples * 30.0):
        gradients = jax.grad(lambda *rows: function(*rows).sum(), argnums=(0, 1, 2))(*jnp.asarray(rows))
        assert np.isfinite(gradients).all()
