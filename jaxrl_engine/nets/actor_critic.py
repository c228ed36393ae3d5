"""Actor and critic: torso, an optional recurrent layer (GRU) whose memory is cleared where an episode starts, head."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxrl_engine.core.config import NetworkConfig
from jaxrl_engine.core.spaces import ActionSpace, Tokens
from jaxrl_engine.core.types import PyTree
from jaxrl_engine.nets.bodies import BodyActor, BodyCritic
from jaxrl_engine.nets.dense import Dense
from jaxrl_engine.nets.gru import GRU
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
    """A policy: `(memory, observation, action mask) -> (memory, distribution over actions)`.

    With `is_first` `[T, B]` the inputs are sequences `[T, B, …]`: the memory, cleared where an episode starts, goes on
    from step to step, and what comes back is the memory after every one, `[T, B, …]`. `tokens` is the observation's
    layout, for the torsos that read a body: these take the motors a body has from its tokens, not from the mask.
    """

    config: NetworkConfig
    observation_shape: tuple[int, ...]
    action: ActionSpace
    tokens: Tokens | None = None

    @nn.compact
    def __call__(
        self,
        carry: PyTree,
        observation: Float[Array, "..."],
        mask: Bool[Array, "*batch n"] | None,
        is_first: Bool[Array, "T B"] | None = None,
    ) -> tuple[PyTree, Distribution]:
        if self.config.sees_bodies:
            return carry, BodyActor(self.config, self.tokens, self.action)(observation)
        shape = self.observation_shape
        of_cells = takes_pairs(self.config, shape, self.action)
        carry, features, batch = _features(self.config, shape, carry, observation, is_first, of_cells)
        return carry, make_head(self.config, shape, self.action)(features, mask, batch)


class Critic(nn.Module):
    """A state-value function: `(memory, observation) -> (memory, value [*batch])`; the rest as for `Actor`."""

    config: NetworkConfig
    observation_shape: tuple[int, ...]
    tokens: Tokens | None = None

    @nn.compact
    def __call__(
        self, carry: PyTree, observation: Float[Array, "..."], is_first: Bool[Array, "T B"] | None = None
    ) -> tuple[PyTree, Float[Array, "*batch"]]:
        if self.config.sees_bodies:
            return carry, BodyCritic(self.config, self.tokens)(observation)
        carry, features, batch = _features(self.config, self.observation_shape, carry, observation, is_first)
        return carry, Dense(1, 1.0, name="value")(features).reshape(batch)


class CentralCritic(nn.Module):
    """One value per agent from the global state: `(memory, state [*batch, *shape]) -> (memory, values [*batch, A])`.

    Every agent's value comes from the same weights; a one-hot vector of its index, appended to the state's last axis,
    lets the values differ where agents are rewarded apart. Source: Yu et al. 2022, arXiv:2103.01955, §5.2.
    """

    config: NetworkConfig
    state_shape: tuple[int, ...]
    num_agents: int

    @nn.compact
    def __call__(
        self, carry: PyTree, state: Float[Array, "..."], is_first: Bool[Array, "T B"] | None = None
    ) -> tuple[PyTree, Float[Array, "*batch A"]]:
        *axes, width = self.state_shape
        batch = state.shape[: state.ndim - len(self.state_shape)]
        shared = jnp.broadcast_to(jnp.expand_dims(state, len(batch)), (*batch, self.num_agents, *axes, width))
        index = jnp.eye(self.num_agents).reshape(self.num_agents, *[1] * len(axes), self.num_agents)
        index = jnp.broadcast_to(index, (*shared.shape[:-1], self.num_agents))
        seen = jnp.concatenate([shared, index], axis=-1)
        return Critic(self.config, (*axes, width + self.num_agents), name="shared")(carry, seen, is_first)


def _features(
    config: NetworkConfig,
    observation_shape: tuple[int, ...],
    carry: PyTree,
    observation: Float[Array, "..."],
    is_first: Bool[Array, "T B"] | None,
    of_cells: bool = False,
) -> tuple[PyTree, Float[Array, "samples H"], tuple[int, ...]]:
    """Torso and recurrence over `[*batch, *observation_shape]`; returns the memory, the features and `batch`.

    The batch axes become one before the first layer: a matrix product with several of them is a quarter slower on a
    CPU, forwards and backwards. Only the recurrence itself goes step by step.
    """
    batch = observation.shape[: observation.ndim - len(observation_shape)]
    torso = make_torso(config, observation_shape, of_cells)
    features = torso(observation.reshape(-1, *observation_shape)).astype(jnp.float32)
    if config.recurrent == "none":
        return carry, features, batch
    memory = carry.reshape(-1, carry.shape[-1])
    sequence = features.reshape(-1, *memory.shape[:1], features.shape[-1])
    first = jnp.zeros(sequence.shape[:2], bool)
    if is_first is not None:
        per_stream = is_first.reshape(is_first.shape + (1,) * (len(batch) - is_first.ndim))
        first = jnp.broadcast_to(per_stream, batch).reshape(first.shape)
    memories = GRU(config.recurrent_size)(memory, first, sequence)
    return memories.reshape(*batch, -1), memories.reshape(features.shape[0], -1), batch
