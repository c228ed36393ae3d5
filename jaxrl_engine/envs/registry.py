"""Worlds by name. Importing this module imports none of them: gymnax and Brax cost seconds.

A world of your own is one file and one line: a class (or function) whose keyword arguments, all with defaults, are the
world's parameters and which returns an `Environment`, and `register("my-world", MyWorld)`.
"""

import dataclasses
import difflib
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin

from jaxrl_engine.core.checks import in_type_of
from jaxrl_engine.core.config import EnvValue
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.envs.protocol import Environment

Factory = Callable[..., Environment[Any, Any]]

# Each native world is a class, written "module:class" so that it is imported when it is made.
_worlds: dict[str, str | Factory] = {
    "reacher": "jaxrl_engine.envs.reacher.env:Reacher",
    "reacher-zigzag": "jaxrl_engine.envs.reacher.zigzag:ReacherZigzag",
    "alice_and_bob": "jaxrl_engine.envs.alice_and_bob:AliceAndBob",
    "color_lines": "jaxrl_engine.envs.color_lines.env:ColorLines",
    "uav_coverage": "jaxrl_engine.envs.uav.coverage:UavCoverage",
    "uav_relay": "jaxrl_engine.envs.uav.relay:UavRelay",
    "probe:constant": "jaxrl_engine.envs.probes:Constant",
    "probe:observation": "jaxrl_engine.envs.probes:Observation",
    "probe:discount": "jaxrl_engine.envs.probes:Discount",
    "probe:action": "jaxrl_engine.envs.probes:Action",
    "probe:policy": "jaxrl_engine.envs.probes:Policy",
    "probe:truncation": "jaxrl_engine.envs.probes:Truncation",
    "probe:final": "jaxrl_engine.envs.probes:Final",
    "probe:memory": "jaxrl_engine.envs.probes:Memory",
    "probe:continuous": "jaxrl_engine.envs.probes:Continuous",
    "probe:together": "jaxrl_engine.envs.team_probes:Together",
    "probe:apart": "jaxrl_engine.envs.team_probes:Apart",
}

# An adapter is a module with `parameters(name)`, the defaults, and `make(name, **values)`.
_ADAPTERS = {
    "gymnax": "jaxrl_engine.envs.gymnax_adapter",
    "brax": "jaxrl_engine.envs.brax_adapter",
    "jaxmarl": "jaxrl_engine.envs.jaxmarl_adapter",
    "multi": "jaxrl_engine.envs.multi_adapter",
}
_ADAPTED: dict[str, tuple[str, ...]] = {
    "gymnax": (
        "CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0",
        "Asterix-MinAtar", "Breakout-MinAtar", "Freeway-MinAtar", "Seaquest-MinAtar", "SpaceInvaders-MinAtar",
        "Catch-bsuite", "DeepSea-bsuite", "MemoryChain-bsuite", "UmbrellaChain-bsuite", "DiscountingChain-bsuite",
        "SimpleBandit-bsuite", "FourRooms-misc", "MetaMaze-misc", "PointRobot-misc", "BernoulliBandit-misc",
        "GaussianBandit-misc", "Reacher-misc", "Swimmer-misc", "Pong-misc", "FrozenLake-misc",
    ),
    "brax": (
        "ant", "fast", "halfcheetah", "hopper", "humanoid", "humanoidstandup", "inverted_pendulum",
        "inverted_double_pendulum", "pusher", "reacher", "walker2d",
    ),
    "jaxmarl": (
        "MPE_simple_v3", "MPE_simple_tag_v3", "MPE_simple_world_comm_v3", "MPE_simple_spread_v3",
        "MPE_simple_crypto_v3", "MPE_simple_speaker_listener_v4", "MPE_simple_push_v3", "MPE_simple_adversary_v3",
        "MPE_simple_reference_v3", "MPE_simple_facmac_v1", "MPE_simple_facmac_3a_v1", "MPE_simple_facmac_6a_v1",
        "MPE_simple_facmac_9a_v1", "switch_riddle", "SMAX", "HeuristicEnemySMAX", "hanabi", "overcooked",
        "overcooked_v2", "jaxnav",
    ),
}  # fmt: skip
_ADAPTED["multi"] = _ADAPTED["gymnax"]
_DOWNLOADS = "it downloads its images when it is made, and worlds here work offline"
_UNAVAILABLE = {
    "gymnax:MNISTBandit-bsuite": _DOWNLOADS,
    "multi:MNISTBandit-bsuite": _DOWNLOADS,
    "brax:swimmer": "Brax's fluid forces call jax.numpy.clip with an argument that jax 0.10 no longer has",
}


