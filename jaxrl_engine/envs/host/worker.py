"""A process that steps some copies of a world for a run: `python -m jaxrl_engine.envs.host.worker SOCKET`.

It ends when its run closes the connection, or dies: the connection then ends by itself.
"""

import contextlib
import faulthandler
import importlib
import socket
import sys
import traceback
from collections.abc import Iterator
from typing import Any

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.envs.host.pictures import told
from jaxrl_engine.envs.host.simulator import REFUSALS, Arrays, Simulator
from jaxrl_engine.envs.host.wire import Deadline, facts_to_words, receive, send

FOR_EVER = float("inf")
PATIENCE = 2.0
"""By how much longer than its run a worker bears with its world: the run shall be the first to tell."""
CLOSING = 5.0
"""Seconds for the world to close."""


def serve(sock: socket.socket) -> None:
    """Answer until the run is gone."""
    simulator: Simulator | None = None
    try:
        while True:
            words, arrays = receive(sock, Deadline(FOR_EVER))  # the end of the run ends this wait
            simulator, answer, shown = _answered(simulator, words, arrays)
            send(sock, answer, shown, Deadline(FOR_EVER))
    except (EOFError, ConnectionError):
        return
    finally:
        if simulator is not None:
            with _watched(CLOSING):
                simulator.close()


def _answered(
    simulator: Simulator | None, words: dict[str, Any], arrays: Arrays
) -> tuple[Simulator | None, dict[str, Any], Arrays]:
    """Do what is asked; what goes wrong is the answer."""
    try:
        with _watched(words["seconds"]):
            if simulator is None:
                family = importlib.import_module(words["module"])
                simulator = family.simulate(words["name"], words["num_envs"], **words["values"])
                return simulator, facts_to_words(simulator.facts), {}
            if "pictures" in words:
                return simulator, *_drawn(simulator, words["pictures"])
            shown = simulator.step(arrays["actions"]) if "actions" in arrays else simulator.reset(words["seed"])
            return simulator, {}, shown
    except Exception as error:
        said = {"error": type(error).__name__, "reason": str(error), "trace": traceback.format_exc()}
        refused = simulator is None and isinstance(error, REFUSALS)
        return simulator, {**said, "user": isinstance(error, UserError), "refused": refused}, {}


def _drawn(simulator: Simulator, count: int) -> tuple[dict[str, Any], Arrays]:
    """Return pictures, or why there are none: no reason to give the world up."""
    try:
        return {}, {"pictures": simulator.pictures(count)}
    except Exception as error:
        return {"no_pictures": told(error)}, {}


@contextlib.contextmanager
def _watched(seconds: float) -> Iterator[None]:
    """End this process, with a trace of where it was, if the world hangs: nobody may be left to do it."""
    faulthandler.dump_traceback_later(seconds * PATIENCE, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
