"""Host worlds by name. Importing this module imports none of their libraries.

A family is a module with `parameters(name)`, the defaults, `simulate(name, num_envs, **values)`, a `Simulator`,
`available()`, the names it knows, and `ONE_PER_PROCESS`. Every family takes two parameters more:

    processes  how many worker processes share the environments out; 0: none, they are stepped in the calling thread
    deadline   seconds a worker has for a step, a reset, or its start (in the calling thread nothing can be cut short)
"""

import difflib
import functools
import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any

from jaxrl_engine.core.checks import in_type_of
from jaxrl_engine.core.config import EnvValue, require
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.envs.host.simulator import REFUSALS

_FAMILIES = {
    "gymnasium": "jaxrl_engine.envs.host.gymnasium_host",
    "retro": "jaxrl_engine.envs.host.retro_host",
    "pettingzoo": "jaxrl_engine.envs.host.pettingzoo_host",
}
_LISTED = (
    ("gymnasium:<id>", "gymnasium", "", "any world of Gymnasium's, or of a module: gymnasium:<module>:<id>"),
    ("gymnasium:ALE/<Game>-v5", "ale_py", "atari", "Atari, 84x84x4 uint8, ROMs included"),
    ("retro:<Game>", "stable_retro", "retro", "console games, 84x84x4 uint8, such as Airstriker-Genesis"),
    ("pettingzoo:<family>/<name>", "pettingzoo", "pettingzoo", "PettingZoo's parallel worlds and MPE2's"),
)
DEADLINE = 60.0
"""Seconds: the slowest world's start, with many times the patience of a step."""


def is_host_world(env_id: str) -> bool:
    """Say whether a world is stepped from Python; nothing is imported, and there may be no such world."""
    return env_id.partition(":")[0] in _FAMILIES


def listing() -> list[str]:
    """Return a line for each family of host worlds: its ids, what it is, what to install."""
    lines = []
    for ids, module, extra, text in _LISTED:
        missing = extra and importlib.util.find_spec(module) is None
        lines.append(f"{ids}: {text} (async mode)" + f'; pip install "jaxrl-engine[{extra}]"' * bool(missing))
    return lines


def make_host_env(env_id: str, num_envs: int, env_params: Mapping[str, EnvValue]) -> Any:
    """Make `num_envs` environments of the world `env_id`: a `HostVectorEnv`, to be closed by whoever asked for it.

    Raises:
        UserError: no such world, no such parameter, a value out of range, or something that is not installed.
        HostWorldError: a worker process failed, died or did not start in time.
    """
    family, _, name = env_id.partition(":")
    if family not in _FAMILIES:
        raise UserError(f"env: unknown host world {env_id!r}; {_suggestion(family, list(_FAMILIES))}")
    if num_envs < 1:
        raise UserError(f"num_envs must be a whole number >= 1, not {num_envs}")
    module = importlib.import_module(_FAMILIES[family])
    try:
        own = {"deadline": DEADLINE} if module.ONE_PER_PROCESS else {"deadline": DEADLINE, "processes": 0}
        defaults = {**own, **module.parameters(name)}
    except LookupError as error:
        hint = _suggestion(name, module.available())
        raise UserError(f"env: unknown world {env_id!r}; {hint}") from error
    values = {key: _checked(env_id, key, value, defaults) for key, value in env_params.items()}
    return _built(env_id, num_envs, module, values)


def _built(env_id: str, num_envs: int, module: Any, values: dict[str, EnvValue]) -> Any:
    """Make the environments out of checked values."""
    given = ", ".join(f"{name}={value}" for name, value in values.items())
    seconds, processes = float(values.pop("deadline", DEADLINE)), int(values.pop("processes", 0))
    world = importlib.import_module("jaxrl_engine.envs.host.world")
    try:
        require(seconds > 0.0, "deadline", "a number of seconds > 0", seconds)
        require(processes >= 0, "processes", "a whole number >= 0", processes)
        make = functools.partial(module.simulate, env_id.partition(":")[2], num_envs, **values)
        processes = num_envs if module.ONE_PER_PROCESS else min(processes, num_envs)
        if processes:
            workers = importlib.import_module("jaxrl_engine.envs.host.workers")
            make = functools.partial(workers.Workers, env_id, module.__name__, num_envs, processes, seconds, values)
        return world.HostWorld(env_id, make())
    except REFUSALS as error:
        reason = (str(error).splitlines() or [""])[0] or f"{type(error).__name__} from the world itself"
        raise UserError(
            f"env_params ({given}) of {env_id}: {reason}" if given else f"env {env_id}: {reason}"
        ) from error


def _checked(env_id: str, name: str, value: EnvValue, defaults: Mapping[str, EnvValue]) -> EnvValue:
    """Return the value in the type of the parameter's default."""
    if name not in defaults:
        raise UserError(f"env_params.{name}: no such parameter of {env_id}; {_suggestion(name, list(defaults))}")
    return in_type_of(defaults[name], value, f"env_params.{name} of {env_id}")


def _suggestion(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name.lower(), {full.lower(): full for full in known}, n=1, cutoff=0.4)
    if not near:
        return f"there are {', '.join(sorted(known)[:8])}{', …' if len(known) > 8 else ''}" if known else "it has none"
    return f"did you mean {next(full for full in known if full.lower() == near[0])}?"
