"""What is made of trials with killed ranks, worked out by hand."""

from benchmarks import killed_ranks as bench
from jaxrl_engine.runtime.config import parse

GOOD = {
    "victim": 0, "down_seconds": 3.0, "back_seconds": 20.0, "lost_intervals": 0.5, "checkpoint": 64,
    "first_steps_again": 96, "went_on": True, "exit_code": 143, "cause": "launch: …",
}  # fmt: skip


def test_a_trial_is_good_where_everything_is():
    trials = [GOOD, GOOD | {"down_seconds": 31.0}, GOOD | {"went_on": False}, GOOD | {"exit_code": 1}]
    record = bench.summarize(trials)
    assert (record["good"], record["trials"]) == (1, 4)
    assert record["down_seconds"] == {"median": 3.0, "min": 3.0, "max": 31.0}


def test_the_run_is_one_the_engine_accepts():
    config = parse(list(bench.RUN)).config
    assert config.checkpoint.every_seconds == bench.INTERVAL
