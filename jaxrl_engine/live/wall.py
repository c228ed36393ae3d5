"""The wall of a run: what it shows goes to whoever watches, and into the recording."""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxrl_engine.live.curves import Curves
from jaxrl_engine.live.easel import Easel
from jaxrl_engine.live.mailbox import Mailbox, News
from jaxrl_engine.live.recording import FILE, Recorder
from jaxrl_engine.live.server import WallServer, serve

CHARTS_SECONDS = 0.5
"""Shortest time between two versions of the charts."""
FAREWELL_SECONDS = 3.0
"""For readers to take the last messages when a run ends."""


@dataclasses.dataclass(frozen=True)
class WallOptions:
    """What a user asks of the wall."""

    live: bool = False  # serve it
    host: str = "127.0.0.1"
    port: int = 8765
    screens: int = 8
    record: bool = False  # write it down beside the run

    @property
    def wanted(self) -> bool:
        """Whether there is anything to show it to."""
        return self.live or self.record


class Wall:
    """A mailbox with the page's topics, and a server or a recorder that read it.

    It is a sink for rows of metrics and a source for the server. All methods may be called from any thread.
    """

    def __init__(self, *, title: str, mode: str, algo: str, note: str, screens: int) -> None:
        self.screens = screens
        self.chosen: int | None = None  # the cell whose body somebody wants to see
        self.mailbox = Mailbox()
        self.curves = Curves()
        self.server: WallServer | None = None
        self._recorder: Recorder | None = None
        self._charts_at = 0.0
        self._lock = threading.Lock()
        self._head: dict[str, Any] = {
            "title": title, "mode": mode, "algo": algo, "state": "compiling", "message": "", "env_steps": 0,
            "total_steps": 0, "steps_per_second": None, "eta_seconds": None, "policy_version": None, "updates": 0,
            "facts": [], "note": note,
        }  # fmt: skip
        self.head()
        self._put_charts()

    def serve(self, host: str, port: int) -> list[str]:
        """Start the server and return the lines that say where it is.

        Raises:
            UserError: the host is no address of this machine, or no port is free.
        """
        self.server, lines = serve(self, host, port)
        return lines

    def record(self, run_dir: Path, complain: Callable[[str], None]) -> None:
        """Write down from now on what is shown, in `run_dir`."""
        self._recorder = Recorder(self.mailbox, run_dir / FILE, complain)

    @property
    def watched(self) -> bool:
        """Whether anybody, or the recorder, reads."""
        return self.mailbox.readers > 0

    def put(self, topic: str, make: Callable[[], Mapping[str, Any]]) -> None:
        """Replace a topic's message; it is made when it is read."""
        self.mailbox.put(topic, make)

    def easel(self, num_actors: int) -> Easel:
        """Return where actors leave pictures of worlds that cannot be drawn."""

        def publish(topic: str, message: Mapping[str, Any]) -> None:
            self.put(topic, lambda: message)

        return Easel(publish, lambda: self.watched, self.screens, num_actors)

    def head(self, **fields: Any) -> None:
        """Change fields of the page's head; the time that is left follows from them."""
        with self._lock:
            self._head.update(fields)
            now = dict(self._head)
        speed, left = now["steps_per_second"], now["total_steps"] - now["env_steps"]
        now["eta_seconds"] = left / speed if speed and now["state"] == "running" else None
        self.put("head", lambda: now)

    # --- a source for the server ----------------------------------------------------------------------------------

    def stream(self, wishes: Mapping[str, str]) -> Iterator[News]:
        """Yield what is new."""
        return self.mailbox.stream()

    def select(self, cell: int | None) -> None:
        """Remember which cell's body is asked for."""
        self.chosen = cell

    # --- a sink for rows of metrics --------------------------------------------------------------------------------

    def write(self, env_steps: int, wall_seconds: float, row: Mapping[str, Any]) -> None:
        """Take one row into the charts."""
        self.curves.add(env_steps, row)
        if time.monotonic() - self._charts_at >= CHARTS_SECONDS:
            self._put_charts()

    def flush(self) -> None:
        """Show all rows."""
        self._put_charts()

    def close(self) -> None:
        """Show all rows; the wall stays until `end`."""
        self._put_charts()

    def _put_charts(self) -> None:
        self._charts_at = time.monotonic()
        self.put("charts", self.curves.message)

    # ---------------------------------------------------------------------------------------------------------------

    def __enter__(self) -> "Wall":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.end()

    def end(self) -> None:
        """Let readers take the last messages, then end the server and the recording, within seconds."""
        self.mailbox.close(FAREWELL_SECONDS)
        if self._recorder is not None:
            self._recorder.close(FAREWELL_SECONDS)
        if self.server is not None:
            self.server.close()
