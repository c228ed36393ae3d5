"""gymnax's worlds behind the engine's protocol: `gymnax:<id>`.

Every world is stepped through `step_env` and `is_truncated`, never through gymnax's own `step`, which resets.
What the sources of gymnax 1.0.1 do that a reader of results should know (reported as they are unless noted):

- `terminated` never includes the time limit; `is_truncated` is `time >= max_steps_in_episode` in all 25 worlds. A step
  can be both; the last of DeepSea always is.
- DeepSea's limit is its `size` (the default of `EnvParams`, 2000, is never used); SimpleBandit ends after one step.
- Catch starts its next ball inside `step_env` when it is stepped past the end, which the vector environment never does.
  MetaMaze and PointRobot move the agent away from a reached goal inside `step_env` and play on; MetaMaze ends only if
  that new place happens to be the goal again. PointRobot's reward looks at the place the agent has just left.
- MemoryChain's observation lags a step behind its state (as in bsuite): the cue is shown twice.
- CartPole keeps `total_mass` and `polemass_length` beside the quantities they follow from: change them together.
- The bounds that GaussianBandit, MetaMaze and MemoryChain declare for their observations are exceeded in play, and
  Catch declares int32 but shows float32. So no bounds are passed on for vectors.

Made uniform here: rewards become float32 (UmbrellaChain and BernoulliBandit give int32); FrozenLake's position, a bare
integer that orders what has no order, becomes a one-hot vector; images of zeros and ones become `bool`, exact and a
quarter of the memory of a rollout; other observations become float32.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces
from jaxtyping import Array, Key, Shaped

from jaxrl_engine.core.config import EnvValue
from jaxrl_engine.core.spaces import ActionSpace, Box, Discrete
from jaxrl_engine.core.types import EnvSpec, PyTree, TimeStep
from jaxrl_engine.envs.single_agent import first_timestep, single_agent_spec, single_agent_timestep, unbounded

BINARY_IMAGES = ("Asterix-MinAtar", "Breakout-MinAtar", "Freeway-MinAtar", "Seaquest-MinAtar",
                 "SpaceInvaders-MinAtar", "Pong-misc")  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class GymnaxEnvironment:
    """One gymnax world; its state is gymnax's own, its parameters gymnax's `EnvParams` as arrays."""

    world: Any
    params: PyTree
    spec: EnvSpec
    encode: Callable[[Array], Array]  # gymnax's observation to ours

    def default_params(self) -> PyTree:
        """Return gymnax's `EnvParams`, with what `env_params` overrides."""
        return self.params

    def reset(self, key: Key[Array, ""], params: PyTree) -> tuple[PyTree, TimeStep]:
        """Start an episode. The key is consumed."""
        observation, state = self.world.reset_env(key, params)
        return _settled(state), first_timestep(self.encode(observation))

    def step(
        self, key: Key[Array, ""], state: PyTree, action: Shaped[Array, "1 ..."], params: PyTree
    ) -> tuple[PyTree, TimeStep]:
        """Advance one step; a time limit truncates, everything else terminates. The key is consumed."""
        observation, next_state, reward, terminated, _ = self.world.step_env(key, state, action[0], params)
        truncated = self.world.is_truncated(next_state, params)
        return _settled(next_state), single_agent_timestep(
            self.encode(observation), jnp.asarray(reward, jnp.float32).reshape(()), terminated, truncated
        )


def parameters(name: str) -> dict[str, EnvValue]:
    """Return the parameters of a world and their defaults: numbers of its constructor and of its `EnvParams`."""
    factory = type(gymnax.make(name)[0])
    constructor = {p.name: p.default for p in inspect.signature(factory).parameters.values()}
    fields = dataclasses.asdict(gymnax.make(name)[1])
    return {key: value for key, value in {**constructor, **fields}.items() if isinstance(value, EnvValue)}


def make(name: str, **overrides: EnvValue) -> GymnaxEnvironment:
    """Build a world; `overrides` go to its constructor or its `EnvParams`, wherever the name belongs.

    Raises:
        ValueError: the time limit is below one step, nothing could be observed, or gymnax refuses a value.
    """
    constructor = inspect.signature(type(gymnax.make(name)[0])).parameters
    world, defaults = gymnax.make(name, **{key: value for key, value in overrides.items() if key in constructor})
    params = defaults.replace(**{key: value for key, value in overrides.items() if key not in constructor})
    time_limit = math.ceil(params.max_steps_in_episode)
    if time_limit < 1:
        raise ValueError(f"max_steps_in_episode must be >= 1, not {params.max_steps_in_episode}")
    box, encode = _observation(name, world, params)
    if 0 in box.shape:
        raise ValueError(f"an observation of shape {box.shape} would hold nothing")
    spec = single_agent_spec(f"gymnax:{name}", box, _action_space(world.action_space(params)), time_limit)
    return GymnaxEnvironment(world=world, params=_settled(params), spec=spec, encode=encode)


def _observation(name: str, world: Any, params: Any) -> tuple[Box, Callable[[Array], Array]]:
    """Choose how a world's observation is shown; see the head of this file."""
    space = world.observation_space(params)
    if isinstance(space, spaces.Discrete):
        return Box.uniform((space.n,), 0.0, 1.0), lambda index: jax.nn.one_hot(index, space.n, dtype=jnp.float32)
    if name in BINARY_IMAGES:
        return Box.uniform(space.shape, 0.0, 1.0, "bool"), lambda image: image.astype(bool)
    return unbounded(space.shape), lambda vector: vector.astype(jnp.float32)


def _action_space(space: Any) -> ActionSpace:
    if isinstance(space, spaces.Discrete):
        return Discrete(space.n)
    low, high = (np.broadcast_to(bound, space.shape).ravel().tolist() for bound in (space.low, space.high))
    return Box(shape=space.shape, low=tuple(low), high=tuple(high))


def _settled(tree: PyTree) -> PyTree:
    """Turn Python numbers and weakly typed scalars into arrays of a fixed type, so that a state keeps its types."""

    def settle(leaf: Any) -> Array:
        array = jnp.asarray(leaf)
        return jax.lax.convert_element_type(array, array.dtype)

    return jax.tree.map(settle, tree)
