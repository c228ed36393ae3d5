"""Between a run and its wall: takes a look at the state between two chunks, and tells the page what it saw.

A look is started like an evaluation, before the state is given away to the next chunk, and read one chunk later: the
device never waits for it. Where nobody watches there is none.
"""

import itertools
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import PyTree, TrainState
from jaxrl_engine.envs.protocol import Embodied, Pictured
from jaxrl_engine.live.clip import FRAMES_PER_SECOND, Clip, Label, screens_message
from jaxrl_engine.live.wall import Wall
from jaxrl_engine.modes.build import Build
from jaxrl_engine.modes.map_elites.atlas import Atlas
from jaxrl_engine.modes.placement import on_first_device
from jaxrl_engine.modes.screens import MOST_FRAMES, Casting, Screens, Stage, elites, same_worlds
from jaxrl_engine.qd.repertoire import Repertoire
from jaxrl_engine.runtime.errors import one_line
from jaxrl_engine.runtime.logs import log

WALL_STREAM = 7
"""Folded into a run's seed key: what the wall's worlds draw is nobody else's."""
FIRST_FRAMES = FRAMES_PER_SECOND
"""Of a clip after a time in which nobody watched."""
TOUR_SECONDS = 20.0
"""After which other elites are shown."""


class Seen(Struct):
    """What a look at the state gives."""

    stage: Stage
    clip: Clip
    repertoire: Repertoire | None


class Onlooker:
    """Looks at the states of one run. Where its world cannot be drawn, it only says how far the run is.

    Its programs are compiled in a thread of its own, beside those of the run; `ready` waits for them.
    """

    def __init__(self, built: Build, wall: Wall, state: PyTree, atlas: Atlas | None) -> None:
        self.wall = wall
        self._atlas, self._several = atlas, built.num_runs is not None
        num_cells = wall.screens if atlas is None else atlas.space.cells.num_cells  # which may be fewer
        self._cells: Int[np.ndarray, "n"] = np.arange(wall.screens, dtype=np.int32) % num_cells
        self._last: float | None = None
        self._toured = -TOUR_SECONDS
        self._held: Int[np.ndarray, "held"] = np.arange(0)
        self._clips, self._tours = itertools.count(), itertools.count()
        self._stage: Any = None
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="wall-compiler")
        self._program: Future[Any] | None = None
        screens = _screens(built, wall.screens)
        if screens is not None:
            shapes = jax.tree.map(_shape, on_first_device((state.train_state, self._source(state))))
            key = jax.random.fold_in(jax.random.key(built.config.seed), WALL_STREAM)
            self._program = self._pool.submit(self._compile, screens, shapes, key)

    def ready(self) -> None:
        """Wait until it can look. What cannot be compiled is not shown, and the run goes on."""
        if self._program is None:
            return
        problem = self._program.exception()
        if problem is not None:
            log.warning("the wall shows no worlds: %s: %s", type(problem).__name__, one_line(problem))
            self._program = None

    def look(self, state: PyTree) -> Callable[[], None] | None:
        """Start a look where somebody watches; return what shows it, to be called when the device may be waited for.

        The first look is taken in any case: whoever comes later has a picture at once.
        """
        if self._program is None:
            return None
        if self._stage is not None and not self.wall.watched:
            self._last = None
            return None
        begin, play = self._program.result()
        (train_state, source), now = on_first_device((state.train_state, self._source(state))), time.monotonic()
        frames = FIRST_FRAMES if self._last is None else int((now - self._last) * FRAMES_PER_SECOND)
        if frames == 0:
            return None
        self._last = now if self._last is None else self._last + frames / FRAMES_PER_SECOND
        frames = min(frames, MOST_FRAMES)
        cells = self._cast(now)
        if self._stage is None:
            self._stage = begin(source, cells)
        seen = play(train_state, source, self._stage, cells, np.int32(frames))
        self._stage = seen.stage
        return lambda: self._show(seen, frames, cells)

    def report(self, row: Mapping[str, Any], shown: Mapping[str, Any], progress: Mapping[str, Any]) -> None:
        """Pass on how far the run is: its newest row of metrics, those of them that people look for, and counters."""
        version = row.get("Sync/PolicyVersion")
        facts = [[label, f"{value:,.4g}"] for label, value in shown.items()]
        self.wall.head(**progress, facts=facts, policy_version=None if version is None else int(version))

    def close(self) -> None:
        """Wait for the compiler: it must not be cut off in the middle."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    # --- how -------------------------------------------------------------------------------------------------------

    def _source(self, state: PyTree) -> Repertoire | None:
        return state.actor.repertoire if self._atlas is not None else None

    def _compile(self, screens: Screens, shapes: tuple[Any, Any], key: Any) -> tuple[Any, Any]:
        """Compile the two programs; of several runs the first is shown."""
        train_state, source = shapes
        cells = jax.ShapeDtypeStruct((self.wall.screens,), jnp.int32)

        def first(tree: PyTree) -> PyTree:
            return jax.tree.map(lambda leaf: leaf[0], tree) if self._several else tree

        def begin(source: Any, cells: Array) -> Stage:
            return screens.begin(key, Casting(repertoire=first(source), cells=cells))

        def play(train_state: TrainState, source: Any, stage: Stage, cells: Array, frames: Array) -> Seen:
            repertoire = first(source)
            casting = Casting(repertoire=repertoire, cells=cells)
            stage, clip = screens.play(first(train_state), stage, casting, frames)
            return Seen(stage=stage, clip=clip, repertoire=repertoire)

        begun = jax.jit(begin).lower(source, cells)
        stage = jax.eval_shape(begin, source, cells)
        playing = jax.jit(play).lower(train_state, source, stage, cells, jax.ShapeDtypeStruct((), jnp.int32))
        return begun.compile(), playing.compile()

    def _cast(self, now: float) -> Int[np.ndarray, "n"]:
        """Choose whose bodies play: elites from all over the repertoire, others after a while, the asked one first."""
        count, held = self.wall.screens, self._held
        if held.size and now - self._toured >= TOUR_SECONDS:
            self._toured = now
            spread = np.linspace(0, len(held), count, endpoint=False).astype(int)
            self._cells = held[(spread + next(self._tours)) % len(held)].astype(np.int32)
        cells = self._cells.copy()
        if self.wall.chosen is not None and self.wall.chosen in held:
            cells[0] = self.wall.chosen
        return cells

    def _show(self, seen: Seen, frames: int, cells: Int[np.ndarray, "n"]) -> None:
        clip, repertoire = jax.device_get((seen.clip, seen.repertoire))
        clip = jax.tree.map(lambda leaf: leaf[:frames], clip)
        labels = [Label(f"world {world + 1}") for world in range(len(cells))]
        if self._atlas is not None:
            atlas = self._atlas
            self._held = np.flatnonzero(repertoire.fitness > -np.inf)
            labels = atlas.labels(repertoire, cells)
            chosen = self.wall.chosen
            self.wall.put("map", lambda: atlas.message(repertoire, cells, chosen))
        number = next(self._clips)
        self.wall.put("screens", lambda: screens_message(clip, labels, number))


def _screens(built: Build, count: int) -> Screens | None:
    env: Any = built.env
    if not isinstance(env, Pictured):
        return None
    if built.config.mode == "map-elites":
        assert isinstance(env, Embodied)  # `modes.build` admits no other
        return elites(built.algorithm, env, built.config.qd, count)
    return same_worlds(built.algorithm, env, built.env_params, count)


def _shape(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
