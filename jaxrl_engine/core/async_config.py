"""Settings of the async mode and its algorithm; like `core.config`, which holds them, free of jax."""

import dataclasses
import math
from typing import Literal

from jaxrl_engine.core.checks import require, require_positive_int, require_range


@dataclasses.dataclass(frozen=True)
class ImpactConfig:
    """PPO's loss on stale and replayed data (Luo et al. 2020), read by `--algo impact` beside ppo."""

    batch_size: int = 1024
    """Environment steps learned from in one update, new and replayed ones together: whole chunks of num_steps."""
    new_fraction: float = 0.5
    """Share of the batch that is new: every chunk is learned from once as it comes. 1: nothing is replayed."""
    replay: Literal["prioritised", "uniform", "none"] = "prioritised"
    """How the rest of the batch is drawn; none: new_fraction must be 1."""
    correction: bool = True
    """Weigh advantages by how likely today's policy would act so (V-trace); false: learn as if data were on-policy."""
    buffer_capacity: int = 100_000
    """Environment steps that replay holds, at most."""
    min_buffer_size: int = 1000
    """Environment steps in replay before anything is drawn from it; until then the whole batch is new."""
    per_alpha: float = 0.6
    """Priorities are raised to this power: 0 draws uniformly."""
    per_beta_start: float = 0.4
    """Exponent of the critic's importance weights at the start; it rises to 1 over the run. The actor's is 1."""
    peak_share: float = 0.9
    """Priority of a chunk: this share of its largest |δ|, the rest of its mean |δ|."""
    staleness_decay: float = 1.0
    """Priorities are multiplied by this for every update that lies between a chunk's policy and the learner's."""
    max_lag: int = 64
    """Chunks whose policy lies more updates back are not learned from."""
    max_reuse: int = 8
    """Times a chunk is replayed, at most."""
    replay_shards: int = 1
    """Parts of equal size that replay is divided into, one draw as likely from each; importance weights make up for it.
    It must be a multiple of the devices, which the result does not depend on."""
    ratio_limit: float = 1.0
    """ρ̄: the correction of one step is at most this."""
    proximal_decay: float = 0.0
    """The policy that probability ratios are clipped around follows the learner's as a moving average with this decay,
    update by update. 0: it is the learner's own at the start of each update."""

    def __post_init__(self) -> None:
        group = "impact."
        counts = ("batch_size", "buffer_capacity", "max_lag", "max_reuse", "replay_shards")
        require_positive_int(self, group, *counts)
        require_range(self, group, 0.0, 1.0, "per_alpha", "per_beta_start", "peak_share", "staleness_decay")
        require_range(self, group, 0.01, math.inf, "ratio_limit")
        require(0.0 <= self.proximal_decay < 1.0, "impact.proximal_decay", "from 0 to below 1", self.proximal_decay)
        require(0.0 < self.new_fraction <= 1.0, "impact.new_fraction", "above 0 and up to 1", self.new_fraction)
        holds = self.buffer_capacity >= self.batch_size
        require(
            holds, "impact.buffer_capacity", f"at least impact.batch_size = {self.batch_size}", self.buffer_capacity
        )
        fits = 0 <= self.min_buffer_size <= self.buffer_capacity
        require(fits, "impact.min_buffer_size", "from 0 to impact.buffer_capacity", self.min_buffer_size)
        replays = self.replay != "none"
        require(replays or self.new_fraction == 1.0, "impact.new_fraction", "1 with replay none", self.new_fraction)


@dataclasses.dataclass(frozen=True)
class ActorsConfig:
    """Who collects for the async mode: actors, each stepping an equal share of num_envs."""

    kind: Literal["threads", "ray"] = "threads"
    """threads: of this process. ray: processes of Ray's, on this machine or on others (needs the extra `ray`)."""
    ray_address: str = ""
    """The Ray to join, HOST:PORT or auto for one on this machine (default: a private one, for this run)."""
    num_workers: int = 4
    """Actors."""
    weight_sync_interval: int = 1
    """Updates between two publications of the learner's parameters."""
    mailbox: int = 2
    """Rollouts per actor that may wait for the learner; then actors wait."""
    lockstep: bool = False
    """Collect in a fixed order, one update behind the learner: the same numbers on every run, and after resuming."""
    failure: Literal["restart", "fail"] = "restart"
    """What follows when an actor breaks: start it anew, or end the run with a checkpoint."""
    max_restarts: int = 10
    """Restarts of actors over the run before it ends."""
    heartbeat_seconds: float = 60.0
    """An actor that has been silent for so long counts as hung."""

    def __post_init__(self) -> None:
        group = "actors."
        require_positive_int(self, group, "num_workers", "weight_sync_interval", "mailbox")
        require(self.num_workers <= 256, "actors.num_workers", "a whole number from 1 to 256", self.num_workers)
        allowed = "false with actors.kind ray, whose worlds are not saved"
        require(self.kind == "threads" or not self.lockstep, "actors.lockstep", allowed, self.lockstep)
        allowed = "empty with actors.kind threads"
        require(self.kind == "ray" or not self.ray_address, "actors.ray_address", allowed, self.ray_address)
        require(self.max_restarts >= 0, "actors.max_restarts", "a whole number >= 0", self.max_restarts)
        require(self.heartbeat_seconds > 0, "actors.heartbeat_seconds", "a number > 0", self.heartbeat_seconds)
