"""Who steps the worlds for the async mode, behind one small interface.

A collector belongs to one actor. It knows nothing of threads, queues or learners: it is given a policy and a key, and
gives back chunks. Whoever else can do that (a process, a node of a cluster) can take the threads' place.
"""

from collections.abc import Callable
from typing import Protocol, TypeAlias, runtime_checkable

import jax
from jaxtyping import Array, Key

from jaxrl_engine.algos.chunks import cut_into_chunks
from jaxrl_engine.algos.protocol import Acting
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Chunk, PyTree, TrainState
from jaxrl_engine.envs.vector import Episodes, VectorEnv
from jaxrl_engine.modes.rollout import ActorState, rollout, start

Rollout: TypeAlias = Callable[[TrainState, PyTree, Key[Array, ""]], tuple[PyTree, "Collected"]]


class Collected(Struct):
    """`T` steps of `b` environments under one set of parameters."""

    chunks: Chunk  # [b, …]
    episodes: Episodes  # [T, b]


@runtime_checkable
class Collector(Protocol):
    """The environments of one actor.

    `state` is all that a later call depends on beside its arguments, as a pytree; None where it cannot be saved (a game
    in another process). Assigning it goes on from there.
    """

    state: PyTree

    def collect(self, behaviour: TrainState, key: Key[Array, ""]) -> Collected:
        """Step every environment `T` times under `behaviour`, which has no optimiser. The key is consumed."""

    def close(self) -> None:
        """Free what the environments hold; safe to call twice."""


class JaxCollector:
    """Worlds in JAX: a compiled rollout, shared by all actors; its state is that of the environments."""

    def __init__(self, compiled: Rollout, state: ActorState) -> None:
        self.state = state
        self._compiled = compiled

    def collect(self, behaviour: TrainState, key: Key[Array, ""]) -> Collected:
        self.state, collected = self._compiled(behaviour, self.state, key)
        return jax.block_until_ready(collected)

    def close(self) -> None:
        """Nothing is held."""


def jax_rollout(algorithm: Acting, vector_env: VectorEnv, env_params: PyTree, num_steps: int) -> Rollout:
    """Return the rollout `(behaviour, state, key) -> (state, collected)` of one actor, to be compiled."""

    def collect(behaviour: TrainState, state: ActorState, key: Key[Array, ""]) -> tuple[ActorState, Collected]:
        state, trajectory, episodes = rollout(algorithm, vector_env, behaviour, state, key, env_params, num_steps)
        return state, Collected(chunks=cut_into_chunks(trajectory), episodes=episodes)

    return collect


def jax_start(algorithm: Acting, vector_env: VectorEnv, env_params: PyTree) -> Callable[[Key[Array, ""]], ActorState]:
    """Return the function `key -> state` that begins an actor's episodes, to be compiled."""
    return lambda key: start(algorithm, vector_env, key, env_params)
