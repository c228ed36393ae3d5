"""Where actors leave pictures of worlds that cannot be drawn from scenes, and what the page is shown of them.

A message is one frame of all environments on show: their pictures as one JPEG, tile by tile, with what is to be written
on each. Whoever leaves pictures makes it, if the last one is long enough ago and nobody else is making one.
"""

import base64
import dataclasses
import io
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from jaxrl_engine.core.checks import require
from jaxrl_engine.live.clip import FRAMES_PER_SECOND

PERIOD = 1.0 / FRAMES_PER_SECOND
"""Seconds between two pictures of an actor, and between two messages."""
COLUMNS = 4
QUALITY = 80
"""Of the JPEG: text on a screen can still be read."""


@dataclasses.dataclass(frozen=True)
class Left:
    """What an actor left last."""

    pictures: UInt8[np.ndarray, "n height width 3"]
    returns: Float[np.ndarray, "n"]
    steps: Int[np.ndarray, "n"]
    ended: Bool[np.ndarray, "n"]  # since the last message


class Easel:
    """All methods may be called from any thread."""

    def __init__(
        self, publish: Callable[[str, dict[str, Any]], None], watched: Callable[[], bool], screens: int, num_actors: int
    ) -> None:
        """Share `screens` out over the actors, the first of them getting what is left over.

        Raises:
            ValueError: there are no screens, or no actors.
        """
        require(screens >= 1, "screens", "a whole number >= 1", screens)
        require(num_actors >= 1, "num_actors", "a whole number >= 1", num_actors)
        self._publish, self._watched = publish, watched
        self._shares = [screens // num_actors + (actor < screens % num_actors) for actor in range(num_actors)]
        self._last = [-math.inf] * num_actors
        self._left: list[Left | None] = [None] * num_actors
        self._lock = threading.Lock()
        self._composing = threading.Lock()
        self._composed = -math.inf
        self._seq = 0

    def share(self, actor: int) -> int:
        """Return how many environments of this actor are on show."""
        return self._shares[actor]

    def due(self, actor: int) -> bool:
        """Say whether an actor's pictures are wanted now: somebody watches, and its last are a period ago."""
        late = time.monotonic() - self._last[actor] >= PERIOD
        return late and self._shares[actor] > 0 and self._watched()

    def dismiss(self, actor: int) -> None:
        """Take an actor's pictures down and ask for no more of them: it has none."""
        with self._lock:
            self._shares[actor] = 0
            self._left[actor] = None

    def put(
        self,
        actor: int,
        pictures: UInt8[np.ndarray, "n height width 3"],
        returns: Float[np.ndarray, "n"],
        steps: Int[np.ndarray, "n"],
        ended: Bool[np.ndarray, "n"],
    ) -> None:
        """Take over pictures of `n` environments of an actor, and publish a message if the last is a period ago.

        `ended` says whether an episode ended since the actor's last pictures; `returns` and `steps` are then those of
        that episode. An end is kept until it was in a message. The arrays belong to the easel from now on.
        """
        now = time.monotonic()
        with self._lock:
            self._last[actor] = now
            if self._shares[actor]:
                self._left[actor] = _merged(self._left[actor], Left(pictures, returns, steps, ended))
        if not self._composing.acquire(blocking=False):
            return
        try:
            if now - self._composed >= PERIOD:
                self._compose(now)
        finally:
            self._composing.release()

    def _compose(self, now: float) -> None:
        """Publish what there is."""
        with self._lock:
            shown = [(actor, left) for actor, left in enumerate(self._left) if left is not None]
            for actor, left in shown:
                self._left[actor] = dataclasses.replace(left, ended=np.zeros_like(left.ended))
        if not shown:
            return
        self._composed = now
        self._seq += 1
        screens = [screen for actor, left in shown for screen in _screens(actor, left)]
        tiles = [picture for _, left in shown for picture in left.pictures]
        self._publish(
            "screens", {"seq": self._seq, "fps": FRAMES_PER_SECOND, "mosaic": mosaic(tiles), "screens": screens}
        )


def mosaic(tiles: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> dict[str, Any]:
    """Return pictures as tiles of one JPEG, row by row, each in the middle of a tile as large as the largest."""
    height, width = (max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
    columns = min(COLUMNS, len(tiles))
    whole = np.zeros((-(-len(tiles) // columns) * height, columns * width, 3), np.uint8)
    for number, tile in enumerate(tiles):
        top = number // columns * height + (height - tile.shape[0]) // 2
        left = number % columns * width + (width - tile.shape[1]) // 2
        whole[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    file = io.BytesIO()
    Image.fromarray(whole).save(file, "JPEG", quality=QUALITY)
    image = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    return {"columns": columns, "width": width, "height": height, "images": [image]}


def _merged(old: Left | None, new: Left) -> Left:
    """Return the new pictures, with the ends of episodes that no message has told of yet."""
    if old is None or len(old.ended) != len(new.ended):
        return new
    kept = old.ended & ~new.ended
    return Left(
        pictures=new.pictures, returns=np.where(kept, old.returns, new.returns),
        steps=np.where(kept, old.steps, new.steps), ended=old.ended | new.ended,
    )  # fmt: skip


def _screens(actor: int, left: Left) -> list[dict[str, Any]]:
    """Return what is written on an actor's tiles; JSON has no numbers that are not finite."""
    return [
        {
            "label": f"actor {actor}, world {world}",
            "frames": [{"return": got if math.isfinite(got) else None, "step": steps, "ended": ended}],
        }
        for world, (got, steps, ended) in enumerate(
            zip(left.returns.tolist(), left.steps.tolist(), left.ended.tolist(), strict=True)
        )
    ]
