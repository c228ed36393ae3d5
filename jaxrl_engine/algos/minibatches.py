"""Shuffled minibatches of a rollout: by sample, or by whole environment where memory must be replayed in order."""

import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import PyTree

Learner = TypeVar("Learner")
Metrics = TypeVar("Metrics")


PACKED_LIMIT = 4096
"""Up to this many items an order is drawn by sorting single 32-bit words; beyond, their random part gets too short."""


class Minibatch(Struct):
    """`samples` is `[M, …]`; with memory, `[T, b, …]` for `b` environments and `memory` is theirs at the start."""

    samples: PyTree
    memory: PyTree  # [b, …], or None
    key: Key[Array, "*batch"]

    def split(self, parts: int) -> "Minibatch":
        """Cut into `parts` of equal size, stacked on a new leading axis; the key is consumed."""

        def cut(axis: int) -> Callable[[Array], Array]:
            def apply(leaf: Array) -> Array:
                shape = (*leaf.shape[:axis], parts, leaf.shape[axis] // parts, *leaf.shape[axis + 1 :])
                return jnp.moveaxis(leaf.reshape(shape), axis, 0)

            return apply

        return Minibatch(
            samples=jax.tree.map(cut(0 if self.memory is None else 1), self.samples),
            memory=jax.tree.map(cut(0), self.memory),
            key=jax.random.split(self.key, parts),
        )


def scan_minibatches(
    step: Callable[[Learner, Minibatch], tuple[Learner, Metrics]],
    learner: Learner,
    samples: PyTree,
    memory: PyTree,
    key: Key[Array, ""],
    *,
    num_epochs: int,
    num_minibatches: int,
    num_groups: int = 1,
) -> tuple[Learner, Metrics]:
    """Pass over samples `[T, B, …]` `num_epochs` times, each time in a fresh order, a gradient step per minibatch.

    Without memory all `T · B` samples are shuffled; with memory `[B, …]` whole environments are. Shuffling stays within
    `num_groups` equal groups of neighbouring environments (the most that divide them and a minibatch alike, if those
    are fewer), and each minibatch takes as many from every group: where the groups lie on different devices, no sample
    leaves its own. Returns the learner and the metrics stacked `[num_epochs · num_minibatches]`, in order. The key is
    consumed.
    """
    key_order, key_step = jax.random.split(key)
    num_steps, num_envs = jax.tree.leaves(samples)[0].shape[:2]
    count = num_steps * num_envs if memory is None else num_envs
    groups = math.gcd(num_groups, num_envs, count // num_minibatches)
    samples = jax.tree.map(lambda leaf: _in_groups(leaf, groups, flat=memory is None), samples)
    memory = jax.tree.map(lambda leaf: leaf.reshape(groups, -1, *leaf.shape[1:]), memory)
    orders = random_orders(key_order, num_epochs * groups, count // groups)
    orders = orders.reshape(num_epochs, groups, num_minibatches, -1)
    indices = jnp.moveaxis(orders, 1, 2).reshape(num_epochs * num_minibatches, groups, -1)
    keys = jax.random.split(key_step, num_epochs * num_minibatches)

    def take(index: Int[Array, "G m"], key: Key[Array, ""]) -> Minibatch:
        axis = 0 if memory is None else 1
        return Minibatch(
            samples=jax.tree.map(lambda leaf: _take(leaf, index, axis), samples),
            memory=jax.tree.map(lambda leaf: _take(leaf, index, 0), memory),
            key=key,
        )

    return jax.lax.scan(lambda learner, x: step(learner, take(*x)), learner, (indices, keys))


def _in_groups(leaf: Array, groups: int, *, flat: bool) -> Array:
    """`[T, B, …]` as `[G, T, B/G, …]`, or, flat, as `[G, T · B/G, …]`."""
    num_steps, num_envs, *rest = leaf.shape
    split = jnp.moveaxis(leaf.reshape(num_steps, groups, num_envs // groups, *rest), 1, 0)
    return split.reshape(groups, -1, *rest) if flat else split


def _take(leaf: Array, index: Int[Array, "G m"], axis: int) -> Array:
    """What each group's `index` picks along one of its axes, the groups' picks one after the other."""
    picked = jax.vmap(lambda group, own: jnp.take(group, own, axis=axis), out_axes=axis)(leaf, index)
    return picked.reshape(*picked.shape[:axis], -1, *picked.shape[axis + 2 :])


def random_orders(key: Key[Array, ""], num_orders: int, count: int) -> Int[Array, "num_orders count"]:
    """Draw independent random orders of `0 … count-1`. The key is consumed.

    A few thousand items are sorted as words whose high bits are random and whose low bits are the item: one array
    sorts about four times faster on a CPU than the pair of arrays `jax.random.permutation` sorts. Two items whose 20
    or more random bits agree keep their order, a bias below 10⁻⁶ per pair.
    """
    if count > PACKED_LIMIT:
        return jax.vmap(lambda key: jax.random.permutation(key, count))(jax.random.split(key, num_orders))
    low_bits = jnp.uint32((1 << (count - 1).bit_length()) - 1)
    words = jax.random.bits(key, (num_orders, count), jnp.uint32) & ~low_bits
    words = words | jnp.arange(count, dtype=jnp.uint32)[None]
    return (jnp.sort(words, axis=-1) & low_bits).astype(jnp.int32)
