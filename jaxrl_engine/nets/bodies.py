"""Policies and values of bodies: an observation is a token per joint, of which some slots may be empty, and the whole.

Three families read it, `network.torso`:

    body-mlp          all slots as one vector, in which each slot has weights of its own
    body-set          the same layers for every joint, and the mean over the joints
    body-transformer  attention among the joints

What an empty slot holds reaches nothing: it is cleared, left out of means and of attention, and its motor is no part of
the policy. The weights of the last two do not depend on the number of slots, nor does what they say of a body.

Sources: Zaheer et al. 2017, "Deep Sets", arXiv:1703.06114, §3; Kurin et al. 2021, "My Body is a Cage",
arXiv:2010.01856, §4; Gupta et al. 2022, "MetaMorph", arXiv:2203.11931, §4.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxrl_engine.core.checks import require
from jaxrl_engine.core.config import NetworkConfig
from jaxrl_engine.core.spaces import ActionSpace, Box, Tokens
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf
from jaxrl_engine.nets.dense import Dense
from jaxrl_engine.nets.heads import POLICY_GAIN, gaussian, is_squashed
from jaxrl_engine.nets.torsos import MLP
from jaxrl_engine.nets.transformer import HIDDEN_GAIN, PreNormBlock, TokenHead, over_tokens
from jaxrl_engine.ops.distributions import Distribution

LONGEST_WAVE = 32.0
"""Slots per radian of the slowest wave of the positions: several times the joints of a body."""


class Slots(Struct):
    """What is seen of `N` bodies: their joints' tokens, without flags and zero where a slot is empty, and the whole."""

    tokens: Float[Leaf, "*batch slots F"]
    enabled: Bool[Leaf, "*batch slots"]
    whole: Float[Leaf, "*batch G"]


class BodyActor(nn.Module):
    """A Gaussian over the motors of a body, one per token: `observation [*batch, D] -> distribution`.

    The standard deviation is a parameter that no state changes: one per slot for body-mlp, otherwise one for all. A
    joint's mean is

        body-mlp          row i of a last layer on the hidden ones
        body-set          f([h_i, mean_j h_j]),   h_i the layers' features of joint i
        body-transformer  f(h_i),   h_i what the last block says of joint i

    with one f for all joints: a hidden layer and a last one. Raises ValueError as `check_bodies` does.
    """

    config: NetworkConfig
    tokens: Tokens | None
    action: ActionSpace

    @nn.compact
    def __call__(self, observation: Float[Array, "*batch D"]) -> Distribution:
        layout = check_bodies(self.config, self.tokens, self.action)
        slots = read_slots(layout, observation)
        if self.config.torso == "body-mlp":
            mean = Dense(layout.count, POLICY_GAIN, name="mean")(FlatEncoder(self.config)(slots))
        else:
            each = encoder(self.config)(slots)
            if self.config.torso == "body-set":
                each = beside(each, mean_of_enabled(each, slots.enabled))
            mean = Score(self.config, POLICY_GAIN, name="mean")(each)
        mean = mean.reshape(*observation.shape[:-1], layout.count)
        numbers = layout.count if self.config.torso == "body-mlp" else 1
        log_std = self.param("log_std", nn.initializers.constant(self.config.initial_log_std), (numbers,))
        spread = jnp.broadcast_to(log_std, mean.shape)
        mask = slots.enabled.reshape(mean.shape)
        return gaussian(mean, spread, is_squashed(self.config, self.action), mask)


class BodyCritic(nn.Module):
    """The value of a body's state, `observation [*batch, D] -> [*batch]`: from the mean over its joints and the whole.

    Raises ValueError as `check_bodies` does.
    """

    config: NetworkConfig
    tokens: Tokens | None

    @nn.compact
    def __call__(self, observation: Float[Array, "*batch D"]) -> Float[Array, "*batch"]:
        slots = read_slots(check_bodies(self.config, self.tokens), observation)
        if self.config.torso == "body-mlp":
            value = Dense(1, 1.0, name="value")(FlatEncoder(self.config)(slots))
        else:
            pooled = mean_of_enabled(encoder(self.config)(slots), slots.enabled)
            value = Score(self.config, 1.0, name="value")(jnp.concatenate([pooled, slots.whole], axis=-1))
        return value.reshape(observation.shape[:-1])


class FlatEncoder(nn.Module):
    """Fully connected layers over all slots side by side, which of them are in use, and the whole."""

    config: NetworkConfig

    @nn.compact
    def __call__(self, slots: Slots) -> Float[Array, "N H"]:
        flat = slots.tokens.reshape(slots.tokens.shape[0], -1)
        seen = jnp.concatenate([flat, slots.enabled.astype(flat.dtype), slots.whole], axis=-1)
        return MLP(self.config.hidden_sizes, self.config.activation, self.config.compute_dtype)(seen)


