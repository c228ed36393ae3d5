"""A gated recurrent unit over whole sequences, with only the recurrence itself inside the scan.

The inputs of all steps are projected in one product before the scan. Going back, the scan passes on nothing but the
gradient of the memory; the gradient of the recurrent weights is one product over all steps after it, where automatic
differentiation would add up a product per step.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxrl_engine.nets.dense import Dense
from jaxrl_engine.nets.orthogonal import orthogonal


class GRU(nn.Module):
    """Sequences of `N` streams through one gated recurrent unit (Cho et al. 2014, reset gate after the product).

    r = σ(W_r x + U_r h),  u = σ(W_u x + U_u h),  c = tanh(W_c x + r (U_c h + b)),  h' = u h + (1 − u) c
    """

    width: int

    @nn.compact
    def __call__(
        self, memory: Float[Array, "N R"], is_first: Bool[Array, "T N"], x: Float[Array, "T N D"]
    ) -> Float[Array, "T N R"]:
        """Return the memory after every step; it is cleared before the steps that start an episode."""
        steps, streams, size = x.shape
        projected = Dense(3 * self.width, 1.0, name="input")(x.reshape(steps * streams, size))
        kernel = self.param("kernel", _orthogonal_gates, (self.width, 3 * self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        return recur(projected.reshape(steps, streams, -1), kernel, bias, memory, is_first)


def _orthogonal_gates(key: Array, shape: tuple[int, int]) -> Float[Array, "R gates"]:
    width = shape[0]
    each = [orthogonal()(part, (width, width)) for part in jax.random.split(key, 3)]
    return jnp.concatenate(each, axis=1)


@jax.custom_vjp
def recur(
    inputs: Float[Array, "T N gates"],
    kernel: Float[Array, "R gates"],
    bias: Float[Array, "R"],
    memory: Float[Array, "N R"],
    is_first: Bool[Array, "T N"],
) -> Float[Array, "T N R"]:
    """Memories after every step, from the projected inputs `[W_r x, W_u x, W_c x]` and `kernel = [U_r, U_u, U_c]`."""
    return _scan(inputs, kernel, bias, memory, is_first)[0]


def _scan(
    inputs: Array, kernel: Array, bias: Array, memory: Array, is_first: Array
) -> tuple[Float[Array, "T N R"], Float[Array, "T N saved"]]:
    def step(memory: Array, xs: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        x, first = xs
        before = jnp.where(first[:, None], 0.0, memory)
        from_memory = before @ kernel
        reset, keep = jnp.split(jax.nn.sigmoid(x[:, : 2 * width] + from_memory[:, : 2 * width]), 2, axis=1)
        recalled = from_memory[:, 2 * width :] + bias[None]
        candidate = jnp.tanh(x[:, 2 * width :] + reset * recalled)
        memory = candidate + keep * (before - candidate)
        return memory, (memory, jnp.concatenate([before, reset, keep, recalled, candidate], axis=1))

    width = memory.shape[1]
    if len(inputs) == 1:  # acting: a loop would cost more than the step
        _, (after, saved) = step(memory, (inputs[0], is_first[0]))
        return after[None], saved[None]
    return lax.scan(step, memory, (inputs, is_first))[1]


def _forward(
    inputs: Array, kernel: Array, bias: Array, memory: Array, is_first: Array
) -> tuple[Array, tuple[Array, ...]]:
    after, saved = _scan(inputs, kernel, bias, memory, is_first)
    return after, (saved, kernel, is_first)


def _backward(residuals: tuple[Array, ...], gradient: Float[Array, "T N R"]) -> tuple[Array | None, ...]:
    saved, kernel, is_first = residuals
    before, reset, keep, recalled, candidate = jnp.split(saved, 5, axis=2)
    # Each gate's gradient is that of the memory times a factor known beforehand.
    to_candidate = (1.0 - keep) * (1.0 - jnp.square(candidate))
    to_keep = (before - candidate) * keep * (1.0 - keep)
    to_reset = to_candidate * recalled * reset * (1.0 - reset)
    to_recalled = to_candidate * reset
    factors = jnp.concatenate([to_reset, to_keep, to_recalled], axis=2)
    backwards = kernel.T

    def step(later: Array, xs: tuple[Array, ...]) -> tuple[Array, Array]:
        gradient, factor, keep, first = xs
        total = gradient + later
        earlier = total * keep + (jnp.concatenate([total] * 3, axis=1) * factor) @ backwards
        return jnp.where(first[:, None], 0.0, earlier), total

    nothing = jnp.zeros_like(gradient[0])
    of_memory, total = lax.scan(step, nothing, (gradient, factors, keep, is_first), reverse=True)
    of_gates = jnp.concatenate([total] * 3, axis=2) * factors
    width = before.shape[2]
    rows = of_gates.reshape(-1, 3 * width)
    of_kernel = lax.platform_dependent(before.reshape(-1, width), rows, cpu=_product_on_cpu, default=_product)
    of_bias = rows[:, 2 * width :].sum(axis=0)
    of_inputs = jnp.concatenate([of_gates[..., : 2 * width], total * to_candidate], axis=2)
    return of_inputs, of_kernel, of_bias, of_memory, None


def _product(x: Array, gradient: Array) -> Array:
    return x.T @ gradient


def _product_on_cpu(x: Array, gradient: Array) -> Array:
    return lax.optimization_barrier(x.T) @ gradient  # see `nets.dense`


recur.defvjp(_forward, _backward)
