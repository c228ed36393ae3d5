"""Maths takes no silent type conversion: an integer that became a float, or a float32 a float64, is an error here."""

import jax
import pytest


@pytest.fixture(autouse=True)
def _strict_types():
    with jax.numpy_dtype_promotion("strict"):
        yield
