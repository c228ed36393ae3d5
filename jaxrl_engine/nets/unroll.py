"""Recurrent networks over time, their memory cleared where an episode starts."""

import flax.linen as nn
import jax
from jaxtyping import Array, Bool, Float

from jaxrl_engine.core.types import PyTree
from jaxrl_engine.nets.actor_critic import clear_memory


def unroll(module: nn.Module, params: PyTree, memory: PyTree, is_first: Bool[Array, "T B"], *inputs: PyTree) -> PyTree:
    """Apply a network `(memory, *inputs) -> (memory, output)` to inputs `[T, B, …]`; returns outputs `[T, B, …]`."""

    def step(memory: PyTree, xs: tuple[Array, tuple[PyTree, ...]]) -> tuple[PyTree, PyTree]:
        first, inputs = xs
        return module.apply(params, clear_memory(memory, first), *inputs)

    return jax.lax.scan(step, memory, (is_first, inputs))[1]


def unroll_with_next(
    critic: nn.Module,
    params: PyTree,
    memory: PyTree,
    is_first: Bool[Array, "T B"],
    observation: Float[Array, "..."],
    next_observation: Float[Array, "..."],
) -> tuple[Float[Array, "T B A"], Float[Array, "T B A"]]:
    """Values of each observation and of the true next one, the latter with the memory the former left behind."""

    def step(memory: PyTree, xs: tuple[Array, Array, Array]) -> tuple[PyTree, tuple[Array, Array]]:
        first, here, after = xs
        memory, value = critic.apply(params, clear_memory(memory, first), here)
        _, next_value = critic.apply(params, memory, after)
        return memory, (value, next_value)

    return jax.lax.scan(step, memory, (is_first, observation, next_observation))[1]
