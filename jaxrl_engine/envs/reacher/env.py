"""`reacher`: an arm of two to eight links turns its joints until its tip rests on a target, in the plane."""

import dataclasses
import functools
import importlib
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxrl_engine.core.config import require
from jaxrl_engine.core.scene import Scene
from jaxrl_engine.core.spaces import Box
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import EnvSpec, Leaf, TimeStep
from jaxrl_engine.envs.reacher.body import (
    MAX_LINKS,
    Body,
    check_body,
    link_positions,
    make_body,
    motor_effort,
    random_body,
    target_radii,
    uniform_body,
)
from jaxrl_engine.envs.reacher.physics import Advance, physics
from jaxrl_engine.envs.reacher.view import arm_scene, layout, observation_size, observe
from jaxrl_engine.envs.single_agent import first_timestep, single_agent_spec, single_agent_timestep, unbounded

TOLERANCE = 0.05  # of the arm's length: closer than this the tip has reached the target
DELAY = 0.1
STAY = 0.05
EFFORT = 0.001
METRICS = ("success", "final_distance", "energy", "nan_actions")


class ReacherState(Struct):
    """Joint coordinates are the whole physical state: what else a pipeline keeps follows from them."""

    body: Body
    angles: Float[Leaf, "*batch links"]  # rad, each against the link before
    velocities: Float[Leaf, "*batch links"]  # rad/s
    target: Float[Leaf, "*batch 2"]  # m
    energy: Float[Leaf, "*batch"]  # J the motors have spent since the reset
    nan_actions: Float[Leaf, "*batch"]  # actions since the reset that were not a number
    time: Int[Leaf, "*batch"]  # steps since the reset


