"""Decisions that hold for many steps: their rewards and advantages, and how to learn from the few rows that matter.

A decision made at step t is in force until the step before the next one. Its interval closes when the coordinator
decides anew, when the episode ends, or at the end of the rollout. On the grid `[T, B]` decisions are masked entries.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import PyTree

Total = TypeVar("Total")


def decision_gae(
    reward: Float[Array, "T"],
    decided: Bool[Array, "T"],
    value: Float[Array, "T"],
    last_value: Float[Array, ""],
    end_value: Float[Array, "T"],
    done: Bool[Array, "T"],
    gamma: Float[Array, ""] | float,
    gae_lambda: Float[Array, ""] | float,
) -> tuple[Float[Array, "T"], Float[Array, "T"]]:
    """Advantages and undiscounted interval returns of one stream, meaningful where `decided`.

    R_j = Σ r_t over the interval,  δ_j = R_j + γ V'_j − V_j,  A_j = δ_j + γ λ (1 − done_j) A_{j+1},  0 after the last

    V'_j is the value of the next decision; or `end_value` of the step that ended the episode (`done`): 0 after
    termination, that of the true final observation after truncation; or `last_value` where the rollout ends first. The
    discount is per decision, however long it held. Rewards before the first decision belong to none.
    Source: Yang et al. 2023, §4.2, with the published code's discount.
    """

    def step(after: PyTree, now: PyTree) -> tuple[PyTree, tuple[Array, Array]]:
        earned, following, advantage = after
        reward, decided, value, end, done = now
        earned = reward + jnp.where(done, 0.0, earned)
        following = jnp.where(done, end, following)
        advantage = jnp.where(done, 0.0, advantage)
        here = earned + gamma * following - value + gamma * gae_lambda * advantage
        carried = (
            jnp.where(decided, 0.0, earned), jnp.where(decided, value, following), jnp.where(decided, here, advantage),
        )  # fmt: skip
        return carried, (here, earned)

    nothing = jnp.zeros((), value.dtype)
    rows = (reward, decided, value, end_value, done)
    return jax.lax.scan(step, (nothing, last_value, nothing), rows, reverse=True)[1]


def normalize_where(values: Float[Array, "T B tokens"], mask: Bool[Array, "T B"]) -> Float[Array, "T B tokens"]:
    """Zero mean and unit population deviation over the entries of the mask; 0 elsewhere."""
    weight = jnp.broadcast_to(mask[..., None], values.shape).astype(values.dtype)
    count = jnp.maximum(weight.sum(), 1.0)
    centred = jnp.where(weight > 0.0, values - (weight * values).sum() / count, 0.0)
    return centred / jnp.sqrt(jnp.square(centred).sum() / count + 1e-16)


class Rows(Struct):
    """The marked entries of a grid `[T, B]` as numbers of its flattened rows, in blocks of one static size.

    Only as many blocks are worked on as hold marked rows: the cost follows the count, nothing is ever left out.
    """

    index: Int[Array, "blocks size"]  # marked rows first; beyond `count`, unmarked ones, and 0 where none are left
    count: Int[Array, ""]

    @property
    def size(self) -> int:
        return self.index.shape[1]

    def fold(self, step: Callable[[Int[Array, "size"], Float[Array, "size"], Total], Total], start: Total) -> Total:
        """Apply `(rows, their weights 1 or 0, total) -> total` to each block that holds marked rows."""

        def body(block: Int[Array, ""] | int, total: Total) -> Total:
            place = block * self.size + jnp.arange(self.size)
            return step(self.index[block], (place < self.count).astype(jnp.float32), total)

        return jax.lax.fori_loop(0, -(-self.count // self.size), body, start)


def marked_rows(mask: Bool[Array, "T B"], size: int) -> Rows:
    """Gather the marked entries of a grid into blocks of `size`."""
    flat = mask.reshape(-1)
    order = jnp.argsort(~flat, stable=True).astype(jnp.int32)
    blocks = -(-flat.size // size)
    padded = jnp.pad(order, (0, blocks * size - flat.size))
    return Rows(index=padded.reshape(blocks, size), count=flat.sum().astype(jnp.int32))
