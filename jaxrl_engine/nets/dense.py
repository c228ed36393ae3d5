"""A fully connected layer whose backward pass suits the backend.

XLA's CPU backend is slow at two products that automatic differentiation asks for: `xᵀ g` with `x` transposed on the
fly, and the same with a handful of outputs. On 256 samples, 64 inputs and one core of an AVX-512 CPU, per product:

    weights, 64 outputs   33 µs → 26 µs with the transpose written out first
    weights, 2 outputs    23 µs →  7 µs as sums of columns
    bias, 64 outputs       6 µs →  4 µs as a product with ones

Other backends keep the products as they are. The results agree up to the order of summation.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxrl_engine.nets.orthogonal import orthogonal

FEW_OUTPUTS = 4


class Dense(nn.Module):
    """`x W + b` with orthogonal `W` of the given gain and zero `b` (Engstrom et al. 2020, §3); float32 parameters."""

    width: int
    scale: float
    compute_dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "samples D"]) -> Float[Array, "samples H"]:
        kernel = self.param("kernel", orthogonal(self.scale), (x.shape[-1], self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        dtype = jnp.dtype(self.compute_dtype)
        return affine(x.astype(dtype), kernel.astype(dtype), bias.astype(dtype))


@jax.custom_vjp
def affine(
    x: Float[Array, "samples D"], kernel: Float[Array, "D H"], bias: Float[Array, "H"]
) -> Float[Array, "samples H"]:
    """y = x W + b."""
    return x @ kernel + bias[None]


def _forward(x: Array, kernel: Array, bias: Array) -> tuple[Array, tuple[Array, Array]]:
    return affine(x, kernel, bias), (x, kernel)


def _backward(saved: tuple[Array, Array], gradient: Float[Array, "samples H"]) -> tuple[Array, Array, Array]:
    x, kernel = saved
    kernel_gradient, bias_gradient = lax.platform_dependent(x, gradient, cpu=_sums_on_cpu, default=_sums)
    return gradient @ kernel.T, kernel_gradient, bias_gradient


def _sums(x: Float[Array, "samples D"], gradient: Float[Array, "samples H"]) -> tuple[Array, Array]:
    return x.T @ gradient, gradient.sum(axis=0)


def _sums_on_cpu(x: Float[Array, "samples D"], gradient: Float[Array, "samples H"]) -> tuple[Array, Array]:
    bias = (jnp.ones((1, gradient.shape[0]), gradient.dtype) @ gradient)[0]
    if gradient.shape[1] <= FEW_OUTPUTS:
        columns = [(x * gradient[:, index, None]).sum(axis=0) for index in range(gradient.shape[1])]
        return jnp.stack(columns, axis=1), bias
    # Without the barrier the transpose is folded back into the product.
    return lax.optimization_barrier(x.T) @ gradient, bias


affine.defvjp(_forward, _backward)
