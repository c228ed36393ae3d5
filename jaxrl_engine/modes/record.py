"""What a saved policy does, step by step, for those who want to look at it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_engine.core.types import PyTree, TimeStep
from jaxrl_engine.envs.reacher.env import TOLERANCE, Reacher
from jaxrl_engine.modes.policy import SavedPolicy
from jaxrl_engine.runtime.drawing import Film


def film_arms(policy: SavedPolicy, count: int, seed: int = 0) -> Film | None:
    """Play one greedy episode with each of `count` arms; None where the world has no arm to show."""
    env = policy.built.env
    if not isinstance(env, Reacher):
        return None
    states, _ = play_episode(policy, count, env.episode_length, seed)
    joints = np.asarray(jax.vmap(jax.vmap(env.link_positions))(states))
    target = np.asarray(states.target)
    distance = np.linalg.norm(joints[:, :, -1] - target, axis=-1)
    return Film(
        joints=joints, target=target, reached=distance <= TOLERANCE * env.total_length, reach=env.total_length * 1.05
    )


def play_episode(policy: SavedPolicy, count: int, num_steps: int, seed: int) -> tuple[PyTree, TimeStep]:
    """Act greedily for `num_steps` steps in `count` worlds; returns states and time steps `[T + 1, B, …]`.

    Nothing is reset on the way: ask for no more steps than an episode has.
    """
    built = policy.built
    reset = jax.vmap(built.env.reset, in_axes=(0, None))
    step = jax.vmap(built.env.step, in_axes=(0, 0, 0, None))

    @jax.jit
    def run(key: jax.Array) -> tuple[PyTree, TimeStep]:
        key_reset, key_step = jax.random.split(key)
        begin = reset(jax.random.split(key_reset, count), built.env_params)

        def one(loop: tuple[Any, TimeStep, PyTree], key: jax.Array) -> tuple[Any, tuple[Any, TimeStep]]:
            state, seen, memory = loop
            action, memory = policy(seen, memory)
            state, seen = step(jax.random.split(key, count), state, action, built.env_params)
            return (state, seen, memory), (state, seen)

        _, rest = jax.lax.scan(one, (*begin, policy.memory(count)), jax.random.split(key_step, num_steps))
        return jax.tree.map(lambda first, later: jnp.concatenate([first[None], later]), begin, rest)

    return run(jax.random.key(seed))
