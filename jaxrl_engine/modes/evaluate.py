"""Whole episodes under a fixed policy: own environments, own keys, nothing learned and no statistics moved."""

import math
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxrl_engine.algos.protocol import Acting
from jaxrl_engine.core.spaces import ActionSpace, Box, Discrete
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf, PyTree, TimeStep, TrainState
from jaxrl_engine.envs.vector import VectorEnv, VectorState
from jaxrl_engine.modes.placement import spread


@runtime_checkable
class Policy(Protocol):
    """`(memory, what is seen, key) -> (actions for the environments, memory)`; the key is consumed."""

    def __call__(self, carry: PyTree, timestep: TimeStep, key: Key[Array, ""]) -> tuple[Array, PyTree]: ...


class EpisodeResults(Struct):
    """One entry per evaluated episode."""

    episode_return: Float[Leaf, "*batch"]  # undiscounted, mean over agents
    episode_length: Int[Leaf, "*batch"]  # environment steps
    cut: Bool[Leaf, "*batch"]  # still running after `max_steps`: the return is that of the part seen
    metrics: dict[str, Float[Leaf, "*batch"]]  # the world's metrics at the final step


class _Loop(Struct):
    step: Int[Leaf, ""]
    key: Key[Leaf, ""]
    env: PyTree
    timestep: TimeStep
    carry: PyTree
    done: Bool[Leaf, "*batch"]
    results: EpisodeResults


def greedy_policy(algorithm: Acting, train_state: TrainState) -> Policy:
    """The policy that takes the most likely action."""

    def policy(carry: PyTree, timestep: TimeStep, key: Key[Array, ""]) -> tuple[Array, PyTree]:
        decision, carry = algorithm.act(train_state, carry, timestep, None)
        return decision.env_action, carry

    return policy


def mixed_policy(space: ActionSpace, greedy: Policy, uniform: Bool[Array, ""]) -> Policy:
    """A policy, or the uniformly random one where `uniform` is true: both share one program."""

    def policy(carry: PyTree, timestep: TimeStep, key: Key[Array, ""]) -> tuple[Array, PyTree]:
        key_greedy, key_uniform = jax.random.split(key)
        action, carry = greedy(carry, timestep, key_greedy)
        return jnp.where(uniform, uniform_action(space, timestep, key_uniform).astype(action.dtype), action), carry

    return policy


def uniform_action(space: ActionSpace, timestep: TimeStep, key: Key[Array, ""]) -> Array:
    """Draw allowed actions uniformly for `[B, A]` (unbounded ones from a standard normal). The key is consumed."""
    batch = timestep.reward.shape
    if isinstance(space, Box):
        if not space.bounded:
            return jax.random.normal(key, (*batch, *space.shape))
        shape = (*batch, *space.shape)
        low, high = (jnp.asarray(bound, jnp.float32).reshape(space.shape) for bound in (space.low, space.high))
        return jax.random.uniform(key, shape, minval=jnp.broadcast_to(low, shape), maxval=jnp.broadcast_to(high, shape))
    nvec = (space.n,) if isinstance(space, Discrete) else space.nvec
    mask = timestep.action_mask
    if mask is None:
        mask = jnp.ones((*batch, sum(nvec)), bool)
    start, choices = 0, []
    for width, subkey in zip(nvec, jax.random.split(key, len(nvec)), strict=True):
        choices.append(one_of(mask[..., start : start + width], subkey))
        start += width
    return choices[0] if isinstance(space, Discrete) else jnp.stack(choices, axis=-1)


def one_of(allowed: Bool[Array, "*batch n"], key: Key[Array, ""]) -> Int[Array, "*batch"]:
    """Draw one of the allowed choices uniformly, 0 where there is none. The key is consumed."""
    folded = _fold(allowed)
    narrow = jnp.uint8 if folded.shape[-2] < 256 else jnp.int32  # four times as many sums per instruction
    counts = folded.sum(axis=-2, dtype=narrow).astype(jnp.int32)
    rank = jax.random.randint(key, allowed.shape[:-1], 0, jnp.maximum(counts.sum(axis=-1), 1))
    return _choice_of_rank(folded, counts, rank)


