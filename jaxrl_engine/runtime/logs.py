"""Messages to the person at the terminal, one line each on stderr; the chatter of libraries only when it matters."""

import contextlib
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

    If the block fails, what it leaves behind complains whenever it is freed, at the latest when the program ends: each
    task of the failed loop that nobody asked for its exception, and each write that finds its loop closed, with a
    traceback. These complaints are dropped from now on; the error itself has been raised.
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
        for logger in loggers:
            logger.addFilter(_is_no_orphan)  # adding it again changes nothing
        raise
    finally:
        for logger, disabled in zip(loggers, former, strict=True):
            logger.disabled = disabled


def _is_no_orphan(record: logging.LogRecord) -> bool:
    return "exception was never retrieved" not in record.getMessage()


_former_hooks: list[Callable[["sys.UnraisableHookArgs"], object]] = []


def _drop_closed_loops(unraisable: "sys.UnraisableHookArgs") -> None:
    complaint = isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == "Event loop is closed"
    if not complaint:
        _former_hooks[-1](unraisable)
