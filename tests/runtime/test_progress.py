"""Plain lines without a terminal, a bar with one, silence when asked; and messages of one line."""

import io
import logging

import pytest

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime import progress
from jaxrl_engine.runtime.errors import RunError, exit_with, one_line
from jaxrl_engine.runtime.logs import configure_logging, log, silence
from jaxrl_engine.runtime.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_one_line_every_five_seconds(clock):
    stream = io.StringIO()
    with Progress(2_000_000, quiet=False, stream=stream) as shown:
        for second in range(12):
            clock[0] = 100.0 + second
            shown.update(100_000 * second, 50_000.0, {"return": 1234.5678, "success": None})
    lines = stream.getvalue().splitlines()
    assert lines == [
        "  0.0 %  0/2,000,000 steps  50,000 steps/s  return 1,235  ETA 0:00:40",
        " 25.0 %  500,000/2,000,000 steps  50,000 steps/s  return 1,235  ETA 0:00:30",
        " 50.0 %  1,000,000/2,000,000 steps  50,000 steps/s  return 1,235  ETA 0:00:20",
        " 55.0 %  1,100,000/2,000,000 steps  50,000 steps/s  return 1,235  ETA 0:00:18",
    ]


def test_no_speed_no_eta(clock):
    stream = io.StringIO()
    with Progress(1000, quiet=False, stream=stream) as shown:
        shown.update(0, 0.0, {})
        clock[0] += 10
        shown.update(1020, 1e-9, {})  # rounded up to whole updates: past the end
        clock[0] += 10
        shown.update(0, 1e-9, {})
    assert [line.partition("steps/s  ")[2] for line in stream.getvalue().splitlines()] == [
        "ETA -",
        "ETA 0:00:00",
        "ETA 277777:46:40",
    ]
    assert "100.0 %  1,020/1,000 steps" in stream.getvalue()


def test_messages_stand_between_the_lines(clock):
    stream = io.StringIO()
    with Progress(1000, quiet=False, stream=stream) as shown:
        shown.message("run directory: runs/[x]")
    assert stream.getvalue() == "run directory: runs/[x]\n"


def test_quiet_says_nothing(clock):
    for stream in (io.StringIO(), Terminal()):
        with Progress(1000, quiet=True, stream=stream) as shown:
            shown.update(500, 10.0, {"return": 1.0})
            shown.message("hello")
        assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    with Progress(2000, quiet=False, stream=stream) as shown:
        shown.update(500, 250.0, {"return": 7.25})
        shown.message("saved [step 500]")
    text = stream.getvalue()
    assert "25%" in text
    assert "250 steps/s  return 7.25  ETA 0:00:06" in text
    assert "saved [step 500]" in text  # not taken for markup
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back


@pytest.fixture
def logger():
    former = (log.handlers, log.propagate, log.level)
    libraries = [logging.getLogger(name) for name in ("absl", "asyncio", "orbax")]
    levels = [library.level for library in libraries]
    yield log
    log.handlers, log.propagate, level = former
    log.setLevel(level)
    for library, level in zip(libraries, levels, strict=True):
        library.setLevel(level)


def test_messages_are_lines_on_stderr(logger, capsys):
    configure_logging("info")
    logger.debug("hidden")
    logger.info("run directory: %s", "x")
    logger.warning("two\nlines")
    logger.error("trouble")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "run directory: x\nwarning: two lines\nerror: trouble\n"


@pytest.mark.parametrize(
    ("level", "quiet", "expected"),
    [
        ("debug", False, 4),
        ("info", False, 3),
        ("warning", False, 2),
        ("error", False, 1),
        ("debug", True, 2),
        ("error", True, 1),
    ],
)
def test_levels(logger, capsys, level, quiet, expected):
    configure_logging(level, quiet)
    for name in ("debug", "info", "warning", "error"):
        getattr(logger, name)("message")
    assert capsys.readouterr().err.count("\n") == expected


def test_silence_ends_also_after_an_error(caplog):
    noisy = logging.getLogger("jaxrl_engine.test.noisy")
    with silence(noisy.name):
        noisy.error("hidden")
    with pytest.raises(KeyError), silence(noisy.name):
        noisy.error("hidden too")
        raise KeyError
    noisy.error("heard")
    assert caplog.messages == ["heard"]


@pytest.mark.parametrize(("error", "code"), [(UserError("bad\nfield"), 2), (RunError("bad\nfield"), 1)])
def test_leaving_with_an_error(capsys, error, code):
    with pytest.raises(SystemExit) as leaving:
        exit_with(error)
    assert leaving.value.code == code
    assert capsys.readouterr().err == "error: bad field\n"


def test_one_line_of_anything():
    assert one_line(KeyError()) == "KeyError"
    assert len(one_line(ValueError("x " * 1000))) == 300
