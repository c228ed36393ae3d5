"""The part of `benchmarks.scaling` that needs a process with several devices: the same training over more and more.

    python -m benchmarks.scaling_devices '{"part": "devices", …}'      answers with one line of JSON

All cells (a number of environments over a number of devices) are compiled and warmed up first. Then the update alone,
the rollout alone and the whole fused program are timed in turn, cell after cell, round after round; every ratio is
taken within a round.
"""

import json
import math
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.driver import spread
from jaxrl_engine.core.config import Config, EvaluationConfig
from jaxrl_engine.modes.build import Build, build
from jaxrl_engine.modes.placement import lay
from jaxrl_engine.modes.probe import collect_and_learn
from jaxrl_engine.modes.programs import make_program
from jaxrl_engine.runtime.devices import enable_compile_cache, peak_memory_bytes
from jaxrl_engine.runtime.memory import bytes_of

PARTS = ("update", "rollout", "chunk")
NUM_STEPS = 32
WIDTHS = {"f64": 8, "s64": 8, "u64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "pred": 1, "s8": 1, "u8": 1}
_REDUCE = re.compile(r"= (.+?) all-reduce(?:-start)?\(")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")


def configuration(env: str, num_envs: int) -> Config:
    """The work: PPO with the networks and the minibatches of the defaults."""
    return Config(env=env, num_envs=num_envs, num_steps=NUM_STEPS, evaluation=EvaluationConfig(count=0))


def all_reduces(text: str) -> dict[str, int]:
    """Count the all-reduces in a compiled program's text and their bytes: those in loops, and those outside.

    A loop's body stands in the text once: of an update, `in_loops` are the all-reduces of one gradient step.
    """
    counted, entry = {"in_loops": 0, "bytes_in_loops": 0, "outside": 0, "bytes_outside": 0}, False
    for line in text.splitlines():
        entry = line.startswith("ENTRY") if line[:1] in ("%", "E") else entry
        if found := _REDUCE.search(line):
            where = "outside" if entry else "in_loops"
            counted[where] += 1
            counted[f"bytes_{where}"] += sum(
                WIDTHS[kind] * math.prod(int(size) for size in sizes.split(",") if size)
                for kind, sizes in _ARRAY.findall(found[1])
            )
    return counted


class Cell:
    """One number of environments over one number of devices; the three parts of its training."""

    def __init__(self, num_envs: int, devices: int, built: Build, start: Any) -> None:
        """Lay a run's start over the devices; it is compiled next."""
        self.num_envs, self.devices = num_envs, devices
        self.program: Any = make_program(built, devices)
        # The chunk takes the state's memory: what others use is copied.
        self.state = lay(jax.tree.map(jnp.copy, start), self.program.shardings(start))
        self.given = jax.tree.map(jnp.copy, (self.state.train_state, self.state.actor, self.state.key))
        self.collect, self.learn = collect_and_learn(self.program)
        self.calls: dict[str, int] = {}  # of each part in a round

    def compile_acting(self) -> None:
        """Compile the whole program, and the rollout alone."""
        self.run_chunk = self.program.compile(self.state)
        with self.program.placement.context():
            self.rollout = jax.jit(self.collect).lower(*self.given).compile()

    def act(self) -> None:
        """Collect what the update alone will learn from."""
        self.learned_from = (self.given[0], jax.block_until_ready(self.rollout(*self.given)), self.given[2])

    def compile_learning(self) -> None:
        """Compile the update alone."""
        with self.program.placement.context():
            self.update = jax.jit(self.learn).lower(*self.learned_from).compile()

    def seconds(self, part: str) -> float:
        """Run a part for a round and return the seconds of one update, rollout, or both."""
        calls = self.calls.get(part, 1)
        begun = time.perf_counter()
        if part == "chunk":
            self.state, rows = self.run_chunk(self.state, np.int32(calls))
            jax.block_until_ready(rows)
        else:
            function, given = (self.update, self.learned_from) if part == "update" else (self.rollout, self.given)
            for _ in range(calls):
                jax.block_until_ready(function(*given))
        return (time.perf_counter() - begun) / calls

    def warm_up(self, seconds: float) -> None:
        """Run every part, and find how often it fits into the time of a round."""
        for part in PARTS:
            self.seconds(part)
            self.calls[part] = max(1, round(seconds / self.seconds(part)))

    def facts(self) -> dict[str, Any]:
        """What is known of the programs without running them."""
        return {
            "num_envs": self.num_envs,
            "devices": self.devices,
            "state_bytes": bytes_of(self.state),
            "state_bytes_of_environments": bytes_of(self.state.actor),
            "chunk_temporary_bytes_per_device": _temporary(self.run_chunk),
            "all_reduces": all_reduces(self.update.as_text()),
        }


def make_cells(env: str, places: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Cell]:
    """Build, compile and warm up; programs are compiled on all cores, and never run beside another."""
    cells, starts = {}, {}
    for envs, devices in sorted(places):
        if envs not in starts:
            built = build(configuration(env, envs))
            starts[envs] = built, make_program(built).init(built.keys, built.hyper)
        cells[envs, devices] = Cell(envs, devices, *starts[envs])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(Cell.compile_acting, cells.values()))
        for cell in cells.values():
            cell.act()
        list(pool.map(Cell.compile_learning, cells.values()))
    return cells


