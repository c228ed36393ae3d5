"""The wall of one run of a mode, from its first line of text to its last message; or none."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

from jaxrl_engine.core.types import PyTree
from jaxrl_engine.envs.host.environment import HostEnvironment
from jaxrl_engine.live.wall import Wall, WallOptions
from jaxrl_engine.modes.actor_learner.program import AsyncProgram
from jaxrl_engine.modes.build import Build
from jaxrl_engine.modes.fused import FusedProgram
from jaxrl_engine.modes.map_elites.atlas import Atlas
from jaxrl_engine.modes.map_elites.evolution import Evolution
from jaxrl_engine.modes.onlooker import Onlooker
from jaxrl_engine.runtime.progress import Progress
from jaxrl_engine.runtime.run_directory import RunDirectory

BESIDE = "The newest policy, playing in worlds of its own beside training."
SINGLE = "The newest policy of the first of several seeds, playing in worlds of its own beside training."
ELITES = "Elites from all over the repertoire, moved by the newest policy."
ACTORS = "What the actors' own worlds show, as often as they have the time to draw it."


class HungWall:
    """A wall that knows the run it belongs to; without a wall it does nothing."""

    def __init__(self, built: Build, wall: Wall | None, options: WallOptions, address: Sequence[str]) -> None:
        self._built, self._wall, self._options, self._address = built, wall, options, address
        self._onlooker: Onlooker | None = None

    def begin(self, run: RunDirectory, progress: Progress) -> None:
        """Say where the wall is; record from now on, if that was asked for."""
        for line in self._address:
            progress.message(line)
        if self._wall is not None and self._options.record:
            self._wall.record(run.path, progress.message)

    def tell(self, **fields: Any) -> None:
        """Change the head of the page."""
        if self._wall is not None:
            self._wall.head(**fields)

    @property
    def sinks(self) -> list[Wall]:
        """Where rows of metrics go besides the files."""
        return [] if self._wall is None else [self._wall]

    def onlooker(self, program: Any, state: PyTree) -> Onlooker | None:
        """Return who looks at the run's states; what that takes is compiled from now on, in the background."""
        if self._wall is None:
            return None
        if isinstance(program, AsyncProgram) and isinstance(self._built.env, HostEnvironment):
            program.easel = self._wall.easel(self._built.config.actors.num_workers)
        atlas = None
        if isinstance(program, FusedProgram) and isinstance(program.trainer, Evolution):
            atlas = Atlas(program.trainer.space)
        self._onlooker = Onlooker(self._built, self._wall, state, atlas)
        return self._onlooker

    def ready(self) -> None:
        """Wait until the onlooker can look."""
        if self._onlooker is not None:
            self._onlooker.ready()

    def close(self) -> None:
        """Wait for what is still being compiled."""
        if self._onlooker is not None:
            self._onlooker.close()

    def remember(self, run: RunDirectory) -> None:
        """Put the rows that a resumed run has written before on the charts."""
        if self._wall is not None:
            self._wall.curves.read(run.metrics_path)


@contextlib.contextmanager
def hang_wall(built: Build, options: WallOptions) -> Iterator[HungWall]:
    """Make the wall that was asked for, and serve it until the block ends.

    Raises:
        UserError: the host is no address of this machine, or no port is free.
    """
    if not options.wanted:
        yield HungWall(built, None, options, ())
        return
    config = built.config
    note = BESIDE if built.num_runs is None else SINGLE
    if config.mode == "map-elites":
        note = ELITES
    elif isinstance(built.env, HostEnvironment):
        note = ACTORS
    make = functools.partial(Wall, title=config.env, mode=config.mode, algo=config.algo, screens=options.screens)
    with make(note=note) as wall:
        wall.head(total_steps=config.num_updates * config.samples_per_update)
        hung = HungWall(built, wall, options, wall.serve(options.host, options.port) if options.live else ())
        try:
            yield hung
        finally:
            hung.close()
