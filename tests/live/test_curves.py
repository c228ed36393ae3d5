"""The charts' numbers against plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from jaxrl_engine.live.curves import MOST_POINTS, Curves, moving_average, thinned

GAPS = st.one_of(st.just(math.nan), st.floats(-1e3, 1e3))


@given(values=st.lists(GAPS, max_size=60), window=st.integers(1, 13))
def test_moving_averages_are_means_of_what_was_measured(values, window):
    expected = []
    for place in range(len(values)):
        known = [value for value in values[max(0, place + 1 - window) : place + 1] if not math.isnan(value)]
        expected.append(sum(known) / len(known) if known else math.nan)
    np.testing.assert_allclose(moving_average(values, window), expected, rtol=1e-9, atol=1e-9)


@given(count=st.integers(0, 5 * MOST_POINTS))
def test_long_lines_are_means_of_equal_parts(count):
    values = [float((7 * number) % 31) for number in range(count)]
    steps, means = thinned(range(count), values)
    assert len(steps) == len(means) == min(count, MOST_POINTS)
    if count:
        assert steps[-1] == count - 1
        sizes = np.diff([-1, *steps])
        assert sizes.max() - sizes.min() <= 1
        assert np.dot(sizes, means) == pytest.approx(sum(values))


def test_a_part_without_measurements_stays_a_gap():
    values = [math.nan] * MOST_POINTS + [1.0] * MOST_POINTS
    _, means = thinned(range(2 * MOST_POINTS), values)
    assert all(math.isnan(value) for value in means[: MOST_POINTS // 2])
    assert means[MOST_POINTS // 2 :] == [1.0] * (MOST_POINTS // 2)


def named(message):
    return {
        chart["title"]: {line["name"]: (line["x"], line["y"]) for line in chart["lines"]} for chart in message["charts"]
    }


def test_rows_become_four_charts():
    curves = Curves()
    for step in (10, 20, 30):
        row = {
            "Charts/EpisodeReturn": None if step == 20 else step / 10,
            "Charts/EpisodeLength": 5,
            "Losses/Value": 0.5,
        }
        curves.add(step, row | {"Perf/SPS": 1e6})
    curves.add(30, {"Eval/return": 7.0})
    charts = named(curves.message())
    assert list(charts) == ["Return", "Episode length", "Losses", "Return trend"]
    assert charts["Return"]["while training"] == ([10, 20, 30], [1.0, None, 3.0])
    assert charts["Return"]["greedy evaluation"] == ([30], [7.0])
    assert charts["Episode length"]["steps"] == ([10, 20, 30], [5.0, 5.0, 5.0])
    assert charts["Losses"] == {"value": ([10, 20, 30], [0.5, 0.5, 0.5])}
    assert charts["Return trend"]["10 rows"] == ([10, 20, 30], [1.0, 1.0, 2.0])
    assert len(charts["Return trend"]) == 3


def test_a_repertoire_has_its_score_in_place_of_the_length():
    curves = Curves()
    curves.add(10, {"QD/Score": 3.0, "QD/ArchivedScore": 4.0, "QD/Gap": 1.0, "Charts/EpisodeLength": 50.0})
    charts = named(curves.message())
    assert list(charts) == ["QD score", "Return", "Losses", "Return trend"]
    assert {name: y for name, (_, y) in charts["QD score"].items()} == {
        "archived": [4.0],
        "current": [3.0],
        "gap": [1.0],
    }


def test_a_resumed_run_shows_its_earlier_rows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"env_steps": 10, "Charts/EpisodeReturn": 1.5}\n{"env_steps": 20, "Charts/Epi')
    curves = Curves()
    curves.read(path)
    curves.read(tmp_path / "missing.jsonl")
    assert named(curves.message())["Return"]["while training"] == ([10], [1.5])
