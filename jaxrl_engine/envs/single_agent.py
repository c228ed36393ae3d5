"""What every world with one agent shares: the agent axis, and the joint observation as global state."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from jaxrl_engine.core.spaces import ActionSpace, Box
from jaxrl_engine.core.types import EnvSpec, TimeStep


def unbounded(shape: tuple[int, ...]) -> Box:
    """Return the space of all float32 arrays of the given shape."""
    return Box.uniform(shape, -math.inf, math.inf)


def single_agent_spec(
    name: str, observation: Box, action: ActionSpace, time_limit: int | None, metric_names: tuple[str, ...] = ()
) -> EnvSpec:
    """Describe a world with one agent; an image (three axes) keeps its shape as global state, all else is flattened."""
    shape = _global_shape(observation.shape)
    return EnvSpec(
        name=name, num_agents=1, observation=observation, action=action, time_limit=time_limit,
        global_state=Box(shape=shape, low=observation.low, high=observation.high, dtype=observation.dtype),
        metric_names=metric_names,
    )  # fmt: skip


def single_agent_timestep(
    observation: Shaped[Array, "..."],
    reward: Float[Array, ""],
    terminated: Bool[Array, ""],
    truncated: Bool[Array, ""],
    metrics: dict[str, Float[Array, ""]] | None = None,
) -> TimeStep:
    """Give one agent's observation, reward and flags the axes of a `TimeStep`."""
    return TimeStep(
        observation=observation[None], global_state=observation.reshape(_global_shape(observation.shape)),
        action_mask=None, reward=reward.reshape(1), terminated=terminated, truncated=truncated, metrics=metrics or {},
    )  # fmt: skip


def first_timestep(observation: Shaped[Array, "..."], metric_names: tuple[str, ...] = ()) -> TimeStep:
    """Show the start of an episode: reward 0, neither terminated nor truncated, every metric 0."""
    zero = jnp.zeros((), jnp.float32)
    no = jnp.zeros((), bool)
    return single_agent_timestep(observation, zero, no, no, {name: zero for name in metric_names})


def _global_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape if len(shape) == 3 else (math.prod(shape),)
