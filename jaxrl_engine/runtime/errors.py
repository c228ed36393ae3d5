"""What goes wrong in a run, and how a program says so: one line on stderr and an exit code."""

import sys
from typing import NoReturn

from jaxrl_engine.core.errors import UserError

EXIT_FAILURE = 1
EXIT_USER_ERROR = 2


class RunError(Exception):
    """A failure that is not the user's input: disk full, damaged file. One line with a named cause; exit code 1."""


def one_line(error: BaseException) -> str:
    """The text of an error without line breaks, cut at 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def exit_with(error: UserError | RunError) -> NoReturn:
    """Print `error: …` as one line on stderr and leave: code 2 for the user's mistakes, 1 for everything else."""
    print(f"error: {one_line(error)}", file=sys.stderr)
    raise SystemExit(EXIT_USER_ERROR if isinstance(error, UserError) else EXIT_FAILURE)
