"""The five networks of HMASD, from static facts alone, and their first parameters."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxrl_engine.algos.hmasd.types import HMASDParams
from jaxrl_engine.core.hmasd_config import HMASDConfig
from jaxrl_engine.core.types import EnvSpec
from jaxrl_engine.nets.skills import Coordinator, DiscovererActor, DiscovererCritic, Discriminator


@dataclasses.dataclass(frozen=True)
class Networks:
    """Modules without parameters; observations and states reach them flattened."""

    spec: EnvSpec
    config: HMASDConfig

    @property
    def coordinator(self) -> Coordinator:
        config = self.config
        return Coordinator(
            self.spec.num_agents, config.team_skills, config.individual_skills,
            config.width, config.heads, config.blocks,
        )  # fmt: skip

    @property
    def actor(self) -> DiscovererActor:
        config = self.config
        return DiscovererActor(self.spec.action, config.individual_skills, config.width, config.skill_input)

    @property
    def critic(self) -> DiscovererCritic:
        return DiscovererCritic(self.config.team_skills, self.config.width, self.config.skill_input)

    @property
    def team_discriminator(self) -> Discriminator:
        return Discriminator(self.config.team_skills, self.config.width)

    @property
    def individual_discriminator(self) -> Discriminator:
        return Discriminator(self.config.individual_skills, self.config.width)

    def init(self, key: Key[Array, ""]) -> HMASDParams:
        """Draw all parameters. The key is consumed."""
        keys = jax.random.split(key, 5)
        spec, config = self.spec, self.config
        agents, width = spec.num_agents, config.width
        observation = jnp.zeros((1, agents, len(spec.observation.low)))
        state = jnp.zeros((1, len(spec.global_state.low)))
        skills = jnp.zeros((1, agents + 1), jnp.int32)
        first = jnp.zeros((1, 1), bool)
        team = jnp.zeros((1, config.team_skills))
        return HMASDParams(
            coordinator=self.coordinator.init(keys[0], state, observation, skills),
            actor=self.actor.init(
                keys[1], jnp.zeros((1, agents, width)), first, observation[None], skills[None, :, 1:], None
            ),
            critic=self.critic.init(keys[2], jnp.zeros((1, width)), first, state[None], skills[None, :, 0]),
            team_discriminator=self.team_discriminator.init(keys[3], state),
            individual_discriminator=self.individual_discriminator.init(keys[4], observation[:, 0], team),
        )
