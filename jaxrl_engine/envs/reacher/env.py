"""`reacher`: an arm of one to eight links turns its joints until its tip rests on a target, in the plane.

Per step, with d the distance from tip to target over the arm's length (d' before the step), a the actions in [-1, 1]:

    reward = (d' - d) - DELAY · d + STAY · [d <= TOLERANCE] - EFFORT · mean(a²)

The first term pays a move at once instead of through the critic; it adds up to what was gained over the episode, so it
does not change which policy is best (Ng, Harada, Russell 1999). The second charges every step spent away from the
target, so arriving early is best, by a detour where the arm must fold first; the third makes staying precise, and the
fourth is too small to stop the arm short: a step at full effort costs as much as one spent 1 % of the arm's length
away. The world only truncates.
"""

import dataclasses
import functools
import importlib
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxrl_engine.core.config import require
from jaxrl_engine.core.spaces import Box
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import EnvSpec, Leaf, TimeStep
from jaxrl_engine.envs.chatter import without_chatter
from jaxrl_engine.envs.reacher.body import MAX_LINKS, Body, link_positions, to_system, uniform_body
from jaxrl_engine.envs.single_agent import first_timestep, single_agent_spec, single_agent_timestep, unbounded

TOLERANCE = 0.05  # of the arm's length: closer than this the tip has reached the target
DELAY = 0.1
STAY = 0.05
EFFORT = 0.001
METRICS = ("success", "final_distance", "energy")


class ReacherState(Struct):
    """Joint coordinates are the whole physical state: what else a pipeline keeps follows from them."""

    angles: Float[Leaf, "*batch links"]  # rad, each against the link before
    velocities: Float[Leaf, "*batch links"]  # rad/s
    target: Float[Leaf, "*batch 2"]  # m
    energy: Float[Leaf, "*batch"]  # J the motors have spent since the reset
    time: Int[Leaf, "*batch"]  # steps since the reset


