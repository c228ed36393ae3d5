"""What a policy does, step by step, for those who want to look at it: films, and where agents are under each skill."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxrl_engine.algos.hmasd.types import HMASDCarry
from jaxrl_engine.core.scene import Scene
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf, PyTree, TimeStep, TrainState
from jaxrl_engine.envs.protocol import Jointed, Pictured
from jaxrl_engine.modes.build import Build
from jaxrl_engine.modes.evaluate import greedy_policy
from jaxrl_engine.ops.rows import where_rows
from jaxrl_engine.runtime.drawing import Film

MOST_BINS = 32
"""Along a side of a map of a world without cells."""
MAPS_EPISODES, MAPS_STEPS = 64, 200
MAPS_STREAM = 4
"""Folded into a run's seed key: the episodes of its maps are not those of its evaluations."""


class Watched(Struct):
    """One greedy episode in each of `B` worlds, `F = 1 + T` frames of it; an ended one stays as it ended."""

    scenes: Scene | None  # [F, B, …]; None: the world cannot be drawn
    reward: Float[Leaf, "*frames B"]  # mean over agents; 0 in the first frame and after the end
    running: Bool[Leaf, "*frames B"]  # the frame belongs to the episode
    done: Bool[Leaf, "*frames B"]  # the episode is over in this frame
    metrics: dict[str, Float[Leaf, "*frames B"]]
    skills: Int[Leaf, "*frames B tokens"] | None  # in force: the team's, then each agent's; None: the policy has none
    joints: Float[Leaf, "*frames B q"] | None = None  # MuJoCo's coordinates, where they were asked for
    begun: PyTree | None = None  # and the worlds' states at the start, [B, …]


class _Loop(Struct):
    env: PyTree
    timestep: TimeStep
    memory: PyTree
    done: Bool[Leaf, "B"]


def watch(
    built: Build,
    train_state: TrainState,
    key: Key[Array, ""],
    count: int,
    num_steps: int,
    params_axis: int | None = None,
    with_joints: bool = False,
) -> Watched | None:
    """Act greedily for `num_steps` steps in `count` worlds; None where the world cannot be drawn. The key is consumed.

    `train_state` is that of one run, without the axis `S`. With `params_axis=0` every world has parameters of its own.
    `with_joints` also records what MuJoCo needs to show a jointed world, drawn or not.
    """
    env, params = built.env, built.env_params
    scene: Callable[[PyTree, PyTree], Scene | None] = _nothing
    joints: Callable[[PyTree], Array | None] = _nothing
    if isinstance(env, Pictured):
        scene = jax.vmap(env.scene, in_axes=(0, params_axis))
    if with_joints and isinstance(env, Jointed):
        joints = jax.vmap(env.joints)
    elif not isinstance(env, Pictured):
        return None
    reset = jax.vmap(env.reset, in_axes=(0, params_axis))
    step_all = jax.vmap(env.step, in_axes=(0, 0, 0, params_axis))
    policy = greedy_policy(built.algorithm, train_state)

    def step(loop: _Loop, key: Key[Array, ""]) -> tuple[_Loop, Watched]:
        key_act, key_step = jax.random.split(key)
        action, memory = policy(loop.memory, loop.timestep, key_act)
        seen = Watched(
            scenes=scene(loop.env, params), running=~loop.done, done=loop.done | loop.timestep.done,
            reward=jnp.where(loop.done, 0.0, loop.timestep.reward.mean(axis=-1)),
            metrics=loop.timestep.metrics, skills=memory.skills if isinstance(memory, HMASDCarry) else None,
            joints=joints(loop.env),
        )  # fmt: skip
        after = step_all(jax.random.split(key_step, count), loop.env, action, params)
        env_state, timestep = where_rows(seen.done, (loop.env, loop.timestep), after)
        return _Loop(env=env_state, timestep=timestep, memory=memory, done=seen.done), seen

    @jax.jit
    def run(key: Key[Array, ""]) -> Watched:
        key_reset, key_steps = jax.random.split(key)
        env_state, timestep = reset(jax.random.split(key_reset, count), params)
        memory = built.algorithm.initial_carry(count)
        first = _Loop(env=env_state, timestep=timestep, memory=memory, done=jnp.zeros(count, bool))
        seen = jax.lax.scan(step, first, jax.random.split(key_steps, num_steps + 1))[1]
        return seen.replace(begun=None if seen.joints is None else env_state)

    return jax.device_get(run(key))


