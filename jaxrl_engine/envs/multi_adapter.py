"""gymnax's worlds for a team: `multi:<gymnax id>`, e.g. `multi:CartPole-v1` with agents=3 form=shared.

The parameters, beside those of the wrapped world (`gymnax_adapter`):

    agents      how many, at least 1
    form        independent: a copy of the world each; shared: one world, whose controls they share or vote on
    reward      (independent) sum, mean: everyone gets that of all copies; own: everyone that of the own copy
    done        (independent) any, all: the episode ends with the first copy that ends, or with the last
    per_agent   (independent) numbers of gymnax's `EnvParams` agent by agent, "gravity:9.8/4.9 length:0.5/0.25"
    agent_ids   auto, always, never: whether observations end with a one-hot vector of the agent's index; auto does so
                where agents differ: where `per_agent` is set, and where each owns controls of a shared world

Where the world is shared there is one reward and one end, and every value of `reward` and `done` says the same. All
rules are in `multi_agent`; from Python, `params.replace(gravity=jnp.array([9.8, 4.9]))` makes copies differ as well.
"""

import dataclasses
import difflib
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxrl_engine.core.config import EnvValue, require
from jaxrl_engine.core.spaces import Discrete
from jaxrl_engine.envs import gymnax_adapter
from jaxrl_engine.envs.multi_agent import Independent, Shared

CHOICES = {
    "form": ("independent", "shared"),
    "reward": ("sum", "mean", "own"),
    "done": ("any", "all"),
    "agent_ids": ("auto", "always", "never"),
}
TIME_LIMIT = "max_steps_in_episode"
OWN: dict[str, EnvValue] = {
    "agents": 2, "form": "independent", "reward": "mean", "done": "any", "per_agent": "", "agent_ids": "auto",
}  # fmt: skip


def parameters(name: str) -> dict[str, EnvValue]:
    """Return the parameters of the team and of the wrapped world, and their defaults."""
    return {**gymnax_adapter.parameters(name), **OWN}


def make(name: str, **values: EnvValue) -> Independent | Shared:
    """Build a team's world.

    Raises:
        ValueError: a value is out of range, the controls cannot be shared equally, or gymnax refuses a value.
    """
    own = {key: values.pop(key, default) for key, default in OWN.items()}
    for field, allowed in CHOICES.items():
        require(own[field] in allowed, field, " or ".join(allowed), own[field])
    world = gymnax_adapter.make(name, **values)
    world = dataclasses.replace(world, spec=dataclasses.replace(world.spec, name=f"multi:{name}"))
    return _independent(world, own) if own["form"] == "independent" else _shared(world, own)


def _shared(world: gymnax_adapter.GymnaxEnvironment, own: dict[str, Any]) -> Shared:
    require(not own["per_agent"], "per_agent", "empty where the form is shared: there is one world", own["per_agent"])
    parted = not isinstance(world.spec.action, Discrete)
    return Shared(world, agents=own["agents"], agent_ids=_ids(own, parted))


def _independent(world: gymnax_adapter.GymnaxEnvironment, own: dict[str, Any]) -> Independent:
    team = Independent(world, own["agents"], own["reward"], own["done"], agent_ids=_ids(own, bool(own["per_agent"])))
    if not own["per_agent"]:
        return team
    values = _per_agent(own["per_agent"], own["agents"], world.params)
    limits = values.get(TIME_LIMIT)
    return dataclasses.replace(
        team, own_params=team.default_params().replace(**values),
        time_limits=() if limits is None else tuple(math.ceil(limit) for limit in limits.tolist()),
    )  # fmt: skip


def _ids(own: dict[str, Any], differ: bool) -> bool:
    return own["agent_ids"] == "always" or (own["agent_ids"] == "auto" and differ)


def _per_agent(text: str, agents: int, params: Any) -> dict[str, Array]:
    """Read `name:value/value … name:value/value …` into one vector `[A]` for each name."""
    defaults = {field.name: getattr(params, field.name) for field in dataclasses.fields(params)}
    scalars = {name: value for name, value in defaults.items() if isinstance(value, jnp.ndarray) and value.ndim == 0}
    vectors: dict[str, Array] = {}
    for word in text.split():
        name, _, listed = word.partition(":")
        if name not in scalars:
            near = difflib.get_close_matches(name, scalars, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(scalars)}"
            raise ValueError(f"per_agent: no number {name!r} in this world's EnvParams; {hint}")
        values = [_number(name, number) for number in listed.split("/")]
        require(len(values) == agents, "per_agent", f"{agents} values of {name}, one per agent", listed)
        require(name != TIME_LIMIT or min(values) >= 1, "per_agent", f"{TIME_LIMIT} >= 1", listed)
        vector = np.asarray(values)
        kept = vector.astype(scalars[name].dtype)
        require(bool(np.isclose(kept, vector, rtol=1e-6).all()), "per_agent", f"{kept.dtype} values of {name}", listed)
        vectors[name] = jnp.asarray(kept)
    return vectors


def _number(name: str, text: str) -> float:
    known = {"true": 1.0, "false": 0.0}
    try:
        value = known[text.lower()] if text.lower() in known else float(text)
    except ValueError:
        value = math.nan
    require(math.isfinite(value), "per_agent", f"finite numbers for {name}", text)
    return value
