"""JaxMARL's worlds behind the engine's protocol: `jaxmarl:<id>`, with the extra `jaxmarl` installed.

Written against JaxMARL 0.2. Every world is stepped through `step_env`, never through `step`, which resets.

- Agents are ordered as in `env.agents`. Where their spaces differ (`MPE_simple_tag_v3`) observations are padded with
  zeros, numbers of choices with masked ones, vectors of controls with ones that are ignored; and each observation then
  ends with a one-hot vector of the agent's index (`agent_ids=auto`; `always` and `never` as well).
- JaxMARL has one `done` for two things. What a world ends by its rules is found by stepping a twin whose `max_steps` is
  out of reach: `terminated` is the twin's `done`, `truncated` the rest; of the twin nothing but that flag is computed.
  MPE and SMAX look at the clock before they advance it, so their episodes last one step more than `max_steps`.
- A single agent's `done` (a fallen unit of SMAX) ends nothing: the episode goes on until `__all__`.
- Global state: `world_state` where the world has one, otherwise all observations, flattened (images: channels stacked).
- Actions that are NaN become 0, those out of range the nearest; the metric `invalid_actions` counts them per episode.
- Rewards, shaped ones and others in `infos` apart, are those of each agent; observations become float32.
- `HeuristicEnemySMAX` has the metric `success`, 1 once all enemies have fallen and not all allies, and
  `reward=win` pays that once, to all, instead of JaxMARL's share of the enemies' losses with a bonus.

Not offered: STORM (actions and observations not by agent name), MABrax and the coin game (they reset inside `step_env`:
their last observation is lost), `LearnedPolicyEnemySMAX` (needs a policy), JaxRobotarium (a package of its own).
"""

import contextlib
import dataclasses
import functools
import importlib
import inspect
import io
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from jaxrl_engine.core.config import EnvValue, require
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.core.spaces import Box, Discrete
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import EnvSpec, Leaf, PyTree, TimeStep
from jaxrl_engine.envs.single_agent import unbounded
from jaxrl_engine.envs.team import INVALID, action_bounds, identified, identified_space, joined, joined_space, legal

AGENT_IDS = ("auto", "always", "never")
BATTLES = ("HeuristicEnemySMAX",)  # one team of agents against enemies of the world's
REWARDS = ("jaxmarl", "win")
OUT_OF_REACH = 2**30  # steps
LATE = ("MPE", "SMAX", "HeuristicEnemySMAX")  # they look at the clock before they advance it
# Constructor arguments that are objects, by the names JaxMARL gives them: where its table of them is, and the default.
_NAMED = {
    ("overcooked", "layout"): ("jaxmarl.environments", "overcooked_layouts", "cramped_room"),
    ("SMAX", "scenario"): ("jaxmarl.environments.smax.smax_env", "MAP_NAME_TO_SCENARIO", ""),
    ("HeuristicEnemySMAX", "scenario"): ("jaxmarl.environments.smax.smax_env", "MAP_NAME_TO_SCENARIO", ""),
}


class JaxMarlState(Struct):
    """JaxMARL's own state, and a count."""

    world: PyTree
    invalid: Int[Leaf, "*batch"]  # invalid actions since the reset


