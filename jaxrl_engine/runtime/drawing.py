"""Pictures drawn with Pillow, without a window or a graphics driver: films of worlds, and maps of how often."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from jaxrl_engine.core.scene import Ink, Scene
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.runtime.errors import RunError, one_line

PANEL_PIXELS = 176
CAPTION_PIXELS = 18
SUPERSAMPLING = 2  # drawn larger, then reduced: smooth edges
FRAME_MILLISECONDS = 80
GIF_COLOURS = 128
PALETTE_PIXELS = 4  # rows of each ink among the pictures that a palette is made for
HOLD_FRAMES = 12  # the last frame stays a while before the loop begins again
MARGIN = 0.04  # of a panel, around the scene
BACKGROUND, CAPTION, FRAME = "#ffffff", "#33414e", "#d5dae0"
COLOURS = {
    Ink.FAINT: "#e8ebef", Ink.WALL: "#8a94a0", Ink.BODY: "#33506b", Ink.JOINT: "#16283a",
    Ink.GOAL: "#e9a13b", Ink.REACHED: "#2f9e5b",
}  # fmt: skip
DISTINCT_COLOURS = ("#1f6fb4", "#d1495b", "#6b4fa0", "#00898a", "#b5651d", "#7a9a01", "#c45ab3", "#5b6770")


class Film(Struct):
    """What is to be seen of `B` worlds over `T` frames."""

    scenes: Scene | None  # [T, B, …], NumPy
    captions: tuple[tuple[str, ...], ...]  # [T][B], one line under each panel
    panels: Sequence[Sequence[Image.Image]] | None = None  # [B][T] pictures instead of the scenes drawn


def colour(ink: int) -> str:
    """Return the colour in which an ink other than `Ink.NOTHING` is drawn."""
    return COLOURS[Ink(ink)] if ink < Ink.FIRST else DISTINCT_COLOURS[(ink - Ink.FIRST) % len(DISTINCT_COLOURS)]


def draw_film(film: Film) -> list[Image.Image]:
    """Return the film's pictures, one panel per world, the last of them `HOLD_FRAMES` times more."""
    frames = [_frame(film, index) for index in range(len(film.captions))]
    return frames + frames[-1:] * HOLD_FRAMES


def save_gif(frames: Sequence[Image.Image], path: Path) -> None:
    """Write pictures of one size as an endless GIF.

    Raises:
        RunError: the file cannot be written.
    """
    palette = _palette(frames)
    first, *rest = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    try:
        first.save(path, "GIF", save_all=True, append_images=rest, duration=FRAME_MILLISECONDS, loop=0, optimize=True)
    except OSError as error:
        raise RunError(f"{path}: {one_line(error)}") from error


