"""The repertoire against tables worked by hand and against a NumPy repertoire that takes one candidate at a time."""

import dataclasses
import importlib.util
from pathlib import Path

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxrl_engine.qd import cells, repertoire as qd
from jaxrl_engine.qd.repertoire import Candidates

_SPEC = importlib.util.spec_from_file_location("r", Path(__file__).parents[1] / "reference" / "repertoire.py")
reference = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(reference)

LOW, HIGH, SHAPE = (0.0, -1.0), (6.0, 4.0), (3, 5)
GRID = cells.grid(LOW, HIGH, SHAPE)
EXAMPLE = {"genes": jnp.zeros(7), "count": jnp.int32(0)}
BATCH = 11
insert, refresh = jax.jit(qd.insert), jax.jit(qd.refresh)
FIELDS = ("fitness", "archived", "descriptors", "policy_version", "born", "evaluations")
COUNTERS = ("not_finite", "out_of_range", "inserted", "improved", "rejected")


def candidates(fitness, descriptors, versions, start=0):
    """Genotypes tell which candidate they are of."""
    number = np.arange(start, start + len(fitness), dtype=np.int32)
    return Candidates(
        genotypes={"genes": np.float32(number[:, None] + np.arange(7)[None] / 8.0), "count": number},
        fitness=np.asarray(fitness, np.float32),
        descriptors=np.asarray(descriptors, np.float32),
        policy_version=np.asarray(versions, np.int32),
    )


def same(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.fixture
def three():
    """Elites in cells 0, 7 and 14, let in at generations 2 and 5."""
    state, _ = insert(qd.empty(GRID, EXAMPLE), candidates([1.0, -3.0], [(1.0, -0.5), (3.0, 1.5)], 4), 2)
    return insert(state, candidates([6.0], [(6.0, 4.0)], [9], start=2), 5)[0]


# --- insertion ------------------------------------------------------------------------------------------------------


def test_a_table_worked_by_hand(three):
    """Cell = 5 floor(x / 2) + floor(y + 1)."""
    fitness = [1.0, 2.5, 2.5, -9.0, np.nan, 7.0, 0.0, np.inf, -1.0, -2.0, 0.5]
    places = [
        (0.5, -0.5), (1.5, -0.1), (1.9, -0.9),  # cell 0 holds 1.0: a tie, then two that tie for it
        (2.0, 2.5), (1.0, 1.0), (6.5, 0.0),  # cell 8 is empty; NaN; outside
        (5.0, np.nan), (1.0, 1.0), (3.0, 1.9),  # NaN; inf; cell 7 held −3
        (3.9, 1.1), (0.1, 4.0),  # cell 7 again, less fit; cell 4 is empty, its upper edge
    ]  # fmt: skip
    state, status = insert(three, candidates(fitness, places, 11, start=3), 13)
    assert status.dtype == jnp.int8 and status.tolist() == [0, 1, 0, 2, 0, 0, 0, 0, 1, 0, 2]
    held = [0, 4, 7, 8, 14]
    assert np.flatnonzero(state.occupied).tolist() == held
    assert np.asarray(state.fitness)[held].tolist() == [2.5, 0.5, -1.0, -9.0, 6.0]
    assert np.asarray(state.archived)[held].tolist() == [2.5, 0.5, -1.0, -9.0, 6.0]
    assert np.asarray(state.genotypes["count"])[held].tolist() == [4, 13, 11, 6, 2]
    assert np.asarray(state.genotypes["genes"])[held, 3].tolist() == [4.375, 13.375, 11.375, 6.375, 2.375]
    assert np.asarray(state.policy_version)[held].tolist() == [11, 11, 11, 11, 9]
    assert np.asarray(state.born)[held].tolist() == [13, 13, 13, 13, 5]
    assert np.asarray(state.evaluations)[held].tolist() == [1] * 5
    np.testing.assert_allclose(np.asarray(state.descriptors)[[4, 14]], [(0.1, 4.0), (6.0, 4.0)])
    counts = {name: int(getattr(state, name)) for name in COUNTERS}
    assert counts == {"not_finite": 3, "out_of_range": 1, "inserted": 5, "improved": 2, "rejected": 3}


VALUES = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 2.0, np.nan, np.inf, -np.inf]), st.floats(-3, 3, width=32, allow_subnormal=False)
)
PLACES = st.one_of(st.sampled_from([0.0, 2.0, 4.0, 6.0, -1.0, np.nan, np.inf, 7.0]), st.floats(-2, 7, width=32))
ROUNDS = st.lists(
    st.tuples(hnp.arrays(np.float32, BATCH, elements=VALUES), hnp.arrays(np.float32, (BATCH, 2), elements=PLACES)),
    min_size=1,
    max_size=4,
)


