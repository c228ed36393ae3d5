"""The ablations of the async learner, as settings."""

import pytest

from benchmarks import async_ablation as bench
from benchmarks.learning import Job
from jaxrl_engine.runtime.config import differences

ABLATED = {
    "whole": set(),
    "uniform": {"impact.replay: 'prioritised' -> 'uniform'"},
    "uncorrected": {"impact.correction: True -> False"},
    # as many new steps an update as the others: half their batch
    "no_replay": {
        "impact.replay: 'prioritised' -> 'none'", "impact.new_fraction: 0.5 -> 1.0", "impact.batch_size: 2048 -> 1024",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", bench.METHODS)
def test_an_ablation_takes_away_what_it_says_and_learns_from_as_many_new_steps(name, tmp_path):
    whole, part = (Job(bench.METHODS[each], tmp_path / each).config for each in ("whole", name))
    assert set(differences(whole, part)) == ABLATED[name]
    assert whole.new_chunks * whole.num_steps == part.new_chunks * part.num_steps