def _temporary(compiled: Any) -> int | None:
    analysis = compiled.memory_analysis()
    return None if analysis is None else int(analysis.temp_size_in_bytes)


def measure(
    env: str, strong: Sequence[int], per_device: int, counts: Sequence[int], rounds: int, seconds: float
) -> list[Any]:
    """Time every part of every cell in turn, and return what is published of each.

    Cells are `strong` environments over the fewest and the most of `counts` devices (the most of them over each count:
    a cell takes half a minute to compile), and `per_device` × count over each count.
    """
    places = {(envs, count) for envs in strong for count in (min(counts), max(counts))}
    places |= {(max(strong), count) for count in counts} | {(per_device * count, count) for count in counts}
    cells = make_cells(env, places)
    for cell in cells.values():
        cell.warm_up(seconds)
    timed: dict[str, list[dict[tuple[int, int], float]]] = {part: [] for part in PARTS}
    for _ in range(rounds):
        for part in PARTS:
            timed[part].append({place: cell.seconds(part) for place, cell in cells.items()})
    return [_record(cell, timed, per_device) for cell in cells.values()]


def _record(cell: Cell, timed: Mapping[str, Sequence[Mapping[tuple[int, int], float]]], per_device: int) -> Any:
    """Seconds, and ratios to one device: with the same batch, and, where `per_device` fits, with its share of it."""
    here, alone, share = (cell.num_envs, cell.devices), (cell.num_envs, 1), (per_device, 1)
    record = cell.facts()
    for part, rounds in timed.items():
        told = {"seconds": spread([times[here] for times in rounds])}
        if alone in rounds[0]:
            told["over_one_device"] = spread([times[here] / times[alone] for times in rounds])
        if cell.num_envs == per_device * cell.devices:
            ratios = [times[here] / (cell.devices * times[share]) for times in rounds]
            told["over_as_many_updates_of_one"] = spread(ratios)
        record[part] = told
    return record


def climb(env: str, num_envs: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Training speed with so many environments on one device, and the most memory this process ever held."""
    built = build(configuration(env, num_envs))
    program: Any = make_program(built)
    state = program.init(built.keys, built.hyper)
    chunk, speeds, updates = program.compile(state), [], 1
    for _ in range(rounds + 2):  # one to warm up, one to learn how long an update takes
        begun = time.perf_counter()
        state, rows = chunk(state, np.int32(updates))
        jax.block_until_ready(rows)
        taken = (time.perf_counter() - begun) / updates
        speeds.append(num_envs * NUM_STEPS / taken)
        updates = max(1, round(seconds / taken))
    return {
        "num_envs": num_envs,
        "device": jax.devices()[0].device_kind,
        "steps_per_second": spread(speeds[2:]),
        "peak_memory_bytes": peak_memory_bytes(),
    }


def main(words: Sequence[str]) -> None:
    """Do what the one argument says."""
    asked = json.loads(words[0])
    part = asked.pop("part")
    enable_compile_cache()
    print(json.dumps(measure(**asked) if part == "devices" else climb(**asked)))


if __name__ == "__main__":
    main(sys.argv[1:])
