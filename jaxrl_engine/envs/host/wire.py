"""Messages between a run and its worker processes: a few words as JSON and arrays as they lie in memory.

A message is the length of its header (8 bytes), the header, and the bytes of the arrays it lists. Nothing is pickled:
whoever can write to the socket can send numbers, not code. Whatever waits has a deadline.
"""

import dataclasses
import json
import math
import socket
import struct
import time
from typing import Any

import numpy as np

from jaxrl_engine.core.spaces import ActionSpace, Box, Discrete, MultiDiscrete
from jaxrl_engine.envs.host.simulator import Arrays, Facts

_LENGTH = struct.Struct("!Q")


class Deadline:
    """A moment by which all of several waits must be over; `seconds` may be infinite."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float | None:
        """Return the seconds that remain, as a socket's timeout: None for ever.

        Raises:
            TimeoutError: none remain.
        """
        if math.isinf(self._end):
            return None
        seconds = self._end - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        return seconds


def send(sock: socket.socket, words: dict[str, Any], arrays: Arrays, deadline: Deadline) -> None:
    """Send a message.

    Raises:
        TimeoutError: the other side does not read.
        OSError: the other side is gone.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    listed = [[name, array.dtype.str, array.shape] for name, array in arrays.items()]
    header = json.dumps({"words": words, "arrays": listed}).encode()
    parts = [_LENGTH.pack(len(header)) + header, *(array.tobytes() for array in arrays.values())]
    sock.settimeout(deadline.left())
    sock.sendall(b"".join(parts))


def receive(sock: socket.socket, deadline: Deadline) -> tuple[dict[str, Any], Arrays]:
    """Wait for a message; its arrays lie in memory of their own.

    Raises:
        TimeoutError: it did not come in time.
        EOFError: the other side closed the connection.
    """
    (length,) = _LENGTH.unpack(_read(sock, np.empty(_LENGTH.size, np.uint8), deadline))
    header = json.loads(bytes(_read(sock, np.empty(length, np.uint8), deadline)))
    arrays = {name: np.empty(shape, np.dtype(dtype)) for name, dtype, shape in header["arrays"]}
    for array in arrays.values():
        _read(sock, array.reshape(-1).view(np.uint8), deadline)
    return header["words"], arrays


def _read(sock: socket.socket, room: np.ndarray, deadline: Deadline) -> memoryview:
    """Fill `room` from the socket."""
    whole = memoryview(room.data)
    rest = whole
    while len(rest):
        sock.settimeout(deadline.left())
        count = sock.recv_into(rest)
        if not count:
            raise EOFError
        rest = rest[count:]
    return whole


def facts_to_words(facts: Facts) -> dict[str, Any]:
    """Return `facts` as what JSON can hold."""
    words = {field.name: getattr(facts, field.name) for field in dataclasses.fields(facts)}
    return {**words, "observation": _space_to_words(facts.observation), "action": _space_to_words(facts.action)}


def facts_from_words(words: dict[str, Any]) -> Facts:
    """Undo `facts_to_words`."""
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in words.items()}
    spaces = {name: _space_from_words(words[name]) for name in ("observation", "action")}
    return Facts(**{**fields, **spaces})


def _space_to_words(space: ActionSpace) -> dict[str, Any]:
    if isinstance(space, Discrete):
        return {"n": space.n}
    if isinstance(space, MultiDiscrete):
        return {"nvec": space.nvec}
    # An image has one bound for its thousands of elements.
    bounds = (bound[:1] if len(set(bound)) == 1 else bound for bound in (space.low, space.high))
    low, high = map(list, bounds)
    return {"shape": space.shape, "low": low, "high": high, "dtype": space.dtype}


def _space_from_words(words: dict[str, Any]) -> ActionSpace:
    if "n" in words:
        return Discrete(words["n"])
    if "nvec" in words:
        return MultiDiscrete(tuple(words["nvec"]))
    shape = tuple(words["shape"])
    size = math.prod(shape)
    low, high = (tuple(bound) * size if len(bound) == 1 else tuple(bound) for bound in (words["low"], words["high"]))
    return Box(shape, low, high, words["dtype"])
