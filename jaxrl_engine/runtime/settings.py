"""Trees of frozen dataclasses as flat tables of dotted names, and the one check every value from outside goes through.

A file and a command line differ only in how they write a value; `check_value` decides for both whether the field's
annotation admits it. Supported annotations: bool, int, float, str, Path, Literal, `X | None`, `tuple[X, ...]` and
`dict[str, scalars]`.
"""

import dataclasses
import difflib
import math
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime.errors import one_line
from jaxrl_engine.runtime.strict_yaml import resolve_scalar

ConfigType = TypeVar("ConfigType")

_NOUNS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "text",
    Path: "a path",
}


def field_types(cls: Any) -> dict[str, Any]:
    """Return the annotation of every leaf field of a tree of dataclasses, by dotted name, in order of declaration."""
    table: dict[str, Any] = {}
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        annotation = hints[field.name]
        if dataclasses.is_dataclass(annotation):
            table.update({f"{field.name}.{name}": leaf for name, leaf in field_types(annotation).items()})
        else:
            table[field.name] = annotation
    return table


def flatten(config: Any) -> dict[str, Any]:
    """Return the value of every leaf field, by dotted name."""
    return {name: _get(config, name.split(".")) for name in field_types(type(config))}


def _get(config: Any, parts: list[str]) -> Any:
    for part in parts:
        config = getattr(config, part)
    return config


def with_values(config: ConfigType, values: Mapping[str, Any]) -> ConfigType:
    """Return the tree with the named leaves replaced; the dataclasses check themselves at construction.

    Raises:
        UserError: a value is out of range, or values do not fit one another.
    """
    try:
        changed: ConfigType = _replace(config, values)
    except ValueError as error:
        raise UserError(one_line(error)) from None
    return changed


def _replace(config: Any, values: Mapping[str, Any]) -> Any:
    changes: dict[str, Any] = {name: value for name, value in values.items() if "." not in name}
    for group in {name.split(".")[0] for name in values if "." in name}:
        inner = {name.partition(".")[2]: value for name, value in values.items() if name.startswith(group + ".")}
        changes[group] = _replace(getattr(config, group), inner)
    return dataclasses.replace(config, **changes)


def to_tree(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested dicts for a table of dotted names."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *groups, leaf = name.split(".")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[leaf] = value
    return tree


def read_tree(tree: Mapping[str, Any], cls: Any, group: str = "") -> dict[str, Any]:
    """Check nested values against a tree of dataclasses; return them by dotted name. Keys may write `-` for `_`.

    Raises:
        UserError: an unknown or repeated key, or a value its field does not admit.
    """
    hints = get_type_hints(cls)
    allowed = [field.name for field in dataclasses.fields(cls)]
    values: dict[str, Any] = {}
    for key, value in tree.items():
        name = key.replace("-", "_")
        if name not in allowed:
            raise UserError(f"unknown key {group + key!r}{suggestion(name, [*allowed, *field_types(cls)], group)}")
        if name in values or any(seen.startswith(name + ".") for seen in values):
            raise UserError(f"duplicate key {group + name!r}")
        if not dataclasses.is_dataclass(hints[name]):
            values[name] = check_value(group + name, hints[name], value)
        elif isinstance(value, Mapping):
            inner = read_tree(value, hints[name], f"{group}{name}.")
            values.update({f"{name}.{leaf}": inner[leaf] for leaf in inner})
        else:
            raise UserError(f"{group}{name} must be a mapping of names to values, not {_show(value)}")
    return values


def suggestion(name: str, allowed: Iterable[str], prefix: str = "") -> str:
    """Return `; did you mean '…'?` with the nearest allowed name, or nothing if none is near."""
    nearest = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return f"; did you mean {prefix + nearest[0]!r}?" if nearest else ""


def check_value(name: str, annotation: Any, value: Any) -> Any:
    """Return the value as its field holds it: lists become tuples, whole numbers become floats where floats are asked.

    Raises:
        UserError: the annotation does not admit the value; the line names the field and what is allowed.
    """
    try:
        return _convert(annotation, value)
    except _NotAdmittedError:
        raise UserError(_complaint(name, annotation, value)) from None


class _NotAdmittedError(Exception):
    """The annotation does not admit the value."""


def _convert(annotation: Any, value: Any) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return _admit(isinstance(value, str) and value in arguments, value)
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, value)
    if origin is tuple:
        _admit(isinstance(value, list | tuple), value)
        return tuple(_convert(arguments[0], item) for item in value)
    if origin is dict:
        _admit(isinstance(value, Mapping) and all(isinstance(key, str) for key in value), value)
        return {key: _convert(arguments[1], item) for key, item in value.items()}
    return _convert_scalar(annotation, value)


