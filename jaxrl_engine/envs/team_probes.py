"""Worlds of a few agents so small that what a team must find is known in closed form: `probe:together`, `probe:apart`.

Agents see nothing that tells them apart and are paid as one.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxrl_engine.core.config import require
from jaxrl_engine.core.spaces import Box, Discrete
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import EnvSpec, Leaf, TimeStep


class TeamProbeState(Struct):
    """Drawn when the episode starts."""

    cue: Float[Leaf, "*batch"]


@dataclasses.dataclass(frozen=True)
class TeamProbe:
    """One step; every agent sees the same 1, the global state is the episode's cue, +1 or -1, equally likely."""

    name: ClassVar[str]
    num_agents: int = 2

    def __post_init__(self) -> None:
        require(self.num_agents >= 2, "num_agents", "a whole number >= 2", self.num_agents)

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            name=f"probe:{self.name}", num_agents=self.num_agents, observation=Box.uniform((1,), 1.0, 1.0),
            global_state=Box.uniform((1,), -1.0, 1.0), action=Discrete(self.num_agents),
        )  # fmt: skip

    def default_params(self) -> tuple[()]:
        """Return nothing: a probe is fixed when it is made."""
        return ()

    def reset(self, key: Key[Array, ""], params: tuple[()]) -> tuple[TeamProbeState, TimeStep]:
        """Start an episode. The key is consumed."""
        state = TeamProbeState(cue=jnp.where(jax.random.bernoulli(key), 1.0, -1.0))
        return state, self._timestep(state, jnp.zeros(()), jnp.zeros((), bool))

    def step(
        self, key: Key[Array, ""], state: TeamProbeState, action: Int[Array, "A"], params: tuple[()]
    ) -> tuple[TeamProbeState, TimeStep]:
        """End the episode. `key` is left unused: chance acts only at the reset."""
        return state, self._timestep(state, self._reward(state, action), jnp.ones((), bool))

    def _reward(self, state: TeamProbeState, action: Int[Array, "A"]) -> Float[Array, ""]:
        raise NotImplementedError

    def _timestep(self, state: TeamProbeState, reward: Float[Array, ""], over: Bool[Array, ""]) -> TimeStep:
        return TimeStep(
            observation=jnp.ones((self.num_agents, 1)), global_state=state.cue.reshape(1), action_mask=None,
            reward=jnp.full(self.num_agents, reward), terminated=over, truncated=jnp.zeros((), bool), metrics={},
        )  # fmt: skip


class Together(TeamProbe):
    """Only when all take action 1 they are paid 1; besides, the cue is paid: V = 1 + cue, or 1 for who cannot see it.

    Fails where the global state does not reach a centralised critic.
    """

    name = "together"

    def _reward(self, state: TeamProbeState, action: Int[Array, "A"]) -> Float[Array, ""]:
        return (action == 1).all() + state.cue


class Apart(TeamProbe):
    """Paid 1 where all `n` agents take different ones of `n` actions: V = 1 for a team that decides in turn.

    Agents that decide at once from the same weights take the same law: at best uniform, n! / nⁿ (½ for two).
    """

    name = "apart"

    def _reward(self, state: TeamProbeState, action: Int[Array, "A"]) -> Float[Array, ""]:
        taken = (action[:, None] == jnp.arange(self.num_agents)[None]).any(axis=0)
        return taken.all().astype(jnp.float32)
