"""A sum tree on the device: priorities written and sampled in O(log N), pure functions on one frozen struct.

A binary heap of float32 sums: the root is node 1, the children of n are 2n and 2n + 1, leaf i is node P + i, where P is
the capacity rounded up to a power of two. After Schaul et al. 2016 (arXiv:1511.05952), appendix B.2.1, and:

- A parent is *recomputed* as left + right, never corrected by a difference: rounding does not add up over updates, and
  a node that was ever wrong is right again after the next write below it.
- Every slot has a *generation*, raised by `put`. `set` drops a priority whose generation is no longer the slot's: it
  speaks of an item that has been overwritten.
- A priority that is NaN, infinite or negative is replaced by the largest one seen before, and counted. Zero means never
  sampled; the others are held within [`MIN_PRIORITY`, `MAX_PRIORITY`].
- If an index occurs several times in a batch, its last occurrence wins. An index outside the tree is padding: ignored.
- A leaf of priority zero is never sampled as long as any other leaf has more.

Writing and sampling exist twice over the same nodes, equal to the last bit: item by item for CPUs, where XLA compiles
small scalar loops well, and batch-wide, a few levels at a time, for accelerators. The platform chooses.
"""

from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl_engine.core.checks import require
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf

MIN_PRIORITY = 1e-12
MAX_PRIORITY = 1e12
"""2^30 leaves of the largest priority still have a finite float32 sum."""

MAX_CAPACITY = 2**29
"""Node numbers stay within int32."""

LEVELS_AT_ONCE = 4
"""Levels the batch-wide write recomputes from one gather: fewer dependent kernels, as the 2^4 nodes are neighbours."""

Entries: TypeAlias = tuple[Array, Array, Array | None, Array | None]
"""Indices, priorities, generations they speak of, generations the slots hold (both None: of whatever is there)."""

Place: TypeAlias = tuple[Array, Array, Array]
"""Node, what is left of the target below it, the node's sum."""

MAX_IN_TURN = 256
"""Quantiles up to here are looked up one by one on a CPU."""


class SumTree(Struct):
    """A sum tree of `capacity` slots."""

    nodes: Float[Leaf, "*batch nodes"]  # [2 P] sums; node 0 is unused
    generations: Int[Leaf, "*batch capacity"]  # items each slot has held so far
    max_priority: Float[Leaf, "*batch"]  # largest priority accepted so far; 1 before the first
    stale: Int[Leaf, "*batch"]  # priorities dropped because their item had gone
    sanitised: Int[Leaf, "*batch"]  # priorities replaced because they were NaN, infinite or negative

    @property
    def capacity(self) -> int:
        return self.generations.shape[-1]

    @property
    def leaves(self) -> int:  # P
        return self.nodes.shape[-1] // 2

    @property
    def total(self) -> Float[Array, "*batch"]:
        return self.nodes[..., 1]

    @property
    def priorities(self) -> Float[Array, "*batch capacity"]:
        return self.nodes[..., self.leaves : self.leaves + self.capacity]

    @property
    def eligible(self) -> Int[Array, "*batch"]:
        """Slots that can be sampled. Work O(capacity); whether there is one, `total` > 0 tells for nothing."""
        return jnp.sum(self.priorities > 0.0, axis=-1, dtype=jnp.int32)


def init(capacity: int) -> SumTree:
    """Return a tree of `capacity` slots, all of priority zero and generation zero.

    Raises:
        ValueError: `capacity` is not a whole number from 1 to `MAX_CAPACITY`.
    """
    valid = isinstance(capacity, int) and 1 <= capacity <= MAX_CAPACITY
    require(valid, "capacity", f"a whole number from 1 to {MAX_CAPACITY}", capacity)
    # Separate arrays: a buffer can be donated only once.
    stale, sanitised = (jnp.zeros((), jnp.int32) for _ in range(2))
    return SumTree(
        nodes=jnp.zeros(2 * _power_of_two(capacity), jnp.float32),
        generations=jnp.zeros(capacity, jnp.int32),
        max_priority=jnp.ones((), jnp.float32),
        stale=stale,
        sanitised=sanitised,
    )


def put(tree: SumTree, indices: Int[Array, "B"], priorities: Float[Array, "B"]) -> SumTree:
    """Set the priorities of new items: the generation of each slot is raised by one per occurrence."""
    more, slots = _inside(tree, indices).astype(jnp.int32), jnp.clip(indices, 0, tree.capacity - 1)
    generations = jax.lax.platform_dependent(
        tree.generations, slots, more, cpu=_add_in_turn, default=lambda counts, slots, more: counts.at[slots].add(more)
    )
    return set(tree.replace(generations=generations), indices, priorities)


