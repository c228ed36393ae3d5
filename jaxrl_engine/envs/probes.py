"""Worlds so small that what a learner must find is known in closed form: `probe:<name>`.

Each isolates one thing a learner can get wrong (values without observations, discounting, advantages, credit for the
right observation, time limits, memory, continuous actions); its docstring states the known values.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

from jaxrl_engine.core.config import require
from jaxrl_engine.core.spaces import ActionSpace, Box, Discrete
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import EnvSpec, Leaf, TimeStep
from jaxrl_engine.envs.single_agent import first_timestep, single_agent_spec, single_agent_timestep, unbounded


class ProbeState(Struct):
    """What an episode is about, drawn when it starts, and how far it has come."""

    cue: Float[Leaf, "*batch"]
    time: Int[Leaf, "*batch"]  # steps since the reset


@dataclasses.dataclass(frozen=True)
class Probe:
    """What all probes share: `steps` steps, then the episode ends (or is cut, where `truncates`)."""

    name: ClassVar[str]
    action: ClassVar[ActionSpace] = Discrete(2)
    features: ClassVar[int] = 1  # size of the observation
    truncates: ClassVar[bool] = False

    @property
    def steps(self) -> int:
        return 1

    @property
    def spec(self) -> EnvSpec:
        time_limit = self.steps if self.truncates else None
        return single_agent_spec(f"probe:{self.name}", unbounded((self.features,)), self.action, time_limit)

    def default_params(self) -> tuple[()]:
        """Return nothing: a probe is fixed when it is made."""
        return ()

    def reset(self, key: Key[Array, ""], params: tuple[()]) -> tuple[ProbeState, TimeStep]:
        """Start an episode. The key is consumed."""
        state = ProbeState(cue=self._draw(key), time=jnp.zeros((), jnp.int32))
        return state, first_timestep(self._observe(state))

    def step(
        self, key: Key[Array, ""], state: ProbeState, action: Shaped[Array, "1 ..."], params: tuple[()]
    ) -> tuple[ProbeState, TimeStep]:
        """Advance one step. `key` is left unused: chance acts only at the reset."""
        next_state = ProbeState(cue=state.cue, time=state.time + 1)
        over, never = next_state.time >= self.steps, jnp.zeros((), bool)
        terminated, truncated = (never, over) if self.truncates else (over, never)
        reward = self._reward(state, action[0])
        return next_state, single_agent_timestep(self._observe(next_state), reward, terminated, truncated)

    def _draw(self, key: Key[Array, ""]) -> Float[Array, ""]:
        """The episode's cue: +1 or -1, equally likely."""
        return jnp.where(jax.random.bernoulli(key), 1.0, -1.0)

    def _observe(self, state: ProbeState) -> Float[Array, "D"]:
        return state.cue.reshape(1)

    def _reward(self, state: ProbeState, action: Shaped[Array, "..."]) -> Float[Array, ""]:
        return jnp.ones(())


class Constant(Probe):
    """One step, one observation, reward 1 whatever is done: V = 1. Fails where the value loss or its optimiser does."""

    name = "constant"

    def _observe(self, state: ProbeState) -> Float[Array, "D"]:
        return jnp.ones(1)


class Observation(Probe):
    """One step, reward = observation = ±1: V(o) = o. Fails where observations do not reach the critic."""

    name = "observation"

    def _reward(self, state: ProbeState, action: Shaped[Array, "..."]) -> Float[Array, ""]:
        return state.cue


@dataclasses.dataclass(frozen=True)
class Discount(Probe):
    """`horizon` steps, observation = steps taken, reward 1 at the last: V(o) = γ^(horizon-1-o); V(0) = γ for two."""

    name = "discount"
    horizon: int = 2

    def __post_init__(self) -> None:
        require(self.horizon >= 1, "horizon", "a whole number >= 1", self.horizon)

    @property
    def steps(self) -> int:
        return self.horizon

    def _observe(self, state: ProbeState) -> Float[Array, "D"]:
        return state.time.astype(jnp.float32).reshape(1)

    def _reward(self, state: ProbeState, action: Shaped[Array, "..."]) -> Float[Array, ""]:
        return (state.time == self.horizon - 1).astype(jnp.float32)


