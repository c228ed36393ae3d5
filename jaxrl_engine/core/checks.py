"""What a configuration says when a value is out of range: one line that names the field and what is allowed."""

import math

from jaxrl_engine.core.errors import UserError

Plain = int | float | bool | str


def require(condition: bool, field: str, allowed: str, value: object) -> None:
    """Raise `ValueError` naming the field, what is allowed and what was given, unless the condition holds."""
    if not condition:
        raise ValueError(f"{field} must be {allowed}, not {value!r}")


def require_positive_int(config: object, group: str, *names: str) -> None:
    """Raise `ValueError` unless every named field is a whole number >= 1; `group` is put before the names."""
    for name in names:
        value = getattr(config, name)
        valid = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        require(valid, f"{group}{name}", "a whole number >= 1", value)


def require_range(config: object, group: str, low: float, high: float, *names: str) -> None:
    """Raise `ValueError` unless every named field is a finite number in `[low, high]`; `group` as above."""
    for name in names:
        value = getattr(config, name)
        valid = isinstance(value, int | float) and math.isfinite(value) and low <= value <= high
        bounds = f"a number >= {low:g}" if math.isinf(high) else f"a number from {low:g} to {high:g}"
        require(valid, f"{group}{name}", bounds, value)


def in_type_of(default: Plain, value: Plain, field: str) -> Plain:
    """Return a parameter's value in the type of its default.

    Raises:
        UserError: it is of another type, or not finite; the line names `field`.
    """
    kind = type(default)
    if kind is float and type(value) in (int, float) and math.isfinite(float(value)):
        return float(value)
    if type(value) is kind and kind is not float:
        return value
    wanted = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}[kind]
    raise UserError(f"{field} must be {wanted}, not {value!r}")
