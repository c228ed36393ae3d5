"""Transformer blocks against NumPy in float64, and the two ways to decode against one another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_networks import attend, dense, double, feed_forward, gelu, layer_norm, perturbed

from jaxrl_engine.nets.transformer import Attention, Decoder, Encoder, PreNormBlock, TokenEmbedding, TokenHead

N, TOKENS, WIDTH, HEADS = 3, 5, 14, 2


@pytest.fixture
def x(key):
    return jax.random.normal(jax.random.fold_in(key, 1), (N, TOKENS, WIDTH))


@pytest.fixture
def encoded(key):
    return jax.random.normal(jax.random.fold_in(key, 2), (N, TOKENS, WIDTH))


@pytest.mark.parametrize("causal", [False, True])
def test_attention_equals_numpy(key, x, encoded, causal):
    attention = Attention(WIDTH, HEADS)

    def both(module, asking, source, allowed):
        return module.attend(asking, module.memory(source), allowed)

    allowed = jnp.tril(jnp.ones((TOKENS, TOKENS), bool)) if causal else None
    params = perturbed(attention.init(key, x, encoded, allowed, method=both), key)
    ours = attention.apply(params, x, encoded, allowed, method=both)
    expected = attend(double(params["params"]), double(x), double(encoded), causal, HEADS)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_encoder_equals_numpy(key, x):
    encoder = Encoder(WIDTH, HEADS, blocks=2)
    params = perturbed(encoder.init(key, x), key)
    p = double(params["params"])
    expected = layer_norm(p["LayerNorm_0"], double(x))
    for block in (p["EncoderBlock_0"], p["EncoderBlock_1"]):
        expected = layer_norm(
            block["LayerNorm_0"], expected + attend(block["Attention_0"], expected, expected, False, HEADS)
        )
        expected = layer_norm(block["LayerNorm_1"], expected + feed_forward(block["FeedForward_0"], expected))
    np.testing.assert_allclose(encoder.apply(params, x), expected, rtol=1e-4, atol=1e-4)


def test_a_block_sees_what_is_visible_in_each_sample(key, x):
    """Equal to a sequence that ends after the visible tokens, of NumPy."""
    block, counts = PreNormBlock(WIDTH, HEADS), (2, TOKENS, 1)
    visible = jnp.arange(TOKENS)[None] < jnp.array(counts)[:, None]
    visible = jnp.broadcast_to(visible[:, None], (N, TOKENS, TOKENS))
    params = perturbed(block.init(key, x, visible), key)
    p, found = double(params["params"]), block.apply(params, x, visible)
    for sample, count in enumerate(counts):
        short = double(x[sample : sample + 1, :count])
        normed = layer_norm(p["LayerNorm_0"], short)
        short = short + attend(p["Attention_0"], normed, normed, False, HEADS)
        short = short + feed_forward(p["FeedForward_0"], layer_norm(p["LayerNorm_1"], short))
        np.testing.assert_allclose(found[sample, :count], short[0], rtol=1e-4, atol=1e-4)


def test_decoder_equals_numpy(key, x, encoded):
    """The encoder's output asks and is the residual stream of the second attention."""
    decoder = Decoder(WIDTH, HEADS, blocks=2)
    params = perturbed(decoder.init(key, x, encoded), key)
    p, rep = double(params["params"]), double(encoded)
    hidden = layer_norm(p["norm"], double(x))
    for block in (p["stack_0"], p["stack_1"]):
        hidden = layer_norm(block["norms_0"], hidden + attend(block["among"], hidden, hidden, True, HEADS))
        hidden = layer_norm(block["norms_1"], rep + attend(block["across"], rep, hidden, True, HEADS))
        hidden = layer_norm(block["norms_2"], hidden + feed_forward(block["feed_forward"], hidden))
    np.testing.assert_allclose(decoder.apply(params, x, encoded), hidden, rtol=1e-4, atol=1e-4)


def test_a_token_sees_nothing_later_than_itself(key, x, encoded):
    """Of the decoder's own tokens; the encoder's output is asked for at its own position only."""
    decoder = Decoder(WIDTH, HEADS, blocks=1)
    params = perturbed(decoder.init(key, x, encoded), key)
    plain = decoder.apply(params, x, encoded)
    for changed in range(TOKENS):
        other = decoder.apply(params, x.at[:, changed, 0].add(1.0), encoded)
        np.testing.assert_array_equal(other[:, :changed], plain[:, :changed])
        assert np.abs(np.asarray(other - plain))[:, changed:].max(axis=(0, 2)).min() > 1e-4


@pytest.mark.parametrize("blocks", [1, 2])
def test_one_by_one_equals_all_at_once(key, x, encoded, blocks):
    decoder = Decoder(WIDTH, HEADS, blocks)
    params = perturbed(decoder.init(key, x, encoded), key)
    cache = decoder.empty_cache(N, TOKENS)
    rows = []
    for index in range(TOKENS):
        row, cache = decoder.apply(params, x[:, index], encoded, cache, jnp.asarray(index), method=Decoder.step)
        rows.append(row)
    np.testing.assert_allclose(jnp.stack(rows, axis=1), decoder.apply(params, x, encoded), rtol=1e-4, atol=1e-5)


def test_embedding_and_head_equal_numpy(key, x):
    embedding, head = TokenEmbedding(WIDTH), TokenHead(WIDTH, 3, 0.01)
    params = perturbed(embedding.init(key, x[:, 0]), key)
    p = double(params["params"])
    expected = gelu(dense(p["Dense_0"], layer_norm(p["LayerNorm_0"], double(x[:, 0]))))
    np.testing.assert_allclose(embedding.apply(params, x[:, 0]), expected, rtol=1e-4, atol=1e-5)
    params = perturbed(head.init(key, x), key)
    p = double(params["params"])
    expected = dense(p["Dense_1"], layer_norm(p["LayerNorm_0"], gelu(dense(p["Dense_0"], double(x)))))
    np.testing.assert_allclose(head.apply(params, x), expected, rtol=1e-4, atol=1e-4)


def test_gradients_reach_every_parameter(key, x, encoded):
    encoder, decoder = Encoder(WIDTH, HEADS, 2), Decoder(WIDTH, HEADS, 2)
    params = (encoder.init(key, x), decoder.init(jax.random.fold_in(key, 3), x, encoded))

    def loss(params):
        return jnp.sin(7.0 * decoder.apply(params[1], x, encoder.apply(params[0], encoded))).sum()

    for path, leaf in jax.tree.leaves_with_path(jax.grad(loss)(params)):
        assert np.abs(np.asarray(leaf)).max() > 0.0, jax.tree_util.keystr(path)
