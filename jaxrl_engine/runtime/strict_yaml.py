"""YAML as YAML 1.2 reads it, and no more than settings need: one mapping of plain values.

PyYAML follows YAML 1.1, where `1e-3` is a string, `no` is False, `12:30` is 750, `017` is 15 and the last of two equal
keys wins in silence. Here plain scalars follow the core schema of YAML 1.2 (§10.3.2), and aliases (which can expand
without bound), tags (which can name classes) and duplicate keys are refused.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime.errors import one_line

MAX_BYTES = 1_000_000
MAX_DEPTH = 16
_MAX_DIGITS = 64

Scalar = bool | int | float | str | None

_NAMED: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **{sign + name: float(sign + "inf") for sign in ("", "+", "-") for name in (".inf", ".Inf", ".INF")},
}
_INTEGER = re.compile(r"(?P<decimal>[-+]?[0-9]+)|0o(?P<octal>[0-7]+)|0x(?P<hexadecimal>[0-9a-fA-F]+)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_BASES = {"decimal": 10, "octal": 8, "hexadecimal": 16}
_PLAIN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9_.:=/-]*")


def resolve_scalar(text: str) -> Scalar:
    """Return what an unquoted scalar means under the YAML 1.2 core schema; all that is nothing else is text.

    Raises:
        ValueError: a whole number of more than 64 digits.
    """
    if text in _NAMED:
        return _NAMED[text]
    integer = _INTEGER.fullmatch(text)
    if integer is not None:
        if len(text) > _MAX_DIGITS:
            raise ValueError(f"{text[:12]}... has more than {_MAX_DIGITS} digits")
        kind = str(integer.lastgroup)
        return int(integer[kind], _BASES[kind])
    return float(text) if _FLOAT.fullmatch(text) else text


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a settings file into nested dicts, lists and scalars.

    Raises:
        UserError: the file cannot be read, is not UTF-8, is larger than 1 MB, is not one mapping, or uses an alias, an
            anchor, a tag or the same key twice. The line starts with the file's name.
    """
    try:
        return parse_mapping(_read_text(path))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _read_text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise UserError("is not a file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UserError(getattr(error, "strerror", None) or one_line(error)) from None
    if len(content) > MAX_BYTES:
        raise UserError(f"is larger than {MAX_BYTES:,} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise UserError("is not UTF-8 text") from None


def parse_mapping(text: str) -> dict[str, Any]:
    """Parse one YAML document whose top level is a mapping; see `read_mapping` for what is refused."""
    try:
        _refuse_indirection(text)
        node = yaml.SafeLoader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise UserError(f"{_line(mark)}{error.problem or 'is not valid YAML'}") from None
    except yaml.YAMLError as error:
        raise UserError(one_line(error)) from None
    if not isinstance(node, yaml.MappingNode):
        raise UserError("the top level must be a mapping of names to values")
    return _construct_mapping(node)


def _refuse_indirection(text: str) -> None:
    """Walk the flat event stream first: building nodes would already follow aliases and recurse into any depth."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        where = _line(event.start_mark)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise UserError(f"{where}aliases and anchors are not allowed")
        if getattr(event, "tag", None) is not None:
            raise UserError(f"{where}tags are not allowed")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise UserError(f"{where}nested deeper than {MAX_DEPTH} levels")


def _line(mark: Any) -> str:
    return "" if mark is None else f"line {mark.line + 1}: "


def _construct(node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _construct_mapping(node)
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item) for item in node.value]
    if getattr(node, "style", None) is not None:  # quoted, or a block of text
        return node.value
    try:
        return resolve_scalar(node.value)
    except ValueError as error:
        raise UserError(f"{_line(node.start_mark)}{error}") from None


def _construct_mapping(node: yaml.MappingNode) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = key_node.value
        where = _line(key_node.start_mark)
        if not isinstance(key_node, yaml.ScalarNode) or not isinstance(key, str):
            raise UserError(f"{where}a key must be a name")
        if key in mapping:
            raise UserError(f"{where}duplicate key {key!r}")
        mapping[key] = _construct(value_node)
    return mapping


class _Dumper(yaml.SafeDumper):
    """Writes what `parse_mapping` reads back: no aliases, and quotes around every text that could be anything else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = _PLAIN_TEXT.fullmatch(text) is not None and isinstance(resolve_scalar(text), str)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


def _represent_tuple(dumper: yaml.SafeDumper, values: tuple[Any, ...]) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(tuple, _represent_tuple)


def dump_mapping(mapping: dict[str, Any]) -> str:
    """Write nested dicts, tuples and scalars as YAML that `parse_mapping` reads back unchanged (tuples as lists)."""
    return yaml.dump(mapping, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=120)
