"""What the wall costs, worked out by hand from two cycles; every mode's run is one that the engine accepts."""

import pytest

from benchmarks import live_cost as bench
from jaxrl_engine.runtime.config import parse


def test_ratios_are_those_of_one_cycle():
    cycles = [{"off": 100.0, "unwatched": 99.0, "reader": 90.0}, {"off": 50.0, "unwatched": 51.0, "reader": 50.0}]
    measured = {"cycles": cycles, "main_thread_share": [0.01, 0.03], "frames_per_second": [9.0, 11.0, 10.0]}
    record = bench.summarize(measured, {})
    reader = record["phases"]["reader"]
    assert reader["ratio_to_off"] == {"median": pytest.approx(0.95), "min": 0.9, "max": 1.0}
    assert reader["steps_per_second"]["median"] == 70.0
    assert record["phases"]["unwatched"]["ratio_to_off"]["max"] == 1.02
    assert record["main_thread_share"]["median"] == pytest.approx(0.02)
    assert record["frames_per_second"] == 10.0


@pytest.mark.parametrize("mode", bench.RUNS)
def test_the_measured_runs_are_the_modes_own(mode):
    config = parse([*bench.RUNS[mode][1], *bench.COMMON]).config
    assert config.mode == mode and config.evaluation.count == 0


def test_writing_while_twenty_readers_stall_is_measured(monkeypatch):
    monkeypatch.setattr(bench, "MESSAGES", 20)
    record = bench.stalled_readers()
    assert (record["readers"], record["messages"]) == (20, 20)
    assert 0.0 < record["p50_ms"] <= record["p99_ms"] <= record["max_ms"]
