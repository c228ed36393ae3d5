"""What PPO keeps and passes on: traced hyper-parameters, parameters, statistics, memory and samples."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from jaxrl_engine.core.algo_config import PPOConfig
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf, PyTree
from jaxrl_engine.ops.losses import normalize_advantages
from jaxrl_engine.ops.running_stats import RunningStatistics


class PPOHyper(Struct):
    """Traced hyper-parameters: runs that differ only in these share one compiled program. Scalars, or [S]."""

    learning_rate: Float[Leaf, "*batch"]
    gamma: Float[Leaf, "*batch"]
    gae_lambda: Float[Leaf, "*batch"]
    clip_epsilon: Float[Leaf, "*batch"]
    entropy_coefficient: Float[Leaf, "*batch"]
    value_coefficient: Float[Leaf, "*batch"]
    max_grad_norm: Float[Leaf, "*batch"]
    anneal_updates: Float[Leaf, "*batch"]  # the step size reaches zero after this many updates; inf: never


class PPOParams(Struct):
    actor: PyTree
    critic: PyTree


class PPOStatistics(Struct):
    observation: RunningStatistics | None  # per feature of one agent's observation
    discounted_return: RunningStatistics | None  # scalar; its deviation scales the rewards
    value: RunningStatistics | None = None  # scalar: of the value targets, in units of the (scaled) reward
    global_state: RunningStatistics | None = None  # per feature; only for a centralised critic


class PPOCarry(Struct):
    """Memory per environment."""

    actor: PyTree  # [B, A, R], or () without recurrence
    critic: PyTree
    discounted_return: Float[Leaf, "*batch A"] | None  # of the rewards received so far; only for reward scaling


class PPOExtras(Struct):
    discounted_return: Float[Leaf, "*batch A"] | None


class Samples(Struct):
    """What the loss needs of each transition. Leading axes `[T, B]`, then shuffled into minibatches."""

    observation: Float[Leaf, "..."]  # [T, B, A, *observation.shape], normalised
    global_state: Float[Leaf, "..."] | None = None  # [T, B, *global_state.shape], normalised; if the critic sees it
    action_mask: Bool[Leaf, "*batch n"] | None
    action: Leaf  # [T, B, A, *action.shape]
    log_prob: Float[Leaf, "*batch"]  # [T, B, A]
    advantage: Float[Leaf, "*batch"]
    target: Float[Leaf, "*batch"]  # as the critic predicts values: standardised, if it does
    value: Float[Leaf, "*batch"]
    is_first: Bool[Leaf, "*time_batch"] | None  # [T, B]; only with recurrence

    def normalized_advantage(self) -> jax.Array:  # [*batch]
        """Return the advantages of zero mean and unit deviation."""
        return normalize_advantages(self.advantage)

    def with_advantage(self, advantage: jax.Array) -> "Samples":
        """Return the samples with other advantages."""
        return self.replace(advantage=advantage)


def make_hyper(config: PPOConfig, num_updates: int, changes: Mapping[str, float] | None = None) -> PPOHyper:
    """The traced hyper-parameters of a run; `changes` are a sweep's settings by dotted name (`ppo.gamma`).

    Raises:
        ValueError: a setting that is not traced.
    """
    names = [field.name for field in dataclasses.fields(PPOHyper) if field.name != "anneal_updates"]
    values = {name: getattr(config, name) for name in names}
    for dotted, value in (changes or {}).items():
        group, _, name = dotted.partition(".")
        if group != "ppo" or name not in values:
            raise ValueError(f"{dotted} is not traced; choose from {', '.join('ppo.' + known for known in values)}")
        values[name] = value
    anneal = float(num_updates) if config.anneal_learning_rate else float("inf")
    return PPOHyper(anneal_updates=jnp.float32(anneal), **{name: jnp.float32(values[name]) for name in names})