def on_a_lattice(places):
    """Descriptors a sixteenth apart, so that no rounding decides which cell they are in."""
    return np.round(places * 16.0) / 16.0


def assert_equal_to(plain, state):
    state = jax.tree.map(np.asarray, state)
    for name in COUNTERS:
        assert int(getattr(state, name)) == getattr(plain, name), name
    assert np.flatnonzero(state.occupied).tolist() == sorted(plain.elites)
    for cell, elite in plain.elites.items():
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(state, name)[cell], np.float32(elite[name]))
        assert int(state.genotypes["count"][cell]) == elite["genotype"]


@hypothesis.given(ROUNDS)
def test_any_history_is_that_of_plain_python(rounds):
    plain = reference.Repertoire([np.linspace(0.0, 6.0, 4), np.linspace(-1.0, 4.0, 6)])
    state, seen = qd.empty(GRID, EXAMPLE), 0
    for generation, (fitness, places) in enumerate(rounds):
        places = on_a_lattice(places)
        versions = np.arange(BATCH) % 3 + generation
        numbers = np.arange(seen, seen + BATCH)
        expected = plain.insert(numbers, fitness, places, versions, generation)
        state, status = insert(state, candidates(fitness, places, versions, seen), generation)
        assert status.tolist() == expected
        seen += BATCH
    assert_equal_to(plain, state)
    assert sum(int(getattr(state, name)) for name in COUNTERS) == seen


@hypothesis.given(ROUNDS)
def test_one_at_a_time_ends_as_a_batch_does(rounds):
    """All but two counters, which see elites that came and went in between."""
    fitness, places = rounds[0]
    group = candidates(fitness, on_a_lattice(places), 1)
    together, _ = insert(qd.empty(GRID, EXAMPLE), group, 3)
    alone = qd.empty(GRID, EXAMPLE)
    for i in range(BATCH):
        alone, _ = insert(alone, jax.tree.map(lambda leaf, i=i: leaf[i : i + 1] if leaf.ndim else leaf, group), 3)
    zero = jnp.int32(0)
    same(alone.replace(improved=zero, rejected=zero), together.replace(improved=zero, rejected=zero))


def test_those_that_do_not_ask_leave_no_trace(three):
    """A better one, one out of range and one that is not a number do not ask; of the two that do, one gets in."""
    fitness = [99.0, 5.0, np.nan, 3.0, -7.0]
    asked = candidates(fitness, [(1.0, -0.5), (-1.0, 0.0), (1.0, 0.5), (1.0, 0.5), (1.0, 0.5)], 9)
    state, status = insert(three, asked, 7, np.array([False, False, False, True, True]))
    np.testing.assert_array_equal(status, [0, 0, 0, 2, 0])
    np.testing.assert_array_equal(np.asarray(state.fitness)[[0, 1, 7, 14]], [1.0, 3.0, -3.0, 6.0])
    seen = {name: int(getattr(state, name)) - int(getattr(three, name)) for name in COUNTERS}
    assert seen == {"not_finite": 0, "out_of_range": 0, "inserted": 1, "improved": 0, "rejected": 1}


def test_jit_changes_nothing_and_stacked_repertoires_are_apart(three):
    group = candidates([2.0, 9.0, 0.0], [(1.0, -0.5), (6.0, 4.0), (0.0, 3.0)], 1)
    with jax.disable_jit():
        plain = qd.insert(three, group, 7)
    same(plain, insert(three, group, 7))
    stack = jax.tree.map(lambda a, b: jnp.stack([a, b]), three, qd.empty(GRID, EXAMPLE))
    both = jax.vmap(qd.insert, in_axes=(0, None, None))(stack, group, 7)
    same(jax.tree.map(lambda leaf: leaf[0], both), plain)
    same(jax.tree.map(lambda leaf: leaf[1], both), insert(qd.empty(GRID, EXAMPLE), group, 7))


def test_voronoi_cells_hold_elites_too():
    voronoi = cells.Voronoi(centroids=jnp.array([[0.2], [0.9], [0.4]]), low=jnp.zeros(1), high=jnp.ones(1))
    state, status = insert(
        qd.empty(voronoi, EXAMPLE), candidates([1.0, 2.0, 3.0, 4.0], [(0.25,), (0.29,), (0.6,), (1.5,)], 0), 1
    )
    assert status.tolist() == [0, 2, 2, 0]
    assert state.fitness.tolist() == [2.0, -np.inf, 3.0] and int(state.out_of_range) == 1


