"""Several processes as one run, on loopback: what they compute, how they begin, and how they end."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from engine_cli import SMALL, fingerprint, run, start, summary, wait_for_steps
from patience import wait_until

from benchmarks.killed_ranks import alive, children
from jaxrl_engine.runtime.places import free_port

pytestmark = pytest.mark.slow

CPU = ["--platform", "cpu", "--distributed-timeout", "15", *SMALL]
LONG = [*CPU, "--total-steps", "4000000", "--checkpoint.every-seconds", "1", "--evaluation.count", "1"]

RAISES = """
import sys
from jaxrl_engine.modes import session
from jaxrl_engine.run import main

session.Session.run = lambda *_: {}["what is not there"]
sys.exit(main(sys.argv[1:]))
"""


def ranks(*arguments, size=2, own=((), ())):
    """Start all ranks of a run; `own` are further arguments of each."""
    port = free_port()
    return [start(*arguments, *own[rank], "--distributed", f"127.0.0.1:{port},{rank},{size}") for rank in range(size)]


def ended(processes, seconds=110):
    """Exit codes and what was said on stderr, of all."""
    said = [process.communicate(timeout=seconds)[1] for process in processes]
    return [process.returncode for process in processes], said


def errors(text):
    return [line for line in text.splitlines() if line.startswith("error: ")]


# --- what they compute ------------------------------------------------------------------------------------------------


def test_two_processes_compute_what_one_does(tmp_path):
    steps = ["--total-steps", "192", "--ppo.num-minibatches", "2"]  # six updates
    alone = run(*CPU, *steps, "--run-dir", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    codes, said = ended(ranks(*CPU, *steps, "--run-dir", tmp_path / "together"))
    assert codes == [0, 0], said
    one, two = summary(tmp_path / "alone"), summary(tmp_path / "together")
    assert two["updates"] == one["updates"] == 6
    assert two["eval"] == pytest.approx(one["eval"], rel=1e-4)
    assert two["random_policy"] == pytest.approx(one["random_policy"])
    last = [
        json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[-2]) for name in ("alone", "together")
    ]
    for name in ("Losses/Total", "Losses/Value", "Losses/GradientNorm", "Charts/Reward"):
        assert last[1][name] == pytest.approx(last[0][name], rel=1e-3, abs=1e-6), name
    assert [leaf["path"] for leaf in fingerprint(tmp_path / "alone")[1]] == [
        leaf["path"] for leaf in fingerprint(tmp_path / "together")[1]
    ]


# --- how they end -----------------------------------------------------------------------------------------------------


def test_a_signal_to_any_rank_ends_all_at_one_step_and_either_number_of_processes_goes_on(tmp_path):
    processes = ranks(*LONG, "--run-dir", tmp_path / "run")
    wait_for_steps(tmp_path / "run", 64, processes[0])
    os.kill(processes[1].pid, signal.SIGTERM)
    codes, said = ended(processes)
    assert codes == [143, 143], said
    stopped = summary(tmp_path / "run")
    assert stopped["status"] == "interrupted" and stopped["env_steps"] == fingerprint(tmp_path / "run")[0]
    total = str(stopped["env_steps"] + 64)
    arguments = ["--platform", "cpu", "--resume", tmp_path / "run", "--distributed-timeout", "15", "--total-steps"]
    codes, said = ended(ranks(*arguments, total))
    assert codes == [0, 0], said
    assert summary(tmp_path / "run")["env_steps"] == int(total)
    done = run("--platform", "cpu", "--resume", tmp_path / "run", "--total-steps", str(int(total) + 64))
    assert done.returncode == 0 and summary(tmp_path / "run")["env_steps"] == int(total) + 64


def test_an_exception_in_one_rank_leaves_none_waiting(tmp_path):
    port = free_port()
    arguments = [*LONG, "--run-dir", tmp_path / "run"]
    first = start(*arguments, "--distributed", f"127.0.0.1:{port},0,2")
    command = [sys.executable, "-c", RAISES, *map(str, arguments), "--distributed", f"127.0.0.1:{port},1,2"]
    second = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    said = second.communicate(timeout=110)[1]
    begun = time.monotonic()
    assert second.returncode == 1
    assert errors(said) == ["error: rank 1: KeyError: 'what is not there'"]
    codes, told = ended([first], 30)
    assert time.monotonic() - begun < 30
    assert codes[0] not in (0, 2)
    assert "another rank ended" in told[0] or "another task died" in told[0]


def test_a_killed_rank_is_started_again_with_all_others(tmp_path):
    process = start("--processes", 2, "--", *LONG, "--run-dir", tmp_path / "run", module="launch")
    wait_until(lambda: any((tmp_path / "run" / "checkpoints").glob("[0-9]*")), 100)
    saved, killed = fingerprint(tmp_path / "run")[0], children(process.pid)
    os.kill(killed[1], signal.SIGKILL)
    begun = time.monotonic()
    wait_until(lambda: not any(map(alive, killed)), 30)
    assert time.monotonic() - begun < 30
    wait_for_steps(tmp_path / "run", saved + 64, process)
    wait_until(lambda: len(children(process.pid)) == 2, 60)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    assert "launch: rank 1 was killed by SIGKILL; all start again, 3 times more at most" in said
    assert summary(tmp_path / "run")["env_steps"] > saved


# --- what they refuse -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "own", "words"),
    [
        ((), ((), ("--seed", "7")), ("rank 1", "seed is 7, on rank 0 0", "every rank needs the same")),
        (("--num-envs", "5"), ((), ()), ("num_envs", "a multiple of the 2 devices", "5")),
        (("--resume", "nowhere"), ((), ()), ("nowhere is not the directory of a run",)),
    ],
)
def test_every_rank_says_what_is_wrong_in_one_line(tmp_path, arguments, own, words):
    where = () if "--resume" in arguments else ("--run-dir", tmp_path / "run")
    codes, said = ended(ranks(*CPU, *where, *arguments, own=own))
    assert codes == [2, 2], said
    for text in said:
        assert len(errors(text)) == 1 and "Traceback" not in text
        for word in words:
            assert word in errors(text)[0]


@pytest.mark.parametrize(
    ("rank", "words"),
    [(0, ("rank 1 of 2 did not come within 1 s",)), (1, ("nobody called rank 1 at 127.0.0.1:", "within 1 s"))],
)
def test_a_rank_that_stays_alone_says_so(tmp_path, rank, words):
    place = f"127.0.0.1:{free_port()},{rank},2"
    arguments = ["--platform", "cpu", *SMALL, "--run-dir", tmp_path, "--distributed", place]
    done = run(*arguments, "--distributed-timeout", "1")
    assert done.returncode == 2
    (line,) = errors(done.stderr)
    for word in words:
        assert word in line
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--mode", "async", "--distributed", "127.0.0.1:1,0,2"), ("mode async",)),
        (("--distributed", "somewhere"), ("auto, off or HOST:PORT,RANK,SIZE",)),
        (("--distributed", "127.0.0.1:80,2,2"), ("RANK must be from 0 to SIZE - 1 = 1, not 2",)),
        (("--distributed", "auto"), ("no variables of SLURM", "are set")),
    ],
)
def test_a_place_that_cannot_be(arguments, words):
    done = run("--platform", "cpu", *arguments)
    assert done.returncode == 2 and len(errors(done.stderr)) == 1, done.stderr
    for word in words:
        assert word in done.stderr


def test_launch_refuses_what_run_refuses(tmp_path):
    done = run("--processes", 2, "--", "--env", "no-such-world", "--run-dir", tmp_path / "run", module="launch")
    assert done.returncode == 2, done.stderr
    done = run("--processes", 0, "--", module="launch")
    assert done.returncode == 2 and "processes must be a whole number >= 1, not 0" in done.stderr
    done = run("--", "--distributed", "auto", module="launch")
    assert done.returncode == 2 and "distributed is not given to launch" in done.stderr
