"""Distributions against scipy, numerical integration and counted samples."""

import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from jaxrl_engine.ops import distributions
from jaxrl_engine.ops.distributions import Categorical, DiagonalGaussian, Distribution, MultiDiscrete, TanhGaussian

BATCH, AGENTS, CHOICES, SIZE = 5, 3, 7, 2
NVEC = (2, 3, 5)
DRAWS = 20_000


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def random_mask(seed, *shape):
    mask = np.random.default_rng(seed).random(shape) < 0.5
    mask[..., 0] |= ~mask.any(axis=-1)
    return mask


def make(family, seed=0, batch=(BATCH, AGENTS)):
    """One distribution of each kind with random parameters and the leading axes asked for."""
    if family == "categorical":
        return Categorical(logits=jnp.asarray(normal(seed, *batch, CHOICES)) * 2.0)
    if family == "masked":
        mask = jnp.asarray(random_mask(seed, *batch, CHOICES))
        return Categorical(logits=jnp.asarray(normal(seed, *batch, CHOICES)) * 2.0, mask=mask)
    if family == "multi":
        mask = np.concatenate([random_mask(seed + i, *batch, n) for i, n in enumerate(NVEC)], axis=-1)
        return MultiDiscrete(logits=jnp.asarray(normal(seed, *batch, sum(NVEC))), mask=jnp.asarray(mask), nvec=NVEC)
    mean, log_std = jnp.asarray(normal(seed, *batch, SIZE)), jnp.asarray(normal(seed + 1, *batch, SIZE)) * 0.5
    mask = jnp.asarray(random_mask(seed, *batch, SIZE)) if family in ("padded", "padded tanh") else None
    if family in ("gaussian", "padded"):
        return DiagonalGaussian(mean=mean, log_std=log_std, mask=mask)
    return TanhGaussian(mean=mean, log_std=log_std, mask=mask, low=(-2.0, 0.5), high=(1.0, 3.0))


GAUSSIANS = ["gaussian", "tanh", "padded", "padded tanh"]
FAMILIES = ["categorical", "masked", "multi", *GAUSSIANS]
all_families = pytest.mark.parametrize("family", FAMILIES)


def probabilities(logits, mask=None):
    logits = np.asarray(logits, np.float64)
    return scipy.special.softmax(logits if mask is None else np.where(mask, logits, -np.inf), axis=-1)


# --- every family ---------------------------------------------------------------------------------------------------


@all_families
def test_protocol_and_shapes(family, key):
    distribution = make(family)
    action = distribution.sample(key)
    event = {"multi": (len(NVEC),)}.get(family, (SIZE,) if family in GAUSSIANS else ())
    assert isinstance(distribution, Distribution)
    assert action.shape == distribution.mode().shape == (BATCH, AGENTS, *event)
    assert action.dtype == distribution.mode().dtype == (jnp.float32 if family in GAUSSIANS else jnp.int32)
    assert distribution.log_prob(action).shape == distribution.entropy(key).shape == (BATCH, AGENTS)


@all_families
def test_jit_and_batch_agree_with_one_at_a_time(family, key):
    distribution = make(family)
    action = distribution.sample(key)
    np.testing.assert_allclose(jax.jit(lambda d: d.sample(key))(distribution), action, rtol=1e-5)
    for batched in (distribution.log_prob(action), jax.jit(lambda d, a: d.log_prob(a))(distribution, action)):
        for index in np.ndindex(BATCH, AGENTS):
            one = jax.tree.map(lambda leaf, index=index: leaf[index], distribution)
            np.testing.assert_allclose(batched[index], one.log_prob(action[index]), rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(distribution.mode()[index], one.mode())
    by_vmap = jax.vmap(jax.vmap(lambda d, a: d.log_prob(a)))(distribution, action)
    np.testing.assert_allclose(by_vmap, distribution.log_prob(action), rtol=1e-5, atol=1e-5)
    if "tanh" not in family:  # the estimate draws differently for other batch shapes
        by_vmap = jax.jit(jax.vmap(jax.vmap(lambda d: d.entropy())))(distribution)
        np.testing.assert_allclose(by_vmap, distribution.entropy(), rtol=1e-5, atol=1e-5)


@all_families
def test_the_key_decides_the_sample(family):
    distribution = make(family)
    first, second = jax.random.split(jax.random.key(3))
    np.testing.assert_array_equal(distribution.sample(first), distribution.sample(first))
    assert (distribution.sample(first) != distribution.sample(second)).any()


@all_families
def test_elements_of_a_batch_are_drawn_independently(family, key):
    alike = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[0, 0], (31, *leaf.shape[2:])), make(family))
    assert len(np.unique(np.asarray(alike.sample(key)), axis=0)) > 1


