"""The layer against NumPy, and its hand-written backward pass against automatic differentiation of `x W + b`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.nets.dense import FEW_OUTPUTS, Dense, _sums, affine

SAMPLES, INPUTS = 13, 7


@pytest.mark.parametrize("outputs", [1, 2, FEW_OUTPUTS, FEW_OUTPUTS + 1, 11])
def test_gradients_are_those_of_the_plain_formula(key, outputs):
    keys = jax.random.split(key, 4)
    x, kernel = jax.random.normal(keys[0], (SAMPLES, INPUTS)), jax.random.normal(keys[1], (INPUTS, outputs))
    bias, weight = jax.random.normal(keys[2], (outputs,)), jax.random.normal(keys[3], (SAMPLES, outputs))

    def loss(function, *arguments):
        return (jnp.sin(function(*arguments)) * weight).sum()

    ours = jax.grad(lambda *a: loss(affine, *a), argnums=(0, 1, 2))(x, kernel, bias)
    plain = jax.grad(lambda *a: loss(lambda x, w, b: x @ w + b[None], *a), argnums=(0, 1, 2))(x, kernel, bias)
    for a, b in zip(ours, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        affine(x, kernel, bias), np.asarray(x) @ np.asarray(kernel) + np.asarray(bias), rtol=1e-5, atol=1e-6
    )


def test_sums_of_other_backends_agree(key):
    x, gradient = jax.random.normal(key, (SAMPLES, INPUTS)), jax.random.normal(key, (SAMPLES, 3))
    kernel, bias = _sums(x, gradient)
    np.testing.assert_allclose(kernel, np.asarray(x).T @ np.asarray(gradient), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(bias, np.asarray(gradient).sum(0), rtol=1e-5, atol=1e-6)


def test_batched_over_runs_equals_one_by_one(key):
    x = jax.random.normal(key, (3, SAMPLES, INPUTS))
    kernel, bias = jax.random.normal(key, (3, INPUTS, 2)), jnp.ones((3, 2))

    def gradient(x, kernel, bias):
        return jax.grad(lambda kernel: jnp.square(affine(x, kernel, bias)).sum())(kernel)

    together = jax.vmap(gradient)(x, kernel, bias)
    for index in range(3):
        alone = gradient(x[index], kernel[index], bias[index])
        np.testing.assert_allclose(together[index], alone, rtol=1e-5, atol=1e-6)


def test_orthogonal_start_of_the_given_gain(key):
    params = Dense(INPUTS, 2**0.5).init(key, jnp.zeros((1, SAMPLES)))["params"]
    np.testing.assert_allclose(params["kernel"].T @ params["kernel"], 2 * np.eye(INPUTS), atol=1e-5)
    np.testing.assert_array_equal(params["bias"], np.zeros(INPUTS))
