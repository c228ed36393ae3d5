"""One update of the async learner, one compiled function: new chunks in, replayed ones beside them, priorities back."""

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxrl_engine.algos.impact import Drawn, Impact
from jaxrl_engine.core.async_config import ImpactConfig
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Chunk, Leaf, PyTree, TrainState
from jaxrl_engine.modes.placement import spread
from jaxrl_engine.replay import prioritised
from jaxrl_engine.replay.prioritised import ReplayBuffer, Sample, Version

Metrics = dict[str, Float[Array, ""]]


class LearnerState(Struct):
    """All that an update changes."""

    train_state: TrainState
    proximal: PyTree  # parameters of the policy that ratios are clipped around
    replay: ReplayBuffer | None  # None where nothing is replayed
    key: Key[Leaf, "*batch"]
    updates: Int[Leaf, "*batch"]  # learned from or rejected


@runtime_checkable
class Replay(Protocol):
    """How chunks are kept: `replay.prioritised`, or `replay.sharded`."""

    def init(
        self, example: PyTree, capacity: int, alpha: float, max_lag: int | None, max_reuse: int | None
    ) -> ReplayBuffer:
        """Return an empty buffer."""

    def insert(
        self, buffer: ReplayBuffer, chunks: PyTree, priorities: Float[Array, "K"] | None,
        versions: Int[Array, "K"] | Version,
    ) -> ReplayBuffer:  # fmt: skip
        """Write chunks over the oldest."""

    def sample(
        self, buffer: ReplayBuffer, key: Key[Array, ""], batch: int, version: Version
    ) -> tuple[ReplayBuffer, Sample]:
        """Draw chunks. The key is consumed."""

    def update_priorities(
        self, buffer: ReplayBuffer, indices: Int[Array, "K"], generations: Int[Array, "K"],
        priorities: Float[Array, "K"],
    ) -> ReplayBuffer:  # fmt: skip
        """Set the priorities of chunks that are still there."""


@dataclasses.dataclass(frozen=True)
class Learner:
    """How an update is made up: `num_new` chunks as they come and `num_replayed` drawn from replay."""

    algorithm: Impact
    config: ImpactConfig
    num_new: int
    num_replayed: int
    capacity: int  # chunks in replay
    min_size: int  # chunks in replay before any is drawn
    total_updates: int
    replay: Replay = prioritised

    def init(self, key: Key[Array, ""], hyper: PyTree, example: Chunk) -> LearnerState:
        """Begin with empty replay for chunks like `example` `[b, …]`. The key is consumed."""
        key_params, key_run = jax.random.split(key)
        train_state = self.algorithm.init(key_params, hyper)
        return LearnerState(
            train_state=train_state, proximal=jax.tree.map(jnp.copy, train_state.params),
            replay=self.empty_replay(example), key=key_run, updates=jnp.zeros((), jnp.int32),
        )  # fmt: skip

    def empty_replay(self, example: Chunk) -> ReplayBuffer | None:
        """Return replay for chunks of the shapes of `example` `[b, …]`; None where nothing is replayed."""
        if not self.num_replayed:
            return None
        one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), example)
        alpha = self.config.per_alpha if self.config.replay == "prioritised" else 0.0
        return self.replay.init(one, self.capacity, alpha, self.config.max_lag, self.config.max_reuse)

    def step(self, state: LearnerState, rollouts: tuple[Chunk, ...]) -> tuple[LearnerState, Metrics]:
        """Learn once from the new chunks `[b, …]` of several rollouts and from replayed ones."""
        key, key_draw, key_update = jax.random.split(state.key, 3)
        new, broken = without_broken(spread(one_batch(rollouts)))
        replay, drawn, sample = self._draw(state, new, key_draw)
        train_state, proximal, surprise, metrics = self.algorithm.update(
            state.train_state, state.proximal, drawn, key_update
        )
        metrics |= lags(state.train_state.policy_version, drawn)
        if replay is not None and sample is not None:
            replay = self._put_back(replay, sample, new, broken, surprise * self._freshness(state, drawn))
            metrics |= _counters(replay)
        metrics |= {
            "Async/DroppedNotFinite": broken.sum().astype(jnp.float32),
            "Async/NewShare": jnp.float32(self.num_new) / jnp.maximum((drawn.actor_weight > 0).sum(), 1),
            "Sync/SkippedUpdates": train_state.skipped_updates.astype(jnp.float32),
            "Sync/PolicyVersion": train_state.policy_version.astype(jnp.float32),
            "Charts/Reward": new.reward.mean(),
        }
        after = LearnerState(
            train_state=train_state, proximal=proximal, replay=replay, key=key, updates=state.updates + 1
        )
        return after, metrics

    # --- how -----------------------------------------------------------------------------------------------------

    def _draw(
        self, state: LearnerState, new: Chunk, key: Key[Array, ""]
    ) -> tuple[ReplayBuffer | None, Drawn, Sample | None]:
        """One batch of the new chunks and those from replay, whose weight is 0 while there is too little of it."""
        fresh = jnp.ones(self.num_new)
        if state.replay is None:
            return None, Drawn(chunks=new, actor_weight=fresh, critic_weight=fresh, new=fresh > 0), None
        version = state.train_state.policy_version
        replay, sample = self.replay.sample(state.replay, key, self.num_replayed, version)
        enough = jnp.sum(replay.size) >= self.min_size
        beta = prioritised.anneal_beta(state.updates, self.total_updates, self.config.per_beta_start)
        actor, critic = (jnp.where(enough, prioritised.importance_weights(sample, b), 0.0) for b in (1.0, beta))
        critic = jnp.where(actor > 0.0, critic, 0.0)
        # What is not learned from has shown no surprise: it keeps its priority.
        sample = sample.replace(indices=jnp.where(actor > 0.0, sample.indices, -1))
        drawn = Drawn(
            chunks=spread(one_batch((new, sample.items))),
            actor_weight=jnp.concatenate([fresh, actor]), critic_weight=jnp.concatenate([fresh, critic]),
            new=jnp.arange(self.num_new + self.num_replayed) < self.num_new,
        )  # fmt: skip
        return replay, drawn, sample

    def _put_back(
        self, replay: ReplayBuffer, sample: Sample, new: Chunk, broken: Bool[Array, "K"], priorities: Float[Array, "M"]
    ) -> ReplayBuffer:
        """Give the replayed chunks their new priorities, then write the new ones over the oldest."""
        fresh, seen = priorities[: self.num_new], priorities[self.num_new :]
        replay = self.replay.update_priorities(replay, sample.indices, sample.generations, seen)
        return self.replay.insert(replay, new, jnp.where(broken, 0.0, fresh), new.policy_version)

    def _freshness(self, state: LearnerState, drawn: Drawn) -> Float[Array, "M"]:
        age = state.train_state.policy_version - drawn.chunks.policy_version
        return jnp.float32(self.config.staleness_decay) ** age


