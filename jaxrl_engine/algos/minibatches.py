"""Shuffled minibatches of a rollout: by sample, or by whole environment where memory must be replayed in order."""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import PyTree

Learner = TypeVar("Learner")
Metrics = TypeVar("Metrics")


PACKED_LIMIT = 4096
"""Up to this many items an order is drawn by sorting single 32-bit words; beyond, their random part gets too short."""


class Passes(NamedTuple):
    """How often samples are learned from, in how many parts each time, and how they are shuffled."""

    epochs: int
    minibatches: int
    groups: int = 1


class Minibatch(Struct):
    """`samples` is `[M, …]`; with memory, `[T, b, …]` for `b` environments and `memory` is theirs at the start."""

    samples: PyTree
    memory: PyTree  # [b, …], or None
    key: Key[Array, "*batch"]
    beforehand: PyTree = None  # [M, …] or [T, b, …]: what was computed of the samples before the first step

    def split(self, parts: int) -> "Minibatch":
        """Cut into `parts` of equal size, stacked on a new leading axis; the key is consumed."""

        def cut(axis: int) -> Callable[[Array], Array]:
            def apply(leaf: Array) -> Array:
                shape = (*leaf.shape[:axis], parts, leaf.shape[axis] // parts, *leaf.shape[axis + 1 :])
                return jnp.moveaxis(leaf.reshape(shape), axis, 0)

            return apply

        of_samples = cut(0 if self.memory is None else 1)
        return Minibatch(
            samples=jax.tree.map(of_samples, self.samples),
            memory=jax.tree.map(cut(0), self.memory),
            key=jax.random.split(self.key, parts),
            beforehand=jax.tree.map(of_samples, self.beforehand),
        )


def scan_minibatches(
    step: Callable[[Learner, Minibatch], tuple[Learner, Metrics]],
    learner: Learner,
    samples: PyTree,
    memory: PyTree,
    key: Key[Array, ""],
    passes: Passes,
    beforehand: Callable[[PyTree], PyTree] = lambda samples: None,
) -> tuple[Learner, Metrics]:
    """Pass over samples `[T, B, …]`, each time in a fresh order, taking a gradient step per minibatch.

    Without memory all `T · B` samples are shuffled; with memory `[B, …]` whole environments are. Shuffling stays within
    `passes.groups` equal groups of neighbouring environments (the most that divide them and a minibatch alike, if those
    are fewer), and each minibatch takes as many from every group: where the groups lie on different devices, no sample
    leaves its own. `beforehand` is computed of the samples of all minibatches before the first step: where it needs
    every device, they meet for it once, and not in every step. Returns the learner and the metrics stacked
    `[epochs · minibatches]`, in order. The key is consumed.
    """
    epochs, minibatches = passes.epochs, passes.minibatches
    key_order, key_step = jax.random.split(key)
    num_steps, num_envs = jax.tree.leaves(samples)[0].shape[:2]
    count = num_steps * num_envs if memory is None else num_envs
    groups = math.gcd(passes.groups, num_envs, count // minibatches)
    samples = jax.tree.map(lambda leaf: _in_groups(leaf, groups, flat=memory is None), samples)
    memory = jax.tree.map(lambda leaf: leaf.reshape(groups, -1, *leaf.shape[1:]), memory)
    orders = random_orders(key_order, epochs * groups, count // groups)
    orders = orders.reshape(epochs, groups, minibatches, -1)
    indices = jnp.moveaxis(orders, 1, 2).reshape(epochs * minibatches, groups, -1)
    keys = jax.random.split(key_step, epochs * minibatches)

    def take(index: Int[Array, "G m"]) -> PyTree:
        return jax.tree.map(lambda leaf: _take(leaf, index, 0 if memory is None else 1), samples)

    def take_and_step(learner: Learner, x: tuple[Array, Array, PyTree]) -> tuple[Learner, Metrics]:
        index, key, known = x
        memories = jax.tree.map(lambda leaf: _take(leaf, index, 0), memory)
        return step(learner, Minibatch(samples=take(index), memory=memories, key=key, beforehand=known))

    known = jax.vmap(lambda index: beforehand(take(index)))(indices)
    return jax.lax.scan(take_and_step, learner, (indices, keys, known))


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
