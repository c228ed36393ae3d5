"""Brax's worlds behind the engine's protocol: `brax:<id>`.

Brax 0.14 is no longer maintained but runs on jax 0.10, except for `swimmer`, whose fluid forces call `jnp.clip` with an
argument that jax has removed. Nothing of Brax's wrappers is used: they show the first state of a run again at every
reset, overwrite the last observation, and confuse a time limit with an end. What Brax computes is passed on as it is,
not-a-numbers included.
"""

import dataclasses
import inspect
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxrl_engine.core.config import EnvValue, require
from jaxrl_engine.core.spaces import Box
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import EnvSpec, Leaf, PyTree, TimeStep
from jaxrl_engine.envs.chatter import without_chatter
from jaxrl_engine.envs.single_agent import first_timestep, single_agent_spec, single_agent_timestep, unbounded

with without_chatter():
    from brax import envs as brax_envs

BACKENDS = ("generalized", "spring", "positional", "mjx")


class BraxState(Struct):
    """A running episode."""

    world: PyTree  # brax.envs.State
    time: Int[Leaf, "*batch"]  # steps since the reset


@dataclasses.dataclass(frozen=True, eq=False)
class BraxEnvironment:
    """One Brax world. An action is held for `action_repeat` of Brax's steps and their rewards are summed."""

    world: Any
    spec: EnvSpec
    time_limit: int  # steps
    action_repeat: int

    def default_params(self) -> tuple[()]:
        """Return nothing: a Brax world is fixed when it is made."""
        return ()

    def reset(self, key: Key[Array, ""], params: tuple[()]) -> tuple[BraxState, TimeStep]:
        """Start an episode; Brax knows only raw keys, so the typed one is converted here. The key is consumed."""
        with without_chatter():  # while Brax is traced
            world = _settled(self.world.reset(jax.random.key_data(key)))
        return BraxState(world=world, time=jnp.zeros((), jnp.int32)), first_timestep(world.obs, self.spec.metric_names)

    def step(
        self, key: Key[Array, ""], state: BraxState, action: Float[Array, "1 n"], params: tuple[()]
    ) -> tuple[BraxState, TimeStep]:
        """Advance one step. What Brax calls done terminates, the time limit truncates. `key` is left unused."""
        world, reward = self._advance(state.world, action[0])
        next_state = BraxState(world=world, time=state.time + 1)
        return next_state, single_agent_timestep(
            world.obs, reward, world.done > 0, next_state.time >= self.time_limit, world.metrics
        )

    def joints(self, state: BraxState) -> Float[Array, "q"]:
        """Return Brax's `q`, which is MuJoCo's `qpos`."""
        return state.world.pipeline_state.q

    def mujoco_model(self, state: BraxState) -> Any:
        """Return the `mujoco.MjModel` that Brax has made the world of."""
        return self.world.sys.mj_model

    def _advance(self, world: PyTree, action: Float[Array, "n"]) -> tuple[PyTree, Float[Array, ""]]:
        if self.action_repeat == 1:
            world = self._brax_step(world, action)
            return world, world.reward

        def repeat(carry: tuple[PyTree, Array], _: None) -> tuple[tuple[PyTree, Array], None]:
            before, total = carry
            after = self._brax_step(before, action)
            ended = before.done > 0  # nothing moves and nothing is paid after the end
            after = jax.tree.map(lambda old, new: jnp.where(ended, old, new), before, after)
            return (after, total + jnp.where(ended, 0.0, after.reward)), None

        return jax.lax.scan(repeat, (world, jnp.zeros(())), length=self.action_repeat)[0]

    def _brax_step(self, world: PyTree, action: Float[Array, "n"]) -> PyTree:
        # Brax writes its metrics into the dictionary it is given: it gets one of its own.
        with without_chatter():
            return _settled(self.world.step(world.replace(metrics=dict(world.metrics)), action))


def parameters(name: str) -> dict[str, EnvValue]:
    """Return the parameters of a world and their defaults: ours, and the numbers of Brax's constructor."""
    constructor = {p.name: p.default for p in inspect.signature(_factory(name)).parameters.values()}
    ours = {p.name: p.default for p in inspect.signature(make).parameters.values()}
    return {key: value for key, value in {**constructor, **ours}.items() if isinstance(value, EnvValue)}


def make(
    name: str, backend: str = "generalized", episode_length: int = 1000, action_repeat: int = 1, **overrides: EnvValue
) -> BraxEnvironment:
    """Build a world. `episode_length` counts Brax's steps, so the time limit is ⌈episode_length / action_repeat⌉.

    Raises:
        ValueError: a value out of range, or one that Brax refuses.
    """
    require(backend in BACKENDS, "backend", f"one of {', '.join(BACKENDS)}", backend)
    require(episode_length >= 1, "episode_length", "a whole number >= 1", episode_length)
    require(action_repeat >= 1, "action_repeat", "a whole number >= 1", action_repeat)
    with without_chatter():
        world = _factory(name)(backend=backend, **overrides)
        shown = jax.eval_shape(world.reset, jax.random.PRNGKey(0))
    action = Box.uniform((world.action_size,), -1.0, 1.0)
    time_limit = math.ceil(episode_length / action_repeat)
    names = tuple(sorted(shown.metrics))
    spec = single_agent_spec(f"brax:{name}", unbounded(shown.obs.shape), action, time_limit, names)
    return BraxEnvironment(world=world, spec=spec, time_limit=time_limit, action_repeat=action_repeat)


def _factory(name: str) -> Any:
    return brax_envs._envs[name]  # Brax offers no other way to a class than building it


def _settled(tree: PyTree) -> PyTree:
    """Turn Python numbers and weakly typed scalars into arrays of a fixed type, so that a state keeps its types."""

    def settle(leaf: Any) -> Array:
        array = jnp.asarray(leaf)
        return jax.lax.convert_element_type(array, array.dtype)

    return jax.tree.map(settle, tree)
