"""What the tests of files and of command lines share."""

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def write() -> Callable[[Path, str], Path]:
    """Write a configuration file."""

    def write_file(directory: Path, text: str) -> Path:
        path = directory / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


@pytest.fixture(scope="session")
def run_parse() -> Callable:
    """Parse and return exit code (0 also for success), stdout, stderr and the invocation."""
    from jaxrl_engine.runtime.config import parse

    def run(argv: list[str]) -> tuple:
        out, err = io.StringIO(), io.StringIO()
        result, code = None, 0
        with redirect_stdout(out), redirect_stderr(err):
            try:
                result = parse(argv)
            except SystemExit as leaving:
                code = int(leaving.code or 0)
        return code, out.getvalue(), err.getvalue(), result

    return run


@pytest.fixture(scope="session")
def complaint(run_parse) -> Callable[[list[str]], str]:
    """Return the one line a bad command line prints, without its `error: `."""

    def complain(argv: list[str]) -> str:
        code, out, err, result = run_parse(argv)
        assert (code, out, result) == (2, "", None)
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        return err.removeprefix("error: ").rstrip("\n")

    return complain
