"""Generations: what is judged when, by whom, and what becomes of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from modes_map_elites import Evolved, small_config

from jaxrl_engine.core.config import MapElitesConfig

pytestmark = pytest.mark.timeout(600)
WARM_UP, GENERATIONS, NUM_TARGETS = 3, 10, 5


def by_hand(evolved, state, cell):
    """Fitness of one elite, episode by episode, from the world's and the policy's own functions."""
    evolution = evolved.evolution
    env, algorithm = evolution.env, evolution.practice.algorithm
    arm = jax.tree.map(lambda leaf: jnp.asarray(leaf[cell]), state.actor.repertoire.genotypes)
    mask = jnp.arange(arm.lengths.shape[0]) < arm.count
    body = env.embody(arm.lengths, mask, arm.thickness, arm.gear)
    key_starts, _ = jax.random.split(state.actor.targets)
    successes, distances = [], []
    for key in jax.random.split(key_starts, NUM_TARGETS):
        world, timestep = env.reset(key, body)
        for _ in range(env.spec.time_limit):
            batched = jax.tree.map(lambda leaf: leaf[None], timestep)
            decision, _ = algorithm.act(state.train_state, algorithm.initial_carry(1), batched, None)
            world, timestep = env.step(key, world, decision.env_action[0], body)
        successes.append(float(timestep.metrics["success"]))
        distances.append(float(timestep.metrics["final_distance"]))
    distance = np.mean(distances)
    return np.mean(successes) - 0.5 / NUM_TARGETS * distance / (1 + distance)


def test_nothing_is_judged_before_the_warm_up_is_over(evolved):
    elites = [int(state.actor.repertoire.occupied.sum()) for state in evolved.states]
    assert elites[: WARM_UP + 1] == [0] * (WARM_UP + 1) and min(elites[WARM_UP + 1 :]) > 0
    steps = [float(state.actor.evaluation_steps) for state in evolved.states]
    # five steps an episode: 7 children and a body for every feasible cell in each generation
    feasible = int(evolved.evolution.space.feasible.sum())
    each = 5 * NUM_TARGETS * (7 + feasible)
    expected = [0] * (WARM_UP + 1) + [each * n for n in range(1, GENERATIONS - WARM_UP + 1)]
    assert steps == expected
    first = evolved.states[WARM_UP + 1].actor.repertoire
    asked = first.not_finite + first.out_of_range + first.inserted + first.improved + first.rejected
    assert asked == 11


def test_every_fitness_is_what_the_current_policy_does_with_that_body(evolved):
    state = evolved.states[-1]
    repertoire = state.actor.repertoire
    held = np.flatnonzero(repertoire.occupied)
    np.testing.assert_array_equal(repertoire.policy_version[held], state.train_state.policy_version)
    for cell in held:
        np.testing.assert_allclose(repertoire.fitness[cell], by_hand(evolved, state, cell), atol=1e-4)


def test_what_an_archive_that_never_looks_back_would_claim_is_told_apart(evolved):
    last = evolved.rows[-1]
    repertoire = evolved.states[-1].actor.repertoire
    held = np.asarray(repertoire.occupied)
    np.testing.assert_allclose(last["QD/Score"], repertoire.fitness[held].sum(), rtol=1e-5)
    np.testing.assert_allclose(last["QD/ArchivedScore"], repertoire.archived[held].sum(), rtol=1e-5)
    np.testing.assert_allclose(last["QD/Gap"], last["QD/ArchivedScore"] - last["QD/Score"], atol=1e-5)
    assert any(abs(row["QD/Gap"]) > 1e-4 for row in evolved.rows[WARM_UP + 1 :])


def test_without_refreshing_a_fitness_stays_that_of_the_policy_it_was_measured_under():
    config = small_config(qd=dataclasses.replace(small_config().qd, refresh=False, num_initial=7))
    stale = Evolved(config)
    repertoire = stale.states[-1].actor.repertoire
    held = np.asarray(repertoire.occupied)
    np.testing.assert_array_equal(repertoire.fitness[held], repertoire.archived[held])
    assert (repertoire.policy_version[held] < stale.states[-1].train_state.policy_version).any()
    assert (repertoire.evaluations[held] == 1).all()


def test_a_frozen_policy_learns_during_the_warm_up_alone():
    config = small_config(qd=dataclasses.replace(small_config().qd, learn_after_warm_up=False))
    frozen = Evolved(config)
    versions = [int(state.train_state.policy_version) for state in frozen.states]
    assert versions == [2 * min(generation, WARM_UP) for generation in range(GENERATIONS + 1)]
    before, after = frozen.states[WARM_UP], frozen.states[-1]
    jax.tree.map(np.testing.assert_array_equal, before.train_state, after.train_state)
    np.testing.assert_allclose([row["QD/Gap"] for row in frozen.rows], 0.0, atol=1e-5)


def test_bodies_trained_on_come_in_their_shares(evolved):
    evolution, state = evolved.evolution, evolved.states[-1]
    keys = jax.random.split(jax.random.key(3), 3)
    repertoire = jax.tree.map(jnp.asarray, state.actor.repertoire)
    children = jax.tree.map(lambda leaf: leaf[:7] * 0 + 1, repertoire.genotypes)
    children = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf])[:7], children)
    arms = evolution._training_bodies(repertoire, children, jnp.asarray(False), keys[0], keys[1])
    elites = {tuple(row) for row in np.asarray(repertoire.genotypes.lengths)[np.asarray(repertoire.occupied)]}
    kinds = [
        "child" if (row == 1).all() else "elite" if tuple(row) in elites else "random"
        for row in np.asarray(arms.lengths)
    ]
    assert kinds == ["elite"] * 4 + ["child"] * 2 + ["random"] * 2
    warm = evolution._training_bodies(repertoire, children, jnp.asarray(True), keys[0], keys[1])
    assert not {tuple(row) for row in np.asarray(warm.lengths)} & elites and not (warm.lengths == 1).any()


def test_a_world_moves_the_body_it_was_given_when_its_episode_began(evolved):
    """Five steps an episode and five a rollout: after the second rollout of a generation all are that generation's."""
    for before, after in zip(evolved.states, evolved.states[1:], strict=False):
        bodies = after.actor.worlds.vector.env.body
        assert not np.array_equal(before.actor.worlds.vector.env.body.lengths, bodies.lengths)
        links = bodies.mask.sum(axis=1)
        assert links.min() >= 2 and links.max() <= 3
        np.testing.assert_array_equal(bodies.lengths[~bodies.mask], 0.0)


