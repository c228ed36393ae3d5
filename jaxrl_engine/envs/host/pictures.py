"""Pictures of worlds outside JAX: those that draw themselves are made for it, and draw only when they are asked.

No JAX here: worker processes import this.
"""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

RENDER_MODE = "rgb_array"
MAX_HEIGHT = 160
"""Pixels: a picture is a tile among others."""
_WITHIN = ("env", "aec_env", "unwrapped")
"""Where wrappers keep what they wrap."""
_WITHOUT_A_SCREEN = {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy", "PYGAME_HIDE_SUPPORT_PROMPT": "1"}
"""For pygame, which otherwise looks for a display and a sound card, and greets on standard output."""


class NoPictures(Exception):
    """A world has none; the text says why."""


class Canvas:
    """A world that draws itself. It has no render mode but while it draws: some worlds draw at every step otherwise."""

    def __init__(self, world: Any) -> None:
        """Take the render mode from every layer of the world.

        Raises:
            NoPictures: no layer has one that can be taken away.
        """
        self._world = world
        self._layers = [layer for layer in _layers(world) if vars(layer).get("render_mode") == RENDER_MODE]
        if not self._layers:
            raise NoPictures(f"it keeps its render mode {RENDER_MODE} to itself")
        self._give(None)

    def draw(self) -> UInt8[np.ndarray, "height width 3"]:
        """Return what the world looks like now, reduced. Whatever the world raises is passed on."""
        self._give(RENDER_MODE)
        try:
            return reduced(self._world.render())
        finally:
            self._give(None)

    def _give(self, mode: str | None) -> None:
        for layer in self._layers:
            layer.render_mode = mode


class Canvases:
    """Worlds made one by one, and how to draw each of them."""

    def __init__(self, kind: Any) -> None:
        """Get ready for worlds of this kind: a class whose `metadata` declares render modes. Others are left alone."""
        declared = (getattr(kind, "metadata", None) or {}).get("render_modes") or ()
        self._reason = "" if RENDER_MODE in declared else f"{RENDER_MODE} is none of its render modes"
        self._canvases: list[Canvas] = []

    def make(self, construct: Callable[..., Any]) -> Any:
        """Return `construct(render_mode=…)`, or `construct()` where the first cannot be had or is of no use."""
        if not self._reason:
            try:
                _spare_the_screen()
                world = construct(render_mode=RENDER_MODE)
                self._canvases.append(_canvas(world))
                return world
            except Exception as error:  # what is wrong with the world itself, it says again without a mode
                self._reason = told(error)
        return construct()

    def draw(self, count: int) -> UInt8[np.ndarray, "n height width 3"]:
        """Return pictures of the first `count` worlds.

        Raises:
            NoPictures: they cannot draw themselves. Whatever else a world raises is passed on.
        """
        if self._reason:
            raise NoPictures(self._reason)
        return stacked([canvas.draw() for canvas in self._canvases[:count]])


def _canvas(world: Any) -> Canvas:
    """Return a world's canvas, or close it."""
    try:
        return Canvas(world)
    except BaseException:
        world.close()
        raise


def reduced(picture: Any) -> UInt8[np.ndarray, "height width 3"]:
    """Return every k-th pixel of a picture, each way, with the smallest k that leaves at most `MAX_HEIGHT` rows.

    Raises:
        NoPictures: it is no RGB picture of bytes.
    """
    if (
        not isinstance(picture, np.ndarray)
        or picture.dtype != np.uint8
        or picture.shape[2:] != (3,)
        or not picture.size
    ):
        shape = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise NoPictures(f"what it draws is no RGB picture of bytes: {shape}")
    step = -(-picture.shape[0] // MAX_HEIGHT)
    return np.ascontiguousarray(picture[::step, ::step])


def stacked(pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> UInt8[np.ndarray, "n height width 3"]:
    """Stack pictures of any sizes, each in the top left corner of a black one as large as the largest."""
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    room = np.zeros((len(pictures), height, width, 3), np.uint8)
    for whole, picture in zip(room, pictures, strict=True):
        whole[: picture.shape[0], : picture.shape[1]] = picture
    return room


def told(error: Exception) -> str:
    """Return what went wrong, in one line."""
    text = (str(error).splitlines() or [""])[0]
    return text if isinstance(error, NoPictures) else f"{type(error).__name__}: {text}"


def _layers(world: Any) -> list[Any]:
    """Return a world and what it wraps, from the outside in."""
    found: dict[int, Any] = {}
    rest = [world]
    while rest:
        layer = rest.pop()
        if id(layer) not in found and hasattr(layer, "__dict__"):
            found[id(layer)] = layer
            rest += [getattr(layer, name, None) for name in _WITHIN]
    return list(found.values())


@functools.cache
def _spare_the_screen() -> None:
    """No window shall open, no sound card be sought, and none is needed. What the user has set stays."""
    for name, value in _WITHOUT_A_SCREEN.items():
        os.environ.setdefault(name, value)