@all_families
@pytest.mark.parametrize("scale", [0.0, 1.0, 300.0])
def test_gradients_are_finite(family, scale, key):
    distribution = make(family)
    limit = 10.0 if family in GAUSSIANS else 300.0
    fields = {name: leaf for name, leaf in vars(distribution).items() if name in ("logits", "mean", "log_std")}
    fields = {name: jnp.clip(leaf * scale, -limit, limit) for name, leaf in fields.items()}
    action = distribution.replace(**fields).sample(key)

    def score(fields):
        changed = distribution.replace(**fields)
        return changed.log_prob(action).sum() + changed.entropy(key).sum()

    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.jit(jax.grad(score))(fields)))


# --- choices --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["categorical", "masked"])
def test_categorical_against_scipy(family):
    distribution = make(family)
    expected = probabilities(distribution.logits, distribution.mask)
    np.testing.assert_allclose(distribution.entropy(), scipy.stats.entropy(expected, axis=-1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(distribution.mode(), expected.argmax(axis=-1))
    for choice in range(CHOICES):
        action = jnp.full((BATCH, AGENTS), choice)
        np.testing.assert_allclose(np.exp(distribution.log_prob(action)), expected[..., choice], rtol=1e-5, atol=1e-7)


def test_multi_discrete_is_independent_categoricals():
    distribution = make("multi")
    spans = [slice(start, stop) for start, stop in itertools.pairwise(np.cumsum((0, *NVEC)))]
    parts = [probabilities(distribution.logits[..., span], distribution.mask[..., span]) for span in spans]
    entropy = sum(scipy.stats.entropy(part, axis=-1) for part in parts)
    np.testing.assert_allclose(distribution.entropy(), entropy, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(distribution.mode(), np.stack([part.argmax(axis=-1) for part in parts], axis=-1))
    action = distribution.sample(jax.random.key(1))
    expected = sum(
        np.log(np.take_along_axis(part, np.asarray(action)[..., i, None], axis=-1))[..., 0]
        for i, part in enumerate(parts)
    )
    np.testing.assert_allclose(distribution.log_prob(action), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("family", ["categorical", "masked"])
def test_categorical_sample_frequencies(family, seed):
    one = make(family, seed=seed, batch=())
    many = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (DRAWS, CHOICES)), one)
    counts = np.bincount(many.sample(jax.random.key(seed)), minlength=CHOICES)
    expected = probabilities(one.logits, one.mask) * DRAWS
    possible = expected > 0
    assert counts[~possible].sum() == 0
    if possible.sum() > 1:
        assert scipy.stats.chisquare(counts[possible], expected[possible]).pvalue > 1e-4


def test_multi_discrete_sample_frequencies_and_independence():
    logits = jnp.broadcast_to(jnp.asarray(normal(5, sum(NVEC))), (DRAWS, sum(NVEC)))
    action = np.asarray(MultiDiscrete(logits=logits, nvec=NVEC).sample(jax.random.key(5)))
    parts = [probabilities(np.split(logits[0], np.cumsum(NVEC)[:-1])[i]) for i in range(len(NVEC))]
    counts = np.bincount(np.ravel_multi_index(action.T, NVEC), minlength=int(np.prod(NVEC)))
    joint = np.einsum("i,j,k->ijk", *parts).ravel()
    assert scipy.stats.chisquare(counts, joint * DRAWS).pvalue > 1e-4


EXTREME_UNIFORMS = [0.0, 1e-45, 2.0**-24, 0.5, 1.0 - 2.0**-23, float(np.nextafter(np.float32(1), np.float32(0)))]


@hypothesis.given(
    st.sampled_from([1, 2, 3, 18, 257]),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1e-3, 1.0, 8.0, 1e3]),
    st.sampled_from([0.02, 0.5, 0.95]),
)
def test_no_uniform_number_draws_a_masked_choice(size, seed, scale, density):
    rng = np.random.default_rng(seed)
    mask = rng.random(size) < density
    mask[rng.integers(size)] = True
    logits = jnp.asarray(rng.normal(size=size) * scale, jnp.float32)
    allowed = Categorical(logits=logits, mask=jnp.asarray(mask))._allowed_logits
    uniforms = np.concatenate([EXTREME_UNIFORMS, rng.random(61)]).astype(np.float32)
    drawn = distributions._invert(jnp.broadcast_to(allowed, (len(uniforms), size)), jnp.asarray(uniforms))
    assert mask[np.asarray(drawn)].all()


