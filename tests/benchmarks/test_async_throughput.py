"""The speeds of the async mode, measured for real in a world of a few microseconds."""

import json

import pytest

from benchmarks import async_throughput as bench
from benchmarks.machine import ROOT


@pytest.mark.slow
def test_actors_learner_and_both_are_measured(tmp_path, capsys):
    config = tmp_path / "small.yaml"
    config.write_text((ROOT / "configs" / "async_cartpole.yaml").read_text().replace("gymnasium:", "gymnax:"))
    output = tmp_path / "out.json"
    bench.main(["--config", str(config), "--seconds", "0.2", "--repetitions", "2", "--output", str(output)])
    record = json.loads(output.read_text())["record"]
    # 16 environments take 16 steps, and half of the 512 learned from are new: an update is one rollout of each actor
    assert record["new_steps_per_update"] == 256
    for name in ("collected_steps_per_second", "updates_per_second_alone", "updates_per_second"):
        assert 0 < record[name]["min"] <= record[name]["max"]
    assert record["env_steps_per_second"]["max"] == pytest.approx(256 * record["updates_per_second"]["max"])
    assert 0 <= record["learner_idle"]["min"] <= record["learner_idle"]["max"] < 1
    assert record["lag_max"]["max"] <= record["max_lag"] == 16
    assert "learner alone" in capsys.readouterr().out