@dataclasses.dataclass(frozen=True)
class Reacher:
    """An arm in the plane, without gravity: turn the joints until the tip rests on the target.

    State: joint angles (rad) and speeds (rad/s), the target (m), the body.
    Observation: one token per link slot and a global vector, flat (`reacher.view`).
    Action: each joint's torque in [-1, 1] of what its motor can do; outside it is clipped, not a number means 0 and is
    counted.
    Reward, with d the distance from tip to target over the arm's length (d' before the step) and a the actions:

        (d' - d) - DELAY · d + STAY · [d <= TOLERANCE] - EFFORT · mean(a²)

    The first term pays a move at once instead of through the critic; it adds up to what was gained over the episode,
    so it does not change which policy is best (Ng, Harada, Russell 1999). The second charges every step spent away
    from the target, so arriving early is best, by a detour where the arm must fold first; the third makes staying
    precise, and the fourth is too small to stop the arm short: a step at full effort costs as much as one spent 1 % of
    the arm's length away.
    Termination: never. Truncation: after `episode_length` steps.
    Randomisation: joint angles uniform in [-π, π); the target uniform in its area; with `bodies: mixed` the number of
    links uniform from `min_links` to `num_links`, their lengths uneven (`body.random_body`).
    Metrics: `success` (the tip within TOLERANCE of the arm's length), `final_distance` (over the arm's length),
    `energy` (J), `nan_actions`.

    The fields are what `env_params` may set. `target`: `ring` is the area this body's tip can reach, `disc` all within
    its length. `physics`: `planar` is the closed form (`reacher.planar`), `brax` Brax's generalized pipeline and `mjx`
    MuJoCo's; `auto` takes the closed form, which is exact for every body of this family. Brax's maximal-coordinate
    pipelines are not offered: they know neither armature nor implicit damping, and end an arm's length away from
    MuJoCo's answer.
    """

    num_links: int = 2
    lengths: str = ""  # m, one number per link with commas between, shoulder first; empty: equal links
    bodies: Literal["one", "mixed"] = "one"
    min_links: int = 2  # of mixed bodies
    total_length: float = 1.0  # m
    target: Literal["ring", "disc"] = "ring"
    episode_length: int = 50  # steps
    step_seconds: float = 0.04  # simulated seconds between two actions
    substeps: int = 2  # physics steps per action
    physics: Literal["auto", "planar", "brax", "mjx"] = "auto"

    def __post_init__(self) -> None:
        links = self.num_links
        require(1 <= links <= MAX_LINKS, "num_links", f"a whole number from 1 to {MAX_LINKS}", links)
        require(self.bodies in ("one", "mixed"), "bodies", "one or mixed", self.bodies)
        _read_lengths(self.lengths, links)
        require(self.bodies == "one" or not self.lengths, "lengths", "empty where bodies are mixed", self.lengths)
        some = self.bodies == "one" or 2 <= self.min_links <= links
        require(some, "min_links", f"a whole number from 2 to num_links ({links})", self.min_links)
        require(0.1 <= self.total_length <= 10.0, "total_length", "from 0.1 to 10 metres", self.total_length)
        require(self.target in ("ring", "disc"), "target", "ring or disc", self.target)
        reachable = links > 1 or self.target == "ring"
        require(reachable, "target", "ring where num_links is 1: one link reaches only a circle", self.target)
        require(self.episode_length >= 1, "episode_length", "a whole number >= 1", self.episode_length)
        require(0.001 <= self.step_seconds <= 0.1, "step_seconds", "a number from 0.001 to 0.1", self.step_seconds)
        require(1 <= self.substeps <= 64, "substeps", "a whole number from 1 to 64", self.substeps)
        known = ("auto", "planar", "brax", "mjx")
        require(self.physics in known, "physics", "auto, planar, brax or mjx", self.physics)

    @functools.cached_property
    def spec(self) -> EnvSpec:
        tokens = layout(self.num_links)
        observation = unbounded((observation_size(tokens),))
        action = Box.uniform((self.num_links,), -1.0, 1.0)
        spec = single_agent_spec("reacher", observation, action, self.episode_length, METRICS)
        return dataclasses.replace(spec, remark=f"{self._physics} physics", tokens=tokens)

    def default_params(self) -> Body:
        """Return the arm the fields describe; any other `Body` with as many slots may take its place."""
        if not self.lengths:
            return uniform_body(self.num_links, self.total_length)
        lengths: Any = _read_lengths(self.lengths, self.num_links)
        with jax.ensure_compile_time_eval():
            return make_body(lengths, lengths > 0)

    def embody(
        self,
        lengths: Float[Array, "links"],
        mask: Bool[Array, "links"],
        thickness: Float[Array, ""],
        gear: Float[Array, ""],
    ) -> Body:
        """Return the arm of these links (m), so thick and so geared against the family's."""
        return make_body(lengths, mask, thickness, gear)

    def reset(self, key: Key[Array, ""], params: Body) -> tuple[ReacherState, TimeStep]:
        """Start at rest. The key is consumed.

        Raises:
            ValueError: `params` is no arm of this family (`body.check_body`).
        """
        check_body(params, self.num_links)
        key_body, key_state = jax.random.split(key)
        body = params if self.bodies == "one" else self._draw_body(key_body)
        draw = jax.random.uniform(key_state, (self.num_links + 2,))
        inner, outer = target_radii(body)
        inner = inner if self.target == "ring" else jnp.zeros(())
        radius = jnp.sqrt(inner**2 + (outer**2 - inner**2) * draw[0])
        bearing, zero = 2 * jnp.pi * draw[1], jnp.zeros(())
        state = ReacherState(
            body=jax.tree.map(jnp.asarray, body), angles=body.mask * jnp.pi * (2 * draw[2:] - 1),
            velocities=jnp.zeros(self.num_links), target=radius * jnp.stack([jnp.cos(bearing), jnp.sin(bearing)]),
            energy=zero, nan_actions=zero, time=jnp.zeros((), jnp.int32),
        )  # fmt: skip
        return state, first_timestep(self._observe(state), METRICS)

    def step(
        self, key: Key[Array, ""], state: ReacherState, action: Float[Array, "1 links"], params: Body
    ) -> tuple[ReacherState, TimeStep]:
        """Hold the torques for one step. `key` and `params` are left unused: nothing is random, and the body stays."""
        body = state.body
        effort, wrong = motor_effort(body, action[0])
        angles, velocities = self._advance(body, state.angles, state.velocities, effort)
        power = jnp.abs(body.torque * effort * velocities).sum()
        next_state = state.replace(
            angles=angles, velocities=velocities, energy=state.energy + power * self.step_seconds,
            nan_actions=state.nan_actions + wrong, time=state.time + 1,
        )  # fmt: skip
        length = body.lengths.sum()
        ends = (self.link_positions(each)[-1] for each in (state, next_state))
        before, distance = (jnp.linalg.norm(end - state.target) / length for end in ends)
        success = (distance <= TOLERANCE).astype(jnp.float32)
        exertion = jnp.square(effort).sum() / body.mask.sum()
        reward = before - distance - DELAY * distance + STAY * success - EFFORT * exertion
        metrics = dict(zip(METRICS, (success, distance, next_state.energy, next_state.nan_actions), strict=True))
        never, truncated = jnp.zeros((), bool), next_state.time >= self.episode_length
        return next_state, single_agent_timestep(self._observe(next_state), reward, never, truncated, metrics)

    def link_positions(self, state: ReacherState) -> Float[Array, "points 2"]:
        """Return where shoulder, joints and tip are, in metres: one point more than there are slots for links."""
        return link_positions(state.body.lengths, state.angles)

    def scene(self, state: ReacherState, params: Body) -> Scene:
        """Return the arm and its target, green once it counts as reached."""
        points, length = self.link_positions(state), state.body.lengths.sum()
        reached = jnp.linalg.norm(points[-1] - state.target) <= TOLERANCE * length
        reach = 1.05 * self.total_length
        return arm_scene(points, state.target, TOLERANCE * self.total_length, reached, (-reach, -reach, reach, reach))

    def joints(self, state: ReacherState) -> Float[Array, "links"]:
        """Return the joint angles, in radians."""
        return state.angles

    def mujoco_model(self, state: ReacherState) -> Any:
        """Return the arm of a state as a `mujoco.MjModel`."""
        system = importlib.import_module("jaxrl_engine.envs.reacher.system")  # Brax takes seconds to import
        return system.mujoco_model(state.body, self.step_seconds / self.substeps)

    @functools.cached_property
    def _advance(self) -> Advance:
        return physics(self._physics, self.step_seconds, self.substeps)

    @property
    def _physics(self) -> str:
        return "planar" if self.physics == "auto" else self.physics

    def _draw_body(self, key: Key[Array, ""]) -> Body:
        key_count, key_lengths = jax.random.split(key)
        count = jax.random.randint(key_count, (), self.min_links, self.num_links + 1)
        return random_body(key_lengths, count, self.total_length, self.num_links)

    def _observe(self, state: ReacherState) -> Float[Array, "D"]:
        return observe(state.body, state.angles, state.velocities, state.target, self.link_positions(state))


def _read_lengths(text: str, links: int) -> np.ndarray:
    """Read link lengths (m) as they stand in `lengths`."""
    allowed = f"{links} numbers (num_links) from 0.01 to 10 metres with commas between, or empty"
    try:
        values = np.array([float(word) for word in text.split(",")] if text else [], np.float32)
    except ValueError:
        values = np.array([np.nan])
    good = not text or (len(values) == links and bool(((values >= 0.01) & (values <= 10)).all()))
    require(good, "lengths", allowed, text)
    return values
