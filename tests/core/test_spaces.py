"""Spaces are small values: equal, hashable, and refused where they contradict themselves."""

import math

import pytest

from jaxrl_engine.core.spaces import Box, Discrete, MultiDiscrete


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
