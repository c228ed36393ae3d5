"""`reacher-zigzag`: an arm threads its way between two zigzag walls to a goal behind their first corner."""

import dataclasses
import functools
import importlib
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxrl_engine.core.config import require
from jaxrl_engine.core.scene import Scene
from jaxrl_engine.core.spaces import Box
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import EnvSpec, Leaf, TimeStep
from jaxrl_engine.envs.reacher import planar
from jaxrl_engine.envs.reacher.body import (
    MAX_LINKS,
    Body,
    check_body,
    link_positions,
    make_body,
    motor_effort,
    uniform_body,
)
from jaxrl_engine.envs.reacher.geometry import segment_to_segment
from jaxrl_engine.envs.reacher.view import arm_scene, layout, observation_size, observe
from jaxrl_engine.envs.single_agent import first_timestep, single_agent_spec, single_agent_timestep, unbounded

GOAL = (1.2, 0.7)  # m from the shoulder, y upwards
GOAL_RADIUS = 0.2  # m
WALL_GAP = 0.06  # m: a link nearer to a wall touches it
SELF_GAP = 0.10  # m: links that are not neighbours touch when nearer
REBOUND = 0.3  # of the speeds is left after a touch
TOP_SPEED = 2.0  # rad/s of a free joint
START = np.deg2rad(110.0)  # the arm leans away from the walls
JITTER = np.deg2rad(5.0)  # of each joint angle at the start
CONTACT_COST = 0.02
ARRIVAL = 1.0
VIEW = (-1.2, -1.3, 2.4, 2.3)  # m: what a picture shows: left, bottom, right, top
METRICS = ("success", "final_distance", "wall_contacts", "self_contacts", "nan_actions")


def _zigzag(low: float, high: float) -> list[list[tuple[float, float]]]:
    corners = [(0.2 + 0.5 * index, high if index % 2 == 0 else low) for index in range(5)]
    return [[start, end] for start, end in itertools.pairwise(corners)]


WALLS: Any = np.asarray(_zigzag(0.83, 1.33) + _zigzag(-0.42, 0.08), np.float32)
"""[8, 2, 2] ends of the wall segments in metres: the upper zigzag, then the lower, their corners side by side."""


class ZigzagState(Struct):
    body: Body
    angles: Float[Leaf, "*batch links"]  # rad
    velocities: Float[Leaf, "*batch links"]  # rad/s
    wall_contacts: Float[Leaf, "*batch"]  # physics steps with a touch, since the reset
    self_contacts: Float[Leaf, "*batch"]
    nan_actions: Float[Leaf, "*batch"]
    time: Int[Leaf, "*batch"]


