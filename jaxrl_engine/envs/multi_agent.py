"""Teams out of worlds with one agent: as many copies as agents, or one world whose controls they share.

Copies do not act upon one another: what is learned in them says nothing about coordination beyond a shared reward and a
shared end. Agents that are told apart by something other than what they see (they own different controls, or their
copies differ) need to know which they are: with `agent_ids` the last axis of every observation is extended by a one-hot
vector of the agent's index (for an image: planes). The state for a central critic is never extended.

An action that is NaN becomes 0, one out of range the nearest that is allowed; the metric `invalid_actions` counts them
over the episode.
"""

import dataclasses
import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from jaxrl_engine.core.config import require
from jaxrl_engine.core.spaces import ActionSpace, Box, Discrete, MultiDiscrete
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import EnvSpec, Leaf, PyTree, TimeStep
from jaxrl_engine.envs.protocol import Environment
from jaxrl_engine.envs.team import (
    INVALID,
    action_bounds,
    identified,
    identified_space,
    joined,
    joined_space,
    legal,
)


class IndependentState(Struct):
    """`A` copies; one that has finished keeps its state and what it showed last."""

    copies: PyTree  # [A, …] the states of the copies
    seen: TimeStep  # [A, …] what each copy, a world with one agent, showed last
    invalid: Int[Leaf, "*batch"]  # invalid actions since the reset


class SharedState(Struct):
    """The one world."""

    world: PyTree
    action_mask: Bool[Leaf, "*batch 1 n"] | None  # of the world, at its present state
    invalid: Int[Leaf, "*batch"]  # invalid actions since the reset


@dataclasses.dataclass(frozen=True, eq=False)
class Independent:
    """Every agent has a copy of `world` to itself; the parameters carry a leading agent axis, so copies may differ.

    Observation and action: those of the agent's own copy; global state: those of all copies, flattened (images: their
    channels stacked). Reward: with `own` that of the agent's copy; with `sum` or `mean` everyone gets the sum or mean
    over all copies. A copy that has finished stays as it is, whatever is done, and its reward is 0 from then on.

    `done="any"`: the episode ends when a copy ends, terminated if one terminated, truncated if one was truncated (both
    if both). `done="all"`: it ends when the last one ends. It is terminated if every copy terminated; otherwise there
    is a copy that only our patience ended, the episode is truncated and what would have followed is worth its value.
    Metrics: those of the world, mean over copies. Keys are split into one per copy.
    """

    world: Environment[Any, Any]
    agents: int = 2
    reward: Literal["sum", "mean", "own"] = "mean"
    done: Literal["any", "all"] = "any"
    agent_ids: bool = False
    own_params: PyTree = None  # [A, …]; None: every copy has the defaults of the world
    time_limits: tuple[int, ...] = ()  # of each copy, where `own_params` changes them

    def __post_init__(self) -> None:
        _check_team(self.world, self.agents)
        require(self.reward in ("sum", "mean", "own"), "reward", "sum, mean or own", self.reward)
        require(self.done in ("any", "all"), "done", "any or all", self.done)

    @functools.cached_property
    def spec(self) -> EnvSpec:
        inner = self.world.spec
        return dataclasses.replace(
            inner, num_agents=self.agents, observation=_observed(inner.observation, self.agents, self.agent_ids),
            global_state=joined_space(inner.global_state, self.agents), time_limit=self._time_limit(),
            metric_names=(*inner.metric_names, INVALID),
        )  # fmt: skip

    def default_params(self) -> PyTree:
        """Return the parameters of the copies, with a leading agent axis."""
        if self.own_params is not None:
            return self.own_params
        return jax.tree.map(
            lambda leaf: jnp.repeat(jnp.asarray(leaf)[None], self.agents, axis=0), self.world.default_params()
        )

    def reset(self, key: Key[Array, ""], params: PyTree) -> tuple[IndependentState, TimeStep]:
        """Start an episode of every copy. The key is consumed."""
        copies, seen = jax.vmap(self.world.reset)(jax.random.split(key, self.agents), params)
        state = IndependentState(copies=copies, seen=seen, invalid=jnp.zeros((), jnp.int32))
        return state, self._timestep(state, seen.reward[:, 0])

    def step(
        self, key: Key[Array, ""], state: IndependentState, action: Shaped[Array, "A ..."], params: PyTree
    ) -> tuple[IndependentState, TimeStep]:
        """Advance the copies that have not finished. The key is consumed."""
        finished = state.seen.done
        action, invalid = legal(action, *action_bounds(self.world.spec.action))
        stepped = jax.vmap(self.world.step)(
            jax.random.split(key, self.agents), state.copies, jnp.expand_dims(action, 1), params
        )
        copies, seen = jax.vmap(_choose)(finished, (state.copies, state.seen), stepped)
        next_state = IndependentState(
            copies=copies, seen=seen, invalid=state.invalid + jnp.where(finished, 0, invalid).sum()
        )
        return next_state, self._timestep(next_state, jnp.where(finished, 0.0, seen.reward[:, 0]))

    def _timestep(self, state: IndependentState, own_reward: Float[Array, "A"]) -> TimeStep:
        seen = state.seen
        terminated, truncated = seen.terminated.any(), seen.truncated.any()
        if self.done == "all":
            terminated, truncated = seen.terminated.all(), seen.done.all() & truncated
        metrics = {name: values.mean() for name, values in seen.metrics.items()}
        return TimeStep(
            observation=_seen_by(seen.observation[:, 0], self.agent_ids), global_state=joined(seen.global_state),
            action_mask=None if seen.action_mask is None else seen.action_mask[:, 0],
            reward=self._shared_out(own_reward), terminated=terminated, truncated=truncated,
            metrics=metrics | {INVALID: state.invalid.astype(jnp.float32)},
        )  # fmt: skip

    def _shared_out(self, reward: Float[Array, "A"]) -> Float[Array, "A"]:
        if self.reward == "own":
            return reward
        team = reward.sum() if self.reward == "sum" else reward.mean()
        return jnp.broadcast_to(team, reward.shape)

    def _time_limit(self) -> int | None:
        """Return after how many steps the episode is over, whatever the copies do."""
        limits = self.time_limits or (self.world.spec.time_limit,)
        known = [limit for limit in limits if limit is not None]
        if self.done == "any":
            return min(known, default=None)
        return max(known) if len(known) == len(limits) else None


