"""`python -m jaxrl_engine.status` tells what became of a run, quickly and without jax."""

import json
import resource
import subprocess
import sys

import pytest

from jaxrl_engine.core.config import Config
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime.run_directory import RunDirectory
from jaxrl_engine.status import main, run_status, table

HOLD = """
import sys, time
from pathlib import Path
from jaxrl_engine.core.config import Config
from jaxrl_engine.runtime.run_directory import RunDirectory
run = RunDirectory.create(Path(sys.argv[1]), Config(total_steps=2000))
run.write_status(state="running", env_steps=500, updates=5, steps_per_second=1234.5, metrics={"return": 7.25})
print("ready", flush=True)
time.sleep(60)
"""


def ask(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "jaxrl_engine.status", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def finished(path, state):
    with RunDirectory.create(path, Config(total_steps=2000)) as run:
        run.write_status(state=state, env_steps=2000, message="all good")
    return path


def test_a_running_and_then_a_killed_run(tmp_path):
    path = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        running = ask(path)
        as_json = ask(path, "--json")
        process.kill()
        process.wait()
    assert (running.returncode, running.stderr) == (0, "")
    lines = dict(line.split("  ", 1) for line in running.stdout.splitlines())
    facts = {name.strip(): value.strip() for name, value in lines.items()}
    assert facts["state"] == "running"
    assert facts["env steps"] == "500"
    assert facts["progress"] == "25.0 %"
    assert facts["steps per second"] == "1,234"
    assert facts["return"] == "7.25"
    fields = json.loads(as_json.stdout)
    assert (fields["state"], fields["pid"], fields["progress"]) == ("running", process.pid, 0.25)
    killed = ask(path)
    assert killed.returncode == 3
    assert "state" in killed.stdout and "killed" in killed.stdout


@pytest.mark.parametrize(("state", "code"), [("finished", 0), ("interrupted", 0), ("failed", 3)])
def test_a_run_that_ended(tmp_path, capsys, state, code):
    assert main([str(finished(tmp_path / "run", state))]) == code
    assert state in capsys.readouterr().out


@pytest.mark.parametrize("state", ["starting", "running"])
def test_a_run_that_claims_to_run_without_a_process_was_killed(tmp_path, state):
    assert run_status(finished(tmp_path / "run", state))["state"] == "killed"


def test_what_is_no_run(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        result = ask(path)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith(f"error: {path} is not the directory of a run")
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["--what", "a"]])
def test_wrong_arguments(arguments):
    with pytest.raises(UserError, match="usage: "):
        main(arguments)


def test_help(capsys):
    assert main(["--help"]) == 0
    assert "usage: python -m jaxrl_engine.status RUN [--json]" in capsys.readouterr().out


def test_it_is_quick_and_leaves_jax_alone(tmp_path):
    path = finished(tmp_path / "run", "finished")
    program = (
        f"import sys\nfrom jaxrl_engine.status import main\nmain([{str(path)!r}])\nassert 'jax' not in sys.modules"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor time, which neighbours on the machine do not change; on an idle one it is the time a person waits.
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 1.0


def test_a_table_of_little():
    assert table({"run": "x"}) == "run  x"
