"""PPO's objective on stale and replayed data (IMPACT: Luo et al. 2020, arXiv:1912.00167).

Three policies: the behaviour policy μ that acted (its log-probabilities are stored), the learner's π_θ, and a proximal
policy π_p that the clipping is around. Deciding what data are worth and how far to step are then two questions
(decoupled PPO: Hilton et al. 2021, arXiv:2110.00641):

    advantages  are those of π_p, corrected from μ by V-trace's ratios: A = ρ B, ρ = min(ρ̄, π_p / μ)
                (`ops.returns.corrected_gae`)
    the loss    clips π_θ / π_p:  E[ w_a · ρ · surrogate(B) + c_v · w_c · value error − c_e · w_a · entropy ]

`w_a`, `w_c` are the importance weights of prioritised replay: they correct which chunk was drawn, ρ which action was
taken. Where advantages are normalised it is B, with weights w_a · ρ: an action that π_p would not take says nothing of
the mean, and centring A itself would give it an advantage of minus that mean, at which a density's gradient is largest
of all. Values and advantages are computed anew whenever a chunk is learned from. On data of the learner's own
policy, with every weight 1, this is PPO.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from jaxrl_engine.algos.chunks import unpack_mask
from jaxrl_engine.algos.minibatches import Minibatch
from jaxrl_engine.algos.ppo import PPO
from jaxrl_engine.algos.ppo_statistics import normalize, scaled_reward
from jaxrl_engine.algos.ppo_types import PPOCarry, PPOHyper, PPOParams, PPOStatistics, Samples
from jaxrl_engine.algos.ppo_update import Averages, Metrics, improve, keep_if_finite, ppo_loss
from jaxrl_engine.core.algo_config import PPOConfig
from jaxrl_engine.core.async_config import ImpactConfig
from jaxrl_engine.core.checks import require
from jaxrl_engine.core.config import NetworkConfig
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Chunk, Decision, EnvSpec, Leaf, PyTree, TimeStep, TrainState
from jaxrl_engine.ops import losses, running_stats
from jaxrl_engine.ops.distributions import Distribution
from jaxrl_engine.ops.returns import corrected_gae, temporal_differences
from jaxrl_engine.ops.running_stats import RunningStatistics


class Drawn(Struct):
    """A batch of chunks to learn from, and how it was drawn."""

    chunks: Chunk  # [K, …]
    actor_weight: Float[Leaf, "K"]  # importance weights: 1 for new chunks, 0 where a chunk is not to be learned from
    critic_weight: Float[Leaf, "K"]
    new: Bool[Leaf, "K"]  # never learned from before


class WeightedSamples(Struct):
    """What the loss needs: `[K, T]` where it is computed, `[T, K]` where it is shuffled, `[M]` in a minibatch."""

    samples: Samples  # its log-probabilities are the proximal policy's
    correction: Float[Leaf, "*batch"]  # [K, T, A] ρ; the samples' advantages are B, those before it
    actor_weight: Float[Leaf, "*batch"]  # [K, T, A]; 0 where a step is not valid
    critic_weight: Float[Leaf, "*batch"]
    valid: Float[Leaf, "*batch"]

    @property
    def value(self) -> jax.Array:  # [*batch]
        return self.samples.value

    @property
    def target(self) -> jax.Array:  # [*batch]
        return self.samples.target

    def normalized_advantage(self) -> jax.Array:  # [*batch]
        """Return B of zero mean and unit deviation, weighted by w_a · ρ."""
        return losses.normalize_advantages(self.samples.advantage, self.actor_weight * self.correction)

    def with_advantage(self, advantage: jax.Array) -> "WeightedSamples":
        """Return the samples with another B."""
        return self.replace(samples=self.samples.replace(advantage=advantage))


@dataclasses.dataclass(frozen=True)
class Impact:
    """The algorithm as pure functions over static facts: it acts as PPO does, and learns from chunks.

    Raises:
        ValueError: a network with memory, whose state at a chunk's start would be stale.
    """

    spec: EnvSpec
    ppo: PPOConfig
    impact: ImpactConfig
    network: NetworkConfig

    def __post_init__(self) -> None:
        require(self.network.recurrent == "none", "network.recurrent", "none with algo impact", self.network.recurrent)

    @property
    def actor_critic(self) -> PPO:
        return PPO(self.spec, self.ppo, self.network)

    def init(self, key: Key[Array, ""], hyper: PPOHyper) -> TrainState:
        """Draw the parameters of one run. The key is consumed."""
        return self.actor_critic.init(key, hyper)

    def initial_carry(self, num_envs: int) -> PPOCarry:
        return self.actor_critic.initial_carry(num_envs)

    def noise(self, key: Key[Array, ""], num_envs: int) -> Float[Array, "..."]:
        return self.actor_critic.noise(key, num_envs)

    def act(
        self, train_state: TrainState, carry: PPOCarry, timestep: TimeStep, noise: PyTree | None
    ) -> tuple[Decision, PPOCarry]:
        """Sample actions for `B` environments, or take the mode where there is no noise."""
        return self.actor_critic.act(train_state, carry, timestep, noise)

    def update(
        self, train_state: TrainState, proximal: PPOParams, drawn: Drawn, key: Key[Array, ""]
    ) -> tuple[TrainState, PPOParams, Float[Array, "K"], Metrics]:
        """Learn from `K` chunks: `num_epochs × num_minibatches` gradient steps. The key is consumed.

        Returns the learner, the proximal policy of the next update, each chunk's surprise
        `η max_t |δ_t| + (1 − η) mean_t |δ_t|` before learning (Kapturowski et al. 2019, eq. 1), and metrics. A loss or
        gradient that is not finite rejects the whole update, counted.
        """
        weighted, surprise, observed = self._samples(train_state, proximal, drawn)
        streams = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), weighted)
        learned, summary = improve(self._loss, self.ppo, train_state, streams, None, key)
        new = drawn.new & drawn.chunks.valid.all(axis=-1)
        learned = learned.replace(statistics=self._observe(train_state.statistics, drawn.chunks, weighted.target, new))
        kept = keep_if_finite(learned, train_state, summary)
        decay = self.impact.proximal_decay
        moved = jax.tree.map(lambda old, now: decay * old + (1.0 - decay) * now, proximal, kept.params)
        return kept, moved, surprise, summary | observed

    # --- what the update is made of -----------------------------------------------------------------------------

    def _samples(
        self, train_state: TrainState, proximal: PPOParams, drawn: Drawn
    ) -> tuple[WeightedSamples, Float[Array, "K"], Metrics]:
        chunks, statistics, hyper = drawn.chunks, train_state.statistics, train_state.hyper
        # Networks merge the axes of a batch. With chunks in front, those of a device stay together.
        seen = normalize(statistics.observation, chunks.observation)  # [K, T + 1, A, …]
        mask = unpack_mask(self.spec, chunks.packed_mask)
        _, law = self.actor_critic.actor.apply(proximal.actor, (), seen[:, :-1], mask)
        log_prob = law.log_prob(chunks.action)
        ratio = losses.probability_ratio(log_prob, chunks.log_prob)  # π_p / μ
        if not self.impact.correction:
            log_prob, ratio = chunks.log_prob, jnp.ones_like(ratio)
        value, next_value = self._values(train_state, chunks, seen)
        advantage, target, delta = _estimate(self.impact, statistics, hyper, chunks, value, next_value, ratio)
        shape = (*chunks.valid.shape, self.spec.num_agents)
        learned_from = chunks.valid & (drawn.actor_weight > 0.0)[:, None]
        valid = jnp.broadcast_to(learned_from[..., None], shape).astype(jnp.float32)
        weights = (valid * weight[:, None, None] for weight in (drawn.actor_weight, drawn.critic_weight))
        actor_weight, critic_weight = weights
        correction = jnp.minimum(ratio, self.impact.ratio_limit)
        samples = Samples(
            observation=seen[:, :-1], action_mask=mask, action=chunks.action, log_prob=log_prob,
            advantage=advantage / correction, target=target, value=value, is_first=None,
        )  # fmt: skip
        size = jnp.abs(delta) * valid
        mean = size.sum(axis=(1, 2)) / jnp.maximum(valid.sum(axis=(1, 2)), 1.0)
        share = self.impact.peak_share
        log_ratio = jnp.log(ratio)
        worth = actor_weight * correction
        metrics = {
            "Async/RatioMean": _mean(ratio, valid),
            "Async/KL": _mean(losses.approximate_kl(log_ratio), valid),
            "Async/EffectiveSampleSize": jnp.square(worth.sum()) / (jnp.square(worth).sum() * valid.sum() + 1e-30),
            "Async/InvalidSteps": (1.0 - valid).sum() / self.spec.num_agents,
        }
        weighted = WeightedSamples(
            samples=samples, correction=correction, actor_weight=actor_weight, critic_weight=critic_weight, valid=valid
        )
        return weighted, share * size.max(axis=(1, 2)) + (1.0 - share) * mean, metrics

    def _values(
        self, train_state: TrainState, chunks: Chunk, seen: Float[Array, "..."]
    ) -> tuple[Float[Array, "K T A"], Float[Array, "K T A"]]:
        """What the critic predicts of each step and of the true next time steps."""
        critic, params = self.actor_critic.critic, train_state.params.critic
        values = critic.apply(params, (), seen)[1]
        following, truncated = values[:, 1:], chunks.truncated[..., None]

        def bootstrapped() -> Float[Array, "K T A"]:
            cut = normalize(train_state.statistics.observation, chunks.cut_observation)
            return jnp.where(truncated, critic.apply(params, (), cut)[1][:, None], following)

        return values[:, :-1], jax.lax.cond(truncated.any(), bootstrapped, lambda: following)

    def _loss(self, params: PPOParams, hyper: PPOHyper, batch: Minibatch) -> tuple[Float[Array, ""], Metrics]:
        weighted: WeightedSamples = batch.samples
        samples, valid = weighted.samples, weighted.valid
        law, value = self._evaluate(params, samples)
        samples = samples.replace(advantage=weighted.correction * samples.advantage)
        averages = Averages(
            actor=lambda each: _mean(weighted.actor_weight * each, valid),
            critic=lambda each: _mean(weighted.critic_weight * each, valid),
            plain=lambda each: _mean(each, valid),
            greatest=lambda each: (each * valid).max(),
        )
        log_prob, entropy = law.log_prob(samples.action), law.entropy(batch.key)
        return ppo_loss(self.ppo, hyper, samples, log_prob, entropy, value, averages)

    def _evaluate(self, params: PPOParams, samples: Samples) -> tuple[Distribution, Float[Array, "..."]]:
        _, law = self.actor_critic.actor.apply(params.actor, (), samples.observation, samples.action_mask)
        _, value = self.actor_critic.critic.apply(params.critic, (), samples.observation)
        return law, value

    def _observe(
        self, statistics: PPOStatistics, chunks: Chunk, target: Float[Array, "K T A"], new: Bool[Array, "K"]
    ) -> PPOStatistics:
        """Take the new chunks into the statistics: replayed ones are in them already."""

        def add(known: RunningStatistics | None, batch: Array) -> RunningStatistics | None:
            """`batch` is `[K, T, A, …]`."""
            if known is None:
                return None
            weights = jnp.broadcast_to(new.reshape(-1, *[1] * (batch.ndim - 1)), batch.shape)
            return running_stats.update(known, batch.astype(jnp.float32), weights)

        returned, values = chunks.discounted_return, target
        if statistics.value is not None:
            values = running_stats.denormalize_values(statistics.value, values)
        return statistics.replace(
            observation=add(statistics.observation, chunks.observation[:, :-1]),
            discounted_return=statistics.discounted_return if returned is None
            else add(statistics.discounted_return, returned),
            value=add(statistics.value, values),
        )  # fmt: skip


def _estimate(
    config: ImpactConfig,
    statistics: PPOStatistics,
    hyper: PPOHyper,
    chunks: Chunk,
    value: Float[Array, "K T A"],
    next_value: Float[Array, "K T A"],
    ratio: Float[Array, "K T A"],
) -> tuple[Float[Array, "K T A"], Float[Array, "K T A"], Float[Array, "K T A"]]:
    """Advantages, value targets as the critic predicts them, and δ."""
    if statistics.value is not None:
        value, next_value = (running_stats.denormalize_values(statistics.value, v) for v in (value, next_value))

    def of_stream(
        reward: Array, value: Array, next_value: Array, terminated: Array, done: Array, ratio: Array
    ) -> tuple[Array, Array]:
        delta = temporal_differences(reward, value, next_value, terminated, hyper.gamma)
        return corrected_gae(delta, done, ratio, hyper.gamma, hyper.gae_lambda, config.ratio_limit), delta

    over_agents = jax.vmap(of_stream, in_axes=(1, 1, 1, None, None, 1), out_axes=1)
    reward = scaled_reward(statistics, chunks.reward)
    advantage, delta = jax.vmap(over_agents)(reward, value, next_value, chunks.terminated, chunks.done, ratio)
    target = advantage + value
    if statistics.value is not None:
        target = running_stats.normalize_values(statistics.value, target)
    return advantage, target, delta


def _mean(values: Float[Array, "*batch"], valid: Float[Array, "*batch"]) -> Float[Array, ""]:
    return (values * valid).sum() / jnp.maximum(valid.sum(), 1.0)