# --- refresh, scores ------------------------------------------------------------------------------------------------


def test_refresh_changes_the_fitness_and_what_says_how_it_was_measured(three):
    measured = jnp.arange(15.0).at[jnp.array([3, 7])].set(jnp.nan)  # nobody is in cell 3
    state = refresh(three, measured, 21, -5.0)
    assert np.asarray(state.fitness)[[0, 7, 14]].tolist() == [0.0, -5.0, 14.0]
    assert np.asarray(state.policy_version)[[0, 7, 14]].tolist() == [21] * 3
    assert np.asarray(state.evaluations)[[0, 7, 14]].tolist() == [2] * 3
    empty = np.setdiff1d(np.arange(15), [0, 7, 14])
    assert np.all(np.asarray(state.fitness)[empty] == -np.inf) and not np.any(np.asarray(state.evaluations)[empty])
    assert not np.any(np.asarray(state.policy_version)[empty])
    assert int(state.not_finite) == 1
    others = {"fitness", "policy_version", "evaluations", "not_finite"}
    for field in dataclasses.fields(state):
        if field.name not in others:
            same(getattr(state, field.name), getattr(three, field.name))


def test_after_a_refresh_a_candidate_competes_with_what_was_measured_last(three):
    worse = refresh(three, jnp.full(15, -4.0), jnp.arange(15), -5.0)
    assert int(worse.policy_version[7]) == 7
    state, status = insert(worse, candidates([-3.5, -4.0], [(1.0, -0.5), (3.0, 1.5)], 22), 8)
    assert status.tolist() == [1, 0]
    assert float(state.archived[0]) == -3.5 and float(state.archived[7]) == -3.0 and int(state.evaluations[0]) == 1


def test_the_summary_of_three_elites_worked_by_hand(three):
    """Archived 1, −3, 6; current 0, −1, 2; offset −5; born 2, 2, 5, now 9; cell 14 is not feasible."""
    current = jnp.zeros(15).at[jnp.array([7, 14])].set(jnp.array([-1.0, 2.0]))
    state = refresh(three, current, 21, -5.0)
    feasible = np.zeros(15, bool)
    feasible[[0, 1, 2, 7, 9]] = True
    found = jax.jit(qd.summary)(state, feasible, -5.0, 9)
    expected = {
        "QD/ArchivedScore": 19.0, "QD/Score": 16.0, "QD/Gap": 3.0, "QD/Coverage": 0.4, "QD/Elites": 3,
        "QD/MaxFitness": 2.0, "QD/MeanFitness": 1 / 3, "QD/NotFinite": 0, "QD/OutOfRange": 0, "QD/MeanAge": 6.0,
    }  # fmt: skip
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


def test_nothing_is_said_of_no_elites():
    found = qd.summary(qd.empty(GRID, EXAMPLE), jnp.zeros(15, bool), -5.0, 3)
    unknown = {"QD/MaxFitness", "QD/MeanFitness", "QD/MeanAge"}
    assert {name for name, value in found.items() if np.isnan(value)} == unknown
    assert all(float(value) == 0.0 for name, value in found.items() if name not in unknown)


# --- selection ------------------------------------------------------------------------------------------------------


def test_elites_are_drawn_uniformly(three, key):
    drawn, index = jax.jit(qd.select, static_argnums=2)(three, key, 30_011)
    counts = np.bincount(np.asarray(index), minlength=15)
    assert counts.sum() == counts[[0, 7, 14]].sum() == 30_011
    assert scipy.stats.chisquare(counts[[0, 7, 14]]).pvalue > 1e-3
    np.testing.assert_array_equal(drawn["count"], np.asarray(three.genotypes["count"])[np.asarray(index)])


def test_every_elite_is_reached_and_none_beyond(three):
    """The largest float32 below 1 is the last one; a third up is the second one."""
    uniforms = jnp.array([0.0, 0.3333, 0.3334, 0.6666, 0.6667, 1.0 - 2.0**-24])
    assert qd.pick(three, uniforms)[1].tolist() == [0, 0, 7, 7, 14, 14]


def test_without_elites_cell_zero_is_drawn(key):
    drawn, index = qd.select(qd.empty(GRID, EXAMPLE), key, 5)
    assert index.tolist() == [0] * 5 and drawn["genes"].shape == (5, 7)
