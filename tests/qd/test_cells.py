"""Grid and Voronoi cells against NumPy's digitize and SciPy's k-d tree."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial

from jaxrl_engine.qd import cells

LOW, HIGH, SHAPE = (-1.0, 0.0, 10.0), (2.0, 0.5, 17.0), (3, 5, 7)
GRID = cells.grid(LOW, HIGH, SHAPE)
look_up = jax.jit(jax.vmap(GRID.cell_of))


@hypothesis.given(hnp.arrays(np.float32, (11, 3), elements=st.floats(-0.25, 1.25, width=32)))
def test_grid_is_numpys_digitize(share):
    points = np.float32(LOW) + share * (np.float32(HIGH) - np.float32(LOW))
    index, inside = map(np.asarray, look_up(points))
    within = np.all((points >= np.float32(LOW)) & (points <= np.float32(HIGH)), axis=1)
    np.testing.assert_array_equal(inside, within)
    bins, near = [], np.zeros(len(points), bool)
    for axis, count in enumerate(SHAPE):
        edges = np.linspace(LOW[axis], HIGH[axis], count + 1)
        bins.append(np.clip(np.digitize(points[:, axis], edges) - 1, 0, count - 1))
        near |= np.any(
            np.abs(points[:, axis, None] - edges[None, 1:-1]) < 1e-5, axis=1
        )  # a rounding from an inner edge
    sure = within & ~near
    np.testing.assert_array_equal(index[sure], np.ravel_multi_index(bins, SHAPE)[sure])
    assert np.all((index >= 0) & (index < 105)) and np.all(index[~within] == 0)


def test_edges_belong_to_the_bin_above_and_the_last_one_to_the_last_bin():
    grid = cells.grid((0.0, -4.0), (8.0, 4.0), (4, 2))
    points = [(0.0, -4.0), (2.0, -4.0), (4.0, 0.0), (8.0, 4.0), (1.9999999, 3.9999998), (7.9999995, -1e-6)]
    index, inside = jax.vmap(grid.cell_of)(jnp.asarray(points))
    assert index.tolist() == [0, 2, 5, 7, 1, 6] and inside.tolist() == [True] * 6


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1e-6, 1.0000001])
@pytest.mark.parametrize("axis", [0, 1])
def test_what_is_outside_is_said_to_be(bad, axis):
    point = jnp.full(2, 0.5).at[axis].set(bad)
    corners = jnp.array([[0.1, 0.1], [0.9, 0.9]])
    voronoi = cells.Voronoi(centroids=corners, low=jnp.zeros(2), high=jnp.ones(2))
    for division in (cells.grid((0.0, 0.0), (1.0, 1.0), (3, 5)), voronoi):
        index, inside = division.cell_of(point)
        assert not inside and index == 0


def test_centroids_are_in_their_own_cells_and_in_the_middle():
    np.testing.assert_array_equal(look_up(GRID.centroids)[0], np.arange(105))
    np.testing.assert_allclose(GRID.centroids[0], [-0.5, 0.05, 10.5], rtol=1e-6)
    np.testing.assert_allclose(GRID.centroids[37], [0.5, 0.05, 12.5], rtol=1e-6)  # 37 = 1·35 + 0·7 + 2
    assert GRID.num_cells == 105


def test_one_descriptor_is_one_of_a_batch_and_jit_changes_nothing():
    points = jax.random.uniform(jax.random.key(3), (13, 3)) * 20.0 - 2.0
    alone = [GRID.cell_of(point) for point in points]
    np.testing.assert_array_equal(look_up(points)[0], [index for index, _ in alone])
    np.testing.assert_array_equal(look_up(points)[1], [inside for _, inside in alone])


# --- Voronoi --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def voronoi():
    return cells.make_voronoi(jax.random.key(5), 53, (-1.0, 3.0), (2.0, 5.0), num_samples=5003)


def test_voronoi_finds_the_nearest(voronoi):
    points = np.random.default_rng(0).uniform((-1.0, 3.0), (2.0, 5.0), (997, 2)).astype(np.float32)
    index, inside = jax.jit(jax.vmap(voronoi.cell_of))(points)
    _, nearest = scipy.spatial.cKDTree(np.asarray(voronoi.centroids)).query(points)
    assert inside.all() and voronoi.num_cells == 53
    np.testing.assert_array_equal(index, nearest)


def test_equally_near_centroids_go_by_number():
    centroids = jnp.array([[3.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    voronoi = cells.Voronoi(centroids=centroids, low=jnp.full(2, -5.0), high=jnp.full(2, 5.0))
    assert voronoi.cell_of(jnp.zeros(2))[0] == 1


def test_centroids_are_the_means_of_their_cells(voronoi):
    """The fixed point of Lloyd's algorithm, and cells of about equal size."""
    points = np.random.default_rng(1).uniform((-1.0, 3.0), (2.0, 5.0), (100_003, 2))
    _, owner = scipy.spatial.cKDTree(np.asarray(voronoi.centroids)).query(points)
    counts = np.bincount(owner, minlength=53)
    means = np.stack([np.bincount(owner, axis) / counts for axis in points.T], axis=1)
    width = np.sqrt(6.0 / 53)
    assert np.abs(means - np.asarray(voronoi.centroids)).max() < 0.2 * width
    assert counts.min() > 0.5 * counts.mean() and counts.max() < 1.7 * counts.mean()


def test_as_many_samples_as_cells_are_their_own_centroids():
    made = cells.make_voronoi(jax.random.key(1), 7, (0.0,), (1.0,), num_samples=7)
    drawn = jax.random.uniform(jax.random.key(1), (7, 1))
    np.testing.assert_allclose(made.centroids, drawn, rtol=1e-6)


@pytest.mark.parametrize(
    ("low", "high", "shape", "field"),
    [
        ((0.0, 1.0), (1.0, 1.0), (3, 5), "low"),
        ((0.0, np.nan), (1.0, 1.0), (3, 5), "low"),
        ((0.0,), (np.inf,), (3,), "low"),
        ((), (), (), "shape"),
        ((0.0, 0.0), (1.0, 1.0), (3, 0), "shape"),
        ((0.0,), (1.0, 1.0), (3, 5), "low and high"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(low, high, shape, field):
    with pytest.raises(ValueError, match=f"^{field} must be"):
        cells.grid(low, high, shape)


@pytest.mark.parametrize(
    ("num_cells", "low", "samples", "field"),
    [(0, 0.0, 10, "num_cells"), (11, 0.0, 10, "num_samples"), (3, 1.0, 10, "low")],
)
def test_a_tessellation_that_cannot_be_is_refused(num_cells, low, samples, field):
    with pytest.raises(ValueError, match=f"^{field} must be"):
        cells.make_voronoi(jax.random.key(0), num_cells, (low,), (1.0,), samples)
