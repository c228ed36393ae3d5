"""Transformer blocks over a handful of tokens: an encoder that sees them all and a decoder that sees what came before.

The decoder is that of the multi-agent transformer: after causal attention over its own tokens, the *encoder's* output
asks and is the residual stream, and the decoder's tokens answer. Its layers, and those of its encoder, are normalised
after each residual sum.
Source: Wen et al. 2022, "Multi-Agent Reinforcement Learning is a Sequence Modeling Problem", arXiv:2205.14953, §4.
"""

from typing import TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl_engine.nets.dense import Dense
from jaxrl_engine.ops.distributions import FORBIDDEN

HIDDEN_GAIN = 2.0**0.5
OUTPUT_GAIN = 0.01
"""Gain of what is added to the residual stream, so that a fresh block passes its input on."""

Cache: TypeAlias = tuple[tuple[Array, Array], ...]
"""Keys and values `[N, tokens, 2 W]` of the tokens decoded so far: of both attentions, for each block."""


class Attention(nn.Module):
    """Scaled dot-product attention with `heads` heads; `memory` and `attend` apart, so that memories can be cached."""

    width: int
    heads: int

    def setup(self) -> None:
        # The published code makes these small too; but products of small gains leave hardly a gradient to begin with.
        self.query = Dense(self.width, 1.0)
        self.key_value = Dense(2 * self.width, 1.0)
        self.project = Dense(self.width, OUTPUT_GAIN)

    def memory(self, source: Float[Array, "N tokens W"]) -> Float[Array, "N tokens keys_values"]:
        """Keys and values of the tokens that will be attended to."""
        return over_tokens(self.key_value, source)

    def attend(
        self,
        asking: Float[Array, "N asking W"],
        memory: Float[Array, "N tokens keys_values"],
        allowed: Bool[Array, "*N asking tokens"] | None = None,
    ) -> Float[Array, "N asking W"]:
        """softmax(Q Kᵀ / √d) V per head, over the tokens each asking one may see, in all samples or in each."""
        size = self.width // self.heads
        query = over_tokens(self.query, asking).reshape(*asking.shape[:2], self.heads, size)
        key, value = jnp.split(memory.reshape(*memory.shape[:2], 2, self.heads, size), 2, axis=2)
        scores = jnp.einsum("nqhd,nkhd->nhqk", query, key[:, :, 0]) / size**0.5
        if allowed is not None:
            seen = allowed[None, None] if allowed.ndim == 2 else allowed[:, None]
            scores = jnp.where(seen, scores, FORBIDDEN)
        mixed = jnp.einsum("nhqk,nkhd->nqhd", jax.nn.softmax(scores), value[:, :, 0])
        return over_tokens(self.project, mixed.reshape(*asking.shape))