def test_the_film_has_a_picture_of_every_generation_of_a_short_run(evolved):
    history = evolved.states[-1].actor.history
    taken = history.generation >= 0
    np.testing.assert_array_equal(np.sort(history.generation[taken]), np.arange(GENERATIONS))
    last = history.fitness[np.argmax(history.generation)]
    np.testing.assert_array_equal(last, evolved.states[-1].actor.repertoire.fitness)


def test_generations_in_one_chunk_are_those_one_by_one_and_nothing_compiles_anew(evolved):
    from jaxrl_engine.runtime.devices import CompileClock

    built, program = evolved.built, evolved.program
    chunk = program.compile(program.init(built.keys, built.hyper))
    state = program.init(built.keys, built.hyper)
    with CompileClock() as clock:
        before = clock.compilations
        state, _ = chunk(state, np.int32(GENERATIONS))
        jax.block_until_ready(state)
        assert clock.compilations == before
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(evolved.states[-1]), strict=True):
        if not jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("qd", "words"),
    [
        ({"elites": 0.8, "offspring": 0.4}, "qd.offspring must be at most 1 - qd.elites"),
        ({"descriptors": ("links", "links")}, "qd.descriptors must be two different of"),
        ({"min_links": 1}, "qd.min_links must be a whole number from 2 to 8"),
        ({"max_links": 9}, "qd.max_links must be a whole number from 2 to 8"),
        ({"min_length": 0.0}, "qd.min_length must be a number above 0"),
        ({"max_length": 0.05}, "qd.max_length must be above min_length = 0.1"),
        ({"gear": (2.0, 1.0)}, "qd.gear must be two numbers"),
        ({"num_targets": 0}, "qd.num_targets must be"),
    ],
)
def test_settings_that_cannot_be_name_themselves(qd, words):
    with pytest.raises(ValueError) as error:
        MapElitesConfig(**qd)
    assert words in str(error.value)
