"""Actors in worlds outside JAX: a Python loop that feeds one compiled decision, and hands over the same chunks."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from jaxrl_engine.algos.chunks import cut_into_chunks, mask_width
from jaxrl_engine.algos.protocol import Acting
from jaxrl_engine.core.types import Chunk, Decision, EnvSpec, PyTree, TimeStep, TrainState, Trajectory, Transition
from jaxrl_engine.envs.host.environment import HostEnvironment
from jaxrl_engine.envs.host.protocol import HostStep, HostVectorEnv
from jaxrl_engine.envs.vector import Episodes
from jaxrl_engine.live.easel import Easel
from jaxrl_engine.modes.actor_learner.collector import Collected
from jaxrl_engine.modes.actor_learner.sitting import Sitting

Decide = Callable[..., tuple[Decision, PyTree]]
MAX_SEED = 2**31 - 2**16
"""Environment `i` of an actor is seeded with `i` more."""


class HostCollector:
    """`b` environments of a host world. Its state cannot be saved: the games run in other processes."""

    def __init__(self, decide: Decide, cut: Callable[[Trajectory], Chunk], world: HostVectorEnv, carry: PyTree,
                 num_steps: int, seed: int, sitting: Sitting | None = None) -> None:  # fmt: skip
        self.state = None
        self._decide, self._cut, self._world, self._sitting = decide, cut, world, sitting
        self._carry, self._num_steps = carry, num_steps
        self._seen = timestep_of(world.reset(seed))
        self._is_first: Any = np.ones(world.num_envs, bool)
        self._returns: Any = np.zeros(world.num_envs, np.float32)
        self._lengths: Any = np.zeros(world.num_envs, np.int32)

    def collect(self, behaviour: TrainState, key: Key[Array, ""]) -> Collected:
        """Step every environment `T` times. The key is consumed.

        Raises:
            HostWorldError: the world failed, died or hung.
        """
        begun, transitions, episodes = self._carry, [], []
        for number in range(self._num_steps):
            transition, ended = self._step(behaviour, key, number)
            transitions.append(transition)
            episodes.append(ended)
        steps, ended = (jax.tree.map(lambda *leaves: np.stack(leaves), *each) for each in (transitions, episodes))
        chunks = self._cut(Trajectory(transitions=steps, initial_carry=begun, last=self._seen))
        return jax.block_until_ready(Collected(chunks=chunks, episodes=ended))

    def close(self) -> None:
        self._world.close()

    def _step(self, behaviour: TrainState, key: Key[Array, ""], number: int) -> tuple[Transition, Episodes]:
        seen = self._seen
        decision, self._carry = self._decide(behaviour, self._carry, seen, key, np.int32(number))
        decided: Any = jax.device_get(decision)
        after: Any = self._world.step(decided.env_action)  # NumPy where JAX's arrays are usual
        done = after.done
        version: Any = np.broadcast_to(np.asarray(behaviour.policy_version), done.shape)
        self._returns += after.reward.mean(axis=-1)
        self._lengths += 1
        episodes = Episodes(
            ended=done, episode_return=self._returns.copy(), episode_length=self._lengths.copy(), metrics=after.metrics
        )
        transition = Transition(
            observation=seen.observation, global_state=seen.global_state, action_mask=seen.action_mask,
            action=decided.action, log_prob=decided.log_prob, reward=after.reward,
            terminated=after.terminated, truncated=after.truncated, final_observation=after.final_observation,
            final_global_state=after.final_global_state, is_first=self._is_first,
            policy_version=version, extras=decided.extras,
        )  # fmt: skip
        self._returns[done], self._lengths[done] = 0.0, 0
        self._is_first, self._seen = done, timestep_of(after)
        if self._sitting is not None:
            self._sitting.after(episodes)
        return transition, episodes


def timestep_of(step: HostStep) -> TimeStep:
    """What a policy sees after a step, the flags being those of the step."""
    names = (field.name for field in dataclasses.fields(TimeStep))
    shared: dict[str, Any] = {name: getattr(step, name) for name in names}
    return TimeStep(**shared)


class HostSource:
    """Worlds outside JAX: a decision is one compiled program."""

    def __init__(
        self, algorithm: Acting, env: HostEnvironment, num_envs: int, num_steps: int, easel: Easel | None = None
    ) -> None:
        self.algorithm, self.env, self.num_envs, self.num_steps = algorithm, env, num_envs, num_steps
        self.easel = easel  # of the collectors that begin from now on

    def decide(
        self, behaviour: TrainState, carry: PyTree, seen: TimeStep, key: Key[Array, ""], number: Int[Array, ""]
    ) -> tuple[Decision, PyTree]:
        """Act at one step; to be compiled. It draws from a key made of the rollout's and the step's number."""
        noise = self.algorithm.noise(jax.random.fold_in(key, number), self.num_envs)
        return self.algorithm.act(behaviour, carry, seen, noise)

    def example(self, behaviour: TrainState) -> Chunk:
        return jax.eval_shape(cut_into_chunks, self._trajectory(behaviour))

    def compile(self, behaviour: TrainState) -> None:
        arguments = (behaviour, self._carry(), shown(self.env.spec, self.num_envs), jax.random.key(0), np.int32(0))
        self._decide = jax.jit(self.decide).lower(*arguments).compile()
        self._cut = jax.jit(cut_into_chunks).lower(self._trajectory(behaviour)).compile()

    def begin(self, key: Key[Array, ""], actor: int = 0) -> HostCollector:
        """Return a collector at the start of new episodes, for the actor of this number. The key is consumed."""
        seed = int(jax.random.randint(key, (), 0, MAX_SEED))
        carry = jax.tree.map(np.asarray, self.algorithm.initial_carry(self.num_envs))
        world = self.env.make(self.num_envs)
        sitting = None if self.easel is None else Sitting(self.easel, actor, world)
        return HostCollector(self._decide, self._cut, world, carry, self.num_steps, seed, sitting)

    def _carry(self) -> PyTree:
        return jax.eval_shape(lambda: self.algorithm.initial_carry(self.num_envs))

    def _trajectory(self, behaviour: TrainState) -> Trajectory:
        """The shapes of a rollout."""
        seen, number = shown(self.env.spec, self.num_envs), np.int32(0)
        decision = jax.eval_shape(self.decide, behaviour, self._carry(), seen, jax.random.key(0), number)[0]
        flags: Any = seen.terminated
        count: Any = jax.ShapeDtypeStruct((self.num_envs,), jnp.int32)
        step = Transition(
            observation=seen.observation, global_state=seen.global_state, action_mask=seen.action_mask,
            action=decision.action, log_prob=decision.log_prob, reward=seen.reward, terminated=flags, truncated=flags,
            final_observation=seen.observation, final_global_state=seen.global_state, is_first=flags,
            policy_version=count, extras=decision.extras,
        )  # fmt: skip
        steps = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((self.num_steps, *leaf.shape), leaf.dtype), step)
        return Trajectory(transitions=steps, initial_carry=self._carry(), last=seen)


def shown(spec: EnvSpec, num_envs: int) -> TimeStep:
    """The shapes of what `num_envs` environments show."""

    def array(shape: tuple[int, ...], dtype: Any) -> Any:
        return jax.ShapeDtypeStruct((num_envs, *shape), dtype)

    agents, flag = spec.num_agents, array((), jnp.bool_)
    return TimeStep(
        observation=array((agents, *spec.observation.shape), spec.observation.dtype),
        global_state=array(spec.global_state.shape, spec.global_state.dtype),
        action_mask=array((agents, mask_width(spec)), jnp.bool_) if spec.masks_actions else None,
        reward=array((agents,), jnp.float32), terminated=flag, truncated=flag,
        metrics={name: array((), jnp.float32) for name in spec.metric_names},
    )  # fmt: skip
