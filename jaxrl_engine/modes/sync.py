"""The sync mode: a rollout and the update that learns from it, strictly on-policy.

    rollout (scan over T of vmapped act + step) → values, GAE → epochs × minibatches → TrainState

repeated inside one compiled program (`modes.fused`).
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxrl_engine.algos.protocol import Algorithm
from jaxrl_engine.core.types import PyTree, TrainState, Trajectory
from jaxrl_engine.envs.vector import Episodes, VectorEnv
from jaxrl_engine.modes.fused import Learned, Mean, chart_name, observed
from jaxrl_engine.modes.rollout import ActorState, rollout, start


@dataclasses.dataclass(frozen=True)
class OnPolicy:
    """One algorithm, one vector of worlds and one rollout length; see `modes.fused.Trainer`."""

    algorithm: Algorithm
    vector_env: VectorEnv
    env_params: PyTree
    num_steps: int

    def init(self, key: Key[Array, ""], hyper: PyTree) -> TrainState:
        """Draw the parameters. The key is consumed."""
        return self.algorithm.init(key, hyper)

    def start(self, key: Key[Array, ""]) -> ActorState:
        """Begin `B` episodes. The key is consumed."""
        return start(self.algorithm, self.vector_env, key, self.env_params)

    def batched(self, path: Sequence[str]) -> bool:
        """All that an actor keeps leads with the environments."""
        return True

    def learn(self, train_state: TrainState, actor: ActorState, key: Key[Array, ""]) -> Learned:
        """Roll out once and learn from it once. The key is consumed."""
        return learn_once(self, train_state, actor, key, self.env_params)


def learn_once(
    trainer: OnPolicy, train_state: TrainState, actor: ActorState, key: Key[Array, ""], env_params: PyTree
) -> tuple[TrainState, ActorState, dict[str, Mean]]:
    """Roll out once in worlds with these parameters and learn from it once. The key is consumed."""
    key_rollout, key_update = jax.random.split(key)
    actor, trajectory, episodes = rollout(
        trainer.algorithm, trainer.vector_env, train_state, actor, key_rollout, env_params, trainer.num_steps
    )
    learned, losses = trainer.algorithm.update(train_state, trajectory, key_update)
    counted = (learned.skipped_in_a_row == 0).astype(jnp.float32)
    metrics = {name: Mean(total=jnp.where(counted > 0, x, 0.0), weight=counted) for name, x in losses.items()}
    metrics |= _rollout_metrics(train_state, trajectory, episodes)
    metrics["Sync/SkippedUpdates"] = observed(learned.skipped_updates)
    return learned, actor, metrics


def _rollout_metrics(behaviour: TrainState, trajectory: Trajectory, episodes: Episodes) -> dict[str, Mean]:
    steps = trajectory.transitions
    ended = episodes.ended.astype(jnp.float32)
    current = steps.policy_version == behaviour.policy_version
    metrics = {
        "Charts/EpisodeReturn": Mean(total=(ended * episodes.episode_return).sum(), weight=ended.sum()),
        "Charts/EpisodeLength": Mean(total=(ended * episodes.episode_length).sum(), weight=ended.sum()),
        "Charts/Episodes": observed(ended.sum()),
        "Charts/Reward": observed(steps.reward.mean()),
        "Sync/BatchSize": observed(current.sum()),
        "Sync/PolicyVersion": observed(behaviour.policy_version),
    }
    for name, value in episodes.metrics.items():
        metrics[chart_name(name)] = Mean(total=jnp.where(episodes.ended, value, 0.0).sum(), weight=ended.sum())
    return metrics
