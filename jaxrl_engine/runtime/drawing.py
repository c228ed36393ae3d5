"""Moving pictures of planar arms, drawn with Pillow: no window, no graphics driver."""

import math
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw

from jaxrl_engine.core.struct import Struct

PANEL_PIXELS = 160
SUPERSAMPLING = 2  # drawn larger, then reduced: smooth edges
FRAME_MILLISECONDS = 60
HOLD_FRAMES = 12  # the last frame stays a while before the loop begins again
BACKGROUND, GRID, ARM, JOINT = "#ffffff", "#e3e6ea", "#33506b", "#16283a"
TARGET, REACHED = "#d9822b", "#2f9e5b"


class Film(Struct):
    """What is to be seen of `B` arms over `T` frames. Lengths in metres, the shoulder at the origin."""

    joints: Float[np.ndarray, "T B points 2"]  # shoulder, joints, tip
    target: Float[np.ndarray, "T B 2"]
    reached: Bool[np.ndarray, "T B"]
    reach: float  # radius shown around the shoulder


def save_gif(film: Film, path: Path) -> None:
    """Write the film as an endless GIF, one panel per arm."""
    frames = [_frame(film, index) for index in range(film.joints.shape[0])]
    frames += frames[-1:] * HOLD_FRAMES
    palette = frames[-1].quantize(colors=32)
    images = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    images[0].save(path, save_all=True, append_images=images[1:], duration=FRAME_MILLISECONDS, loop=0, optimize=True)


def _frame(film: Film, index: int) -> Image.Image:
    count = film.joints.shape[1]
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    size = PANEL_PIXELS * SUPERSAMPLING
    image = Image.new("RGB", (columns * size, rows * size), BACKGROUND)
    draw = ImageDraw.Draw(image)
    for arm in range(count):
        corner = np.array([arm % columns, arm // columns]) * size
        _panel(draw, film, index, arm, corner, size)
    return image.resize((columns * PANEL_PIXELS, rows * PANEL_PIXELS), Image.Resampling.LANCZOS)


def _panel(draw: ImageDraw.ImageDraw, film: Film, index: int, arm: int, corner: np.ndarray, size: int) -> None:
    scale = 0.46 * size / film.reach
    middle = corner + size / 2

    def place(point: np.ndarray) -> tuple[float, float]:
        return float(middle[0] + scale * point[0]), float(middle[1] - scale * point[1])

    def disc(point: np.ndarray, radius: float, **paint: str | int) -> None:
        x, y = place(point)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), **paint)  # type: ignore[arg-type]

    disc(np.zeros(2), scale * film.reach, outline=GRID, width=SUPERSAMPLING)
    disc(film.target[index, arm], 0.03 * size, fill=REACHED if film.reached[index, arm] else TARGET)
    points = film.joints[index, arm]
    draw.line([place(point) for point in points], fill=ARM, width=round(0.025 * size), joint="curve")
    for point in points:
        disc(point, 0.016 * size, fill=JOINT)
