"""Settings of hierarchical multi-agent skill discovery; like `core.config`, which holds them, free of jax."""

import dataclasses
import math
from typing import Literal

from jaxrl_engine.core.checks import require, require_positive_int, require_range


@dataclasses.dataclass(frozen=True)
class HMASDConfig:
    """Skills for teams and their members (Yang et al. 2023); step sizes, clipping and epochs are those of `ppo`.

    The published ablations are values: NoTeam `team_skills=1, team_discriminator=0`; NoIndi `individual_skills=1,
    individual_discriminator=0`; NoHigh `high="uniform"`; NoExRew `extrinsic=0`; NoInRew `team_discriminator=0,
    individual_discriminator=0`.
    """

    skill_length: int = 16
    """Steps (k) after which the coordinator chooses skills anew."""
    team_skills: int = 2
    """Number of team skills (n_Z)."""
    individual_skills: int = 4
    """Number of individual skills (n_z)."""
    high: Literal["learned", "uniform"] = "learned"
    """Who chooses skills: the learned coordinator, or chance (ablation NoHigh)."""
    high_entropy: float = 0.1
    """Weight of the coordinator's entropy bonus (λ_h), a mean over skills."""
    low_entropy: float = 0.01
    """Weight of the discoverer's entropy bonus (λ_l), a mean over agents."""
    extrinsic: float = 0.0
    """Weight of the world's reward in the discoverer's (λ_e)."""
    team_discriminator: float = 0.1
    """Weight of log q(Z | s') in the discoverer's reward (λ_D)."""
    individual_discriminator: float = 0.2
    """Weight of log q(z | o', Z) in the discoverer's reward (λ_d)."""
    subtract_prior: bool = False
    """Subtract the logarithm of the uniform prior, so that a guess earns 0 (changes how attractive an end is)."""
    discriminator_epochs: int = 15
    """Passes of the discriminators over each rollout, in one batch each."""
    discriminator_learning_rate: float = 5e-4
    """Adam's step size for the discriminators."""
    skill_input: Literal["after", "before"] = "after"
    """Where the skill joins actor and critic: after the recurrent layer, or before the first."""
    chunk_length: int = 8
    """Steps through which recurrent gradients flow; a rollout is cut into chunks of this length."""
    width: int = 64
    """Width of every hidden layer, of the tokens and of the recurrent memories."""
    heads: int = 1
    """Attention heads of the coordinator."""
    blocks: int = 1
    """Encoder and decoder blocks of the coordinator."""
    quirks: Literal["none", "source"] = "none"
    """source: repeat what the published code does at the ends of episodes (see `algos.hmasd.learner`)."""

    def __post_init__(self) -> None:
        group = "hmasd."
        counts = ("skill_length", "team_skills", "individual_skills", "discriminator_epochs", "chunk_length")
        require_positive_int(self, group, *counts, "width", "heads", "blocks")
        require_range(
            self, group, 0.0, math.inf, "high_entropy", "low_entropy", "extrinsic", "team_discriminator",
            "individual_discriminator", "discriminator_learning_rate",
        )  # fmt: skip
        require(self.width % self.heads == 0, "hmasd.heads", f"a divisor of hmasd.width = {self.width}", self.heads)
