"""Orthogonal starting weights that many seeds may draw in one program.

A batched QR of the CPU backend hands its matrices to the pool of threads it itself runs on and waits for them. Two
of them at a time, on two threads, wait for ever. One matrix is factored where it stands, so a batch is taken one by
one (`jax.custom_batching.sequential_vmap`): a cost of microseconds, once per run.
"""

import flax.linen as nn
from jax.custom_batching import sequential_vmap
from jaxtyping import Array, Float, Key


def orthogonal(scale: float = 1.0) -> nn.initializers.Initializer:
    """W with orthonormal rows or columns, times `scale` (Saxe et al. 2014); `vmap` over keys factors one at a time."""
    draw = nn.initializers.orthogonal(scale)

    def initializer(key: Key[Array, ""], shape: tuple[int, ...], *_: object) -> Float[Array, "..."]:
        @sequential_vmap
        def one(key: Key[Array, ""]) -> Float[Array, "..."]:
            return draw(key, shape)

        return one(key)

    return initializer
