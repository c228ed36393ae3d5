"""Ways of acting that are not training's: greedily, or uniformly at random."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxrl_engine.algos.protocol import Acting
from jaxrl_engine.core.spaces import ActionSpace
from jaxrl_engine.core.types import Decision, PyTree, TimeStep, TrainState
from jaxrl_engine.modes.evaluate import uniform_action


@dataclasses.dataclass(frozen=True)
class Greedy:
    """An algorithm that always takes its most likely action; see `algos.protocol.Acting`."""

    algorithm: Acting

    def init(self, key: Key[Array, ""], hyper: PyTree) -> TrainState:
        return self.algorithm.init(key, hyper)

    def initial_carry(self, num_envs: int) -> PyTree:
        return self.algorithm.initial_carry(num_envs)

    def noise(self, key: Key[Array, ""], num_envs: int) -> tuple[()]:
        return ()

    def act(self, train_state: TrainState, carry: PyTree, timestep: TimeStep, noise: Any) -> tuple[Decision, PyTree]:
        return self.algorithm.act(train_state, carry, timestep, None)


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Allowed actions, all alike; it learns nothing and remembers nothing; see `algos.protocol.Acting`."""

    space: ActionSpace

    def init(self, key: Key[Array, ""], hyper: PyTree) -> TrainState:
        zero = jnp.zeros((), jnp.int32)
        return TrainState(
            params=(), optimizer=(), statistics=(), hyper=hyper, policy_version=zero, skipped_updates=zero,
            skipped_in_a_row=zero,
        )  # fmt: skip

    def initial_carry(self, num_envs: int) -> tuple[()]:
        return ()

    def noise(self, key: Key[Array, ""], num_envs: int) -> Key[Array, ""]:
        return key

    def act(self, train_state: TrainState, carry: PyTree, timestep: TimeStep, noise: Any) -> tuple[Decision, PyTree]:
        action = uniform_action(self.space, timestep, noise)
        return Decision(env_action=action, action=action, log_prob=jnp.zeros(timestep.reward.shape), extras=()), carry
