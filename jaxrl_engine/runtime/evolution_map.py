"""The repertoire as a map of its cells, coloured by fitness: a picture of now, and a film of how it came about."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize, to_rgba
from PIL import Image
from scipy.spatial import Voronoi

from jaxrl_engine.runtime.drawing import BACKGROUND, CAPTION, FRAME
from jaxrl_engine.runtime.evolution import EvolutionRecord
from jaxrl_engine.runtime.evolution_style import (
    EMPTY,
    HATCH,
    HATCH_INK,
    MUTED,
    SCALE,
    add_scale,
    explain_cells,
    label_axes,
    limits,
    new_figure,
    save_png,
    styled,
    write_titles,
)
from jaxrl_engine.runtime.json_files import whole_file

GIF_DPI = 96
FILM_MILLISECONDS, SLOWEST, QUICKEST = 8000, 400, 60
HOLD_MILLISECONDS = 2000  # the last frame stays a while before the loop begins again
INSIDE = 1e-6  # of the box: how far from its edge a centroid must be for its mirror image to be another point


def cell_polygons(record: EvolutionRecord) -> list[Float[np.ndarray, "corners 2"]]:
    """Return the outline of every cell in the descriptors' units, axis 0 first.

    A Voronoi cell is clipped to the box by mirroring all centroids at its four edges: the edges then lie half-way
    between a centroid and its image.
    """
    low, high = record.low.astype(np.float64), record.high.astype(np.float64)
    if record.shape is not None:
        edges = [np.linspace(low[axis], high[axis], bins + 1) for axis, bins in enumerate(record.shape)]
        return [
            np.array([[bottom, left], [bottom, right], [top, right], [top, left]])
            for bottom, top in zip(edges[0][:-1], edges[0][1:], strict=True)
            for left, right in zip(edges[1][:-1], edges[1][1:], strict=True)
        ]
    margin = INSIDE * (high - low)
    points = np.clip(record.centroids.astype(np.float64), low + margin, high - margin)
    images = [points]
    for axis in range(2):
        for edge in (low, high):
            mirrored = points.copy()
            mirrored[:, axis] = 2 * edge[axis] - points[:, axis]
            images.append(mirrored)
    diagram = Voronoi(np.concatenate(images))
    return [
        _around(diagram.vertices[diagram.regions[diagram.point_region[cell]]], point)
        for cell, point in enumerate(points)
    ]


def _around(corners: Float[np.ndarray, "corners 2"], centre: Float[np.ndarray, "2"]) -> Float[np.ndarray, "corners 2"]:
    """Return the corners of a convex polygon in their order around a point inside."""
    away = corners - centre
    return corners[np.argsort(np.arctan2(away[:, 0], away[:, 1]))]


class _Map:
    """A drawn map whose cells can be coloured anew."""

    def __init__(self, record: EvolutionRecord, subtitle: str) -> None:
        self.record = record
        self.figure = new_figure(9.0, 1.7 + _height(record))
        self.axes = self.figure.subplots()
        label_axes(self.axes, record)
        self.line = write_titles(self.axes, record.title, subtitle)
        outlines = [polygon[:, ::-1] for polygon in cell_polygons(record)]
        beyond = [outline for outline, feasible in zip(outlines, record.feasible, strict=True) if not feasible]
        self.axes.add_collection(
            PolyCollection(beyond, facecolor=BACKGROUND, edgecolor=HATCH_INK, linewidth=0, hatch=HATCH)
        )
        width = 0.8 if len(outlines) <= 400 else 0.3
        self.cells = PolyCollection(outlines, linewidth=width, edgecolor=BACKGROUND)
        self.axes.add_collection(self.cells)
        self.scale = Normalize(*limits(record.fitness, record.history_fitness[record.history_generation >= 0]))
        add_scale(self.axes, self.scale, f"fitness under the {'current policy' if subtitle else 'policy of that time'}")
        explain_cells(self.axes, record)

    def paint(self, fitness: Float[np.ndarray, "N"]) -> None:
        held = fitness > -np.inf
        colours = np.where(self.record.feasible[:, None], to_rgba(EMPTY), to_rgba(BACKGROUND, 0.0))
        colours[held] = SCALE(self.scale(fitness[held]))
        self.cells.set_facecolor(colours)


def _height(record: EvolutionRecord) -> float:
    """Inches: cells about square, within what a page bears."""
    return 4.6 if record.shape is None else float(np.clip(7.6 * record.shape[0] / record.shape[1], 2.3, 5.6))


def save_heatmap(record: EvolutionRecord, path: Path) -> None:
    """Draw every cell's fitness under the current policy.

    Raises:
        RunError: the file system refuses.
    """
    with styled():
        held, feasible = int((record.occupied & record.feasible).sum()), int(record.feasible.sum())
        subtitle = (
            f"generation {record.generations:,} · {record.env_steps:,} environment steps · "
            f"elites in {held:,} of {feasible:,} feasible cells"
        )
        drawn = _Map(record, subtitle)
        drawn.paint(record.fitness)
        save_png(drawn.figure, path)


def save_film(record: EvolutionRecord, path: Path) -> None:
    """Draw one frame for every snapshot that was taken, on one scale of colours; at least one must have been.

    Raises:
        RunError: the file system refuses.
    """
    taken = np.flatnonzero(record.history_generation >= 0)
    with styled():
        frames = _frames(record, taken)
    each = int(np.clip(FILM_MILLISECONDS / len(frames), QUICKEST, SLOWEST))
    images = _indexed(frames, _palette())
    durations = [each] * (len(images) - 1) + [HOLD_MILLISECONDS]
    with whole_file(path) as file:
        images[0].save(file, format="GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)


def _frames(record: EvolutionRecord, taken: Int[np.ndarray, "frames"]) -> UInt8[np.ndarray, "frames height width 3"]:
    """Draw everything once, then over it only what changes."""
    drawn = _Map(record, "")
    drawn.figure.set_dpi(GIF_DPI)
    drawn.cells.set_animated(True)
    drawn.line.set_animated(True)
    canvas = FigureCanvasAgg(drawn.figure)
    canvas.draw()
    background = canvas.copy_from_bbox(drawn.figure.bbox)
    frames = []
    for snapshot in taken:
        canvas.restore_region(background)
        drawn.paint(record.history_fitness[snapshot])
        elites = int((record.history_fitness[snapshot] > -np.inf).sum())
        drawn.line.set_text(f"generation {record.history_generation[snapshot]:,} · {elites:,} elites")
        drawn.axes.draw_artist(drawn.cells)
        drawn.axes.draw_artist(drawn.line)
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return np.stack(frames)


def _palette() -> UInt8[np.ndarray, "256 3"]:
    """Return the colours of all frames: the scale, what marks other cells, and the greys of type and its edges."""
    marks = [to_rgba(name)[:3] for name in (BACKGROUND, EMPTY, HATCH_INK, FRAME)]
    white = to_rgba(BACKGROUND)[:3]
    inks = [np.linspace(to_rgba(ink)[:3], white, 26, endpoint=False) for ink in (CAPTION, MUTED)]
    colours = np.concatenate([marks, *inks, SCALE(np.linspace(0, 1, 200))[:, :3]])
    return np.round(255 * colours).astype(np.uint8)


def _indexed(
    frames: UInt8[np.ndarray, "frames height width 3"], palette: UInt8[np.ndarray, "256 3"]
) -> list[Image.Image]:
    """Give every pixel the nearest colour of the palette; Pillow's own search is not exact, white would turn grey."""
    weights = np.array([65536, 256, 1], np.int32)
    codes = np.stack([frame.astype(np.int32) @ weights for frame in frames])
    is_used = np.zeros(256**3, bool)
    is_used[codes] = True
    used = np.flatnonzero(is_used)
    colours = np.stack([used >> 16, used >> 8 & 255, used & 255], axis=-1)
    nearest = np.zeros(256**3, np.uint8)
    nearest[used] = np.square(colours[:, None] - palette[None].astype(np.int64)).sum(axis=-1).argmin(axis=-1)
    images = [Image.fromarray(nearest[each], mode="P") for each in codes]
    for image in images:
        image.putpalette(palette.tobytes())
    return images
