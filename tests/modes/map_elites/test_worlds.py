"""Other worlds of bodies, other descriptors, other cells."""

import dataclasses

import numpy as np
import pytest
from modes_map_elites import Evolved, small_config

from jaxrl_engine.modes.build import build
from jaxrl_engine.modes.map_elites.build import make_evolution

pytestmark = pytest.mark.timeout(600)


def evolve(env="reacher", env_params=None, **qd):
    """Three generations, the first of them warm-up."""
    config = small_config(
        env=env, env_params=env_params or {"episode_length": 5}, total_steps=3 * 2 * 8 * 5,
        qd=dataclasses.replace(small_config().qd, num_initial=5, **qd),
    )  # fmt: skip
    return Evolved(config)


def test_an_arm_of_the_zigzag_course_evolves_in_a_tessellation_of_what_its_tip_can_reach():
    lengths = {"min_length": 0.3, "max_length": 0.6}
    made = evolve(
        "reacher-zigzag", cells="cvt", num_cells=11, descriptors=("area", "asymmetry"), **lengths
    )  # fmt: skip
    repertoire, space = made.states[-1].actor.repertoire, made.evolution.space
    held = np.flatnonzero(repertoire.occupied)
    assert held.size and np.isfinite(repertoire.fitness[held]).all()
    where = space.in_units(np.asarray(repertoire.descriptors))[held]
    arms = repertoire.genotypes
    for cell, (area, asymmetry) in zip(held, where, strict=True):
        links = np.asarray(arms.lengths[cell])[: int(arms.count[cell])]
        hole = max(0.0, 2 * links.max() - links.sum())
        np.testing.assert_allclose(area, np.pi * (links.sum() ** 2 - hole**2), rtol=1e-4)
        inner = links[0] if len(links) == 2 else links[0] + links[1] / 2
        np.testing.assert_allclose(asymmetry, inner / links.sum(), rtol=1e-4)
        ways = np.asarray(space.cells.centroids) - np.asarray(repertoire.descriptors)[cell]
        assert np.square(ways).sum(axis=1).argmin() == cell


def test_energy_is_what_was_measured_when_a_body_was_let_in():
    made = evolve(descriptors=("links", "energy"))
    repertoire = made.states[-1].actor.repertoire
    held = np.flatnonzero(repertoire.occupied)
    assert held.size and (repertoire.descriptors[held, 1] > 0).all()
    np.testing.assert_array_equal(repertoire.descriptors[held, 0], repertoire.genotypes.count[held])


def test_the_zigzag_course_does_not_measure_energy():
    config = small_config(
        env="reacher-zigzag", qd=dataclasses.replace(small_config().qd, descriptors=("links", "energy"))
    )
    with pytest.raises(Exception, match="does not measure it"):
        make_evolution(build(config))


def test_thickness_and_gear_evolve_within_their_ranges():
    made = evolve(thickness=(0.5, 2.0), gear=(0.7, 1.3))
    arms = made.states[-1].actor.repertoire.genotypes
    held = np.flatnonzero(made.states[-1].actor.repertoire.occupied)
    for genes, (low, high) in ((arms.thickness, (0.5, 2.0)), (arms.gear, (0.7, 1.3))):
        values = np.asarray(genes)[held]
        assert values.min() >= low and values.max() <= high and np.ptp(values) > 0
    bodies = made.states[-1].actor.worlds.vector.env.body
    torque = np.asarray(bodies.torque)[:, 0]
    assert np.ptp(torque) > 0


def test_elites_where_feasibility_is_only_estimated_are_evaluated_too():
    """An estimate from below may miss a cell; an elite there would keep an old fitness under a new version."""
    config = small_config(qd=dataclasses.replace(small_config().qd, descriptors=("area", "asymmetry")))
    space = make_evolution(build(config)).space
    missed = dataclasses.replace(space, feasible=np.zeros_like(space.feasible))
    np.testing.assert_array_equal(missed.judged, np.arange(9))
    assert dataclasses.replace(missed, exact=True).judged.size == 0
