"""Runs that are stopped, killed or damaged go on as if nothing had happened, to the bit."""

import random
import signal

import pytest
from engine_cli import (
    SMALL,
    assert_one_line_error,
    fingerprint,
    kill,
    newest_checkpoint,
    rows,
    run,
    start,
    stop,
    summary,
    wait_for_steps,
)

TOTAL_STEPS = 600_000
LONG = [*SMALL, "--total-steps", TOTAL_STEPS, "--checkpoint.every-seconds", 0.1, "--quiet"]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The run nobody disturbed."""
    run_dir = tmp_path_factory.mktemp("straight") / "run"
    done = run(*LONG, "--run-dir", run_dir)
    assert done.returncode == 0, done.stderr
    return run_dir


def assert_same_run(run_dir, straight):
    assert fingerprint(run_dir) == fingerprint(straight)
    assert rows(run_dir) == rows(straight)
    assert summary(run_dir)["eval"] == summary(straight)["eval"]
    assert summary(run_dir)["status"] == "finished"


@pytest.mark.slow
def test_split_at_three_random_points_across_four_processes(straight, tmp_path):
    run_dir, chance = tmp_path / "run", random.Random(11)
    points = sorted(chance.sample(range(20_000, TOTAL_STEPS // 2), 3))
    stopped_at = []
    for index, point in enumerate(points):
        target = ["--resume", run_dir] if index else [*LONG, "--run-dir", run_dir]
        process = start(*target, *([] if index == 0 else ["--quiet"]))
        wait_for_steps(run_dir, point, process)
        code, _, stderr = stop(process, signal.SIGTERM)
        assert code == 143, stderr
        stopped_at.append(summary(run_dir)["env_steps"])
    assert run("--resume", run_dir, "--quiet").returncode == 0
    assert stopped_at == sorted(set(stopped_at)) and stopped_at[-1] < TOTAL_STEPS  # each process did a part of it
    assert_same_run(run_dir, straight)


def kill_and_resume(run_dir, chance, straight):
    process = start(*LONG, "--run-dir", run_dir)
    wait_for_steps(run_dir, 1 if chance.random() < 0.3 else chance.randrange(1, TOTAL_STEPS // 2), process)
    kill(process)
    done = run("--resume", run_dir, "--quiet")
    assert done.returncode == 0, done.stderr
    assert_same_run(run_dir, straight)


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(3))
def test_killed_at_a_random_moment_it_resumes_to_the_same_end(straight, tmp_path, trial):
    kill_and_resume(tmp_path / "run", random.Random(trial), straight)


@pytest.mark.chaos
@pytest.mark.timeout(3000)
def test_thirty_of_thirty_killed_runs_resume(straight, tmp_path):
    for trial in range(30):
        kill_and_resume(tmp_path / str(trial), random.Random(1000 + trial), straight)


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_used(straight, tmp_path):
    run_dir = tmp_path / "run"
    process = start(*LONG, "--run-dir", run_dir)
    wait_for_steps(run_dir, 150_000, process)
    assert stop(process, signal.SIGINT)[0] == 130
    newest = newest_checkpoint(run_dir)
    largest = max((path for path in newest.rglob("*") if path.is_file() and path.name != "record.json"),
                  key=lambda path: path.stat().st_size)  # fmt: skip
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    done = run("--resume", run_dir, "--quiet")
    assert done.returncode == 0, done.stderr
    assert newest.name in done.stderr and "checksum" in done.stderr
    assert_same_run(run_dir, straight)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_the_run_within_five_seconds_with_a_checkpoint(tmp_path, signum, code):
    run_dir = tmp_path / "run"
    process = start(*LONG[:-1], "--run-dir", run_dir)
    wait_for_steps(run_dir, 5_000, process)
    returned, seconds, stderr = stop(process, signum)
    assert (returned, seconds < 5.0) == (code, True), (seconds, stderr)
    assert "Traceback" not in stderr
    done = summary(run_dir)
    assert done["status"] == "interrupted"
    assert int(newest_checkpoint(run_dir).name) == done["env_steps"] < TOTAL_STEPS


def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path):
    run_dir = tmp_path / "run"
    arguments = [*SMALL, "--total-steps", 6400, "--quiet"]
    process = start(*arguments, "--run-dir", run_dir)
    while not (run_dir / "status.json").exists():
        assert process.poll() is None
    kill(process)
    done = run("--resume", run_dir, "--quiet")
    assert done.returncode == 0, done.stderr
    assert summary(run_dir)["env_steps"] == 6400


def test_a_resumed_run_keeps_its_settings_but_may_go_further(straight, tmp_path):
    run_dir = tmp_path / "run"
    assert run(*SMALL, "--total-steps", 3200, "--run-dir", run_dir, "--quiet").returncode == 0
    assert_one_line_error(run("--resume", run_dir, "--seed", 1), "seed: 0 -> 1")
    assert_one_line_error(run("--resume", run_dir, "--ppo.gamma", 0.5), "ppo.gamma: 0.99 -> 0.5")
    done = run("--resume", run_dir, "--total-steps", 6400, "--quiet")
    assert done.returncode == 0, done.stderr
    assert summary(run_dir)["env_steps"] == 6400
