"""Choosing between batches of anything, row by row."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jaxrl_engine.core.types import PyTree


def where_rows(condition: Bool[Array, "B"], yes: PyTree, no: PyTree) -> PyTree:
    """Return leaf by leaf the rows of `yes` where the condition holds, else those of `no`.

    All leaves lead with `B`; any rank is accepted, and typed keys are.
    """

    def choose(a: Array, b: Array) -> Array:
        if a is b:
            return a
        return jnp.where(condition.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, yes, no)
