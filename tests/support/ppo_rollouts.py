"""Rollouts of PPO on random observations and rewards."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_engine.algos.ppo import PPO
from jaxrl_engine.core.config import NetworkConfig, PPOConfig
from jaxrl_engine.core.spaces import Box, Discrete
from jaxrl_engine.core.types import EnvSpec, TimeStep, Trajectory, Transition

T, B, A, D = 5, 6, 2, 3
DISCRETE = Discrete(7)
BOUNDED = Box.uniform((2,), -1.0, 3.0)


def make(action=DISCRETE, config=PPOConfig(), **network) -> PPO:
    everything = Box.uniform((D,), -np.inf, np.inf)
    joint = Box.uniform((A * D,), -np.inf, np.inf)
    spec = EnvSpec(name="made-up", num_agents=A, observation=everything, global_state=joint, action=action)
    return PPO(spec=spec, config=config, network=NetworkConfig(hidden_sizes=(11, 13), **network))


@functools.partial(jax.jit, static_argnums=0)
def make_trajectory(ppo: PPO, state, key, truncated=None) -> Trajectory:
    """Random observations and rewards, actions drawn by the policy itself step by step (memory included)."""
    key_seen, key_final, key_reward, key_act = jax.random.split(key, 4)
    observation = jax.random.normal(key_seen, (T + 1, B, A, D))
    final = jax.random.normal(key_final, (T, B, A, D))
    reward = jax.random.normal(key_reward, (T, B, A))
    terminated = jnp.zeros((T, B), bool)
    truncated = terminated if truncated is None else truncated
    done = terminated | truncated
    is_first = jnp.concatenate([jnp.zeros((1, B), bool), done[:-1]])
    final = jnp.where(done[..., None, None], final, observation[1:])
    start = ppo.initial_carry(B)

    def act(carry, x):
        decision, carry = ppo.act(state, carry, timestep(x[0], x[1]), x[2])
        return carry, decision

    noise = jax.vmap(ppo.noise, in_axes=(0, None))(jax.random.split(key_act, T), B)
    _, decided = jax.lax.scan(act, start, (observation[:-1], is_first, noise))
    steps = Transition(
        observation=observation[:-1], global_state=observation[:-1].reshape(T, B, -1), action_mask=None,
        action=decided.action, log_prob=decided.log_prob, reward=reward, terminated=terminated, truncated=truncated,
        final_observation=final, final_global_state=final.reshape(T, B, -1), is_first=is_first,
        policy_version=jnp.zeros((T, B), jnp.int32), extras=decided.extras,
    )  # fmt: skip
    return Trajectory(transitions=steps, initial_carry=start, last=timestep(observation[-1], done[-1]))


def timestep(observation, done, reward=None) -> TimeStep:
    return TimeStep(
        observation=observation, global_state=observation.reshape(B, -1), action_mask=None,
        reward=jnp.zeros((B, A)) if reward is None else reward, terminated=done, truncated=jnp.zeros(B, bool),
        metrics={},
    )  # fmt: skip
