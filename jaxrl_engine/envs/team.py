"""What worlds with several agents share: legal actions, who is who, and one state for a central critic."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Shaped

from jaxrl_engine.core.spaces import ActionSpace, Box, Discrete

INVALID = "invalid_actions"
"""The metric that counts actions which had to be changed, over the episode."""


def action_bounds(space: ActionSpace) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the greatest action, each of the action's shape."""
    if isinstance(space, Box):
        low, high = (np.asarray(bound, np.float32).reshape(space.shape) for bound in (space.low, space.high))
        return low, high
    count = np.asarray(space.n if isinstance(space, Discrete) else space.nvec, np.int32)
    return np.zeros_like(count), np.asarray(count - 1)


def legal(
    action: Shaped[Array, "A ..."], low: Shaped[np.ndarray, "..."], high: Shaped[np.ndarray, "..."]
) -> tuple[Shaped[Array, "A ..."], Int[Array, "A"]]:
    """Return the nearest legal actions (0 for NaN), and 1 for each agent whose action was not legal."""
    low, high = (np.broadcast_to(bound, action.shape) for bound in (low, high))
    nearest = jnp.clip(jnp.nan_to_num(action), low, high)
    changed = (nearest != action).reshape(action.shape[0], -1).any(axis=1)  # NaN differs from everything
    return nearest, changed.astype(jnp.int32)


def identified(observation: Shaped[Array, "A ..."]) -> Shaped[Array, "A ..."]:
    """Extend the last axis by a one-hot vector of the agent's index."""
    agents, *shape = observation.shape
    ids = jnp.eye(agents, dtype=observation.dtype).reshape(agents, *[1] * (len(shape) - 1), agents)
    return jnp.concatenate([observation, jnp.broadcast_to(ids, (agents, *shape[:-1], agents))], axis=-1)


def identified_space(box: Box, agents: int) -> Box:
    """Return the space of the observations that `identified` returns."""
    shape = (*box.shape[:-1], box.shape[-1] + agents)
    widths = [(0, 0)] * (len(shape) - 1) + [(0, agents)]
    low, high = (
        tuple(np.pad(np.reshape(bounds, box.shape), widths, constant_values=fill).ravel().tolist())
        for bounds, fill in ((box.low, 0.0), (box.high, 1.0))
    )
    return Box(shape, low, high, box.dtype)


def joined(views: Shaped[Array, "A ..."]) -> Shaped[Array, "..."]:
    """Make one state of what all agents see: vectors one after the other; of images the channels, agent by agent."""
    if views.ndim != 4:
        return views.reshape(-1)
    images = jnp.moveaxis(views, 0, -2)  # [height, width, A, channels]
    return images.reshape(*images.shape[:2], -1)


def joined_space(box: Box, agents: int) -> Box:
    """Return the space of the states that `joined` returns."""
    if len(box.shape) != 3:
        return Box((agents * len(box.low),), box.low * agents, box.high * agents, box.dtype)
    height, width, channels = box.shape
    low, high = (
        tuple(np.tile(np.reshape(bounds, (-1, channels)), (1, agents)).ravel().tolist())
        for bounds in (box.low, box.high)
    )
    return Box((height, width, agents * channels), low, high, box.dtype)
