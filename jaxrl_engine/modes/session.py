"""What every mode does between two chunks: metrics out, evaluation, checkpoints, signals, progress.

Nothing here waits for the device while it could work: a chunk's metrics are read after the next chunk has been started,
an evaluation is started beside it, and a checkpoint is written in the background from a copy.
"""

import collections
import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_engine.core.types import PyTree
from jaxrl_engine.modes.council import ALONE, Council, Motion
from jaxrl_engine.modes.evaluate import EpisodeResults
from jaxrl_engine.modes.fused import MAX_ROWS, Rows
from jaxrl_engine.modes.onlooker import Onlooker
from jaxrl_engine.runtime.checkpoint import CheckpointStore
from jaxrl_engine.runtime.metrics import MetricWriter
from jaxrl_engine.runtime.progress import Progress
from jaxrl_engine.runtime.run_directory import RunDirectory
from jaxrl_engine.runtime.signals import StopSignals

CHUNK_SECONDS = 0.5
"""Aimed-for length of a chunk: signals, checkpoints and evaluations are served between two of them."""

SPEED_SECONDS = 3.0
"""Speed is measured over at least this long (over less at the start)."""

SHOWN = {
    "Async/UpdatesPerSecond": "updates/s", "Async/LagMax": "lag", "Charts/EpisodeReturn": "return",
    "Charts/Success": "success", "Sync/SkippedUpdates": "skipped",
}  # fmt: skip
"""Metrics of the progress line; all others are in the files."""

Row = dict[str, float | list[float | None] | None]


@dataclasses.dataclass(frozen=True)
class Job:
    """What a mode hands over: compiled programs and how they count."""

    chunk: Callable[[PyTree, Any], tuple[PyTree, Rows]]
    evaluate: Callable[[PyTree, int], PyTree]  # started, not awaited
    summarize: Callable[[PyTree], dict[str, Any]]  # what it saw, by name
    steps_per_update: int  # environment steps of one run
    total_updates: int
    updates_per_row: int
    evaluation_points: frozenset[int]  # update counts
    max_skipped_updates: int
    save_seconds: float
    metadata: Mapping[str, Any]  # goes into every checkpoint
    timings: Mapping[str, float]  # seconds measured before the start; the same in every row
    broken: Callable[[], str | None] = lambda: None  # why the run cannot go on; then the state is saved, and it ends
    saved: Callable[[PyTree], PyTree] = lambda state: state  # what of the state goes into a checkpoint
    onlooker: Onlooker | None = None  # who shows the run while it works
    council: Council = ALONE  # with whom this process must agree


@dataclasses.dataclass
class Outcome:
    """How a session ended."""

    state: PyTree
    updates: int
    status: str  # finished | interrupted | failed
    message: str
    signal: int | None
    train_seconds: float
    evaluation: dict[str, Any]


@dataclasses.dataclass
class _Chunk:
    rows: Rows
    updates: int
    length: int


@dataclasses.dataclass
class _Look:
    show: Callable[[], None]


@dataclasses.dataclass
class _Evaluation:
    results: PyTree
    state: PyTree  # a copy: what will be saved under this evaluation's score