@dataclasses.dataclass(frozen=True, eq=False)
class JaxMarlEnvironment:
    """One world of JaxMARL. It has no parameters: all its settings went to its constructor."""

    world: Any
    twin: Any  # the same world without a time limit; None: every end is its rules'
    agent_ids: bool
    spec: EnvSpec
    controls: tuple[Discrete | Box, ...]  # of each agent, before padding
    like: PyTree  # shapes and types of JaxMARL's state
    only_win: bool  # the reward is that of a battle won, nothing else

    def default_params(self) -> tuple[()]:
        """Return nothing."""
        return ()

    def reset(self, key: Key[Array, ""], params: tuple[()]) -> tuple[JaxMarlState, TimeStep]:
        """Start an episode. The key is consumed."""
        with _quiet():
            observations, world = self.world.reset(key)
        state = JaxMarlState(world=self._settled(world), invalid=jnp.zeros((), jnp.int32))
        no = jnp.zeros((), bool)
        return state, self._timestep(state, observations, jnp.zeros(self.spec.num_agents), no, no)

    def step(
        self, key: Key[Array, ""], state: JaxMarlState, action: Shaped[Array, "A ..."], params: tuple[()]
    ) -> tuple[JaxMarlState, TimeStep]:
        """Advance one step. The key is consumed."""
        action, invalid = legal(action, *self._bounds())
        own = {
            agent: action[i] if isinstance(space, Discrete) else action[i, : len(space.low)]
            for i, (agent, space) in enumerate(zip(self.world.agents, self.controls, strict=True))
        }
        twin_key = jax.random.clone(key)  # the twin shall do the same
        with _quiet():
            observations, world, rewards, dones, _ = self.world.step_env(key, state.world, own)
            by_rule = dones if self.twin is None else self.twin.step_env(twin_key, state.world, own)[3]
        done, terminated = (jnp.asarray(flags["__all__"], bool).reshape(()) for flags in (dones, by_rule))
        reward = jnp.stack([jnp.asarray(rewards[agent], jnp.float32).reshape(()) for agent in self.world.agents])
        if self.only_win:
            reward = jnp.full(self.spec.num_agents, self._won(world) & ~self._won(state.world), jnp.float32)
        next_state = JaxMarlState(world=self._settled(world), invalid=state.invalid + invalid.sum())
        return next_state, self._timestep(next_state, observations, reward, terminated, done & ~terminated)

    def _timestep(
        self,
        state: JaxMarlState,
        observations: dict[str, Array],
        reward: Shaped[Array, "A"],
        terminated: Bool[Array, ""],
        truncated: Bool[Array, ""],
    ) -> TimeStep:
        views = _stacked([jnp.asarray(observations[agent], jnp.float32) for agent in self.world.agents])
        whole = observations.get("world_state")
        metrics = {INVALID: state.invalid.astype(jnp.float32)}
        if "success" in self.spec.metric_names:
            metrics["success"] = self._won(state.world).astype(jnp.float32)
        return TimeStep(
            observation=identified(views) if self.agent_ids else views,
            global_state=joined(views) if whole is None else jnp.asarray(whole, jnp.float32).reshape(-1),
            action_mask=self._mask(state.world), reward=reward, terminated=terminated, truncated=truncated,
            metrics=metrics,
        )  # fmt: skip

    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and greatest action of each agent: numbers of choices may differ, other bounds do not."""
        if isinstance(self.spec.action, Box):
            return action_bounds(self.spec.action)
        low, high = zip(*map(action_bounds, self.controls), strict=True)
        return np.stack(low), np.stack(high)

    def _mask(self, world: PyTree) -> Bool[Array, "A n"] | None:
        """Return which choices each agent has: those JaxMARL calls available, of those that it has at all."""
        if not self.spec.masks_actions:
            return None
        available = _available(self.world, world)
        if available is None:
            sizes = np.array([control.n for control in self.controls if isinstance(control, Discrete)])
            return jnp.arange(sizes.max())[None] < sizes[:, None]
        return _stacked([jnp.asarray(available[agent], jnp.float32) for agent in self.world.agents]) > 0

    def _won(self, world: PyTree) -> Bool[Array, ""]:
        """Say whether a battle is won: no enemy stands, and an ally does."""
        allies, enemies = jnp.split(world.state.unit_alive, [self.spec.num_agents])
        return allies.any() & ~enemies.any()

    def _settled(self, world: PyTree) -> PyTree:
        """Give every leaf the type that `reset` gives it, never a weak one, so that a state keeps its types."""
        return jax.tree.map(lambda leaf, like: jax.lax.convert_element_type(leaf, like.dtype), world, self.like)


def parameters(name: str) -> dict[str, EnvValue]:
    """Return the parameters of a world and their defaults: numbers, flags and texts of its constructor.

    Raises:
        UserError: JaxMARL is not installed.
    """
    arguments = [p for kind in _constructors(_build(name, {})) for p in inspect.signature(kind).parameters.values()]
    # What a class says of an argument goes before what its base says.
    found = {p.name: p.default for p in reversed(arguments) if type(p.default) in (int, float, bool, str)}
    named = {argument: default for (world_name, argument), (_, _, default) in _NAMED.items() if world_name == name}
    return {**found, **named, "agent_ids": "auto", **({"reward": "jaxmarl"} if name in BATTLES else {})}


def make(name: str, **values: EnvValue) -> JaxMarlEnvironment:
    """Build a world; `values` go to its constructor.

    Raises:
        UserError: JaxMARL is not installed.
        ValueError: the agents' spaces cannot be stacked, or JaxMARL refuses a value.
    """
    agent_ids = values.pop("agent_ids", "auto")
    require(agent_ids in AGENT_IDS, "agent_ids", "auto, always or never", agent_ids)
    paid = values.pop("reward", "jaxmarl")
    require(paid in REWARDS, "reward", "jaxmarl or win", paid)
    world, twin = _build(name, values), _without_clock(_build(name, values))
    limit = getattr(world, "max_steps", None)
    require(limit is None or limit >= 1, "max_steps", "a whole number >= 1", limit)
    with _quiet():
        observations, like = jax.eval_shape(world.reset, jax.random.key(0))
    controls = tuple(_control(agent, world.action_space(agent)) for agent in world.agents)
    views = [jax.ShapeDtypeStruct(observations[agent].shape, jnp.float32) for agent in world.agents]
    differ = len(set(controls)) > 1 or len({view.shape for view in views}) > 1
    with_ids = agent_ids == "always" or (agent_ids == "auto" and differ)
    seen = unbounded(jax.eval_shape(_stacked, views).shape[1:])
    whole = observations.get("world_state")
    available = jax.eval_shape(functools.partial(_available, world), like)
    spec = EnvSpec(
        name=f"jaxmarl:{name}", num_agents=len(views), action=_widest(controls),
        observation=identified_space(seen, len(views)) if with_ids else seen,
        global_state=joined_space(seen, len(views)) if whole is None else unbounded((math.prod(whole.shape),)),
        time_limit=None if limit is None else limit + name.startswith(LATE),
        metric_names=(INVALID, "success") if name in BATTLES else (INVALID,),
        masks_actions=isinstance(controls[0], Discrete) and (len(set(controls)) > 1 or available is not None),
    )  # fmt: skip
    return JaxMarlEnvironment(
        world=world, twin=twin, agent_ids=with_ids, spec=spec, controls=controls, like=like,
        only_win=paid == "win",
    )  # fmt: skip


def _build(name: str, values: dict[str, Any]) -> Any:
    """Let JaxMARL make a world."""
    with _quiet():
        try:
            jaxmarl = importlib.import_module("jaxmarl")
        except ImportError as error:
            raise UserError(f'env: jaxmarl:{name} needs JaxMARL: pip install "jaxrl-engine[jaxmarl]"') from error
        return jaxmarl.make(name, **{key: _looked_up(name, key, value) for key, value in values.items() if value != ""})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what JaxMARL prints when it is imported, and what it and JAX warn of in its code while it is traced."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _looked_up(name: str, argument: str, value: Any) -> Any:
    """Return the object that JaxMARL calls `value`, where an argument is one."""
    if (name, argument) not in _NAMED:
        return value
    module, table, _ = _NAMED[name, argument]
    known = getattr(importlib.import_module(module), table)
    require(value in known, argument, " or ".join(known), value)
    return known[value]


def _constructors(world: Any) -> Iterator[Callable[..., None]]:
    """Yield what sees the arguments `make` is given: a class, and its bases and what it wraps if it passes them on."""
    for part in (world, vars(world).get("_env")):
        for kind in type(part).__mro__:
            constructor = vars(kind).get("__init__")
            if constructor is None:
                continue
            yield constructor
            kinds = {p.kind for p in inspect.signature(constructor).parameters.values()}
            if inspect.Parameter.VAR_KEYWORD not in kinds:
                break


def _without_clock(world: Any) -> Any:
    """Put the time limit of a world out of reach; return nothing if it has none."""
    owner = world
    while owner is not None and "max_steps" not in vars(owner):
        owner = vars(owner).get("_env")
    if owner is None:
        return None
    owner.max_steps = OUT_OF_REACH
    return world


def _control(agent: str, space: Any) -> Discrete | Box:
    if hasattr(space, "n"):
        return Discrete(int(space.n))
    if not hasattr(space, "low"):
        raise ValueError(f"the actions of {agent} are neither one choice nor real numbers: {space}")
    low, high = (np.broadcast_to(bound, space.shape).ravel().tolist() for bound in (space.low, space.high))
    return Box((len(low),), tuple(low), tuple(high))


def _widest(controls: tuple[Discrete | Box, ...]) -> Discrete | Box:
    """Return the action that every agent's is a part of."""
    choices = [control.n for control in controls if isinstance(control, Discrete)]
    if len(choices) == len(controls):
        return Discrete(max(choices))
    boxes = [control for control in controls if isinstance(control, Box)]
    widest = max(boxes, key=lambda box: len(box.low))
    agree = all((box.low, box.high) == (widest.low[: len(box.low)], widest.high[: len(box.low)]) for box in boxes)
    if choices or not agree:
        raise ValueError("agents whose actions differ in kind or in bounds cannot share an action space")
    return widest


def _stacked(views: list[Float[Array, "..."]]) -> Float[Array, "A ..."]:
    """Stack what the agents see, vectors padded with zeros."""
    if len({view.shape for view in views}) == 1:
        return jnp.stack(views)
    if any(view.ndim != 1 for view in views):
        raise ValueError("agents whose images differ in shape cannot share an observation space")
    size = max(view.size for view in views)
    return jnp.stack([jnp.pad(view, (0, size - view.size)) for view in views])


def _available(world: Any, state: PyTree) -> dict[str, Array] | None:
    """Return the choices open to each agent (hanabi: `legal moves`), or nothing where JaxMARL does not tell."""
    ask = getattr(world, "get_legal_moves", None) or getattr(world, "get_avail_actions", None)
    try:
        rows = ask(state) if ask else {}
    except NotImplementedError:
        return None
    sizes = {agent: getattr(world.action_space(agent), "n", None) for agent in world.agents}
    told = all(agent in rows and np.size(rows[agent]) == sizes[agent] for agent in world.agents)
    return rows if told else None
