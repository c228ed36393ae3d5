"""Ctrl-C and SIGTERM: the first asks for an orderly end after the running chunk, a second Ctrl-C leaves at once."""

import contextlib
import os
import signal
from types import FrameType

_SHOW_CURSOR = b"\x1b[?25h"  # a progress bar that had no time to end leaves it hidden


def exit_code(signum: int) -> int:
    """Return the exit code of a program ended by a signal: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + signum


class StopSignals:
    """Within this context the first SIGINT or SIGTERM only sets `received`; a SIGINT after it exits with 130.

    Python runs signal handlers in the main thread, so the context must be entered there (ValueError otherwise). On
    leaving, the former handlers are back.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._former: dict[int, signal.Handlers | int | None] = {}

    def __enter__(self) -> "StopSignals":
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._former[signum] = signal.signal(signum, self._handle)  # type: ignore[assignment]
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for signum, handler in self._former.items():
            signal.signal(signum, handler)
        self._former.clear()

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = signum
            line_break = "\n" if os.isatty(2) else ""  # the terminal has just echoed ^C
            name = signal.Signals(signum).name
            _say(
                f"{line_break}{name}: stopping after the running chunk; Ctrl-C exits at once without saving\n".encode()
            )
        elif signum == signal.SIGINT:
            _say(_SHOW_CURSOR if os.isatty(2) else b"")
            os._exit(exit_code(signal.SIGINT))  # no clean-up: threads may hang, and the last checkpoint is whole


def _say(text: bytes) -> None:
    """Write without Python's buffers: the handler may have interrupted another write to the same stream."""
    with contextlib.suppress(OSError):  # nobody listens any more: no reason not to stop
        os.write(2, text)
