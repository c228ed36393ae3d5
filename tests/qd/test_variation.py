"""Variation: the moments of iso+line, bounds, links that change by one, and where immigrants stand."""

import dataclasses

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxrl_engine.core.qd_config import Bounds, Variation
from jaxrl_engine.qd import repertoire as archive, variation as qd
from jaxrl_engine.qd.arms import Arms, random_arms, total_length
from jaxrl_engine.qd.descriptors import describe, make_grid

BOUNDS = Bounds(min_links=3, max_links=7, min_length=0.1, max_length=0.3, thickness=(0.5, 2.0), gear=(1.0, 1.0))
NAMES = ("links", "length")
vary = jax.jit(qd.vary, static_argnums=(3, 4))
offspring = jax.jit(qd.offspring, static_argnums=(2, 3, 4))
random = jax.jit(random_arms, static_argnums=(1, 2))


# --- Gaussian numbers and iso+line ----------------------------------------------------------------------------------


def test_numbers_are_standard_normal(key):
    drawn = np.asarray(qd.gaussian(key, (211, 401)))
    assert scipy.stats.kstest(drawn.ravel(), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(drawn.ravel()[1:], drawn.ravel()[:-1])[0, 1]) < 0.015
    half = drawn.size // 2
    assert abs(np.corrcoef(drawn.ravel()[:half], drawn.ravel()[half : 2 * half])[0, 1]) < 0.025  # halves of a word
    quantiles = (np.array([0, 777, 65535]) + 0.5) / 65536
    np.testing.assert_allclose(qd._normal_quantiles()[[0, 777, 65535]], scipy.stats.norm.ppf(quantiles), rtol=1e-6)


def test_iso_line_has_the_moments_of_the_paper(key):
    """Around a with variance iso² + (line (b − a))² per gene; two genes covary by line² (b − a)(b − a)'."""
    a, b = jnp.array([0.0, 1.0, -2.0]), jnp.array([1.0, -1.0, -2.0])
    one = jax.vmap(lambda key: qd.iso_line(key, a, b, 0.3, 0.5))(jax.random.split(key, 40_009))
    way = np.asarray(b - a, np.float64)
    expected = 0.3**2 * np.eye(3) + 0.5**2 * np.outer(way, way)
    np.testing.assert_allclose(np.mean(one, axis=0), a, atol=0.02)
    np.testing.assert_allclose(np.cov(np.asarray(one).T), expected, atol=0.03)
    flat = qd.iso_line(key, jnp.tile(a, (40_009, 1)), jnp.tile(b, (40_009, 1)), 0.3, 0.5)
    np.testing.assert_allclose(np.cov(np.asarray(flat).T), expected, atol=0.03)


def test_without_a_line_the_second_parent_does_not_matter(key):
    a, b = jnp.zeros((5, 3)), jnp.full((5, 3), 100.0)
    np.testing.assert_array_equal(qd.iso_line(key, a, b, 0.3, 0.0), qd.iso_line(key, a, a, 0.3, 0.7))


def test_a_batch_is_each_alone(key):
    noise, a, b = (jax.random.normal(k, (5, n)) for k, n in zip(jax.random.split(key, 3), (4, 3, 3), strict=True))
    alone = [qd.along_line(noise[i], a[i], b[i], 0.3, 0.7) for i in range(5)]
    np.testing.assert_allclose(qd.along_line(noise, a, b, 0.3, 0.7), alone, rtol=1e-6)
    expected = np.asarray(a) + 0.3 * np.asarray(noise)[:, :3] + 0.7 * np.asarray(noise)[:, 3:] * np.asarray(b - a)
    np.testing.assert_allclose(alone, expected, rtol=1e-4, atol=1e-6)


# --- children -------------------------------------------------------------------------------------------------------


@hypothesis.given(st.integers(0, 2**31 - 1), st.sampled_from([(0.0, 1.0), (0.02, 0.3), (1.0, 0.0)]))
def test_children_stay_within_bounds_and_links_change_by_one_at_most(seed, setting):
    sigma, link_rate = setting
    keys = jax.random.split(jax.random.key(seed), 3)
    first, second = (random(key, BOUNDS, 31) for key in keys[:2])
    child = vary(keys[2], first, second, Variation(iso_sigma=sigma, line_sigma=sigma, link_rate=link_rate), BOUNDS)
    for values, (low, high) in ((child.lengths, (0.1, 0.3)), (child.thickness, (0.5, 2.0)), (child.gear, (1.0, 1.0))):
        assert np.all((values >= np.float32(low)) & (values <= np.float32(high)))
    assert np.all((child.count >= 3) & (child.count <= 7))
    change = np.asarray(child.count - first.count)
    assert np.all(np.abs(change) <= 1)
    inner = (np.asarray(first.count) > 3) & (np.asarray(first.count) < 7)
    assert link_rate < 1.0 or np.all(np.abs(change[inner]) == 1)
    assert link_rate > 0.0 or not change.any()
    if sigma == 0.0:
        np.testing.assert_allclose(child.lengths, first.lengths, rtol=1e-5)


def equal_arms(count, lengths, number):
    ones = jnp.ones(number)
    return Arms(
        lengths=jnp.tile(jnp.asarray(lengths), (number, 1)), count=jnp.full(number, count), thickness=ones, gear=ones
    )


