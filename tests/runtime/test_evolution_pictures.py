"""Pictures read back pixel by pixel, and their data against what was put in."""

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from PIL import Image
from scipy.stats import binomtest

from jaxrl_engine.runtime import evolution_pictures
from jaxrl_engine.runtime.evolution import EvolutionRecord
from jaxrl_engine.runtime.evolution_gallery import arrange, chain, save_gallery, shown
from jaxrl_engine.runtime.evolution_map import cell_polygons, save_film, save_heatmap
from jaxrl_engine.runtime.evolution_pictures import draw_all, save_curves, save_success_by_links, series

LOWEST, HIGHEST, EMPTY, UNTESTED, WHITE = 0x16283A, 0xFBF3B4, 0xDDE1E6, 0x8A94A0, 0xFFFFFF
LINKS = 8


def make_record(shape=(1, 4), cells=None, **changes) -> EvolutionRecord:
    """A grid of arms of 2 links, all cells held by an elite that was tried on 11 targets."""
    shape = shape if cells is None else None
    number = cells or shape[0] * shape[1]
    rng = np.random.default_rng(3)
    low, high = np.array([1.5, 0.2]), np.array([8.5, 2.0])
    centroids = low + rng.random((number, 2)) * (high - low)
    if shape is not None:
        parts = np.stack(np.meshgrid(*[(np.arange(bins) + 0.5) / bins for bins in shape], indexing="ij"), -1)
        centroids = low + parts.reshape(-1, 2) * (high - low)
    whole = {
        "title": "arms", "axes": ("links", "length"), "shape": shape, "low": low, "high": high, "centroids": centroids,
        "feasible": np.ones(number, bool), "feasible_is_estimate": False, "fitness": np.linspace(0, 1, number),
        "archived": np.linspace(0, 1, number), "policy_version": np.zeros(number, int), "born": np.zeros(number, int),
        "evaluations": np.ones(number, int), "lengths": np.full((number, LINKS), 0.25),
        "counts": np.full(number, 2), "thickness": np.ones(number), "gear": np.ones(number), "descriptors": centroids,
        "successes": np.full(number, 11), "trials": np.full(number, 11), "history_fitness": np.zeros((0, number)),
        "history_generation": np.zeros(0, int), "env_steps": 700, "evaluation_steps": 0, "generations": 2,
    }  # fmt: skip
    return EvolutionRecord(**(whole | changes))


def colours_of(image: Image.Image) -> np.ndarray:
    """Every pixel as the number its red, green and blue make."""
    return np.asarray(image.convert("RGB"), np.int64) @ [65536, 256, 1]


def runs(line) -> list[tuple[int, int]]:
    """The colours along a line of pixels that last for at least 60 of them, white aside."""
    ends = np.flatnonzero(np.append(line[1:] != line[:-1], True)) + 1
    starts = np.concatenate([[0], ends[:-1]])
    long = [(int(line[a]), int(b - a)) for a, b in zip(starts, ends, strict=True) if b - a >= 60]
    return [run for run in long if run[0] != WHITE]


# --- the map ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def four_cells() -> EvolutionRecord:
    """From left to right: the worst elite, the best, an empty cell, one in which no body can be."""
    fitness = np.array([0.25, 0.75, -np.inf, -np.inf])
    return make_record(
        fitness=fitness, feasible=np.array([True, True, True, False]),
        history_fitness=np.array([
            [0.75, -np.inf, -np.inf, -np.inf], [9.0, 9.0, 9.0, 9.0], [0.25, 0.75, -np.inf, -np.inf],
        ]), history_generation=np.array([3, -1, 8]),
    )  # fmt: skip