def available_envs() -> list[str]:
    """Return the id of every world, sorted."""
    adapted = [f"{family}:{name}" for family, names in _ADAPTED.items() for name in names]
    return sorted([*_worlds, *adapted])


def native_envs() -> list[str]:
    """Return the ids of the worlds that are no adapter's, sorted."""
    return sorted(_worlds)


def register(env_id: str, factory: Factory) -> None:
    """Make `factory` the world `env_id`: its keyword arguments are what `env_params` may set.

    Raises:
        UserError: the id is empty or taken, or an argument has no default.
    """
    if not env_id or env_id in available_envs():
        raise UserError(f"env: a new world needs an id that is not taken, not {env_id!r}")
    bare = [name for name, p in _arguments(factory).items() if p.default is inspect.Parameter.empty]
    if bare:
        raise UserError(f"env: every argument of the world {env_id} needs a default, but {bare[0]} has none")
    _worlds[env_id] = factory


def make_env(env_id: str, env_params: Mapping[str, EnvValue]) -> tuple[Environment[Any, Any], Any]:
    """Build the world `env_id` and the parameters its `reset` and `step` take.

    `env_params` overrides the world's own settings by name (for gymnax: of its constructor or its `EnvParams`).

    Raises:
        UserError: no such world, no such parameter, or a value of the wrong type or out of range.
    """
    world = _look_up(env_id)
    values = {name: world.checked(name, value) for name, value in env_params.items()}
    try:
        env = world.build(**values)
    except (ValueError, TypeError, AssertionError, IndexError, NotImplementedError) as error:
        if not values:
            raise
        reason = (str(error).splitlines() or [""])[0] or f"{type(error).__name__} from the world itself"
        given = ", ".join(f"{name}={value}" for name, value in values.items())
        raise UserError(f"env_params ({given}) of {env_id}: {reason}") from error
    return env, env.default_params()


@dataclasses.dataclass(frozen=True)
class _World:
    """What builds a world, and what may be said about it."""

    env_id: str
    build: Factory
    defaults: Mapping[str, EnvValue]
    choices: Mapping[str, tuple[EnvValue, ...]] = dataclasses.field(default_factory=dict)

    def checked(self, name: str, value: EnvValue) -> EnvValue:
        """Return the value in the type of the parameter's default."""
        if name not in self.defaults:
            hint = _suggestion(name, list(self.defaults))
            raise UserError(f"env_params.{name}: no such parameter of {self.env_id}; {hint}")
        field = f"env_params.{name} of {self.env_id}"
        choices = self.choices.get(name, ())
        if choices and value not in choices:
            raise UserError(f"{field} must be {' or '.join(map(str, choices))}, not {value!r}")
        return in_type_of(self.defaults[name], value, field)


def _look_up(env_id: str) -> _World:
    family, _, name = env_id.partition(":")
    if env_id in _worlds:
        factory = _resolve(_worlds[env_id])
        arguments = _arguments(factory)
        choices = {key: get_args(p.annotation) for key, p in arguments.items() if get_origin(p.annotation) is Literal}
        return _World(env_id, factory, {key: p.default for key, p in arguments.items()}, choices)
    if name in _ADAPTED.get(family, ()):
        adapter = importlib.import_module(_ADAPTERS[family])
        return _World(env_id, functools.partial(adapter.make, name), adapter.parameters(name))
    if env_id in _UNAVAILABLE:
        raise UserError(f"env: {env_id} is not offered: {_UNAVAILABLE[env_id]}")
    raise UserError(f"env: unknown world {env_id!r}; {_suggestion(env_id, available_envs())}")


def _resolve(world: str | Factory) -> Factory:
    if not isinstance(world, str):
        return world
    module, _, attribute = world.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _arguments(factory: Factory) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(factory).parameters


def _suggestion(name: str, known: list[str]) -> str:
    """Name what is nearest, whether or not the world's family was written."""
    if not known:
        return "it has none"
    # The last spelling wins: a bare name means our own world before an adapted one, and that before its wrapper.
    ranked = sorted(known, key=lambda full: 0 if full.startswith("multi:") else 1 if ":" in full else 2)
    spellings = {spelling.lower(): full for full in ranked for spelling in (full.rpartition(":")[2], full)}
    near = difflib.get_close_matches(name.lower(), spellings, n=1, cutoff=0.5)
    if near:
        return f"did you mean {spellings[near[0]]}?"
    families = sorted({full.partition(":")[0] + (":<name>" if ":" in full else "") for full in known})
    return f"there are {', '.join(families)}"
