"""How far a run is: a bar where a person watches, one plain line every few seconds where a log file listens."""

import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

SECONDS_BETWEEN_LINES = 5.0


@runtime_checkable
class Stream(Protocol):
    """The part of a text file that is needed here."""

    def write(self, text: str, /) -> Any: ...

    def flush(self) -> Any: ...

    def isatty(self) -> bool: ...


class Progress:
    """Shows steps, steps per second, the given fields and the time that is left.

    On a terminal this is one bar at the bottom, drawn at each `update` (no thread of its own); elsewhere it is plain
    lines, the first and the last update always among them. `quiet` shows nothing.
    """

    def __init__(self, total_steps: int, quiet: bool, stream: Stream | None = None) -> None:
        self._total = total_steps
        self._quiet = quiet
        self._stream: Any = stream if stream is not None else sys.stdout
        self._bar = _Bar(total_steps, self._stream) if not quiet and self._stream.isatty() else None
        self._unprinted: str | None = None
        self._printed_at = -SECONDS_BETWEEN_LINES

    def update(self, env_steps: int, steps_per_second: float, fields: Mapping[str, float | None]) -> None:
        """Show a new state; `fields` are named numbers such as `return` (None: not measured yet, left out)."""
        if self._quiet:
            return
        remaining = max(0, self._total - env_steps)
        left = f"ETA {_duration(remaining / steps_per_second)}" if steps_per_second > 0 else "ETA -"
        shown = [f"{name} {value:,.4g}" for name, value in fields.items() if value is not None]
        facts = "  ".join([f"{steps_per_second:,.0f} steps/s", *shown, left])
        if self._bar is not None:
            self._bar.update(env_steps, facts)
            return
        percent = 100 * min(1.0, env_steps / self._total)
        self._unprinted = f"{percent:5.1f} %  {env_steps:,}/{self._total:,} steps  {facts}"
        if time.monotonic() - self._printed_at >= SECONDS_BETWEEN_LINES:
            self._print_line()

    def _print_line(self) -> None:
        if self._unprinted is not None:
            print(self._unprinted, file=self._stream, flush=True)
            self._printed_at, self._unprinted = time.monotonic(), None

    def message(self, text: str) -> None:
        """Print a line of text (above the bar)."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.message(text)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Print what was not shown yet and release the terminal."""
        self._print_line()
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close()


class _Bar:
    """A rich progress bar."""

    def __init__(self, total_steps: int, stream: Any) -> None:
        from rich.console import Console  # only a terminal needs it
        from rich.progress import BarColumn, Progress as RichProgress, TaskProgressColumn, TextColumn

        columns = (BarColumn(bar_width=None), TaskProgressColumn(), TextColumn("{task.fields[facts]}", markup=False))
        self._rich = RichProgress(*columns, console=Console(file=stream), auto_refresh=False, expand=True)
        self._task = self._rich.add_task("", total=total_steps, facts="compiling")
        self._rich.start()

    def update(self, env_steps: int, facts: str) -> None:
        self._rich.update(self._task, completed=env_steps, facts=facts, refresh=True)

    def message(self, text: str) -> None:
        self._rich.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        self._rich.stop()


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(min(seconds, 1e9)), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
