"""A few frames of every screen, and how the page is told of them."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxrl_engine.core.scene import Scene
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf

FRAMES_PER_SECOND = 10
DIGITS = 3
"""Decimal places of a coordinate, where the picture is one unit wide: a third of a pixel of a screen."""
_LETTERS = np.frombuffer(b"0123456789abcdefghijklmnopqrstuvwxyz", np.uint8)


class Clip(Struct):
    """`F` consecutive steps in each of `n` worlds, in NumPy when it is shown."""

    scenes: Scene  # [F, n, …] before the step
    episode_return: Float[Leaf, "*frames"]  # [F, n] so far; of the whole episode where it ended
    step: Int[Leaf, "*frames"]  # [F, n] likewise
    ended: Bool[Leaf, "*frames"]  # [F, n] with this step the episode ended
    skills: Int[Leaf, "*frames tokens"] | None  # [F, n, 1 + A] in force: the team's, then each agent's


class Label(NamedTuple):
    """What stands under a screen."""

    text: str
    cell: int | None = None  # of the repertoire


def screens_message(clip: Clip, labels: Sequence[Label], sequence: int) -> dict[str, Any]:
    """Return the message of a clip whose worlds are of one kind."""
    screens = [screen(clip, world, label) for world, label in enumerate(labels)]
    return {"seq": sequence, "fps": FRAMES_PER_SECOND, "screens": screens}


def screen(clip: Clip, world: int, label: Label) -> dict[str, Any]:
    """Return what the page draws of one world: all numbers rounded to what can be seen."""
    scenes, frames = clip.scenes, []
    extent = np.asarray(scenes.extent[0, world], np.float64)
    size = max(extent[2] - extent[0], extent[3] - extent[1])
    places = DIGITS - math.floor(math.log10(size)) if size > 0 else DIGITS
    before = None
    for number in range(len(clip.step)):
        result = float(clip.episode_return[number, world])
        frame: dict[str, Any] = {
            "return": round(result, 4) if math.isfinite(result) else None, "step": int(clip.step[number, world]),
        }  # fmt: skip
        cells = _LETTERS[scenes.cells[number, world]].tobytes().decode()
        if cells != before:
            frame["cells"] = before = cells
        frame["lines"] = _shapes(scenes.lines[number, world], scenes.line_inks[number, world], places)
        frame["discs"] = _shapes(scenes.discs[number, world], scenes.disc_inks[number, world], places)
        if clip.skills is not None:
            frame["skills"] = clip.skills[number, world].tolist()
            frame["agents"] = np.asarray(scenes.agents[number, world], np.float64).round(places).ravel().tolist()
        if clip.ended[number, world]:
            frame["ended"] = True
        frames.append(frame)
    told = {"label": label.text, "extent": extent.round(places).tolist(), "frames": frames}
    if scenes.cells.size:
        told["grid"] = list(scenes.cells.shape[2:])
    if label.cell is not None:
        told["cell"] = label.cell
    return told


def _shapes(shapes: Float[Leaf, "shapes numbers"], inks: Int[Leaf, "shapes"], places: int) -> list[float]:
    """Return the numbers of those shapes that have an ink and a place, each followed by its ink."""
    drawn = (np.asarray(inks) > 0) & np.isfinite(shapes).all(axis=1)
    numbers = np.asarray(shapes, np.float64)[drawn].round(places)
    return np.column_stack([numbers, np.asarray(inks)[drawn]]).ravel().tolist()
