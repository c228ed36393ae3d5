"""A convolutional layer whose backward pass suits the backend.

Inside a compiled loop XLA's CPU backend takes a slow path for the gradient of a convolution's kernel. On 1,024 images
of 10 × 10 × 4, a 3 × 3 kernel and 16 outputs, two cores: 142 ms a gradient, 7 ms as a product with the image's patches.
Where the image is small beside the kernel, one product of whole images with the convolution's own matrix is faster
still, though it multiplies zeros: on 1,792 images of 9 × 9 × 4 with 16 outputs a gradient takes 29 ms by it, but by
patches 67 ms for a 5 × 5 kernel and 192 ms for a 9 × 9 one. Other backends keep their own convolution. The results
agree up to the order of summation.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxrl_engine.nets.dense import affine
from jaxrl_engine.nets.orthogonal import orthogonal

ZEROS_WORTH_MULTIPLYING = 80
"""Up to this many times the kernel's area, output places times output channels are computed as one matrix product.

On two cores the product was the faster up to 72 and the slower from 89 on, for images of 9 × 9 to 20 × 20.
"""


class Conv(nn.Module):
    """`size × size` convolution at every `stride`-th pixel; orthogonal kernel of the given gain, zero bias.

    The image is framed with zeros so that `⌈height / stride⌉ × ⌈width / stride⌉` places remain.
    """

    width: int
    scale: float
    size: int = 3
    stride: int = 1
    compute_dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "samples height width C"]) -> Float[Array, "samples rows columns H"]:
        shape = (self.size, self.size, x.shape[-1], self.width)
        kernel = self.param("kernel", orthogonal(self.scale), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        dtype = jnp.dtype(self.compute_dtype)
        operands = (x.astype(dtype), kernel.astype(dtype), bias.astype(dtype))
        return suited(self.stride, *operands)


def convolve(
    stride: int,
    x: Float[Array, "samples height width C"],
    kernel: Float[Array, "size size C H"],
    bias: Float[Array, "H"],
) -> Float[Array, "samples rows columns H"]:
    """y[i, j] = b + Σ_{di, dj} x[s i + di, s j + dj] W[di, dj], zero outside the image."""
    layout = ("NHWC", "HWIO", "NHWC")
    strides = (stride, stride)
    return lax.conv_general_dilated(x, kernel, strides, "SAME", dimension_numbers=layout) + bias[None, None, None]


def convolve_by_patches(
    stride: int,
    x: Float[Array, "samples height width C"],
    kernel: Float[Array, "size size C H"],
    bias: Float[Array, "H"],
) -> Float[Array, "samples rows columns H"]:
    """`convolve` as one matrix product: each place's `size² C` neighbours times the flattened kernel."""
    samples, *sides, channels = x.shape
    size, outputs = kernel.shape[0], kernel.shape[-1]
    rows, columns = (-(-side // stride) for side in sides)
    padded = jnp.pad(x, ((0, 0), *lax.padtype_to_pads(sides, (size, size), (stride, stride), "SAME"), (0, 0)))
    ends = (stride * (rows - 1) + 1, stride * (columns - 1) + 1)
    shifts = [padded[:, i : i + ends[0] : stride, j : j + ends[1] : stride] for i in range(size) for j in range(size)]
    patches = jnp.concatenate(shifts, axis=-1).reshape(-1, size * size * channels)
    return affine(patches, kernel.reshape(-1, outputs), bias).reshape(samples, rows, columns, outputs)


def convolve_by_matrix(
    stride: int,
    x: Float[Array, "samples height width C"],
    kernel: Float[Array, "size size C H"],
    bias: Float[Array, "H"],
) -> Float[Array, "samples rows columns H"]:
    """`convolve` as the product of flattened images and the matrix `[height · width · C, rows · columns · H]`."""
    samples, *sides, _ = x.shape
    size, outputs = kernel.shape[0], kernel.shape[-1]
    padding = lax.padtype_to_pads(sides, (size, size), (stride, stride), "SAME")
    down, across = (_reach(side, size, stride, before) for side, (before, _) in zip(sides, padding, strict=True))
    rows, columns = down.shape[1], across.shape[1]
    by_row = jnp.einsum("hrk,klco->hrlco", down, kernel)
    matrix = jnp.einsum("wsl,hrlco->hwcrso", across, by_row).reshape(-1, rows * columns * outputs)
    return (x.reshape(samples, -1) @ matrix).reshape(samples, rows, columns, outputs) + bias[None, None, None]


def _reach(side: int, size: int, stride: int, before: int) -> Float[np.ndarray, "side places size"]:
    """1 where a pixel of one axis, seen from a place of the result, lies at that entry of the kernel."""
    entry = np.arange(side)[:, None] - stride * np.arange(-(-side // stride))[None] + before
    return (entry[..., None] == np.arange(size)).astype(np.float32)


def convolve_on_cpu(
    stride: int,
    x: Float[Array, "samples height width C"],
    kernel: Float[Array, "size size C H"],
    bias: Float[Array, "H"],
) -> Float[Array, "samples rows columns H"]:
    """`convolve` as whichever product is cheaper."""
    places = -(-x.shape[1] // stride) * -(-x.shape[2] // stride)
    by_matrix = places * kernel.shape[-1] <= ZEROS_WORTH_MULTIPLYING * kernel.shape[0] ** 2
    return (convolve_by_matrix if by_matrix else convolve_by_patches)(stride, x, kernel, bias)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def suited(stride: int, x: Array, kernel: Array, bias: Array) -> Array:
    """`convolve` in the way that suits the backend, forward and backward.

    The choice is made apart in each direction: differentiating through it would carry both ways' residuals.
    """
    cpu, default = (functools.partial(function, stride) for function in (convolve_on_cpu, convolve))
    return lax.platform_dependent(x, kernel, bias, cpu=cpu, default=default)


def _forward(stride: int, x: Array, kernel: Array, bias: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return suited(stride, x, kernel, bias), (x, kernel, bias)


def _backward(stride: int, operands: tuple[Array, Array, Array], gradient: Array) -> tuple[Array, Array, Array]:
    def pull(function: Callable[..., Array]) -> Callable[..., tuple[Array, Array, Array]]:
        return lambda gradient, *operands: jax.vjp(functools.partial(function, stride), *operands)[1](gradient)

    cpu, default = pull(convolve_on_cpu), pull(convolve)
    return lax.platform_dependent(gradient, *operands, cpu=cpu, default=default)


suited.defvjp(_forward, _backward)
