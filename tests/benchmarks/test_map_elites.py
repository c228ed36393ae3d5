"""The controls of the map-elites mode, as settings, and what a body's specialist is."""

import pytest

from benchmarks import map_elites as bench
from benchmarks.learning import Job
from jaxrl_engine.modes.build import build
from jaxrl_engine.modes.map_elites.build import make_evolution
from jaxrl_engine.runtime.config import differences

LACKS = {
    "whole": set(),
    "random_bodies": {"qd.immigrants: 0.1 -> 1.0"},
    "frozen": {"qd.learn_after_warm_up: True -> False"},
    "no_refresh": {"qd.refresh: True -> False"},
    "no_warm_up": {"qd.warm_up: 0.25 -> 0.0"},
}


@pytest.mark.parametrize("name", bench.METHODS)
def test_a_control_lacks_what_it_says_at_equal_steps(name, tmp_path):
    whole, part = (Job(bench.METHODS[each], tmp_path / each).config for each in ("whole", name))
    assert set(differences(whole, part)) == LACKS[name]


def test_the_best_score_there_can_be_is_the_number_of_feasible_cells(tmp_path):
    evolution = make_evolution(build(Job(bench.METHODS["whole"], tmp_path).config))
    assert evolution.space.feasible.sum() == bench.FEASIBLE
