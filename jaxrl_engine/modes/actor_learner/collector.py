"""Who steps the worlds for the async mode, behind one small interface.

A collector belongs to one actor. It knows nothing of threads, queues or learners: it is given a policy and a key, and
gives back chunks. Whoever else can do that (a process, a node of a cluster) can take the threads' place.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
from jaxtyping import Array, Key

from jaxrl_engine.algos.chunks import cut_into_chunks
from jaxrl_engine.algos.protocol import Acting
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Chunk, PyTree, TrainState
from jaxrl_engine.envs.protocol import Environment
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


@runtime_checkable
class Source(Protocol):
    """Where an actor's collector comes from: everything that is compiled once and shared by all actors."""

    def example(self, behaviour: TrainState) -> Chunk:
        """Return the shapes of one rollout's chunks `[b, …]`."""

    def compile(self, behaviour: TrainState) -> None:
        """Compile what collectors run, for parameters of these shapes."""

    def begin(self, key: Key[Array, ""], actor: int = 0) -> Collector:
        """Return a collector at the start of new episodes, for the actor of this number. The key is consumed."""


class JaxSource:
    """Worlds in JAX: a rollout is one compiled program."""

    def __init__(
        self, algorithm: Acting, env: Environment[Any, Any], env_params: PyTree, num_envs: int, num_steps: int
    ) -> None:
        self.algorithm, self.env_params, self.num_steps = algorithm, env_params, num_steps
        self.vector_env = VectorEnv(env, num_envs)

    def start(self, key: Key[Array, ""]) -> ActorState:
        """Begin episodes. The key is consumed."""
        return start(self.algorithm, self.vector_env, key, self.env_params)

    def rollout(self, behaviour: TrainState, state: ActorState, key: Key[Array, ""]) -> tuple[ActorState, Collected]:
        """Step every environment `T` times; to be compiled. The key is consumed."""
        state, trajectory, episodes = rollout(
            self.algorithm, self.vector_env, behaviour, state, key, self.env_params, self.num_steps
        )
        return state, Collected(chunks=cut_into_chunks(trajectory), episodes=episodes)

    def example(self, behaviour: TrainState) -> Chunk:
        key = jax.random.key(0)
        return jax.eval_shape(self.rollout, behaviour, jax.eval_shape(self.start, key), key)[1].chunks

    def compile(self, behaviour: TrainState) -> None:
        key = jax.random.key(0)
        state = jax.eval_shape(self.start, key)
        self._rollout = jax.jit(self.rollout).lower(behaviour, state, key).compile()
        self._start = jax.jit(self.start).lower(key).compile()

    def begin(self, key: Key[Array, ""], actor: int = 0) -> JaxCollector:
        """Return a collector at the start of new episodes: the same for every actor. The key is consumed."""
        return JaxCollector(self._rollout, self._start(key))

    def go_on(self, state: ActorState) -> JaxCollector:
        """Return a collector that goes on from a saved state."""
        return JaxCollector(self._rollout, state)
