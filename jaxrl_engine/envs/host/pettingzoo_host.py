"""PettingZoo's parallel worlds as host worlds: `pettingzoo:<family>/<name>-v<n>`, with the extra `pettingzoo`.

The extra brings the particle worlds (`mpe2/simple_spread-v3`); `sisl/…` and `butterfly/…` need PettingZoo's own extras.

Written against PettingZoo 1.27 and MPE2 1.1. Parameters are those of the world's constructor.

- Agents are ordered as in `possible_agents`. Where their spaces differ, observations are padded with zeros, numbers of
  choices with masked ones, vectors of controls with ones that are ignored; and each observation then ends with a
  one-hot vector of the agent's index (`agent_ids=auto`; `always` and `never` as well): as for `jaxmarl:<id>`.
- An agent that is out sees zeros, is paid nothing and its action is ignored, from the step after its last one on.
- An episode ends when no agent is left. It was truncated if any of those that were in the last step was (and not
  terminated): they could have gone on. Otherwise it terminated.
- Global state: all observations, one after the other; of images the channels, agent by agent.
"""

import functools
import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from jaxrl_engine.core.checks import require
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.core.spaces import ActionSpace, Box, Discrete
from jaxrl_engine.envs.host.pictures import Canvases
from jaxrl_engine.envs.host.simulator import Arrays, Facts, action_space_of, box_of, native_actions, stepped

ONE_PER_PROCESS = False
AGENT_IDS = ("auto", "always", "never")
_PLAIN = (bool, int, float, str)


class ParallelSimulator:
    """Copies of a `ParallelEnv`, stepped one after the other."""

    def __init__(
        self, worlds: list[Any], agent_ids: str, time_limit: int | None, canvases: Canvases | None = None
    ) -> None:
        """Find spaces that all agents share; without `canvases` there are no pictures.

        Raises:
            ValueError: there are none.
        """
        require(agent_ids in AGENT_IDS, "agent_ids", "auto, always or never", agent_ids)
        self.worlds = worlds
        self._canvases = canvases or Canvases(None)
        self.num_envs = len(worlds)
        self.agents = list(worlds[0].possible_agents)
        self._spaces = {agent: worlds[0].action_space(agent) for agent in self.agents}
        self._controls = {agent: action_space_of(space, agent) for agent, space in self._spaces.items()}
        seen = [_view(agent, worlds[0].observation_space(agent)) for agent in self.agents]
        choices = tuple(control.n for control in self._controls.values() if isinstance(control, Discrete))
        differ = len(set(seen)) > 1 or len(set(self._controls.values())) > 1
        self.facts = Facts(
            num_agents=len(self.agents), observation=_widest_view(seen), time_limit=time_limit,
            action=_widest_control(list(self._controls.values())), choices=choices if len(set(choices)) > 1 else (),
            agent_ids=agent_ids == "always" or (agent_ids == "auto" and differ),
        )  # fmt: skip

    def reset(self, seed: int) -> Arrays:
        """Start every copy; copy `i` is seeded with `seed + i`."""
        views = [self._stacked(world.reset(seed=seed + i)[0]) for i, world in enumerate(self.worlds)]
        return {"observation": np.stack(views)}

    def step(self, actions: Shaped[np.ndarray, "b A ..."]) -> Arrays:
        """Advance every copy, then reset those whose episode ended."""
        shown = [self._advanced(world, action) for world, action in zip(self.worlds, actions, strict=True)]
        views, rewards, terminated, truncated = map(list, zip(*shown, strict=True))
        final = [view for view, *ends in zip(views, terminated, truncated, strict=True) if any(ends)]
        for i, world in enumerate(self.worlds):
            if terminated[i] or truncated[i]:
                views[i] = self._stacked(world.reset()[0])
        return stepped(np.stack(views), np.stack(rewards), (np.array(terminated), np.array(truncated)), final)

    def pictures(self, count: int) -> UInt8[np.ndarray, "n height width 3"]:
        """Return what the first `count` copies draw."""
        return self._canvases.draw(count)

    def close(self) -> None:
        """Close every copy."""
        for world in self.worlds:
            world.close()

    def _advanced(
        self, world: Any, action: Shaped[np.ndarray, "A ..."]
    ) -> tuple[Shaped[np.ndarray, "A ..."], Float[np.ndarray, "A"], bool, bool]:
        """Step one copy; return what its agents see and are paid, and whether the episode terminated or truncated."""
        playing = list(world.agents)
        own = {agent: self._own(agent, action) for agent in playing}
        seen, paid, terminations, truncations, _ = world.step(own)
        rewards = np.array([paid.get(agent, 0.0) for agent in self.agents], np.float32)
        over = not world.agents
        cut = any(truncations.get(agent, False) and not terminations.get(agent, False) for agent in playing)
        return self._stacked(seen), rewards, over and not cut, over and cut

    def _own(self, agent: str, actions: Shaped[np.ndarray, "A ..."]) -> Any:
        """Return an agent's action as its space knows it."""
        control, i = self._controls[agent], self.agents.index(agent)
        own = actions[i, : len(control.low)] if isinstance(control, Box) else actions[i]
        return native_actions(self._spaces[agent], np.asarray(own))[()]  # of a choice the number, not an array

    def _stacked(self, seen: Mapping[str, np.ndarray]) -> Shaped[np.ndarray, "A ..."]:
        """Stack copies of what the agents see, padded with zeros; an agent that is out sees zeros."""
        box = self.facts.observation
        views = np.zeros((len(self.agents), *box.shape), box.dtype)
        for i, agent in enumerate(self.agents):
            if agent in seen:
                view = np.asarray(seen[agent])
                views[i, ..., : view.shape[-1]] = view
        return views