class Session:
    """One process's share of a run, from its first chunk to its last."""

    def __init__(
        self, job: Job, run: RunDirectory, store: CheckpointStore, writer: MetricWriter, progress: Progress
    ) -> None:
        self.job = job
        self.run_directory = run
        self.store = store
        self.writer = writer
        self.progress = progress
        self.pending: collections.deque[_Chunk | _Look | _Evaluation] = collections.deque()
        self.chunk_length = 1
        self.reads: collections.deque[tuple[float, int]] = collections.deque()
        self.last_save = time.perf_counter()
        self.last_row: Row = {}
        self.saved_updates = -1
        self.skipped_in_a_row = 0
        self.evaluation: dict[str, Any] = {}

    def run(self, state: PyTree, updates: int, signals: StopSignals) -> Outcome:
        """Go on from `state` after `updates` updates until the job is done, a signal comes, or learning breaks."""
        begun = self.last_save = time.perf_counter()
        self.reads.append((begun, updates))
        failed, motion = False, Motion()
        while updates < self.job.total_updates and not failed and not self.job.broken():
            save_due = time.perf_counter() - self.last_save >= self.job.save_seconds
            motion = self.job.council.agree(Motion(self.chunk_length, save_due, signals.received))
            if motion.signal is not None:
                break
            length = self._next_length(updates, motion.length)
            self._look(state)
            state, rows = self.job.chunk(state, np.int32(length))
            updates += length
            self.pending.append(_Chunk(rows=rows, updates=updates, length=length))
            if updates in self.job.evaluation_points:
                self.pending.append(_Evaluation(self.job.evaluate(state, updates), jax.tree.map(jnp.copy, state)))
            self._drain(keep=1)
            failed = self.skipped_in_a_row >= self.job.max_skipped_updates
            if motion.save and not failed and not self._evaluating():
                self._save(state, score=None)
        if motion.signal is None:  # the last chunk may have been cut short by one
            motion = self.job.council.agree(Motion(signal=signals.received))
        self._look(state)
        self._drain(keep=0)
        failed = self.skipped_in_a_row >= self.job.max_skipped_updates
        done = _updates_done(state)
        seconds = time.perf_counter() - begun
        if done != self.saved_updates:
            self._save(state, score=None)
        self.store.wait()
        status, message = self._verdict(done, failed, motion.signal)
        return Outcome(
            state=state, updates=done, status=status, message=message, signal=motion.signal,
            train_seconds=seconds, evaluation=self.evaluation,
        )  # fmt: skip

    def _verdict(self, updates: int, failed: bool, signal: int | None) -> tuple[str, str]:
        if failed:
            return "failed", (
                f"{self.skipped_in_a_row} updates in a row had a loss or gradient that was not finite; "
                f"the state is saved at step {updates * self.job.steps_per_update} for diagnosis"
            )
        if broken := self.job.broken():
            return "failed", f"{broken}; the state is saved at step {updates * self.job.steps_per_update}"
        if updates < self.job.total_updates:
            return (
                "interrupted",
                f"stopped by signal {signal}; resume with --resume {self.run_directory.path}",
            )
        return "finished", ""

    def _next_length(self, updates: int, wanted: int) -> int:
        """Updates of the next chunk: as many as are wanted, ending where an evaluation is due."""
        ahead = [point for point in self.job.evaluation_points if point > updates]
        boundary = min([self.job.total_updates, *ahead])
        rows_fit = (MAX_ROWS - 1) * self.job.updates_per_row
        return max(1, min(wanted, boundary - updates, rows_fit))

    def _look(self, state: PyTree) -> None:
        """Let the wall look at a state that is about to be given away, or at the last one."""
        show = self.job.onlooker.look(state) if self.job.onlooker is not None else None
        if show is not None:
            self.pending.append(_Look(show))

    def _evaluating(self) -> bool:
        """An evaluation under way will be followed by a save of its own, with a score."""
        return any(isinstance(entry, _Evaluation) for entry in self.pending)

    def _drain(self, keep: int) -> None:
        """Read what the device has finished, leaving the newest `keep` entries to it."""
        while len(self.pending) > keep:
            entry = self.pending.popleft()
            if isinstance(entry, _Chunk):
                self._read_chunk(entry)
            elif isinstance(entry, _Look):
                entry.show()
            else:
                self._read_evaluation(entry)

    def _read_chunk(self, chunk: _Chunk) -> None:
        rows: Rows = jax.device_get(chunk.rows)
        self.skipped_in_a_row = int(rows.skipped_in_a_row)
        updates_per_second = self._speed(chunk.updates)
        steps_per_second = updates_per_second * self.job.steps_per_update
        self.chunk_length = max(1, min(4 * chunk.length, round(CHUNK_SECONDS * updates_per_second)))
        for index in range(int(rows.count)):
            self.last_row = {name: as_plain(values[index]) for name, values in rows.values.items()}
            self.last_row |= per_run({name: values[index] for name, values in rows.values.items()})
            self.last_row |= {"Perf/SPS": steps_per_second, **self.job.timings}
            self.writer.write(int(rows.updates[index]) * self.job.steps_per_update, self.last_row)
        env_steps = chunk.updates * self.job.steps_per_update
        shown = {label: self.last_row[name] for name, label in SHOWN.items() if self.last_row.get(name) is not None}
        self.progress.update(env_steps, steps_per_second, shown)  # type: ignore[arg-type]
        progress: dict[str, Any] = {
            "state": "running", "env_steps": env_steps, "updates": chunk.updates, "steps_per_second": steps_per_second,
            "total_steps": self.job.total_updates * self.job.steps_per_update,
        }  # fmt: skip
        self.run_directory.write_status(**progress, metrics=self.last_row)
        if self.job.onlooker is not None:
            self.job.onlooker.report(self.last_row, shown, progress)

    def _speed(self, updates: int) -> float:
        """Updates per second over the last seconds, evaluations included: one chunk alone says little, it may have
        been finished long before it was read."""
        now = time.perf_counter()
        self.reads.append((now, updates))
        while len(self.reads) > 2 and now - self.reads[1][0] >= SPEED_SECONDS:
            self.reads.popleft()
        then, earlier = self.reads[0]
        return (updates - earlier) / (now - then)

    def _read_evaluation(self, entry: _Evaluation) -> None:
        self.evaluation = self.job.summarize(jax.device_get(entry.results))
        env_steps = _updates_done(entry.state) * self.job.steps_per_update
        self.writer.write(env_steps, {f"Eval/{name}": value for name, value in self.evaluation.items()})
        shown = ", ".join(f"{name} {value:.4g}" for name, value in self.evaluation.items() if isinstance(value, float))
        self.progress.message(f"evaluation at {env_steps} steps: {shown}")
        self._save(entry.state, score=self.evaluation.get("qd_score", self.evaluation["return"]))

    def _save(self, state: PyTree, score: float | None) -> None:
        updates = _updates_done(state)
        if updates <= self.saved_updates:
            return
        metadata = {**self.job.metadata, "updates": updates, "evaluation": self.evaluation}
        self.writer.flush()
        self.store.save(updates * self.job.steps_per_update, self.job.saved(state), metadata, score)
        self.saved_updates, self.last_save = updates, time.perf_counter()


