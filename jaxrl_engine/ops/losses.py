"""Policy and value losses, per sample, and the statistics that say how an update went.

Losses are for descent and elementwise over arrays of any one shape (`*M`): take the mean outside, with the weights of
your choice. Log-probabilities are in nats.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

MAX_LOG_RATIO = 20.0
"""Probability ratios are held within e^±20: beyond, float32 overflows and its gradient becomes 0 · inf = NaN."""


def probability_ratio(log_prob: Float[Array, "*M"], behaviour_log_prob: Float[Array, "*M"]) -> Float[Array, "*M"]:
    """ρ = π(a|s) / μ(a|s), with log ρ held within ±`MAX_LOG_RATIO`."""
    return jnp.exp(jnp.clip(log_prob - behaviour_log_prob, -MAX_LOG_RATIO, MAX_LOG_RATIO))


def clipped_surrogate(
    log_prob: Float[Array, "*M"],
    behaviour_log_prob: Float[Array, "*M"],
    advantage: Float[Array, "*M"],
    clip_epsilon: Float[Array, ""] | float,
) -> Float[Array, "*M"]:
    """PPO's pessimistic policy loss: −min( ρ A, clip(ρ, 1 − ε, 1 + ε) A ).

    Its gradient is zero where the ratio has already left the interval in the direction the advantage asks for.
    Source: Schulman et al. 2017, arXiv:1707.06347, eq. 7.
    """
    ratio = probability_ratio(log_prob, behaviour_log_prob)
    clipped = jnp.clip(ratio, 1.0 - clip_epsilon, 1.0 + clip_epsilon)
    return -jnp.minimum(ratio * advantage, clipped * advantage)


def approximate_kl(log_ratio: Float[Array, "*M"]) -> Float[Array, "*M"]:
    """One-sample estimate of KL(μ ‖ π) from log ρ = log π − log μ: (ρ − 1) − log ρ, never negative, in nats.

    Its mean over actions drawn from μ is unbiased. Source: Schulman 2020, "Approximating KL divergence", k3.
    """
    # expm1 keeps the digits that exp(x) − 1 loses near 0, where the two terms nearly cancel.
    return jnp.expm1(jnp.minimum(log_ratio, MAX_LOG_RATIO)) - log_ratio


def clip_fraction(log_ratio: Float[Array, "*M"], clip_epsilon: Float[Array, ""] | float) -> Float[Array, "*M"]:
    """1 where the ratio lies outside [1 − ε, 1 + ε], 0 elsewhere; its mean is the clipped fraction."""
    outside = jnp.abs(jnp.expm1(jnp.minimum(log_ratio, MAX_LOG_RATIO))) > clip_epsilon
    return outside.astype(log_ratio.dtype)


def huber(error: Float[Array, "*M"], delta: float) -> Float[Array, "*M"]:
    """½ e² where |e| ≤ δ, δ (|e| − ½ δ) beyond: the gradient is e held within ±δ. Source: Huber 1964."""
    size = jnp.abs(error)
    return jnp.where(size <= delta, 0.5 * jnp.square(error), delta * (size - 0.5 * delta))


def value_loss(value: Float[Array, "*M"], target: Float[Array, "*M"], huber_delta: float = 0.0) -> Float[Array, "*M"]:
    """½ (V − target)², or Huber's loss of V − target where `huber_delta` > 0."""
    error = value - target
    return huber(error, huber_delta) if huber_delta > 0.0 else 0.5 * jnp.square(error)


def clipped_value_loss(
    value: Float[Array, "*M"],
    old_value: Float[Array, "*M"],
    target: Float[Array, "*M"],
    clip_epsilon: Float[Array, ""] | float,
    huber_delta: float = 0.0,
) -> Float[Array, "*M"]:
    """max( loss(V), loss(V_old + clip(V − V_old, ±ε)) ), by `value_loss`: no reward for moving further than ε at once.

    ε is in units of the value. Source: Schulman's baselines; Engstrom et al. 2020, arXiv:2005.12729, §3.
    """
    limited = old_value + jnp.clip(value - old_value, -clip_epsilon, clip_epsilon)
    return jnp.maximum(value_loss(value, target, huber_delta), value_loss(limited, target, huber_delta))


def explained_variance(prediction: Float[Array, "*M"], target: Float[Array, "*M"]) -> Float[Array, ""]:
    """1 − Var(target − prediction) / Var(target) over all elements; 0 where the targets do not vary."""
    variance = target.var()
    varies = variance > 0.0
    return jnp.where(varies, 1.0 - (target - prediction).var() / jnp.where(varies, variance, 1.0), 0.0)


def normalize_advantages(
    advantage: Float[Array, "*M"], weight: Float[Array, "*M"] | None = None, epsilon: float = 1e-8
) -> Float[Array, "*M"]:
    """Zero mean and unit population deviation over all elements, weighted if asked: (A − mean) / √(variance + ε²).

    ε only keeps equal advantages finite (they become 0). A single advantage is returned as it is: centring would
    erase it.
    """
    if advantage.size == 1:
        return advantage
    centred = advantage - jnp.average(advantage, weights=weight)
    # The mean is rounded to its own size: without a second pass, equal advantages leave that error as their deviation.
    centred = centred - jnp.average(centred, weights=weight)
    return centred / jnp.sqrt(jnp.average(jnp.square(centred), weights=weight) + epsilon**2)
