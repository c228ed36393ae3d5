"""Replay in shards against as many NumPy rings, and its weights against one tree's estimator worked in closed form."""

import importlib.util
from pathlib import Path

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings

from jaxrl_engine.replay import prioritised
from jaxrl_engine.replay.sharded import ShardedReplay

_SPEC = importlib.util.spec_from_file_location("r", Path(__file__).parents[1] / "reference" / "sum_tree.py")
reference = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(reference)

SHARDS, EACH = 3, 5
EXAMPLE = {"number": jax.ShapeDtypeStruct((), jnp.int32), "pixels": jax.ShapeDtypeStruct((2, 7), jnp.uint8)}


class Verbs:
    """The verbs of a replay, jitted unless told otherwise; the key of a draw is that of its seed."""

    def __init__(self, replay, jit=jax.jit):
        self.replay = replay
        self.insert, self.update = jit(replay.insert), jit(replay.update_priorities)
        self._sample = jit(replay.sample, static_argnames="batch")

    def sample(self, buffer, seed, batch, version):
        return self._sample(buffer, jax.random.key(seed), batch=batch, version=version)


def chunks(numbers):
    numbers = jnp.asarray(numbers, jnp.int32)
    pixels = jnp.broadcast_to(numbers[:, None, None], (numbers.size, 2, 7)).astype(jnp.uint8)
    return {"number": numbers, "pixels": pixels}


def filled(priorities, verbs, **options):
    """A buffer whose shard g holds priorities[g], chunks numbered in order."""
    rows = np.concatenate([np.asarray(each, np.float32) for each in priorities])
    capacity = len(priorities) * EACH
    buffer = verbs.replay.init(EXAMPLE, capacity, alpha=1.0, **options)
    return verbs.insert(buffer, chunks(np.arange(rows.size)), jnp.asarray(rows), 0)


@pytest.fixture(scope="module")
def three():
    return Verbs(ShardedReplay(SHARDS))


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


# --- PER keeps its meaning ------------------------------------------------------------------------------------------

UNEQUAL = (
    [1.0, 1.0, 0.0],
    [1.0, 3.0, 1.0],
    [4.0, 0.0, 6.0],
)  # sums 2, 5, 10: ten draws of each meet every item exactly
ALONE = ([0.0, 0.0, 0.0], [1.0, 3.0, 1.0], [4.0, 0.0, 6.0])  # a shard with nothing to draw


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("priorities", [UNEQUAL, ALONE])
def test_a_weighted_mean_is_that_of_one_tree(three, priorities, beta):
    _, drawn = three.sample(filled(priorities, three), 1, 30, 0)
    weights = np.asarray(prioritised.importance_weights(drawn, beta), np.float64)
    tested = np.random.default_rng(3).normal(size=(13, 9))  # any functions of the nine chunks
    counted = weights > 0
    estimate = (weights * tested[:, np.asarray(drawn.items["number"])])[:, counted].mean(axis=1)
    of_one = np.concatenate(priorities) / np.sum(priorities)  # P of the one tree, by hand
    there = of_one > 0
    scale = (of_one[there].min() / of_one[there]) ** beta  # (N P)^-β over the largest
    np.testing.assert_allclose(estimate, tested[:, there] @ (of_one[there] * scale), rtol=2e-6)