def test_links_come_and_go_as_often(key):
    """Of 20,011 children of arms of 5 links, 15 % each; at the bound only the way back is open."""
    settings = Variation(link_rate=0.3)
    for count, expected in ((5, [0.15, 0.7, 0.15]), (7, [0.15, 0.85, 0.0]), (3, [0.0, 0.85, 0.15])):
        parents = equal_arms(count, [0.2] * 7, 20_011)
        change = np.asarray(vary(key, parents, parents, settings, BOUNDS).count) - count
        np.testing.assert_allclose([np.mean(change == step) for step in (-1, 0, 1)], expected, atol=0.01)


def test_sigmas_are_shares_of_the_range_and_silent_genes_vary_too(key):
    """In the middle of [0.1, 0.3] m: 0.05 of the range is 0.01 m, of thickness 0.075; parents are 0.02 m apart."""
    first, second = equal_arms(3, [0.2] * 7, 20_011), equal_arms(3, [0.22] * 7, 20_011)
    plain = vary(key, first, second, Variation(iso_sigma=0.05, line_sigma=0.0), BOUNDS)
    np.testing.assert_allclose(np.std(plain.lengths, axis=0), [0.01] * 7, rtol=0.03)
    np.testing.assert_allclose(np.std(plain.thickness), 0.075, rtol=0.03)
    np.testing.assert_allclose(np.mean(plain.lengths, axis=0), [0.2] * 7, atol=5e-4)
    line = np.asarray(vary(key, first, second, Variation(iso_sigma=0.0, line_sigma=0.5), BOUNDS).lengths)
    np.testing.assert_allclose(np.std(line, axis=0), [0.01] * 7, rtol=0.03)
    np.testing.assert_allclose(line[:, 0], line[:, 6], rtol=1e-5)  # one number for the whole line


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Variation)])
@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
def test_settings_that_cannot_be_are_refused(field, value):
    with pytest.raises(ValueError, match=f"^{field} must be"):
        Variation(**{field: value})


# --- offspring ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_elites():
    """Arms of 3 and of 5 links, all of whose links are 0.25 m."""
    elites = Arms(lengths=jnp.full((2, 7), 0.25), count=jnp.array([3, 5]), thickness=jnp.ones(2), gear=jnp.ones(2))
    grid = make_grid(NAMES, (5, 11), BOUNDS)
    candidates = archive.Candidates(
        genotypes=elites, fitness=jnp.array([1.0, 2.0]), policy_version=jnp.int32(0),
        descriptors=jax.vmap(lambda arm: describe(NAMES, arm))(elites),
    )  # fmt: skip
    state, status = archive.insert(archive.empty(grid, jax.tree.map(lambda leaf: leaf[0], elites)), candidates, 0)
    assert status.tolist() == [2, 2]
    return state


def test_the_last_share_of_offspring_are_immigrants(two_elites, key):
    still = Variation(iso_sigma=0.0, line_sigma=0.0, link_rate=0.0, immigrants=0.3)
    arms = offspring(key, two_elites, still, BOUNDS, 7001)
    is_child = np.all(np.isclose(arms.lengths, 0.25), axis=1)
    assert is_child[:4901].all() and not is_child[4901:].any()  # 7001 − round(2100.3)
    counts = np.bincount(np.asarray(arms.count)[:4901], minlength=8)
    assert counts[[3, 5]].sum() == 4901 and scipy.stats.chisquare(counts[[3, 5]]).pvalue > 1e-3
    share = (np.asarray(total_length(arms)) / np.asarray(arms.count) - 0.1)[4901:] / 0.2
    assert scipy.stats.kstest(np.clip(share, 0.0, 1.0), "uniform").pvalue > 1e-3
    assert scipy.stats.chisquare(np.bincount(np.asarray(arms.count)[4901:])[3:]).pvalue > 1e-3


def test_without_elites_all_are_immigrants(two_elites, key):
    nobody = archive.empty(two_elites.cells, jax.tree.map(lambda leaf: leaf[0], two_elites.genotypes))
    still = Variation(iso_sigma=0.0, line_sigma=0.0, link_rate=0.0, immigrants=0.0)
    arms = offspring(key, nobody, still, BOUNDS, 2003)
    share = (np.asarray(total_length(arms)) / np.asarray(arms.count) - 0.1) / 0.2
    assert scipy.stats.kstest(np.clip(share, 0.0, 1.0), "uniform").pvalue > 1e-3
    assert np.all(np.isclose(offspring(key, two_elites, still, BOUNDS, 2003).lengths, 0.25))


def test_parents_are_paired_at_random(two_elites, key):
    """Along the line between arms of different thickness a child leaves its parent only if the other one differs."""
    genes = two_elites.genotypes
    thickness = jnp.where(genes.count == 5, 2.0, 0.5)
    state = two_elites.replace(genotypes=genes.replace(thickness=thickness))
    settings = Variation(iso_sigma=0.0, line_sigma=0.3, link_rate=0.0, immigrants=0.0)
    arms = jax.tree.map(np.asarray, offspring(key, state, settings, BOUNDS, 4001))
    own = np.where(arms.count == 5, 2.0, 0.5)
    moved = np.mean(~np.isclose(arms.thickness, own))
    assert 0.22 < moved < 0.28  # half have two kinds of parents, and half of those are clipped back onto the bound


def test_jit_changes_nothing(two_elites, key):
    parents, settings = two_elites.genotypes, Variation()
    plain, compiled = (run(key, parents, parents, settings, BOUNDS) for run in (qd.vary, vary))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), plain, compiled)
