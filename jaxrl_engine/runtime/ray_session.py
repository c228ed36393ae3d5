"""Ray in this process: started or joined by whoever needs it first, left by whoever needs it last.

A Ray of the run's own listens on the loopback interface only, takes a token that only this process and its children
know, keeps its files in a directory of its own, and is gone with the run. Importing this module does not import ray.
"""

import contextlib
import importlib
import importlib.util
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime.errors import RunError, one_line

PROBE_SECONDS = 5.0
"""A Ray that does not say a word for so long is not there; Ray itself would try for minutes."""
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How a client of Ray's servers, which speak gRPC, begins: HTTP/2's preface and empty settings."""
_SETTINGS = 4
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a late call after the end must not start another Ray
    "RAY_NUM_REDIS_GET_RETRIES": "1",  # of 36 s each
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else there is a warning about a future version
}
_ALONE = {
    # The name is history: Ray keeps to the loopback interface where it does not expect other machines. Its servers
    # run what they are told, and would else listen on every interface.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # Ray would leave one in the home directory; it remembers the first
}

_mutex = threading.RLock()
_users = 0
_joined: tuple[str, contextlib.ExitStack] | None = None


def ray() -> Any:
    """Return the module, once the session has been joined."""
    return importlib.import_module("ray")


def require_ray(address: str) -> None:
    """Raise UserError where the extra `ray` is not installed, or nothing like Ray answers at the address."""
    if importlib.util.find_spec("ray") is None:
        raise UserError('actors.kind ray needs the extra ray: pip install -c constraints.txt -e ".[ray]"')
    place = os.environ.get("RAY_ADDRESS", "auto") if address == "auto" else address
    if place in ("", "auto", "local") or os.environ.get("RAY_USE_TLS", "0") != "0":
        return
    host, colon, port = place.removeprefix("ray://").rpartition(":")
    if not (colon and host and port.isdigit() and 0 < int(port) < 2**16):
        raise UserError(f"actors.ray_address must be empty, auto or HOST:PORT, not {place!r}")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS) as connection:
            connection.settimeout(PROBE_SECONDS)
            connection.sendall(_HELLO)
            head = connection.recv(9)
    except OSError as error:
        raise _no_ray(place, error) from None
    if len(head) < 4 or head[3] != _SETTINGS:
        raise _no_ray(place, ValueError("whoever answers there is not Ray"))


def _no_ray(address: str, error: BaseException) -> UserError:
    hint = "start one with `ray start --head`, or leave actors.ray_address empty for one of the run's own"
    return UserError(f"actors.ray_address: no Ray at {address!r}; {hint} ({one_line(error)})")


def join(address: str) -> None:
    """Be one more user of this process's Ray; the first one starts it (about 5 s), or connects to the one at `address`.

    A Ray that somebody else in this process has joined already is used, and not ended.

    Raises:
        UserError: see `require_ray`; or this process has joined another one.
        RunError: a Ray of the run's own does not start.
    """
    global _users, _joined
    with _mutex:
        if _joined is not None and _joined[0] != address:
            raise UserError(
                f"actors.ray_address must be {_joined[0]!r}, which this process has joined, not {address!r}"
            )
        if _joined is None:
            require_ray(address)
            _joined = address, _begin(address)
        _users += 1


def leave() -> None:
    """Be one user less; the last one ends what the first began."""
    global _users, _joined
    with _mutex:
        _users -= 1
        if _users == 0 and _joined is not None:
            (_, ending), _joined = _joined, None
            ending.close()


def _begin(address: str) -> contextlib.ExitStack:
    with contextlib.ExitStack() as undo:
        undo.enter_context(_environment({**_QUIET, **({} if address else _ALONE)}))
        with _signals_kept(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about forks beside threads: Ray's children only start other programs
            module = ray()
            if not module.is_initialized():
                _start(module, address, undo)
        return undo.pop_all()


def _start(module: Any, address: str, undo: contextlib.ExitStack) -> None:
    quiet = {"configure_logging": False, "logging_level": logging.ERROR, "log_to_driver": False}
    logging.getLogger("ray").setLevel(logging.ERROR)
    undo.callback(module.shutdown)
    if address:
        try:
            module.init(address=address, **quiet)
        except (OSError, ValueError, RuntimeError, ImportError, module.exceptions.RayError) as error:
            raise _no_ray(address, error) from None
        return
    # Of its sockets' paths a system takes about a hundred letters: not where a user's temporary files may be.
    place = tempfile.mkdtemp(prefix="ray-", dir=os.environ.get("RAY_TMPDIR", "/tmp"))
    undo.callback(shutil.rmtree, place, ignore_errors=True)
    undo.callback(module.shutdown)
    try:
        module.init(address="local", num_cpus=0, include_dashboard=False, _temp_dir=place, **quiet)
    except Exception as error:
        raise RunError(f"Ray did not start: {one_line(error)}") from error


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables that the user has not set, for as long as the context is open."""
    if "RAY_AUTH_MODE" in os.environ:
        values = {name: value for name, value in values.items() if not name.startswith("RAY_AUTH_")}
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Put back the handlers that Ray replaces: who asks a run to stop asks the run."""
    main = threading.current_thread() is threading.main_thread()
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        yield
    finally:
        for number, handler in former.items():
            if handler is not None:
                signal.signal(number, handler)
