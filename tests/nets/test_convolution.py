"""The convolution against scipy's, on every backend's way of computing it, and inside a compiled loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate2d

from jaxrl_engine.core.config import NetworkConfig
from jaxrl_engine.nets.convolution import Conv, convolve, convolve_by_matrix, convolve_by_patches, suited
from jaxrl_engine.nets.torsos import make_torso

SAMPLES, HEIGHT, WIDTH, CHANNELS, OUTPUTS = 2, 7, 5, 3, 11


@pytest.fixture
def operands(key):
    keys = jax.random.split(key, 3)
    image = jax.random.normal(keys[0], (SAMPLES, HEIGHT, WIDTH, CHANNELS))
    kernel = jax.random.normal(keys[1], (3, 3, CHANNELS, OUTPUTS))
    return image, kernel, jax.random.normal(keys[2], (OUTPUTS,))


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("function", [convolve, convolve_by_patches, convolve_by_matrix, suited])
def test_values_are_those_of_scipy(function, stride, operands):
    """The frame of zeros is as wide as the last place needs, the odd pixel below and to the right."""
    image, kernel, bias = map(np.asarray, operands)
    places = [-(-side // stride) for side in (HEIGHT, WIDTH)]
    frame = [max(stride * (n - 1) + 3 - side, 0) for n, side in zip(places, (HEIGHT, WIDTH), strict=True)]
    framed = np.pad(image, ((0, 0), *((width // 2, width - width // 2) for width in frame), (0, 0)))
    expected = np.zeros((SAMPLES, *places, OUTPUTS))
    for sample, output in np.ndindex(SAMPLES, OUTPUTS):
        planes = [correlate2d(framed[sample, ..., c], kernel[..., c, output], mode="valid") for c in range(CHANNELS)]
        expected[sample, ..., output] = sum(planes)[::stride, ::stride] + bias[output]
    np.testing.assert_allclose(function(stride, *operands), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [2, 11])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("function", [convolve_by_patches, convolve_by_matrix])
def test_kernels_even_or_larger_than_the_image_reach_as_far_as_the_native_one(function, stride, size, key, operands):
    image, _, bias = operands
    kernel = jax.random.normal(key, (size, size, CHANNELS, OUTPUTS))
    ours, native = (way(stride, image, kernel, bias) for way in (function, convolve))
    np.testing.assert_allclose(ours, native, atol=1e-3)


@pytest.mark.parametrize("size", [2, 5])  # by patches on a CPU, and by the whole matrix
@pytest.mark.parametrize("stride", [1, 2])
def test_both_ways_have_one_gradient(stride, size, key, operands):
    image, _, bias = operands
    operands = image, jax.random.normal(key, (size, size, CHANNELS, OUTPUTS)), bias

    def gradient(function):
        return jax.grad(lambda *a: jnp.sin(function(stride, *a)).sum(), argnums=(0, 1, 2))(*operands)

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


def test_layers_of_their_own_sizes_and_strides_are_those_of_mnih():
    """Mnih et al. 2016, §5.1: 16 filters of 8 × 8 at every 4th pixel, 32 of 4 × 4 at every 2nd, 256 units."""
    sizes = {"cnn_channels": (16, 32), "cnn_sizes": (8, 4), "cnn_strides": (4, 2), "hidden_sizes": (256,)}
    torso = make_torso(NetworkConfig(**sizes), (84, 84, 4))
    params = jax.eval_shape(torso.init, jax.random.key(0), jnp.zeros((1, 84, 84, 4)))["params"]
    assert params["Conv_0"]["kernel"].shape == (8, 8, 4, 16)
    assert params["Conv_1"]["kernel"].shape == (4, 4, 16, 32)
    assert params["MLP_0"]["Dense_0"]["kernel"].shape == (11 * 11 * 32, 256)
