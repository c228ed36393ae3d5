"""The running statistics of the PPO family: all are frozen during a rollout and the update that learns from it."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl_engine.algos.ppo_types import PPOStatistics
from jaxrl_engine.core.algo_config import PPOConfig
from jaxrl_engine.core.types import EnvSpec, TimeStep, Transition
from jaxrl_engine.ops import running_stats
from jaxrl_engine.ops.running_stats import RunningStatistics

MAX_SCALED_REWARD = 10.0
"""The first rare reward after many zeros meets a tiny deviation: scaled, it would drown everything else."""


def init_statistics(config: PPOConfig, spec: EnvSpec, *, centralized: bool = False) -> PPOStatistics:
    """Statistics of nothing, of what the configuration asks to be normalised."""

    def of(shape: tuple[int, ...], wanted: bool) -> RunningStatistics | None:
        return running_stats.init(shape) if wanted else None

    return PPOStatistics(
        observation=of(spec.observation.shape, config.normalize_observations),
        discounted_return=of((), config.normalize_rewards),
        value=of((), config.normalize_values),
        global_state=of(spec.global_state.shape, config.normalize_observations and centralized),
    )


def normalize(statistics: RunningStatistics | None, seen: Array) -> Float[Array, "..."]:
    """What a network is shown: float32, standardised where there are statistics."""
    seen = seen.astype(jnp.float32)
    return seen if statistics is None else running_stats.normalize(statistics, seen)


def scaled_reward(statistics: PPOStatistics, reward: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Rewards in units of the discounted return's deviation, where there are statistics of it."""
    if statistics.discounted_return is None:
        return reward
    scaled = reward / running_stats.deviation(statistics.discounted_return)
    return jnp.clip(scaled, -MAX_SCALED_REWARD, MAX_SCALED_REWARD)


def add_reward(
    returned: Float[Array, "B A"] | None, timestep: TimeStep, gamma: Float[Array, ""]
) -> tuple[Float[Array, "B A"] | None, Float[Array, "B A"] | None]:
    """Carry the discounted sum of rewards `G = r + γ G` one step on; returns it and what the next step starts from."""
    if returned is None:
        return None, None
    # `done` is that of the step which earned this reward: the sum starts afresh *after* it.
    returned = timestep.reward + gamma * returned
    return returned, jnp.where(timestep.done[:, None], 0.0, returned)


def observe(statistics: PPOStatistics, steps: Transition, target: Float[Array, "T B A"]) -> PPOStatistics:
    """Take a rollout into the statistics, after it has been learned from; `target` is as the critic predicts it."""
    seen, returned, value, state = (
        statistics.observation, statistics.discounted_return, statistics.value, statistics.global_state,
    )  # fmt: skip
    if seen is not None:
        seen = running_stats.update(seen, steps.observation.astype(jnp.float32))
    if returned is not None:
        returned = running_stats.update(returned, steps.extras.discounted_return)
    if value is not None:
        value = running_stats.update(value, running_stats.denormalize_values(value, target))
    if state is not None:
        state = running_stats.update(state, steps.global_state.astype(jnp.float32))
    return PPOStatistics(observation=seen, discounted_return=returned, value=value, global_state=state)
