"""Ways to advance an arm by one action: one closed form, two engines, one signature."""

import functools
import importlib
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
from jaxtyping import Array, Float, Int

from jaxrl_engine.envs.chatter import without_chatter
from jaxrl_engine.envs.reacher import planar
from jaxrl_engine.envs.reacher.body import Body

Joints: TypeAlias = tuple[Float[Array, "links"], Float[Array, "links"]]
Advance: TypeAlias = Callable[[Body, Array, Array, Array], Joints]
"""`(body, angles [links] rad, velocities [links] rad/s, effort [links]) -> (angles, velocities)` one action later."""

_PIPELINES = {"brax": "brax.generalized.pipeline", "mjx": "brax.mjx.pipeline"}


def physics(name: str, step_seconds: float, substeps: int) -> Advance:
    """Return the physics `planar`, `brax` or `mjx` for actions held over `substeps` steps, `step_seconds` in all."""
    timestep = step_seconds / substeps
    unroll = min(substeps, 4)

    def in_closed_form(body: Body, angles: Array, velocities: Array, effort: Array) -> Joints:
        chain = planar.make_chain(body, timestep)

        def substep(_: Int[Array, ""] | int, joints: Joints) -> Joints:
            return planar.step(chain, *joints, effort, timestep)

        return jax.lax.fori_loop(0, substeps, substep, (angles, velocities), unroll=unroll)

    def in_an_engine(body: Body, angles: Array, velocities: Array, effort: Array) -> Joints:
        """Each substep builds the pipeline's state from the joint coordinates again.

        The compiler drops what a substep computes for its successor, so this costs nothing, and two small arrays are
        carried instead of thirty.
        """
        system, pipeline = _system(body, timestep), _pipeline(name)

        def substep(_: Int[Array, ""] | int, joints: Joints) -> Joints:
            with without_chatter():  # while Brax is traced
                after = pipeline.step(system, pipeline.init(system, *joints), effort)
            return after.q, after.qd

        return jax.lax.fori_loop(0, substeps, substep, (angles, velocities), unroll=unroll)

    return in_closed_form if name == "planar" else in_an_engine


def _system(body: Body, timestep: float) -> Any:
    """Brax takes seconds to import: only who asks for an engine pays."""
    system = importlib.import_module("jaxrl_engine.envs.reacher.system")
    return system.to_system(body, timestep)


@functools.cache
def _pipeline(name: str) -> Any:
    with without_chatter():
        return importlib.import_module(_PIPELINES[name])
