"""Print every world with its agents, spaces, metrics and rules in one line: `python -m jaxrl_engine.envs [WORLD …]`.

Of host worlds, which other packages bring, a line for each family.
"""

import argparse
import sys
from typing import Any

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.core.spaces import ActionSpace, Box, Discrete
from jaxrl_engine.core.types import EnvSpec
from jaxrl_engine.envs.host.registry import is_host_world, listing, make_host_env
from jaxrl_engine.envs.registry import available_envs, make_env

EXIT_BAD_INPUT = 2


def describe(env_id: str) -> str:
    """Return one world's entry: its id, then what it takes and gives, then its rules.

    Raises:
        UserError: there is no such world.
    """
    env: Any = make_host_env(env_id, 1, {}) if is_host_world(env_id) else make_env(env_id, {})[0]
    spec = env.spec
    if is_host_world(env_id):
        env.close()
    facts = [
        f"{spec.num_agents} agent{'s' * (spec.num_agents > 1)}",
        f"observation {_shape(spec.observation.shape)} {spec.observation.dtype}",
        f"action {action_text(spec.action)}{' (masked)' * spec.masks_actions}",
        f"global state {_shape(spec.global_state.shape)}" if _has_own_state(spec) else "",
        f"at most {spec.time_limit} steps" if spec.time_limit else "no time limit",
        f"metrics {', '.join(spec.metric_names)}" if spec.metric_names else "",
        spec.remark,
    ]
    return f"{env_id}\n    {rules(env, env_id)}\n    {'; '.join(filter(None, facts))}"


def action_text(space: ActionSpace) -> str:
    """Name an action space as a user would."""
    if isinstance(space, Box):
        bounds = f" in [{min(space.low):g}, {max(space.high):g}]" if space.bounded else ""
        return f"{_shape(space.shape)} real{bounds}"
    choices = (space.n,) if isinstance(space, Discrete) else space.nvec
    return " x ".join(map(str, choices)) + " choices"


def rules(env: Any, env_id: str) -> str:
    """Return the first sentence of the world's specification; an adapted world's are its own library's."""
    family, _, name = env_id.partition(":")
    if name and family != "probe":
        return f"{name}, by the rules of {'gymnax' if family == 'multi' else family}."
    return " ".join((type(env).__doc__ or "").split("\n\n")[0].split())


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _has_own_state(spec: EnvSpec) -> bool:
    """Whether the critic's input is more than one agent's observation."""
    return spec.global_state.shape != spec.observation.shape


def main(arguments: list[str] | None = None) -> int:
    """Print the entries asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m jaxrl_engine.envs", description=__doc__)
    parser.add_argument("world", nargs="*", help="ids; without any, all worlds")
    asked = parser.parse_args(arguments).world
    try:
        for env_id in asked or available_envs():
            print(describe(env_id), flush=True)
        for line in () if asked else listing():
            print(line)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main())