def film(watched: Watched, labels: Sequence[str] | None = None) -> Film:
    """Return the episodes up to the frame in which the last one ends, captioned with return, step and skills.

    `labels` name the worlds, where they differ.
    """
    frames = int(watched.running.any(axis=1).sum())
    returns, steps = np.cumsum(watched.reward, axis=0), np.cumsum(watched.running, axis=0) - 1

    def caption(frame: int, world: int) -> str:
        text = f"R {returns[frame, world]:.3g}  S {steps[frame, world]}"
        text = text if labels is None else f"{labels[world]}  {text}"
        if watched.skills is None:
            return text
        team, *each = watched.skills[frame, world]
        return f"{text}  Z {team}  z {' '.join(map(str, each))}"

    captions = tuple(tuple(caption(frame, world) for world in range(returns.shape[1])) for frame in range(frames))
    return Film(scenes=jax.tree.map(lambda leaf: leaf[:frames], watched.scenes), captions=captions)


class SkillMaps(Struct):
    """Where agents were under each skill, over greedy episodes."""

    counts: Float[np.ndarray, "A skills height width"]  # frames; the top row first
    agents: tuple[str, ...]
    skills: tuple[str, ...]
    title: str


def skill_maps(built: Build, train_state: TrainState) -> SkillMaps | None:
    """Watch greedy episodes of a policy with skills; None where the world does not show where its agents are."""
    key = jax.random.fold_in(jax.random.key(built.config.seed), MAPS_STREAM)
    steps = min(MAPS_STEPS, built.env.spec.time_limit or MAPS_STEPS)
    watched, skills = watch(built, train_state, key, MAPS_EPISODES, steps), built.config.hmasd
    counts = None if watched is None else occupancy(watched, skills.team_skills, skills.individual_skills)
    if counts is None:
        return None
    own = tuple(f"own skill z = {skill}" for skill in range(skills.individual_skills))
    team = tuple(f"team's skill Z = {skill}" for skill in range(skills.team_skills))
    title = f"{built.config.env}: where each agent is under each skill, {MAPS_EPISODES} greedy episodes"
    return SkillMaps(
        counts=counts, agents=tuple(f"agent {agent}" for agent in range(len(counts))), skills=own + team, title=title
    )


def occupancy(
    watched: Watched, team_skills: int, individual_skills: int
) -> Float[np.ndarray, "A skills height width"] | None:
    """Count how often each agent was in each part of the world under each skill, its own ones first, then the team's.

    `[a, k]` adds up to the frames in which agent `a` was under skill `k` inside the picture's extent. None where
    agents have no place, or no skills.
    """
    if watched.skills is None or watched.scenes is None:
        return None
    places = np.asarray(watched.scenes.agents)  # [F, B, A, 2]
    if not places.shape[2]:
        return None
    rows, columns = watched.scenes.cells.shape[2:] if watched.scenes.cells.size else (MOST_BINS, MOST_BINS)
    left, bottom, right, top = watched.scenes.extent[0, 0]
    edges = np.linspace(bottom, top, rows + 1), np.linspace(left, right, columns + 1)
    team, individual = watched.skills[..., 0], watched.skills[..., 1:]

    def count(agent: int, chosen: Any) -> np.ndarray:
        x, y = places[:, :, agent][chosen & watched.running].T
        return np.histogram2d(y, x, bins=edges)[0][::-1]  # the top row first

    return np.stack([
        np.stack(
            [count(agent, individual[..., agent] == skill) for skill in range(individual_skills)]
            + [count(agent, team == skill) for skill in range(team_skills)]
        )
        for agent in range(places.shape[2])
    ])  # fmt: skip


def _nothing(*_: PyTree) -> None:
    """What a world without it has."""
