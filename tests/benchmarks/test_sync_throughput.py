"""Ours through the whole benchmark, a few updates long; peers need environments of their own and stay out."""

import json
import math
import subprocess
import sys

import pytest

from benchmarks.machine import ROOT
from benchmarks.report import markdown, rate, table

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict:
    output = tmp_path_factory.mktemp("throughput") / "results.json"
    size = ["--environments", "cartpole", "--levels", "environment", "training", "--repetitions", "2", "--updates", "2"]
    options = ["--sections", "levels", *size, "--peers", "--output", str(output)]
    command = [sys.executable, "-m", "benchmarks.sync_throughput", *options]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "| cartpole | training |" in ended.stdout
    return json.loads(output.read_text())


@pytest.mark.timeout(600)
def test_every_level_is_measured(results):
    records = results["levels"]["records"]
    assert [record["level"] for record in records] == ["environment", "training"]
    assert {record["contestant"] for record in records} == {"ours"}


def test_speeds_are_those_of_the_clock(results):
    for record in results["levels"]["records"]:
        assert record["steps_per_repetition"] == 2048
        assert len(record["repetitions"]) == 2
        for repetition in record["repetitions"]:
            assert repetition["steps_per_second"] > 0
            assert math.isclose(repetition["steps_per_second"], 2048 / repetition["seconds"])


def test_origin_is_recorded(results):
    section = results["levels"]
    assert section["command"].startswith("python -m benchmarks.sync_throughput --sections levels")
    assert section["machine"]["cores"] >= 1
    assert section["task"]["num_envs"] == 32
    assert section["command"] in markdown(results)


def test_tables_of_hand_written_rows():
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    assert [rate(value) for value in (12.34, 4567.0, 1_234_567.0)] == ["12.3", "4.57 k", "1.23 M"]
