"""Speed of the async mode: actors alone, learner alone, and both at once on the same cores.

    python -m benchmarks.async_throughput                             Color Lines, on the machine at hand
    python -m benchmarks.async_throughput --config configs/async_cartpole.yaml --seconds 5

The three are measured in turn, round after round. Actors alone are threads that collect without end under one set of
parameters; the learner alone learns from one rollout again and again, with replay as full as training left it.
"""

import argparse
import dataclasses
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.driver import spread
from benchmarks.machine import ROOT, provenance
from benchmarks.report import rate, table, write_json
from jaxrl_engine.core.config import Config
from jaxrl_engine.modes.actor_learner.learner import LearnerState
from jaxrl_engine.modes.actor_learner.program import AsyncProgram, AsyncState
from jaxrl_engine.modes.build import build
from jaxrl_engine.modes.fused import MAX_ROWS
from jaxrl_engine.runtime.config import load_config

WARM_UPDATES = 40
SEEN = ("LearnerIdle", "LagMax")
EARLIER_STEPS_PER_SECOND = 1.2
"""Of the system this mode takes the place of, end to end (Color Lines, training included)."""


class Bench:
    """One configuration, compiled and warm."""

    def __init__(self, config: Config, seconds: float) -> None:
        self.config, self.seconds = config, seconds
        built = build(config)
        self.program = AsyncProgram(built)
        state = self.program.init(built.keys, built.hyper)
        self.chunk = self.program.compile(state)
        self.state: AsyncState = self.chunk(state, WARM_UPDATES)[0]
        self.behaviour = jax.tree.map(jnp.copy, self.state.train_state.replace(optimizer=None))
        self.new_steps = config.new_chunks * config.num_steps
        self.rollouts = self._rollouts()
        self.learn = jax.jit(self.program.learner.step, donate_argnums=0)
        self.updates = WARM_UPDATES
        self.updates = max(1, int(seconds * self.train()["updates_per_second"]))

    def _rollouts(self) -> Any:
        """What an update takes in, collected once."""
        keys = jax.random.split(jax.random.key(1), 2)
        collector = self.program.source.begin(keys[0])
        chunks = collector.collect(self.behaviour, keys[1]).chunks
        collector.close()
        return (chunks,) * self.program.rollouts_per_update

    def collect(self) -> dict[str, float]:
        """All actors, and no learner."""
        workers = self.config.actors.num_workers
        collectors = [self.program.source.begin(key) for key in jax.random.split(jax.random.key(2), workers)]
        rounds, until = [0] * workers, time.perf_counter() + self.seconds
        begun = time.perf_counter()

        def work(index: int) -> None:
            while time.perf_counter() < until:
                collectors[index].collect(self.behaviour, jax.random.fold_in(jax.random.key(index), rounds[index]))
                rounds[index] += 1

        threads = [threading.Thread(target=work, args=(index,)) for index in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed = time.perf_counter() - begun
        for collector in collectors:
            collector.close()
        steps = sum(rounds) * self.config.num_steps * self.config.num_envs // workers
        return {"collected_steps_per_second": steps / elapsed}

    def learn_alone(self) -> dict[str, float]:
        """The learner, and no actors."""
        learner: LearnerState = jax.tree.map(jnp.copy, self.state.learner)
        learner, metrics = self.learn(learner, self.rollouts)
        jax.block_until_ready(metrics)
        updates, begun = 0, time.perf_counter()
        while time.perf_counter() < begun + self.seconds:
            learner, metrics = self.learn(learner, self.rollouts)
            jax.device_get(metrics)  # as the mode does after every update
            updates += 1
        return {"updates_per_second_alone": updates / (time.perf_counter() - begun)}

    def train(self) -> dict[str, float]:
        """Both, as in a run."""
        told: list[dict[str, float]] = []
        begun = time.perf_counter()
        while len(told) < self.updates:
            self.state, rows = self.chunk(self.state, min(MAX_ROWS, self.updates - len(told)))
            told += [{name: float(rows.values[f"Async/{name}"][i]) for name in SEEN} for i in range(int(rows.count))]
        elapsed = time.perf_counter() - begun
        return {
            "updates_per_second": self.updates / elapsed,
            "env_steps_per_second": self.updates * self.new_steps / elapsed,
            "learner_idle": statistics.mean(row["LearnerIdle"] for row in told),
            "lag_max": max(row["LagMax"] for row in told),
        }


def measure(bench: Bench, repetitions: int) -> dict[str, Any]:
    """Measure the three in turn, and return what is published."""
    rounds: list[dict[str, float]] = []
    ways: list[Callable[[], dict[str, float]]] = [bench.collect, bench.learn_alone, bench.train]
    for _ in range(repetitions):
        told: dict[str, float] = {}
        for way in ways:
            told |= way()
        told["learner_share_of_alone"] = told["updates_per_second"] / told["updates_per_second_alone"]
        rounds.append(told)
    record = {name: spread([told[name] for told in rounds]) for name in rounds[0]}
    return {
        "env": bench.config.env, "num_envs": bench.config.num_envs, "num_workers": bench.config.actors.num_workers,
        "new_steps_per_update": bench.new_steps, "batch_size": bench.config.impact.batch_size,
        "num_epochs": bench.config.ppo.num_epochs, "max_lag": bench.config.impact.max_lag, **record,
    }  # fmt: skip


def report(record: dict[str, Any]) -> str:
    """Return the record as a Markdown table."""
    lines: list[tuple[str, str, Callable[[float], str]]] = [
        ("environment steps/s, training included", "env_steps_per_second", rate),
        ("environment steps/s, actors alone", "collected_steps_per_second", rate),
        ("updates/s beside the actors", "updates_per_second", rate),
        ("updates/s, learner alone", "updates_per_second_alone", rate),
        ("updates/s beside the actors, share of those alone", "learner_share_of_alone", "{:.0%}".format),
        ("learner's time spent waiting", "learner_idle", "{:.0%}".format),
        (f"greatest lag of what is learned from (cap {record['max_lag']})", "lag_max", rate),
    ]
    rows = [
        [text, write(record[name]["median"]), f"{write(record[name]['min'])} to {write(record[name]['max'])}"]
        for text, name, write in lines
    ]
    return table((record["env"], "median", "range"), rows)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.async_throughput", description=__doc__.split("\n")[0])
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "async_color_lines.yaml")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each of the three in a round")
    parser.add_argument("--repetitions", type=int, default=5, help="rounds")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "async_throughput.json")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write everything measured."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    origin = provenance()
    config = load_config(options.config)
    logging = dataclasses.replace(config.logging, every_updates=1)
    bench = Bench(dataclasses.replace(config, logging=logging), options.seconds)
    record = measure(bench, options.repetitions)
    bench.program.close()
    record["times_earlier_system"] = record["env_steps_per_second"]["median"] / EARLIER_STEPS_PER_SECOND
    write_json(options.output, {**origin, "record": record})
    print(report(record))


if __name__ == "__main__":
    main()
