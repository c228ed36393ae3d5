"""`python -m jaxrl_engine.live RUN`: show a recorded run again; `--demo`: eight worlds at once, without training."""

import dataclasses
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jaxrl_engine.core.checks import require
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.live.recording import FILE, Playback
from jaxrl_engine.live.server import serve
from jaxrl_engine.runtime.command_line import HELP_OPTIONS, print_help, read_arguments
from jaxrl_engine.runtime.errors import RunError, exit_with
from jaxrl_engine.runtime.logs import configure_logging

PROGRAM = "python -m jaxrl_engine.live [RUN]"


@dataclasses.dataclass(frozen=True)
class Options:
    """Show what a run recorded (--record), also while it still goes on, in a browser.

    Of a run without a recording the saved policy plays. Ctrl-C ends it.
    """

    demo: bool = False
    """Show eight worlds at once instead, played at random."""
    port: int = 8765
    """Where the page is served; where it is taken, on the next free port."""
    host: str = "127.0.0.1"
    """Address it is served on; beyond this machine only with a random token, which is printed."""
    seed: int = 0
    """Seed of the episodes that are played."""
    platform: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to compute what is played."""

    def __post_init__(self) -> None:
        require(1 <= self.port <= 65535, "port", "from 1 to 65535", self.port)


def parse_arguments(argv: Sequence[str]) -> tuple[Path | None, Options]:
    """Return the run directory and the options.

    Raises:
        UserError: neither a directory nor `--demo`, or both, or an option is unknown or not valid.
        SystemExit: help was asked for and has been printed.
    """
    if any(token in HELP_OPTIONS for token in argv):
        print_help(Options(), PROGRAM)
        raise SystemExit(0)
    named = bool(argv) and not argv[0].startswith("--")
    try:
        options = Options(**read_arguments(argv[named:], Options, {}))
    except ValueError as error:
        raise UserError(str(error)) from None
    if named == options.demo:
        raise UserError("name either a run directory or --demo: python -m jaxrl_engine.live RUN")
    return (Path(argv[0]) if named else None), options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        return _show(*parse_arguments(sys.argv[1:] if argv is None else argv))
    except (UserError, RunError) as error:
        exit_with(error)
    except KeyboardInterrupt:  # the usual way to leave what never ends by itself
        return 0


def _show(run_dir: Path | None, options: Options) -> int:
    configure_logging("warning")
    if run_dir is not None and not run_dir.is_dir():
        raise UserError(f"{run_dir} is not the directory of a run")
    if run_dir is not None and (run_dir / FILE).exists():
        server, lines = serve(Playback(run_dir / FILE), options.host, options.port)
        print(*lines, sep="\n", flush=True)
        try:
            threading.Event().wait()
        finally:
            server.close()
    from jaxrl_engine.runtime.devices import configure_platform, enable_compile_cache

    configure_platform(options.platform, 1)
    enable_compile_cache()
    from jaxrl_engine.modes.policy import load_policy
    from jaxrl_engine.modes.theatre import show_demo, show_policy

    if run_dir is None:
        show_demo(options.host, options.port, options.seed)
    else:
        print(f"{run_dir} was not recorded (--record): its saved policy plays instead")
        show_policy(load_policy(run_dir), 8, options.host, options.port, options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
