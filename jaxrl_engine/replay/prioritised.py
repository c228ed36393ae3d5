"""Prioritised replay of chunks: a ring of pytrees, each leaf in its own type, sampled by a sum tree.

A chunk is whatever one item is: usually `T` steps of one environment. After Schaul et al. 2016 (arXiv:1511.05952), with
what an asynchronous learner needs besides: a late priority never lands on a newer chunk, chunks too many learner
versions old are not sampled (`max_lag`), and no chunk is part of more than `max_reuse` batches.

The exponent α is applied here and nowhere else, by `_leaf`: callers speak of plain priorities, the tree holds p^α. With
α = 0 replay is uniform: every leaf is 1, whatever the priorities, and every weight is 1.

Everything is pure: jit with the buffer donated, or every call copies it.
"""

from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxrl_engine.core.checks import require
from jaxrl_engine.core.struct import Struct, static_field
from jaxrl_engine.core.types import Leaf, PyTree
from jaxrl_engine.replay import sum_tree
from jaxrl_engine.replay.sum_tree import SumTree

Scalar: TypeAlias = Float[Array, ""] | float
Version: TypeAlias = Int[Array, ""] | int


class ReplayBuffer(Struct):
    """A ring of N chunks."""

    items: PyTree  # leaves [N, *leaf.shape]
    tree: SumTree  # capacity N, leaves p^α
    versions: Int[Leaf, "*batch N"]  # learner version each chunk was collected with
    uses: Int[Leaf, "*batch N"]  # batches each chunk has been part of
    position: Int[Leaf, "*batch"]  # slot that is written next
    size: Int[Leaf, "*batch"]  # slots that have been written
    expired_by_age: Int[Leaf, "*batch"]  # chunks taken out because they were older than `max_lag`
    expired_by_reuse: Int[Leaf, "*batch"]  # chunks taken out after `max_reuse` batches
    alpha: float = static_field()
    max_lag: int | None = static_field()  # learner versions; None: no limit
    max_reuse: int | None = static_field()  # batches; None: no limit

    @property
    def capacity(self) -> int:  # N
        return self.tree.capacity

    @property
    def eligible(self) -> Int[Array, "*batch"]:
        """Chunks that can be sampled."""
        return self.tree.eligible


class Sample(Struct):
    """K chunks drawn from a buffer; `indices` and `generations` together name them in `update_priorities`."""

    items: PyTree  # leaves [K, *leaf.shape]
    indices: Int[Leaf, "*batch K"]
    generations: Int[Leaf, "*batch K"]
    probabilities: Float[Leaf, "*batch K"]  # P of one draw from all there is; 0 where there was nothing to sample
    correction: Float[Leaf, "*batch K"]  # P over the probability it was drawn with; 1 where that is P
    ages: Int[Leaf, "*batch K"]  # learner versions since collection


def init(
    example: PyTree, capacity: int, alpha: float = 0.6, max_lag: int | None = None, max_reuse: int | None = None
) -> ReplayBuffer:
    """Return an empty buffer of `capacity` chunks like `example` (arrays or `ShapeDtypeStruct`s; values are not used).

    Raises:
        ValueError: a setting is out of its range.
    """
    _check_settings(alpha, max_lag, max_reuse)
    tree = sum_tree.init(capacity)

    def allocate(leaf: Leaf) -> Array:
        return jnp.zeros((capacity, *leaf.shape), jax.dtypes.canonicalize_dtype(leaf.dtype))

    versions, uses = (jnp.zeros(capacity, jnp.int32) for _ in range(2))
    position, size, by_age, by_reuse = (jnp.zeros((), jnp.int32) for _ in range(4))
    return ReplayBuffer(
        items=jax.tree.map(allocate, example),
        tree=tree,
        versions=versions,
        uses=uses,
        position=position,
        size=size,
        expired_by_age=by_age,
        expired_by_reuse=by_reuse,
        alpha=float(alpha),
        max_lag=max_lag,
        max_reuse=max_reuse,
    )


