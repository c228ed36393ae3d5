"""Settings of the learning algorithms, one group each; like `core.config`, which holds them, free of jax."""

import dataclasses
import math

from jaxrl_engine.core.checks import require, require_positive_int, require_range


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """Proximal policy optimisation (Schulman et al. 2017): read by every algorithm, as all learn by its loss."""

    learning_rate: float = 1e-3
    """Adam's step size."""
    anneal_learning_rate: bool = True
    """Let the step size fall linearly to zero over the run (counted in minibatch steps)."""
    gamma: float = 0.99
    """Discount per environment step."""
    gae_lambda: float = 0.95
    """λ of generalised advantage estimation."""
    clip_epsilon: float = 0.2
    """Half-width of the interval the probability ratio is clipped to."""
    clip_value: bool = False
    """Clip the value loss around the old value too (off: ablations find it unhelpful)."""
    entropy_coefficient: float = 0.0
    """Weight of the entropy bonus."""
    value_coefficient: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 0.5
    """Gradients are scaled so that their global norm is at most this."""
    num_epochs: int = 4
    """Passes over each rollout."""
    num_minibatches: int = 4
    """Gradient steps per pass."""
    shuffle_groups: int = 8
    """Shuffle within so many equal groups of environments (or the most that divide them), each minibatch taking as many
    samples from every group: over devices that divide the groups no sample has to move. 1: among all."""
    accumulate_gradients: int = 1
    """Split each minibatch into this many parts and sum their gradients: less memory, the same step."""
    normalize_advantages: bool = True
    """Zero mean and unit deviation per minibatch."""
    normalize_observations: bool = True
    """Standardise observations by running statistics, frozen during a rollout and its update."""
    normalize_rewards: bool = True
    """Divide rewards by the running deviation of the discounted return (raw returns of 100 saturate a tanh critic)."""
    normalize_values: bool = False
    """Let the critic predict values standardised by the running mean and deviation of the value targets."""
    huber_delta: float = 0.0
    """Value errors count squared up to this size and linearly beyond (0: squared everywhere)."""
    adam_epsilon: float = 1e-5
    """Adam's ε."""

    def __post_init__(self) -> None:
        group = "ppo."
        require_range(
            self, group, 0.0, math.inf, "learning_rate", "entropy_coefficient", "value_coefficient", "huber_delta"
        )
        require_range(self, group, 0.0, 1.0, "gamma", "gae_lambda")
        require_range(self, group, 1e-6, math.inf, "clip_epsilon", "max_grad_norm")
        require_range(self, group, 1e-12, 1.0, "adam_epsilon")
        require_positive_int(self, group, "num_epochs", "num_minibatches", "accumulate_gradients", "shuffle_groups")


@dataclasses.dataclass(frozen=True)
class MAPPOConfig:
    """Multi-agent PPO (Yu et al. 2022), read by `--algo mappo`: networks as in `network`, shared by all agents."""

    centralized: bool = True
    """The critic sees the global state and the agent's index; false: the agent's own observation (IPPO)."""


@dataclasses.dataclass(frozen=True)
class MATConfig:
    """Multi-agent transformer (Wen et al. 2022), read by `--algo mat` in the place of `network`."""

    blocks: int = 1
    """Blocks of the encoder, and of the decoder."""
    heads: int = 1
    """Attention heads per block."""
    width: int = 64
    """Width of the embeddings and of the feed-forward layers."""
    normalize_input: bool = False
    """Layer norm over each observation (as published; it erases mean and scale, of few features nearly everything)."""
    initial_log_std: float = 0.0
    """Logarithm of the standard deviation of continuous actions at the start, in units of half the action range."""

    def __post_init__(self) -> None:
        group = "mat."
        require_positive_int(self, group, "blocks", "heads", "width")
        require_range(self, group, -20.0, 5.0, "initial_log_std")
        require(self.width % self.heads == 0, "mat.heads", f"a divisor of mat.width = {self.width}", self.heads)
