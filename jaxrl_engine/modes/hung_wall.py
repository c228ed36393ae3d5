"""The wall of one run of a mode, from its first line of text to its last message; or none."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

from jaxrl_engine.core.types import PyTree
from jaxrl_engine.live.wall import Wall, WallOptions
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
UNSEEN = "This world has no pictures; the charts tell how it goes."


class HungWall:
    """A wall that knows the run it belongs to; without a wall it does nothing."""

    def __init__(self, built: Build, wall: Wall | None, options: WallOptions, address: Sequence[str]) -> None:
        self._built, self._wall, self._options, self._address = built, wall, options, address

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

    @contextlib.contextmanager
    def watching(self, program: Any, state: PyTree, run: RunDirectory) -> Iterator[Onlooker | None]:
        """Show a resumed run's earlier rows, and look at its states from now on."""
        if self._wall is None:
            yield None
            return
        self._wall.curves.read(run.metrics_path)
        atlas = None
        if isinstance(program, FusedProgram) and isinstance(program.trainer, Evolution):
            atlas = Atlas(program.trainer.space)
        onlooker = Onlooker(self._built, self._wall, state, atlas)
        try:
            yield onlooker
        finally:
            onlooker.close()


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
    note = ELITES if config.mode == "map-elites" else BESIDE if built.num_runs is None else SINGLE
    make = functools.partial(Wall, title=config.env, mode=config.mode, algo=config.algo, screens=options.screens)
    with make(note=note) as wall:
        wall.head(total_steps=config.num_updates * config.samples_per_update)
        yield HungWall(built, wall, options, wall.serve(options.host, options.port) if options.live else ())
