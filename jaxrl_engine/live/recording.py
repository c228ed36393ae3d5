"""What the wall showed, line by line in a file beside the run, and shown again from there.

A line is `{"time": seconds, "topic": …, "message": …}`; times grow, also over a resume. Whoever reads may begin while
the run still writes: a line that is not whole yet is left for later.
"""

import json
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.live.mailbox import TICK_SECONDS, Mailbox, News

FILE = "wall.jsonl"
CLOCK_SECONDS = 0.25
FOLLOW_SECONDS = 0.5
"""How often a recording that has been shown to its end is asked for more."""
SPEEDS = (0.1, 100.0)


class Recorder:
    """A reader of the mailbox that writes down what it reads. A disk that refuses ends the recording, not the run."""

    def __init__(self, mailbox: Mailbox, path: Path, complain: Callable[[str], None]) -> None:
        self._mailbox, self._path, self._complain = mailbox, path, complain
        self._begun = time.monotonic() - (Recording(path).end if path.exists() else 0.0)
        self._thread = threading.Thread(target=self._work, name="wall-recorder", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                for news in self._mailbox.stream():
                    now = time.monotonic() - self._begun
                    for topic, text in news:
                        file.write(f'{{"time":{now:.3f},"topic":"{topic}","message":{text}}}\n')
                    file.flush()
        except OSError as error:
            self._complain(f"the recording ends here: {self._path}: {error.strerror or error}")

    def close(self, patience: float) -> None:
        """Return when everything is written; the mailbox has been closed before."""
        self._thread.join(patience)


class _Entry(NamedTuple):
    time: float
    topic: str
    offset: int
    length: int


class Recording:
    """A recording read where it lies: only where each message begins is kept in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: list[_Entry] = []
        self._read_to = 0
        self._lock = threading.Lock()
        self.refresh()

    def refresh(self) -> None:
        """Take in what was written since."""
        with self._lock, self._path.open("rb") as file:
            file.seek(self._read_to)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._take(line)

    def _take(self, line: bytes) -> None:
        offset, self._read_to = self._read_to, self._read_to + len(line)
        try:
            entry = json.loads(line)
            moment, topic = float(entry["time"]), str(entry["topic"])
            entry["message"]
        except (ValueError, KeyError, TypeError):
            return  # damaged, or cut off when the run was killed
        if not self._entries or moment >= self._entries[-1].time:
            self._entries.append(_Entry(moment, topic, offset, len(line)))

    @property
    def end(self) -> float:
        """Seconds from the first message to the last."""
        return self._entries[-1].time if self._entries else 0.0

    def first(self, topic: str) -> float:
        """Return when the first message of a topic came; 0: there is none."""
        return next((entry.time for entry in self._entries if entry.topic == topic), 0.0)

    def until(self, moment: float) -> tuple[News, int]:
        """Return the newest message of each topic at a time, and the number of the next one."""
        following = bisect_right(self._entries, moment, key=lambda entry: entry.time)
        newest = {entry.topic: number for number, entry in enumerate(self._entries[:following])}
        return [self.message(number) for number in sorted(newest.values())], following

    def time_of(self, number: int) -> float | None:
        """Return when a message came; None: there is none of this number yet."""
        return self._entries[number].time if number < len(self._entries) else None

    def message(self, number: int) -> tuple[str, str]:
        """Return topic and text of a message."""
        entry = self._entries[number]
        with self._path.open("rb") as file:
            file.seek(entry.offset)
            message = json.loads(file.read(entry.length))["message"]
        return entry.topic, json.dumps(message, separators=(",", ":"))


class Playback:
    """A source of events for the page: each stream goes through the recording at its own time and speed."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise UserError(f"{path} does not exist: the run was not recorded (--record)")
        self.recording = Recording(path)
        if not self.recording.end:
            raise UserError(f"{path} holds no recording")

    def select(self, cell: int | None) -> None:
        """Do nothing: what was not recorded cannot be shown."""

    def stream(self, wishes: Mapping[str, str]) -> Iterator[News]:
        """Yield the messages from `from` on (seconds), `speed` times as fast as they came."""
        recording, speed = self.recording, _number(wishes.get("speed"), 1.0, *SPEEDS)
        begun_at = _number(wishes.get("from"), recording.first("screens"), 0.0, recording.end)
        news, following = recording.until(begun_at)
        yield [*news, self._clock(begun_at, speed)]
        begun = time.monotonic()
        silent_since = begun
        while True:
            now = begun_at + speed * (time.monotonic() - begun)
            news = []
            while (moment := recording.time_of(following)) is not None and moment <= now:
                news.append(recording.message(following))
                following += 1
            ended = recording.time_of(following) is None
            if news or not ended or time.monotonic() - silent_since > TICK_SECONDS:
                yield [*dict(news).items(), self._clock(min(now, recording.end), speed)]
                silent_since = time.monotonic()
            if ended:
                recording.refresh()
                if recording.time_of(following) is not None:
                    begun_at, begun = recording.end, time.monotonic()
            time.sleep(FOLLOW_SECONDS if ended else CLOCK_SECONDS)

    def _clock(self, now: float, speed: float) -> tuple[str, str]:
        return "clock", json.dumps({"time": round(now, 2), "end": round(self.recording.end, 2), "speed": speed})


def _number(text: str | None, default: float, low: float, high: float) -> float:
    try:
        value = default if text is None else float(text)
    except ValueError:
        return default
    return min(max(value, low), high) if value == value else default
