"""Rows of metrics from the training loop to disk, through one bounded queue and one thread."""

import queue
import threading
import time
from collections.abc import Sequence

from jaxrl_engine.runtime.errors import RunError, one_line
from jaxrl_engine.runtime.json_files import plain
from jaxrl_engine.runtime.logs import log
from jaxrl_engine.runtime.metric_sinks import JsonlSink, Row, Sink, TensorBoardSink, WandbSink, cut_rows
from jaxrl_engine.runtime.run_directory import RunDirectory

MAX_WAITING_ROWS = 1024


class MetricWriter:
    """Writes rows in the background. No row is ever dropped: `write` blocks while the queue is full.

    Args:
        run: where metrics.jsonl and the event files lie.
        tensorboard: also write TensorBoard event files.
        wandb: also send the rows to Weights & Biases.
        resume_env_steps: the step a resumed run restarts from; rows past it are removed. None: a new run.
        others: where else rows go.

    Raises:
        RunError: from every call, once a row could not be written (disk full): named, and never swallowed.
    """

    def __init__(
        self,
        run: RunDirectory,
        *,
        tensorboard: bool,
        wandb: bool,
        resume_env_steps: int | None,
        others: Sequence[Sink] = (),
    ) -> None:
        self._path = run.metrics_path
        earlier = 0.0 if resume_env_steps is None else cut_rows(self._path, resume_env_steps)
        self._started = time.monotonic() - earlier
        self._last_env_steps = -1 if resume_env_steps is None else resume_env_steps
        self._error: RunError | None = None
        self._surfaced = False
        self._sinks: list[Sink] = []
        try:
            self._sinks.append(JsonlSink(self._path))
            if tensorboard:
                self._sinks.append(TensorBoardSink(run.path, resume_env_steps))
        except OSError as error:
            raise self._named(error) from None
        if wandb:
            self._sinks.append(WandbSink(run.path, resume=resume_env_steps is not None))
        self._sinks += others
        self._queue: queue.Queue[tuple[int, float, Row] | None] = queue.Queue(MAX_WAITING_ROWS)
        # A daemon: a program that dies without `close` must die, not wait for a thread that waits for rows.
        self._thread = threading.Thread(target=self._work, name="metric-writer", daemon=True)
        self._thread.start()

    def write(self, env_steps: int, row: Row) -> None:
        """Enqueue one row. Values that are not finite become null.

        Raises:
            ValueError: `env_steps` is smaller than in the row before, or the writer is closed.
            RunError: an earlier row could not be written.
        """
        if not self._thread.is_alive():
            raise ValueError("the metric writer is closed")
        if env_steps < self._last_env_steps:
            raise ValueError(f"env_steps must not fall: {env_steps} after {self._last_env_steps}")
        self._raise_error()
        self._last_env_steps = env_steps
        self._queue.put((env_steps, time.monotonic() - self._started, plain(row)))

    def flush(self) -> None:
        """Return when every row is on disk."""
        self._queue.join()
        self._raise_error()
        try:
            for sink in self._sinks:
                sink.flush()
        except OSError as error:
            self._error = self._named(error)
        self._raise_error()

    def close(self) -> None:
        """Write what waits, end the thread and close the files. An error that was raised before is not raised again."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
            self._close_sinks()
        if not self._surfaced:
            self._raise_error()

    def _close_sinks(self) -> None:
        for sink in self._sinks:
            try:
                sink.close()
            except OSError as error:
                self._error = self._error or self._named(error)

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                if self._error is None:  # after an error rows are only taken, so that nobody blocks for ever
                    self._deliver(*item)
            except Exception as error:  # whatever it is, the training loop must hear of it
                self._error = self._named(error)
            finally:
                self._queue.task_done()
        self._queue.task_done()

    def _deliver(self, env_steps: int, wall_seconds: float, row: Row) -> None:
        for sink in self._sinks:
            sink.write(env_steps, wall_seconds, row)

    def _named(self, error: Exception) -> RunError:
        cause = getattr(error, "strerror", None) or one_line(error)
        return RunError(f"cannot write metrics to {self._path.parent}: {cause}")

    def _raise_error(self) -> None:
        if self._error is not None:
            self._surfaced = True
            raise self._error

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.close()
        except RunError as problem:
            if error is None:
                raise
            log.error("%s", problem)  # what ends the block must not be replaced by an error of its clean-up
