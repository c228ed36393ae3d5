"""Steps per second of the sync mode beside its peers, compilation and memory apart.

    python -m benchmarks.sync_throughput                            everything, on the machine at hand
    python -m benchmarks.sync_throughput --sections compare --environments cartpole --peers rejax
    python -m benchmarks.sync_throughput --sections scale --max-envs 65536

Sections: `compare` (ours, peer, ours, peer, …), `compile` (cold, from the cache, peak memory), `levels` (environment
only, with inference, with learning) and `scale` (ours over the number of environments). See README.md beside this file.
"""

import argparse
import contextlib
import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contestant import Task
from benchmarks.driver import ALL_LEVELS, OURS, PEERS, Contestant, Entry, alternate, spread, summarise
from benchmarks.machine import ROOT, provenance
from benchmarks.report import markdown, write_json

SECTIONS = ("compare", "compile", "levels", "scale")
ENVIRONMENTS = ("cartpole", "reacher")
Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one call of the benchmark measures."""

    environments: tuple[str, ...]
    peers: tuple[Entry, ...]
    levels: tuple[str, ...]
    repetitions: int
    env_counts: tuple[int, ...]
    updates: int | None  # per repetition, for every contestant; None: each its own

    def entry(self, entry: Entry) -> Entry:
        """Apply the length of a repetition the user asked for."""
        if self.updates is None:
            return entry
        return dataclasses.replace(entry, updates=dict.fromkeys(entry.updates, self.updates))

    def contestants(self, environment: str) -> list[Entry]:
        """Ours and the peers that know the environment."""
        return [self.entry(entry) for entry in (OURS, *self.peers) if environment in entry.updates]


def compare(plan: Plan, cache: Path) -> Iterator[Record]:
    """Train ours and each peer in turn; the ratio is taken within each pair, close in time."""
    for environment in plan.environments:
        ours, *peers = plan.contestants(environment)
        task = Task(environment=environment)  # type: ignore[arg-type]
        for peer in peers:
            with Contestant(ours, task, cache) as first, Contestant(peer, task, cache) as second:
                answers = alternate([first, second], plan.repetitions)
                yield {"environment": environment, "peer": peer.name, **_pairs(answers, peer.name),
                       "versions": second.ready["versions"]}  # fmt: skip


def _pairs(answers: dict[str, list[Record]], peer: str) -> Record:
    pairs = list(zip(answers["ours"], answers[peer], strict=True))
    by_clock = [one["steps_per_second"] / other["steps_per_second"] for one, other in pairs]
    by_processor = [
        (one["steps"] / one["cpu_seconds"]) / (other["steps"] / other["cpu_seconds"]) for one, other in pairs
    ]
    return {
        "ours": summarise(answers["ours"]),
        "theirs": summarise(answers[peer]),
        "ratio": spread(by_clock),
        "ratio_by_cpu_time": spread(by_processor),
    }


def compilation(plan: Plan, cache: Path) -> Iterator[Record]:
    """Start every contestant with an empty cache and again with the one it filled."""
    for environment in plan.environments:
        task = Task(environment=environment)  # type: ignore[arg-type]
        for entry in plan.contestants(environment):
            starts = [_cold_and_warm(entry, task) for _ in range(plan.repetitions)]
            yield {
                "environment": environment,
                "contestant": entry.name,
                "cold_seconds": spread([cold["compile_seconds"] for cold, _ in starts]),
                "cached_seconds": spread([warm["compile_seconds"] for _, warm in starts]),
                "cold_start_to_ready_seconds": spread([cold["startup_seconds"] for cold, _ in starts]),
                "cached_start_to_ready_seconds": spread([warm["startup_seconds"] for _, warm in starts]),
                "cold_peak_memory_bytes": max(cold["peak_memory_bytes"] for cold, _ in starts),
                "cached_peak_memory_bytes": max(warm["peak_memory_bytes"] for _, warm in starts),
            }


def _cold_and_warm(entry: Entry, task: Task) -> tuple[Record, Record]:
    """Start twice on one cache that is empty the first time."""
    starts = []
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(2):
            with Contestant(entry, task, Path(cache)) as contestant:
                starts.append({**contestant.run(), **contestant.ready})
    return starts[0], starts[1]


def levels(plan: Plan, cache: Path) -> Iterator[Record]:
    """Measure environment only, environment with inference, and training, of everyone who can tell them apart."""
    for environment in plan.environments:
        entries = [entry for entry in plan.contestants(environment) if entry.levels == ALL_LEVELS]
        for level in plan.levels:
            task = Task(environment=environment, level=level)  # type: ignore[arg-type]
            yield from _together(entries, task, plan, cache, {"environment": environment, "level": level})


def _together(entries: Sequence[Entry], task: Task, plan: Plan, cache: Path, labels: Record) -> Iterator[Record]:
    with contextlib.ExitStack() as stack:
        contestants = [stack.enter_context(Contestant(entry, task, cache)) for entry in entries]
        for name, answers in alternate(contestants, plan.repetitions).items():
            yield {**labels, "contestant": name, **summarise(answers)}


def scale(plan: Plan, cache: Path) -> Iterator[Record]:
    """Measure ours at each number of environments; a repetition keeps its number of steps where it can."""
    for environment in plan.environments:
        for num_envs in plan.env_counts:
            for level in plan.levels:
                task = Task(environment=environment, level=level, num_envs=num_envs)  # type: ignore[arg-type]
                labels = {"environment": environment, "level": level, "num_envs": num_envs}
                yield from _together([plan.entry(OURS)], task, plan, cache, labels)


MEASURE = {"compare": compare, "compile": compilation, "levels": levels, "scale": scale}


def env_counts(most: int) -> tuple[int, ...]:
    """Return 32, 128, 512, … up to and including `most`."""
    counts = [32]
    while counts[-1] * 4 <= most:
        counts.append(counts[-1] * 4)
    return tuple(counts) if counts[-1] == most or most < 32 else (*counts, most)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sync_throughput", description=__doc__.split("\n")[0])
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS, help="what to measure")
    parser.add_argument("--environments", nargs="+", choices=ENVIRONMENTS, default=ENVIRONMENTS, help="on which worlds")
    parser.add_argument("--peers", nargs="*", choices=sorted(PEERS), default=list(PEERS), help="beside whom")
    parser.add_argument("--levels", nargs="+", choices=ALL_LEVELS, default=ALL_LEVELS, help="of levels and scale")
    parser.add_argument("--repetitions", type=int, default=5, help="timed repetitions of each contestant")
    parser.add_argument("--max-envs", type=int, default=16_384, help="most environments of the section scale")
    parser.add_argument("--updates", type=int, help="updates of 1024 steps per repetition (default: 1-2 s)")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "sync_throughput.json")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables, and write everything measured; sections not asked for keep what the file holds."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    plan = Plan(
        environments=tuple(options.environments),
        peers=tuple(PEERS[name] for name in options.peers),
        levels=tuple(options.levels),
        repetitions=options.repetitions,
        env_counts=env_counts(options.max_envs),
        updates=options.updates,
    )
    results = json.loads(options.output.read_text()) if options.output.exists() else {}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as cache:
        for section in options.sections:
            origin, records = provenance(), []
            for record in MEASURE[section](plan, Path(cache)):
                records.append(record)
                print(json.dumps({section: _headline(record)}), file=sys.stderr, flush=True)
            results[section] = {**origin, "task": dataclasses.asdict(Task()), "records": records}
            write_json(options.output, results)
    print(markdown(results))


def _headline(record: Record) -> Record:
    """Keep the labels and the medians: what a person watching wants to see."""
    medians = {name: value["median"] for name, value in record.items() if isinstance(value, dict) and "median" in value}
    return {name: value for name, value in record.items() if isinstance(value, str | int)} | medians


if __name__ == "__main__":
    main()
