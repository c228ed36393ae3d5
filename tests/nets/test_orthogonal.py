"""Starting weights: orthonormal, the same for a seed alone and among others, and drawn side by side without end."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxrl_engine.nets.orthogonal import orthogonal


@pytest.mark.parametrize("shape", [(11, 5), (5, 11), (3, 3, 2, 7)])
def test_weights_are_orthonormal_times_the_scale(key, shape):
    flat = np.asarray(orthogonal(3.0)(key, shape)).reshape(-1, shape[-1])
    gram = flat @ flat.T if flat.shape[0] < flat.shape[1] else flat.T @ flat
    np.testing.assert_allclose(gram, 9.0 * np.eye(min(flat.shape)), atol=1e-5)


def test_a_seed_among_others_starts_as_it_does_alone(key):
    keys = jax.random.split(key, 3)
    draw = orthogonal()
    together = jax.jit(jax.vmap(lambda one: draw(one, (13, 7))))(keys)
    for one, weights in zip(keys, together, strict=True):
        np.testing.assert_array_equal(weights, draw(one, (13, 7)))


SIDE_BY_SIDE = """
import jax
from jaxrl_engine.nets.orthogonal import orthogonal

def draw(key):
    return [orthogonal()(part, (256, 64)).sum() for part in jax.random.split(key, 8)]

program = jax.jit(jax.vmap(draw))
for key in jax.random.split(jax.random.key(0), 40):
    jax.block_until_ready(program(jax.random.split(key, 2)))
"""


def test_two_seeds_draw_eight_layers_at_once_and_come_to_an_end():
    """Flax's initialiser stands still here in the first few tries on two cores."""
    subprocess.run([sys.executable, "-c", SIDE_BY_SIDE], timeout=120, check=True)
