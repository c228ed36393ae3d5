"""The elites as bodies, each at its cell's place: what the numbers of a repertoire look like."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import Normalize, to_rgba
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.transforms import ScaledTranslation

from jaxrl_engine.core.scene import Ink
from jaxrl_engine.runtime.drawing import BACKGROUND, FRAME, colour
from jaxrl_engine.runtime.evolution import AXES, EvolutionRecord
from jaxrl_engine.runtime.evolution_style import (
    EMPTY,
    HATCH,
    HATCH_INK,
    SCALE,
    UNTESTED,
    add_scale,
    explain_cells,
    new_figure,
    save_png,
    styled,
    whole_numbers,
    write_titles,
)

MOST_ALONG, MOST_ACROSS = 12, 8
"""Places along the longer axis, and across it."""
BEND = np.deg2rad(26.0)
"""Of every joint: enough to see the joints, and short of folding the longest arm."""
WIDTH_INCHES, TALLEST_INCHES = 10.0, 11.0


class Places(NamedTuple):
    """A coarser grid over the cells."""

    rows: int
    columns: int
    row: Int[np.ndarray, "N"]  # of each cell
    column: Int[np.ndarray, "N"]
    row_names: list[str]
    column_names: list[str]


def arrange(record: EvolutionRecord) -> Places:
    """Return the place of every cell: its own on small grids, else that of a few neighbours, evenly divided.

    Voronoi cells lie where their centroids lie.
    """
    shape = record.shape or tuple(_bins(record, axis) for axis in range(2))
    most = (MOST_ACROSS, MOST_ALONG) if shape[0] <= shape[1] else (MOST_ALONG, MOST_ACROSS)
    rows, columns = (min(bins, limit) for bins, limit in zip(shape, most, strict=True))
    if record.shape is not None:
        row, column = np.divmod(np.arange(shape[0] * shape[1]), shape[1])
    else:
        share = (record.centroids.astype(np.float64) - record.low) / (record.high - record.low)
        row, column = (np.clip(share * shape, 0, np.array(shape) - 1)).astype(np.int64).T
    names = [_names(record, axis, shape[axis], count) for axis, count in enumerate((rows, columns))]
    return Places(rows, columns, row * rows // shape[0], column * columns // shape[1], *names)


def _bins(record: EvolutionRecord, axis: int) -> int:
    """Divide an axis that has no bins of its own."""
    if record.axes[axis] == "links":
        return len(whole_numbers(float(record.low[axis]), float(record.high[axis]))) or 1
    return MOST_ALONG if axis else MOST_ACROSS


def _names(record: EvolutionRecord, axis: int, bins: int, groups: int) -> list[str]:
    """Name each group of bins by its middle, or by the numbers of links in it."""
    low, high = float(record.low[axis]), float(record.high[axis])
    group = np.arange(bins) * groups // bins
    middle = low + (np.arange(bins) + 0.5) / bins * (high - low)
    if record.axes[axis] != "links":
        decimals = max(0, 1 - int(np.floor(np.log10((high - low) / groups))))
        return [f"{middle[group == number].mean():.{decimals}f}" for number in range(groups)]
    ends = [np.round(middle[group == number][[0, -1]]).astype(int) for number in range(groups)]
    return [f"{first}" if first == last else f"{first}–{last}" for first, last in ends]


def chain(lengths: Float[np.ndarray, "links"]) -> Float[np.ndarray, "joints 2"]:
    """Return where base, joints and tip of an arm are that bends by `BEND` at each joint, arched over its base line."""
    heading = BEND * ((len(lengths) - 1) / 2 - np.arange(len(lengths)))
    steps = lengths[:, None] * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
    return np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])


def shown(record: EvolutionRecord, places: Places) -> dict[tuple[int, int], int]:
    """Return the fittest elite of every place that has one."""
    found: dict[tuple[int, int], int] = {}
    for cell in np.flatnonzero(record.occupied):
        place = int(places.row[cell]), int(places.column[cell])
        if place not in found or record.fitness[cell] > record.fitness[found[place]]:
            found[place] = int(cell)
    return found


def save_gallery(record: EvolutionRecord, path: Path) -> None:
    """Draw the elites of a repertoire that is not empty, all to one scale, coloured by success on fresh targets.

    Raises:
        RunError: the file system refuses.
    """
    places = arrange(record)
    elites = shown(record, places)
    joints = {place: chain(record.lengths[cell, : record.counts[cell]]) for place, cell in elites.items()}
    extent = np.max([np.ptp(points, axis=0) for points in joints.values()], axis=0)
    size = np.array([1.2 * extent[0], max(1.35 * extent[1], 0.42 * extent[0])])  # m, of every place
    with styled():
        plot_width = WIDTH_INCHES - 1.5
        height = 1.2 + plot_width * places.rows * size[1] / (places.columns * size[0])
        figure = new_figure(WIDTH_INCHES, min(height, TALLEST_INCHES))
        axes = figure.subplots()
        axes.set(xlim=(0, places.columns * size[0]), ylim=(0, places.rows * size[1]), aspect="equal")
        _draw_places(axes, record, places, elites, size)
        scale = Normalize(0.0, 1.0)
        for place, points in joints.items():
            _draw_body(axes, points, _centre(place, size), _colour(record, elites[place], scale))
        add_scale(axes, scale, "success on fresh targets")
        _label(axes, record, places, size)
        write_titles(axes, record.title, _subtitle(record, places, len(elites)))
        save_png(figure, path)


def _subtitle(record: EvolutionRecord, places: Places, count: int) -> str:
    cells = np.bincount(places.row * places.columns + places.column, minlength=places.rows * places.columns)
    if cells.max() == 1:
        return f"all {count:,} elites, drawn to one scale"
    return f"{count:,} elites, drawn to one scale: at each place the fittest of up to {cells.max()} neighbouring cells"


def _centre(place: tuple[int, int], size: Float[np.ndarray, "2"]) -> Float[np.ndarray, "2"]:
    return size * (np.array(place[::-1]) + 0.5)


def _colour(record: EvolutionRecord, cell: int, scale: Normalize) -> tuple[float, float, float, float]:
    if not record.trials[cell]:
        return to_rgba(UNTESTED)
    return SCALE(scale(record.successes[cell] / record.trials[cell]))


def _draw_places(
    axes: Axes,
    record: EvolutionRecord,
    places: Places,
    elites: dict[tuple[int, int], int],
    size: Float[np.ndarray, "2"],
) -> None:
    """Draw a card for every place with cells: pale with a body, grey without, hatched where none can be."""
    feasible = zip(places.row[record.feasible], places.column[record.feasible], strict=True)
    possible = {(int(row), int(column)) for row, column in feasible}
    divided = {(int(row), int(column)) for row, column in zip(places.row, places.column, strict=True)}
    cards: dict[str, list[Rectangle]] = {"held": [], "empty": [], "beyond": []}
    for place in sorted(divided):
        kind = "held" if place in elites else "empty" if place in possible else "beyond"
        cards[kind].append(Rectangle((place[1] * size[0], place[0] * size[1]), *size))
    axes.add_collection(PatchCollection(cards["beyond"], facecolor=BACKGROUND, edgecolor=HATCH_INK, hatch=HATCH, lw=0))
    axes.add_collection(PatchCollection(cards["empty"], facecolor=EMPTY, edgecolor=BACKGROUND, lw=1.5))
    axes.add_collection(PatchCollection(cards["held"], facecolor="#f4f6f8", edgecolor=BACKGROUND, lw=1.5))


def _draw_body(
    axes: Axes, points: Float[np.ndarray, "joints 2"], centre: Float[np.ndarray, "2"], shade: tuple[float, ...]
) -> None:
    placed = points - (points.max(axis=0) + points.min(axis=0)) / 2 + centre
    segments = list(np.stack([placed[:-1], placed[1:]], axis=1))
    ink = colour(Ink.JOINT)
    axes.add_collection(LineCollection(segments, colors=[ink], linewidths=5.6, capstyle="round", zorder=3))
    axes.add_collection(LineCollection(segments, colors=[shade], linewidths=4.0, capstyle="round", zorder=4))
    axes.plot(*placed[1:-1].T, "o", markersize=2.6, color=ink, markeredgewidth=0, zorder=5)
    axes.plot(*placed[0], "o", markersize=7.0, color=ink, markeredgewidth=0, zorder=5)


def _label(axes: Axes, record: EvolutionRecord, places: Places, size: Float[np.ndarray, "2"]) -> None:
    axes.set_yticks(size[1] * (np.arange(places.rows) + 0.5), places.row_names)
    axes.set_xticks(size[0] * (np.arange(places.columns) + 0.5), places.column_names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_ylabel(AXES[record.axes[0]].label)
    axes.set_xlabel(AXES[record.axes[1]].label, loc="left")
    _draw_scale(axes, places, size)
    base = Line2D([], [], marker="o", linestyle="", markersize=6, color=colour(Ink.JOINT), label="base")
    others = [base]
    if bool((record.occupied & (record.trials == 0)).any()):
        others.append(Line2D([], [], color=UNTESTED, linewidth=3.4, label="not tried on fresh targets"))
    explain_cells(axes, record, others)


def _draw_scale(axes: Axes, places: Places, size: Float[np.ndarray, "2"]) -> None:
    """Draw a bar of a round number of metres above the upper right corner."""
    magnitude = 10 ** np.floor(np.log10(size[0]))
    metres = max(step * magnitude for step in (0.5, 1.0, 2.0, 5.0) if step * magnitude <= size[0])
    right = places.columns * size[0]
    above = axes.get_xaxis_transform() + ScaledTranslation(0.0, 10 / 72, axes.figure.dpi_scale_trans)
    axes.plot([right - metres, right], [1.0, 1.0], color=FRAME, linewidth=2.0, transform=above, clip_on=False)
    axes.annotate(
        f"{metres:g} m", (right - metres, 1.0), xycoords=above, xytext=(-5, 0), textcoords="offset points",
        ha="right", va="center", fontsize=8.5,
    )  # fmt: skip
