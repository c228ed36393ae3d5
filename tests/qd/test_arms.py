"""Arms as genotypes: their bounds, and that random ones fill the interval of total lengths evenly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxrl_engine.core.qd_config import Bounds
from jaxrl_engine.qd.arms import Arms, _random_arm, mask, random_arms, total_length

BOUNDS = Bounds(min_links=3, max_links=7, min_length=0.1, max_length=0.3, thickness=(0.5, 2.0), gear=(1.0, 3.0))


@pytest.fixture(scope="module")
def arms():
    return jax.tree.map(np.asarray, jax.jit(random_arms, static_argnums=(1, 2))(jax.random.key(11), BOUNDS, 20_011))


def test_silent_genes_are_not_counted():
    arms = Arms(
        lengths=jnp.array([[0.25, 0.5, 0.125, 8.0, 8.0], [0.5, 0.25, 1.0, 0.125, 4.0]]),
        count=jnp.array([3, 2]), thickness=jnp.ones(2), gear=jnp.ones(2),
    )  # fmt: skip
    assert mask(arms).astype(int).tolist() == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]]
    assert total_length(arms).tolist() == [0.875, 0.75]
    assert total_length(jax.tree.map(lambda leaf: leaf[1], arms)) == 0.75


def test_random_arms_are_within_bounds(arms):
    assert arms.lengths.shape == (20_011, 7)
    for values, (low, high) in ((arms.lengths, (0.1, 0.3)), (arms.thickness, (0.5, 2.0)), (arms.gear, (1.0, 3.0))):
        assert values.min() >= np.float32(low) and values.max() <= np.float32(high)
    assert arms.count.min() == 3 and arms.count.max() == 7


def test_links_and_total_length_are_uniform(arms):
    assert scipy.stats.chisquare(np.bincount(arms.count)[3:]).pvalue > 1e-3
    totals = np.asarray(total_length(arms))
    for count in range(3, 8):
        share = (totals[arms.count == count] / count - 0.1) / 0.2
        assert scipy.stats.kstest(np.clip(share, 0.0, 1.0), "uniform").pvalue > 1e-3, count
    for values, (low, high) in ((arms.thickness, (0.5, 2.0)), (arms.gear, (1.0, 3.0))):
        assert scipy.stats.kstest((values - low) / (high - low), "uniform").pvalue > 1e-3


def test_deviations_from_equal_links_cancel():
    """The total is what was drawn for it, the first of an arm's continuous numbers."""
    keys = jax.random.split(jax.random.key(13), 101)
    made = jax.jit(jax.vmap(lambda key: _random_arm(key, BOUNDS)))(keys)
    share = np.array([jax.random.uniform(jax.random.split(key)[1], (4 + 2 * 7,))[0] for key in keys])
    np.testing.assert_allclose(total_length(made), np.asarray(made.count) * (0.1 + 0.2 * share), rtol=1e-5)


def test_arms_range_from_equal_links_to_one_that_differs_most(arms):
    """Longest less shortest link of an arm, as a share of the range: from next to nothing to all of it."""
    lengths = np.where(np.asarray(mask(arms)), arms.lengths, np.nan)
    spread = (np.nanmax(lengths, axis=1) - np.nanmin(lengths, axis=1)) / 0.2
    assert np.quantile(spread, 0.1) < 0.15 and np.quantile(spread, 0.9) > 0.5 and spread.max() > 0.97


def test_every_link_is_drawn_alike_and_silent_genes_are_uniform(arms):
    of_five = arms.lengths[arms.count == 5]
    assert scipy.stats.ks_2samp(of_five[:, 0], of_five[:, 4]).pvalue > 1e-3
    assert scipy.stats.kstest((of_five[:, 6] - 0.1) / 0.2, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(of_five[:, 6], of_five[:, 0])[0, 1]) < 0.1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("min_links", 1), ("min_links", 9), ("max_links", 2), ("max_links", 9),
        ("min_length", 0.0), ("min_length", float("nan")), ("max_length", 0.1), ("max_length", float("inf")),
        ("thickness", (2.0, 1.0)), ("thickness", (0.0, 1.0)), ("gear", (float("inf"), 2.0)), ("gear", (-1.0, 1.0)),
    ],
)  # fmt: skip
def test_bounds_that_cannot_be_are_refused(field, value):
    with pytest.raises(ValueError, match=f"^{field} must be"):
        Bounds(**{"min_links": 3, field: value})
