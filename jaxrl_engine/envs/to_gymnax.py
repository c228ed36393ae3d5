"""The engine's worlds for code that speaks gymnax 1.x: `to_gymnax(world)`, or by name after `register_with_gymnax()`.

A world with one agent looks like any of gymnax's: no agent axis, one reward. A world with several shows one stacked
array of everything: observation `[A, …]`, action `[A, …]`, reward `[A]`; the flags are scalars, as gymnax requires.
gymnax's `LogWrapper` adds up one number per episode, so give it a world with `team_reward`.

gymnax has no space for several choices at once, so `MultiDiscrete` is one of its `Space`s defined here. What gymnax's
interface has no word for is in the state, which resets together with the world: `state.timestep` is the engine's
`TimeStep`, with the legal actions (`action_mask`) and the input of a central critic (`global_state`). The global state
before an automatic reset is `info["final_global_state"]`, the observation before it `info["final_observation"]`.
Typed keys and old ones are both accepted.
"""

import functools
from typing import Any, Literal

import flax.struct
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import environment, spaces
from jaxtyping import Array

from jaxrl_engine.core.config import EnvValue, require
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.core.spaces import Box, Discrete
from jaxrl_engine.core.types import TimeStep
from jaxrl_engine.envs.protocol import Environment
from jaxrl_engine.envs.registry import make_env, native_envs

TeamReward = Literal["none", "sum", "mean"]
NO_LIMIT = 2**31 - 1


@flax.struct.dataclass
class WorldState(environment.EnvState):
    """What gymnax carries from step to step."""

    time: Any  # int32 array: steps since the reset; gymnax's own annotation knows no arrays
    world: Any  # the world's own state
    timestep: Any  # TimeStep: what the world showed last


@flax.struct.dataclass
class WorldParams(environment.EnvParams):
    """`max_steps_in_episode` can only shorten episodes: the world's own time limit is part of the world."""

    max_steps_in_episode: Any = NO_LIMIT  # int or array
    world: Any = None  # the world's own parameters


class MultiDiscrete(spaces.Space):
    """Independent choices in an array: element i is one of `0 … nvec[i]-1`."""

    def __init__(self, nvec: Any) -> None:
        self.nvec = np.asarray(nvec, np.int32)
        self.shape = self.nvec.shape
        self.dtype = jnp.int32

    def sample(self, key: Array) -> Array:
        """Draw every choice uniformly. The key is consumed."""
        return jax.random.randint(key, self.shape, 0, self.nvec, self.dtype)

    def contains(self, x: Array) -> Array:
        """Return whether every choice exists."""
        return jnp.all((x >= 0) & (x < self.nvec))


