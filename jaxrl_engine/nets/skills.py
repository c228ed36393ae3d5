"""The networks of hierarchical skill discovery: who chooses skills, who acts on them, who recognises them.

Skills of one environment are `A + 1` whole numbers: token 0 is the team's skill Z, token i the skill of agent i.
Source: Yang et al. 2023, "Hierarchical Multi-Agent Skill Discovery" (NeurIPS), §4 and appendix.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl_engine.core.config import NetworkConfig
from jaxrl_engine.core.spaces import ActionSpace
from jaxrl_engine.core.types import PyTree
from jaxrl_engine.nets.dense import Dense
from jaxrl_engine.nets.gru import GRU
from jaxrl_engine.nets.heads import make_head
from jaxrl_engine.nets.transformer import HIDDEN_GAIN, OUTPUT_GAIN, Cache, Decoder, Encoder, TokenEmbedding, TokenHead
from jaxrl_engine.ops.distributions import Categorical, Distribution


class Coordinator(nn.Module):
    """Chooses Z, then z¹ … zᴬ one after the other, from the global state and all observations.

    Encoder tokens: the state, then each agent's observation, without position or identity; a value per token. Decoder
    tokens: start, Z, z¹ … zᴬ⁻¹. One head serves both kinds of skill; the logits a kind does not have are masked.
    """

    num_agents: int
    team_skills: int
    individual_skills: int
    width: int
    heads: int
    blocks: int

    def setup(self) -> None:
        self.state_embedding = TokenEmbedding(self.width)
        self.observation_embedding = TokenEmbedding(self.width)
        self.encoder = Encoder(self.width, self.heads, self.blocks)
        self.value = TokenHead(self.width, 1, 1.0)
        self.skill_embedding = Dense(self.width, HIDDEN_GAIN)
        self.decoder = Decoder(self.width, self.heads, self.blocks)
        self.head = TokenHead(self.width, max(self.team_skills, self.individual_skills), OUTPUT_GAIN)

    def __call__(
        self,
        state: Float[Array, "N *state"],
        observation: Float[Array, "N A *observation"],
        skills: Int[Array, "N tokens"],
    ) -> tuple[Float[Array, "N tokens"], Categorical]:
        """Values, and the law of each skill given those before it: one teacher-forced pass."""
        value, encoded = self.encode(state, observation)
        before = jnp.concatenate([jnp.zeros_like(skills[:, :1]), self._vocabulary(skills)[:, :-1]], axis=1)
        hidden = self.decoder(self._embed(before), encoded)
        logits = self.head(hidden)
        mask = jnp.broadcast_to(self._allowed(), logits.shape)
        return value, Categorical(logits=logits, mask=mask)

    def encode(
        self, state: Float[Array, "N *state"], observation: Float[Array, "N A *observation"]
    ) -> tuple[Float[Array, "N tokens"], Float[Array, "N tokens W"]]:
        """Values `V_h` of the state and of each observation, and the encoder's output."""
        samples = len(state)
        whole = self.state_embedding(state.reshape(samples, -1))[:, None]
        parts = self.observation_embedding(observation.reshape(samples * self.num_agents, -1))
        tokens = jnp.concatenate([whole, parts.reshape(samples, self.num_agents, -1)], axis=1)
        encoded = self.encoder(tokens)
        return self.value(encoded)[..., 0], encoded

    def step(
        self, word: Int[Array, "N"], encoded: Float[Array, "N tokens W"], cache: Cache, index: Int[Array, ""]
    ) -> tuple[Categorical, Cache]:
        """The law of the skill at position `index`, given the vocabulary's number of the one before it."""
        hidden, cache = self.decoder.step(self._embed(word[:, None])[:, 0], encoded, cache, index)
        logits = self.head(hidden)
        return Categorical(logits=logits, mask=jnp.broadcast_to(self._allowed()[index], logits.shape)), cache

    def _vocabulary(self, skills: Int[Array, "N tokens"]) -> Int[Array, "N tokens"]:
        """Number the skills through: 0 is the start token, then the team's skills, then the agents'."""
        offset = jnp.where(jnp.arange(skills.shape[1]) == 0, 1, 1 + self.team_skills)
        return skills + offset[None]

    def _embed(self, words: Int[Array, "N tokens"]) -> Float[Array, "N tokens W"]:
        one_hot = jax.nn.one_hot(words.reshape(-1), 1 + self.team_skills + self.individual_skills)
        return jax.nn.gelu(self.skill_embedding(one_hot)).reshape(*words.shape, self.width)

    def _allowed(self) -> Bool[Array, "tokens choices"]:
        sizes = jnp.asarray([self.team_skills] + [self.individual_skills] * self.num_agents)
        return jnp.arange(max(self.team_skills, self.individual_skills))[None] < sizes[:, None]


