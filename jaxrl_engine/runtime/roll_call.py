"""A roll call over TCP: rank 0 waits for the others, compares what they bring with its own, and tells all of it.

One line of JSON each way. The answer is empty where all is well, else the one line that every rank ends with.
"""

import contextlib
import json
import socket
import time
from collections.abc import Mapping
from typing import Any

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime.errors import one_line

MOST_BYTES = 1 << 20
_RETRY_SECONDS = 0.1
_MOST_DIFFERENCES = 3

Facts = Mapping[str, str]


def call(address: tuple[str, int], size: int, facts: Facts, patience: float) -> None:
    """Wait until all `size − 1` others have come, and let them go on if they agree with `facts`.

    Raises:
        UserError: nobody can be listened to, somebody did not come, or does not agree; all who came hear the same.
    """
    deadline = time.monotonic() + patience
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listen(address))
        came: dict[int, tuple[socket.socket, dict[str, Any]]] = {}
        problem = _gather(listener, stack, came, size, deadline)
        name = "{}:{}".format(*address)
        missing = [rank for rank in range(1, size) if rank not in came]
        if not problem and missing:
            named = ", ".join(map(str, missing))
            problem = f"rank {named} of {size} did not come within {patience:g} s; start it with {name},RANK,{size}"
        for rank in sorted(came):
            problem = problem or _compare(rank, came[rank][1], size, facts)
        for connection, _ in came.values():
            with contextlib.suppress(OSError):  # it has ended meanwhile, and will be missed elsewhere
                connection.sendall((json.dumps(problem) + "\n").encode())
    if problem:
        raise UserError(f"distributed: {problem}")


def _listen(address: tuple[str, int]) -> socket.socket:
    try:
        family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server(address, family=family, backlog=128)
    except OSError as error:
        problem = f"rank 0 cannot listen on {address[0]}:{address[1]}: {error.strerror or one_line(error)}"
        raise UserError(f"distributed: {problem}; name an address of its own machine and a free port") from None


def _gather(
    listener: socket.socket,
    stack: contextlib.ExitStack,
    came: dict[int, tuple[socket.socket, dict[str, Any]]],
    size: int,
    deadline: float,
) -> str:
    """Take in who comes before the deadline; return what is wrong already, if anything is."""
    while len(came) < size - 1 and (left := deadline - time.monotonic()) > 0:
        listener.settimeout(left)
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            break
        connection.settimeout(max(0.1, min(5.0, left)))
        try:
            told = json.loads(_read_line(connection))
            rank = int(told["rank"])
            stack.enter_context(connection)
        except (OSError, ValueError, KeyError, TypeError):  # a stranger, or one that ended: it may come again
            connection.close()
            continue
        if rank in came or rank <= 0:
            came[-1 - rank] = (connection, told)  # it is told, too
            return f"two processes call themselves rank {rank}"
        came[rank] = (connection, told)
    return ""


def _compare(rank: int, told: Mapping[str, Any], size: int, facts: Facts) -> str:
    if told.get("size") != size:
        return f"rank {rank} was started for {told.get('size')} processes, rank 0 for {size}"
    theirs = told.get("facts", {})
    differ = [name for name in facts if theirs.get(name) != facts[name]]
    if not differ:
        return ""
    shown = "; ".join(f"{name} is {theirs.get(name)}, on rank 0 {facts[name]}" for name in differ[:_MOST_DIFFERENCES])
    more = f"; {len(differ) - _MOST_DIFFERENCES} more" if len(differ) > _MOST_DIFFERENCES else ""
    return f"rank {rank} was started otherwise than rank 0: {shown}{more}; every rank needs the same"


def answer(address: tuple[str, int], rank: int, size: int, facts: Facts, patience: float) -> None:
    """Report to rank 0, and wait for its word.

    Raises:
        UserError: nobody calls at the address within `patience` seconds, or the ranks do not agree.
    """
    deadline = time.monotonic() + patience
    told = json.dumps({"rank": rank, "size": size, "facts": dict(facts)}) + "\n"
    problem: Any = None
    while problem is None and time.monotonic() < deadline:
        try:
            with socket.create_connection(address, timeout=max(0.1, deadline - time.monotonic())) as connection:
                connection.sendall(told.encode())
                # Rank 0 may wait for others as long as this one did, before it answers.
                connection.settimeout(patience + 5.0)
                problem = json.loads(_read_line(connection))
        except (OSError, ValueError):  # not there yet, or ended while it listened
            time.sleep(_RETRY_SECONDS)
    if problem is None:
        where = "{}:{}".format(*address)
        raise UserError(f"distributed: nobody called rank {rank} at {where} within {patience:g} s; is rank 0 running?")
    if problem:
        raise UserError(f"distributed: {problem}")


def _read_line(connection: socket.socket) -> str:
    with connection.makefile("rb") as stream:
        line = stream.readline(MOST_BYTES)
    if not line.endswith(b"\n"):
        raise ValueError("no line came")
    return line.decode()