def _fold(allowed: Bool[Array, "*batch n"]) -> Bool[Array, "*batch rows columns"]:
    """Lay `n` choices out in √n columns, the last row filled up with forbidden ones."""
    *batch, width = allowed.shape
    columns = math.isqrt(width - 1) + 1
    filled = jnp.pad(allowed, [(0, 0)] * len(batch) + [(0, -width % columns)])
    return filled.reshape(*batch, -1, columns)


def _choice_of_rank(
    folded: Bool[Array, "*batch rows columns"], counts: Int[Array, "*batch columns"], rank: Int[Array, "*batch"]
) -> Int[Array, "*batch"]:
    """Return the allowed choice of this rank, counted down the columns one after the other; 0 where there is none.

    Only the column that holds it is summed up place by place: a cumulative sum of thousands of choices takes longer
    than a step of the world that offers them.
    """
    columns = counts.shape[-1]
    up_to = jnp.cumsum(counts, axis=-1)
    passed = up_to <= rank[..., None]
    column = jnp.minimum(passed.sum(axis=-1), columns - 1)
    rest = rank - jnp.sum(counts, axis=-1, where=passed)
    within = jnp.take_along_axis(folded, column[..., None, None], axis=-1)[..., 0]
    row = (jnp.cumsum(within, axis=-1) <= rest[..., None]).sum(axis=-1)
    return jnp.where(up_to[..., -1] > 0, row * columns + column, 0).astype(jnp.int32)


def evaluate(
    policy: Policy,
    carry: PyTree,
    vector_env: VectorEnv,
    key: Key[Array, ""],
    env_params: PyTree,
    max_steps: int,
) -> EpisodeResults:
    """Run one fresh episode in each of the `B` environments; see `play_out`. The key is consumed."""
    key_reset, key_play = jax.random.split(key)
    begin = vector_env.reset(key_reset, env_params)
    return play_out(policy, carry, vector_env, begin, key_play, env_params, max_steps)


def play_out(
    policy: Policy,
    carry: PyTree,
    vector_env: VectorEnv,
    begin: VectorState,
    key: Key[Array, ""],
    env_params: PyTree,
    max_steps: int,
) -> EpisodeResults:
    """Run each of the `B` episodes that `begin` to its end, stopping as soon as the last has ended.

    `carry` is the policy's memory `[B, …]` at the start of an episode; no episode runs longer than `max_steps`. The
    key is consumed.
    """
    num_envs = vector_env.num_envs
    begin, carry = spread((begin, carry))
    results = EpisodeResults(
        episode_return=begin.episode_return, episode_length=begin.episode_length, cut=jnp.ones(num_envs, bool),
        metrics=begin.timestep.metrics,
    )  # fmt: skip
    loop = _Loop(
        step=jnp.zeros((), jnp.int32), key=key, env=begin.env, timestep=begin.timestep, carry=carry,
        done=jnp.zeros(num_envs, bool), results=results,
    )  # fmt: skip
    step_all = jax.vmap(vector_env.env.step, in_axes=(0, 0, 0, vector_env.params_axis))

    def step(loop: _Loop) -> _Loop:
        key, key_act, key_step = jax.random.split(loop.key, 3)
        action, carry = policy(loop.carry, loop.timestep, key_act)
        env, timestep = step_all(jax.random.split(key_step, num_envs), loop.env, action, env_params)
        running = ~loop.done
        results = loop.results
        updated = EpisodeResults(
            episode_return=results.episode_return + jnp.where(running, timestep.reward.mean(axis=-1), 0.0),
            episode_length=results.episode_length + running,
            cut=results.cut & ~(running & timestep.done),
            metrics={name: jnp.where(running, timestep.metrics[name], old) for name, old in results.metrics.items()},
        )
        return _Loop(
            step=loop.step + 1, key=key, env=env, timestep=timestep, carry=carry,
            done=loop.done | timestep.done, results=updated,
        )  # fmt: skip

    def unfinished(loop: _Loop) -> Bool[Array, ""]:
        return (loop.step < max_steps) & ~loop.done.all()

    return jax.lax.while_loop(unfinished, step, loop).results
