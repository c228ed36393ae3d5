"""Where rows of metrics go: metrics.jsonl (the source of truth), TensorBoard event files, Weights & Biases."""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxrl_engine.runtime.errors import RunError, one_line
from jaxrl_engine.runtime.json_files import sync_directory, to_json
from jaxrl_engine.runtime.logs import log

Row = Mapping[str, Any]  # numbers (of Python, NumPy or JAX), lists of numbers, or None: not measured


@runtime_checkable
class Sink(Protocol):
    """One destination. There are never two calls at once."""

    def write(self, env_steps: int, wall_seconds: float, row: Row) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class JsonlSink:
    """One line of strict JSON per row: `{"env_steps": n, "wall_seconds": t, …}`."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def write(self, env_steps: int, wall_seconds: float, row: Row) -> None:
        line = to_json({"env_steps": env_steps, "wall_seconds": round(wall_seconds, 3), **row}) + "\n"
        rest = line.encode()
        while rest:  # a full disk may take a part before it refuses
            rest = rest[os.write(self._descriptor, rest) :]

    def flush(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def cut_rows(path: Path, env_steps: int) -> float:
    """Remove from metrics.jsonl the rows past `env_steps` and what is not a whole row; return the last wall_seconds.

    The file is replaced as a whole. A missing file counts as empty.

    Raises:
        RunError: the file system refuses (full, read-only).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    wall_seconds = 0.0
    try:
        if not path.exists():
            return wall_seconds
        with path.open("rb") as old, temporary.open("wb") as new:
            for line in old:
                row = _parse_row(line)
                if row is not None and row["env_steps"] <= env_steps:
                    wall_seconds = float(row["wall_seconds"])
                    new.write(line)
            new.flush()
            os.fsync(new.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"cannot write {path}: {error.strerror or error}") from None
    return wall_seconds


def _parse_row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(row, dict) and line.endswith(b"\n")
    return row if whole and isinstance(row.get("env_steps"), int) and "wall_seconds" in row else None


class TensorBoardSink:
    """Scalars over environment steps; lists are left out.

    Written through tensorboardX's synchronous event writer: its SummaryWriter has a thread of its own, which loses
    errors (a full disk) and then blocks its caller for ever.
    """

    def __init__(self, directory: Path, resume_env_steps: int | None) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2, summary_pb2

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._writer = EventsWriter(str(directory / "events"), filename_suffix=f".{os.getpid()}.{time.time_ns()}")
        if resume_env_steps is not None:  # TensorBoard forgets what an interrupted run wrote from this step on
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._writer.write_event(self._event(step=resume_env_steps + 1, wall_time=time.time(), session_log=start))

    def write(self, env_steps: int, wall_seconds: float, row: Row) -> None:
        scalars = {tag: value for tag, value in row.items() if isinstance(value, int | float) and math.isfinite(value)}
        values = [self._summary.Value(tag=tag, simple_value=float(value)) for tag, value in scalars.items()]
        if values:
            event = self._event(step=env_steps, wall_time=time.time(), summary=self._summary(value=values))
            self._writer.write_event(event)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandbSink:
    """Weights & Biases. It may fail at any time (no network, no account): that warns once and training goes on."""

    def __init__(self, directory: Path, resume: bool) -> None:
        self._run: Any = None
        try:
            import wandb  # an extra, and slow to import

            self._run = wandb.init(
                dir=str(directory), name=directory.name, id=directory.name, resume="allow" if resume else None
            )
        except Exception as error:  # whatever a third-party service raises must not end a run
            self._give_up(error)

    def write(self, env_steps: int, wall_seconds: float, row: Row) -> None:
        if self._run is None:
            return
        try:
            self._run.log({**row, "env_steps": env_steps, "wall_seconds": wall_seconds}, step=env_steps)
        except Exception as error:
            self._give_up(error)

    def flush(self) -> None:
        """W&B sends in its own time."""

    def close(self) -> None:
        if self._run is None:
            return
        try:
            self._run.finish()
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._run = None
        log.warning("no metrics to Weights & Biases: %s", one_line(error))
