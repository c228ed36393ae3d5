"""The multi-agent transformer: a team's observations are a sequence, and its actions are decoded one agent at a time.

Source: Wen et al. 2022, "Multi-Agent Reinforcement Learning is a Sequence Modeling Problem", arXiv:2205.14953, §4.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl_engine.core.algo_config import MATConfig
from jaxrl_engine.core.spaces import ActionSpace, Box, Discrete
from jaxrl_engine.core.types import PyTree
from jaxrl_engine.nets.dense import Dense
from jaxrl_engine.nets.transformer import HIDDEN_GAIN, OUTPUT_GAIN, Cache, Decoder, Encoder, TokenHead, over_tokens
from jaxrl_engine.ops.distributions import Categorical, DiagonalGaussian, Distribution, MultiDiscrete


class AgentsTransformer(nn.Module):
    """A value and a policy for each of `A` agents, each acting on all observations and on the actions before its own.

    Encoder tokens are the observations, without position or identity, with a value per token; images are flattened.
    Decoder token i is the action of agent i − 1 (one-hot choices, or the raw numbers) and a flag that marks the start.
    """

    config: MATConfig
    action: ActionSpace

    def setup(self) -> None:
        width, heads, blocks = self.config.width, self.config.heads, self.config.blocks
        if self.config.normalize_input:
            self.input_norm = nn.LayerNorm()
        self.observation_embedding = Dense(width, HIDDEN_GAIN)
        self.encoder = Encoder(width, heads, blocks)
        self.value = TokenHead(width, 1, 1.0)
        self.action_embedding = Dense(width, HIDDEN_GAIN)
        self.decoder = Decoder(width, heads, blocks)
        size = math.prod(self.action.shape) if isinstance(self.action, Box) else sum(_choices(self.action))
        self.head = TokenHead(width, size, OUTPUT_GAIN)
        if isinstance(self.action, Box):
            initial = nn.initializers.constant(self.config.initial_log_std)
            self.log_std = self.param("log_std", initial, (size,))

    def __call__(
        self,
        observation: Float[Array, "N A *observation"],
        action: Array,  # [N, A, *action]
        mask: Bool[Array, "N A n"] | None,
    ) -> tuple[Distribution, Float[Array, "N A"]]:
        """The law of each agent's action given those before it, and the values: one teacher-forced pass."""
        value, encoded = self.encode(observation)
        tokens = self._tokens(action)
        before = jnp.concatenate([jnp.broadcast_to(self._start(), tokens[:, :1].shape), tokens[:, :-1]], axis=1)
        hidden = self.decoder(self._embed(before), encoded)
        return self._law(self.head(hidden), mask), value

    def encode(
        self, observation: Float[Array, "N A *observation"]
    ) -> tuple[Float[Array, "N A"], Float[Array, "N A W"]]:
        """The value of each agent, and the encoder's output."""
        samples, agents = observation.shape[:2]
        features = observation.reshape(samples, agents, -1)
        if self.config.normalize_input:
            features = self.input_norm(features)
        encoded = self.encoder(jax.nn.gelu(over_tokens(self.observation_embedding, features)))
        return self.value(encoded)[..., 0], encoded

    def step(
        self,
        token: Float[Array, "N D"],
        encoded: Float[Array, "N A W"],
        cache: Cache,
        index: Int[Array, ""],
        mask: Bool[Array, "N n"] | None,
    ) -> tuple[Distribution, Cache]:
        """The law of the action of agent `index`, given the token of the one before."""
        hidden, cache = self.decoder.step(self._embed(token[:, None])[:, 0], encoded, cache, index)
        return self._law(self.head(hidden), mask), cache

    def begin(self, samples: int, agents: int) -> tuple[Float[Array, "N D"], Cache]:
        """The first token and an empty cache."""
        start = self._start()
        return jnp.broadcast_to(start, (samples, start.shape[-1])), self.decoder.empty_cache(samples, agents)

    def token(self, action: Array) -> Float[Array, "N D"]:
        """What the next agent is told of one agent's actions `[N, *action]`."""
        return self._tokens(action[:, None])[:, 0]

    def _tokens(self, action: Array) -> Float[Array, "N A D"]:
        batch = action.shape[:2]
        if isinstance(self.action, Box):
            parts = [action.reshape(*batch, -1)]
        else:
            nvec = _choices(self.action)
            each = action.reshape(*batch, len(nvec))
            parts = [jax.nn.one_hot(each[..., i], n) for i, n in enumerate(nvec)]
        return jnp.concatenate([*parts, jnp.zeros((*batch, 1))], axis=-1)

    def _start(self) -> Float[Array, "1 D"]:
        return jnp.zeros((1, self.head.size + 1)).at[0, -1].set(1.0)

    def _embed(self, tokens: Float[Array, "N tokens D"]) -> Float[Array, "N tokens W"]:
        return jax.nn.gelu(over_tokens(self.action_embedding, tokens))

    def _law(self, numbers: Float[Array, "*batch size"], mask: Bool[Array, "*batch n"] | None) -> Distribution:
        if isinstance(self.action, Box):
            return DiagonalGaussian(mean=numbers, log_std=jnp.broadcast_to(self.log_std, numbers.shape))
        if isinstance(self.action, Discrete):
            return Categorical(logits=numbers, mask=mask)
        return MultiDiscrete(logits=numbers, mask=mask, nvec=self.action.nvec)


def decide(
    network: AgentsTransformer,
    params: PyTree,
    encoded: Float[Array, "N A W"],
    mask: Bool[Array, "N A n"] | None,
    noise: Array | None,  # [N, A, …]
) -> tuple[Array, Float[Array, "N A"]]:
    """Draw the agents' actions one after the other, or take the most likely ones; returns them, with log-probability.

    A greedy team takes each agent's most likely action given those before it, which need not be the most likely
    joint action.
    """
    samples, agents = encoded.shape[:2]
    start = network.apply(params, samples, agents, method=AgentsTransformer.begin)

    def one(loop: tuple[Array, Cache], xs: PyTree) -> tuple[tuple[Array, Cache], tuple[Array, Array]]:
        (token, cache), (index, allowed, chance) = loop, xs
        law, cache = network.apply(params, token, encoded, cache, index, allowed, method=AgentsTransformer.step)
        action = law.mode() if chance is None else law.sample_from(chance)
        token = network.apply(params, action, method=AgentsTransformer.token)
        return (token, cache), (action, law.log_prob(action))

    def by_agent(leaf: Array | None) -> Array | None:
        return None if leaf is None else jnp.swapaxes(leaf, 0, 1)

    # A loop over few agents costs a CPU more than their arithmetic: it is unrolled.
    xs = (jnp.arange(agents), by_agent(mask), by_agent(noise))
    _, (action, log_prob) = jax.lax.scan(one, start, xs, unroll=4)
    return jnp.swapaxes(action, 0, 1), log_prob.T


def _choices(action: ActionSpace) -> tuple[int, ...]:
    if isinstance(action, Box):
        return ()
    return (action.n,) if isinstance(action, Discrete) else action.nvec
