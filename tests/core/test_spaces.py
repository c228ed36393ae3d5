"""Spaces are small values: equal, hashable, and refused where they contradict themselves."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.core.spaces import Box, Discrete, MultiDiscrete, Tokens


def test_shapes():
    assert Discrete(5).shape == ()
    assert MultiDiscrete((2, 3, 5)).shape == (3,)
    assert Box.uniform((2, 3), -1.0, 1.0).shape == (2, 3)


def test_spaces_are_values():
    assert Discrete(5) == Discrete(5) != Discrete(7)
    assert len({Box.uniform((2,), -1.0, 1.0), Box((2,), (-1.0, -1.0), (1.0, 1.0)), MultiDiscrete((2,))}) == 2


def test_uniform_fills_every_element():
    box = Box.uniform((2, 3), -0.5, 2.0, dtype="uint8")
    assert (box.low, box.high, box.dtype) == ((-0.5,) * 6, (2.0,) * 6, "uint8")
    assert Box.uniform((), 0.0, 1.0).low == (0.0,)


@pytest.mark.parametrize(("low", "high"), [((0.0,), (1.0, 1.0)), ((0.0, 0.0), (1.0,)), ((), ())])
def test_bounds_must_match_the_shape(low, high):
    with pytest.raises(ValueError, match=r"2 numbers, one per element of shape \(2,\)"):
        Box((2,), low, high)


def test_bounded_means_every_bound_is_finite():
    assert Box.uniform((3,), -1.0, 1.0).bounded
    assert not Box((2,), (-math.inf, 0.0), (1.0, 1.0)).bounded
    assert not Box((2,), (0.0, 0.0), (1.0, math.inf)).bounded


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_tokens_lie_row_by_row_before_the_global_vector(array):
    """Two slots of three numbers, the second empty, then two numbers of the whole."""
    tokens, enabled, whole = Tokens(count=2, size=3).split(array(np.float32([[5, 6, 1, 7, 8, 0, 9, 4]])))
    assert tokens.tolist() == [[[5, 6, 1], [7, 8, 0]]]
    assert enabled.tolist() == [[True, False]] and enabled.dtype == bool
    assert whole.tolist() == [[9, 4]]
    assert Tokens(2, 3) == Tokens(2, 3) != Tokens(3, 2) and len({Tokens(2, 3), Tokens(2, 3)}) == 1
