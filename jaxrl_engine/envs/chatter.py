"""Importing Brax and loading its models without the noise they make."""

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator

NOISE = ("Failed to import warp", "Failed to import mujoco_warp")


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """Silence what Brax, MJX and MuJoCo say about themselves while the block runs.

    MJX prints that it does without Warp (an optional backend for NVIDIA cards), Brax warns at every model that it is
    no longer maintained, and MuJoCo writes deprecations of XML attributes to the terminal and to a log file in the
    working directory. None of it is about anything the user did. Other output passes.
    """
    captured = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with contextlib.redirect_stdout(captured), _without_deprecations_of_mujoco():
                yield
        finally:
            for line in captured.getvalue().splitlines(keepends=True):
                if not line.startswith(NOISE):
                    sys.stdout.write(line)


@contextlib.contextmanager
def _without_deprecations_of_mujoco() -> Iterator[None]:
    import mujoco  # here, because importing this module must stay cheap

    before = mujoco.get_mju_user_warning()

    def pass_on(message: str) -> None:
        if "deprecated" not in message:
            sys.stderr.write(f"MuJoCo: {message}\n")

    mujoco.set_mju_user_warning(pass_on)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)
