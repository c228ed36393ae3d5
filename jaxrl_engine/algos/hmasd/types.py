"""What HMASD keeps and passes on: traced hyper-parameters, parameters, statistics, memory, decisions.

`tokens` is `A + 1`: the team's skill, then each agent's.
"""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from jaxrl_engine.core.algo_config import PPOConfig
from jaxrl_engine.core.hmasd_config import HMASDConfig
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf, PyTree
from jaxrl_engine.ops.running_stats import RunningStatistics


class HMASDHyper(Struct):
    """Traced hyper-parameters: runs that differ only in these share one compiled program. Scalars, or [S]."""

    learning_rate: Float[Leaf, "*batch"]
    gamma: Float[Leaf, "*batch"]  # per step for the discoverer, per decision for the coordinator
    gae_lambda: Float[Leaf, "*batch"]
    clip_epsilon: Float[Leaf, "*batch"]
    value_coefficient: Float[Leaf, "*batch"]
    max_grad_norm: Float[Leaf, "*batch"]
    high_entropy: Float[Leaf, "*batch"]
    low_entropy: Float[Leaf, "*batch"]
    extrinsic: Float[Leaf, "*batch"]
    team_discriminator: Float[Leaf, "*batch"]
    individual_discriminator: Float[Leaf, "*batch"]
    discriminator_learning_rate: Float[Leaf, "*batch"]
    anneal_updates: Float[Leaf, "*batch"]  # the step sizes reach zero after this many updates; inf: never


PPO_NAMES = ("learning_rate", "gamma", "gae_lambda", "clip_epsilon", "value_coefficient", "max_grad_norm")


class HMASDParams(Struct):
    """One tree per network, each with an optimiser of its own."""

    coordinator: PyTree
    actor: PyTree
    critic: PyTree
    team_discriminator: PyTree
    individual_discriminator: PyTree


class HMASDStatistics(Struct):
    observation: RunningStatistics | None  # per feature of one agent's observation
    global_state: RunningStatistics | None  # per feature
    high_value: RunningStatistics | None  # scalar: the coordinator's value targets
    low_value: RunningStatistics | None  # scalar: the discoverer's


class HMASDCarry(Struct):
    """Memory per environment."""

    skills: Int[Leaf, "*batch tokens"]  # in force
    clock: Int[Leaf, "*batch"]  # steps for which they have been in force
    version: Int[Leaf, "*batch"]  # policy version they were chosen under; −1: never
    decisions: Int[Leaf, "*batch"]  # choices made so far
    actor: Float[Leaf, "*batch A R"]
    critic: Float[Leaf, "*batch R"]


class HMASDNoise(Struct):
    skills: Float[Leaf, "*batch tokens"]  # uniform
    action: Float[Leaf, "..."]


class HMASDExtras(Struct):
    """What a step leaves behind beside its transition. Values are as the networks give them, not in reward units."""

    decided: Bool[Leaf, "*batch"]  # the skills were chosen at this step
    skills: Int[Leaf, "*batch tokens"]
    skill_log_prob: Float[Leaf, "*batch tokens"]  # nats; where decided
    skill_value: Float[Leaf, "*batch tokens"]  # the coordinator's; where decided
    skill_version: Int[Leaf, "*batch"]  # policy version the skills were chosen under
    value: Float[Leaf, "*batch"]  # the discoverer's
    actor_memory: Float[Leaf, "*batch A R"]  # before the step, not yet cleared
    critic_memory: Float[Leaf, "*batch R"]


def make_hyper(
    ppo: PPOConfig, hmasd: HMASDConfig, num_updates: int, changes: Mapping[str, float] | None = None
) -> HMASDHyper:
    """The traced hyper-parameters of a run; `changes` are a sweep's settings by dotted name (`hmasd.extrinsic`).

    Raises:
        ValueError: a setting that is not traced.
    """
    values = {f"ppo.{name}": getattr(ppo, name) for name in PPO_NAMES}
    others = (field.name for field in dataclasses.fields(HMASDHyper))
    values |= {f"hmasd.{name}": getattr(hmasd, name) for name in others if hasattr(hmasd, name)}
    for dotted, value in (changes or {}).items():
        if dotted not in values:
            raise ValueError(f"{dotted} is not traced; choose from {', '.join(values)}")
        values[dotted] = value
    anneal = float(num_updates) if ppo.anneal_learning_rate else float("inf")
    traced = {dotted.partition(".")[2]: jnp.float32(value) for dotted, value in values.items()}
    return HMASDHyper(anneal_updates=jnp.float32(anneal), **traced)
