"""Starts contestants, each a process in its own virtual environment, and lets them run in turn."""

import contextlib
import dataclasses
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.contestant import Task
from benchmarks.peers.install import ROOT, peer_python

ANSWER_SECONDS = 1800.0
"""A contestant that has not answered by then is given up."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """Who takes part, in what, and how many updates of 1024 steps make a repetition of a second or two."""

    name: str
    module: str
    updates: Mapping[str, int]  # by environment; one that is missing is one it cannot run
    levels: tuple[str, ...] = ("training",)
    venv: str | None = None  # None: the interpreter that runs the benchmark
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def task(self, base: Task) -> Task:
        """Fit the length of a repetition to this contestant's speed."""
        samples = self.updates[base.environment] * 1024
        return dataclasses.replace(base, updates=max(1, samples // base.samples_per_update))


FUSED, STEPPED = {"cartpole": 512, "reacher": 32}, {"cartpole": 16, "reacher": 16}
ALL_LEVELS = ("environment", "inference", "training")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}

OURS = Entry("ours", "benchmarks.ours", FUSED, ALL_LEVELS)
PEERS = {
    entry.name: entry
    for entry in (
        Entry("rejax", "benchmarks.peers.rejax_ppo", FUSED, ALL_LEVELS, venv="rejax"),
        Entry("brax", "benchmarks.peers.brax_ppo", {"reacher": 32}, venv="brax"),
        Entry("sbx", "benchmarks.peers.sbx_ppo", STEPPED, venv="stable_baselines", variables=ONE_THREAD),
        Entry("sb3", "benchmarks.peers.sb3_ppo", STEPPED, venv="stable_baselines", variables=ONE_THREAD),
    )
}


class Contestant:
    """A contestant's process, ready to run from the moment this object exists; a context manager that ends it."""

    def __init__(self, entry: Entry, task: Task, cache: Path) -> None:
        """Start the process and wait until it has compiled and warmed up.

        `cache` is JAX's persistent compilation cache: an empty directory for a cold start.

        Raises:
            RuntimeError: the process ended or fell silent; the message carries the end of what it printed.
        """
        self.entry, self.task = entry, entry.task(task)
        python = sys.executable if entry.venv is None else peer_python(entry.venv)
        cached = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        self._files = contextlib.ExitStack()
        self._printed = self._files.enter_context(tempfile.TemporaryFile("w+"))  # noqa: SIM115  (closed by `close`)
        receiver, sender = os.pipe()
        self._answers = self._files.enter_context(os.fdopen(receiver))
        start = time.perf_counter()
        self._process = subprocess.Popen(
            [python, "-m", entry.module, json.dumps(dataclasses.asdict(self.task)), str(sender)],
            cwd=ROOT, env={**os.environ, **cached, **entry.variables}, text=True, bufsize=1, pass_fds=[sender],
            stdin=subprocess.PIPE, stdout=self._printed, stderr=subprocess.STDOUT,
        )  # fmt: skip
        os.close(sender)
        self.ready = self._answer()
        self.ready["startup_seconds"] = time.perf_counter() - start

    def run(self) -> dict[str, Any]:
        """Let it run one repetition and return its answer, with `steps_per_second`."""
        assert self._process.stdin is not None
        self._process.stdin.write("run\n")
        answer = self._answer()
        return {**answer, "steps_per_second": answer["steps"] / answer["seconds"]}

    def _answer(self) -> dict[str, Any]:
        silent = not select.select([self._answers], [], [], ANSWER_SECONDS)[0]
        line = "" if silent else self._answers.readline()
        if not line:
            self._process.kill()
            self._printed.seek(0)
            ending = self._printed.read()[-2000:]
            self.close()
            raise RuntimeError(f"{self.entry.name} {'fell silent' if silent else 'ended'} in {self.task}:\n{ending}")
        return dict(json.loads(line))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def alternate(contestants: Sequence[Contestant], repetitions: int) -> dict[str, list[dict[str, Any]]]:
    """Let contestants run strictly in turn, `repetitions` rounds; the others sleep meanwhile."""
    answers: dict[str, list[dict[str, Any]]] = {contestant.entry.name: [] for contestant in contestants}
    for _ in range(repetitions):
        for contestant in contestants:
            answers[contestant.entry.name].append(contestant.run())
    return answers


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, minimum and maximum."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summarise(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Reduce a contestant's repetitions: speed by the wall clock and by processor time, and peak memory."""
    return {
        "steps_per_repetition": answers[0]["steps"],
        "steps_per_second": spread([answer["steps_per_second"] for answer in answers]),
        "steps_per_cpu_second": spread([answer["steps"] / answer["cpu_seconds"] for answer in answers]),
        "peak_memory_bytes": max(answer["peak_memory_bytes"] for answer in answers),
        "device": answers[-1]["device"],
        "repetitions": list(answers),
    }