def test_rounding_of_the_cumulative_sum_draws_no_masked_choice():
    # With a thousand choices the sums are made in blocks and rise by a rounding even where the weight is 0. Aim there.
    rows, size = 211, 1000
    rng = np.random.default_rng(0)
    mask = rng.random((rows, size)) < 0.5
    mask[:, -3:] = False
    logits = jnp.where(
        jnp.asarray(mask), jnp.asarray(rng.normal(size=(rows, size)), jnp.float32), distributions.FORBIDDEN
    )
    sums = np.asarray(jnp.cumsum(jnp.exp(logits - logits.max(axis=-1, keepdims=True)), axis=-1))
    rises = (np.diff(sums, axis=-1) > 0) & ~mask[:, 1:]
    assert rises.any(axis=-1).mean() > 0.5, "this backend sums without rounding; aim differently"
    below = np.take_along_axis(sums, rises.argmax(axis=-1)[:, None], axis=-1)[:, 0]
    for uniform in (below / sums[:, -1], below / sums.max(axis=-1), np.full(rows, np.nextafter(np.float32(1), 0))):
        drawn = np.asarray(distributions._invert(logits, jnp.asarray(uniform, jnp.float32)))
        assert mask[np.arange(rows), drawn].all()


def test_inversion_finds_the_choice_that_holds_the_uniform_number():
    weights = np.array([0.5, 0.0, 0.25, 0.0, 0.25])
    logits = jnp.where(weights > 0, jnp.log(jnp.asarray(weights, jnp.float32)), distributions.FORBIDDEN)
    uniform = jnp.array([0.0, 0.49, 0.51, 0.74, 0.76, 0.999])
    drawn = distributions._invert(jnp.broadcast_to(logits, (6, 5)), uniform)
    np.testing.assert_array_equal(drawn, [0, 0, 2, 2, 4, 4])


def test_a_row_without_choice_is_uniform_and_passes_no_gradient():
    mask = jnp.zeros((DRAWS, 3), bool)
    distribution = Categorical(logits=jnp.broadcast_to(jnp.array([5.0, 0.0, -5.0]), (DRAWS, 3)), mask=mask)
    counts = np.bincount(distribution.sample(jax.random.key(0)), minlength=3)
    assert scipy.stats.chisquare(counts).pvalue > 1e-4
    np.testing.assert_allclose(distribution.log_prob(distribution.mode()), np.full(DRAWS, -np.log(3.0)), rtol=1e-6)
    assert (distribution.mode() == 0).all()
    assert (distribution.entropy() == 0.0).all()
    gradient = jax.grad(lambda logits: Categorical(logits=logits, mask=mask).log_prob(distribution.mode()).sum())
    assert (gradient(distribution.logits) == 0.0).all()


def test_masked_logits_get_no_gradient_even_where_they_are_infinite():
    logits, mask = jnp.array([1.0, jnp.inf, -2.0, jnp.nan]), jnp.array([True, False, True, False])

    def score(logits):
        distribution = Categorical(logits=logits, mask=mask)
        return distribution.log_prob(jnp.int32(0)) + 0.3 * distribution.entropy()

    gradient = jax.grad(score)(logits)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[jnp.array([1, 3])], [0.0, 0.0])
    assert gradient[0] != 0.0


# --- Gaussians ------------------------------------------------------------------------------------------------------


