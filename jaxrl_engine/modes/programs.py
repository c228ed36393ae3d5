"""From what a configuration has built to the program that its mode runs."""

from typing import Any

from jax.sharding import Mesh

from jaxrl_engine.algos.protocol import Algorithm
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.modes.actor_learner.program import AsyncProgram
from jaxrl_engine.modes.build import Build
from jaxrl_engine.modes.fused import FusedProgram
from jaxrl_engine.modes.map_elites.build import make_evolution
from jaxrl_engine.modes.sync import OnPolicy
from jaxrl_engine.runtime.devices import data_mesh


def make_program(built: Build, num_devices: int = 1) -> FusedProgram[Any] | AsyncProgram:
    """The program of a build; its environments, or async its learner, split over `num_devices` devices (0: all).

    Raises:
        UserError: the environments or replay cannot be split evenly, or map-elites is asked for more than one device.
    """
    mode = built.config.mode
    if mode == "map-elites" and num_devices != 1:
        raise UserError(f"num_devices must be 1 with mode {mode}, not {num_devices}")
    if mode == "async":
        return AsyncProgram(built, data_mesh(num_devices))
    if mode == "map-elites":
        return _fused(built, make_evolution(built))
    mesh = data_mesh(num_devices)
    if built.config.num_envs % mesh.size:
        raise UserError(f"num_envs must be a multiple of the {mesh.size} devices, not {built.config.num_envs}")
    assert isinstance(built.algorithm, Algorithm)  # the configuration admits no other with mode sync
    trainer = OnPolicy(built.algorithm, built.training_env, built.env_params, built.config.num_steps)
    return _fused(built, trainer, mesh if mesh.size > 1 else None)


def _fused(built: Build, trainer: Any, mesh: Mesh | None = None) -> FusedProgram[Any]:
    config = built.config
    return FusedProgram(
        trainer=trainer, updates_per_row=config.updates_per_row, max_skipped_updates=config.max_skipped_updates,
        num_runs=built.num_runs, mesh=mesh,
    )  # fmt: skip