@dataclasses.dataclass(frozen=True)
class ReacherZigzag:
    """An arm of several links reaches a goal between two zigzag walls without touching them or itself.

    State: joint angles (rad) and speeds (rad/s). The course is fixed: eight wall segments and a goal, in metres.
    Observation: that of `reacher`, the goal as its target; each link's token has its distance to the nearest wall (m)
    before the last number, 0 where there is no link.
    Action: each joint's torque in [-1, 1]; outside it is clipped, not a number means 0 and is counted.
    Dynamics: the planar chain. After every physics step, where a link is nearer than 6 cm to a wall or than 10 cm to a
    link that is not its neighbour, the joints go back to where they were and 0.3 of their speed is left.
    Reward: (d - d') / d₀ with d the distance from tip to goal and d₀ the goal's from the shoulder, a potential's
    difference (Ng, Harada, Russell 1999): coming nearer never costs, and going to and fro earns nothing. To it 1 at
    arrival, and -0.02 for a step during which anything touched.
    Termination: the tip is within 0.2 m of the goal. Truncation: after `episode_length` steps.
    Randomisation: ±5° on every joint angle at the start.
    Source: the course of an earlier pixel-based system at 100 pixels a metre; which of the walls' corners comes first
    is not recorded there.
    """

    num_links: int = 4
    total_length: float = 1.8  # m
    episode_length: int = 200  # steps
    step_seconds: float = 0.04
    substeps: int = 8  # contacts are looked for after each: 5 ms

    def __post_init__(self) -> None:
        links = self.num_links
        require(2 <= links <= MAX_LINKS, "num_links", f"a whole number from 2 to {MAX_LINKS}", links)
        reach = float(np.hypot(*GOAL))
        require(reach <= self.total_length <= 4.0, "total_length", f"from {reach:.2f} to 4 metres", self.total_length)
        require(self.episode_length >= 1, "episode_length", "a whole number >= 1", self.episode_length)
        require(0.001 <= self.step_seconds <= 0.1, "step_seconds", "a number from 0.001 to 0.1", self.step_seconds)
        require(1 <= self.substeps <= 64, "substeps", "a whole number from 1 to 64", self.substeps)

    @functools.cached_property
    def spec(self) -> EnvSpec:
        tokens = layout(self.num_links, extra=1)
        observation = unbounded((observation_size(tokens),))
        action = Box.uniform((self.num_links,), -1.0, 1.0)
        spec = single_agent_spec("reacher-zigzag", observation, action, self.episode_length, METRICS)
        return dataclasses.replace(spec, tokens=tokens)

    def default_params(self) -> Body:
        """Return an arm of equal links."""
        return _slowed(uniform_body(self.num_links, self.total_length))

    def embody(
        self,
        lengths: Float[Array, "links"],
        mask: Bool[Array, "links"],
        thickness: Float[Array, ""],
        gear: Float[Array, ""],
    ) -> Body:
        """Return the arm of these links (m), so thick and so geared against the family's."""
        return _slowed(make_body(lengths, mask, thickness, gear))

    def reset(self, key: Key[Array, ""], params: Body) -> tuple[ZigzagState, TimeStep]:
        """Start at rest, leaning away from the walls. The key is consumed.

        Raises:
            ValueError: `params` is no arm of this family (`body.check_body`).
        """
        check_body(params, self.num_links)
        straight = jnp.zeros(self.num_links).at[0].set(START)
        zero = jnp.zeros(())
        state = ZigzagState(
            body=jax.tree.map(jnp.asarray, params),
            angles=straight + JITTER * jax.random.uniform(key, (self.num_links,), minval=-1.0),
            velocities=jnp.zeros(self.num_links), wall_contacts=zero, self_contacts=zero, nan_actions=zero,
            time=jnp.zeros((), jnp.int32),
        )  # fmt: skip
        return state, first_timestep(self._observe(state), METRICS)

    def step(
        self, key: Key[Array, ""], state: ZigzagState, action: Float[Array, "1 links"], params: Body
    ) -> tuple[ZigzagState, TimeStep]:
        """Hold the torques for one step. `key` and `params` are left unused: nothing is random, and the body stays."""
        effort, wrong = motor_effort(state.body, action[0])
        after = self._advance(state, effort)
        after = after.replace(nan_actions=state.nan_actions + wrong, time=state.time + 1)
        before, distance = self.goal_distance(state), self.goal_distance(after)
        arrived = distance <= GOAL_RADIUS
        touches = after.wall_contacts + after.self_contacts - state.wall_contacts - state.self_contacts
        gained = (before - distance) / np.hypot(*GOAL)
        reward = gained + ARRIVAL * arrived - CONTACT_COST * (touches > 0)
        values = (arrived.astype(jnp.float32), distance, after.wall_contacts, after.self_contacts, after.nan_actions)
        truncated = after.time >= self.episode_length
        metrics = dict(zip(METRICS, values, strict=True))
        return after, single_agent_timestep(self._observe(after), reward, arrived, truncated, metrics)

    def link_positions(self, state: ZigzagState) -> Float[Array, "points 2"]:
        """Return where shoulder, joints and tip are, in metres."""
        return link_positions(state.body.lengths, state.angles)

    def scene(self, state: ZigzagState, params: Body) -> Scene:
        """Return the course and the arm; the goal is green where the tip has arrived."""
        reached = self.goal_distance(state) <= GOAL_RADIUS
        return arm_scene(self.link_positions(state), jnp.asarray(GOAL), GOAL_RADIUS, reached, VIEW, WALLS)

    def joints(self, state: ZigzagState) -> Float[Array, "links"]:
        """Return the joint angles, in radians."""
        return state.angles

    def mujoco_model(self, state: ZigzagState) -> Any:
        """Return the arm of a state as a `mujoco.MjModel`."""
        system = importlib.import_module("jaxrl_engine.envs.reacher.system")  # Brax takes seconds to import
        return system.mujoco_model(state.body, self.step_seconds / self.substeps)

    def goal_distance(self, state: ZigzagState) -> Float[Array, ""]:
        """Distance from the tip to the goal, in metres."""
        return jnp.linalg.norm(self.link_positions(state)[-1] - jnp.asarray(GOAL))

    def _advance(self, state: ZigzagState, effort: Float[Array, "links"]) -> ZigzagState:
        timestep = self.step_seconds / self.substeps
        chain = planar.make_chain(state.body, timestep)

        def substep(_: Int[Array, ""] | int, state: ZigzagState) -> ZigzagState:
            angles, velocities = planar.step(chain, state.angles, state.velocities, effort, timestep)
            wall, itself = touching(link_positions(state.body.lengths, angles), state.body.mask)
            held = wall | itself
            return state.replace(
                angles=jnp.where(held, state.angles, angles),
                velocities=jnp.where(held, REBOUND * velocities, velocities),
                wall_contacts=state.wall_contacts + wall, self_contacts=state.self_contacts + itself,
            )  # fmt: skip

        return jax.lax.fori_loop(0, self.substeps, substep, state)

    def _observe(self, state: ZigzagState) -> Float[Array, "D"]:
        points = self.link_positions(state)
        nearest = wall_distances(points).min(axis=1)
        return observe(state.body, state.angles, state.velocities, jnp.asarray(GOAL), points, nearest[:, None])


def _slowed(body: Body) -> Body:
    """Brake the motors down to 2 rad/s: faster ones would jump over a wall."""
    braked = jnp.asarray(body.torque) / TOP_SPEED
    return body.replace(damping=jnp.where(jnp.asarray(body.mask), braked, jnp.asarray(body.damping)))


def links_of(points: Float[Array, "points 2"]) -> Float[Array, "links 2 2"]:
    """The ends of every link."""
    return jnp.stack([points[:-1], points[1:]], axis=1)


def wall_distances(points: Float[Array, "points 2"]) -> Float[Array, "links 8"]:
    """Distance (m) from every link to every wall."""
    to_walls = jax.vmap(segment_to_segment, in_axes=(None, 0))
    return jax.vmap(to_walls, in_axes=(0, None))(links_of(points), jnp.asarray(WALLS))


def touching(points: Float[Array, "points 2"], mask: Bool[Array, "links"]) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
    """Whether a link touches a wall, and whether it touches a link that is not its neighbour."""
    wall = ((wall_distances(points).min(axis=1) < WALL_GAP) & mask).any()
    links = links_of(points)
    between = jax.vmap(jax.vmap(segment_to_segment, in_axes=(None, 0)), in_axes=(0, None))(links, links)
    count = links.shape[0]
    apart = jnp.asarray(np.arange(count)[None] - np.arange(count)[:, None] >= 2)
    return wall, ((between < SELF_GAP) & apart & mask[:, None] & mask[None, :]).any()
