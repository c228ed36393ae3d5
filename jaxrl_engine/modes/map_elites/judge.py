"""How well bodies do under a policy: every body on the same targets, all of them in one batch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxrl_engine.core.types import PyTree
from jaxrl_engine.envs.protocol import Embodied
from jaxrl_engine.envs.vector import VectorEnv, VectorState
from jaxrl_engine.modes.evaluate import EpisodeResults, Policy, play_out
from jaxrl_engine.qd.arms import Arms, mask


def embody(env: Embodied, arms: Arms) -> PyTree:
    """Return the world's parameters `[n, …]` for arms `[n]`."""
    return jax.vmap(lambda arm: env.embody(arm.lengths, mask(arm), arm.thickness, arm.gear))(arms)


def judge(
    policy: Policy, memory: Callable[[int], PyTree], env: Embodied, key: Key[Array, ""], arms: Arms, episodes: int
) -> EpisodeResults:
    """Play `episodes` episodes with each of `n` bodies; returns results `[n, episodes]`.

    Starts and targets come from the same keys for all bodies (common random numbers), and the same key gives the same
    ones again: what differs is the body. The key is consumed.
    """
    bodies = embody(env, arms)
    count = arms.count.shape[0]
    key_starts, key_play = jax.random.split(key)
    starts = jax.random.split(key_starts, episodes)
    reset = jax.vmap(jax.vmap(env.reset, in_axes=(0, None)), in_axes=(None, 0))
    state, timestep = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), reset(starts, bodies))
    total = count * episodes
    begin = VectorState(
        env=state, timestep=timestep, is_first=jnp.ones(total, bool), episode_return=jnp.zeros(total),
        episode_length=jnp.zeros(total, jnp.int32),
    )  # fmt: skip
    each = jax.tree.map(lambda leaf: jnp.repeat(leaf, episodes, axis=0), bodies)
    limit = env.spec.time_limit
    assert limit is not None  # every world that takes bodies has one
    results = play_out(policy, memory(total), VectorEnv(env, total, params_axis=0), begin, key_play, each, limit)
    return jax.tree.map(lambda leaf: leaf.reshape(count, episodes), results)
