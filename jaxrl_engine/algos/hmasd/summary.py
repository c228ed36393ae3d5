"""What one update measured, under the names users look for. Nothing here is learned from."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl_engine.algos.hmasd.types import HMASDHyper
from jaxrl_engine.core.hmasd_config import HMASDConfig
from jaxrl_engine.core.types import Transition

Metrics = dict[str, Float[Array, ""]]


def of_losses(group: str, metrics: dict[str, Float[Array, "steps"]]) -> Metrics:
    """Means over an update's gradient steps; of the ratio's error only the first step's, which should be 0."""
    summary = {
        f"Losses/{group}/{name}": x.mean() for name, x in metrics.items() if name not in ("Entropy", "RatioError")
    }
    if "Entropy" in metrics:
        summary[f"Entropy/{group}"] = metrics["Entropy"].mean()
    if "RatioError" in metrics:
        summary[f"Losses/{group}/FirstRatioError"] = metrics["RatioError"][0]
    return summary


def of_skills(
    config: HMASDConfig, skills: Int[Array, "T B tokens"], team: Float[Array, "T B"], individual: Float[Array, "T B A"]
) -> Metrics:
    """Which skills were in force, step by step, and how well they are recognised.

    Entropies are those of the observed shares, in nats. The estimates of mutual information are variational lower
    bounds, up to sampling: I(Z; s') ≥ H(Z) + E log q_D, I(z; o' | Z) ≥ H(z | Z) + E log q_d (Barber & Agakov 2003).
    """
    team_one_hot = jax.nn.one_hot(skills[..., 0], config.team_skills).reshape(-1, config.team_skills)
    own = jax.nn.one_hot(skills[..., 1:], config.individual_skills)
    own = own.reshape(len(team_one_hot), -1, config.individual_skills).mean(axis=1)
    team_share, own_share = team_one_hot.mean(axis=0), own.mean(axis=0)
    joint = team_one_hot.T @ own / len(own)
    conditional = entropy(joint.reshape(-1)) - entropy(team_share)
    summary = {
        "Skills/Team/UsageEntropy": entropy(team_share),
        "Skills/Individual/UsageEntropy": entropy(own_share),
        "Skills/Team/MutualInformationEstimate": entropy(team_share) + team.mean(),
        "Skills/Individual/MutualInformationEstimate": conditional + individual.mean(),
    }
    summary |= {f"Skills/Team/Usage{index}": share for index, share in enumerate(team_share)}
    return summary | {f"Skills/Individual/Usage{index}": share for index, share in enumerate(own_share)}


def entropy(share: Float[Array, "n"]) -> Float[Array, ""]:
    """−Σ p log p of shares that sum to 1, in nats."""
    seen = share > 0.0
    return -jnp.sum(share * jnp.log(jnp.where(seen, share, 1.0)))


def of_rewards(
    reward: Float[Array, "T B A"], team: Float[Array, "T B"], individual: Float[Array, "T B A"], hyper: HMASDHyper
) -> Metrics:
    """Means per step: the scores as they are, and what the discoverer earned."""
    return {
        "Rewards/Intrinsic/TeamLogLikelihood": team.mean(),
        "Rewards/Intrinsic/IndividualLogLikelihood": individual.mean(),
        "Rewards/Intrinsic/Team": hyper.team_discriminator * team.mean(),
        "Rewards/Intrinsic/Individual": hyper.individual_discriminator * individual.mean(),
        "Rewards/LowLevel/Total": reward.mean(),
    }


def of_decisions(decided: Bool[Array, "T B"], earned: Float[Array, "T B"]) -> Metrics:
    """How many decisions there were and what they earned."""
    count = decided.sum().astype(jnp.float32)
    return {
        "Rewards/HighLevel/K_Step_Accumulated_Mean": jnp.where(decided, earned, 0.0).sum() / jnp.maximum(count, 1.0),
        "Buffer/high_level_buffer_size": count,
    }


def of_buffers(steps: Transition, version: Int[Array, ""]) -> Metrics:
    """Samples that are learned from, counted, and those that another policy version left behind (never any)."""
    current = (steps.policy_version == version) & (steps.extras.skill_version == version)
    return {
        "Buffer/SamplesCollected": current.sum().astype(jnp.float32),
        "Buffer/low_level_buffer_size": jnp.float32(steps.reward.size),
        "Sync/StaleSamples": (~current).sum().astype(jnp.float32),
    }