@dataclasses.dataclass(frozen=True, eq=False)
class Shared:
    """One world steered by all agents together; everyone sees it all and receives its reward.

    A discrete action is voted on: the choice with most votes is taken, of several with equally many the one with the
    lowest number. Votes for what does not exist or is masked do not count (and are invalid); where none counts, the
    lowest choice that is allowed is taken. A vector of real numbers or of choices is cut into equal parts in order:
    agent 0 owns the first, and so on. Where the parts of a vector of choices differ in size, each agent is shown the
    largest number of choices, and what its own part lacks is masked. Global state: that of the world.
    """

    world: Environment[Any, Any]
    agents: int = 2
    agent_ids: bool = False

    def __post_init__(self) -> None:
        _check_team(self.world, self.agents)
        action = self.world.spec.action
        if isinstance(action, Discrete):
            return
        size = math.prod(action.shape)
        divisors = " or ".join(str(n) for n in range(1, size + 1) if size % n == 0)
        require(size % self.agents == 0, "agents", f"{divisors}, to share {size} controls equally", self.agents)
        if isinstance(action, Box):
            bounds = {self._parts(action.low, action.high)[agent] for agent in range(self.agents)}
            require(len(bounds) == 1, "agents", "such that all own controls with equal bounds", self.agents)

    @functools.cached_property
    def spec(self) -> EnvSpec:
        inner = self.world.spec
        return dataclasses.replace(
            inner, num_agents=self.agents, observation=_observed(inner.observation, self.agents, self.agent_ids),
            action=self._part(inner.action), metric_names=(*inner.metric_names, INVALID),
            masks_actions=inner.masks_actions or self._is_padded,
        )  # fmt: skip

    def default_params(self) -> PyTree:
        """Return the parameters of the world."""
        return self.world.default_params()

    def reset(self, key: Key[Array, ""], params: PyTree) -> tuple[SharedState, TimeStep]:
        """Start an episode. The key is consumed."""
        world, seen = self.world.reset(key, params)
        return self._shown(world, seen, jnp.zeros((), jnp.int32))

    def step(
        self, key: Key[Array, ""], state: SharedState, action: Shaped[Array, "A ..."], params: PyTree
    ) -> tuple[SharedState, TimeStep]:
        """Advance the world under the action the agents make up together. The key is consumed whole by the world."""
        space = self.world.spec.action
        if isinstance(space, Discrete):
            joint, invalid = _elected(
                action, jnp.ones(space.n, bool) if state.action_mask is None else state.action_mask[0]
            )
        else:
            low, high = (bound.reshape(self.agents, -1) for bound in action_bounds(space))
            parts, invalid = legal(action, low, high)
            joint = parts.reshape(1, *space.shape)
        world, seen = self.world.step(key, state.world, joint, params)
        return self._shown(world, seen, state.invalid + invalid.sum())

    def _shown(self, world: PyTree, seen: TimeStep, invalid: Int[Array, ""]) -> tuple[SharedState, TimeStep]:
        state = SharedState(world=world, action_mask=seen.action_mask, invalid=invalid)
        observation = jnp.repeat(seen.observation, self.agents, axis=0)
        return state, seen.replace(
            observation=_seen_by(observation, self.agent_ids), action_mask=self._split_mask(seen.action_mask),
            reward=jnp.repeat(seen.reward, self.agents),
            metrics=seen.metrics | {INVALID: invalid.astype(jnp.float32)},
        )  # fmt: skip

    def _parts(self, *vectors: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Return what each agent owns of the vectors, one agent after the other."""
        size = len(vectors[0]) // self.agents
        return [tuple(v[i * size : (i + 1) * size] for v in vectors) for i in range(self.agents)]

    def _part(self, action: ActionSpace) -> ActionSpace:
        """Return what one agent decides; of choices in different numbers, the largest."""
        if isinstance(action, Discrete):
            return action
        if isinstance(action, MultiDiscrete):
            return MultiDiscrete(tuple(max(sizes) for sizes in zip(*self._owned_choices, strict=True)))
        low, high = self._parts(action.low, action.high)[0]
        return Box((len(low),), low, high, action.dtype)

    @property
    def _owned_choices(self) -> list[tuple[int, ...]]:
        """The numbers of choices of each agent's part of a vector of choices; none where there is no such vector."""
        action = self.world.spec.action
        return [part for (part,) in self._parts(action.nvec)] if isinstance(action, MultiDiscrete) else []

    @property
    def _is_padded(self) -> bool:
        return len(set(self._owned_choices)) > 1

    def _split_mask(self, mask: Bool[Array, "1 n"] | None) -> Bool[Array, "A m"] | None:
        """Return the world's mask as each agent's own: of a choice put to the vote whole, of a vector the part."""
        if not self._owned_choices:
            return None if mask is None else jnp.repeat(mask, self.agents, axis=0)
        if mask is None and not self._is_padded:
            return None
        shown = [max(sizes) for sizes in zip(*self._owned_choices, strict=True)]
        rows = [[np.arange(n) < own for n, own in zip(shown, part, strict=True)] for part in self._owned_choices]
        exists = np.stack([np.concatenate(row) for row in rows])
        if mask is None:
            return jnp.asarray(exists)
        place = np.maximum(np.cumsum(exists).reshape(exists.shape) - 1, 0)  # agent by agent is the world's own order
        return mask[0][place] & exists


def _check_team(world: Environment[Any, Any], agents: int) -> None:
    whole = isinstance(agents, int) and not isinstance(agents, bool) and agents >= 1
    require(whole, "agents", "a whole number >= 1", agents)
    require(world.spec.num_agents == 1, "world", "one with a single agent", f"{world.spec.name}")


def _elected(votes: Int[Array, "A"], allowed: Bool[Array, "n"]) -> tuple[Int[Array, "1"], Int[Array, "A"]]:
    """Return the choice with most votes (ties: the lowest), and which votes do not count."""
    ballots = jax.nn.one_hot(votes, allowed.size, dtype=jnp.int32) * allowed[None]
    count = jnp.where(allowed, ballots.sum(axis=0), -1)
    return jnp.argmax(count).astype(jnp.int32)[None], 1 - ballots.sum(axis=1)


def _choose(condition: Bool[Array, ""], yes: PyTree, no: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _seen_by(observation: Shaped[Array, "A ..."], agent_ids: bool) -> Shaped[Array, "A ..."]:
    return identified(observation) if agent_ids else observation


def _observed(box: Box, agents: int, agent_ids: bool) -> Box:
    return identified_space(box, agents) if agent_ids else box