def test_gaussian_against_scipy():
    distribution, action = make("gaussian"), normal(9, BATCH, AGENTS, SIZE)
    reference = scipy.stats.norm(np.float64(distribution.mean), np.exp(np.float64(distribution.log_std)))
    log_prob = reference.logpdf(action).sum(axis=-1)
    np.testing.assert_allclose(distribution.log_prob(jnp.asarray(action)), log_prob, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(distribution.entropy(), reference.entropy().sum(axis=-1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(distribution.mode(), distribution.mean)


def five_of_seven(family=DiagonalGaussian, garbage=0.0, **fields):
    """A Gaussian of seven dimensions, two of which are not there and hold garbage; and which are."""
    there = np.array([True, False, True, True, True, False, True])
    mean, log_std = (np.where(there, normal(seed, 7), garbage).astype(np.float32) for seed in (3, 4))
    return family(mean=jnp.asarray(mean), log_std=jnp.asarray(log_std), mask=jnp.asarray(there), **fields), there


@pytest.mark.parametrize("garbage", [0.0, 7.0, np.inf, np.nan])
def test_a_masked_gaussian_is_that_of_the_dimensions_that_are_there(garbage, key):
    distribution, there = five_of_seven(garbage=garbage)
    mean, deviation = (np.float64(leaf)[there] for leaf in (distribution.mean, np.exp(distribution.log_std)))
    reference = scipy.stats.multivariate_normal(mean, np.diag(deviation**2))
    action = np.where(there, normal(9, 7), np.float32(garbage))
    assert float(distribution.log_prob(jnp.asarray(action))) == pytest.approx(reference.logpdf(action[there]), rel=1e-5)
    assert float(distribution.entropy()) == pytest.approx(reference.entropy(), rel=1e-5)
    np.testing.assert_array_equal(distribution.mode(), np.where(there, distribution.mean, 0))
    noise = normal(10, 7)
    drawn = np.asarray(distribution.sample_from(jnp.asarray(noise)))
    assert not drawn[~there].any()
    np.testing.assert_allclose(drawn[there], mean + deviation * noise[there], rtol=1e-5)
    assert ((np.asarray(distribution.sample(key)) != 0) == there).all()


@pytest.mark.parametrize("garbage", [7.0, np.inf, np.nan])
def test_a_masked_tanh_gaussian_is_that_of_the_dimensions_that_are_there(garbage, key):
    low, high = np.arange(-7.0, 0.0), np.arange(1.0, 8.0)
    distribution, there = five_of_seven(TanhGaussian, garbage, low=tuple(low), high=tuple(high))
    parts = {name: jnp.asarray(getattr(distribution, name)[there]) for name in ("mean", "log_std")}
    short = TanhGaussian(**parts, low=tuple(low[there]), high=tuple(high[there]))
    action = np.where(there, normal(9, 7), np.float32(garbage))
    expected = short.log_prob(jnp.asarray(action[there]))
    np.testing.assert_allclose(distribution.log_prob(jnp.asarray(action)), expected, rtol=1e-5)
    raw = np.asarray(distribution.sample(key), np.float64)
    slope = np.log((high - low) / 2.0) - 2.0 * np.log(np.cosh(raw))
    gaussian = scipy.stats.norm(0.0, np.exp(np.float64(parts["log_std"]))).entropy().sum()
    assert float(distribution.entropy(key)) == pytest.approx(gaussian + slope[there].sum(), rel=1e-4)


@pytest.mark.parametrize("family", [DiagonalGaussian, TanhGaussian])
@pytest.mark.parametrize("garbage", [7.0, np.inf, np.nan])
def test_no_gradient_passes_where_a_gaussian_is_not(family, garbage, key):
    distribution, there = five_of_seven(family, garbage)
    action = jnp.asarray(np.where(there, normal(9, 7), np.float32(garbage)))

    def score(mean, log_std, action):
        law = distribution.replace(mean=mean, log_std=log_std)
        return law.log_prob(action) + 0.3 * law.entropy(key) + law.sample(key).sum() + law.mode().sum()

    gradients = jax.grad(score, argnums=(0, 1, 2))(distribution.mean, distribution.log_std, action)
    for gradient in map(np.asarray, gradients):
        assert np.isfinite(gradient).all() and ((gradient != 0) == there).all()


@pytest.mark.parametrize("family", [DiagonalGaussian, TanhGaussian])
def test_gaussian_samples_follow_the_normal_law(family):
    mean, log_std = jnp.array([1.5, -0.5]), jnp.array([0.7, -1.0])
    many = family(mean=jnp.broadcast_to(mean, (DRAWS, 2)), log_std=jnp.broadcast_to(log_std, (DRAWS, 2)))
    action = np.asarray(many.sample(jax.random.key(2)))
    for i in range(2):
        assert scipy.stats.kstest(action[:, i], "norm", (mean[i], np.exp(log_std[i]))).pvalue > 1e-4
    assert abs(np.corrcoef(action.T)[0, 1]) < 0.03


BOUNDS = [((-1.0,), (1.0,)), ((-3.0,), (0.5,))]


@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_tanh_log_prob_is_the_change_of_variables(low, high):
    # p(y) = N(x) / |dy/dx| with the slope of the squashing taken numerically in float64.
    raw = np.linspace(-4.0, 4.0, 41)
    distribution = TanhGaussian(mean=jnp.full((41, 1), 0.3), log_std=jnp.full((41, 1), -0.2), low=low, high=high)

    def squash(x):
        return low[0] + (high[0] - low[0]) * (1.0 + np.tanh(x)) / 2.0

    slope = (squash(raw + 1e-5) - squash(raw - 1e-5)) / 2e-5
    expected = scipy.stats.norm(0.3, np.exp(-0.2)).logpdf(raw) - np.log(slope)
    device_raw = jnp.asarray(raw[:, None], jnp.float32)
    np.testing.assert_allclose(distribution.log_prob(device_raw), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(distribution.squash(device_raw)[:, 0], squash(raw), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_tanh_density_integrates_to_one_over_the_box(low, high):
    squashed = np.linspace(low[0], high[0], 20_001)[1:-1]
    raw = np.arctanh(2.0 * (squashed - low[0]) / (high[0] - low[0]) - 1.0)[:, None]
    shape = raw.shape
    distribution = TanhGaussian(mean=jnp.full(shape, 0.4), log_std=jnp.full(shape, -0.5), low=low, high=high)
    density = np.exp(distribution.log_prob(jnp.asarray(raw, jnp.float32)))
    np.testing.assert_allclose(np.trapezoid(density, squashed), 1.0, rtol=1e-3)


def test_tanh_log_prob_is_exact_where_tanh_has_rounded_to_one():
    raw = np.array([[9.0], [20.0], [-50.0]])
    distribution = TanhGaussian(mean=jnp.zeros((3, 1)), log_std=jnp.full((3, 1), 2.0))
    slope = 2.0 * (np.log(2.0) - np.abs(raw))  # log sech² x, whose next term e^(−2|x|) is below 1e-7
    expected = scipy.stats.norm(0.0, np.exp(2.0)).logpdf(raw) - slope
    np.testing.assert_allclose(distribution.log_prob(jnp.asarray(raw, jnp.float32)), expected[:, 0], rtol=1e-6)


def test_tanh_entropy_estimate_averages_to_the_integral():
    low, high, mean, deviation = -2.0, 1.0, 0.3, 0.8
    raw = np.linspace(mean - 9 * deviation, mean + 9 * deviation, 20_001)
    weight = scipy.stats.norm(mean, deviation).pdf(raw)
    slope = np.log((high - low) / 2.0) - 2.0 * np.log(np.cosh(raw))
    expected = scipy.stats.norm(mean, deviation).entropy() + np.trapezoid(weight * slope, raw)
    shape = (DRAWS, 1)
    many = TanhGaussian(
        mean=jnp.full(shape, mean), log_std=jnp.full(shape, np.log(deviation), jnp.float32), low=low, high=high
    )
    estimate = np.asarray(many.entropy(jax.random.key(4)), np.float64)
    assert abs(estimate.mean() - expected) < 4.0 * estimate.std() / np.sqrt(DRAWS)
    assert estimate.std() > 0.1


def test_squash_never_leaves_the_box():
    low, high = (-0.1, 1.0, -3.3), (0.7, 1.1, 1e3)
    raw = jnp.asarray(
        np.array([[-1e30], [-100.0], [-9.0], [0.0], [9.0], [100.0], [1e30]]) * np.ones((1, 3)), jnp.float32
    )
    distribution = TanhGaussian(mean=jnp.zeros((7, 3)), log_std=jnp.zeros((7, 3)), low=low, high=high)
    squashed = np.asarray(distribution.squash(raw))
    assert (squashed >= np.float32(low)).all()
    assert (squashed <= np.float32(high)).all()
    np.testing.assert_array_equal(squashed[[0, -1]], np.float32([low, high]))


@pytest.mark.parametrize(("low", "high"), [(-np.inf, 1.0), ((0.0, 0.0), (1.0, 0.0)), (1.0, -1.0)])
def test_bounds_that_make_no_box_are_refused(low, high):
    with pytest.raises(ValueError, match="finite with low < high"):
        TanhGaussian(mean=jnp.zeros(2), log_std=jnp.zeros(2), low=low, high=high)
