"""Messages to the person at the terminal, one line each on stderr; the chatter of libraries only when it matters."""

import contextlib
import gc
import logging
import sys
from collections.abc import Callable, Iterator

LOGGER_NAME = "jaxrl_engine"
_CHATTY = ("absl", "asyncio", "orbax")

log = logging.getLogger(LOGGER_NAME)


class _OneLineHandler(logging.Handler):
    """Looks `sys.stderr` up at each message: a progress bar puts its own stream there to print above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(record.getMessage().split())
        print(text if record.levelno == logging.INFO else f"{record.levelname.lower()}: {text}", file=sys.stderr)


def configure_logging(level: str, quiet: bool = False) -> None:
    """Send the engine's messages of at least this level to stderr, one line each; `quiet` hides all below warnings.

    Args:
        level: debug, info, warning or error.
        quiet: show warnings and errors only.
    """
    log.handlers = [_OneLineHandler()]
    log.propagate = False
    log.setLevel(max(logging.getLevelName(level.upper()), logging.WARNING if quiet else logging.NOTSET))
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.DEBUG if level == "debug" else logging.ERROR)


@contextlib.contextmanager
def silence(*names: str) -> Iterator[None]:
    """Drop everything the named loggers say.

    If the block fails, the garbage is collected before they may speak again: asyncio complains about the tasks of a
    failed loop only when they are freed. What runs in the background of a failed block finds its loop closed and prints
    a traceback per array, whenever it ends: these are dropped from now on.
    """
    if sys.unraisablehook is not _drop_closed_loops:
        _former_hooks.append(sys.unraisablehook)
        sys.unraisablehook = _drop_closed_loops
    loggers = [logging.getLogger(name) for name in names]
    former = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    except BaseException:
        gc.collect()
        raise
    finally:
        for logger, disabled in zip(loggers, former, strict=True):
            logger.disabled = disabled


_former_hooks: list[Callable[["sys.UnraisableHookArgs"], object]] = []


def _drop_closed_loops(unraisable: "sys.UnraisableHookArgs") -> None:
    complaint = isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == "Event loop is closed"
    if not complaint:
        _former_hooks[-1](unraisable)
