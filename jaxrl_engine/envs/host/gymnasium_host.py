"""Gymnasium's worlds as host worlds: `gymnasium:<id>`, those of Atari (`gymnasium:ALE/<Game>-v5`) in `atari_host`.

Written against gymnasium 1.3. `<module>:<id>` imports a module first that registers worlds of its own.

- The copies are gymnasium's own `SyncVectorEnv`, which is told not to reset by itself: its modes that do keep the final
  observation by reference, and a world that shows the same array again and again overwrites it in its reset.
- Observations that are no Box (one of n, several, tuples and dictionaries of such) become one vector by gymnasium's own
  `flatten`: choices as one-hot vectors. Bytes stay uint8, everything else becomes float32.
- Actions: Discrete, MultiDiscrete and MultiBinary as choices counted from 0, Box of real numbers as it is.
- Worlds that can are made so that they draw themselves, which they do when a picture is asked for and at no other time;
  many draw with pygame, the extra `pictures`.
- Parameters are those of the world's constructor, and `max_episode_steps` (0: the one it is registered with).
"""

import functools
import importlib
import inspect
import math
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FlattenObservation
from jaxtyping import Shaped, UInt8

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.envs.host import atari_host
from jaxrl_engine.envs.host.pictures import Canvases
from jaxrl_engine.envs.host.simulator import Arrays, Facts, Simulator, action_space_of, box_of, native_actions, stepped

ONE_PER_PROCESS = False


class VectorSimulator:
    """A vector environment of gymnasium's that leaves resetting to us."""

    def __init__(self, vector: SyncVectorEnv, canvases: Canvases, time_limit: int | None) -> None:
        self.vector = vector
        self._canvases = canvases
        self.num_envs = vector.num_envs
        self._action = vector.single_action_space
        self.facts = Facts(
            num_agents=1, observation=box_of(vector.single_observation_space), time_limit=time_limit,
            action=action_space_of(self._action, "this world"),
        )  # fmt: skip

    def reset(self, seed: int) -> Arrays:
        """Start every copy; copy `i` is seeded with `seed + i`."""
        return {"observation": self._views(self.vector.reset(seed=seed)[0])}

    def step(self, actions: Shaped[np.ndarray, "b 1 ..."]) -> Arrays:
        """Advance every copy, then reset those whose episode ended."""
        observation, reward, terminated, truncated, _ = self.vector.step(native_actions(self._action, actions[:, 0]))
        views, done = self._views(observation), terminated | truncated
        final = views[done]
        if done.any():
            views = self._views(self.vector.reset(options={"reset_mask": done})[0])
        return stepped(views, reward[:, None], (terminated, truncated), final)

    def pictures(self, count: int) -> UInt8[np.ndarray, "n height width 3"]:
        """Return what the first `count` copies draw."""
        return self._canvases.draw(count)

    def close(self) -> None:
        """Close every copy."""
        self.vector.close()

    def _views(self, observation: np.ndarray) -> Shaped[np.ndarray, "b 1 ..."]:
        return np.asarray(observation, self.facts.observation.dtype)[:, None]


def available() -> list[str]:
    """Return the ids gymnasium knows."""
    return sorted(gymnasium.registry)


def parameters(name: str) -> dict[str, Any]:
    """Return the parameters of a world and their defaults: numbers, flags and texts of its constructor.

    Raises:
        LookupError: there is no such world.
        UserError: its module or its extra is not installed.
    """
    if name.startswith("ALE/"):
        return atari_host.parameters(name)
    registered = _registered(name)
    creator = _creator(name, registered)
    defaults = {p.name: p.default for p in inspect.signature(creator).parameters.values()}
    known = {key: value for key, value in {**defaults, **registered.kwargs}.items() if _plain(value)}
    return {**known, "max_episode_steps": 0}


def simulate(name: str, num_envs: int, **values: Any) -> Simulator:
    """Make `num_envs` copies of a world; `values` go to its constructor.

    Raises:
        LookupError: there is no such world.
        UserError: something it needs is not installed.
        ValueError: the engine has no such spaces.
    """
    if name.startswith("ALE/"):
        return atari_host.simulate(name, num_envs, **values)
    registered = _registered(name)
    limit = values.pop("max_episode_steps", 0) or None
    own_mode = "render_mode" in registered.kwargs  # what such a world shows may depend on it
    canvases = Canvases(None if own_mode else _creator(name, registered))
    construct = functools.partial(
        gymnasium.make, registered, max_episode_steps=limit, disable_env_checker=True, **values
    )

    def make() -> gymnasium.Env:
        return seen_as_box(canvases.make(construct))

    vector = _imported(name, lambda: SyncVectorEnv([make] * num_envs, autoreset_mode=AutoresetMode.DISABLED))
    return VectorSimulator(vector, canvases, limit or registered.max_episode_steps)


def seen_as_box(env: gymnasium.Env) -> gymnasium.Env:
    """Return the world with observations that are one array.

    Raises:
        ValueError: they cannot be.
    """
    space = env.observation_space
    if isinstance(space, gymnasium.spaces.Box):
        return env
    if not space.is_np_flattenable:
        raise ValueError(f"its observations must be an array, or choices, or tuples of such, not {space}")
    return FlattenObservation(env)


def _registered(name: str) -> Any:
    """Return gymnasium's entry of a world."""
    module, _, bare = name.rpartition(":")
    if module:
        _imported(name, lambda: importlib.import_module(module))
    if bare not in gymnasium.registry:
        raise LookupError(bare)
    return gymnasium.registry[bare]


def _creator(name: str, registered: Any) -> Any:
    """Return what makes a world: a class, as a rule."""
    creator = registered.entry_point
    if isinstance(creator, str):
        creator = _imported(name, lambda: gymnasium.envs.registration.load_env_creator(registered.entry_point))
    return creator


def _imported(name: str, action: Callable[[], Any]) -> Any:
    """Do something that imports what a world is made of."""
    try:
        return action()
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"env: gymnasium:{name} needs something that is not installed: {reason}") from error


def _plain(value: Any) -> bool:
    return type(value) in (bool, str, int) or (type(value) is float and math.isfinite(value))
