"""What the updates of the PPO family share: advantages, the loss, gradient steps, and the refusal of broken ones."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Key

from jaxrl_engine.algos.minibatches import Minibatch, Passes, scan_minibatches
from jaxrl_engine.algos.ppo_statistics import scaled_reward
from jaxrl_engine.algos.ppo_types import PPOHyper, PPOStatistics, Samples
from jaxrl_engine.core.algo_config import PPOConfig
from jaxrl_engine.core.types import PyTree, TrainState, Transition
from jaxrl_engine.ops import losses, running_stats
from jaxrl_engine.ops.returns import gae

Metrics: TypeAlias = dict[str, Float[Array, ""]]
Loss: TypeAlias = Callable[[PyTree, PPOHyper, Minibatch], tuple[Float[Array, ""], Metrics]]


def begin(config: PPOConfig, params: PyTree, statistics: PPOStatistics, hyper: PPOHyper) -> TrainState:
    """The state of a run that has not learned yet."""
    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        params=params, optimizer=optimizer(config, hyper).init(ravel_pytree(params)[0]), statistics=statistics,
        hyper=hyper, policy_version=zero, skipped_updates=zero, skipped_in_a_row=zero,
    )  # fmt: skip


def values_and_next(
    predict: Callable[[Array], Float[Array, "*batch A"]],
    seen: Float[Array, "T ..."],
    last: Float[Array, "..."],
    final: Callable[[], Float[Array, "T ..."]],
    truncated: Bool[Array, "T B"],
) -> tuple[Float[Array, "T B A"], Float[Array, "T B A"]]:
    """Values of what a critic without memory has `seen` `[T, B, …]` and of the true next time steps, in one pass.

    `last` `[B, …]` follows the rollout; the true next ones, `final()`, are looked at only where an episode was cut.
    """

    def over_time(streams: Float[Array, "T ..."]) -> Float[Array, "T B A"]:
        # Networks merge the axes of a batch. With environments in front, those of a device stay together.
        return jnp.moveaxis(predict(jnp.moveaxis(streams, 0, 1)), 0, 1)

    values = over_time(jnp.concatenate([seen, last[None]]))
    following = values[1:]
    next_value = jax.lax.cond(
        truncated.any(), lambda: jnp.where(truncated[..., None], over_time(final()), following), lambda: following
    )
    return values[:-1], next_value


def estimate(
    steps: Transition,
    value: Float[Array, "T B A"],
    next_value: Float[Array, "T B A"],
    statistics: PPOStatistics,
    hyper: PPOHyper,
) -> tuple[Float[Array, "T B A"], Float[Array, "T B A"]]:
    """Advantages in units of the (scaled) reward, and value targets in those of the critic.

    `value` and `next_value` are as the critic predicts them: standardised where the statistics have values.
    """
    reward = scaled_reward(statistics, steps.reward)
    if statistics.value is not None:
        value, next_value = (running_stats.denormalize_values(statistics.value, v) for v in (value, next_value))
    over_streams = jax.vmap(jax.vmap(gae, in_axes=(1, 1, 1, None, None, None, None), out_axes=1),
                            in_axes=(1, 1, 1, 1, 1, None, None), out_axes=1)  # fmt: skip
    advantage, target = over_streams(
        reward, value, next_value, steps.terminated, steps.done, hyper.gamma, hyper.gae_lambda
    )
    if statistics.value is not None:
        target = running_stats.normalize_values(statistics.value, target)
    return advantage, target


class Averages(NamedTuple):
    """How a minibatch's samples become one number of each kind."""

    actor: Callable[[Array], Array]  # of the surrogate and the entropy
    critic: Callable[[Array], Array]  # of the value errors
    plain: Callable[[Array], Array]  # of what is only looked at
    greatest: Callable[[Array], Array]


EQUAL = Averages(actor=jnp.mean, critic=jnp.mean, plain=jnp.mean, greatest=jnp.max)


def ppo_loss(
    config: PPOConfig,
    hyper: PPOHyper,
    samples: Samples,
    log_prob: Float[Array, "*batch"],
    entropy: Float[Array, "*batch"],
    value: Float[Array, "*batch"],
    averages: Averages = EQUAL,
) -> tuple[Float[Array, ""], Metrics]:
    """L = E[ policy surrogate + c_v value error − c_e entropy ] (Schulman et al. 2017, eq. 9, signs for descent).

    `log_prob`, `entropy` and `value` are those of the parameters being learned, for the samples' observations.
    """
    surrogate = losses.clipped_surrogate(log_prob, samples.log_prob, samples.advantage, hyper.clip_epsilon)
    if config.clip_value:
        errors = losses.clipped_value_loss(value, samples.value, samples.target, hyper.clip_epsilon, config.huber_delta)
    else:
        errors = losses.value_loss(value, samples.target, config.huber_delta)
    policy, mean_entropy, value_error = averages.actor(surrogate), averages.actor(entropy), averages.critic(errors)
    total = policy + hyper.value_coefficient * value_error - hyper.entropy_coefficient * mean_entropy
    log_ratio = jax.lax.stop_gradient(log_prob - samples.log_prob)
    return total, {
        "Losses/Total": total,
        "Losses/Policy": policy,
        "Losses/Value": value_error,
        "Losses/Entropy": mean_entropy,
        "Losses/ApproxKL": averages.plain(losses.approximate_kl(log_ratio)),
        "Losses/ClipFraction": averages.plain(losses.clip_fraction(log_ratio, hyper.clip_epsilon)),
        "Losses/RatioError": averages.greatest(jnp.abs(jnp.exp(log_ratio) - 1.0)),
    }


