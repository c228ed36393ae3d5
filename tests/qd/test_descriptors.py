"""Descriptors against numbers worked by hand and a Monte-Carlo of tips; feasibility against brute force."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.core.qd_config import Bounds
from jaxrl_engine.qd import cells, descriptors as qd
from jaxrl_engine.qd.arms import Arms

NAMES = ("links", "length", "area", "asymmetry")
BOUNDS = Bounds(min_links=2, max_links=5, min_length=0.1, max_length=0.25)


def arm(*lengths, slots=7):
    """An arm of these links; its silent genes are large, so that none is read in vain."""
    genes = jnp.asarray([*lengths, *[9.0] * (slots - len(lengths))])
    return Arms(lengths=genes, count=jnp.int32(len(lengths)), thickness=jnp.float32(1.0), gear=jnp.float32(1.0))


describe = jax.jit(qd.describe, static_argnums=0)


@pytest.mark.parametrize(
    ("lengths", "area", "asymmetry"),
    [
        ((0.5, 0.5), np.pi, 0.5),
        ((0.5, 0.25), np.pi * (0.75**2 - 0.25**2), 2 / 3),
        ((0.25, 0.5, 0.25), np.pi, 0.5),  # half of the middle one: 0.25 + 0.25 of 1
        ((1.0, 0.25, 0.25), np.pi * (1.5**2 - 0.5**2), 1.125 / 1.5),
        ((0.25, 0.25, 0.5, 0.25, 1.0), np.pi * 2.25**2, 0.75 / 2.25),
    ],
)
def test_numbers_worked_by_hand(lengths, area, asymmetry):
    found = describe(NAMES, arm(*lengths))
    np.testing.assert_allclose(found, [len(lengths), sum(lengths), area, asymmetry], rtol=1e-6)


@pytest.mark.parametrize("lengths", [(0.7, 0.2), (0.3, 1.1, 0.2), (0.5, 0.4, 0.6)])
def test_area_is_that_of_the_points_that_tips_reach(lengths):
    """Of random points of a box, those whose distance lies between the nearest and the farthest random tip."""
    random = np.random.default_rng(3)
    angles = random.uniform(0.0, 2.0 * np.pi, (1_000_003, len(lengths)))
    distance = np.abs(np.exp(1j * angles) @ np.array(lengths))
    near, far = distance.min(), distance.max()
    if near < 0.05 * far:
        near = 0.0  # three links that can fold to nothing seldom do so exactly
    points = random.uniform(-2.0, 2.0, (1_000_003, 2))
    reached = np.mean(np.abs(np.hypot(*points.T) - (near + far) / 2.0) <= (far - near) / 2.0) * 16.0
    np.testing.assert_allclose(describe(("area",), arm(*lengths))[0], reached, rtol=0.015)


def test_a_batch_is_each_alone_and_jit_changes_nothing():
    arms = [arm(0.1, 0.2), arm(0.2, 0.1, 0.15), arm(0.25, 0.1, 0.2, 0.12, 0.2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *arms)
    together = jax.vmap(lambda one: qd.describe(NAMES, one))(stacked)
    np.testing.assert_allclose(together, [qd.describe(NAMES, one) for one in arms], rtol=1e-6)
    np.testing.assert_allclose(together, [describe(NAMES, one) for one in arms], rtol=1e-6)


def test_what_an_evaluation_measured_takes_its_place():
    found = qd.describe(("energy", "links"), arm(0.5, 0.25), {"energy": jnp.float32(13.0)})
    assert found.tolist() == [13.0, 2.0]


@pytest.mark.parametrize(
    ("names", "say"),
    [((), "one or more different"), (("links", "links"), "different"), (("size",), "among"), (("energy",), "outside")],
)
def test_descriptors_that_cannot_be_are_refused(names, say):
    with pytest.raises(ValueError, match=f"^descriptors must be .*{say}"):
        qd.make_grid(names, (5,) * len(names), BOUNDS)


@pytest.mark.parametrize(("names", "bins"), [(("links", "length"), (5, 7)), (("length",), (3, 5)), (("links",), (3,))])
def test_bins_that_cannot_be_are_refused(names, bins):
    with pytest.raises(ValueError, match=r"^bins must be"):
        qd.make_grid(names, bins, BOUNDS)


# --- ranges ---------------------------------------------------------------------------------------------------------


def extremes(bounds):
    for count in range(bounds.min_links, bounds.max_links + 1):
        yield from itertools.product((bounds.min_length, bounds.max_length), repeat=count)


@pytest.mark.parametrize("bounds", [BOUNDS, Bounds(3, 4, 0.05, 0.3), Bounds(2, 2, 0.01, 0.5), Bounds(7, 8, 0.1, 0.12)])
def test_ranges_are_what_arms_can_be(bounds):
    """All are monotone or convex in each length, so their extremes are among arms of shortest and longest links."""
    found = np.array([[len(arm), sum(arm), ring(arm), inner(arm)] for arm in extremes(bounds)])
    for axis, name in enumerate(NAMES[1:], 1):
        low, high = qd.DESCRIPTORS[name].range(bounds)
        if name != "asymmetry" or bounds.max_links > 3:
            np.testing.assert_allclose([low, high], [found[:, axis].min(), found[:, axis].max()], rtol=1e-9)
    assert qd.DESCRIPTORS["links"].range(bounds) == (bounds.min_links - 0.5, bounds.max_links + 0.5)


def ring(lengths):
    return np.pi * (sum(lengths) ** 2 - max(0.0, 2 * max(lengths) - sum(lengths)) ** 2)


def inner(lengths):
    half = len(lengths) // 2
    middle = lengths[half] / 2 if len(lengths) % 2 else 0.0
    return (sum(lengths[:half]) + middle) / sum(lengths)


def test_no_arm_at_its_bounds_is_turned_away():
    """Float32 sums of such lengths round either way."""
    for low, high in ((0.1, 0.12), (0.07, 0.23), (0.013, 0.11)):
        bounds = Bounds(2, 8, low, high)
        grid = qd.make_grid(NAMES, (7, 11, 13, 17), bounds)
        locate = jax.jit(jax.vmap(lambda one, grid=grid: grid.cell_of(qd.describe(NAMES, one))))
        assert np.all(locate(qd._extremes(bounds))[1])


def test_links_are_in_the_middle_of_their_bins():
    grid = qd.make_grid(("links", "length"), (4, 11), BOUNDS)
    np.testing.assert_allclose(np.unique(np.asarray(grid.centroids)[:, 0]), [2, 3, 4, 5], rtol=1e-6)
    grid = qd.make_grid(("energy", "links"), (3, 4), BOUNDS, {"energy": (0.0, 6.0)})
    np.testing.assert_allclose(np.unique(np.asarray(grid.centroids)[:, 0]), [1, 3, 5], rtol=1e-5)


# --- feasibility ----------------------------------------------------------------------------------------------------


def brute_force(bounds, bins):
    """`[links, length]`: whether a fine sweep of equal links has a total strictly inside the cell."""
    low, high = bounds.min_links * bounds.min_length, bounds.max_links * bounds.max_length
    hit = np.zeros((bounds.max_links - bounds.min_links + 1, bins), bool)
    for row, count in enumerate(range(bounds.min_links, bounds.max_links + 1)):
        totals = count * np.linspace(bounds.min_length, bounds.max_length, 400_009)
        place = (totals - low) / (high - low) * bins
        strictly = np.abs(place - np.round(place)) > 5e-5
        hit[row, np.floor(place[strictly]).astype(int)] = True
    return hit


@pytest.mark.parametrize(
    ("bounds", "bins"),
    [(BOUNDS, 21), (Bounds(2, 8, 0.1, 0.25), 18), (Bounds(3, 3, 0.1, 0.3), 5), (Bounds(2, 7, 0.2, 0.21), 31)],
)
def test_links_and_length_exactly(bounds, bins):
    """18 bins of 0.1 m: the edges of cells meet those of intervals, which share a point there and no more."""
    counts, truth = bounds.max_links - bounds.min_links + 1, brute_force(bounds, bins)
    grid = qd.make_grid(("links", "length"), (counts, bins), bounds)
    np.testing.assert_array_equal(qd.feasible(("links", "length"), grid, bounds), truth.ravel())
    grid = qd.make_grid(("length", "links"), (bins, counts), bounds)
    np.testing.assert_array_equal(qd.feasible(("length", "links"), grid, bounds), truth.T.ravel())
    grid = qd.make_grid(("length",), (bins,), bounds)
    np.testing.assert_array_equal(qd.feasible(("length",), grid, bounds), truth.any(axis=0))
    assert qd.feasible(("links",), qd.make_grid(("links",), (counts,), bounds), bounds).tolist() == [True] * counts


@pytest.fixture
def fewer_samples(monkeypatch):
    monkeypatch.setattr(qd, "SAMPLES", 2**15)


def test_the_estimate_agrees_where_the_truth_is_known(fewer_samples):
    names, bounds = ("links", "length"), Bounds(2, 5, 0.1, 0.25)
    grid = qd.make_grid(names, (4, 13), bounds)
    np.testing.assert_array_equal(qd.estimate_feasible(names, grid, bounds), qd.feasible(names, grid, bounds))


def test_what_is_measured_rules_out_no_cell(fewer_samples):
    names, bounds = ("links", "energy", "length"), Bounds(2, 5, 0.1, 0.25)
    grid = qd.make_grid(names, (4, 3, 13), bounds, {"energy": (0.0, 6.0)})
    plain = qd.feasible(("links", "length"), qd.make_grid(("links", "length"), (4, 13), bounds), bounds)
    found = qd.feasible(names, grid, bounds).reshape(4, 3, 13)
    for energy in range(3):
        np.testing.assert_array_equal(found[:, energy], plain.reshape(4, 13))
    alone = cells.grid((0.0,), (1.0,), (5,))
    assert qd.feasible(("energy",), alone, bounds).tolist() == [True] * 5


def test_an_estimate_holds_no_cell_that_cannot_be(fewer_samples):
    """Of two links R² − r² = 4 l (R − l): with the area known the length is in an interval; asymmetry l / R."""
    names, bounds = ("area", "asymmetry"), Bounds(2, 2, 0.1, 0.3)
    grid = qd.make_grid(names, (11, 7), bounds)
    random = np.random.default_rng(5).uniform(0.1, 0.3, (400_009, 2))
    first, second = np.concatenate([random, [(0.1, 0.1), (0.3, 0.3), (0.1, 0.3), (0.3, 0.1)]]).T
    points = np.stack([4.0 * np.pi * first * second, first / (first + second)], axis=1).astype(np.float32)
    index, inside = jax.vmap(grid.cell_of)(points)
    truth = np.zeros(77, bool)
    truth[np.asarray(index)[np.asarray(inside)]] = True
    found = qd.feasible(names, grid, bounds)
    assert not np.any(found & ~truth) and np.sum(truth & ~found) <= 1 and truth.sum() > 30
