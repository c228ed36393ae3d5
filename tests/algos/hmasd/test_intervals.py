"""Intervals of decisions against a NumPy reference that walks forward, and the blocks that gather marked rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hmasd_rollouts import by_walking
from hypothesis import given, strategies as st

from jaxrl_engine.algos.hmasd.intervals import decision_gae, marked_rows, normalize_where

T = 13
GAMMA, LAMBDA = 0.9, 0.7


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 0.6), st.floats(0.0, 0.5))
def test_advantages_equal_the_reference(seed, often, ends):
    """With episodes that terminate or are truncated anywhere, after which a decision always follows."""
    rng = np.random.default_rng(seed)
    done = rng.random(T) < ends
    terminated = done & (rng.random(T) < 0.5)
    decided = (rng.random(T) < often) | np.concatenate([[True], done[:-1]])
    reward, value, end = rng.normal(size=(3, T))
    end = np.where(terminated, 0.0, end)
    last = rng.normal()
    advantage, earned = decision_gae(
        *map(jnp.asarray, (reward, decided, value, last, end, done)), GAMMA, LAMBDA
    )  # fmt: skip
    expected, sums = by_walking(reward, decided, value, last, end, done, GAMMA, LAMBDA)
    np.testing.assert_allclose(np.asarray(advantage)[decided], expected[decided], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.asarray(earned)[decided], sums[decided], rtol=1e-4, atol=1e-5)


def test_a_stream_worked_by_hand():
    """γ = ½, λ = ½. Decisions at 0 (held 2 steps), 2 (terminates at 3), 4 (truncated at once), 5 (rollout ends).

    A₅ = 1 + ½·8 − 3 = 2; A₄ = 5 + ½·6 − 1 = 7; A₂ = (1 + 2) − 2 = 1; A₀ = (1 + 1) + ½·2 − 4 + ¼·1 = −¾
    """
    reward = jnp.asarray([1.0, 1.0, 1.0, 2.0, 5.0, 1.0])
    decided = jnp.asarray([True, False, True, False, True, True])
    value = jnp.asarray([4.0, 99.0, 2.0, 99.0, 1.0, 3.0])
    end = jnp.asarray([99.0, 99.0, 99.0, 0.0, 6.0, 99.0])
    done = jnp.asarray([False, False, False, True, True, False])
    advantage, earned = decision_gae(reward, decided, value, jnp.asarray(8.0), end, done, 0.5, 0.5)
    np.testing.assert_allclose(np.asarray(advantage)[decided], [-0.75, 1.0, 7.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(earned)[decided], [2.0, 3.0, 5.0, 1.0], rtol=1e-6)


def test_rewards_before_the_first_decision_belong_to_none():
    reward = jnp.asarray([7.0, 1.0, 2.0])
    no = jnp.zeros(3, bool)
    decided = jnp.asarray([False, True, False])
    _, earned = decision_gae(reward, decided, jnp.zeros(3), jnp.asarray(0.0), jnp.zeros(3), no, 1.0, 1.0)
    assert float(earned[1]) == 3.0


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 21])
def test_blocks_visit_every_marked_row_once_and_no_more_blocks_than_needed(count):
    rng = np.random.default_rng(count)
    flat = np.zeros(21, bool)
    flat[rng.choice(21, count, replace=False)] = True
    rows = marked_rows(jnp.asarray(flat.reshape(7, 3)), size=5)

    def visit(index, weight, so_far):
        return so_far[0].at[index].add(weight), so_far[1] + 1

    visits, blocks = jax.jit(lambda: rows.fold(visit, (jnp.zeros(21), 0)))()
    np.testing.assert_array_equal(visits, flat)
    assert int(blocks) == -(-count // 5)
    assert int(rows.count) == count


def test_normalised_over_the_marked_entries_only(key):
    values = np.asarray(3.0 + 2.0 * jax.random.normal(key, (5, 3, 2)))
    mask = np.random.default_rng(0).random((5, 3)) < 0.5
    ours = np.asarray(normalize_where(jnp.asarray(np.where(mask[..., None], values, 1e6)), jnp.asarray(mask)))
    chosen = values[mask]
    np.testing.assert_allclose(ours[mask], (chosen - chosen.mean()) / chosen.std(), rtol=1e-4, atol=1e-5)
    assert np.abs(ours[~mask]).max() == 0.0