def insert(
    buffer: ReplayBuffer,
    chunks: PyTree,
    priorities: Float[Array, "K"] | None,
    versions: Int[Array, "K"] | Version,
) -> ReplayBuffer:
    """Write K chunks (leaves `[K, *leaf.shape]`) over the oldest, 1 <= K <= N.

    Without priorities the chunks get the largest seen so far. `versions` is the learner version that acted in them.

    Raises:
        ValueError: the chunks are not what the buffer was made for, or more than it holds.
    """
    count = _checked_count(buffer, chunks)
    slots = (buffer.position + jnp.arange(count)) % buffer.capacity
    leaves = jnp.full(count, buffer.tree.max_priority) if priorities is None else _leaf(priorities, buffer.alpha)
    rows = (chunks, jnp.broadcast_to(jnp.asarray(versions, jnp.int32), (count,)), jnp.zeros(count, jnp.int32))
    items, versions, uses = _write((buffer.items, buffer.versions, buffer.uses), rows, slots)
    return buffer.replace(
        items=items,
        tree=sum_tree.put(buffer.tree, slots, leaves),
        versions=versions,
        uses=uses,
        position=(buffer.position + count) % buffer.capacity,
        size=jnp.minimum(buffer.size + count, buffer.capacity),
    )


def sample(buffer: ReplayBuffer, key: Key[Array, ""], batch: int, version: Version) -> tuple[ReplayBuffer, Sample]:
    """Draw `batch` chunks, one from each of as many equal strata of the priorities, and count the use.

        P(i) = p_i^α / Σ_j p_j^α

    A chunk drawn several times in one batch is used once. `version` is the learner's now; chunks older than `max_lag`
    leave first. With nothing to sample (`buffer.tree.total` is 0) probabilities are 0. The key is consumed.

    Source: Schaul et al. 2016, arXiv:1511.05952, §3.3.
    """
    version = jnp.asarray(version, jnp.int32)
    return draw(expire(buffer, version), jax.random.uniform(key, (batch,)), version)


def draw(buffer: ReplayBuffer, uniforms: Float[Array, "K"], version: Int[Array, ""]) -> tuple[ReplayBuffer, Sample]:
    """Draw a chunk from each of K equal strata of the priorities, at the given place in [0, 1) within it."""
    strata = (jnp.arange(uniforms.size) + uniforms) / uniforms.size
    indices, probabilities = sum_tree.sample(buffer.tree, strata)
    drawn = Sample(
        items=jax.tree.map(lambda ring: ring[indices], buffer.items),
        indices=indices,
        generations=buffer.tree.generations[indices],
        probabilities=probabilities,
        correction=jnp.ones(uniforms.size),
        ages=version - buffer.versions[indices],
    )
    return _count_use(buffer, indices, probabilities > 0.0), drawn


def expire(buffer: ReplayBuffer, version: Int[Array, ""]) -> ReplayBuffer:
    """Take out the chunks that are more than `max_lag` learner versions older than `version`, and count them."""
    if buffer.max_lag is None:
        return buffer
    gone = (version - buffer.versions > buffer.max_lag) & (buffer.tree.priorities > 0.0)
    count = jnp.sum(gone, dtype=jnp.int32)
    tree = jax.lax.cond(count > 0, lambda tree: sum_tree.retire(tree, gone), lambda tree: tree, buffer.tree)
    return buffer.replace(tree=tree, expired_by_age=buffer.expired_by_age + count)


def importance_weights(drawn: Sample, beta: Scalar) -> Float[Array, "K"]:
    """What corrects a batch for how it was drawn, at most the correction; 0 where the probability is 0.

        w_i = c_i (N_valid P(i))^−β / max_batch (N_valid P)^−β = c_i (min_batch P / P(i))^β

    The correction c is not a matter of β, which says how much of the priorities is undone, nor of the maximum, which
    would else depend on the shards.

    Source: Schaul et al. 2016, arXiv:1511.05952, §3.4, where c = 1.
    """
    positive = drawn.probabilities > 0.0
    smallest = jnp.min(drawn.probabilities, where=positive, initial=1.0)
    share = (smallest / jnp.where(positive, drawn.probabilities, 1.0)) ** beta
    return jnp.where(positive, drawn.correction * share, 0.0)


