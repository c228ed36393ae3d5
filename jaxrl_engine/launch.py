"""`python -m jaxrl_engine.launch --processes N -- <arguments of run>`: several ranks on this machine, watched over.

Every rank is a `python -m jaxrl_engine.run --distributed 127.0.0.1:PORT,RANK,N` of its own. Where one breaks, the
others cannot go on: all are ended, and all start again from the last checkpoint. Across machines the same is the work
of a cluster's scheduler (docs/scaling.md).

Exit codes: those of the run; 1 where it broke more often than is allowed.
"""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from jaxrl_engine.core.checks import require
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime.command_line import HELP_OPTIONS, print_help, read_arguments
from jaxrl_engine.runtime.config import CONFIG_FILE, Invocation, parse
from jaxrl_engine.runtime.errors import EXIT_FAILURE, EXIT_USER_ERROR, exit_with, one_line
from jaxrl_engine.runtime.places import free_port
from jaxrl_engine.runtime.run_directory import default_directory

PROGRAM = "python -m jaxrl_engine.launch"
POLL_SECONDS = 0.05
GRACE_SECONDS = 15.0
"""How long ranks may take to notice that another has broken, before they are killed; JAX notices within 10 s."""
ORDERLY = (0, EXIT_USER_ERROR, 128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit codes of ranks that ended as they meant to."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Start several processes of one run on this machine, and all of them again where one breaks.

    What follows `--` are the arguments of python -m jaxrl_engine.run. --distributed is not among them.
    """

    processes: int = 2
    """Processes to start."""
    restarts: int = 3
    """Times that all of them are started again, from the last checkpoint."""

    def __post_init__(self) -> None:
        require(self.processes >= 1, "processes", "a whole number >= 1", self.processes)
        require(self.restarts >= 0, "restarts", "a whole number >= 0", self.restarts)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    cut = words.index("--") if "--" in words else len(words)
    try:
        options = _read_options(words[:cut])
        arguments = words[cut + 1 :]
        invocation = parse(arguments)
        if invocation.distributed != "off":
            raise UserError("distributed is not given to launch, which says it to each process")
        return Launch(options, arguments, invocation).run()
    except UserError as error:
        exit_with(error)


def _read_options(words: Sequence[str]) -> Options:
    if any(word in HELP_OPTIONS for word in words):
        print_help(Options(), PROGRAM)
        raise SystemExit(0)
    try:
        return Options(**read_arguments(words, Options, {}))
    except ValueError as error:
        raise UserError(one_line(error)) from None


class Launch:
    """The processes of one run, from the first start to the last end."""

    def __init__(self, options: Options, arguments: Sequence[str], invocation: Invocation) -> None:
        self.options = options
        self.directory = invocation.resume or invocation.run_dir or default_directory(invocation.config)
        self.arguments = _without(arguments, "--run-dir", "--resume")
        self.resuming = invocation.resume is not None
        self.ranks: list[subprocess.Popen[bytes]] = []
        self.asked: int | None = None  # the signal that asked us to end

    def run(self) -> int:
        """Start all, as often as it takes and is allowed; return the exit code."""
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._pass_on)
        for attempt in range(self.options.restarts + 1):
            self._start()
            cause = self._watch()
            codes = [rank.returncode for rank in self.ranks]
            if cause is None or EXIT_USER_ERROR in codes:
                return EXIT_USER_ERROR if cause else max(codes)
            if self.asked is not None:
                return 128 + self.asked
            if self._ended_itself():
                return EXIT_FAILURE
            left = self.options.restarts - attempt
            self._say(
                f"{cause}; " + (f"all start again, {left} times more at most" if left else "no restarts are left")
            )
        return EXIT_FAILURE

    def _start(self) -> None:
        begun = self.resuming or (self.directory / CONFIG_FILE).is_file()
        where = ["--resume" if begun else "--run-dir", str(self.directory)]
        port, size = free_port(), self.options.processes
        self.started = time.time()
        self.ranks = []
        for rank in range(size):
            place = ["--distributed", f"127.0.0.1:{port},{rank},{size}"]
            command = [sys.executable, "-m", "jaxrl_engine.run", *self.arguments, *where, *place]
            # A process group of its own: Ctrl-C reaches us alone, who pass it on once.
            self.ranks.append(subprocess.Popen(command, env=_environment(rank, size), process_group=0))

    def _watch(self) -> str | None:
        """Wait until all have ended; return why, if one did otherwise than it meant to."""
        cause, deadline = None, None
        while None in [rank.poll() for rank in self.ranks]:
            time.sleep(POLL_SECONDS)
            if cause is None:
                cause = self._broken()
                deadline = None if cause is None else time.monotonic() + GRACE_SECONDS
            if deadline is not None and time.monotonic() > deadline:
                self._kill()
        return cause or self._broken()

    def _broken(self) -> str | None:
        for number, rank in enumerate(self.ranks):
            code = rank.returncode
            if code is not None and code < 0:
                return f"rank {number} was killed by {signal.Signals(-code).name}"
            if code is not None and code not in ORDERLY:
                return f"rank {number} ended with exit code {code}"
        return None

    def _ended_itself(self) -> bool:
        """Whether the run came to an end that starting it again would not change: its summary says so."""
        summary = self.directory / "summary.json"
        return summary.is_file() and summary.stat().st_mtime >= self.started

    def _kill(self) -> None:
        for rank in self.ranks:
            if rank.poll() is None:
                rank.kill()

    def _pass_on(self, signum: int, frame: FrameType | None) -> None:
        """Hand a signal on to rank 0, on which the others agree with it; a second one ends all at once."""
        again = self.asked is not None
        self.asked = signum
        for rank in self.ranks if again else self.ranks[:1]:
            if rank.poll() is None:
                rank.send_signal(signum)

    def _say(self, text: str) -> None:
        print(f"launch: {text}", file=sys.stderr, flush=True)


def _without(arguments: Sequence[str], *options: str) -> list[str]:
    """The arguments without these options and the word after each."""
    kept, skip = [], False
    for word in arguments:
        name = word.partition("=")[0].replace("_", "-")
        if name in options:
            skip = "=" not in word
        elif skip:
            skip = False
        else:
            kept.append(word)
    return kept


def _environment(rank: int, size: int) -> Mapping[str, str]:
    """A rank's environment: where the machine has GPUs for all, each gets its share."""
    gpus = len([path for path in Path("/dev").glob("nvidia*") if path.name[6:].isdigit()])
    share = gpus // size
    if not share or {"CUDA_VISIBLE_DEVICES", "JAX_LOCAL_DEVICE_IDS"} & set(os.environ):
        return os.environ
    own = range(rank * share, (rank + 1) * share)
    return {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(map(str, own))}


if __name__ == "__main__":
    sys.exit(main())
