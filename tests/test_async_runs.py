"""Async runs as a user starts them: they learn, go on to the bit, stop when told, and refuse what cannot be."""

import contextlib
import json
import os
import re
import signal
from pathlib import Path

import pytest
from engine_cli import assert_one_line_error, fingerprint, run, start, stop, summary, wait_for_steps

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SMALL = [
    *("--mode", "async", "--env", "gymnax:CartPole-v1", "--num-envs", 4, "--num-workers", 2, "--num-steps", 8),
    *("--batch-size", 64, "--min-buffer-size", 64, "--num-epochs", 1, "--ppo.num-minibatches", 2),
    *("--network.hidden-sizes", 8, "--evaluation.episodes", 3, "--evaluation.count", 0, "--logging.every-updates", 1),
    *("--ppo.no-anneal-learning-rate", "--per-beta-start", 1, "--quiet"),
]
UPDATE = 32


def test_a_resumed_lockstep_run_ends_as_the_one_nobody_disturbed_to_the_bit(tmp_path):
    for name, updates in (("straight", 9), ("split", 4)):
        done = run(*SMALL, "--lockstep", "--total-steps", updates * UPDATE, "--run-dir", tmp_path / name)
        assert done.returncode == 0, done.stderr
    assert fingerprint(tmp_path / "split") != fingerprint(tmp_path / "straight")
    done = run("--resume", tmp_path / "split", "--total-steps", 9 * UPDATE, "--quiet")
    assert done.returncode == 0, done.stderr
    assert fingerprint(tmp_path / "split") == fingerprint(tmp_path / "straight")
    assert summary(tmp_path / "split")["eval"] == summary(tmp_path / "straight")["eval"]


def test_a_run_goes_on_on_fewer_devices(tmp_path):
    place, shards = tmp_path / "run", ("--impact.replay-shards", 4, "--platform", "cpu")
    done = run(*SMALL, *shards, "--devices", 4, "--total-steps", 4 * UPDATE, "--run-dir", place)
    assert done.returncode == 0, done.stderr
    done = run("--resume", place, "--platform", "cpu", "--devices", 2, "--total-steps", 9 * UPDATE, "--quiet")
    assert done.returncode == 0, done.stderr
    assert summary(place)["updates"] == 9 and summary(place)["eval"]["return"] > 0


def test_told_to_stop_it_stops_within_seconds_and_goes_on_later(tmp_path):
    place = tmp_path / "run"
    process = start(*SMALL, "--total-steps", 10_000_000, "--run-dir", place)
    wait_for_steps(place, UPDATE, process, seconds=200)
    code, seconds, _ = stop(process, signal.SIGTERM)
    assert code == 143 and seconds < 20
    stopped = summary(place)
    assert stopped["status"] == "interrupted" and stopped["env_steps"] % UPDATE == 0
    more = stopped["env_steps"] + 40 * UPDATE
    done = run("--resume", place, "--total-steps", more, "--quiet")
    assert done.returncode == 0, done.stderr
    assert summary(place)["env_steps"] == more
    told = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    learned = [row for row in told if "Async/LagMax" in row]
    assert {"Async/LagP50", "Async/LearnerIdle", "Async/TrainedStepsPerSecond", "Buffer/Size"} <= set(learned[-1])
    assert all(row["Async/LagMax"] <= 64 for row in learned)


def test_progress_tells_both_rates_and_the_lag(tmp_path):
    told = [word for word in SMALL if word != "--quiet"]
    done = run(*told, "--total-steps", 20 * UPDATE, "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    line = next(line for line in reversed(done.stdout.splitlines()) if line.startswith("100.0 %"))
    assert re.search(r" 640/640 steps  [\d,]+ steps/s  updates/s [\d,.]+  lag \d+  ", line), line


def workers(process):
    """Process numbers of what steps the worlds for a run."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            of_run = f"PPid:\t{process.pid}\n" in (place / "status").read_text()
            if of_run and b"jaxrl_engine.envs.host.worker" in (place / "cmdline").read_bytes():
                found.append(int(place.name))
    return sorted(found)


def test_a_killed_environment_process_is_replaced_and_the_run_goes_on(tmp_path):
    place = tmp_path / "run"
    world = ["--env", "gymnasium:CartPole-v1", "--env-params", "processes=1"]
    process = start(*SMALL, *world, "--total-steps", 10_000_000, "--run-dir", place)
    wait_for_steps(place, UPDATE, process, seconds=200)
    killed = workers(process)[0]
    os.kill(killed, signal.SIGKILL)
    begun = json.loads((place / "status.json").read_text())["env_steps"]
    wait_for_steps(place, begun + 200 * UPDATE, process, seconds=60)
    assert killed not in workers(process) and len(workers(process)) >= 2
    code, seconds, _ = stop(process, signal.SIGINT)
    assert code == 130 and seconds < 20
    failures = summary(place)["actor_failures"]
    assert len(failures) == 1 and f"process {killed}" in failures[0]
    restarted = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()][-1]
    assert restarted["Async/ActorsRestarted"] == 1 and restarted["Async/ActorsAlive"] == 2


def test_a_second_interrupt_ends_it_at_once_and_nothing_saved_is_lost(tmp_path):
    place = tmp_path / "run"
    process = start(*SMALL, "--total-steps", 10_000_000, "--run-dir", place, "--checkpoint.every-seconds", 0)
    wait_for_steps(place, 40 * UPDATE, process, seconds=200)
    os.kill(process.pid, signal.SIGINT)
    code, seconds, _ = stop(process, signal.SIGINT)
    assert code == 130 and seconds < 20
    more = summary(place)["env_steps"] if (place / "summary.json").exists() else 40 * UPDATE
    done = run("--resume", place, "--total-steps", more + 40 * UPDATE, "--quiet")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--mode async --algo ppo", ["algo", "impact"]),
        ("--algo impact", ["algo", "mode async"]),
        ("--mode async --num-workers 0", ["actors.num_workers"]),
        ("--mode async --num-workers 1000", ["actors.num_workers", "256"]),
        ("--mode async --num-workers 3", ["num_envs", "actors.num_workers = 3"]),
        ("--mode async --batch-size 100", ["impact.batch_size", "num_steps"]),
        ("--mode async --buffer-capacity 100", ["impact.buffer_capacity", "impact.batch_size"]),
        ("--mode async --per-alpha 1.5", ["impact.per_alpha", "0 to 1"]),
        ("--mode async --per-beta-start -0.1", ["impact.per_beta_start"]),
        ("--mode async --replay none", ["impact.new_fraction", "1 with replay none"]),
        ("--mode async --num-seeds 2", ["num_seeds"]),
        (
            "--mode async --platform cpu --devices 2",
            ["impact.replay_shards", "2 devices", "--impact.replay-shards 2"],
        ),
        ("--mode async --impact.replay-shards 0", ["impact.replay_shards", ">= 1"]),
        (
            "--mode async --batch-size 64 --num-steps 8 --num-envs 4 --impact.replay-shards 3",
            ["impact.replay_shards", "4"],
        ),
        ("--mode async --network.recurrent gru", ["network.recurrent", "none with algo impact"]),
        ("--mode async --env nowhere", ["nowhere"]),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, words):
    assert_one_line_error(run(*arguments.split()), *words)
