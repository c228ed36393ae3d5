"""The wall's command lines: what is asked for, what is refused, and what a recording needs."""

import json
import os
import signal
import sys
import urllib.request
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "support"))
import engine_cli
from engine_cli import SMALL, assert_one_line_error, run
from several_devices import with_devices

from jaxrl_engine.live.recording import FILE
from jaxrl_engine.runtime.config import parse


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--live-screens", "0"), ("live_screens", "from 1 to 32", "0")),
        (("--live-screens", "33"), ("live_screens", "33")),
        (("--live-port", "0"), ("live_port", "from 1 to 65535")),
        (("--live-port", "70000"), ("live_port", "70000")),
        (("--live", "--live-host", "192.0.2.1"), ("live_host", "address of this machine", "192.0.2.1")),
        (("--live-prot", "8000"), ("--live-prot", "--live-port")),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing_behind(tmp_path, arguments, words):
    done = run(*SMALL, *arguments, "--total-steps", "64", "--run-dir", tmp_path / "run")
    assert_one_line_error(done, *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("name either a run directory or --demo",)),
        (("runs/x", "--demo"), ("name either a run directory or --demo",)),
        (("no/such/run",), ("no/such/run is not the directory of a run",)),
        (("--demo", "--port", "0"), ("port", "from 1 to 65535")),
        (("--demo", "--colour"), ("unknown option",)),
    ],
)
def test_the_viewer_refuses_likewise(arguments, words):
    assert_one_line_error(run(*arguments, module="live"), *words)


def test_a_recording_without_a_picture_is_one_line(tmp_path):
    (tmp_path / FILE).write_text("not a recording\n")
    assert_one_line_error(run(tmp_path, module="live"), "holds no recording")


def test_help_of_the_viewer_names_its_options():
    done = run("--help", module="live")
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("--demo", "--port", "--host"))


@pytest.mark.parametrize(
    ("terminal", "arguments", "expected"),
    [
        (False, [], False), (True, [], True), (True, ["--no-live"], False), (False, ["--live"], True),
        (True, ["--quiet"], False), (True, ["--quiet", "--live"], True),
    ],
)  # fmt: skip
def test_the_wall_is_on_by_itself_on_a_terminal_alone(monkeypatch, terminal, arguments, expected):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    assert parse(arguments).live is expected


def test_a_world_without_pictures_still_shows_its_curves_and_can_be_recorded(tmp_path):
    done = run(*SMALL, "--total-steps", "4096", "--record", "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    entries = [json.loads(line) for line in (tmp_path / "run" / FILE).read_text().splitlines()]
    last = {entry["topic"]: entry["message"] for entry in entries}
    assert set(last) == {"head", "charts"}
    assert (last["head"]["state"], last["head"]["env_steps"]) == ("finished", 4096)
    assert last["head"]["title"] == "gymnax:CartPole-v1"
    assert last["charts"]["charts"][0]["lines"][0]["x"][-1] == 4096


def test_the_wall_is_there_from_the_first_second_and_gone_with_the_run(tmp_path):
    """Stopped by a signal, a run with a wall leaves as one without: saved, and with the same exit code."""
    options = ("--total-steps", "100000000", "--run-dir", tmp_path / "run", "--live", "--live-port", "18650")
    with engine_cli.start(*SMALL, *options, env=os.environ | {"PYTHONUNBUFFERED": "1"}) as process:
        address = process.stdout.readline().split()[1]
        with urllib.request.urlopen(f"{address}events", timeout=60) as stream:
            lines = [stream.readline() for _ in range(6)]
            assert b"event: head\n" in lines and b"event: charts\n" in lines
            engine_cli.wait_for_steps(tmp_path / "run", 1, process)
            process.send_signal(signal.SIGTERM)
            rest = stream.read()
        assert b'"state":"interrupted"' in rest
        process.communicate(timeout=60)
        assert process.returncode == 143
    assert any((tmp_path / "run" / "checkpoints").iterdir())
    with pytest.raises(OSError):
        urllib.request.urlopen(address, timeout=5)


def test_a_saved_policy_plays_in_the_browser(tmp_path):
    """`play --live`, and `live` on a run that was not recorded: greedy episodes, one after the other."""
    place = tmp_path / "run"
    small = ("--env", "reacher", "--num-envs", "4", "--num-steps", "8", "--network.hidden-sizes", "8")
    done = run(*small, "--total-steps", "64", "--run-dir", place, "--evaluation.episodes", "4")
    assert done.returncode == 0, done.stderr
    for module, options in (
        ("live", ("--port", "18660")),
        ("play", ("--live", "--live-port", "18670", "--episodes", "4")),
    ):
        with engine_cli.start(place, *options, module=module, env=os.environ | {"PYTHONUNBUFFERED": "1"}) as process:
            line = next(line for line in process.stdout if line.startswith("wall: "))
            with urllib.request.urlopen(f"{line.split()[1]}events", timeout=60) as stream:
                message = json.loads(next(text for text in stream if b'"screens":[' in text)[6:])
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        assert process.returncode == 0
        assert len(message["screens"]) == (8 if module == "live" else 9)
        steps = [frame["step"] for frame in message["screens"][0]["frames"]]
        assert steps == list(range(steps[0], steps[0] + 5))


@pytest.mark.slow
def test_a_run_on_eight_devices_is_shown_too(tmp_path):
    """The policy lies on every device, the wall's worlds on one."""
    small = ("--env", "reacher", "--num-envs", "8", "--num-steps", "8", "--network.hidden-sizes", "8")
    options = ("--devices", "8", "--total-steps", "4096", "--evaluation.episodes", "4", "--record")
    done = run(*small, *options, "--run-dir", tmp_path / "run", env=with_devices(8))
    assert done.returncode == 0, done.stderr
    assert "the wall shows no worlds" not in done.stderr + done.stdout
    topics = {json.loads(line)["topic"] for line in (tmp_path / "run" / FILE).read_text().splitlines()}
    assert "screens" in topics
