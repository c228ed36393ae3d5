"""The driver against contestants whose speed is known: they sleep."""

import json
import os
from pathlib import Path

import pytest

from benchmarks.contestant import Task
from benchmarks.driver import Contestant, Entry, alternate, spread, summarise
from benchmarks.sync_throughput import env_counts

SLEEPER = """
import os, sys, time
from benchmarks.contestant import serve

print("noise before the first answer", flush=True)

def build(task):
    print("noise on standard output")
    time.sleep(0.3)
    def repetition():
        with open(os.environ["DIARY"], "a") as diary:
            diary.write(os.environ["NAME"])
        time.sleep(0.05)
    return repetition

serve(build, (), {})
"""
CRASH = "raise ValueError('no such thing as a free lunch')"


@pytest.fixture
def entry(tmp_path: Path):
    """Return a function that makes a contestant's entry from the source of its module."""

    def make(name: str, source: str) -> Entry:
        (tmp_path / f"{name}_module.py").write_text(source)
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        variables = {"PYTHONPATH": path, "DIARY": str(tmp_path / "diary"), "NAME": name}
        return Entry(name, f"{name}_module", {"cartpole": 7}, variables=variables)

    return make


def test_a_contestant_is_as_fast_as_its_sleep(entry, tmp_path):
    with Contestant(entry("a", SLEEPER), Task(), tmp_path) as sleeper:
        answer = summarise([sleeper.run(), sleeper.run()])
        assert 0.2 < sleeper.ready["compile_seconds"] < 2.0  # the 0.3 s it slept before its first repetition
    assert answer["steps_per_repetition"] == 7 * 1024
    assert 7168 / 0.5 < answer["steps_per_second"]["median"] <= 7168 / 0.05
    assert answer["peak_memory_bytes"] > 2**20
    assert answer["repetitions"][0]["cpu_seconds"] < 0.04  # sleeping is not computing


def test_contestants_run_strictly_in_turn(entry, tmp_path):
    first, second = entry("a", SLEEPER), entry("b", SLEEPER)
    with Contestant(first, Task(), tmp_path) as one, Contestant(second, Task(), tmp_path) as other:
        answers = alternate([one, other], 3)
    assert (tmp_path / "diary").read_text() == "aabb" + "ababab"  # two warm-ups each, then in turn
    assert [len(answers[name]) for name in "ab"] == [3, 3]


def test_a_crash_is_reported_with_what_it_printed(entry, tmp_path):
    with pytest.raises(RuntimeError, match=r"crash ended(.|\n)*free lunch"):
        Contestant(entry("crash", CRASH), Task(), tmp_path)


def test_leaving_ends_the_process(entry, tmp_path):
    with Contestant(entry("a", SLEEPER), Task(), tmp_path) as sleeper:
        process = sleeper._process
    assert process.poll() == 0


def test_a_repetition_keeps_its_number_of_steps_when_environments_change():
    entry = Entry("x", "x", {"cartpole": 512})
    assert entry.task(Task(num_envs=2048)).updates == 8
    assert entry.task(Task(num_envs=2048)).steps == entry.task(Task()).steps == 524_288
    assert entry.task(Task(num_envs=10**6)).updates == 1


def test_task_survives_the_command_line():
    task = Task(environment="reacher", hidden_sizes=(7, 11), updates=13)
    assert Task.from_json(json.dumps(vars(task))) == task
    assert task.steps == 13 * 1024


def test_environment_counts_end_at_the_most():
    assert env_counts(16_384) == (32, 128, 512, 2048, 8192, 16_384)
    assert env_counts(128) == (32, 128)
    assert env_counts(32) == (32,)


def test_spread_of_hand_worked_numbers():
    assert spread([5.0, 1.0, 3.0, 11.0]) == {"median": 4.0, "min": 1.0, "max": 11.0}
