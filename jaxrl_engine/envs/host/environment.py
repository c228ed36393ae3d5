"""A host world where a world in JAX is expected: its facts, and how to make environments of it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxrl_engine.core.config import EnvValue
from jaxrl_engine.core.types import EnvSpec
from jaxrl_engine.envs.host.protocol import HostVectorEnv
from jaxrl_engine.envs.host.registry import make_host_env


@dataclasses.dataclass(frozen=True)
class HostEnvironment:
    """An `Environment` that cannot be compiled: it is stepped from Python, through what `make` returns."""

    env_id: str
    env_params: Mapping[str, EnvValue]
    spec: EnvSpec

    def default_params(self) -> tuple[()]:
        """Return nothing: all settings go to the constructor."""
        return ()

    def reset(self, key: Any, params: Any) -> Any:
        """Refuse.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"{self.env_id} is stepped from Python")

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        """Refuse.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"{self.env_id} is stepped from Python")

    def make(self, num_envs: int) -> HostVectorEnv:
        """Make `num_envs` environments, to be closed by whoever asked for them.

        Raises:
            UserError: the world refuses its settings.
            HostWorldError: a worker process failed, died or did not start in time.
        """
        return make_host_env(self.env_id, num_envs, self.env_params)


def host_environment(env_id: str, env_params: Mapping[str, EnvValue]) -> HostEnvironment:
    """Make one environment of a host world, ask it for its facts, and close it.

    Raises:
        UserError: no such world, no such parameter, a value out of range, or something that is not installed.
        HostWorldError: it did not start.
    """
    world = make_host_env(env_id, 1, env_params)
    try:
        return HostEnvironment(env_id, env_params, world.spec)
    finally:
        world.close()
