"""Runs with actors in processes of Ray's, as a user starts them: from the first line to the last process."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from engine_cli import assert_one_line_error, run, start, stop, summary, wait_for_steps
from patience import wait_until

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime import ray_session
from jaxrl_engine.runtime.places import free_port

SMALL = [
    *("--mode", "async", "--actors", "ray", "--env", "gymnax:CartPole-v1", "--num-envs", 4, "--num-workers", 2),
    *("--num-steps", 8, "--batch-size", 64, "--min-buffer-size", 64, "--num-epochs", 1, "--ppo.num-minibatches", 2),
    *("--network.hidden-sizes", 8, "--evaluation.episodes", 3, "--evaluation.count", 0, "--logging.every-updates", 1),
    *("--total-steps", 10_000_000, "--quiet"),
]
UPDATE = 32


def of_run(place):
    """Process numbers of whatever has a variable of the run's in its environment."""
    found, mark = [], f"RAY_TMPDIR={place}".encode()
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (directory / "environ").read_bytes().split(b"\0"):
                found.append(int(directory.name))
        except OSError:  # it ended, or is another user's
            continue
    return found


@pytest.fixture
def place(tmp_path):
    """A short path for what Ray writes; nothing of it may be left, and no process."""
    directory = Path("/tmp") / f"r{os.getpid()}"
    directory.mkdir()
    yield directory
    wait_until(lambda: of_run(directory) == [], seconds=30)
    assert list(directory.iterdir()) == []
    directory.rmdir()


def test_told_to_stop_it_stops_and_leaves_no_process(tmp_path, place):
    process = start(*SMALL, "--run-dir", tmp_path / "run", env={**os.environ, "RAY_TMPDIR": str(place)})
    wait_for_steps(tmp_path / "run", UPDATE, process, seconds=200)
    assert len(of_run(place)) > 3
    code, seconds, said = stop(process, signal.SIGTERM)
    assert code == 143 and seconds < 20
    assert [line.split(":")[0] for line in said.splitlines()] == ["SIGTERM"]
    assert summary(tmp_path / "run")["status"] == "interrupted"


JOINING = """
import sys
from jaxrl_engine.runtime import ray_session
ray_session.join(sys.argv[1])
print(*(node["NodeManagerAddress"] for node in ray_session.ray().nodes() if node["Alive"]))
ray_session.leave()
"""


def test_a_ray_that_runs_already_is_joined_and_left_running(place):
    secret = "0123456789abcdef" * 4
    own = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secret}
    environment = {**os.environ, **own, "RAY_TMPDIR": str(place), "RAY_USAGE_STATS_ENABLED": "0"}
    port = free_port()
    head = subprocess.Popen(
        [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=0",
         "--include-dashboard=false", f"--port={port}", f"--temp-dir={place / 'head'}"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: is_there(port), seconds=60)
        command = [sys.executable, "-c", JOINING, f"127.0.0.1:{port}"]
        joined = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
        assert (joined.returncode, joined.stdout, joined.stderr) == (0, "127.0.0.1\n", "")
        assert is_there(port) and head.poll() is None
    finally:
        head.terminate()
        head.wait(30)
        shutil.rmtree(place / "head", ignore_errors=True)


def is_there(port):
    try:
        ray_session.require_ray(f"127.0.0.1:{port}")
    except UserError:
        return False
    return True


# --- what cannot be -------------------------------------------------------------------------------------------------


@pytest.fixture
def listener():
    """A port of this machine where somebody answers every caller with the words of the test."""
    words = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    connection.sendall(words[0]) if words[0] else time.sleep(1.0)
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1], words
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_whoever_is_not_ray_is_found_out_at_once(listener, said, monkeypatch):
    monkeypatch.setattr(ray_session, "PROBE_SECONDS", 0.3)
    port, words = listener
    words.append(said)
    begun = time.monotonic()
    with pytest.raises(UserError, match=rf"^actors\.ray_address: no Ray at '127\.0\.0\.1:{port}'; start one with `ray"):
        ray_session.require_ray(f"127.0.0.1:{port}")
    assert time.monotonic() - begun < 1.0


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:", ":1", "host:0", "host:65536", "host:x", "ray://host"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(UserError, match=r"^actors\.ray_address must be empty, auto or HOST:PORT, not "):
        ray_session.require_ray(address)


def test_without_the_extra_its_name_is_told(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['ray'] = None\n")
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = run(*SMALL, "--run-dir", tmp_path / "run", env={**os.environ, "PYTHONPATH": paths})
    assert_one_line_error(done, 'actors.kind ray needs the extra ray: pip install -c constraints.txt -e ".[ray]"')
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ray-address", "127.0.0.1:1"], ["actors.ray_address", "127.0.0.1:1", "ray start --head"]),
        (["--ray-address", "auto"], ["actors.ray_address", "127.0.0.1:2", "ray start --head"]),
        (["--lockstep"], ["actors.lockstep must be false with actors.kind ray"]),
        (["--actors", "threads", "--ray-address", "auto"], ["actors.ray_address must be empty"]),
        (["--actors", "rayy"], ["actors.kind", "threads, ray"]),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(tmp_path, options, words):
    environment = {**os.environ, "RAY_ADDRESS": "127.0.0.1:2"}  # else auto may find a Ray of another test
    done = run(*SMALL, *options, "--run-dir", tmp_path / "run", env=environment)
    assert_one_line_error(done, *words)
    assert not (tmp_path / "run").exists()