@dataclasses.dataclass(frozen=True)
class Reacher:
    """The world; its fields are what `env_params` may set.

    `target`: `disc` draws targets uniformly from the disc of radius `total_length`, `ring` from the part of it the
    tip can reach, which differs where one link is longer than all others together: a single link reaches only a
    circle. `pipeline`: Brax's `generalized` or `mjx`. Its maximal-coordinate pipelines are not offered: they know
    neither armature nor implicit damping, and end an arm's length away from MuJoCo's answer.
    """

    num_links: int = 2
    total_length: float = 1.0  # m
    target: Literal["disc", "ring"] = "disc"
    episode_length: int = 50  # steps
    step_seconds: float = 0.04  # simulated seconds between two actions
    substeps: int = 2  # physics steps per action
    pipeline: Literal["generalized", "mjx"] = "generalized"

    def __post_init__(self) -> None:
        links = self.num_links
        require(1 <= links <= MAX_LINKS, "num_links", f"a whole number from 1 to {MAX_LINKS}", links)
        require(0.1 <= self.total_length <= 10.0, "total_length", "from 0.1 to 10 metres", self.total_length)
        require(self.target in ("disc", "ring"), "target", "disc or ring", self.target)
        reachable = links > 1 or self.target == "ring"
        require(reachable, "target", "ring where num_links is 1: one link reaches only a circle", self.target)
        require(self.episode_length >= 1, "episode_length", "a whole number >= 1", self.episode_length)
        require(0.001 <= self.step_seconds <= 0.1, "step_seconds", "a number from 0.001 to 0.1", self.step_seconds)
        require(1 <= self.substeps <= 64, "substeps", "a whole number from 1 to 64", self.substeps)
        require(self.pipeline in ("generalized", "mjx"), "pipeline", "generalized or mjx", self.pipeline)

    @functools.cached_property
    def body(self) -> Body:
        return uniform_body(self.num_links, self.total_length)

    @functools.cached_property
    def spec(self) -> EnvSpec:
        observation = unbounded((3 * self.num_links + 6,))
        action = Box.uniform((self.num_links,), -1.0, 1.0)
        return single_agent_spec("reacher", observation, action, self.episode_length, METRICS)

    def default_params(self) -> tuple[()]:
        """Return nothing: the body is fixed when the world is made."""
        return ()

    def reset(self, key: Key[Array, ""], params: tuple[()]) -> tuple[ReacherState, TimeStep]:
        """Start at rest with joint angles uniform in [-π, π) and a target uniform in its area. The key is consumed."""
        draw = jax.random.uniform(key, (self.num_links + 2,))
        inner, outer = self._target_radii()
        radius = jnp.sqrt(inner**2 + (outer**2 - inner**2) * draw[0])
        bearing = 2 * jnp.pi * draw[1]
        state = ReacherState(
            angles=jnp.pi * (2 * draw[2:] - 1), velocities=jnp.zeros(self.num_links),
            target=radius * jnp.stack([jnp.cos(bearing), jnp.sin(bearing)]),
            energy=jnp.zeros(()), time=jnp.zeros((), jnp.int32),
        )  # fmt: skip
        return state, first_timestep(self._observe(state, self.link_positions(state)[-1]), METRICS)

    def step(
        self, key: Key[Array, ""], state: ReacherState, action: Float[Array, "1 links"], params: tuple[()]
    ) -> tuple[ReacherState, TimeStep]:
        """Hold the torques for one step. `key` is left unused: nothing here is random."""
        effort = jnp.clip(action[0], -1.0, 1.0)
        angles, velocities = self._advance(state.angles, state.velocities, effort)
        power = jnp.abs(self.body.torque * effort * velocities).sum()
        next_state = ReacherState(
            angles=angles, velocities=velocities, target=state.target,
            energy=state.energy + power * self.step_seconds, time=state.time + 1,
        )  # fmt: skip
        tip_before, tip = self.link_positions(state)[-1], self.link_positions(next_state)[-1]
        before, distance = (jnp.linalg.norm(end - state.target) / self.total_length for end in (tip_before, tip))
        success = (distance <= TOLERANCE).astype(jnp.float32)
        reward = before - distance - DELAY * distance + STAY * success - EFFORT * jnp.square(effort).mean()
        metrics = {"success": success, "final_distance": distance, "energy": next_state.energy}
        never, truncated = jnp.zeros((), bool), next_state.time >= self.episode_length
        return next_state, single_agent_timestep(self._observe(next_state, tip), reward, never, truncated, metrics)

    def link_positions(self, state: ReacherState) -> Float[Array, "points 2"]:
        """Return where shoulder, joints and tip are, in metres: one point more than there are links."""
        return link_positions(self.body.lengths, state.angles)

    @functools.cached_property
    def _physics(self) -> tuple[Any, Any]:
        """The Brax system and the pipeline that steps it."""
        system = to_system(self.body, self.step_seconds / self.substeps)
        with without_chatter():
            return system, importlib.import_module(f"brax.{self.pipeline}.pipeline")

    def _advance(
        self, angles: Float[Array, "links"], velocities: Float[Array, "links"], effort: Float[Array, "links"]
    ) -> tuple[Float[Array, "links"], Float[Array, "links"]]:
        """Run the physics for one step.

        Each substep builds the pipeline's state from the joint coordinates again. The compiler drops what a substep
        computes for its successor, so this costs nothing, and two small arrays are carried instead of thirty.
        """
        system, pipeline = self._physics

        def substep(_: Int[Array, ""], joints: tuple[Array, Array]) -> tuple[Array, Array]:
            with without_chatter():  # while Brax is traced
                after = pipeline.step(system, pipeline.init(system, *joints), effort)
            return after.q, after.qd

        unroll = min(self.substeps, 4)
        return jax.lax.fori_loop(0, self.substeps, substep, (angles, velocities), unroll=unroll)

    def _observe(self, state: ReacherState, tip: Float[Array, "2"]) -> Float[Array, "D"]:
        """Joint angles as cosine and sine, speeds over the motors' top speed, then tip, target and the way between."""
        top_speed = self.body.torque / self.body.damping
        points = jnp.concatenate([tip, state.target, state.target - tip]) / self.total_length
        return jnp.concatenate([jnp.cos(state.angles), jnp.sin(state.angles), state.velocities / top_speed, points])

    def _target_radii(self) -> tuple[float, float]:
        """Inner and outer radius of the area targets are drawn from, in metres."""
        if self.target == "disc":
            return 0.0, self.total_length
        longest = float(self.body.lengths.max())
        return max(0.0, 2 * longest - self.total_length), self.total_length