class GymnaxWorld(environment.Environment):
    """A world of the engine behind gymnax's base class, which adds `reset` and an automatically resetting `step`."""

    def __init__(self, world: Environment[Any, Any], team_reward: TeamReward = "none") -> None:
        require(team_reward in ("none", "sum", "mean"), "team_reward", "none, sum or mean", team_reward)
        self.world = world
        self.team_reward = team_reward

    @property
    def name(self) -> str:
        return self.world.spec.name

    @functools.cached_property
    def default_params(self) -> WorldParams:
        return WorldParams(
            max_steps_in_episode=self.world.spec.time_limit or NO_LIMIT, world=self.world.default_params()
        )

    def reset_env(self, key: Array, params: WorldParams) -> tuple[Array, WorldState]:
        """Start an episode. The key is consumed."""
        world, timestep = self.world.reset(_typed(key), params.world)
        state = WorldState(time=jnp.zeros((), jnp.int32), world=world, timestep=timestep)
        return self._apply_transition_gradient_policy(self._of_agents(timestep.observation), state)

    def step_env(
        self, key: Array, state: WorldState, action: Any, params: WorldParams
    ) -> tuple[Array, WorldState, Array, Array, dict[str, Array]]:
        """Advance one step without resetting. The key is consumed."""
        joint = jnp.asarray(action)[None] if self._is_single else jnp.asarray(action)
        world, timestep = self.world.step(_typed(key), state.world, joint, params.world)
        next_state = WorldState(time=state.time + 1, world=world, timestep=timestep)
        info = {
            **timestep.metrics,
            "discount": 1.0 - timestep.terminated.astype(jnp.float32),
            "final_global_state": timestep.global_state,
        }
        observation, next_state = self._apply_transition_gradient_policy(
            self._of_agents(timestep.observation), next_state
        )
        return observation, next_state, self._rewarded(timestep), timestep.terminated, info

    def observe(self, key: Array, state: WorldState, action: Any, params: WorldParams) -> Array:
        """Return what the world showed last. The key is left unused."""
        return self._of_agents(state.timestep.observation)

    def is_terminated(self, state: WorldState, params: WorldParams) -> Array:
        """Return whether the world itself ended."""
        return state.timestep.terminated

    def is_truncated(self, state: WorldState, params: WorldParams) -> Array:
        """Return whether a time limit was reached: the world's own, or a shorter one in `params`."""
        return state.timestep.truncated | (state.time >= params.max_steps_in_episode)

    def observation_space(self, params: WorldParams | None = None) -> spaces.Box:
        """Return the space of the observation, with an agent axis where there are several."""
        return self._box(self.world.spec.observation)

    def action_space(self, params: WorldParams | None = None) -> spaces.Space:
        """Return the space of the action, with an agent axis where there are several."""
        space = self.world.spec.action
        if isinstance(space, Box):
            return self._box(space)
        if isinstance(space, Discrete) and self._is_single:
            return spaces.Discrete(space.n)
        nvec = np.asarray(space.n if isinstance(space, Discrete) else space.nvec)
        return MultiDiscrete(nvec if self._is_single else self._for_all(nvec))

    @property
    def num_actions(self) -> int:
        """Choices of one agent, or where it makes none the numbers it sets."""
        space = self.world.spec.action
        return space.n if isinstance(space, Discrete) else int(np.prod(space.shape))

    @property
    def _is_single(self) -> bool:
        return self.world.spec.num_agents == 1

    def _of_agents(self, values: Array) -> Array:
        """Drop the agent axis where there is one agent."""
        return values[0] if self._is_single else values

    def _rewarded(self, timestep: TimeStep) -> Array:
        if self.team_reward == "none":
            return self._of_agents(timestep.reward)
        return timestep.reward.sum() if self.team_reward == "sum" else timestep.reward.mean()

    def _for_all(self, bounds: np.ndarray) -> np.ndarray:
        return np.repeat(bounds[None], self.world.spec.num_agents, axis=0)

    def _box(self, box: Box) -> spaces.Box:
        dtype = np.float32 if box.dtype == "bool" else box.dtype
        low, high = (np.asarray(bound, dtype).reshape(box.shape) for bound in (box.low, box.high))
        if not self._is_single:
            low, high = self._for_all(low), self._for_all(high)
        return spaces.Box(low, high, low.shape, jnp.dtype(box.dtype))


def to_gymnax(world: Environment[Any, Any], team_reward: TeamReward = "none") -> GymnaxWorld:
    """Return the world as a gymnax `Environment`.

    `team_reward`: `sum` or `mean` over the agents make one reward; `none` leaves one for each agent.

    Raises:
        ValueError: `team_reward` is none of these.
    """
    return GymnaxWorld(world, team_reward)


def make_gymnax(env_id: str, team_reward: TeamReward = "none", **env_params: EnvValue) -> GymnaxWorld:
    """Return the world `env_id` as a gymnax `Environment`.

    Raises:
        UserError: no such world, no such parameter, or a value of the wrong type or out of range.
    """
    return to_gymnax(make_env(env_id, env_params)[0], team_reward)


def register_with_gymnax(prefix: str = "jaxrl/") -> list[str]:
    """Make our worlds known to `gymnax.make`, e.g. as `jaxrl/reacher`, and return their names.

    `gymnax.make("jaxrl/reacher", num_links=3)` passes parameters on. Names that are registered already are left alone,
    so calling this twice does no harm. Worlds that are adapted from elsewhere are not ours to register.

    Raises:
        UserError: the installed gymnax cannot register worlds.
    """
    if not hasattr(gymnax, "register"):
        raise UserError("register_with_gymnax: the installed gymnax has no `register`; gymnax 1.0 has")
    names = {prefix + env_id: env_id for env_id in native_envs()}
    for name, env_id in names.items():
        if name not in gymnax.registered_envs:
            gymnax.register(name, functools.partial(make_gymnax, env_id))
    return sorted(names)


def _typed(key: Array) -> Array:
    """Return an old key (two unsigned integers) as a typed one."""
    return key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)