def _updates_done(state: PyTree) -> int:
    """Updates behind a state: fewer than were asked for where learning broke. Waits for the chunk to end."""
    return int(np.max(jax.device_get(state.updates)))


def evaluation_points(total_updates: int, count: int, first: int = 1) -> frozenset[int]:
    """Update counts after which to evaluate: `count` evenly spaced ones, none before the `first`, and the end."""
    points = {max(first, round(total_updates * (index + 1) / count)) for index in range(count)}
    return frozenset(points | {total_updates})


def summarize(results: EpisodeResults) -> dict[str, Any]:
    """Means over episodes (and over runs, then also `<name>_per_seed` lists) of what an evaluation saw."""
    values = {"return": results.episode_return, "length": results.episode_length, "cut_rate": results.cut}
    for name, value in results.metrics.items():
        values["success_rate" if name == "success" else name] = value
    summary: dict[str, Any] = {}
    for name, value in values.items():
        by_run = np.asarray(value, np.float64).mean(axis=-1)
        summary[name] = float(by_run.mean())
        if by_run.ndim:
            summary[f"{name}_per_seed"] = [float(x) for x in by_run]
    if not np.any(results.cut):
        summary = {name: value for name, value in summary.items() if not name.startswith("cut_rate")}
    return summary


def as_plain(value: Any) -> float | None:
    """Mean over runs as a number JSON can hold; None where nothing was observed."""
    observed = np.asarray(value, np.float64)
    observed = observed[np.isfinite(observed)]
    return float(observed.mean()) if observed.size else None


def per_run(values: Mapping[str, Any]) -> Row:
    """`<name>_per_seed` lists where there are several runs."""
    lists: Row = {}
    for name, value in values.items():
        if np.ndim(value):
            lists[f"{name}_per_seed"] = [float(x) if math.isfinite(x) else None for x in value]
    return lists