def one_batch(parts: tuple[Chunk, ...]) -> Chunk:
    """Return all chunks of several batches `[k, …]` as one `[K, …]`."""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def without_broken(chunks: Chunk) -> tuple[Chunk, Bool[Array, "K"]]:
    """Return the chunks, those with a number that is not finite emptied, and which these are.

    An emptied one has no valid step: nothing is learned from it.
    """
    numbers = (chunks.observation, chunks.cut_observation, chunks.reward, chunks.log_prob, chunks.action)
    finite = [jnp.isfinite(leaf).reshape(leaf.shape[0], -1).all(axis=1) for leaf in numbers]
    broken = ~jnp.stack(finite).all(axis=0)

    def emptied(leaf: Array) -> Array:
        return jnp.where(broken.reshape(-1, *[1] * (leaf.ndim - 1)), jnp.zeros((), leaf.dtype), leaf)

    return jax.tree.map(emptied, chunks).replace(policy_version=chunks.policy_version), broken


def lags(version: Int[Array, ""], drawn: Drawn) -> Metrics:
    """How many updates lie between the policies that acted and the learner, over the chunks that are learned from."""
    used = drawn.actor_weight > 0.0
    age = jnp.where(used, version - drawn.chunks.policy_version, jnp.nan)
    half, most = jnp.nanpercentile(age, jnp.array([50.0, 95.0]))
    return {"Async/LagP50": half, "Async/LagP95": most, "Async/LagMax": jnp.nanmax(age)}


def _counters(replay: ReplayBuffer) -> Metrics:
    """Over all shards, where there are several."""
    counts = {
        "Buffer/Size": replay.size, "Buffer/Eligible": replay.eligible,
        "Buffer/MeanUses": replay.uses.sum() / jnp.maximum(jnp.sum(replay.size), 1),
        "Buffer/ExpiredByAge": replay.expired_by_age, "Buffer/ExpiredByReuse": replay.expired_by_reuse,
        "Buffer/StalePriorities": replay.tree.stale, "Buffer/SanitisedPriorities": replay.tree.sanitised,
    }  # fmt: skip
    return {name: jnp.sum(value).astype(jnp.float32) for name, value in counts.items()}
