"""Recurrent networks over time, their memory cleared where an episode starts."""

import flax.linen as nn
from jaxtyping import Array, Bool, Float

from jaxrl_engine.core.types import PyTree


def unroll(module: nn.Module, params: PyTree, memory: PyTree, is_first: Bool[Array, "T B"], *inputs: PyTree) -> PyTree:
    """Apply a network of `nets.actor_critic` to inputs `[T, B, …]`; returns outputs `[T, B, …]`."""
    return module.apply(params, memory, *inputs, is_first)[1]


def unroll_with_next(
    critic: nn.Module,
    params: PyTree,
    memory: PyTree,
    is_first: Bool[Array, "T B"],
    observation: Float[Array, "..."],
    next_observation: Float[Array, "..."],
) -> tuple[Float[Array, "T B A"], Float[Array, "T B A"]]:
    """Values of each observation and of the true next one, the latter with the memory the former left behind."""
    memories, value = critic.apply(params, memory, observation, is_first)
    return value, critic.apply(params, memories, next_observation)[1]