def _convert_union(members: tuple[Any, ...], value: Any) -> Any:
    if value is None:
        return _admit(type(None) in members, None)
    if type(value) in members:
        return _convert_scalar(type(value), value)
    for member in members:
        try:
            return _convert(member, value)
        except _NotAdmittedError:
            continue
    raise _NotAdmittedError


def _convert_scalar(annotation: Any, value: Any) -> Any:
    if annotation is float and type(value) is int and abs(value) <= 2**1000:
        return float(value)
    if annotation is Path and isinstance(value, str) and value:
        return Path(value)
    _admit(type(value) is annotation, value)
    return _admit(not isinstance(value, float) or math.isfinite(value), value)


def _admit(condition: bool, value: Any) -> Any:
    if not condition:
        raise _NotAdmittedError
    return value


def _complaint(name: str, annotation: Any, value: Any) -> str:
    hint = (
        suggestion(value, get_args(annotation)) if get_origin(annotation) is Literal and isinstance(value, str) else ""
    )
    return f"{name} must be {describe(annotation)}, not {_show(value)}{hint}"


def _show(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def describe(annotation: Any) -> str:
    """Say in words what an annotation admits."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return arguments[0] if len(arguments) == 1 else f"one of {', '.join(arguments)}"
    if origin in (Union, types.UnionType):
        return " or ".join(describe(member) for member in arguments if member is not type(None))
    if origin is tuple:
        return {int: "a list of whole numbers", float: "a list of numbers"}.get(arguments[0], "a list of texts")
    if origin is dict:
        return "a mapping of names to numbers, true, false or text"
    return _NOUNS[annotation]


def parse_words(name: str, annotation: Any, words: list[str]) -> Any:
    """Return the value that the words after a command-line option stand for.

    `tuple` takes any number of words, `dict` words of the form NAME=VALUE, `bool` none or `true`/`false`; all others
    take exactly one. Numbers are written as in YAML 1.2.

    Raises:
        UserError: the wrong number of words, or a value the annotation does not admit.
    """
    origin = get_origin(annotation)
    if origin is tuple:
        return check_value(name, annotation, [_read_word(name, get_args(annotation)[0], word) for word in words])
    if origin is dict:
        return check_value(name, annotation, dict(_read_pair(name, word) for word in words))
    if annotation is bool and not words:
        return True
    if len(words) != 1:
        given = _show(" ".join(words)) if words else "nothing"
        raise UserError(f"{name} must be {describe(annotation)}, not {given}")
    return check_value(name, annotation, _read_word(name, annotation, words[0]))


def _read_word(name: str, annotation: Any, word: str) -> Any:
    verbatim = annotation is str or Path in (annotation, *get_args(annotation)) or get_origin(annotation) is Literal
    try:
        value = word if verbatim else resolve_scalar(word)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None
    return word if value is None else value  # a command line has no null


def _read_pair(name: str, word: str) -> tuple[str, Any]:
    key, equals, text = word.partition("=")
    if not key or not equals:
        raise UserError(f"{name} must be written NAME=VALUE, not {word!r}")
    return key, _read_word(name, Any, text)
