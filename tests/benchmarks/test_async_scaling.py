"""Actors one and two, and the sync mode, measured for real in a world of a few microseconds."""

import json

import pytest

from benchmarks import async_scaling as bench
from benchmarks.machine import ROOT


@pytest.mark.slow
def test_every_number_of_actors_and_the_sync_mode_are_measured(tmp_path, monkeypatch, capsys):
    config = tmp_path / "small.yaml"
    config.write_text((ROOT / "configs" / "async_cartpole.yaml").read_text().replace("gymnasium:", "gymnax:"))
    monkeypatch.setattr(bench, "WORLDS", {"gymnax:CartPole-v1": config})
    output = tmp_path / "out.json"
    bench.main(["--workers", "1", "2", "--seconds", "0.1", "--repetitions", "2", "--output", str(output)])
    told = json.loads(output.read_text())["record"]["gymnax:CartPole-v1"]
    assert list(told) == ["1", "2", "sync"]
    for name, each in told.items():
        speed = each["env_steps_per_second"]
        assert 0 < speed["min"] <= speed["median"] <= speed["max"]
        assert ("learner_idle" in each) == (name != "sync")
    assert all(0 <= told[name]["learner_idle"]["median"] < 1 for name in "12")
    assert "learner waits" in capsys.readouterr().out
