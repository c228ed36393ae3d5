"""Collection alone, nothing learned: actors that are threads against as many that are processes of Ray's.

    python -m benchmarks.ray_collection                                1, 2 and 4 actors in Color Lines
    python -m benchmarks.ray_collection --workers 2 --seconds 1        for a trial

All are compiled and warmed up first. Then, round after round, both kinds collect in turn with each number of actors,
the kind that begins changing from round to round; the ratio is taken within a round.
"""

import argparse
import dataclasses
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax

from benchmarks.driver import spread
from benchmarks.machine import ROOT, provenance
from benchmarks.report import rate, table, write_json
from jaxrl_engine.core.config import Config
from jaxrl_engine.modes.actor_learner.program import make_source
from jaxrl_engine.modes.actor_learner.ray_collector import RaySource
from jaxrl_engine.modes.build import build
from jaxrl_engine.runtime.config import load_config
from jaxrl_engine.runtime.devices import enable_compile_cache

GOAL = 0.8
"""Of the threads' speed, on one machine."""


class Contestant:
    """So many actors of one kind, compiled and warm; they rest while others are measured."""

    def __init__(self, config: Config, kind: Literal["threads", "ray"], workers: int) -> None:
        actors = dataclasses.replace(config.actors, kind=kind, num_workers=workers)
        config = dataclasses.replace(config, actors=actors)
        built, share = build(config), config.num_envs // workers
        self.behaviour = jax.jit(built.algorithm.init)(built.keys, built.hyper).replace(optimizer=None)
        self.steps = config.num_steps * share
        self.source = make_source(built, share)
        self.source.compile(self.behaviour)
        keys = jax.random.split(jax.random.key(1), workers)
        self.collectors = [self.source.begin(key, index) for index, key in enumerate(keys)]
        self.rollouts = [0] * workers
        self.run(0.0)

    def run(self, seconds: float) -> float:
        """Environment steps/s of all actors together; each does the rollouts it begins within these seconds."""
        done, begun = sum(self.rollouts), time.perf_counter()

        def work(index: int) -> None:
            while True:
                key = jax.random.fold_in(jax.random.key(index), self.rollouts[index])
                self.collectors[index].collect(self.behaviour, key)
                self.rollouts[index] += 1
                if time.perf_counter() >= begun + seconds:
                    return

        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(self.collectors))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return (sum(self.rollouts) - done) * self.steps / (time.perf_counter() - begun)

    def close(self) -> None:
        """End the actors."""
        for collector in self.collectors:
            collector.close()
        if isinstance(self.source, RaySource):
            self.source.close()


def measure(config: Config, workers: Sequence[int], seconds: float, repetitions: int) -> dict[str, Any]:
    """Measure both kinds with every number of actors, and return what is published."""
    pairs = {number: [Contestant(config, kind, number) for kind in ("threads", "ray")] for number in workers}
    told: dict[int, list[dict[str, float]]] = {number: [] for number in workers}
    for turn in range(repetitions):
        for number, (threads, ray) in pairs.items():
            order = [("threads", threads), ("ray", ray)][:: -1 if turn % 2 else 1]
            speeds = {kind: contestant.run(seconds) for kind, contestant in order}
            told[number].append({**speeds, "ratio": speeds["ray"] / speeds["threads"]})
    for pair in pairs.values():
        for contestant in pair:
            contestant.close()
    return {
        str(number): {name: spread([each[name] for each in rounds]) for name in rounds[0]}
        for number, rounds in told.items()
    }


def report(record: dict[str, Any]) -> str:
    """Return the record as a Markdown table."""
    rows = [
        [number, rate(each["threads"]["median"]), rate(each["ray"]["median"]), f"{each['ratio']['median']:.2f}"]
        for number, each in record.items()
    ]
    return table(("actors", "threads, environment steps/s", "Ray", f"ratio (goal ≥ {GOAL})"), rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write everything measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray_collection", description=__doc__.split("\n")[0])
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "async_color_lines.yaml")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seconds", type=float, default=8.0, help="of each in a round")
    parser.add_argument("--repetitions", type=int, default=6, help="rounds")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "ray_collection.json")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    enable_compile_cache()
    origin, config = provenance(), load_config(options.config)
    record = measure(config, options.workers, options.seconds, options.repetitions)
    write_json(options.output, {**origin, "env": config.env, "num_envs": config.num_envs, "record": record})
    print(report(record))


if __name__ == "__main__":
    main()
