"""The prioritised buffer against a plain list of chunks, and against numbers worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxrl_engine.replay import prioritised

STEPS, CAPACITY = 3, 5
EXAMPLE = {
    "pixels": jax.ShapeDtypeStruct((STEPS, 2), jnp.uint8),
    "action": jax.ShapeDtypeStruct((STEPS,), jnp.int8),
    "reward": jax.ShapeDtypeStruct((STEPS,), jnp.float32),
    "done": jax.ShapeDtypeStruct((), jnp.bool_),
}

insert = jax.jit(prioritised.insert, donate_argnums=0)
sample = jax.jit(prioritised.sample, static_argnames="batch", donate_argnums=0)
update = jax.jit(prioritised.update_priorities, donate_argnums=0)


def chunks(first, count):
    """Chunks that carry their number in every leaf."""
    number = np.arange(first, first + count)
    leaves = {
        "pixels": np.broadcast_to(number[:, None, None], (count, STEPS, 2)).astype(np.uint8),
        "action": np.broadcast_to(number[:, None] % 100, (count, STEPS)).astype(np.int8),
        "reward": np.broadcast_to(number[:, None], (count, STEPS)).astype(np.float32),
        "done": number % 2 == 0,
    }
    return jax.tree.map(jnp.asarray, leaves)


def buffer_of(priorities, version=0, capacity=CAPACITY, **settings):
    buffer = prioritised.init(EXAMPLE, capacity, **settings)
    return insert(buffer, chunks(0, len(priorities)), jnp.asarray(priorities, jnp.float32), version)


def draw(buffer, batch=8, version=0, seed=0):
    return sample(buffer, jax.random.key(seed), batch=batch, version=version)


def weights(drawn, beta=1.0):
    return np.asarray(jax.jit(prioritised.importance_weights)(drawn, beta))


# --- the ring -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(1,) * 11, (2, 3, 5, 1, 4, 2), (5, 5, 5), (4, 4, 4)])
def test_the_ring_holds_the_newest_chunks(counts):
    buffer, truth, written = prioritised.init(EXAMPLE, CAPACITY), [None] * CAPACITY, 0
    for version, count in enumerate(counts):
        new = chunks(written, count)
        buffer = insert(buffer, new, jnp.full(count, written + 1.0), version)
        for row in range(count):
            truth[(written + row) % CAPACITY] = (
                {name: leaf[row] for name, leaf in new.items()},
                version,
                written + 1.0,
            )
        written += count
    assert int(buffer.size) == min(written, CAPACITY) and int(buffer.position) == written % CAPACITY
    assert int(buffer.eligible) == int(buffer.size)
    laps = np.bincount(np.arange(written) % CAPACITY, minlength=CAPACITY)
    np.testing.assert_array_equal(buffer.tree.generations, laps)
    for slot, (item, version, priority) in enumerate(truth):
        for name, leaf in item.items():
            np.testing.assert_array_equal(buffer.items[name][slot], leaf)
        assert int(buffer.versions[slot]) == version
        np.testing.assert_allclose(buffer.tree.priorities[slot], priority**0.6, rtol=1e-6)


def test_every_leaf_keeps_its_type():
    buffer, drawn = draw(buffer_of([1.0, 2.0]))
    for name, leaf in EXAMPLE.items():
        assert buffer.items[name].dtype == drawn.items[name].dtype == leaf.dtype
    assert drawn.items["pixels"].shape == (8, STEPS, 2)


def test_a_chunk_may_have_its_own_version_and_no_priority():
    buffer = buffer_of([2.0, 9.0], alpha=0.5)
    buffer = insert(buffer, chunks(2, 2), None, jnp.array([7, 5]))
    assert buffer.versions.tolist() == [0, 0, 7, 5, 0]
    np.testing.assert_allclose(buffer.tree.priorities, [2**0.5, 3, 3, 3, 0], rtol=1e-6)
    assert int(buffer.tree.sanitised) == 0


def test_both_ways_to_write_rows_agree():
    slots = np.array([4, 0, 2])
    rings, rows = chunks(50, CAPACITY), chunks(0, 3)
    for write in (prioritised._write_in_turn, prioritised._write_together):
        written = write(rings, rows, jnp.asarray(slots))
        for name, ring in rings.items():
            truth = np.array(ring)
            truth[slots] = rows[name]
            np.testing.assert_array_equal(written[name], truth)


# --- sampling -------------------------------------------------------------------------------------------------------


def test_weights_and_probabilities_by_hand():
    # p^α = 1, 2, 4, 8 of 15, N = 4: N P = 4/15, 8/15, 16/15, 32/15; to the −½, over the largest: 1, 2^-½, ½, 2^-1½.
    buffer, drawn = draw(buffer_of([1.0, 4.0, 16.0, 64.0], alpha=0.5), batch=64, version=3)
    order = np.asarray(drawn.indices)
    assert set(order) == {0, 1, 2, 3}
    np.testing.assert_allclose(drawn.probabilities, np.array([1, 2, 4, 8])[order] / 15, rtol=1e-6)
    np.testing.assert_allclose(weights(drawn, 0.5), np.array([1, 2**-0.5, 0.5, 2**-1.5])[order], rtol=1e-6)
    np.testing.assert_array_equal(drawn.items["reward"][:, 0], order)
    np.testing.assert_array_equal(drawn.ages, 3)
    np.testing.assert_array_equal(drawn.generations, 1)
    # The largest weight is the batch's, not the buffer's: one stratum, one chunk, weight 1.
    assert weights(draw(buffer, batch=1)[1]).tolist() == [1.0]


def test_strata_hold_the_counts_within_one():
    _, drawn = draw(buffer_of([1.0, 2.0, 3.0, 4.0], alpha=1.0), batch=40)
    counts = np.bincount(drawn.indices, minlength=4)
    assert np.abs(counts - [4, 8, 12, 16]).max() <= 1


def test_frequencies_are_the_priorities():
    buffer, counts = buffer_of([1.0, 0.0, 9.0, 4.0], alpha=0.5), np.zeros(4)
    for seed in range(2000):
        buffer, drawn = draw(buffer, batch=1, seed=seed)
        counts[int(drawn.indices[0])] += 1
    assert counts[1] == 0
    expected = np.array([1, 3, 2]) / 6 * 2000
    assert scipy.stats.chisquare(counts[[0, 2, 3]], expected).pvalue > 1e-3


def test_uniform_replay_is_an_argument():
    buffer = buffer_of([1.0, 0.0, 1e9, np.nan], alpha=0.0)
    buffer, drawn = draw(buffer, batch=4)
    assert sorted(drawn.indices.tolist()) == [0, 1, 2, 3] and weights(drawn, 0.7).tolist() == [1.0] * 4
    buffer = update(buffer, drawn.indices, drawn.generations, jnp.array([5.0, 0.0, 7.0, 8.0]))
    assert buffer.tree.priorities.tolist() == [1, 1, 1, 1, 0] and int(buffer.tree.sanitised) == 0


def test_an_empty_buffer_gives_weights_of_zero():
    _, drawn = draw(prioritised.init(EXAMPLE, CAPACITY))
    assert weights(drawn).tolist() == drawn.probabilities.tolist() == [0.0] * 8


# --- priorities come back -------------------------------------------------------------------------------------------


def test_priorities_come_back_to_their_chunks_only():
    buffer, drawn = draw(buffer_of([1.0, 1.0, 1.0, 1.0, 1.0], alpha=0.5), batch=5)
    buffer = insert(buffer, chunks(5, 2), jnp.array([1.0, 1.0]), 1)  # over slots 0 and 1
    new = jnp.array([81.0, 49.0, 25.0, 16.0, 9.0])[drawn.indices]
    buffer = update(buffer, drawn.indices, drawn.generations, new)
    np.testing.assert_allclose(buffer.tree.priorities, [1, 1, 5, 4, 3], rtol=1e-6)
    assert int(buffer.tree.stale) == 2


def test_what_is_no_priority_is_counted():
    buffer = buffer_of([4.0, 1.0, 1.0, 1.0], alpha=0.5)
    wrong = jnp.array([jnp.nan, jnp.inf, -1.0])
    buffer = update(buffer, jnp.array([1, 2, 3]), jnp.ones(3, jnp.int32), wrong)
    np.testing.assert_allclose(buffer.tree.priorities[:4], [2, 2, 2, 2], rtol=1e-6)
    assert int(buffer.tree.sanitised) == 3


# --- age and reuse --------------------------------------------------------------------------------------------------


def test_chunks_too_old_leave_and_do_not_come_back():
    buffer = prioritised.init(EXAMPLE, CAPACITY, max_lag=2)
    buffer = insert(buffer, chunks(0, 4), jnp.ones(4), jnp.array([3, 1, 2, 0]))
    buffer, before = draw(buffer, version=2)
    assert set(before.indices.tolist()) == {0, 1, 2, 3} and int(buffer.expired_by_age) == 0
    buffer, drawn = draw(buffer, version=4)
    assert set(drawn.indices.tolist()) == {0, 2} and set(drawn.ages.tolist()) == {1, 2}
    assert int(buffer.expired_by_age) == 2 and int(buffer.eligible) == 2 and int(buffer.size) == 4
    buffer = update(buffer, before.indices, before.generations, jnp.full(8, 5.0))
    assert (np.asarray(buffer.tree.priorities) > 0).tolist() == [True, False, True, False, False]
    assert int(buffer.tree.stale) == np.isin(before.indices, [1, 3]).sum()
    buffer, _ = draw(buffer, version=4)
    assert int(buffer.expired_by_age) == 2, "nothing expires twice"


@pytest.mark.parametrize("cap", [1, 3])
def test_no_chunk_is_in_more_batches_than_allowed(cap):
    buffer = buffer_of([1.0, 2.0, 100.0], alpha=1.0, max_reuse=cap)
    batches = np.zeros(3, int)
    for seed in range(20):
        buffer, drawn = draw(buffer, batch=4, seed=seed)
        real = np.asarray(drawn.indices)[np.asarray(drawn.probabilities) > 0]
        batches[np.unique(real)] += 1
        np.testing.assert_array_equal(buffer.uses[:3], batches)
        buffer = update(buffer, drawn.indices, drawn.generations, jnp.full(4, 50.0))  # must not revive what is spent
        assert int(buffer.expired_by_reuse) == (batches >= cap).sum()
    assert batches.tolist() == [cap] * 3 and float(buffer.tree.total) == 0.0
    buffer = insert(buffer, chunks(3, 3), jnp.ones(3), 0)  # slots 3, 4 and 0: a new chunk starts from no uses
    assert buffer.uses.tolist() == [0, cap, cap, 0, 0] and int(buffer.eligible) == 3


# --- the rest -------------------------------------------------------------------------------------------------------


def test_jit_changes_nothing():
    def life(buffer, insert, sample, update):
        buffer = insert(buffer, chunks(0, 4), jnp.array([1.0, 2.0, 3.0, 4.0]), 0)
        buffer, drawn = sample(buffer, jax.random.key(3), batch=3, version=1)
        buffer = update(buffer, drawn.indices, drawn.generations, jnp.array([0.5, 0.0, 7.0]))
        return buffer, drawn

    functions = prioritised.insert, prioritised.sample, prioritised.update_priorities
    empty = prioritised.init(EXAMPLE, CAPACITY, max_lag=0, max_reuse=2)
    plain = life(empty, *functions)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), life(empty, insert, sample, update), plain)


def test_beta_rises_to_one():
    values = [float(jax.jit(prioritised.anneal_beta, static_argnums=(1, 2))(step, 10, 0.4)) for step in (0, 5, 10, 99)]
    np.testing.assert_allclose(values, [0.4, 0.7, 1.0, 1.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 1.5}, "alpha must be a number from 0 to 1"),
        ({"max_lag": -1}, "max_lag must be None or a whole number >= 0"),
        ({"max_reuse": 0}, "max_reuse must be None or a whole number >= 1"),
        ({"capacity": 0}, "capacity must be"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        prioritised.init(EXAMPLE, **{"capacity": CAPACITY, **settings})


def test_chunks_of_another_kind_are_refused():
    buffer = prioritised.init(EXAMPLE, CAPACITY)
    good = chunks(0, 2)
    for wrong, message in (
        ({**good, "pixels": good["pixels"].astype(np.float32)}, "pixels.*uint8"),
        ({**good, "reward": good["reward"][:, :2]}, r"reward.*\(2, 3\)"),
        ({name: good[name] for name in ("pixels", "reward")}, "structure"),
        (chunks(0, CAPACITY + 1), "from 1 to the capacity 5"),
    ):
        with pytest.raises(ValueError, match=message):
            prioritised.insert(buffer, wrong, None, 0)
