"""What a run of this mode leaves behind: the repertoire as tables, pictures and a report."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_engine.core.types import PyTree
from jaxrl_engine.envs.protocol import Embodied
from jaxrl_engine.modes.build import Build
from jaxrl_engine.modes.fused import RunState
from jaxrl_engine.modes.map_elites.elites import EliteResults
from jaxrl_engine.modes.map_elites.evolution import Evolution, Population
from jaxrl_engine.modes.map_elites.judge import embody
from jaxrl_engine.modes.record import film, watch
from jaxrl_engine.qd.arms import Arms
from jaxrl_engine.runtime.drawing import draw_film, save_gif
from jaxrl_engine.runtime.errors import RunError, one_line
from jaxrl_engine.runtime.evolution import EvolutionRecord, save_tables
from jaxrl_engine.runtime.evolution_pictures import draw_all
from jaxrl_engine.runtime.evolution_report import best_by_links, write_report

DIRECTORY = "repertoire"
MOST_FRAMES = 200
FILM_STREAM = 6
"""Folded into a run's seed key: the episodes of its film are no others'."""


def leave_elites(
    run_dir: Path, built: Build, evolution: Evolution, state: RunState, results: EliteResults, summary: dict[str, Any]
) -> None:
    """Write tables, pictures and report of a run, of each of its seeds in a directory of its own.

    `results` are those of the last evaluation, of `state`.

    Raises:
        RunError: the disk does not take them; the checkpoints stand.
    """
    population: Population = jax.device_get(state.actor)
    rows = _rows(run_dir / "metrics.jsonl")
    labels = [""] if built.num_runs is None else [f"_{i}" for i in range(built.num_runs)]
    steps = int(np.max(state.updates)) * built.config.samples_per_update
    for index, label in enumerate(labels):

        def of_run(tree: PyTree, index: int = index, several: bool = bool(label)) -> PyTree:
            return jax.tree.map(lambda leaf: leaf[index], tree) if several else tree

        seen, bodies = of_run(results), of_run(population)
        record = make_record(evolution, seen, bodies, steps)
        directory = run_dir / f"{DIRECTORY}{label}"
        try:
            directory.mkdir(exist_ok=True)
            save_tables(record, directory)
            film_elites(built, of_run(state), record, directory / "elites.gif")
            draw_all(record, rows, directory)
            write_report(record, rows, directory, summary)
        except OSError as error:
            raise RunError(f"{directory}: {one_line(error)}") from error


def make_record(evolution: Evolution, results: EliteResults, population: Population, env_steps: int) -> EvolutionRecord:
    """Gather what is known of one run's repertoire; elites' successes are those of fresh targets."""
    space, repertoire = evolution.space, population.repertoire
    arms: Arms = repertoire.genotypes
    success = np.asarray(results.episodes.metrics["success"])
    successes, trials = (np.zeros(space.cells.num_cells, np.int64) for _ in range(2))
    cells = space.judged
    held = np.asarray(results.held)
    successes[cells[held]], trials[cells[held]] = success.sum(axis=1)[held], success.shape[1]
    return EvolutionRecord(
        title=f"{evolution.env.spec.name}: {int(repertoire.occupied.sum())} elites",
        axes=space.names, shape=getattr(space.cells, "shape", None), low=space.low, high=space.high,
        centroids=space.in_units(np.asarray(space.cells.centroids)), feasible=space.feasible,
        feasible_is_estimate=not space.exact, fitness=np.asarray(repertoire.fitness),
        archived=np.asarray(repertoire.archived), policy_version=np.asarray(repertoire.policy_version),
        born=np.asarray(repertoire.born), evaluations=np.asarray(repertoire.evaluations),
        lengths=np.asarray(arms.lengths), counts=np.asarray(arms.count), thickness=np.asarray(arms.thickness),
        gear=np.asarray(arms.gear), descriptors=space.in_units(np.asarray(repertoire.descriptors)),
        successes=successes, trials=trials, history_fitness=np.asarray(population.history.fitness),
        history_generation=np.asarray(population.history.generation), env_steps=env_steps,
        evaluation_steps=int(population.evaluation_steps), generations=int(population.generation),
    )  # fmt: skip


def film_elites(built: Build, state: RunState, record: EvolutionRecord, path: Path) -> None:
    """Film one episode of the fittest elite of each number of links, side by side."""
    cells = best_by_links(record)
    if not cells:
        return
    arms = jax.tree.map(lambda leaf: jnp.asarray(leaf)[jnp.asarray(cells)], state.actor.repertoire.genotypes)
    assert isinstance(built.env, Embodied)  # `modes.build` admits no other
    bodies = dataclasses.replace(built, env_params=embody(built.env, arms))
    limit = min(MOST_FRAMES, built.env.spec.time_limit or MOST_FRAMES)
    key = jax.random.fold_in(jax.random.key(built.config.seed), FILM_STREAM)
    watched = watch(bodies, state.train_state, key, len(cells), limit, params_axis=0)
    if watched is not None:
        save_gif(draw_film(film(watched, [f"cell {cell}" for cell in cells])), path)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