def test_probabilities_and_corrections_by_hand(three):
    _, drawn = three.sample(filled(UNEQUAL, three), 2, 30, 0)
    number = np.asarray(drawn.items["number"])
    np.testing.assert_array_equal(np.bincount(number, minlength=9), [5, 5, 0, 2, 6, 2, 4, 0, 6])
    np.testing.assert_allclose(drawn.probabilities, np.array([1, 1, 0, 1, 3, 1, 4, 0, 6])[number] / 17, rtol=1e-6)
    np.testing.assert_allclose(drawn.correction, np.repeat([6 / 17, 15 / 17, 30 / 17], 10), rtol=1e-6)
    np.testing.assert_array_equal(drawn.indices, number // 3 * EACH + number % 3)
    # c (P_min / P)^β: the correction is there once, whatever β is, and outside the maximum.
    half = np.asarray(prioritised.importance_weights(drawn, 0.5))
    np.testing.assert_allclose(half[number == 4], 15 / 17 * 3**-0.5, rtol=1e-6)
    np.testing.assert_allclose(half[number == 8], 30 / 17 * 6**-0.5, rtol=1e-6)


def test_draws_follow_the_priorities_of_their_shard(three):
    buffer, counts = filled(([1.0, 5.0, 2.0], [3.0, 4.0, 4.0], [1.0, 1.0, 11.0]), three), np.zeros(9)
    draw = jax.jit(jax.vmap(lambda key: three.replay.sample(buffer, key, SHARDS, 0)[1].items["number"]))
    counts += np.bincount(np.ravel(draw(jax.random.split(jax.random.key(5), 3000))), minlength=9)
    expected = 3000 * np.concatenate([np.array([1, 5, 2]) / 8, np.array([3, 4, 4]) / 11, np.array([1, 1, 11]) / 13])
    assert scipy.stats.chisquare(counts, expected, ddof=2).pvalue > 1e-3


def test_a_shard_with_nothing_to_draw_has_no_weight_and_counts_as_none(three):
    buffer, drawn = three.sample(filled(ALONE, three), 0, 6, 0)
    weights = np.asarray(prioritised.importance_weights(drawn, 1.0))
    assert weights[:2].tolist() == [0.0, 0.0] and (weights[2:] > 0).all()
    np.testing.assert_allclose(drawn.correction, np.repeat([0, 2 * 5 / 15, 2 * 10 / 15], 2), rtol=1e-6)
    assert buffer.uses[0].sum() == 0 and buffer.uses[1:].sum() > 0
    empty = three.replay.init(EXAMPLE, SHARDS * EACH)
    after, drawn = three.sample(empty, 0, 6, 0)
    for leaf in (drawn.probabilities, drawn.correction, prioritised.importance_weights(drawn, 0.4)):
        assert np.asarray(leaf).tolist() == [0.0] * 6
    same(after, empty)


# --- the rings ------------------------------------------------------------------------------------------------------


class Rings:
    """As many independent rings as there are shards, in NumPy."""

    def __init__(self):
        self.trees = [reference.ReferenceTree(EACH) for _ in range(SHARDS)]
        self.numbers, self.versions, self.uses = (np.zeros((SHARDS, EACH), np.int64) for _ in range(3))
        self.written = 0  # of each shard

    def insert(self, numbers, priorities, version):
        for shard, (of_shard, worth) in enumerate(zip(numbers, priorities, strict=True)):
            slots = (self.written + np.arange(len(of_shard))) % EACH
            self.numbers[shard, slots], self.versions[shard, slots], self.uses[shard, slots] = of_shard, version, 0
            self.trees[shard].put(slots, worth)
        self.written += numbers.shape[1]

    def expire(self, version, max_lag):
        for shard, tree in enumerate(self.trees):
            tree.retire((version - self.versions[shard] > max_lag) & (tree.priorities > 0))

    def take(self, slots, max_reuse):
        """Count a batch's slots, of each shard."""
        for shard, of_shard in enumerate(slots):
            drawn = np.unique(of_shard[self.trees[shard].priorities[of_shard] > 0])
            self.uses[shard, drawn] += 1
            self.trees[shard].priorities[drawn[self.uses[shard, drawn] >= max_reuse]] = 0

    def update(self, slots, generations, priorities, max_reuse):
        for shard, of_shard in enumerate(slots):
            kept = np.where(self.uses[shard, of_shard] < max_reuse, of_shard, -1)
            self.trees[shard].set(kept, priorities[shard], generations[shard])

    def check(self, buffer):
        for shard, tree in enumerate(self.trees):
            np.testing.assert_array_equal(buffer.tree.priorities[shard], tree.priorities)
            np.testing.assert_array_equal(buffer.tree.generations[shard], tree.generations)
            assert (int(buffer.tree.stale[shard]), int(buffer.tree.sanitised[shard])) == (tree.stale, tree.sanitised)
        np.testing.assert_array_equal(buffer.items["number"], self.numbers)
        np.testing.assert_array_equal(buffer.items["pixels"][..., 0, 0], self.numbers.astype(np.uint8))
        np.testing.assert_array_equal(buffer.versions, self.versions)
        np.testing.assert_array_equal(buffer.uses, self.uses)
        np.testing.assert_array_equal(buffer.size, min(self.written, EACH))


WORTH = st.sampled_from([0.0, 0.25, 1.0, 2.0, 5.0, 1e6, float("nan"), -1.0])
STEPS = st.lists(
    st.tuples(st.integers(1, 2), st.integers(0, 999), st.lists(WORTH, min_size=12, max_size=12)), max_size=9
)
LAG, REUSE, DRAWN = 4, 3, 6


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_any_history_is_that_of_independent_rings(three, history):
    """Each step draws, writes up to two chunks per shard, then brings back late priorities of what was drawn."""
    truth, written = Rings(), 0
    buffer = three.replay.init(EXAMPLE, SHARDS * EACH, alpha=1.0, max_lag=LAG, max_reuse=REUSE)
    for version, (count, seed, worth) in enumerate(history):
        buffer, drawn = three.sample(buffer, seed, DRAWN, version)
        truth.expire(version, LAG)
        slots = _checked_draw(truth, drawn)
        truth.take(slots, REUSE)
        truth.check(buffer)
        numbers = written + np.arange(SHARDS * count)
        written += numbers.size
        new = np.asarray(worth[: numbers.size], np.float32)
        buffer = three.insert(buffer, chunks(numbers), jnp.asarray(new), version)
        truth.insert(numbers.reshape(SHARDS, count), new.reshape(SHARDS, count), version)
        back = np.asarray(worth[-DRAWN:], np.float32)
        buffer = three.update(buffer, drawn.indices, drawn.generations, jnp.asarray(back))
        generations = np.asarray(drawn.generations).reshape(SHARDS, -1)
        truth.update(slots, generations, back.reshape(SHARDS, -1), REUSE)
        truth.check(buffer)


def _checked_draw(truth, drawn):
    """The slots drawn of each shard, after a look at everything that is said of them."""
    slots = np.asarray(drawn.indices).reshape(SHARDS, -1) - EACH * np.arange(SHARDS)[:, None]
    assert ((slots >= 0) & (slots < EACH)).all()
    shard = np.arange(SHARDS)[:, None]
    np.testing.assert_array_equal(np.asarray(drawn.items["number"]).reshape(SHARDS, -1), truth.numbers[shard, slots])
    worth = np.stack([tree.priorities for tree in truth.trees]).astype(np.float64)
    totals = worth.sum(axis=1)
    total, several = max(totals.sum(), 1e-30), (totals > 0).sum()
    found = worth[shard, slots].ravel()
    np.testing.assert_allclose(drawn.probabilities, found / total, rtol=1e-5)
    np.testing.assert_allclose(drawn.correction, np.repeat(several * totals / total, slots.shape[1]), rtol=1e-5)
    assert (found > 0).reshape(slots.shape).all(axis=1).tolist() == (totals > 0).tolist()
    return slots


# --- what it is equal to --------------------------------------------------------------------------------------------


def life(verbs, count=6):
    """A short history: what is left of it, and what was drawn."""
    buffer = verbs.replay.init(EXAMPLE, SHARDS * EACH, max_lag=2, max_reuse=2)
    for version in range(4):
        new = 1.0 + (jnp.arange(count) * 7 + version) % 5
        buffer = verbs.insert(buffer, chunks(np.arange(count) + version * count), new, version)
        buffer, drawn = verbs.sample(buffer, version, 9, version)
        buffer = verbs.update(buffer, drawn.indices, drawn.generations, 0.5 + jnp.arange(9.0))
    tree = buffer.tree.replace(nodes=buffer.tree.nodes.at[..., 0].set(0.0))  # which is unused
    return buffer.replace(tree=tree), drawn


def test_one_shard_is_the_buffer_without_shards_to_the_bit():
    (buffer, drawn), (plain, expected) = life(Verbs(ShardedReplay(1))), life(Verbs(prioritised))
    same(jax.tree.map(lambda leaf: leaf[0], buffer), plain)
    same(drawn, expected)


def test_jit_changes_nothing_and_accelerators_compute_the_same(three):
    buffer, drawn = life(three)
    plain = life(Verbs(ShardedReplay(SHARDS), jit=lambda function, **_: function))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), (buffer, drawn), plain)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.lax, "platform_dependent", lambda *args, cpu, default: default(*args))
        other = life(Verbs(ShardedReplay(SHARDS)))
    same((buffer, drawn), other)


