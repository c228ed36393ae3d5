"""Returns and advantages of one stream `[T]`; `vmap` them over environments and agents.

Every function here follows the same bootstrapping rule. `next_value[t]` is the value of the observation the world
really went to at step `t`, before any reset. A step that *terminated* bootstraps from nothing; one that was *truncated*
bootstraps from `next_value[t]`; either way (`done`) nothing from after the reset flows back into the old episode.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def gae(
    reward: Float[Array, "T"],
    value: Float[Array, "T"],
    next_value: Float[Array, "T"],
    terminated: Bool[Array, "T"],
    done: Bool[Array, "T"],
    gamma: Float[Array, ""] | float,
    gae_lambda: Float[Array, ""] | float,
    *,
    unroll: int = 1,
) -> tuple[Float[Array, "T"], Float[Array, "T"]]:
    """Generalised advantage estimation; returns the advantages and the value targets `A + V`.

    δ_t = r_t + γ (1 − terminated_t) V(s'_t) − V(s_t),  A_t = δ_t + γ λ (1 − done_t) A_{t+1},  A_T = 0

    `done` is terminated or truncated. `unroll` steps of the scan become one (1 is fastest on CPU).
    Source: Schulman et al. 2016, arXiv:1506.02438, eqs. 11–16; for truncation Pardo et al. 2018, arXiv:1712.00378.
    """
    delta = temporal_differences(reward, value, next_value, terminated, gamma)
    decay = jnp.where(done, 0.0, jnp.asarray(gamma * gae_lambda, reward.dtype))
    advantage = _discounted_sum(delta, decay, jnp.zeros((), reward.dtype), unroll)
    return advantage, advantage + value


def corrected_gae(
    delta: Float[Array, "T"],
    done: Bool[Array, "T"],
    ratio: Float[Array, "T"],
    gamma: Float[Array, ""] | float,
    gae_lambda: Float[Array, ""] | float,
    ratio_limit: Float[Array, ""] | float = 1.0,
) -> Float[Array, "T"]:
    """Advantages by GAE of data that another policy collected; the value targets are `A + V`.

    ρ_t = min(ρ̄, π/μ),  c_t = λ min(1, π/μ),  A_t = ρ_t δ_t + γ c_t (1 − done_t) A_{t+1},  A_T = 0

    `delta` are `temporal_differences`; `ratio` is π(a|s) / μ(a|s), of the policy advantages are for over the one that
    acted, ρ̄ = `ratio_limit`. Where the two are one policy and ρ̄ ≥ 1 this is `gae`; with λ = 1 the value targets are
    V-trace's. Source: Espeholt et al. 2018, arXiv:1802.01561, eq. 1; Luo et al. 2020, arXiv:1912.00167.
    """
    decay = jnp.where(done, 0.0, gamma * gae_lambda * jnp.minimum(ratio, 1.0)).astype(delta.dtype)
    return _discounted_sum(jnp.minimum(ratio, ratio_limit) * delta, decay, jnp.zeros((), delta.dtype), 1)


def temporal_differences(
    reward: Float[Array, "T"],
    value: Float[Array, "T"],
    next_value: Float[Array, "T"],
    terminated: Bool[Array, "T"],
    gamma: Float[Array, ""] | float,
) -> Float[Array, "T"]:
    """δ_t = r_t + γ (1 − terminated_t) V(s'_t) − V(s_t)."""
    return reward + gamma * jnp.where(terminated, 0.0, next_value) - value


def discounted_returns(
    reward: Float[Array, "T"],
    next_value: Float[Array, "T"],
    terminated: Bool[Array, "T"],
    done: Bool[Array, "T"],
    gamma: Float[Array, ""] | float,
    *,
    unroll: int = 1,
) -> Float[Array, "T"]:
    """Discounted sum of rewards to the end of the episode or of the stream, the rest bootstrapped.

    G_t = r_t + γ ( G_{t+1} if the episode goes on, else (1 − terminated_t) V(s'_t) ),  G_T = V(s'_{T−1})

    Equals the value targets of `gae` with λ = 1.
    """
    bootstrap = gamma * jnp.where(terminated, 0.0, next_value)
    earned = reward + jnp.where(done, bootstrap, 0.0)
    decay = jnp.where(done, 0.0, jnp.asarray(gamma, reward.dtype))
    return _discounted_sum(earned, decay, next_value[-1], unroll)


def _discounted_sum(
    term: Float[Array, "T"], decay: Float[Array, "T"], after: Float[Array, ""], unroll: int
) -> Float[Array, "T"]:
    """S_t = term_t + decay_t S_{t+1} with S_T = `after`. The body holds nothing but this: it runs T times in a row."""

    def step(following: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        total = now[0] + now[1] * following
        return total, total

    return jax.lax.scan(step, after, (term, decay), reverse=True, unroll=unroll)[1]
