"""One process per run directory, and files that are whole."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxrl_engine.core.config import Config
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime import run_directory
from jaxrl_engine.runtime.config import load_config
from jaxrl_engine.runtime.errors import RunError
from jaxrl_engine.runtime.json_files import replace_file, to_json
from jaxrl_engine.runtime.run_directory import RunDirectory, is_locked, read_status

HOLD = """
import sys, time
from pathlib import Path
from jaxrl_engine.core.config import Config
from jaxrl_engine.runtime.run_directory import RunDirectory
run = RunDirectory.create(Path(sys.argv[1]), Config())
run.write_status(state="running", env_steps=17)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that works in `tmp_path / "run"`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_a_new_run_has_its_configuration_and_status(tmp_path):
    config = Config(num_envs=8, env_params={"num_links": 3})
    with RunDirectory.create(tmp_path / "a" / "run", config) as run:
        assert load_config(run.config_path) == config
        status = json.loads(run.status_path.read_text())
        assert (status["state"], status["pid"], status["total_steps"]) == ("starting", os.getpid(), 2_000_000)
        assert run.metrics_path == run.path / "metrics.jsonl"
        assert run.checkpoints == run.path / "checkpoints"
        assert is_locked(run.path)
    assert not is_locked(run.path)


def test_the_default_name_is_time_mode_and_env(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_directory.time, "strftime", lambda pattern: "20250102-030405")
    names = ["gymnax:CartPole-v1", "gymnax:CartPole-v1", "../../etc/x y"]
    runs = [RunDirectory.create(None, Config(env=name)) for name in names]
    assert [str(run.path) for run in runs] == [
        "runs/20250102-030405-sync-gymnax-CartPole-v1",
        "runs/20250102-030405-sync-gymnax-CartPole-v1-2",
        "runs/20250102-030405-sync-..-..-etc-x-y",
    ]
    for run in runs:
        run.close()


def test_a_directory_with_anything_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is not empty"):
        RunDirectory.create(tmp_path, Config())
    assert os.listdir(tmp_path) == ["thesis.tex"]
    with pytest.raises(UserError, match="is a file"):
        RunDirectory.create(tmp_path / "thesis.tex", Config())
    with pytest.raises(UserError, match="Not a directory"):
        RunDirectory.create(tmp_path / "thesis.tex" / "run", Config())


def test_a_finished_run_is_not_overwritten(tmp_path):
    RunDirectory.create(tmp_path / "run", Config()).close()
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(UserError, match="is not empty; continue its run with --resume"):
        RunDirectory.create(tmp_path / "run", Config(seed=3))
    after = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    assert {name: after[name] for name in after if name != "run.lock"} == {
        name: before[name] for name in before if name != "run.lock"
    }


def test_an_empty_directory_may_be_used(tmp_path):
    RunDirectory.create(tmp_path, Config()).close()
    assert (tmp_path / "config.yaml").exists()


def test_opening_what_is_no_run(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="is not the directory of a run"):
            RunDirectory.open(path)


def test_a_second_process_is_refused_and_told_who_works_there(tmp_path, holder):
    path = tmp_path / "run"
    for attempt in (lambda: RunDirectory.open(path), lambda: RunDirectory.create(path, Config())):
        with pytest.raises(UserError) as caught:
            attempt()
        assert str(caught.value) == f"{path} is in use by process {holder.pid}"
    with RunDirectory.open(path, exclusive=False) as reader, pytest.raises(ValueError, match="reading only"):
        reader.write_status(state="failed")
    assert read_status(path)["state"] == "running"


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, holder):
    path = tmp_path / "run"
    assert is_locked(path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not is_locked(path)
    assert (path / "run.lock").read_text() == f"{holder.pid}\n"  # stale
    (path / "run.lock").write_text("12345678901\n")  # longer than ours
    with RunDirectory.open(path) as run:
        assert (path / "run.lock").read_text() == f"{os.getpid()}\n"
        run.write_status(state="running")
        assert read_status(path)["env_steps"] == 17  # what the killed process said last


def test_asking_whether_a_run_is_locked_keeps_nobody_out(tmp_path):
    RunDirectory.create(tmp_path / "run", Config()).close()
    asking = "import sys\nfrom pathlib import Path\nfrom jaxrl_engine.runtime.run_directory import is_locked\n"
    asking += "print('ready', flush=True)\nwhile True: is_locked(Path(sys.argv[1]))\n"
    command = [sys.executable, "-c", asking, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        try:
            for _ in range(20):
                RunDirectory.open(tmp_path / "run").close()
        finally:
            process.kill()


def test_status_keeps_what_is_not_changed(tmp_path):
    with RunDirectory.create(tmp_path / "run", Config()) as run:
        run.write_status(state="running", env_steps=5, metrics={"return": math.nan, "length": np.float32(2.5)})
        before = time.time()
        run.write_status(env_steps=6)
        status = json.loads(run.status_path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert (status["state"], status["env_steps"]) == ("running", 6)
    assert status["metrics"] == {"return": None, "length": 2.5}
    assert before - 1e-3 <= status["heartbeat"] <= time.time()
    with pytest.raises(ValueError, match="closed"):
        run.write_status(env_steps=7)


def test_summary_is_strict_json(tmp_path):
    with RunDirectory.create(tmp_path / "run", Config()) as run:
        run.write_summary({"eval": {"return": math.inf, "per_seed": np.array([1.0, math.nan])}, "path": Path("x")})
        text = run.summary_path.read_text()
    assert json.loads(text) == {"eval": {"return": None, "per_seed": [1.0, None]}, "path": "x"}


def test_to_json_has_no_numbers_that_json_lacks():
    assert to_json({"a": (math.nan, -math.inf, 1), "b": {2: True}, "c": None}) == (
        '{"a": [null, null, 1], "b": {"2": true}, "c": null}'
    )


def test_a_file_that_cannot_be_written_is_named_and_the_old_one_stays(tmp_path):
    path = tmp_path / "status.json"
    replace_file(path, "old")
    path_of_temporary = tmp_path / f".status.json.{os.getpid()}.tmp"
    path_of_temporary.mkdir()
    with pytest.raises(RunError, match=r"cannot write .*status.json: Is a directory"):
        replace_file(path, "new")
    assert path.read_text() == "old"
    with pytest.raises(RunError, match=r"cannot write .*: No such file or directory"):
        replace_file(tmp_path / "absent" / "x", "new")


def test_a_status_that_is_not_json_counts_as_none(tmp_path):
    for text in ("{", "[1]", "\x00"):
        (tmp_path / "status.json").write_text(text)
        assert read_status(tmp_path) is None
