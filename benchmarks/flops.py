"""How many floating-point operations the matrix products of a traced program take, at least."""

import math
from collections.abc import Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr


def matmul_flops(function: Any, *arguments: Any) -> int:
    """Count 2 · m · n · k for every matrix product that `function(*arguments)` makes, loops and batches multiplied out.

    A lower bound where data decide: of alternatives (`cond`) the cheapest counts, and a loop whose number of rounds is
    known only when it runs counts as one round. What is done element by element is left out.
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr: Jaxpr) -> int:
    return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation: Any) -> int:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
    inner = [_count(jaxpr) for jaxpr in _inside(parameters)]
    if name == "cond":
        return min(inner)
    return sum(inner) * parameters.get("length", 1) if name == "scan" else sum(inner)


def _inside(parameters: dict[str, Any]) -> Iterator[Jaxpr]:
    for value in parameters.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, ClosedJaxpr):
                yield each.jaxpr
            elif isinstance(each, Jaxpr):
                yield each