def test_the_map_shows_fitness_and_tells_empty_from_out_of_reach(tmp_path, four_cells):
    save_heatmap(four_cells, tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as image:
        assert 1200 < image.width < 1500
        assert 400 < image.height < 800
        colours = colours_of(image)
    line = colours[len(colours) // 2]
    assert [colour for colour, _ in runs(line)] == [LOWEST, HIGHEST, EMPTY]
    widths = [width for _, width in runs(line)]
    assert max(widths) - min(widths) <= 3
    first = int(np.flatnonzero(line == EMPTY)[-1]) + 8  # past the white edge between two cells
    beyond = colours[len(colours) // 2 - 20 : len(colours) // 2 + 20, first : first + widths[0] - 16]
    white = (beyond == WHITE).mean()
    assert 0.3 < white < 0.95  # lines on white
    assert not np.isin(beyond, [LOWEST, HIGHEST, EMPTY]).any()


def test_axis_0_goes_up_and_axis_1_to_the_right(tmp_path):
    fitness = np.array([0.0, -np.inf, -np.inf, -np.inf, -np.inf, 1.0])  # low left, high right in two rows of three
    save_heatmap(make_record((2, 3), fitness=fitness), tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as image:
        colours = colours_of(image)
    plot = np.argwhere(colours == EMPTY)
    middle = (plot[:, 1].min() + plot[:, 1].max()) / 2

    def centre(colour: int) -> np.ndarray:
        lines = [(row, column) for row, column in np.argwhere(colours == colour) if column < 1230]  # not the scale
        return np.median(lines, axis=0)

    assert centre(LOWEST)[1] < middle < centre(HIGHEST)[1]
    assert centre(HIGHEST)[0] < centre(LOWEST)[0]


def test_the_film_has_a_frame_for_every_snapshot_taken_on_one_scale(tmp_path, four_cells):
    save_film(four_cells, tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 2
        assert film.info["loop"] == 0
        film.seek(0)
        first = colours_of(film)
        film.seek(1)
        last = colours_of(film)
        assert film.info["duration"] == 2000
    line = len(first) // 2
    assert [colour for colour, _ in runs(first[line])] == [HIGHEST, EMPTY, EMPTY]  # 0.75 is the scale's end, then too
    assert [colour for colour, _ in runs(last[line])] == [LOWEST, HIGHEST, EMPTY]
    assert first[2, 2] == WHITE
    title = slice(22, 46)  # where the generation stands
    assert (first[title, :200] != last[title, :200]).any()


def test_voronoi_cells_are_the_nearest_points_of_the_box():
    record = make_record(cells=37)
    polygons = cell_polygons(record)
    points = record.low + np.random.default_rng(5).random((2003, 2)) * (record.high - record.low)
    nearest = np.square(points[:, None] - record.centroids).sum(axis=-1).argmin(axis=1)
    inside = np.stack([Outline(polygon).contains_points(points) for polygon in polygons])
    np.testing.assert_array_equal(inside.argmax(axis=0), nearest)
    assert (inside.sum(axis=0) == 1).all()
    areas = [_area(polygon) for polygon in polygons]
    np.testing.assert_allclose(sum(areas), 7.0 * 1.8, rtol=1e-6)


def _area(polygon) -> float:
    x, y = polygon.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def test_voronoi_cells_whose_centroids_lie_on_the_edge_are_in_the_box():
    centroids = np.array([[1.5, 0.2], [8.5, 2.0], [1.5, 2.0], [5.0, 0.2], [5.0, 1.0]])
    record = make_record(cells=5, centroids=centroids)
    for polygon in cell_polygons(record):
        assert (polygon >= record.low - 1e-6).all()
        assert (polygon <= record.high + 1e-6).all()
    np.testing.assert_allclose(sum(_area(polygon) for polygon in cell_polygons(record)), 7.0 * 1.8, rtol=1e-6)


# --- bodies ----------------------------------------------------------------------------------------------------------


def test_an_arm_is_drawn_with_its_own_lengths_bent_alike_at_each_joint():
    lengths = np.array([0.3, 0.1, 0.2, 0.25, 0.15])
    points = chain(lengths)
    steps = np.diff(points, axis=0)
    np.testing.assert_allclose(np.hypot(*steps.T), lengths)
    headings = np.arctan2(steps[:, 1], steps[:, 0])
    np.testing.assert_allclose(np.diff(headings), np.deg2rad(-26.0))
    np.testing.assert_allclose(headings[0], -headings[-1])


def test_small_grids_show_every_cell_and_large_ones_the_fittest_of_neighbours():
    places = arrange(make_record((7, 11)))
    assert (places.rows, places.columns) == (7, 11)
    np.testing.assert_array_equal(places.row * 11 + places.column, np.arange(77))
    assert places.row_names == ["2", "3", "4", "5", "6", "7", "8"]
    large = make_record((7, 32), fitness=np.arange(224.0))
    places = arrange(large)
    assert (places.rows, places.columns) == (7, 12)
    assert set(np.bincount(places.column[:32])) == {2, 3}
    assert (np.diff(places.column[:32]) >= 0).all()
    found = shown(large, places)
    assert len(found) == 84
    assert found[0, 11] == 31
    assert found[6, 0] == 192 + 2


def test_long_grids_are_shown_upright_and_voronoi_cells_where_they_lie():
    assert arrange(make_record((32, 5)))[:2] == (12, 5)
    record = make_record(cells=41)
    places = arrange(record)
    np.testing.assert_array_equal(places.row + 2, np.round(record.centroids[:, 0]))
    np.testing.assert_array_equal(places.column, np.floor((record.centroids[:, 1] - 0.2) / 0.15))


def test_links_that_an_arm_does_not_have_are_not_drawn(tmp_path):
    record = make_record((2, 2), counts=np.array([1, 2, 3, 8]))
    longer = record.lengths.copy()
    longer[0, 1:] = longer[1, 2:] = longer[2, 3:] = 9.0
    save_gallery(record, tmp_path / "a.png")
    save_gallery(make_record((2, 2), counts=record.counts, lengths=longer), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_bodies_have_the_colour_of_their_success(tmp_path):
    record = make_record((1, 3), successes=np.array([0, 11, 0]), trials=np.array([11, 11, 0]))
    save_gallery(record, tmp_path / "gallery.png")
    with Image.open(tmp_path / "gallery.png") as image:
        colours = colours_of(image)
    thirds = np.array_split(colours[:, 60:1380], 3, axis=1)
    counts = [[int((third == ink).sum()) for ink in (HIGHEST, UNTESTED)] for third in thirds]
    assert counts[0][0] == counts[2][0] == 0 < 500 < counts[1][0]
    assert counts[1][1] == 0 < 500 < counts[2][1]


# --- curves and intervals --------------------------------------------------------------------------------------------

ROWS = [
    {"env_steps": 1000, "QD/Score": 1.0, "QD/ArchivedScore": 2.0, "Losses/Policy": None},
    {"env_steps": 2000, "QD/Score": float("nan"), "QD/ArchivedScore": 3.0, "QD/Coverage": 0.5},
    {"env_steps": None, "QD/Score": 9.0, "QD/ArchivedScore": 9.0},
    {"env_steps": 3000, "QD/Score": 3.0, "QD/ArchivedScore": 4.5, "Charts/Success": 0.25},
]


def test_a_curve_has_the_rows_that_have_it():
    np.testing.assert_array_equal(series(ROWS, "QD/Score", "QD/ArchivedScore"), [[1000, 3000], [1.0, 3.0], [2.0, 4.5]])
    assert series(ROWS, "Losses/Value").shape == (2, 0)


@pytest.fixture
def caught(monkeypatch):
    """The figures that would have been written."""
    figures = []
    monkeypatch.setattr(evolution_pictures, "save_png", lambda figure, path: figures.append(figure))
    return figures


def test_curves_show_what_was_measured_and_the_gap_between_the_scores(tmp_path, caught):
    assert save_curves("arms", ROWS, tmp_path / "curves.png")
    scores, *panels = caught[0].axes
    archived, current = (line.get_xydata().tolist() for line in scores.lines)
    assert archived == [[1000, 2.0], [2000, 3.0], [3000, 4.5]]
    assert current == [[1000, 1.0], [3000, 3.0]]
    band = {tuple(corner) for corner in scores.collections[0].get_paths()[0].vertices.tolist()}
    assert band == {(1000, 1.0), (1000, 2.0), (3000, 3.0), (3000, 4.5)}
    assert [panel.get_title(loc="left") for panel in panels] == ["Coverage of feasible cells", "Success while training"]
    assert not save_curves("arms", [{"env_steps": 5}, {}], tmp_path / "none.png")
    assert len(caught) == 1


def test_success_of_equal_link_counts_is_pooled_with_its_interval(tmp_path, caught):
    record = make_record(
        (1, 5), counts=np.array([2, 2, 5, 5, 5]), successes=np.array([7, 10, 3, 0, 9]),
        trials=np.array([11, 13, 17, 0, 19]), fitness=np.array([0, 0, 0, 0, -np.inf]),
    )  # fmt: skip
    save_success_by_links(record, tmp_path / "success.png")
    (axes,) = caught[0].axes
    drawn = [line.get_xydata() for line in axes.lines]
    stems = [data for data in drawn if data.shape == (2, 2) and data[0, 0] == data[1, 0]]
    for stem, successes, trials in zip(stems, (17, 3), (24, 17), strict=True):
        truth = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
        np.testing.assert_allclose(stem[:, 1], truth, atol=1e-4)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2\n2 elites", "5\n1 elite"]
    single = sorted(y for data in drawn for x, y in data if x % 1 > 0.15 and x % 1 < 0.4)
    np.testing.assert_allclose(single, [3 / 17, 7 / 11, 10 / 13])


# --- all together ----------------------------------------------------------------------------------------------------


def test_all_pictures_are_written(tmp_path, four_cells):
    paths = draw_all(four_cells, ROWS, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in paths)
    assert {path.name for path in paths} == {
        "heatmap.png", "evolution.gif", "curves.png", "gallery.png", "success_by_links.png"
    }  # fmt: skip
    for path in paths:
        with Image.open(path) as image:
            image.load()
            assert min(image.size) > 250


def test_an_empty_repertoire_without_history_or_metrics_is_an_empty_map(tmp_path):
    record = make_record(
        (3, 5), fitness=np.full(15, -np.inf), title="no formula: $\\nonsense$", feasible=np.zeros(15, bool)
    )
    assert [path.name for path in draw_all(record, [], tmp_path)] == ["heatmap.png"]