def update_priorities(
    buffer: ReplayBuffer, indices: Int[Array, "K"], generations: Int[Array, "K"], priorities: Float[Array, "K"]
) -> ReplayBuffer:
    """Set the priorities of chunks that are still there. Those that left stay out; the last of duplicates wins."""
    if buffer.max_reuse is not None:
        indices = jnp.where(buffer.uses[indices] < buffer.max_reuse, indices, -1)
    tree = sum_tree.set(buffer.tree, indices, _leaf(priorities, buffer.alpha), generations)
    return buffer.replace(tree=tree)


def anneal_beta(step: Int[Array, ""] | int, steps: int, start: float = 0.4) -> Float[Array, ""]:
    """β from `start` at step 0 linearly to 1 at `steps`, and 1 from there on. Source: Schaul et al. 2016, §3.4."""
    return start + (1.0 - start) * jnp.clip(jnp.asarray(step, jnp.float32) / steps, 0.0, 1.0)


def _check_settings(alpha: float, max_lag: int | None, max_reuse: int | None) -> None:
    valid = isinstance(alpha, int | float) and 0.0 <= alpha <= 1.0
    require(valid, "alpha", "a number from 0 to 1", alpha)
    for name, low, value in (("max_lag", 0, max_lag), ("max_reuse", 1, max_reuse)):
        valid = value is None or (isinstance(value, int) and value >= low)
        require(valid, name, f"None or a whole number >= {low}", value)


def _checked_count(buffer: ReplayBuffer, chunks: PyTree) -> int:
    """Return K; nothing is cast or reshaped silently."""
    rings, given = (jax.tree_util.tree_flatten_with_path(tree)[0] for tree in (buffer.items, chunks))
    require([path for path, _ in rings] == [path for path, _ in given], "chunks", "of the example's structure", chunks)
    count = given[0][1].shape[0]
    for (path, ring), (_, rows) in zip(rings, given, strict=True):
        expected = (count, *ring.shape[1:]), ring.dtype
        found = tuple(rows.shape), jax.dtypes.canonicalize_dtype(rows.dtype)
        require(found == expected, f"chunks{jax.tree_util.keystr(path)}", f"of shape and type {expected}", found)
    require(1 <= count <= buffer.capacity, "number of chunks", f"from 1 to the capacity {buffer.capacity}", count)
    return count


def _leaf(priorities: Array, alpha: float) -> Array:
    """p^α; for α = 0 that is 1 whatever p is, NaN included."""
    return priorities**alpha


def _write(rings: PyTree, rows: PyTree, slots: Array) -> PyTree:
    """Write row after row, or all at once where the platform can."""
    return jax.lax.platform_dependent(rings, rows, slots, cpu=_write_in_turn, default=_write_together)


def _write_in_turn(rings: PyTree, rows: PyTree, slots: Array) -> PyTree:
    """Write chunk after chunk: on a CPU one small loop, where a scatter may pass over the whole ring."""

    def write(rings: PyTree, entry: tuple[PyTree, Array]) -> tuple[PyTree, None]:
        row, slot = entry
        rings = jax.tree.map(lambda ring, leaf: jax.lax.dynamic_update_index_in_dim(ring, leaf, slot, 0), rings, row)
        return rings, None

    return jax.lax.scan(write, rings, (rows, slots))[0]


def _write_together(rings: PyTree, rows: PyTree, slots: Array) -> PyTree:
    return jax.tree.map(lambda ring, leaf: ring.at[slots].set(leaf), rings, rows)


def _count_use(buffer: ReplayBuffer, indices: Array, drawn: Array) -> ReplayBuffer:
    # Duplicates all write the same number, so a batch counts once.
    uses = _write(buffer.uses, buffer.uses[indices] + drawn, indices)
    if buffer.max_reuse is None:
        return buffer.replace(uses=uses)
    spent = uses >= buffer.max_reuse
    newly = jnp.sum(spent & (buffer.uses < buffer.max_reuse), dtype=jnp.int32)
    tree = sum_tree.set(buffer.tree, jnp.where(spent[indices], indices, -1), jnp.zeros(indices.shape))
    return buffer.replace(uses=uses, tree=tree, expired_by_reuse=buffer.expired_by_reuse + newly)
