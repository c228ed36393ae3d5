"""Who recognises skills from where they lead: their scores, which are the discoverer's reward, and their training."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from jaxrl_engine.algos.hmasd.optimizer import Fitted, Learner
from jaxrl_engine.algos.hmasd.types import HMASDHyper
from jaxrl_engine.core.hmasd_config import HMASDConfig
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf, PyTree
from jaxrl_engine.nets.skills import Discriminator


class Outcomes(Struct):
    """Where skills led: the true next state and observations of every step, normalised and flattened."""

    state: Float[Leaf, "T B D"]
    observation: Float[Leaf, "T B A O"]
    skills: Int[Leaf, "T B tokens"]


def team_scores(network: Discriminator, params: PyTree, outcomes: Outcomes) -> Float[Array, "T B"]:
    """log q_D(Z | s'), in nats."""
    rows = outcomes.state.reshape(-1, outcomes.state.shape[-1])
    team = outcomes.skills[..., 0]
    return _chosen(network.apply(params, rows), team.reshape(-1)).reshape(team.shape)


def individual_scores(
    network: Discriminator, params: PyTree, outcomes: Outcomes, team_skills: int
) -> Float[Array, "T B A"]:
    """log q_d(zⁱ | o'ⁱ, Z), in nats."""
    skill = outcomes.skills[..., 1:]
    team = jnp.broadcast_to(outcomes.skills[..., :1], skill.shape)
    rows = outcomes.observation.reshape(-1, outcomes.observation.shape[-1])
    log_q = network.apply(params, rows, jax.nn.one_hot(team.reshape(-1), team_skills))
    return _chosen(log_q, skill.reshape(-1)).reshape(skill.shape)


def rewards(
    config: HMASDConfig,
    hyper: HMASDHyper,
    extrinsic: Float[Array, "T B A"],
    team: Float[Array, "T B"],
    individual: Float[Array, "T B A"],
) -> Float[Array, "T B A"]:
    """rⁱ = λ_e r + λ_D log q_D(Z | s') + λ_d log q_d(zⁱ | o'ⁱ, Z) (eq. 4), from the scores.

    With `subtract_prior` each logarithm is taken relative to the uniform prior: a blind guess then earns 0.
    """
    if config.subtract_prior:
        team, individual = team + math.log(config.team_skills), individual + math.log(config.individual_skills)
    return (
        hyper.extrinsic * extrinsic
        + hyper.team_discriminator * team[..., None]
        + hyper.individual_discriminator * individual
    )


def fit(
    networks: tuple[Discriminator, Discriminator],
    config: HMASDConfig,
    learners: tuple[Learner, Learner],
    outcomes: Outcomes,
) -> tuple[Fitted, Fitted]:
    """Cross-entropy on the current rollout, `discriminator_epochs` steps over the whole of it for each network."""

    def team(params: PyTree) -> Float[Array, ""]:
        return -team_scores(networks[0], params, outcomes).mean()

    def individual(params: PyTree) -> Float[Array, ""]:
        return -individual_scores(networks[1], params, outcomes, config.team_skills).mean()

    def train(learner: Learner, loss: Callable[[PyTree], Array]) -> Fitted:
        def gradient(params: PyTree) -> tuple[Float[Array, "P"], dict[str, Array]]:
            value, of_params = jax.value_and_grad(loss)(params)
            return ravel_pytree(of_params)[0], {"Total": value}

        return learner.descend(gradient, config.discriminator_epochs)

    return train(learners[0], team), train(learners[1], individual)


def _chosen(log_q: Float[Array, "M n"], skill: Int[Array, "M"]) -> Float[Array, "M"]:
    """Row by row the entry of the skill, as a masked sum: its gradient is no scatter."""
    return jnp.sum(log_q, axis=-1, where=skill[:, None] == jnp.arange(log_q.shape[-1])[None])
