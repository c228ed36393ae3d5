"""Actor and critic: torso, an optional recurrent layer (GRU) whose memory is cleared where an episode starts, head."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxrl_engine.core.config import NetworkConfig
from jaxrl_engine.core.spaces import ActionSpace
from jaxrl_engine.core.types import PyTree
from jaxrl_engine.nets.dense import Dense
from jaxrl_engine.nets.heads import make_head, takes_pairs
from jaxrl_engine.nets.torsos import make_torso
from jaxrl_engine.ops.distributions import Distribution


def initial_memory(config: NetworkConfig, batch: tuple[int, ...]) -> PyTree:
    """The memory `[*batch, R]` of a network at the start of an episode (empty without recurrence)."""
    return () if config.recurrent == "none" else jnp.zeros((*batch, config.recurrent_size))


def clear_memory(carry: PyTree, is_first: Bool[Array, "*batch"]) -> PyTree:
    """Zero the memory `[*batch, …]` where an episode starts."""

    def clear(leaf: Array) -> Array:
        return jnp.where(is_first.reshape(is_first.shape + (1,) * (leaf.ndim - is_first.ndim)), 0.0, leaf)

    return jax.tree.map(clear, carry)


class Actor(nn.Module):
    """A policy: `(memory, observation, action mask) -> (memory, distribution over actions)`."""

    config: NetworkConfig
    observation_shape: tuple[int, ...]
    action: ActionSpace

    @nn.compact
    def __call__(
        self, carry: PyTree, observation: Float[Array, "..."], mask: Bool[Array, "*batch n"] | None
    ) -> tuple[PyTree, Distribution]:
        shape = self.observation_shape
        of_cells = takes_pairs(self.config, shape, self.action)
        carry, features, batch = _features(self.config, shape, carry, observation, of_cells)
        return carry, make_head(self.config, shape, self.action)(features, mask, batch)


class Critic(nn.Module):
    """A state-value function: `(memory, observation) -> (memory, value [*batch])`."""

    config: NetworkConfig
    observation_shape: tuple[int, ...]

    @nn.compact
    def __call__(self, carry: PyTree, observation: Float[Array, "..."]) -> tuple[PyTree, Float[Array, "*batch"]]:
        carry, features, batch = _features(self.config, self.observation_shape, carry, observation)
        return carry, Dense(1, 1.0, name="value")(features).reshape(batch)


def _features(
    config: NetworkConfig,
    observation_shape: tuple[int, ...],
    carry: PyTree,
    observation: Float[Array, "..."],
    of_cells: bool = False,
) -> tuple[PyTree, Float[Array, "samples H"], tuple[int, ...]]:
    """Torso and recurrence over `[*batch, *observation_shape]`; returns the memory, the features and `batch`.

    The batch axes become one before the first layer: a matrix product with several of them is a quarter slower on a
    CPU, forwards and backwards.
    """
    batch = observation.shape[: observation.ndim - len(observation_shape)]
    features = make_torso(config, observation_shape, of_cells)(observation.reshape(-1, *observation_shape))
    if config.recurrent == "none":
        return carry, features.astype(jnp.float32), batch
    memory = carry.reshape(-1, carry.shape[-1])
    memory, features = nn.GRUCell(config.recurrent_size)(memory, features.astype(jnp.float32))
    return memory.reshape(carry.shape), features, batch
