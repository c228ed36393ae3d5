"""The pieces of networks in NumPy and float64, given the parameters of ours."""

import jax
import numpy as np
from scipy import special


def double(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def dense(params, x):
    return x @ params["kernel"] + params["bias"]


def layer_norm(params, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-6) * params["scale"] + params["bias"]


def gelu(x):
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))


def attend(params, asking, source, causal, heads):
    """Head by head, query by query."""
    query, both = dense(params["query"], asking), dense(params["key_value"], source)
    width = query.shape[-1]
    size, mixed = width // heads, np.zeros_like(asking)
    for n in range(len(asking)):
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            key, value = both[n, :, part], both[n, :, width + head * size : width + (head + 1) * size]
            for i in range(asking.shape[1]):
                seen = i + 1 if causal else len(key)
                weights = special.softmax(key[:seen] @ query[n, i, part] / np.sqrt(size))
                mixed[n, i, part] = weights @ value[:seen]
    return dense(params["project"], mixed)


def feed_forward(params, x):
    return dense(params["Dense_1"], gelu(dense(params["Dense_0"], x)))


def perturbed(params, key):
    """Fresh parameters have zero biases and tiny gains: a mistake in them would not show."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    return tree.unflatten([leaf + 0.5 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)])