def _palette(frames: Sequence[Image.Image]) -> Image.Image:
    """Colours of the first, middle and last picture, and every ink: that of a small thing would be averaged away."""
    width, height = frames[0].size
    inks = (*COLOURS.values(), *DISTINCT_COLOURS)
    sheet = Image.new("RGB", (width, 3 * height + PALETTE_PIXELS * len(inks)), BACKGROUND)
    for index, frame in enumerate((frames[0], frames[len(frames) // 2], frames[-1])):
        sheet.paste(frame, (0, index * height))
    for index, ink in enumerate(inks):
        sheet.paste(ink, (0, 3 * height + PALETTE_PIXELS * index, width, 3 * height + PALETTE_PIXELS * (index + 1)))
    return sheet.quantize(colors=GIF_COLOURS)


def draw_scene(scene: Scene, pixels: int) -> Image.Image:
    """Return a square picture of one scene (without batch axes)."""
    image = Image.new("RGB", (pixels, pixels), BACKGROUND)
    draw = ImageDraw.Draw(image)
    left, bottom, right, top = (float(edge) for edge in scene.extent)
    scale = (1 - 2 * MARGIN) * pixels / max(right - left, top - bottom)
    corner = np.array([pixels - scale * (right - left), pixels - scale * (top - bottom)]) / 2

    def place(x: float, y: float) -> tuple[float, float]:
        return float(corner[0] + scale * (x - left)), float(corner[1] + scale * (top - y))

    rows, columns = scene.cells.shape
    for row, column in zip(*np.nonzero(scene.cells), strict=True):
        width, height = (right - left) / columns, (top - bottom) / rows
        x, y = left + column * width, top - row * height
        draw.rectangle((*place(x, y), *place(x + width, y - height)), fill=colour(int(scene.cells[row, column])))
    for (x0, y0, x1, y1, width), ink in _drawn(scene.lines, scene.line_inks):
        draw.line((place(x0, y0), place(x1, y1)), fill=colour(ink), width=max(round(scale * width), 1))
    for (x, y, radius), ink in _drawn(scene.discs, scene.disc_inks):
        (u, v), r = place(x, y), max(scale * radius, 1.0)
        draw.ellipse((u - r, v - r, u + r, v + r), fill=colour(ink))
    return image


def save_maps(
    maps: Float[np.ndarray, "rows columns height width"], row_names: Sequence[str], column_names: Sequence[str],
    title: str, path: Path,
) -> None:  # fmt: skip
    """Write a table of maps as a PNG; each map's darkest cell is its largest value, white is 0.

    A map without any value is crossed out.
    """
    rows, columns = maps.shape[:2]
    edge, size, font = 84, PANEL_PIXELS, ImageFont.load_default(12)
    image = Image.new("RGB", (edge + columns * size, 2 * CAPTION_PIXELS + 12 + rows * size), BACKGROUND)
    draw = ImageDraw.Draw(image)
    draw.text((8, 6), title, fill=CAPTION, font=ImageFont.load_default(13))
    above = 2 * CAPTION_PIXELS + 8
    for column, name in enumerate(column_names):
        draw.text((edge + column * size, above - CAPTION_PIXELS), name, fill=CAPTION, font=font)
    for row, name in enumerate(row_names):
        draw.text((8, above + row * size), name, fill=CAPTION, font=font)
        for column in range(columns):
            corner = (edge + column * size, above + row * size)
            box = (*corner, corner[0] + size - 10, corner[1] + size - 10)
            image.paste(_heat(maps[row, column], size - 10), corner)
            draw.rectangle(box, outline=FRAME)
            if not maps[row, column].any():
                draw.line(box, fill=FRAME)
    image.save(path)


def _heat(values: Float[np.ndarray, "height width"], pixels: int) -> Image.Image:
    share = values / max(float(values.max()), 1e-30)
    paper, ink = np.array([255.0, 255.0, 255.0]), np.array([20.0, 60.0, 110.0])
    shade = paper + np.sqrt(share)[..., None] * (ink - paper)
    return Image.fromarray(shade.astype(np.uint8)).resize((pixels, pixels), Image.Resampling.NEAREST)


def _drawn(shapes: Any, inks: Any) -> list[tuple[tuple[float, ...], int]]:
    """Return those shapes that have an ink, as Python numbers."""
    return [(tuple(map(float, shape)), int(ink)) for shape, ink in zip(shapes, inks, strict=True) if ink]


def _frame(film: Film, index: int) -> Image.Image:
    captions = film.captions[index]
    columns = math.ceil(math.sqrt(len(captions)))
    rows = math.ceil(len(captions) / columns)
    height = PANEL_PIXELS + CAPTION_PIXELS
    picture = Image.new("RGB", (columns * PANEL_PIXELS, rows * height), BACKGROUND)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    for number, caption in enumerate(captions):
        corner = (number % columns * PANEL_PIXELS, number // columns * height)
        picture.paste(film.panels[number][index] if film.panels else _panel(film, index, number), corner)
        draw.text((corner[0] + 7, corner[1] + PANEL_PIXELS - 2), caption, fill=CAPTION, font=font)
    return picture


def _panel(film: Film, index: int, number: int) -> Image.Image:
    scene = jax.tree.map(lambda leaf: leaf[index, number], film.scenes)
    drawn = draw_scene(scene, SUPERSAMPLING * PANEL_PIXELS)
    return drawn.resize((PANEL_PIXELS, PANEL_PIXELS), Image.Resampling.LANCZOS)