def set(
    tree: SumTree,
    indices: Int[Array, "B"],
    priorities: Float[Array, "B"],
    generations: Int[Array, "B"] | None = None,
) -> SumTree:
    """Set the priorities of items that are there; with `generations`, only of slots that still hold that generation."""
    held = None if generations is None else tree.generations[jnp.where(_inside(tree, indices), indices, 0)]
    entries = (indices, priorities, generations, held)
    return jax.lax.platform_dependent(tree, entries, cpu=_write_in_turn, default=_write_by_level)


def retire(tree: SumTree, gone: Bool[Array, "capacity"]) -> SumTree:
    """End the items of the marked slots: priority zero, generation raised. Work O(capacity): for rare changes."""
    leaves = jnp.where(gone, 0.0, tree.priorities)
    level = jnp.pad(leaves, (0, tree.leaves - tree.capacity))
    levels = [level]
    while level.size > 1:
        level = level[0::2] + level[1::2]
        levels.append(level)
    return tree.replace(
        nodes=jnp.concatenate([jnp.zeros(1), *reversed(levels)]),
        generations=tree.generations + gone,
    )


def sample(tree: SumTree, uniforms: Float[Array, "B"]) -> tuple[Int[Array, "B"], Float[Array, "B"]]:
    """Return the slots i at the given quantiles u ∈ [0, 1], and their probabilities P(i) = p_i / Σ_j p_j.

        i = min{ i : Σ_{j ≤ i} p_j > u Σ_j p_j }

    up to rounding, and always with p_i > 0; slot 0 and P = 0 if every priority is zero. For strata, pass (k + u_k) / B.
    """
    return jax.lax.platform_dependent(tree.nodes, uniforms, cpu=_sample_on_cpu, default=_sample_together)


def _power_of_two(capacity: int) -> int:
    return 1 << (capacity - 1).bit_length()


def _inside(tree: SumTree, indices: Array) -> Array:
    return (indices >= 0) & (indices < tree.capacity)


def _add_in_turn(counts: Array, slots: Array, more: Array) -> Array:
    """Scatter-add one by one: XLA's CPU backend makes a scatter a pass over the whole array."""

    def add(counts: Array, entry: tuple[Array, Array]) -> tuple[Array, None]:
        slot, more = entry
        return counts.at[slot].add(more, mode="promise_in_bounds"), None

    return jax.lax.scan(add, counts, (slots, more))[0]


def _judge(tree: SumTree, entry: Entries) -> tuple[Array, ...]:
    """Return what to make of an entry or of a batch of them: leaf, value, accepted?, stale?, replaced?"""
    index, priority, generation, held = entry
    inside = _inside(tree, index)
    current = inside if generation is None else inside & (generation == held)
    valid = jnp.isfinite(priority) & (priority >= 0.0)
    clean = jnp.where(valid, priority, tree.max_priority)
    value = jnp.where(clean > 0.0, jnp.clip(clean, MIN_PRIORITY, MAX_PRIORITY), 0.0)
    return tree.leaves + index, value, current, inside & ~current, current & ~valid


def _depth(nodes: Array) -> int:
    return nodes.shape[-1].bit_length() - 2


def _at(nodes: Array, node: Array) -> Array:
    return nodes.at[node].get(mode="promise_in_bounds")


