"""The repertoire looked at from outside: its elites on fresh targets, in numbers and as a record to be drawn."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Key

from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf, TrainState
from jaxrl_engine.modes.evaluate import EpisodeResults, greedy_policy, mixed_policy
from jaxrl_engine.modes.fused import RunState
from jaxrl_engine.modes.map_elites.evolution import Evolution, Population
from jaxrl_engine.modes.map_elites.judge import judge
from jaxrl_engine.qd import repertoire as archive
from jaxrl_engine.qd.arms import Arms, random_arms
from jaxrl_engine.qd.repertoire import Repertoire


class EliteResults(Struct):
    """What elites did on fresh targets; a row for each judged cell, meaningful where it holds an elite."""

    episodes: EpisodeResults  # [*batch, F, episodes]
    held: Bool[Leaf, "*batch F"]
    repertoire: Repertoire


def evaluation(evolution: Evolution, episodes: int) -> Callable[..., EliteResults]:
    """Return the function `(train state, repertoire, key, uniform) -> results` of one run, to be compiled.

    Targets and starts are drawn from the key: none of those that elites were chosen on. With `uniform` the actions are
    random, and so are the bodies.
    """
    cells = evolution.space.judged
    algorithm, env = evolution.practice.algorithm, evolution.env

    def one_run(
        train_state: TrainState, repertoire: Repertoire, key: Key[Array, ""], uniform: Bool[Array, ""]
    ) -> EliteResults:
        key_random, key_judge = jax.random.split(key)
        elites = jax.tree.map(lambda leaf: leaf[cells], repertoire.genotypes)
        others = random_arms(key_random, evolution.config, len(cells))
        arms: Arms = jax.tree.map(lambda random, elite: jnp.where(uniform, random, elite), others, elites)
        policy = mixed_policy(env.spec.action, greedy_policy(algorithm, train_state), uniform)
        results = judge(policy, algorithm.initial_carry, env, key_judge, arms, episodes)
        return EliteResults(episodes=results, held=repertoire.occupied[cells] | uniform, repertoire=repertoire)

    return one_run


def summarize_elites(results: EliteResults, feasible: Bool[np.ndarray, "N"]) -> dict[str, Any]:
    """Return means over elites and their fresh episodes, and what the repertoire is worth under the current policy.

    `coverage` is of the feasible cells; `qd_score` adds up the elites' success rates. With several runs each name has a
    list `<name>_per_seed` beside it.
    """
    if np.ndim(results.held) == 1:
        return _of_one(results, feasible)
    runs = [_of_one(jax.tree.map(lambda leaf, i=i: leaf[i], results), feasible) for i in range(len(results.held))]
    summary: dict[str, Any] = {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        known = [value for value in values if value is not None]
        summary |= {name: float(np.mean(known)) if known else None, f"{name}_per_seed": values}
    return summary


def _of_one(results: EliteResults, feasible: Bool[np.ndarray, "N"]) -> dict[str, Any]:
    held, episodes = np.asarray(results.held), results.episodes
    values = {"return": episodes.episode_return, "length": episodes.episode_length, **episodes.metrics}
    success = np.asarray(episodes.metrics["success"]).mean(axis=1)
    means = {
        "success_rate" if name == "success" else name: float(np.asarray(value)[held].mean()) if held.any() else None
        for name, value in values.items()
    }
    return {
        **means,
        "qd_score": float(success[held].sum()),
        "coverage": float(archive.coverage(results.repertoire, jnp.asarray(feasible))),
        "elites": int(np.asarray(results.repertoire.occupied).sum()),
    }


def population_of(state: RunState) -> Population:
    """What a run of this mode keeps beside its learner."""
    population = state.actor
    assert isinstance(population, Population)
    return population
