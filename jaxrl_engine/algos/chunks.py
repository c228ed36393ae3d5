"""Chunks of experience: what actors hand over and replay keeps, made of a rollout."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, UInt8

from jaxrl_engine.core.spaces import Discrete, MultiDiscrete
from jaxrl_engine.core.types import Chunk, EnvSpec, Leaf, Trajectory

SAME = ("action", "log_prob", "reward", "terminated", "truncated")
"""Fields that a chunk takes from a transition as they are."""


def cut_into_chunks(trajectory: Trajectory) -> Chunk:
    """Return a rollout `[T, B]` as one chunk `[T]` of each of its `B` environments."""
    steps = trajectory.transitions
    first = steps.truncated & (jnp.cumsum(steps.truncated, axis=0) == 1)  # [T, B]
    rows = jnp.argmax(first, axis=0)  # [B]
    cut = jax.vmap(lambda of_one, row: of_one[row], in_axes=(1, 0))(steps.final_observation, rows)
    observation = jnp.concatenate([steps.observation, trajectory.last.observation[None]])
    packed = None if steps.action_mask is None else jnp.packbits(steps.action_mask, axis=-1)
    valid = valid_steps(steps.truncated, steps.done)

    def of_environments(leaf: Array | None) -> Array | None:
        return None if leaf is None else jnp.moveaxis(leaf, 1, 0)

    return Chunk(
        observation=jnp.moveaxis(observation, 1, 0), cut_observation=cut, packed_mask=of_environments(packed),
        policy_version=steps.policy_version[0], valid=jnp.moveaxis(valid, 1, 0),
        discounted_return=of_environments(steps.extras.discounted_return),
        **{name: jnp.moveaxis(getattr(steps, name), 1, 0) for name in SAME},
    )  # fmt: skip


def valid_steps(truncated: Bool[Leaf, "T *B"], done: Bool[Leaf, "T *B"]) -> Bool[Array, "T *B"]:
    """False for the steps of an episode that is truncated within the chunk, though not as its first."""
    later = truncated & (jnp.cumsum(truncated, axis=0) > 1)

    def step(doomed: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        doomed = jnp.where(now[1], now[0], doomed)  # at an episode's end its own fate takes over
        return doomed, ~doomed

    return jax.lax.scan(step, jnp.zeros_like(later[0]), (later, done), reverse=True)[1]


def unpack_mask(spec: EnvSpec, packed: UInt8[Array, "*batch bytes"] | None) -> Bool[Array, "*batch n"] | None:
    """Return an action mask of which a chunk keeps a bit per action."""
    if packed is None:
        return None
    return jnp.unpackbits(packed, axis=-1, count=mask_width(spec)).astype(bool)


def mask_width(spec: EnvSpec) -> int:
    """Entries of an action mask."""
    action = spec.action
    assert isinstance(action, Discrete | MultiDiscrete)  # only choices can be masked
    return action.n if isinstance(action, Discrete) else sum(action.nvec)
