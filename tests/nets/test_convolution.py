"""The convolution against scipy's, on every backend's way of computing it, and inside a compiled loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate2d

from jaxrl_engine.nets.convolution import Conv, convolve, convolve_by_patches, suited

SAMPLES, HEIGHT, WIDTH, CHANNELS, OUTPUTS = 2, 7, 5, 3, 11


@pytest.fixture
def operands(key):
    keys = jax.random.split(key, 3)
    image = jax.random.normal(keys[0], (SAMPLES, HEIGHT, WIDTH, CHANNELS))
    kernel = jax.random.normal(keys[1], (3, 3, CHANNELS, OUTPUTS))
    return image, kernel, jax.random.normal(keys[2], (OUTPUTS,))


@pytest.mark.parametrize("function", [convolve, convolve_by_patches, suited])
def test_values_are_those_of_scipy(function, operands):
    image, kernel, bias = map(np.asarray, operands)
    expected = np.zeros((SAMPLES, HEIGHT, WIDTH, OUTPUTS))
    for sample, output in np.ndindex(SAMPLES, OUTPUTS):
        planes = [correlate2d(image[sample, ..., c], kernel[..., c, output], mode="same") for c in range(CHANNELS)]
        expected[sample, ..., output] = sum(planes) + bias[output]
    np.testing.assert_allclose(function(*operands), expected, rtol=1e-4, atol=1e-4)


def test_an_even_kernel_reaches_as_far_as_the_native_one(key, operands):
    image, _, bias = operands
    kernel = jax.random.normal(key, (2, 2, CHANNELS, OUTPUTS))
    np.testing.assert_allclose(convolve_by_patches(image, kernel, bias), convolve(image, kernel, bias), atol=1e-4)


def test_both_ways_have_one_gradient(operands):
    def gradient(function):
        return jax.grad(lambda *a: jnp.sin(function(*a)).sum(), argnums=(0, 1, 2))(*operands)

    for ours, native in zip(gradient(suited), gradient(convolve), strict=True):
        np.testing.assert_allclose(ours, native, rtol=1e-3, atol=1e-3)


def test_the_layer_compiled_in_a_loop_equals_the_layer_alone(key, operands):
    layer = Conv(OUTPUTS, 1.0)
    image = operands[0]
    params = layer.init(key, image)

    def gradient(image):
        return jax.grad(lambda params: jnp.square(layer.apply(params, image)).mean())(params)

    images = jnp.stack([image, 2 * image, -image])
    looped = jax.jit(lambda images: jax.lax.map(gradient, images))(images)
    for index in range(3):
        one = jax.tree.map(lambda leaf, index=index: leaf[index], looped)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), one, gradient(images[index]))