class SetEncoder(nn.Module):
    """The same fully connected layers for every joint, each seen beside the whole."""

    config: NetworkConfig

    @nn.compact
    def __call__(self, slots: Slots) -> Float[Array, "N slots H"]:
        layers = MLP(self.config.hidden_sizes, self.config.activation, self.config.compute_dtype)
        return over_tokens(layers, beside(slots.tokens, slots.whole)).astype(jnp.float32)


class TransformerEncoder(nn.Module):
    """A layer over each joint's token beside the whole, its slot's position added, then blocks of attention."""

    config: NetworkConfig

    @nn.compact
    def __call__(self, slots: Slots) -> Float[Array, "N slots W"]:
        width = self.config.transformer_width
        x = over_tokens(Dense(width, HIDDEN_GAIN, name="embedding"), beside(slots.tokens, slots.whole))
        x = x + positions(x.shape[1], width)[None]
        visible = jnp.broadcast_to(slots.enabled[:, None, :], (*x.shape[:2], x.shape[1]))
        for _ in range(self.config.transformer_blocks):
            x = PreNormBlock(width, self.config.transformer_heads)(x, visible)
        return nn.LayerNorm()(x)


class Score(nn.Module):
    """One number from features `[*batch, D]`: a hidden layer, and a last one of the given gain."""

    config: NetworkConfig
    gain: float

    @nn.compact
    def __call__(self, features: Float[Array, "*batch D"]) -> Float[Array, "*batch"]:
        config, batch = self.config, features.shape[:-1]
        if config.torso == "body-transformer":
            return TokenHead(config.transformer_width, 1, self.gain)(features).reshape(batch)
        rows = features.reshape(-1, features.shape[-1])
        hidden = MLP(config.hidden_sizes[-1:], config.activation, config.compute_dtype)(rows)
        return Dense(1, self.gain)(hidden).reshape(batch)


def encoder(config: NetworkConfig) -> nn.Module:
    """Choose the network from slots to features `[N, slots, H]` of each joint."""
    return SetEncoder(config) if config.torso == "body-set" else TransformerEncoder(config)


def check_bodies(config: NetworkConfig, tokens: Tokens | None, action: ActionSpace | None = None) -> Tokens:
    """Return the layout of the observation.

    Raises:
        ValueError: it has none, or the actions are not one real number per token.
    """
    known = "auto, mlp or cnn"
    if tokens is None:
        raise ValueError(f"network.torso must be {known} in a world without tokens, not {config.torso!r}")
    matching = action is None or (isinstance(action, Box) and math.prod(action.shape) == tokens.count)
    require(matching, "network.torso", f"{known} for {tokens.count} tokens and actions {action}", config.torso)
    return tokens


def read_slots(layout: Tokens, observation: Float[Array, "*batch D"]) -> Slots:
    """Take flat observations apart, the batch axes as one; what an empty slot holds becomes 0 and gets no gradient."""
    tokens, enabled, whole = layout.split(observation.reshape(-1, observation.shape[-1]))
    return Slots(tokens=jnp.where(enabled[..., None], tokens[..., :-1], 0.0), enabled=enabled, whole=whole)


def beside(tokens: Float[Array, "N slots F"], whole: Float[Array, "N G"]) -> Float[Array, "N slots FG"]:
    """Put what is true of the whole body beside each token."""
    repeated = jnp.broadcast_to(whole[:, None], (*tokens.shape[:2], whole.shape[-1]))
    return jnp.concatenate([tokens, repeated], axis=-1)


def mean_of_enabled(x: Float[Array, "N slots H"], enabled: Bool[Array, "N slots"]) -> Float[Array, "N H"]:
    """Σ_i e_i x_i / max(1, Σ_i e_i) for the flags e; 0 for a body without joints."""
    count = jnp.maximum(enabled.sum(axis=1, dtype=x.dtype), 1.0)
    return jnp.where(enabled[..., None], x, 0.0).sum(axis=1) / count[:, None]


def positions(count: int, width: int) -> Float[Array, "slots W"]:
    """Waves that tell slots apart: sin and cos of i · λ^(−2k/W) for slot i, λ = `LONGEST_WAVE`.

    Source: Vaswani et al. 2017, arXiv:1706.03762, §3.5, where λ is 10,000 for positions in a text.
    """
    half = -(-width // 2)
    phase = np.arange(count)[:, None] * LONGEST_WAVE ** (-np.arange(half) / half)[None]
    return jnp.asarray(np.concatenate([np.sin(phase), np.cos(phase)], axis=1)[:, :width], jnp.float32)
