"""From what a configuration has built to the program that its mode runs."""

import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh

from jaxrl_engine.algos.protocol import Algorithm
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.modes.actor_learner.program import AsyncProgram
from jaxrl_engine.modes.build import Build
from jaxrl_engine.modes.fused import FusedProgram
from jaxrl_engine.modes.map_elites.build import make_evolution
from jaxrl_engine.modes.placement import Placement
from jaxrl_engine.modes.sync import OnPolicy
from jaxrl_engine.runtime.devices import data_mesh


def make_program(built: Build, devices: int | None = 1) -> FusedProgram[Any] | AsyncProgram:
    """The program of a build, over the first `devices` devices of every process (None: all of them).

    Raises:
        UserError: the batch cannot be split evenly, or the mode cannot be split.
    """
    config, mesh = built.config, data_mesh(devices)
    if config.mode == "async":
        return AsyncProgram(built, Placement(mesh))
    placement = _place(built, mesh)
    split = placement.splits_environments
    if config.mode == "map-elites":
        trainer: Any = make_evolution(built, split=split)
    else:
        assert isinstance(built.algorithm, Algorithm)  # the configuration admits no other with mode sync
        worlds = dataclasses.replace(built.training_env, split=split)
        trainer = OnPolicy(built.algorithm, worlds, built.env_params, config.num_steps)
    return FusedProgram(
        trainer=trainer, updates_per_row=config.updates_per_row, max_skipped_updates=config.max_skipped_updates,
        num_runs=built.num_runs, placement=placement,
    )  # fmt: skip


def _place(built: Build, mesh: Mesh | None) -> Placement:
    """Split runs where the devices divide them, for these exchange nothing; else the environments of each."""
    runs, envs = built.num_runs, built.config.num_envs
    if mesh is None:
        return Placement()
    by_run = runs is not None and runs % mesh.size == 0
    if not by_run and envs % mesh.size:
        several = f" (or num_seeds, with sweep {runs} runs)" if runs is not None else ""
        processes = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
        raise UserError(f"num_envs{several} must be a multiple of the {mesh.size} devices{processes}, not {envs}")
    return Placement(mesh, by_run=by_run, runs_axis=runs is not None)
