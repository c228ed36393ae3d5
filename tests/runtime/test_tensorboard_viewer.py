"""TensorBoard as a browser sees it: it answers at the address that was printed, and nobody answers afterwards."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from engine_cli import SMALL, assert_one_line_error, run, start, stop
from patience import wait_until

from jaxrl_engine import run as program
from jaxrl_engine.runtime import tensorboard_viewer as viewer
from jaxrl_engine.runtime.logs import configure_logging

SECONDS = 90  # to import TensorBoard on a busy machine


def answers(port):
    """Whether TensorBoard's page is served at a port of this machine."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as page:
            return page.status == 200 and b"tb-relative-root" in page.read(200)
    except OSError:
        return False


def port_in(text):
    (port,) = re.findall(r"^TensorBoard: http://127\.0\.0\.1:(\d+)/$", text, re.MULTILINE)
    return int(port)


def port_of(process):
    """The port in the line that a process prints, after others that it may print on stderr."""
    return port_in(next(line for line in process.stderr if line.startswith("TensorBoard: ")))


def test_it_answers_at_the_next_free_port_until_it_is_closed(tmp_path, capsys):
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", 6006))
            other.listen()
        except OSError:
            pass  # taken already, which is what is needed
        with viewer.tensorboard_viewer(tmp_path):
            said = ""
            deadline = time.monotonic() + SECONDS
            while "TensorBoard: " not in said and time.monotonic() < deadline:
                said += capsys.readouterr().err
                time.sleep(0.05)
            port = port_in(said)
            assert 6006 < port <= 6106
            assert answers(port)
        assert not answers(port)


def test_it_ends_with_a_run_that_is_killed(tmp_path):
    code = (
        "import sys, time, pathlib\nfrom jaxrl_engine.runtime.tensorboard_viewer import tensorboard_viewer\n"
        "with tensorboard_viewer(pathlib.Path(sys.argv[1])): time.sleep(1000)"
    )
    run_of_it = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    try:
        port = port_of(run_of_it)
        assert answers(port)
    finally:
        run_of_it.kill()
        run_of_it.communicate(timeout=60)
    wait_until(lambda: not answers(port), SECONDS)


def test_one_closed_before_it_answers_says_nothing_and_leaves_no_process(tmp_path, capsys, monkeypatch):
    started = []

    class Recorded(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(viewer.subprocess, "Popen", Recorded)
    begun = time.monotonic()
    with viewer.tensorboard_viewer(tmp_path):
        pass
    assert time.monotonic() - begun < 5
    assert started[0].returncode == -signal.SIGKILL
    assert capsys.readouterr().err == ""


def test_one_that_does_not_start_is_a_warning(tmp_path, capsys, monkeypatch):
    configure_logging("warning")
    monkeypatch.setattr(viewer, "__name__", "jaxrl_engine.no_such_module")
    with viewer.tensorboard_viewer(tmp_path):
        said = ""
        deadline = time.monotonic() + SECONDS
        while not said and time.monotonic() < deadline:
            said += capsys.readouterr().err
            time.sleep(0.05)
    assert said.startswith("warning: TensorBoard did not start: ") and "no_such_module" in said


def test_without_the_extra_nothing_else_is_begun(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as leaving:
        program.main(["--tensorboard", "--env", "nowhere"])
    assert leaving.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: tensorboard: ") and ".[tensorboard]" in line


def test_a_viewer_of_what_is_not_written_is_refused(tmp_path):
    done = run("--tensorboard", "--logging.no-tensorboard", cwd=tmp_path)
    assert_one_line_error(done, "tensorboard", "logging.tensorboard")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_prints_the_address_and_takes_the_viewer_with_it(tmp_path):
    process = start(*SMALL, "--total-steps", 10**8, "--run-dir", tmp_path / "run", "--quiet", "--tensorboard")
    try:
        port = port_of(process)
        assert answers(port)
    finally:
        code = stop(process, signal.SIGTERM)[0]
    assert code == 128 + signal.SIGTERM
    assert not answers(port)
    assert any(name.startswith("events") for name in os.listdir(tmp_path / "run"))
