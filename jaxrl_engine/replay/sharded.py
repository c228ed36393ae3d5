"""Prioritised replay in G shards, each a ring and a sum tree of its own, that together mean what one tree means.

A buffer is that of `prioritised` with the shard axis G before everything: items `[G, N/G, …]`, trees `[G, …]`. Where a
device holds whole shards, nothing but G sums and the chunks that were drawn ever leaves it; what is computed depends on
G, never on how many devices there are.

**What is drawn, and its weight.** A batch of K takes K/G draws from each shard, stratified within it (a mixture of G
strata of fixed size). With p_i the priority^α of item i of shard g, t_g the sum over its shard and t = Σ_g t_g, one
tree over everything would draw i with P_i = p_i / t (Schaul et al. 2016, arXiv:1511.05952, §3.3), but here one draw,
averaged over the G' shards that are not empty, finds it with q_i = p_i / (G' t_g). Therefore

    c_i = P_i / q_i = G' t_g / t,    w_i = c_i (N_valid P_i)^−β / max_batch (N_valid P)^−β,

and before the maximum is divided by, for every β and every f,

    E_q[w f] = Σ_i q_i (P_i / q_i) (N_valid P_i)^−β f_i = Σ_i P_i (N_valid P_i)^−β f_i,

what one tree has (§3.4). β interpolates how much of the *priorities* is undone; that they were drawn shard by shard is
undone wholly, by the first power of c. The correction is ours. The draws of an empty shard have weight 0.

How one shard's function becomes that of all is an argument, `over_shards`: `jax.vmap`, or who spreads shards over
devices. Everything is pure; nothing here knows of devices.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxrl_engine.core.checks import require
from jaxrl_engine.core.types import PyTree
from jaxrl_engine.replay import prioritised
from jaxrl_engine.replay.prioritised import ReplayBuffer, Sample, Version

OverShards: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]
"""From a function of one shard to that of all, every argument and result leading with the shard axis."""


@dataclasses.dataclass(frozen=True)
class ShardedReplay:
    """The verbs of `prioritised`, on `num_shards` shards.

    Rows of a batch are dealt in turn: the first K/G belong to shard 0. An index names a slot among all N: that of
    shard g, slot s is g N/G + s.

    Raises:
        ValueError: `num_shards` is not a whole number >= 1.
    """

    num_shards: int  # G
    over_shards: OverShards = jax.vmap

    def __post_init__(self) -> None:
        valid = isinstance(self.num_shards, int) and self.num_shards >= 1
        require(valid, "num_shards", "a whole number >= 1", self.num_shards)

    def init(
        self, example: PyTree, capacity: int, alpha: float = 0.6, max_lag: int | None = None,
        max_reuse: int | None = None,
    ) -> ReplayBuffer:  # fmt: skip
        """Return an empty buffer of `capacity` chunks in all; leaves lead with `[G]`.

        Raises:
            ValueError: a setting is out of its range, or the capacity is no multiple of G.
        """
        each = self._share(capacity, "capacity")
        one = prioritised.init(example, each, alpha, max_lag, max_reuse)
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (self.num_shards, *leaf.shape)), one)

    def insert(
        self, buffer: ReplayBuffer, chunks: PyTree, priorities: Float[Array, "K"] | None,
        versions: Int[Array, "K"] | Version,
    ) -> ReplayBuffer:  # fmt: skip
        """Write K chunks (leaves `[K, *leaf.shape]`), K/G over the oldest of each shard.

        Without priorities the chunks get the largest their shard has seen.

        Raises:
            ValueError: K is no multiple of G, or more than there is room for; the chunks are of another kind.
        """
        count = jax.tree.leaves(chunks)[0].shape[0]
        self._share(count, "number of chunks")
        versions = jnp.broadcast_to(jnp.asarray(versions, jnp.int32), (count,))
        return self.over_shards(prioritised.insert)(buffer, *self._deal((chunks, priorities, versions)))

    def sample(
        self, buffer: ReplayBuffer, key: Key[Array, ""], batch: int, version: Version
    ) -> tuple[ReplayBuffer, Sample]:
        """Draw `batch` chunks, as many from each shard, and count the use; probabilities and correction as above.

        The key is consumed.

        Raises:
            ValueError: `batch` is no multiple of G.
        """
        self._share(batch, "batch")
        uniforms = self._deal(jax.random.uniform(key, (batch,)))
        now = jnp.broadcast_to(jnp.asarray(version, jnp.int32), (self.num_shards,))
        buffer, drawn, totals = self.over_shards(_sample_one)(buffer, uniforms, now)
        share = totals / jnp.maximum(totals.sum(), jnp.finfo(jnp.float32).tiny)  # [G] t_g / t
        first = jnp.arange(self.num_shards) * buffer.capacity
        drawn = drawn.replace(
            indices=drawn.indices + first[:, None],
            probabilities=drawn.probabilities * share[:, None],
            correction=drawn.correction * ((totals > 0.0).sum() * share)[:, None],
        )
        return buffer, self._gather(drawn)

    def update_priorities(
        self, buffer: ReplayBuffer, indices: Int[Array, "K"], generations: Int[Array, "K"],
        priorities: Float[Array, "K"],
    ) -> ReplayBuffer:  # fmt: skip
        """Set the priorities of chunks that are still there, in the order in which `sample` drew them.

        An index out of its shard's rows is ignored, as one outside the buffer is.
        """
        first = jnp.arange(self.num_shards) * buffer.capacity
        indices, generations, priorities = self._deal((indices, generations, priorities))
        return self.over_shards(prioritised.update_priorities)(
            buffer, indices - first[:, None], generations, priorities
        )

    def _share(self, count: int, name: str) -> int:
        require(count % self.num_shards == 0, name, f"a multiple of the {self.num_shards} shards", count)
        return count // self.num_shards

    def _deal(self, rows: PyTree) -> PyTree:
        """From leaves `[K, …]` to `[G, K/G, …]`."""
        return jax.tree.map(lambda leaf: leaf.reshape(self.num_shards, -1, *leaf.shape[1:]), rows)

    def _gather(self, rows: PyTree) -> PyTree:
        """From leaves `[G, K/G, …]` to `[K, …]`."""
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), rows)


def _sample_one(
    buffer: ReplayBuffer, uniforms: Float[Array, "K"], version: Int[Array, ""]
) -> tuple[ReplayBuffer, Sample, Float[Array, ""]]:
    """A shard's draws, and the sum t_g they were drawn from."""
    buffer = prioritised.expire(buffer, version)
    total = buffer.tree.total
    buffer, drawn = prioritised.draw(buffer, uniforms, version)
    return buffer, drawn, total
