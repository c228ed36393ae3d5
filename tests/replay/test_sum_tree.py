"""The sum tree against a NumPy reference that shares no code with it, and against the statistics it promises."""

import functools
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
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from jaxrl_engine.replay import sum_tree

_SPEC = importlib.util.spec_from_file_location("r", Path(__file__).parents[1] / "reference" / "sum_tree.py")
reference = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(reference)

BATCH = 7
CAPACITIES = (1, 64, 100, 1000)


def on_any_platform(write):
    """The batch-wide write behind the signature of `set`."""

    def set_(tree, indices, priorities, generations=None):
        held = None if generations is None else tree.generations[jnp.clip(indices, 0, tree.capacity - 1)]
        return write(tree, (indices, priorities, generations, held))

    return set_


put, set_, retire = (jax.jit(f) for f in (sum_tree.put, sum_tree.set, sum_tree.retire))
draw = jax.jit(sum_tree.sample)
set_by_level = jax.jit(on_any_platform(sum_tree._write_by_level))
sample_together = jax.jit(functools.partial(sum_tree._sample_together, unroll=True))


put_by_level = jax.jit(lambda *arguments: on_an_accelerator(sum_tree.put, *arguments))


def on_an_accelerator(function, *arguments):
    """Run what every platform but the CPU runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.lax, "platform_dependent", lambda *args, cpu, default: default(*args))
        return function(*arguments)


def sample(tree, uniforms):
    """The slots found, after a look at the probabilities that come with them."""
    found, probabilities = draw(tree, jnp.asarray(uniforms))
    total = float(tree.total)
    np.testing.assert_allclose(probabilities, tree.priorities[found] / total if total else 0.0, rtol=1e-6)
    return np.asarray(found)


def filled(priorities):
    priorities = jnp.asarray(priorities, jnp.float32)
    return put(sum_tree.init(priorities.size), jnp.arange(priorities.size), priorities)


def assert_sums(tree):
    """Every inner node is the sum of its children, to the last bit."""
    nodes = np.asarray(tree.nodes)
    half = nodes.size // 2
    parents = np.arange(1, half)
    np.testing.assert_array_equal(nodes[parents], nodes[2 * parents] + nodes[2 * parents + 1])


# --- any history ----------------------------------------------------------------------------------------------------

WIDTH = st.integers(0, 2**31 - 1)
PRIORITIES = hnp.arrays(
    np.float32,
    BATCH,
    elements=st.one_of(
        st.sampled_from([0.0, 1.0, np.nan, np.inf, -np.inf, -1.0]),
        st.floats(-15, 15).map(lambda power: float(np.float32(10.0**power))),
    ),
)
GAPS = hnp.arrays(np.int32, BATCH, elements=st.integers(0, 2))
UNIFORMS = hnp.arrays(np.float32, BATCH, elements=st.floats(0, 1, width=32))


def spread(seed, capacity):
    """Indices with many duplicates, now and then outside the tree."""
    random = np.random.default_rng(seed)
    pool = random.integers(-1, capacity + 1, size=3) if random.random() < 0.5 else np.arange(-1, capacity + 1)
    return np.int32(random.choice(pool, size=BATCH))


class AnyHistory(RuleBasedStateMachine):
    @initialize(capacity=st.sampled_from(CAPACITIES))
    def start(self, capacity):
        self.tree, self.truth = sum_tree.init(capacity), reference.ReferenceTree(capacity)

    @rule(seed=WIDTH, priorities=PRIORITIES)
    def put(self, seed, priorities):
        indices = spread(seed, self.tree.capacity)
        self.tree = put(self.tree, indices, priorities)
        self.truth.put(indices, priorities)

    @rule(seed=WIDTH, priorities=PRIORITIES)
    def set(self, seed, priorities):
        indices = spread(seed, self.tree.capacity)
        self.tree = set_(self.tree, indices, priorities)
        self.truth.set(indices, priorities)

    @rule(seed=WIDTH, priorities=PRIORITIES, late=GAPS)
    def set_late(self, seed, priorities, late):
        indices = spread(seed, self.tree.capacity)
        generations = np.int32(self.truth.generations[np.clip(indices, 0, self.tree.capacity - 1)] - late // 2)
        both = [write(self.tree, indices, priorities, generations) for write in (set_, set_by_level)]
        assert_same_tree(*both)
        self.tree = both[0]
        self.truth.set(indices, priorities, generations)

    @rule(seed=WIDTH)
    def retire(self, seed):
        gone = np.random.default_rng(seed).random(self.tree.capacity) < 0.2
        self.tree = retire(self.tree, gone)
        self.truth.retire(gone)

    @rule(uniforms=UNIFORMS)
    def sample(self, uniforms):
        found = np.asarray(sample(self.tree, uniforms))
        np.testing.assert_array_equal(found, sample_together(self.tree.nodes, uniforms)[0])
        assert ((found >= 0) & (found < self.tree.capacity)).all()
        if self.truth.total == 0:
            assert (found == 0).all()
            return
        assert (self.truth.priorities[found] > 0).all()
        ends = np.cumsum(self.truth.priorities.astype(np.float64))
        starts, slack = ends - self.truth.priorities, 2e-6 * ends[-1]
        target = np.float64(uniforms) * ends[-1]
        assert (starts[found] - slack <= target).all() and (target <= ends[found] + slack).all()

    @invariant()
    def agrees(self):
        if not hasattr(self, "tree"):
            return
        np.testing.assert_array_equal(self.tree.priorities, self.truth.priorities)
        np.testing.assert_array_equal(self.tree.generations, self.truth.generations)
        np.testing.assert_allclose(self.tree.total, self.truth.total, rtol=2e-6)
        assert float(self.tree.max_priority) == self.truth.maximum
        assert (int(self.tree.stale), int(self.tree.sanitised)) == (self.truth.stale, self.truth.sanitised)


def assert_same_tree(one, other):
    """Equal in all but node 0, which takes what is dropped."""
    np.testing.assert_array_equal(one.nodes[1:], other.nodes[1:])
    for name in ("generations", "max_priority", "stale", "sanitised"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = hypothesis.settings(max_examples=200, stateful_step_count=30)


# --- one promise after another --------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [1, 2, 3, 5, 127, 129])
def test_a_tree_worked_by_hand_at_any_capacity(capacity):
    tree = filled(np.arange(1, capacity + 1))
    assert float(tree.total) == capacity * (capacity + 1) / 2 and int(tree.eligible) == capacity
    ends = np.cumsum(np.arange(1, capacity + 1)) / float(tree.total)
    np.testing.assert_array_equal(sample(tree, jnp.float32(ends - 0.5 / tree.total)), np.arange(capacity))
    np.testing.assert_array_equal(sample(tree, jnp.float32([0.0, 1.0, 2.0, -1.0])), [0, capacity - 1, capacity - 1, 0])
    assert_sums(tree)


@pytest.mark.parametrize("size", [64, 331])  # one by one and together
def test_frequencies_are_the_priorities(size):
    priorities = np.array([0, 1, 2, 0, 5, 0.5, 0, 10, 3])
    tree, random = filled(priorities), np.random.default_rng(0)
    counts = np.zeros(priorities.size)
    for _ in range(20_000 // size):
        counts += np.bincount(sample(tree, np.float32(random.random(size))), minlength=priorities.size)
    assert (counts[priorities == 0] == 0).all()
    exact = priorities.astype(np.float64)
    expected = (exact / exact.sum() * counts.sum())[priorities > 0]
    assert scipy.stats.chisquare(counts[priorities > 0], expected).pvalue > 1e-3


def test_no_drift_and_no_empty_leaf_after_many_updates(key):
    capacity, half, batch, rounds = 1000, 500, 32, 3125  # 1e5 updates

    @jax.jit
    def run(tree, key):
        def step(carry, key):
            tree, empty = carry
            where, how_much, which = jax.random.split(key, 3)
            indices = jax.random.randint(where, (batch,), 0, half)
            tree = sum_tree.set(tree, indices, 10.0 ** jax.random.uniform(how_much, (batch,), minval=-6, maxval=6))
            drawn, _ = sum_tree.sample(tree, jax.random.uniform(which, (batch,)))
            return (tree, empty + jnp.sum(tree.priorities[drawn] <= 0.0)), None

        return jax.lax.scan(step, (tree, 0), jax.random.split(key, rounds))[0]

    tree, empty = run(sum_tree.init(capacity), key)
    assert int(empty) == 0 and int(tree.eligible) == half
    truth = np.asarray(tree.priorities, np.float64).sum()
    assert abs(float(tree.total) - truth) <= 1e-6 * truth
    assert_sums(tree)


def test_rounding_never_leads_to_an_empty_leaf():
    # The sum swallows all but the first leaf; a target of the whole sum would run past it into the empty half.
    tree = filled([1e12, 1e-12, 1e-12, 0, 0, 0, 0, 0])
    assert set(np.asarray(sample(tree, jnp.float32([0, 0.5, 1 - 2**-24, 1, np.nan])))) <= {0, 1, 2}


@pytest.mark.parametrize("write", [set_, set_by_level])
def test_a_tree_with_nan_in_its_nodes_heals(write):
    tree = filled(np.ones(8))
    damaged = tree.replace(nodes=tree.nodes.at[jnp.array([1, 2, 4, 8])].set(jnp.nan))
    healed = write(damaged, jnp.array([0]), jnp.array([3.0]))
    assert float(healed.total) == 10.0
    assert_sums(healed)


def test_what_is_not_a_priority_becomes_the_largest_before_and_is_counted():
    tree = set_(filled([1, 4, 2, 0]), jnp.arange(4), jnp.array([jnp.nan, 9.0, -jnp.inf, -3.0]))
    assert tree.priorities.tolist() == [4, 9, 4, 4]
    assert int(tree.sanitised) == 3 and float(tree.max_priority) == 9.0


def test_priorities_are_held_in_range():
    tree = set_(filled([1, 1, 1]), jnp.arange(3), jnp.array([1e30, 1e-30, 0.0]))
    np.testing.assert_array_equal(tree.priorities, np.float32([1e12, 1e-12, 0]))
    assert int(tree.sanitised) == 0


@pytest.mark.parametrize("write", [set_, set_by_level])
def test_a_late_priority_does_not_land_on_a_newer_item(write):
    tree = filled([1, 2, 3])
    stamps = tree.generations[jnp.array([1, 2])]
    tree = put(tree, jnp.array([1]), jnp.array([5.0]))
    tree = write(tree, jnp.array([1, 2]), jnp.array([100.0, 7.0]), stamps)
    assert tree.priorities.tolist() == [1, 5, 7] and int(tree.stale) == 1
    assert float(tree.max_priority) == 7.0, "what was dropped taught us nothing"


@pytest.mark.parametrize("write", [set_, set_by_level])
def test_the_last_of_duplicates_wins_unless_it_is_late(write):
    tree = filled([1, 2, 3])
    indices, priorities = jnp.array([2, 0, 2, 2]), jnp.array([9.0, 4.0, 6.0, 8.0])
    assert write(tree, indices, priorities).priorities.tolist() == [4, 2, 8]
    assert write(tree, indices, priorities, jnp.array([1, 1, 1, 0])).priorities.tolist() == [4, 2, 6]


@pytest.mark.parametrize("capacity", [1, 3, 1000])
def test_both_ways_agree_to_the_last_bit(capacity):
    random = np.random.default_rng(1)
    one = other = sum_tree.init(capacity)
    for _ in range(5):
        indices = np.int32(random.integers(-1, capacity + 1, 331))
        priorities = np.float32(random.choice([0, np.nan, 1], 331) * 10 ** random.uniform(-9, 9, 331))
        one, other = put(one, indices, priorities), put_by_level(other, indices, priorities)
        assert_same_tree(one, other)
        uniforms = np.float32(random.random(331))
        together = sample_together(one.nodes, uniforms)[0]
        np.testing.assert_array_equal(sample(one, uniforms), together)
        np.testing.assert_array_equal(sample(one, uniforms[:7]), together[:7])
    assert_sums(one)


def test_jit_changes_nothing():
    tree, random = filled(np.arange(5)), np.random.default_rng(2)
    indices, priorities = jnp.asarray(random.integers(0, 5, 3), jnp.int32), jnp.asarray(random.random(3), jnp.float32)
    uniforms = jnp.asarray(random.random(3), jnp.float32)
    gone = jnp.array([True, False, False, True, False])
    for function, arguments in (
        (sum_tree.put, (indices, priorities)),
        (sum_tree.set, (indices, priorities)),
        (sum_tree.retire, (gone,)),
    ):
        assert_same_tree(jax.jit(function)(tree, *arguments), function(tree, *arguments))
    np.testing.assert_array_equal(sample(tree, uniforms), sum_tree.sample(tree, uniforms)[0])


def test_a_batch_of_trees_is_a_loop_over_trees():
    priorities = jnp.asarray(np.random.default_rng(3).random((2, 5)), jnp.float32)
    trees = jax.vmap(lambda p: sum_tree.put(sum_tree.init(5), jnp.arange(5), p))(priorities)
    uniforms = jnp.linspace(0.0, 1.0, 3)
    found, _ = jax.vmap(sum_tree.sample, in_axes=(0, None))(trees, uniforms)
    for each in range(2):
        alone = filled(priorities[each])
        np.testing.assert_array_equal(trees.nodes[each], alone.nodes)
        np.testing.assert_array_equal(found[each], sample(alone, uniforms))


@pytest.mark.parametrize("capacity", [0, -1, 2**30])
def test_a_wrong_capacity_is_named(capacity):
    with pytest.raises(ValueError, match="capacity must be a whole number from 1 to"):
        sum_tree.init(capacity)


@pytest.mark.gpu
def test_the_accelerator_agrees_with_the_cpu():
    tree = filled(np.arange(1000))
    with jax.default_device(jax.devices("cpu")[0]):
        np.testing.assert_array_equal(tree.nodes[1:], filled(np.arange(1000)).nodes[1:])