def gradient(
    loss: Loss, config: PPOConfig, params: PyTree, hyper: PPOHyper, batch: Minibatch
) -> tuple[PyTree, Metrics]:
    """Gradient of the mean loss over a minibatch, in `accumulate_gradients` parts of equal size."""
    if config.normalize_advantages:
        batch = batch.replace(samples=batch.samples.with_advantage(batch.beforehand))
    gradient_of = jax.grad(loss, has_aux=True)
    parts = config.accumulate_gradients
    if parts == 1:
        return gradient_of(params, hyper, batch)
    summed = jax.lax.map(lambda part: gradient_of(params, hyper, part), batch.split(parts))
    return jax.tree.map(lambda leaf: leaf.mean(axis=0), summed)


def improve(
    loss: Loss, config: PPOConfig, train_state: TrainState, samples: PyTree, memory: PyTree, key: Key[Array, ""]
) -> tuple[TrainState, Metrics]:
    """Take `num_epochs × num_minibatches` gradient steps on samples `[T, B, …]`; statistics stay as they are.

    `samples` are `Samples`, or others that have a `value`, a `target`, and advantages to be normalised. `memory`
    `[B, …]` is that of recurrent networks at the rollout's start, else None. The key is consumed. Whether the result
    may be kept is for `keep_if_finite` to say.
    """
    hyper = train_state.hyper
    adam = optimizer(config, hyper)
    # As one vector: a CPU spends more on starting a dozen small kernels per step than on their arithmetic.
    vector, to_params = ravel_pytree(train_state.params)

    def gradient_step(
        learner: tuple[Float[Array, "P"], PyTree], batch: Minibatch
    ) -> tuple[tuple[Float[Array, "P"], PyTree], Metrics]:
        vector, opt_state = learner
        of_params, metrics = gradient(loss, config, to_params(vector), hyper, batch)
        flat = ravel_pytree(of_params)[0]
        changes, opt_state = adam.update(flat, opt_state, vector)
        metrics["Losses/GradientNorm"] = optax.tree.norm(flat)
        return (vector + changes, opt_state), metrics

    (vector, opt_state), metrics = scan_minibatches(
        gradient_step, (vector, train_state.optimizer), samples, memory, key,
        Passes(config.num_epochs, config.num_minibatches, config.shuffle_groups),
        beforehand=lambda samples: samples.normalized_advantage() if config.normalize_advantages else None,
    )  # fmt: skip
    summary = {name: values.mean() for name, values in metrics.items()}
    summary["Losses/FirstRatioError"] = metrics["Losses/RatioError"][0]
    del summary["Losses/RatioError"]
    summary["Losses/ExplainedVariance"] = losses.explained_variance(samples.value, samples.target)
    steps_taken = train_state.policy_version * (config.num_epochs * config.num_minibatches)
    summary["Losses/LearningRate"] = learning_rate(config, hyper, steps_taken)
    learned = train_state.replace(
        params=to_params(vector), optimizer=opt_state, policy_version=train_state.policy_version + 1
    )
    return learned, summary


def keep_if_finite(learned: TrainState, before: TrainState, summary: Metrics) -> TrainState:
    """What was learned, or, where a loss or gradient was not finite, all as it was before; counts the refusals."""
    finite = jnp.isfinite(summary["Losses/Total"]) & jnp.isfinite(summary["Losses/GradientNorm"])
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), learned, before)
    return kept.replace(
        skipped_updates=kept.skipped_updates + ~finite,
        skipped_in_a_row=jnp.where(finite, 0, kept.skipped_in_a_row + 1),
    )


def optimizer(config: PPOConfig, hyper: PPOHyper) -> optax.GradientTransformation:
    """Adam on gradients clipped by their global norm; its state belongs to the parameters as one vector."""
    return optax.chain(
        optax.clip_by_global_norm(hyper.max_grad_norm),
        optax.adam(lambda count: learning_rate(config, hyper, count), eps=config.adam_epsilon),
    )


def learning_rate(config: PPOConfig, hyper: PPOHyper, steps_taken: Array) -> Float[Array, ""]:
    """Step size after `steps_taken` gradient steps: constant, or falling linearly to zero."""
    total = hyper.anneal_updates * (config.num_epochs * config.num_minibatches)
    return hyper.learning_rate * jnp.maximum(1.0 - steps_taken / total, 0.0)
