"""The high level: advantages of decisions, and the coordinator's clipped policy and value losses over them."""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from jaxrl_engine.algos.hmasd.intervals import Rows, decision_gae, normalize_where
from jaxrl_engine.algos.hmasd.optimizer import Fitted, Learner
from jaxrl_engine.algos.hmasd.types import HMASDHyper
from jaxrl_engine.core.algo_config import PPOConfig
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf, PyTree
from jaxrl_engine.nets.skills import Coordinator
from jaxrl_engine.ops import losses


class Decisions(Struct):
    """What the coordinator's loss needs of each step; meaningful where a decision was made."""

    state: Float[Leaf, "*batch D"]  # normalised, flattened
    observation: Float[Leaf, "*batch A O"]
    skills: Int[Leaf, "*batch tokens"]
    log_prob: Float[Leaf, "*batch tokens"]
    value: Float[Leaf, "*batch tokens"]  # as the network gave it
    advantage: Float[Leaf, "*batch tokens"]
    target: Float[Leaf, "*batch tokens"]  # in the network's units


def advantages(
    hyper: HMASDHyper,
    reward: Float[Array, "T B"],
    decided: Bool[Array, "T B"],
    value: Float[Array, "T B tokens"],
    last_value: Float[Array, "B tokens"],
    end_value: Float[Array, "T B tokens"],
    done: Bool[Array, "T B"],
) -> tuple[Float[Array, "T B tokens"], Float[Array, "T B"]]:
    """`decision_gae` per environment and token, values in reward units: all tokens of a decision earn the same."""
    of_token = jax.vmap(decision_gae, in_axes=(None, None, -1, -1, -1, None, None, None), out_axes=(-1, None))
    of_env = jax.vmap(of_token, in_axes=(1, 1, 1, 0, 1, 1, None, None), out_axes=1)
    return of_env(reward, decided, value, last_value, end_value, done, hyper.gamma, hyper.gae_lambda)


def fit(
    coordinator: Coordinator, config: PPOConfig, hyper: HMASDHyper, learner: Learner, decisions: Decisions, rows: Rows
) -> Fitted:
    """`num_epochs` gradient steps, each over all decisions of the rollout.

    `decisions` are `[T · B, …]`; only the blocks of rows that hold decisions are computed.
    """
    total = jnp.maximum(rows.count, 1).astype(jnp.float32)

    def gradient(params: PyTree) -> tuple[Float[Array, "P"], dict[str, Array]]:
        def block(
            index: Array, weight: Array, so_far: tuple[Array, dict[str, Array]]
        ) -> tuple[Array, dict[str, Array]]:
            chosen = jax.tree.map(lambda leaf: leaf[index], decisions)
            of_params, metrics = jax.grad(_loss, argnums=2, has_aux=True)(
                coordinator, config, params, hyper, chosen, weight / total
            )
            worst = jnp.maximum(metrics.pop("RatioError"), so_far[1]["RatioError"])
            summed = {name: so_far[1][name] + x for name, x in metrics.items()}
            return so_far[0] + ravel_pytree(of_params)[0], {**summed, "RatioError": worst}

        nothing = dict.fromkeys(METRICS, jnp.zeros(()))
        return rows.fold(block, (jnp.zeros_like(learner.vector), nothing))

    return learner.descend(gradient, config.num_epochs)


METRICS = ("Total", "Policy", "Value", "Entropy", "ApproxKL", "ClipFraction", "RatioError")


def _loss(
    coordinator: Coordinator,
    config: PPOConfig,
    params: PyTree,
    hyper: HMASDHyper,
    decisions: Decisions,
    weight: Float[Array, "M"],
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """L = Σ w mean over tokens of ( surrogate + c_v value error − λ_h entropy ), Σ w = 1 (eqs. 5, 6)."""

    def mean(of_tokens: Float[Array, "M tokens"]) -> Float[Array, ""]:
        return (weight * of_tokens.mean(axis=-1)).sum()

    value, law = coordinator.apply(params, decisions.state, decisions.observation, decisions.skills)
    log_prob = law.log_prob(decisions.skills)
    surrogate = losses.clipped_surrogate(log_prob, decisions.log_prob, decisions.advantage, hyper.clip_epsilon)
    error = value_error(config, hyper, value, decisions.value, decisions.target)
    log_ratio = jax.lax.stop_gradient(log_prob - decisions.log_prob)
    policy, value_loss, entropy = mean(surrogate), mean(error), mean(law.entropy())
    total = policy + hyper.value_coefficient * value_loss - hyper.high_entropy * entropy
    here = weight[:, None] > 0.0
    return total, {
        "Total": total,
        "Policy": policy,
        "Value": value_loss,
        "Entropy": entropy,
        "ApproxKL": mean(losses.approximate_kl(log_ratio)),
        "ClipFraction": mean(losses.clip_fraction(log_ratio, hyper.clip_epsilon)),
        "RatioError": jnp.where(here, jnp.abs(jnp.exp(log_ratio) - 1.0), 0.0).max(),
    }


def value_error(
    config: PPOConfig, hyper: HMASDHyper, value: Float[Array, "*M"], old: Float[Array, "*M"], target: Float[Array, "*M"]
) -> Float[Array, "*M"]:
    """The value loss the settings ask for, clipped or not, squared or Huber's."""
    if config.clip_value:
        return losses.clipped_value_loss(value, old, target, hyper.clip_epsilon, config.huber_delta)
    return losses.value_loss(value, target, config.huber_delta)


def normalized(config: PPOConfig, advantage: Float[Array, "T B tokens"], decided: Bool[Array, "T B"]) -> Array:
    """Advantages of all decisions and tokens together, standardised if the settings say so."""
    return normalize_where(advantage, decided) if config.normalize_advantages else advantage
