"""TensorBoard's web page beside a run, in a process of its own that ends with it.

The viewer serves until its standard input ends, and the run holds the other end: whatever ends the run, a `kill -9`
included, ends the viewer. It has a session of its own, so that a Ctrl-C at the terminal reaches only the run.
"""

import contextlib
import importlib
import importlib.util
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime.logs import log

HOST = "127.0.0.1"
RELOAD_SECONDS = "10"


def require_tensorboard() -> None:
    """Raise UserError where the extra `tensorboard` is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        hint = 'pip install -c constraints.txt -e ".[tensorboard]"'
        raise UserError(f"tensorboard: the extra tensorboard is not installed: {hint}")


@contextlib.contextmanager
def tensorboard_viewer(directory: Path) -> Iterator[None]:
    """Serve the event files of a run's directory on this machine, at port 6006 or the next free one, while it is open.

    The address is printed on stderr once it answers, which takes some seconds. A viewer that fails is no reason to end
    a run: that is a warning.

    Raises:
        UserError: see `require_tensorboard`.
    """
    require_tensorboard()
    command = [sys.executable, "-m", __name__, str(directory.resolve())]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=said, start_new_session=True) as child,
    ):
        ending = threading.Event()
        announcer = threading.Thread(target=_announce, args=(child, said, ending), name="tensorboard", daemon=True)
        announcer.start()
        try:
            yield
        finally:
            ending.set()
            child.kill()  # it has nothing to save
            announcer.join()


def _announce(child: "subprocess.Popen[bytes]", said: IO[bytes], ending: threading.Event) -> None:
    assert child.stdout is not None
    address = child.stdout.readline().decode().strip()
    if address:
        print(f"TensorBoard: {address}", file=sys.stderr, flush=True)
    elif not ending.is_set():
        child.wait()
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
        log.warning("TensorBoard did not start: %s", lines[-1] if lines else f"it ended with code {child.returncode}")


def _serve(directory: str) -> None:
    """Serve until standard input ends."""
    program: Any = importlib.import_module("tensorboard.program")
    server = program.TensorBoard()
    # Without a port it tries 6006 and the hundred after it. The fast loader would be a process of its own.
    options = ("--logdir", directory, "--host", HOST, "--load_fast", "false", "--reload_interval", RELOAD_SECONDS)
    server.configure(argv=["tensorboard", *options])
    print(server.launch(), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _serve(sys.argv[1])
