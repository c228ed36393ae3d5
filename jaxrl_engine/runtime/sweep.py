"""The grid of settings that `--sweep` spans: only values that are traced, so that all runs share one program."""

import dataclasses
import itertools
import math
import re

from jaxrl_engine.core.config import Config
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime.errors import one_line
from jaxrl_engine.runtime.settings import check_value, suggestion
from jaxrl_engine.runtime.strict_yaml import resolve_scalar

_PPO = (
    "ppo.learning_rate",
    "ppo.gamma",
    "ppo.gae_lambda",
    "ppo.clip_epsilon",
    "ppo.value_coefficient",
    "ppo.max_grad_norm",
)
_HMASD = (
    "hmasd.high_entropy",
    "hmasd.low_entropy",
    "hmasd.extrinsic",
    "hmasd.team_discriminator",
    "hmasd.individual_discriminator",
    "hmasd.discriminator_learning_rate",
)
SWEEPABLE = {algo: (*_PPO, "ppo.entropy_coefficient") for algo in ("ppo", "mappo", "mat")} | {"hmasd": (*_PPO, *_HMASD)}
"""What is traced, by algorithm."""

MAX_SETTINGS = 4096


def sweep_settings(config: Config) -> list[dict[str, float]]:
    """Return every combination of the values in `config.sweep`, the last entry varying fastest; `[{}]` if it is empty.

    An entry reads `ppo.learning-rate=1e-4,3e-4`. Each setting maps dotted field names to values.

    Raises:
        UserError: an entry is malformed, names a field that is not traced or names one twice, a value is out of range,
            or there are more than 4096 combinations.
    """
    axes: dict[str, list[float]] = {}
    for entry in config.sweep:
        field, values = _read_entry(entry, config)
        if field in axes:
            raise UserError(f"sweep: {field} is listed twice")
        axes[field] = values
    total = math.prod(len(values) for values in axes.values())
    if total > MAX_SETTINGS:
        raise UserError(f"sweep must have at most {MAX_SETTINGS} combinations, not {total}")
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _read_entry(entry: str, config: Config) -> tuple[str, list[float]]:
    name, equals, texts = entry.partition("=")
    if not equals:
        raise UserError(f"sweep must be written FIELD=VALUE,VALUE, not {entry!r}")
    field, allowed = name.strip().replace("-", "_"), SWEEPABLE[config.algo]
    if field not in allowed:
        hint = suggestion(field, allowed) or f"; allowed are {', '.join(allowed)}"
        raise UserError(f"sweep: {name.strip()!r} cannot be swept{hint}")
    return field, [_read_value(field, text.strip(), config) for text in re.split(",", texts)]


def _read_value(field: str, text: str, config: Config) -> float:
    """Each field's range depends on no other field, so a value that is valid alone is valid in every combination."""
    group, _, name = field.partition(".")
    try:
        value = check_value(field, float, resolve_scalar(text))
        dataclasses.replace(getattr(config, group), **{name: value})
    except (UserError, ValueError) as error:
        raise UserError(f"sweep: {one_line(error)}") from None
    return float(value)
