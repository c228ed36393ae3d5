"""The checkpoints of a run: written in the background, verified on reading, never wrong in silence.

Saving is Orbax's synchronous writer in one thread of ours rather than its asynchronous one: the state is on the host
already, and commit, retention and errors then follow one another in one place.
"""

import dataclasses
import math
import os
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.core.types import PyTree
from jaxrl_engine.runtime.checkpoint_files import (
    DamagedError,
    read_record,
    read_state,
    recorded_facts,
    write_checkpoint,
)
from jaxrl_engine.runtime.checkpoint_leaves import LeafFacts, difference, leaf_facts, to_host
from jaxrl_engine.runtime.devices import environment_record
from jaxrl_engine.runtime.errors import RunError, one_line
from jaxrl_engine.runtime.json_files import sync_directory
from jaxrl_engine.runtime.logs import log

_STEP = re.compile(r"0|[1-9][0-9]*")
_LEFTOVER = re.compile(r"(writing|deleting)-[0-9]+")
_DISK_FULL = re.compile(r"No space left|ENOSPC|RESOURCE_EXHAUSTED|Disk quota|File too large|EFBIG")
_BITWISE_RELEVANT = ("jax", "jaxlib", "xla_flags", "platform", "device_kind", "device_count")


@dataclasses.dataclass(frozen=True)
class Restored:
    """A state read from a checkpoint."""

    state: PyTree
    step: int
    metadata: dict[str, Any]


