"""The newest message of every topic, for any number of readers. Never a queue: who is slow misses what is old."""

import functools
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

TICK_SECONDS = 5.0
"""Longest silence on a stream; what is written then tells whether anybody still reads it."""

News = list[tuple[str, str]]  # topic, message as JSON on one line; empty: nothing new


class _Message:
    """A message made by the first who reads it, and by nobody where nobody does."""

    def __init__(self, number: int, topic: str, make: Callable[[], Mapping[str, Any]]) -> None:
        self.number, self.topic = number, topic
        self._make: Callable[[], Mapping[str, Any]] | None = make
        self._text = ""
        self._lock = threading.Lock()

    @property
    def text(self) -> str:
        with self._lock:
            if self._make is not None:
                self._text = json.dumps(self._make(), separators=(",", ":"), allow_nan=False)
                self._make = None
            return self._text


class Mailbox:
    """Holds one message for each topic. Writing waits for no reader, and costs no more than remembering."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._messages: dict[str, _Message] = {}
        self._count = 0
        self._readers = 0
        self._closed = False

    def put(self, topic: str, make: Callable[[], Mapping[str, Any]]) -> None:
        """Replace the topic's message by the one that `make` returns when it is read, in the reader's thread."""
        with self._changed:
            self._count += 1
            self._messages[topic] = _Message(self._count, topic, make)
            self._changed.notify_all()

    @property
    def readers(self) -> int:
        """How many streams are open."""
        return self._readers

    def stream(self) -> Iterator[News]:
        """Yield what is there, then what comes, the newest of each topic; nothing new after every long silence.

        Ends when the mailbox is closed. Closing the generator says that the reader is gone.
        """
        with self._changed:
            self._readers += 1
        try:
            seen, closed = 0, False
            while not closed:
                with self._changed:
                    self._changed.wait_for(functools.partial(self._has_news, seen), TICK_SECONDS)
                    news = [message for message in self._messages.values() if message.number > seen]
                    seen, closed = self._count, self._closed
                yield [(message.topic, message.text) for message in sorted(news, key=lambda each: each.number)]
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    def _has_news(self, seen: int) -> bool:
        return self._closed or self._count > seen

    def close(self, patience: float) -> None:
        """End all streams, each after what it has not read yet; wait for slow readers no longer than `patience` s."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._readers == 0, patience)
