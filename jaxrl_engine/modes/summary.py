"""What a run says of itself at its end, in numbers and in pictures."""

import importlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl_engine.algos.hmasd.learner import HMASD
from jaxrl_engine.core.types import TrainState
from jaxrl_engine.modes.build import Build
from jaxrl_engine.modes.fused import FusedProgram
from jaxrl_engine.modes.record import skill_maps
from jaxrl_engine.modes.session import Outcome
from jaxrl_engine.runtime.devices import environment_record, peak_memory_bytes
from jaxrl_engine.runtime.drawing import save_maps
from jaxrl_engine.runtime.errors import RunError, one_line
from jaxrl_engine.runtime.progress import Progress
from jaxrl_engine.runtime.run_directory import RunDirectory


def summarize_run(
    built: Build, outcome: Outcome, updates_here: int, compile_seconds: float, random: dict[str, Any]
) -> dict[str, Any]:
    """Return what summary.json holds; `updates_here` are those of this process's share of the run."""
    config = built.config
    steps_here = updates_here * config.samples_per_update
    record = environment_record()
    summary = {
        "mode": config.mode,
        "env": config.env,
        "algo": config.algo,
        "seed": config.seed,
        "num_seeds": config.num_seeds,
        "status": outcome.status,
        "message": outcome.message,
        "env_steps": outcome.updates * config.samples_per_update,
        "updates": outcome.updates,
        "wall_seconds": outcome.train_seconds + compile_seconds,
        "compile_seconds": compile_seconds,
        "steps_per_second": steps_here / outcome.train_seconds if outcome.train_seconds else None,
        "eval": outcome.evaluation,
        "random_policy": random,
        "peak_memory_bytes": peak_memory_bytes(),
        "platform": record.pop("platform"),
        "versions": record,
    }
    if built.num_runs is not None:
        summary["runs"] = built.run_labels
    return summary


def describe_model(built: Build, train_state: TrainState) -> str:
    """Say what learns, and how large it is."""
    config = built.config
    network = f" with network.torso {config.network.torso}" if config.algo in ("ppo", "mappo", "impact") else ""
    numbers = sum(leaf.size for leaf in jax.tree.leaves(train_state.params)) // (built.num_runs or 1)
    several = "" if built.num_runs is None else f", {built.num_runs} times"
    return f"{config.algo}{network}: {numbers:,} parameters{several}"


def leave_pictures(
    built: Build,
    program: Any,
    run: RunDirectory,
    outcome: Outcome,
    elites: Any,
    summary: dict[str, Any],
    progress: Progress,
) -> None:
    """Draw what a run of its kind leaves behind; `elites` are the last evaluation's results in the mode map-elites.

    Raises:
        RunError: the disk does not take them; the checkpoints stand.
    """
    if built.config.mode == "map-elites":
        assert isinstance(program, FusedProgram)
        record = importlib.import_module("jaxrl_engine.modes.map_elites.record")  # matplotlib takes most of a second
        record.leave_elites(run.path, built, program.trainer, outcome.state, elites, summary)
        progress.message(f"repertoire, pictures and report.html are in {run.path}")
    if outcome.status == "finished" and isinstance(built.algorithm, HMASD):
        _draw_skills(built, outcome, run.path / "skills.png", progress)


def _draw_skills(built: Build, outcome: Outcome, path: Path, progress: Progress) -> None:
    """Leave a picture of where agents are under each skill, of the run that evaluated best."""
    train_state = outcome.state.train_state
    if built.num_runs is not None:
        best = int(np.argmax(outcome.evaluation["return_per_seed"]))
        train_state = jax.tree.map(lambda leaf: leaf[best], train_state)
    maps = skill_maps(built, train_state)
    if maps is None:
        progress.message(f"no map of the skills: {built.config.env} does not show where its agents are")
        return
    try:
        save_maps(maps.counts, maps.agents, maps.skills, maps.title, path)
    except OSError as error:
        raise RunError(f"{path}: {one_line(error)}") from error