class CheckpointStore:
    """Checkpoints in `<directory>/<step>/`: the `keep` newest and the one with the best score.

    Reading changes nothing on disk. A save removes what killed saves left behind, and, once it is committed, every
    checkpoint of a later step: that belongs to a future this run went back behind.
    """

    def __init__(self, directory: Path, keep: int, *, writes: bool = True) -> None:
        self._directory = directory
        self._keep = keep
        self._writes = writes  # of several processes that are one run, one does
        self._thread: threading.Thread | None = None
        self._error: RunError | None = None
        self._scores: dict[int, float | None] = {}

    def save(self, step: int, state: PyTree, metadata: dict[str, Any], score: float | None = None) -> None:
        """Copy the state to the host, then write it in the background; a save still under way is awaited first.

        Args:
            step: names the checkpoint; one of the same step is replaced.
            state: a pytree of arrays, typed keys and numbers.
            metadata: what JSON can hold; comes back from `metadata` and `restore`.
            score: higher is better (None or not finite: never the best).

        Raises:
            RunError: the save before this one failed (disk full).
        """
        self.wait()
        arrays, facts = to_host(state), leaf_facts(state)
        if not self._writes:
            return
        score = None if score is None or not math.isfinite(score) else float(score)
        record = {"step": step, "score": score, "metadata": metadata, "environment": environment_record()}
        arguments = (step, arrays, facts, record)
        self._thread = threading.Thread(target=self._write, args=arguments, name="checkpoint-writer")
        self._thread.start()

    def wait(self) -> None:
        """Return when no save is under way.

        Raises:
            RunError: the last save failed. Earlier checkpoints are unharmed, and saving may be tried again.
        """
        self._join()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def close(self) -> None:
        """Wait for the save under way; raises like `wait`."""
        self.wait()

    def _write(self, step: int, arrays: list[np.ndarray], facts: list[LeafFacts], record: dict[str, Any]) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            self._commit(step, arrays, facts, record)
            self._scores[step] = record["score"]
            self._retain(step)
        except Exception as error:  # of any kind: it must reach the caller, who is elsewhere by now
            cause = "the disk is full" if _DISK_FULL.search(f"{error!r}") else one_line(error)
            self._error = RunError(f"cannot save checkpoint {step} in {self._directory}: {cause}")
            self._remove_leftovers()

    def _commit(self, step: int, arrays: list[np.ndarray], facts: list[LeafFacts], record: dict[str, Any]) -> None:
        temporary, final = self._directory / f"writing-{step}", self._directory / str(step)
        write_checkpoint(temporary, arrays, facts, record)
        if final.exists():
            self._remove(final)
        temporary.rename(final)
        sync_directory(self._directory)

    def _retain(self, newest: int) -> None:
        past = [step for step in self.steps() if step <= newest]
        kept = {*past[-self._keep :], self._best(past)}
        for step in self.steps():
            if step not in kept:
                self._remove(self._directory / str(step))
                self._scores.pop(step, None)

    def _remove(self, path: Path) -> None:
        """Rename first: a removal that is interrupted must not leave half a checkpoint under a good name."""
        doomed = self._directory / f"deleting-{path.name}"
        path.rename(doomed)
        _delete(doomed)

    def _remove_leftovers(self) -> None:
        names = os.listdir(self._directory) if self._directory.is_dir() else []
        for name in filter(_LEFTOVER.fullmatch, names):
            _delete(self._directory / name)

    def steps(self) -> list[int]:
        """Return the steps of all committed checkpoints, ascending."""
        if not self._directory.is_dir():
            return []
        directories = [entry.name for entry in self._directory.iterdir() if entry.is_dir()]
        return sorted(int(name) for name in directories if _STEP.fullmatch(name))

    def best_step(self) -> int | None:
        """Return the step with the highest score (the newest among equals), or None if no checkpoint has a score."""
        self._join()
        return self._best(self.steps())

    def _best(self, steps: list[int]) -> int | None:
        for step in steps:
            if step not in self._scores:
                self._scores[step] = self._read_score(step)
        scored = [(score, step) for step in steps if (score := self._scores[step]) is not None]
        return max(scored)[1] if scored else None

    def _read_score(self, step: int) -> float | None:
        try:
            score: float | None = read_record(self._directory / str(step))["score"]
        except DamagedError:
            return None
        return score

    def metadata(self, step: int) -> dict[str, Any]:
        """Return the metadata saved with a step.

        Raises:
            UserError: there is no such checkpoint, or it is damaged.
        """
        self._require(step)
        try:
            return dict(read_record(self._directory / str(step))["metadata"])
        except DamagedError as error:
            raise UserError(f"checkpoint {step} in {self._directory} is damaged: {error}") from None

    def restore(self, template: PyTree, step: int | None = None, *, prefer: int | None = None) -> Restored:
        """Return the newest checkpoint that is intact, or the given one, in the form of the template.

        A damaged one is named in a warning and the one before it is tried; one given by `step` has no substitute.

        Args:
            template: arrays or `jax.ShapeDtypeStruct`s; JAX arrays also say on which devices a leaf belongs.
            step: which checkpoint; None: the newest.
            prefer: where `step` is None, the one to try before the newest.

        Raises:
            UserError: there is no intact checkpoint, or it does not fit the template: the line names the leaves.
        """
        self.wait()
        if step is not None:
            self._require(step)
        newest_first = self.steps()[::-1]
        preferred = [prefer] if prefer in newest_first else []
        candidates = [step] if step is not None else preferred + [each for each in newest_first if each != prefer]
        reason = "there is none"
        for candidate, fallback in zip(candidates, [*candidates[1:], None], strict=False):
            try:
                return self._restore_step(template, candidate)
            except DamagedError as error:
                reason = f"checkpoint {candidate} is damaged: {error}"
                if fallback is not None:
                    log.warning("%s; falling back to step %d", reason, fallback)
        raise UserError(f"no usable checkpoint in {self._directory}: {reason}")

    def _restore_step(self, template: PyTree, step: int) -> Restored:
        path = self._directory / str(step)
        record = read_record(path)
        problem = difference(recorded_facts(record), leaf_facts(template))
        if problem is not None:
            raise UserError(f"checkpoint {step} in {self._directory} does not fit this run: {problem}")
        state = read_state(path, record, template)
        _warn_of_changes(record["environment"])
        return Restored(state=state, step=step, metadata=dict(record["metadata"]))

    def _require(self, step: int) -> None:
        if step not in self.steps():
            known = ", ".join(map(str, self.steps())) or "none"
            raise UserError(f"there is no checkpoint {step} in {self._directory} (there are: {known})")

    def __enter__(self) -> "CheckpointStore":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.close()
        except RunError as problem:
            if error is None:
                raise
            log.error("%s", problem)  # what ends the block must not be replaced by an error of its clean-up


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _warn_of_changes(saved: dict[str, Any]) -> None:
    now = environment_record()
    changed = [f"{name} {saved.get(name)} -> {now[name]}" for name in _BITWISE_RELEVANT if saved.get(name) != now[name]]
    if changed:
        log.warning("the run may not continue bit for bit, because this changed: %s", ", ".join(changed))
