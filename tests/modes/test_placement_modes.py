"""Several devices compute what one does: teams with skills, and a generation of bodies."""

import numpy as np
import pytest
from several_devices import assert_close, compute

pytestmark = pytest.mark.slow

TOLERANCE = 1e-3
"""HMASD's one update takes 30 steps of four optimisers: 2e-4 was measured."""


@pytest.fixture(scope="module")
def answers():
    return compute("hmasd", "map-elites")


def test_hmasd_on_four_devices(answers):
    one, four = answers["hmasd"]["1"], answers["hmasd"]["4"]
    assert (four["devices"], four["shard"]) == (4, [2])
    assert one["lengths"] == four["lengths"]
    assert_close(one["params"], four["params"], TOLERANCE)
    assert_close(one["statistics"], four["statistics"], TOLERANCE)


def test_a_repertoire_evolved_on_eight_devices(answers):
    one, eight = answers["map-elites"]["1"], answers["map-elites"]["8"]
    assert (eight["devices"], eight["shard"]) == (8, [2])
    assert sum(fitness > -9.0 for fitness in one["fitness"]) >= 3
    np.testing.assert_allclose(eight["fitness"], one["fitness"], rtol=TOLERANCE, atol=1e-6)
    assert_close(one["genotypes"], eight["genotypes"], TOLERANCE)
    assert_close(one["params"], eight["params"], TOLERANCE)