def available() -> list[str]:
    """Return the names of the worlds that PettingZoo and MPE2 have, whether or not what they need is installed."""
    if not _installed():
        return []
    return sorted([*importlib.import_module("pettingzoo").parallel_registry, *_particle_worlds()])


def parameters(name: str) -> dict[str, Any]:
    """Return the parameters of a world and their defaults: numbers, flags and texts of its constructor.

    Raises:
        LookupError: there is no such world.
        UserError: PettingZoo, or something the world needs, is not installed.
    """
    module = _module(name)
    # Some constructors hand everything on to the world within, which goes by one name in all of PettingZoo.
    makers = filter(None, (getattr(module, "raw_env", None), getattr(module, "_env", None)))
    arguments = [p for maker in makers for p in inspect.signature(maker).parameters.values()]
    return {**{p.name: p.default for p in arguments if type(p.default) in _PLAIN}, "agent_ids": "auto"}


def simulate(name: str, num_envs: int, **values: Any) -> ParallelSimulator:
    """Make `num_envs` copies of a world; `values` go to its constructor.

    Raises:
        LookupError: there is no such world.
        UserError: PettingZoo, or something the world needs, is not installed.
        ValueError: the agents' spaces cannot be stacked.
    """
    agent_ids = values.pop("agent_ids", "auto")
    limit = {**parameters(name), **values}.get("max_cycles")
    module = _module(name)
    canvases = Canvases(getattr(module, "raw_env", None))
    construct = functools.partial(module.parallel_env, **values)
    return ParallelSimulator([canvases.make(construct) for _ in range(num_envs)], agent_ids, limit, canvases)


def _module(name: str) -> Any:
    """Import the module a world is made by."""
    if not _installed():
        raise UserError(f'env: pettingzoo:{name} needs PettingZoo: pip install "jaxrl-engine[pettingzoo]"')
    canonical = re.sub(r"_v(\d+)$", r"-v\1", name.replace(".", "/", 1))
    registry = importlib.import_module("pettingzoo").parallel_registry
    module = _particle_worlds().get(canonical)
    if canonical in registry:
        module = registry[canonical].entry_point.partition(":")[0]
    if module is None:
        raise LookupError(canonical)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        hint = f'{error}; pip install "pettingzoo[{canonical.partition("/")[0]}]"'
        raise UserError(f"env: pettingzoo:{name} needs something that is not installed: {hint}") from error


def _particle_worlds() -> dict[str, str]:
    """Return the modules of MPE2's worlds, which PettingZoo does not list, by names such as PettingZoo gives."""
    found = importlib.util.find_spec("mpe2")
    modules = pkgutil.iter_modules(found.submodule_search_locations) if found else ()
    split = ((module.name, *module.name.rpartition("_v")) for module in modules)
    return {f"mpe2/{name}-v{version}": f"mpe2.{module}" for module, name, _, version in split if version.isdigit()}


def _installed() -> bool:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # it greets on standard output
    return importlib.util.find_spec("pettingzoo") is not None


def _view(agent: str, space: Any) -> Box:
    if type(space).__name__ != "Box" or len(space.shape) not in (1, 3):
        raise ValueError(f"the observations of {agent} must be a vector or an image, not {space}")
    return box_of(space)


def _widest_view(seen: list[Box]) -> Box:
    """Return the observation that every agent's is a part of."""
    if len(set(seen)) == 1:
        return seen[0]
    if any(len(box.shape) != 1 for box in seen):
        raise ValueError("agents whose images differ cannot share an observation space")
    return Box.uniform((max(len(box.low) for box in seen),), -np.inf, np.inf)


def _widest_control(controls: list[ActionSpace]) -> ActionSpace:
    """Return the action that every agent's is a part of."""
    if len(set(controls)) == 1:
        return controls[0]
    choices = [control.n for control in controls if isinstance(control, Discrete)]
    if len(choices) == len(controls):
        return Discrete(max(choices))
    boxes = [control for control in controls if isinstance(control, Box)]
    widest = max(boxes, key=lambda box: len(box.low), default=None)
    fit = all(
        (box.low, box.high) == (widest.low[: len(box.low)], widest.high[: len(box.low)]) for box in boxes if widest
    )
    if widest is None or len(boxes) < len(controls) or not fit or len(widest.shape) != 1:
        raise ValueError("agents whose actions differ in kind or in bounds cannot share an action space")
    return widest