def _write_in_turn(tree: SumTree, entries: Entries) -> SumTree:
    """Write entry after entry, each with its ancestors.

    All that is done to an entry stands inside the loop, which XLA's CPU backend compiles into one function: reductions
    outside would cost more than the loop. Nothing may read the nodes but to write them, or the whole tree is copied;
    therefore a dropped entry does not rewrite its leaf, it climbs from node 0 to node 0.
    """

    def level(_: Array, climb: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        nodes, node, total = climb
        # The sum on the way up is carried, so that a level costs one load (the sibling) and one store.
        node, total = node >> 1, total + _at(nodes, node ^ 1)
        return nodes.at[node].set(total, mode="promise_in_bounds"), node, total

    def item(carry: tuple[Array, ...], entry: Entries) -> tuple[tuple[Array, ...], None]:
        nodes, top, stale, sanitised = carry
        leaf, value, accepted, late, replaced = _judge(tree, entry)
        leaf, value = jnp.where(accepted, leaf, 0), jnp.where(accepted, value, 0.0)
        nodes = nodes.at[leaf].set(value, mode="promise_in_bounds")
        nodes, _, _ = jax.lax.fori_loop(0, _depth(nodes), level, (nodes, leaf, value))
        return (nodes, jnp.maximum(top, value), stale + late, sanitised + replaced), None

    carry: tuple[Array, ...] = (tree.nodes, tree.max_priority, tree.stale, tree.sanitised)
    carry, _ = jax.lax.scan(item, carry, entries)
    nodes, top, stale, sanitised = carry
    return tree.replace(nodes=nodes, max_priority=top, stale=stale, sanitised=sanitised)


def _write_by_level(tree: SumTree, entries: Entries) -> SumTree:
    """Write all entries at once. Several writers of one parent write the same sum, so their order is free."""
    leaf, value, accepted, late, replaced = _judge(tree, entries)
    position = jnp.arange(leaf.size)
    later = accepted[None, :] & (position[None, :] > position[:, None])
    winner = accepted & ~jnp.any(later & (leaf[None, :] == leaf[:, None]), axis=1)
    outside = tree.nodes.shape[-1]
    nodes = tree.nodes.at[jnp.where(winner, leaf, outside)].set(value, mode="drop")
    for low in range(0, _depth(nodes), LEVELS_AT_ONCE):
        height = min(LEVELS_AT_ONCE, _depth(nodes) - low)
        place, sums = _subtrees(nodes, leaf >> (low + height), height)
        nodes = nodes.at[jnp.where(winner[:, None], place, outside)].set(sums, mode="drop")
    return tree.replace(
        nodes=nodes,
        max_priority=jnp.maximum(tree.max_priority, jnp.max(jnp.where(accepted, value, 0.0), initial=0.0)),
        stale=tree.stale + jnp.sum(late, dtype=jnp.int32),
        sanitised=tree.sanitised + jnp.sum(replaced, dtype=jnp.int32),
    )


def _subtrees(nodes: Array, roots: Array, height: int) -> tuple[Array, Array]:
    """Return nodes and sums of the subtrees at `roots`, made of the nodes `height` levels below: [B, 2^height − 1]."""
    roots = roots[:, None]
    sums, places, parents = nodes[(roots << height) + jnp.arange(1 << height)[None, :]], [], []
    for rise in reversed(range(height)):
        sums = sums[:, 0::2] + sums[:, 1::2]
        parents.append(sums)
        places.append((roots << rise) + jnp.arange(1 << rise)[None, :])
    return jnp.concatenate(places, axis=1), jnp.concatenate(parents, axis=1)


def _descend(nodes: Array, place: Place) -> Place:
    """Go to the child that holds the target, never to one that is zero while its sibling is not."""
    node, target, _ = place
    left, right = _at(nodes, 2 * node), _at(nodes, 2 * node + 1)
    goes_right = (right > 0.0) & ~((target < left) & (left > 0.0))
    rest, value = jnp.where(goes_right, target - left, target), jnp.where(goes_right, right, left)
    return 2 * node + goes_right, rest, value


def _sample_on_cpu(nodes: Array, uniforms: Array) -> tuple[Array, Array]:
    """Descend for one quantile after the other; for all together where there are enough to hide waiting for memory.

    Nothing is read from the nodes after the loop: XLA could not tell that it is read before the next write, and would
    copy the tree.
    """
    if uniforms.size > MAX_IN_TURN:
        return _sample_together(nodes, uniforms, unroll=False)
    return jax.lax.scan(lambda _, u: (None, _sample_together(nodes, u, unroll=False)), None, uniforms)[1]


def _sample_together(nodes: Array, uniforms: Array, unroll: bool = True) -> tuple[Array, Array]:
    """Descend level by level. Unrolled, the gathers of all levels may share a kernel."""
    total = jnp.broadcast_to(nodes[1], uniforms.shape)
    place = (jnp.ones(uniforms.shape, jnp.int32), jnp.clip(uniforms, 0.0, 1.0) * total, total)
    node, _, value = jax.lax.fori_loop(0, _depth(nodes), lambda _, at: _descend(nodes, at), place, unroll=unroll)
    return node - nodes.shape[-1] // 2, value / jnp.where(total > 0.0, total, 1.0)
