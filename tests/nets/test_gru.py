"""The recurrent unit against a loop in NumPy, and its hand-written backward pass against automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from jaxrl_engine.nets.gru import GRU, recur

T, N, D, R = 5, 7, 3, 4


@pytest.fixture
def drawn(key):
    keys = jax.random.split(key, 6)
    return {
        "inputs": jax.random.normal(keys[0], (T, N, 3 * R)),
        "kernel": jax.random.normal(keys[1], (R, 3 * R)),
        "bias": jax.random.normal(keys[2], (R,)),
        "memory": jax.random.normal(keys[3], (N, R)),
        "is_first": jax.random.bernoulli(keys[4], 0.3, (T, N)),
    }


def by_loop(inputs, kernel, bias, memory, is_first):
    """As the class's docstring says it, stream by stream."""
    out = np.zeros((*inputs.shape[:2], R))
    for n in range(inputs.shape[1]):
        h = memory[n]
        for t in range(len(inputs)):
            h = np.zeros(R) if is_first[t, n] else h
            x_r, x_u, x_c = np.split(inputs[t, n], 3)
            u_r, u_u, u_c = np.split(kernel, 3, axis=1)
            r, u = special.expit(x_r + h @ u_r), special.expit(x_u + h @ u_u)
            c = np.tanh(x_c + r * (h @ u_c + bias))
            h = u * h + (1 - u) * c
            out[t, n] = h
    return out


def plain(inputs, kernel, bias, memory, is_first):
    """The same in JAX, for automatic differentiation."""

    def step(h, xs):
        x, first = xs
        h = jnp.where(first[:, None], 0.0, h)
        x_r, x_u, x_c = jnp.split(x, 3, axis=1)
        p_r, p_u, p_c = jnp.split(h @ kernel, 3, axis=1)
        u = jax.nn.sigmoid(x_u + p_u)
        h = u * h + (1 - u) * jnp.tanh(x_c + jax.nn.sigmoid(x_r + p_r) * (p_c + bias[None]))
        return h, h

    return jax.lax.scan(step, memory, (inputs, is_first))[1]


@pytest.mark.parametrize("steps", [1, T])
def test_memories_equal_the_loop(drawn, steps):
    cut = drawn | {"inputs": drawn["inputs"][:steps], "is_first": drawn["is_first"][:steps]}
    expected = by_loop(**{name: np.asarray(x) for name, x in cut.items()})
    np.testing.assert_allclose(recur(*cut.values()), expected, rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_automatic_differentiation(key, drawn):
    weight = jax.random.normal(key, (T, N, R))

    def loss(function, *arguments):
        return (jnp.sin(function(*arguments, drawn["is_first"])) * weight).sum()

    arguments = [drawn[name] for name in ("inputs", "kernel", "bias", "memory")]
    ours = jax.grad(lambda *a: loss(recur, *a), argnums=(0, 1, 2, 3))(*arguments)
    expected = jax.grad(lambda *a: loss(plain, *a), argnums=(0, 1, 2, 3))(*arguments)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_layer_projects_its_input_into_the_three_gates(key, drawn):
    layer = GRU(R)
    x = jax.random.normal(key, (T, N, D))
    params = layer.init(key, drawn["memory"], drawn["is_first"], x)
    p = params["params"]
    inputs = np.asarray(x) @ np.asarray(p["input"]["kernel"]) + np.asarray(p["input"]["bias"])
    expected = by_loop(
        inputs, np.asarray(p["kernel"]), np.asarray(p["bias"]), np.asarray(drawn["memory"]), drawn["is_first"]
    )
    np.testing.assert_allclose(
        layer.apply(params, drawn["memory"], drawn["is_first"], x), expected, rtol=1e-4, atol=1e-5
    )
    for gate in np.split(np.asarray(p["kernel"]), 3, axis=1):
        np.testing.assert_allclose(gate @ gate.T, np.eye(R), atol=1e-5)
