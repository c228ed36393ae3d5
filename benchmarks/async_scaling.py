"""The async mode with more and more actor threads, in a world in JAX and in one stepped from Python, beside sync.

    python -m benchmarks.async_scaling                       1, 2, 4 and 8 actors; Color Lines and Gymnasium's CartPole
    python -m benchmarks.async_scaling --workers 1 2         for a trial

All configurations are compiled and warmed up first; then each runs a few updates in turn, round after round. `sync` is
the mode of that name on the same world, networks and number of environments: PPO, each step learned from once, nothing
replayed. Gymnasium's worlds it cannot step.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.driver import spread
from benchmarks.machine import ROOT, provenance
from benchmarks.report import rate, table, write_json
from jaxrl_engine.core.config import Config
from jaxrl_engine.modes.actor_learner.program import AsyncProgram
from jaxrl_engine.modes.build import build
from jaxrl_engine.modes.fused import MAX_ROWS
from jaxrl_engine.modes.programs import make_program
from jaxrl_engine.runtime.config import load_config

WARM_UPDATES = 4
WORLDS = {"color_lines": "async_color_lines.yaml", "gymnasium:CartPole-v1": "async_cartpole.yaml"}


class Contestant:
    """One configuration, compiled and warm; its actors rest while others are measured, for want of tickets."""

    def __init__(self, config: Config, seconds: float) -> None:
        self.config = config
        built = build(config)
        self.program: Any = make_program(built)
        self.state = self.program.init(built.keys, built.hyper)
        self.chunk: Callable[..., Any] = self.program.compile(self.state)
        self._advance(WARM_UPDATES)
        self.updates = max(1, int(seconds * WARM_UPDATES / self._advance(WARM_UPDATES)[0]))

    def run(self) -> dict[str, float]:
        """Go on for about the agreed time."""
        seconds, idle = self._advance(self.updates)
        told = {"env_steps_per_second": self.updates * self.config.samples_per_update / seconds}
        return told | ({"learner_idle": float(np.mean(idle))} if idle else {})

    def _advance(self, updates: int) -> tuple[float, list[float]]:
        """Seconds of so many updates, and in the async mode the share of each that the learner waited."""
        begun, idle = time.perf_counter(), []
        for done in range(0, updates, MAX_ROWS):
            self.state, rows = self.chunk(self.state, np.int32(min(MAX_ROWS, updates - done)))
            rows = jax.device_get(rows)
            if isinstance(self.program, AsyncProgram):
                idle += [float(share) for share in rows.values["Async/LearnerIdle"][: int(rows.count)]]
        return time.perf_counter() - begun, idle

    def close(self) -> None:
        """End the actors."""
        if isinstance(self.program, AsyncProgram):
            self.program.close()


def contestants(file: str, workers: Sequence[int], seconds: float) -> dict[str, Contestant]:
    """Return one for each number of actors, and the sync mode where it can step the world."""
    config = load_config(ROOT / "configs" / file)
    every = dataclasses.replace(config.logging, every_updates=1)
    config = dataclasses.replace(config, logging=every)
    made = {}
    for number in workers:
        actors = dataclasses.replace(config.actors, num_workers=number)
        made[str(number)] = Contestant(dataclasses.replace(config, actors=actors), seconds)
    if not config.env.startswith("gymnasium:"):
        made["sync"] = Contestant(dataclasses.replace(config, mode="sync", algo="ppo"), seconds)
    return made


def measure(workers: Sequence[int], seconds: float, repetitions: int) -> dict[str, Any]:
    """Measure every world, and return what is published."""
    record: dict[str, Any] = {}
    for world, file in WORLDS.items():
        made = contestants(file, workers, seconds)
        rounds = [{name: each.run() for name, each in made.items()} for _ in range(repetitions)]
        for each in made.values():
            each.close()
        record[world] = {
            name: {metric: spread([told[name][metric] for told in rounds]) for metric in rounds[0][name]}
            for name in made
        }
    return record


def report(record: dict[str, Any]) -> str:
    """Return the record as a Markdown table."""
    rows = []
    for world, told in record.items():
        for name, each in told.items():
            idle = f"{each['learner_idle']['median']:.0%}" if "learner_idle" in each else ""
            rows.append([world, name, rate(each["env_steps_per_second"]["median"]), idle])
    return table(("world", "actors", "environment steps/s, training included", "learner waits"), rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write everything measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.async_scaling", description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=4.0, help="of each in a round")
    parser.add_argument("--repetitions", type=int, default=5, help="rounds")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "async_scaling.json")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    origin = provenance()
    record = measure(options.workers, options.seconds, options.repetitions)
    write_json(options.output, {**origin, "record": record})
    print(report(record))


if __name__ == "__main__":
    main()
