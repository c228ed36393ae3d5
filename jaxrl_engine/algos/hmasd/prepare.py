"""From a rollout to what the losses need: rewards of both levels, advantages, targets, and what was measured."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxrl_engine.algos.hmasd import coordinator, discoverer, discriminators, summary
from jaxrl_engine.algos.hmasd.bootstrap import Beyond, Seen, following, values_beyond
from jaxrl_engine.algos.hmasd.coordinator import Decisions
from jaxrl_engine.algos.hmasd.discoverer import LowMemory, LowSamples
from jaxrl_engine.algos.hmasd.discriminators import Outcomes
from jaxrl_engine.algos.hmasd.networks import Networks
from jaxrl_engine.algos.hmasd.types import HMASDExtras, HMASDHyper, HMASDParams, HMASDStatistics
from jaxrl_engine.core.algo_config import PPOConfig
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf, TrainState, Trajectory, Transition
from jaxrl_engine.ops import losses, running_stats
from jaxrl_engine.ops.running_stats import RunningStatistics


class Prepared(Struct):
    decisions: Decisions  # [T, B]
    decided: Bool[Leaf, "T B"]
    samples: LowSamples  # [T, B]
    memory: LowMemory  # [T, B]
    outcomes: Outcomes
    statistics: HMASDStatistics  # those of the value targets have moved on
    metrics: summary.Metrics


class Ends(Struct):
    """How each step ended, in the sense each level has of it."""

    terminated: Bool[Leaf, "T B"]
    done: Bool[Leaf, "T B"]
    high_terminated: Bool[Leaf, "T B"]
    high_done: Bool[Leaf, "T B"]


def prepare(networks: Networks, ppo: PPOConfig, train_state: TrainState, trajectory: Trajectory) -> Prepared:
    """Score, value and judge a rollout `[T, B]` with the parameters and statistics it was collected under."""
    steps, hyper, statistics = trajectory.transitions, train_state.hyper, train_state.statistics
    params: HMASDParams = train_state.params
    extras: HMASDExtras = steps.extras
    seen = Seen.of(statistics, steps.global_state, steps.observation, 2)
    final = Seen.of(statistics, steps.final_global_state, steps.final_observation, 2)
    last = Seen.at(statistics, trajectory.last)
    outcomes = _outcomes(networks, seen, final, last, extras)
    team = discriminators.team_scores(networks.team_discriminator, params.team_discriminator, outcomes)
    individual = discriminators.individual_scores(
        networks.individual_discriminator, params.individual_discriminator, outcomes, networks.config.team_skills
    )
    reward = discriminators.rewards(networks.config, hyper, steps.reward, team, individual)
    ends = _ends(networks, steps, extras.decided)
    beyond = values_beyond(networks, params, trajectory, seen, final, last, ends.done & ~ends.terminated)
    samples, low = _low(hyper, statistics, steps, seen, (reward, beyond, ends), ppo)
    decisions, high = _high(hyper, statistics, steps, seen, (beyond, ends), ppo)
    metrics = summary.of_skills(networks.config, extras.skills, team, individual) | low[1] | high[1]
    metrics |= summary.of_rewards(reward, team, individual, hyper)
    metrics |= summary.of_buffers(steps, train_state.policy_version)
    return Prepared(
        decisions=decisions, decided=extras.decided, samples=samples,
        memory=LowMemory(actor=extras.actor_memory, critic=extras.critic_memory), outcomes=outcomes,
        statistics=statistics.replace(high_value=high[0], low_value=low[0]), metrics=metrics,
    )  # fmt: skip


def _outcomes(networks: Networks, seen: Seen, final: Seen, last: Seen, extras: HMASDExtras) -> Outcomes:
    led_to = final
    if networks.config.quirks == "source":
        led_to = jax.tree.map(lambda here, after: jnp.concatenate([here[1:], after[None]]), seen, last)
    return Outcomes(state=led_to.state, observation=led_to.observation, skills=extras.skills)


def _ends(networks: Networks, steps: Transition, decided: Bool[Array, "T B"]) -> Ends:
    terminated, done = jnp.asarray(steps.terminated), steps.done
    if networks.config.quirks == "none":
        return Ends(terminated=terminated, done=done, high_terminated=terminated, high_done=done)
    closing = jnp.concatenate([decided[1:], jnp.ones_like(decided[:1])])
    return Ends(terminated=done, done=done, high_terminated=done & closing, high_done=done & closing)


def _low(
    hyper: HMASDHyper, statistics: HMASDStatistics, steps: Transition, seen: Seen,
    given: tuple[Float[Array, "T B A"], Beyond, Ends], ppo: PPOConfig,
) -> tuple[LowSamples, tuple[RunningStatistics | None, summary.Metrics]]:  # fmt: skip
    """The discoverer's samples, the statistics of its targets, and how well its values explained them."""
    reward, beyond, ends = given
    extras: HMASDExtras = steps.extras
    value = in_reward_units(statistics.low_value, extras.value)
    next_value = in_reward_units(statistics.low_value, following(extras, beyond, ends.done))
    advantage, target = discoverer.advantages(hyper, reward, value, next_value, ends.terminated, ends.done)
    moved = None if statistics.low_value is None else running_stats.update(statistics.low_value, target)
    samples = LowSamples(
        observation=seen.observation, state=seen.state, action_mask=steps.action_mask, action=steps.action,
        log_prob=steps.log_prob, skills=extras.skills, value=extras.value,
        advantage=losses.normalize_advantages(advantage) if ppo.normalize_advantages else advantage,
        target=in_network_units(moved, target), is_first=steps.is_first,
    )  # fmt: skip
    explained = losses.explained_variance(jnp.broadcast_to(value[..., None], target.shape), target)
    return samples, (moved, {"Losses/Discoverer/ExplainedVariance": explained})


def _high(
    hyper: HMASDHyper, statistics: HMASDStatistics, steps: Transition, seen: Seen,
    given: tuple[Beyond, Ends], ppo: PPOConfig,
) -> tuple[Decisions, tuple[RunningStatistics | None, summary.Metrics]]:  # fmt: skip
    """The coordinator's decisions on the grid, the statistics of its targets, and what its intervals earned."""
    beyond, ends = given
    extras: HMASDExtras = steps.extras
    decided = jnp.asarray(extras.decided)
    value, last, final = (
        in_reward_units(statistics.high_value, each)
        for each in (extras.skill_value, beyond.last_high, beyond.final_high)
    )
    end = jnp.where(ends.high_terminated[..., None], 0.0, final)
    advantage, earned = coordinator.advantages(
        hyper, jnp.asarray(steps.reward).mean(axis=-1), decided, value, last, end, jnp.asarray(ends.high_done)
    )
    target = advantage + value
    counted = jnp.broadcast_to(decided[..., None], target.shape)
    moved = None if statistics.high_value is None else running_stats.update(statistics.high_value, target, counted)
    decisions = Decisions(
        state=seen.state, observation=seen.observation, skills=extras.skills, log_prob=extras.skill_log_prob,
        value=extras.skill_value, advantage=coordinator.normalized(ppo, advantage, decided),
        target=in_network_units(moved, target),
    )  # fmt: skip
    return decisions, (moved, summary.of_decisions(decided, earned))


def in_reward_units(statistics: RunningStatistics | None, value: Array) -> Array:
    """From what a critic predicts to what it means."""
    return jnp.asarray(value) if statistics is None else running_stats.denormalize_values(statistics, value)


def in_network_units(statistics: RunningStatistics | None, value: Array) -> Array:
    """From a value to what a critic should predict for it."""
    return value if statistics is None else running_stats.normalize_values(statistics, value)
