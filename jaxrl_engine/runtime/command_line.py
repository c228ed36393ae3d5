"""A command line over a dataclass tree: `--group.field value`, read into a table of dotted names; help made by tyro.

Values pass the same check as those of a file (`settings.check_value`), every mistake is a `UserError` of one line, and
what was given explicitly is known exactly. tyro renders the fields' types, defaults and docstrings for `--help`.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime.settings import field_types, parse_words, suggestion

HELP_OPTIONS = ("-h", "--help")


@dataclasses.dataclass(frozen=True)
class _Option:
    field: str  # dotted
    annotation: Any
    negated: bool = False


def read_arguments(argv: Sequence[str], cls: Any, aliases: Mapping[str, str]) -> dict[str, Any]:
    """Return the values given on a command line by dotted field name of `cls`.

    Options may write `_` for `-` and `=` for the space. A repeated option overrides the earlier one, except that lists
    of text and NAME=VALUE pairs accumulate.

    Args:
        argv: the arguments, without the program's name.
        cls: a dataclass whose nested dataclasses are groups of options.
        aliases: further option names and the dotted field each stands for.

    Raises:
        UserError: an unknown option or a value that its field does not admit.
    """
    options = _options(cls, aliases)
    values: dict[str, Any] = {}
    for token, words in _split(argv):
        option = _find(options, token)
        value = parse_words(option.field, option.annotation, words)
        values[option.field] = _combine(option, values.get(option.field), (not value) if option.negated else value)
    return values


def _options(cls: Any, aliases: Mapping[str, str]) -> dict[str, _Option]:
    types = field_types(cls)
    names = {field: field for field in types} | dict(aliases)
    table: dict[str, _Option] = {}
    for name, field in names.items():
        group, dot, leaf = name.rpartition(".")
        table[_spell(name)] = _Option(field, types[field])
        if types[field] is bool:
            table[_spell(f"{group}{dot}no-{leaf}")] = _Option(field, bool, negated=True)
    return table


def _spell(name: str) -> str:
    return "--" + name.replace("_", "-")


def _split(argv: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each option with the words up to the next one (`--name=word` takes that word alone)."""
    position = 0
    while position < len(argv):
        token = argv[position]
        position += 1
        if not token.startswith("--"):
            raise UserError(f"unexpected argument {token!r}: options are written --name value")
        name, equals, word = token.partition("=")
        words = [word] if equals else []
        while not equals and position < len(argv) and not argv[position].startswith("--"):
            words.append(argv[position])
            position += 1
        yield name, words


def _find(options: Mapping[str, _Option], token: str) -> _Option:
    name = _spell(token[2:])
    if name not in options:
        raise UserError(f"unknown option {token!r}{suggestion(name, options)}")
    return options[name]


def _combine(option: _Option, earlier: Any, value: Any) -> Any:
    if earlier is None or not value:
        return value
    if get_origin(option.annotation) is dict:
        return {**earlier, **value}
    texts = get_origin(option.annotation) is tuple and get_args(option.annotation)[0] is str
    return (*earlier, *value) if texts else value


def print_help(defaults: Any, prog: str) -> None:
    """Print every option of a dataclass instance with its type, its value as the default and its docstring."""
    import tyro  # only help needs it, and it would double the start-up of every run

    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def name_value_pairs(
        info: tyro.constructors.PrimitiveTypeInfo,
    ) -> tyro.constructors.PrimitiveConstructorSpec[dict[str, Any]] | None:
        if get_origin(info.type) is not dict:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs="*",
            metavar="[NAME=VALUE ...]",
            instance_from_str=lambda words: parse_words("", info.type, words),
            is_instance=lambda value: isinstance(value, dict),
            str_from_instance=lambda pairs: [f"{name}={value}" for name, value in pairs.items()],
        )

    try:
        tyro.cli(type(defaults), prog=prog, args=["--help"], default=defaults, registry=registry)
    except SystemExit as leaving:
        if leaving.code not in (0, None):
            raise