class Action(Probe):
    """One step, one observation, action 1 pays +1 and action 0 pays -1: π(1) = 1, V = 1. Fails where advantages do."""

    name = "action"

    def _observe(self, state: ProbeState) -> Float[Array, "D"]:
        return jnp.ones(1)

    def _reward(self, state: ProbeState, action: Shaped[Array, "..."]) -> Float[Array, ""]:
        return 2.0 * action.astype(jnp.float32) - 1.0


class Policy(Probe):
    """One step, observation ±1, the action of its sign pays +1 and the other -1: π(1|+1) = π(0|-1) = 1, V(±1) = 1.

    Fails where samples are shuffled apart: an observation beside another sample's action or advantage.
    """

    name = "policy"

    def _reward(self, state: ProbeState, action: Shaped[Array, "..."]) -> Float[Array, ""]:
        return state.cue * (2.0 * action.astype(jnp.float32) - 1.0)


@dataclasses.dataclass(frozen=True)
class Truncation(Probe):
    """Reward 1 for ever, cut after `horizon` steps, one observation: V = 1 / (1 - γ), which is 10 at γ = 0.9.

    Nothing observed reveals the time. A learner that takes the cut for an end finds less.
    """

    name = "truncation"
    truncates = True
    horizon: int = 10

    def __post_init__(self) -> None:
        require(self.horizon >= 1, "horizon", "a whole number >= 1", self.horizon)

    @property
    def steps(self) -> int:
        return self.horizon

    def _observe(self, state: ProbeState) -> Float[Array, "D"]:
        return jnp.ones(1)


class Final(Truncation):
    """As `truncation`, but observation and every reward are the episode's cue: V(±1) = ±1 / (1 - γ).

    Half of all episodes are followed by one of the other kind: a learner that bootstraps a cut episode from the next
    one's first observation, instead of its own final one, finds values nearer to 0.
    """

    name = "final"

    def _observe(self, state: ProbeState) -> Float[Array, "D"]:
        return state.cue.reshape(1)

    def _reward(self, state: ProbeState, action: Shaped[Array, "..."]) -> Float[Array, ""]:
        return state.cue


@dataclasses.dataclass(frozen=True)
class Memory(Probe):
    """A cue ±1 is seen at the first of `horizon` steps only; the last action pays +1 if it has the cue's sign, else -1.

    The observation is (cue or 0, 1 at the last step). A policy without memory expects 0 whatever it does, one that
    remembers gets 1: with it V = γ^(horizon-1-t) at step t.
    """

    name = "memory"
    features = 2
    horizon: int = 6

    def __post_init__(self) -> None:
        require(self.horizon >= 2, "horizon", "a whole number >= 2", self.horizon)

    @property
    def steps(self) -> int:
        return self.horizon

    def _observe(self, state: ProbeState) -> Float[Array, "D"]:
        cue = jnp.where(state.time == 0, state.cue, 0.0)
        return jnp.stack([cue, self._at_last(state)])

    def _reward(self, state: ProbeState, action: Shaped[Array, "..."]) -> Float[Array, ""]:
        return self._at_last(state) * state.cue * (2.0 * action.astype(jnp.float32) - 1.0)

    def _at_last(self, state: ProbeState) -> Float[Array, ""]:
        return (state.time == self.horizon - 1).astype(jnp.float32)


class Continuous(Probe):
    """One step, observation o uniform in [-1, 1), action a in [-1, 1], reward -(a - o/2)²: a*(o) = o/2, V(o) = 0."""

    name = "continuous"
    action = Box.uniform((1,), -1.0, 1.0)

    def _draw(self, key: Key[Array, ""]) -> Float[Array, ""]:
        return jax.random.uniform(key, (), minval=-1.0, maxval=1.0)

    def _reward(self, state: ProbeState, action: Shaped[Array, "..."]) -> Float[Array, ""]:
        return -jnp.square(action[0] - state.cue / 2)