def choose_skills(
    coordinator: Coordinator,
    params: PyTree,
    encoded: Float[Array, "N tokens W"],
    noise: Float[Array, "N tokens"] | None,
) -> tuple[Int[Array, "N tokens"], Float[Array, "N tokens"]]:
    """Draw the skills one after the other, or take the most likely ones; returns them and their log-probabilities."""
    samples, count = encoded.shape[:2]
    start = jnp.zeros(samples, jnp.int32)
    empty = coordinator.apply(params, samples, count, method=lambda module, *shape: module.decoder.empty_cache(*shape))

    def one(
        loop: tuple[Array, Cache], xs: tuple[Array, Array | None]
    ) -> tuple[tuple[Array, Cache], tuple[Array, Array]]:
        (word, cache), (index, chance) = loop, xs
        law, cache = coordinator.apply(params, word, encoded, cache, index, method=Coordinator.step)
        skill = law.mode() if chance is None else law.sample_from(chance)
        word = skill + jnp.where(index == 0, 1, 1 + coordinator.team_skills)
        return (word, cache), (skill, law.log_prob(skill))

    chances = None if noise is None else noise.T
    _, (skills, log_probs) = jax.lax.scan(one, (start, empty), (jnp.arange(count), chances), unroll=4)
    return skills.T, log_probs.T


class RecurrentTorso(nn.Module):
    """Layer norm, one layer, layer norm, recurrence, layer norm (Yu et al. 2022, arXiv:2103.01955, appendix)."""

    width: int

    @nn.compact
    def __call__(
        self, memory: Float[Array, "N R"], is_first: Bool[Array, "T N"], x: Float[Array, "T N D"]
    ) -> tuple[Float[Array, "N R"], Float[Array, "samples R"]]:
        """Return the last memory and the features of all steps, `samples = T · N`."""
        rows = nn.LayerNorm()(x.reshape(-1, x.shape[-1]))
        hidden = nn.LayerNorm()(jax.nn.relu(Dense(self.width, HIDDEN_GAIN)(rows)))
        memories = GRU(self.width)(memory, is_first, hidden.reshape(*x.shape[:2], -1))
        return memories[-1], nn.LayerNorm()(memories.reshape(-1, self.width))


class DiscovererActor(nn.Module):
    """π_l(aⁱ | oⁱ, zⁱ), shared by all agents. `skill_input` says where zⁱ joins: before or after the recurrence."""

    action: ActionSpace
    skills: int
    width: int
    skill_input: str

    @nn.compact
    def __call__(
        self,
        memory: Float[Array, "N A R"],
        is_first: Bool[Array, "T N"],
        observation: Float[Array, "T N A *observation"],
        skill: Int[Array, "T N A"],
        mask: Bool[Array, "T N A n"] | None,
    ) -> tuple[Float[Array, "N A R"], Distribution]:
        steps, samples, agents = skill.shape
        streams = samples * agents
        rows = (steps, streams, -1)
        first = jnp.broadcast_to(is_first[..., None], skill.shape).reshape(steps, streams)
        last, features = skilled_features(
            self, memory.reshape(streams, -1), first, observation.reshape(rows), skill.reshape(steps, streams)
        )
        head = make_head(NetworkConfig(), (), self.action)
        return last.reshape(memory.shape), head(features, mask, skill.shape)


class DiscovererCritic(nn.Module):
    """V_l(s, Z), one value per environment: agents share the state and Z, so they share the value."""

    skills: int
    width: int
    skill_input: str

    @nn.compact
    def __call__(
        self,
        memory: Float[Array, "N R"],
        is_first: Bool[Array, "T N"],
        state: Float[Array, "T N *state"],
        team_skill: Int[Array, "T N"],
    ) -> tuple[Float[Array, "N R"], Float[Array, "T N"]]:
        flat = state.reshape(*team_skill.shape, -1)
        last, features = skilled_features(self, memory, is_first, flat, team_skill)
        return last, Dense(1, 1.0, name="value")(features).reshape(team_skill.shape)


def skilled_features(
    module: DiscovererActor | DiscovererCritic,
    memory: Float[Array, "N R"],
    is_first: Bool[Array, "T N"],
    x: Float[Array, "T N D"],
    skill: Int[Array, "T N"],
) -> tuple[Float[Array, "N R"], Float[Array, "samples H"]]:
    """Features of what is seen and of the skill, a one-hot vector that joins before or after the recurrence."""
    one_hot = jax.nn.one_hot(skill, module.skills)
    if module.skill_input == "before":
        return RecurrentTorso(module.width)(memory, is_first, jnp.concatenate([x, one_hot], axis=-1))
    last, features = RecurrentTorso(module.width)(memory, is_first, x)
    return last, jnp.concatenate([features, one_hot.reshape(-1, module.skills)], axis=-1)


class Discriminator(nn.Module):
    """q(skill | what is seen): two hidden layers; without opinion at first, so that log q = −ln `skills`."""

    skills: int
    width: int

    @nn.compact
    def __call__(
        self, seen: Float[Array, "N D"], context: Float[Array, "N C"] | None = None
    ) -> Float[Array, "N skills"]:
        """Log-probabilities of the skills; `context`, already one-hot, joins what is seen."""
        x = nn.LayerNorm()(seen)
        x = x if context is None else jnp.concatenate([x, context], axis=1)
        for _ in range(2):
            x = jax.nn.relu(Dense(self.width, HIDDEN_GAIN)(x))
        return jax.nn.log_softmax(Dense(self.skills, OUTPUT_GAIN, name="logits")(x))
