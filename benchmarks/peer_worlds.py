"""Worlds of other libraries, stepped as their authors step them: random actions, their own automatic reset, one scan.

Those that are installed take part in `benchmarks.env_throughput` (`pip install jaxmarl pgx`; Brax comes with us).
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from benchmarks.fused import checksum
from jaxrl_engine.envs.chatter import without_chatter

Program = Callable[[Key[Array, ""], Array], Any]


def _scan(reset: Callable[[Array], Any], step: Callable[[Array, Any], tuple[Any, Any]], num_envs: int) -> Program:
    """`reset(keys [B])` starts, `step(key, state)` acts in all `B` worlds and returns the state and what is seen."""

    def run(key: Key[Array, ""], steps: Array) -> Any:
        key_reset, key_steps = jax.random.split(key)
        state = reset(jax.random.split(key_reset, num_envs))

        def advance(index: Array, carry: Any) -> Any:
            state, total = carry
            state, seen = step(jax.random.fold_in(key_steps, index), state)
            return state, total + checksum(seen)

        return jax.lax.fori_loop(0, steps, advance, (state, jnp.zeros(())))[1]

    return jax.jit(run)


def brax_world(name: str, num_envs: int) -> Program:
    """A Brax world behind the wrappers its own training uses."""
    with without_chatter():
        from brax import envs
        from brax.envs.wrappers import training

        env = training.wrap(envs.get_environment(name, backend="generalized"), episode_length=50)

    def reset(keys: Array) -> Any:
        return env.reset(jax.vmap(jax.random.key_data)(keys))

    def step(key: Array, state: Any) -> tuple[Any, Any]:
        state = env.step(state, jax.random.uniform(key, (num_envs, env.action_size), minval=-1.0))
        return state, (state.obs, state.reward)

    return _scan(reset, step, num_envs)


def jaxmarl_world(name: str, num_envs: int) -> Program:
    """A JaxMARL world by its own `step`, which resets."""
    import jaxmarl

    env = jaxmarl.make(name)

    def act(key: Array, state: Any) -> Any:
        key_act, key_step = jax.random.split(key)
        keys = jax.random.split(key_act, len(env.agents))
        actions = {agent: env.action_space(agent).sample(k) for agent, k in zip(env.agents, keys, strict=True)}
        observation, state, reward, _, _ = env.step(key_step, state, actions)
        return state, (observation, reward)

    def step(key: Array, state: Any) -> tuple[Any, Any]:
        return jax.vmap(act)(jax.random.split(key, num_envs), state)

    return _scan(lambda keys: jax.vmap(env.reset)(keys)[1], step, num_envs)


def pgx_world(name: str, num_envs: int) -> Program:
    """A Pgx game by its own automatic reset, legal moves drawn uniformly."""
    import pgx
    from pgx.experimental import auto_reset

    env = pgx.make(name)
    advance = auto_reset(env.step, env.init)

    def act(key: Array, state: Any) -> Any:
        key_act, key_step = jax.random.split(key)
        legal = jnp.log(state.legal_action_mask.astype(jnp.float32))
        state = advance(state, jax.random.categorical(key_act, legal), key_step)
        return state, (state.observation, state.legal_action_mask, state.rewards)

    def step(key: Array, state: Any) -> tuple[Any, Any]:
        return jax.vmap(act)(jax.random.split(key, num_envs), state)

    return _scan(jax.vmap(env.init), step, num_envs)


_FAMILIES = {"brax": brax_world, "jaxmarl": jaxmarl_world, "pgx": pgx_world}


def installed(world: str) -> bool:
    """Say whether the library of a world `library:name` is here."""
    return importlib.util.find_spec(world.partition(":")[0]) is not None


def program(world: str, num_envs: int) -> Program:
    """Return `(key, steps) -> checksum` for a world `library:name`."""
    family, _, name = world.partition(":")
    return _FAMILIES[family](name, num_envs)