class FeedForward(nn.Module):
    """Two layers of the block's own width, GELU between them."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "N tokens W"]) -> Float[Array, "N tokens W"]:
        hidden = jax.nn.gelu(over_tokens(Dense(self.width, HIDDEN_GAIN), x))
        return over_tokens(Dense(self.width, OUTPUT_GAIN), hidden)


class EncoderBlock(nn.Module):
    """Attention among all tokens, then a feed-forward layer."""

    width: int
    heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "N tokens W"]) -> Float[Array, "N tokens W"]:
        attention = Attention(self.width, self.heads)
        x = nn.LayerNorm()(x + attention.attend(x, attention.memory(x)))
        return nn.LayerNorm()(x + FeedForward(self.width)(x))


class PreNormBlock(nn.Module):
    """Attention to the tokens that are visible, then a feed-forward layer, each of a normalised input and added to it.

        x ← x + Attention(LN x),   x ← x + FeedForward(LN x)

    Source: Xiong et al. 2020, "On Layer Normalization in the Transformer Architecture", arXiv:2002.04745, §3.
    """

    width: int
    heads: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "N tokens W"], visible: Bool[Array, "N tokens tokens"]
    ) -> Float[Array, "N tokens W"]:
        attention = Attention(self.width, self.heads)
        seen = nn.LayerNorm()(x)
        x = x + attention.attend(seen, attention.memory(seen), visible)
        return x + FeedForward(self.width)(nn.LayerNorm()(x))


class DecoderBlock(nn.Module):
    """Causal attention among the decoder's tokens, causal attention of the encoder's output to them, feed-forward."""

    width: int
    heads: int

    def setup(self) -> None:
        self.among = Attention(self.width, self.heads)
        self.across = Attention(self.width, self.heads)
        self.feed_forward = FeedForward(self.width)
        self.norms = [nn.LayerNorm() for _ in range(3)]

    def __call__(
        self, x: Float[Array, "N tokens W"], encoded: Float[Array, "N tokens W"], seen: Bool[Array, "tokens tokens"]
    ) -> Float[Array, "N tokens W"]:
        x = self.norms[0](x + self.among.attend(x, self.among.memory(x), seen))
        x = self.norms[1](encoded + self.across.attend(encoded, self.across.memory(x), seen))
        return self.norms[2](x + self.feed_forward(x))

    def step(
        self,
        x: Float[Array, "N 1 W"],
        encoded: Float[Array, "N 1 W"],
        cache: tuple[Array, Array],
        index: Int[Array, ""],
    ) -> tuple[Float[Array, "N 1 W"], tuple[Array, Array]]:
        """One token, given the cached keys and values of those before it."""
        own, other = cache
        seen = (jnp.arange(own.shape[1]) <= index)[None]
        own = _put(own, self.among.memory(x), index)
        x = self.norms[0](x + self.among.attend(x, own, seen))
        other = _put(other, self.across.memory(x), index)
        x = self.norms[1](encoded + self.across.attend(encoded, other, seen))
        return self.norms[2](x + self.feed_forward(x)), (own, other)


class Encoder(nn.Module):
    """A stack of encoder blocks behind a layer norm."""

    width: int
    heads: int
    blocks: int

    @nn.compact
    def __call__(self, x: Float[Array, "N tokens W"]) -> Float[Array, "N tokens W"]:
        x = nn.LayerNorm()(x)
        for _ in range(self.blocks):
            x = EncoderBlock(self.width, self.heads)(x)
        return x


class Decoder(nn.Module):
    """A stack of decoder blocks behind a layer norm: all tokens at once where they are known, or one by one."""

    width: int
    heads: int
    blocks: int

    def setup(self) -> None:
        self.norm = nn.LayerNorm()
        self.stack = [DecoderBlock(self.width, self.heads) for _ in range(self.blocks)]

    def __call__(
        self, x: Float[Array, "N tokens W"], encoded: Float[Array, "N tokens W"]
    ) -> Float[Array, "N tokens W"]:
        """Position i sees the inputs 0 … i and nothing later."""
        seen = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))
        x = self.norm(x)
        for block in self.stack:
            x = block(x, encoded, seen)
        return x

    def step(
        self, x: Float[Array, "N W"], encoded: Float[Array, "N tokens W"], cache: Cache, index: Int[Array, ""]
    ) -> tuple[Float[Array, "N W"], Cache]:
        """The output at position `index`, the inputs before it being in the cache: equal to row `index` of the call."""
        hidden = self.norm(x)[:, None]
        here = jax.lax.dynamic_slice_in_dim(encoded, index, 1, axis=1)
        grown = []
        for block, part in zip(self.stack, cache, strict=True):
            hidden, part = block.step(hidden, here, part, index)
            grown.append(part)
        return hidden[:, 0], tuple(grown)

    def empty_cache(self, samples: int, tokens: int) -> Cache:
        nothing = jnp.zeros((samples, tokens, 2 * self.width))
        return ((nothing, nothing),) * self.blocks


class TokenHead(nn.Module):
    """From each token to `size` numbers: a hidden layer, layer norm, a last layer of the given gain."""

    width: int
    size: int
    gain: float

    @nn.compact
    def __call__(self, x: Float[Array, "*batch W"]) -> Float[Array, "*batch size"]:
        rows = x.reshape(-1, x.shape[-1])
        hidden = nn.LayerNorm()(jax.nn.gelu(Dense(self.width, HIDDEN_GAIN)(rows)))
        return Dense(self.size, self.gain)(hidden).reshape(*x.shape[:-1], self.size)


class TokenEmbedding(nn.Module):
    """Layer norm, one layer, GELU: a token from what is seen."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "N D"]) -> Float[Array, "N W"]:
        return jax.nn.gelu(Dense(self.width, HIDDEN_GAIN)(nn.LayerNorm()(x)))


def over_tokens(layer: nn.Module, x: Float[Array, "N tokens D"]) -> Float[Array, "N tokens H"]:
    """Apply a layer to every token, as one matrix product."""
    return layer(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)


def _put(
    memory: Float[Array, "N tokens KV"], token: Float[Array, "N 1 KV"], index: Int[Array, ""]
) -> Float[Array, "N tokens KV"]:
    return jax.lax.dynamic_update_slice_in_dim(memory, token, index, axis=1)