# --- what cannot be -------------------------------------------------------------------------------------------------


def test_what_cannot_be_split_evenly_is_refused(three):
    with pytest.raises(ValueError, match="num_shards must be a whole number >= 1, not 0"):
        ShardedReplay(0)
    with pytest.raises(ValueError, match="capacity must be a multiple of the 3 shards, not 16"):
        three.replay.init(EXAMPLE, 16)
    buffer = filled(UNEQUAL, three)
    with pytest.raises(ValueError, match="number of chunks must be a multiple of the 3 shards, not 7"):
        three.replay.insert(buffer, chunks(np.arange(7)), None, 0)
    with pytest.raises(ValueError, match="batch must be a multiple of the 3 shards, not 8"):
        three.sample(buffer, 0, 8, 0)


def test_an_index_among_the_rows_of_another_shard_is_ignored(three):
    buffer = filled(UNEQUAL, three)
    swapped = jnp.array([EACH, 2 * EACH, 0])  # each the first slot of another row's shard
    after = three.update(buffer, swapped, jnp.ones(3, jnp.int32), jnp.full(3, 50.0))
    same(after.tree.priorities, buffer.tree.priorities)
    kept = three.update(buffer, jnp.sort(swapped), jnp.ones(3, jnp.int32), jnp.array([50.0, 60.0, 70.0]))
    assert kept.tree.priorities[:, 0].tolist() == [50.0, 60.0, 70.0]
