"""Several devices compute what one does, each its share of it."""

import pytest
from several_devices import assert_close, compute

from benchmarks.scaling_devices import all_reduces

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
"""Sums are taken in another order; a few updates let that grow, to 1e-5 where it was measured."""


@pytest.fixture(scope="module")
def answers():
    return compute("ppo", "gru", "seeds")


@pytest.mark.parametrize("job", ["ppo", "gru"])
def test_eight_devices_learn_what_one_does(answers, job):
    one, eight = answers[job]["1"], answers[job]["8"]
    assert (one["devices"], eight["devices"], eight["shard"]) == (1, 8, [2])
    assert one["lengths"] == eight["lengths"]
    assert_close(one["params"], eight["params"], TOLERANCE)
    assert_close(one["statistics"], eight["statistics"], TOLERANCE)


def test_whole_runs_are_split_where_devices_divide_them(answers):
    one, eight = answers["seeds"]["1"], answers["seeds"]["8"]
    assert (eight["devices"], eight["shard"]) == (8, [1, 16])
    assert one["lengths"] == eight["lengths"]
    assert_close(one["params"], eight["params"], TOLERANCE)


def test_learning_is_divided_and_no_sample_is_gathered(answers):
    one, eight = answers["learning"]["1"], answers["learning"]["8"]
    assert eight["text"].count(" all-gather(") == 0
    assert 1 <= all_reduces(eight["text"])["in_loops"] <= 2  # the sum of gradients and metrics, and a greatest
    assert eight["flops"] < one["flops"] / 4  # an eighth, and what is done once per device


def test_a_checkpoint_of_eight_devices_goes_on_with_four_and_with_one(answers):
    resumed = answers["resumed"]
    assert resumed["updates"] == 12
    assert resumed["parts"]["return"] == pytest.approx(resumed["whole"]["return"], rel=TOLERANCE)
