"""What the user asks for: a configuration file, a command line over it, and the run they describe together.

Command line over file over code. Importing this module is quick and imports neither jax nor tyro: arguments are parsed,
and help is printed, before anything slow.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jaxrl_engine.core.checks import require
from jaxrl_engine.core.config import Config
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime.command_line import HELP_OPTIONS, print_help, read_arguments
from jaxrl_engine.runtime.errors import exit_with, one_line
from jaxrl_engine.runtime.places import parse_place
from jaxrl_engine.runtime.settings import flatten, read_tree, to_tree, with_values
from jaxrl_engine.runtime.strict_yaml import dump_mapping, read_mapping
from jaxrl_engine.runtime.sweep import sweep_settings

__all__ = [
    "Config",
    "Invocation",
    "Session",
    "config_to_dict",
    "differences",
    "load_config",
    "parse",
    "sweep_settings",
    "to_yaml",
]

PROGRAM = "python -m jaxrl_engine.run"
CONFIG_FILE = "config.yaml"
MOST_SCREENS = 32
ALIASES = {
    "wandb": "logging.wandb",
    "num_epochs": "ppo.num_epochs",
    **{name: f"impact.{name}" for name in (
        "batch_size", "buffer_capacity", "min_buffer_size", "per_alpha", "per_beta_start", "replay",
    )},
    "actors": "actors.kind",
    **{name: f"actors.{name}" for name in ("ray_address", "num_workers", "weight_sync_interval", "lockstep")},
    **{name: f"qd.{name}" for name in ("num_initial", "num_offspring")},
}  # fmt: skip
MODES: dict[str, dict[str, Any]] = {
    "async": {"algo": "impact"},
    "map-elites": {"network.torso": "body-mlp", "ppo.normalize_observations": False, "evaluation.episodes": 256},
}
"""What a mode starts from where neither the command line nor a file says otherwise."""
WORLDS: dict[str, dict[str, Any]] = {
    "async": {
        "env": "color_lines", "env_params": {"reward": "shaped"}, "total_steps": 600_000, "num_envs": 64,
        "num_steps": 16, "ppo.learning_rate": 4e-3, "ppo.gamma": 0.5, "ppo.gae_lambda": 0.5,
        "ppo.entropy_coefficient": 3e-3, "ppo.num_epochs": 1, "ppo.num_minibatches": 8,
        "ppo.normalize_observations": False, "impact.batch_size": 2048, "impact.max_lag": 16,
        "actors.num_workers": 2, "network.activation": "relu", "network.cnn_channels": (8, 8),
        "network.cnn_sizes": (3, 7), "network.cnn_kinds": 7,
        "network.hidden_sizes": (64,), "evaluation.episodes": 200,
    },
    "map-elites": {
        "env": "reacher", "total_steps": 6_000_000, "num_envs": 256, "num_steps": 25, "ppo.learning_rate": 1e-3,
        "ppo.gamma": 0.97, "ppo.num_epochs": 4, "ppo.num_minibatches": 8, "network.hidden_sizes": (128, 128),
    },
}  # fmt: skip
"""The world a mode plays where none is named, with settings that suit it."""


def load_config(path: Path, base: Config = Config()) -> Config:
    """Return `base` with the settings of a YAML file laid over it.

    Raises:
        UserError: the file cannot be read, names an unknown setting, or the result is not a valid configuration. The
            line starts with the file's name.
    """
    return _lay_file(path, base)[0]


def _lay_file(path: Path, base: Config) -> tuple[Config, frozenset[str]]:
    tree = read_mapping(path)
    try:
        values = read_tree(tree, Config)
        config = _lay(values, base)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return config, frozenset(values)


def _lay(values: dict[str, Any], base: Config) -> Config:
    """Lay values over a configuration; `env_params` merge name by name, and an empty mapping clears them."""
    if values.get("env_params"):
        values = values | {"env_params": {**base.env_params, **values["env_params"]}}
    config = with_values(base, values)
    sweep_settings(config)
    return config


def config_to_dict(config: Config) -> dict[str, Any]:
    """Return the configuration as nested dicts; tuples stay tuples."""
    return to_tree(flatten(config))


def to_yaml(config: Config) -> str:
    """Return the configuration as YAML that `load_config` reads back to an equal one."""
    return dump_mapping(config_to_dict(config))


def differences(a: Config, b: Config) -> list[str]:
    """Return one `name: value in a -> value in b` for each setting in which the two differ."""
    theirs = flatten(b)
    return [f"{name}: {value!r} -> {theirs[name]!r}" for name, value in flatten(a).items() if value != theirs[name]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Session:
    """How a run is started and shown. Nothing here changes its result."""

    run_dir: Path | None = None
    """Directory of the run (default: runs/<time>-<mode>-<env>)."""
    resume: Path | None = None
    """Continue the run in this directory, with its config.yaml as the defaults."""
    eval_only: bool = False
    """Only evaluate the run given by --resume."""
    print_config: bool = False
    """Print the resolved configuration as YAML and exit."""
    platform: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to compute."""
    devices: int | Literal["all"] = 1
    """Devices of each process to spread environments, bodies or seeds over; with --platform cpu the host is split."""
    distributed: str = "off"
    """Several processes as one run: HOST:PORT,RANK,SIZE (rank 0 listens there), auto (SLURM, Open MPI, Kubernetes) or
    off. python -m jaxrl_engine.launch starts several on this machine."""
    distributed_timeout: float = 60.0
    """Seconds to wait for the other processes at the start."""
    live: bool = False
    """Show the run in a browser: eight of its worlds and the curves (default: yes on a terminal, else no)."""
    live_port: int = 8765
    """Where the live page is served; where it is taken, on the next free port."""
    live_host: str = "127.0.0.1"
    """Address it is served on; beyond this machine only with a random token, which is printed."""
    live_screens: int = 8
    """Worlds on the live page."""
    record: bool = False
    """Write what the live page shows to wall.jsonl in the run's directory, for python -m jaxrl_engine.live DIR."""
    tensorboard: bool = False
    """Show the metrics in TensorBoard on this machine while the run lasts: prints the address of the page, port 6006 or
    the next free one (needs the extra `tensorboard`)."""
    quiet: bool = False
    """Print only warnings, errors and the final summary."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe messages to print; debug also tells each worker's random key and its first actions."""

    def __post_init__(self) -> None:
        whole = self.devices == "all" or self.devices >= 1
        require(whole, "devices", "a whole number >= 1 or all", self.devices)
        if self.distributed not in ("auto", "off"):
            parse_place(self.distributed)
        require(self.distributed_timeout > 0, "distributed_timeout", "a number > 0", self.distributed_timeout)
        if self.distributed != "off" and self.eval_only:
            raise ValueError("distributed must be off with eval_only, which takes one process")
        if self.eval_only and self.resume is None:
            raise ValueError("eval_only needs a run to evaluate: give --resume DIR")
        if self.resume is not None and self.run_dir is not None:
            raise ValueError("run_dir cannot be given with resume: a resumed run stays in its directory")
        require(1 <= self.live_screens <= MOST_SCREENS, "live_screens", f"from 1 to {MOST_SCREENS}", self.live_screens)
        require(1 <= self.live_port <= 65535, "live_port", "from 1 to 65535", self.live_port)
        if self.tensorboard and self.eval_only:
            raise ValueError("tensorboard has nothing to show with eval_only")

    @property
    def device_count(self) -> int | None:
        """Devices of each process; None: all there are."""
        return None if self.devices == "all" else self.devices


@dataclasses.dataclass(frozen=True, kw_only=True)
class Invocation(Session):
    """One start of the program: the run's configuration, where it came from, and how to run it."""

    config: Config
    config_file: Path | None = None
    overrides: frozenset[str] = frozenset()  # dotted Config fields given on the command line or in the file

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tensorboard and not self.config.logging.tensorboard:
            raise ValueError("tensorboard shows what logging.tensorboard writes: that must not be false")


@dataclasses.dataclass(frozen=True)
class _CommandLine(Session, Config):
    """Train a policy. Every option may also stand in a YAML file: command line over file over defaults.

    Lists take several words (--network.hidden-sizes 64 64); --env-params takes NAME=VALUE pairs; --sweep and
    --env-params may be repeated. Short form: --wandb stands for --logging.wandb. Exit codes: 0 finished, 2 bad input,
    130 or 143 stopped by SIGINT or SIGTERM (resumable), 1 any other failure.
    """

    config: Path | None = None
    """YAML file of settings; they show as the defaults of --help."""

    def __post_init__(self) -> None:
        Session.__post_init__(self)
        Config.__post_init__(self)


def parse(argv: Sequence[str]) -> Invocation:
    """Return what the arguments ask for. `--help` prints and exits with 0.

    A mistake of the user's prints one line that starts with `error:` on stderr and exits with 2.
    """
    try:
        if any(token in HELP_OPTIONS for token in argv):
            _print_help(argv)
            raise SystemExit(0)
        return _read_invocation(argv)
    except UserError as error:
        exit_with(error)


def _read_invocation(argv: Sequence[str]) -> Invocation:
    given = _read_given(argv)
    base, from_file = _base_config(given)
    path = given.pop("config", None)
    if "resume" not in given and path is None:
        mode = given.get("mode", "")
        given = MODES.get(mode, {}) | ({} if "env" in given else WORLDS.get(mode, {})) | given
    session = {field.name: given.pop(field.name) for field in dataclasses.fields(Session) if field.name in given}
    session.setdefault("live", sys.stdout.isatty() and not session.get("quiet", False))
    config = _lay(given, base)
    try:
        return Invocation(config=config, config_file=path, overrides=from_file | frozenset(given), **session)
    except ValueError as error:
        raise UserError(one_line(error)) from None


def _read_given(argv: Sequence[str]) -> dict[str, Any]:
    for token in argv:
        if "\n" in token or any("\ud800" <= letter <= "\udfff" for letter in token):
            raise UserError(f"argument {token!r} is not UTF-8 text on one line")
    return read_arguments(argv, _CommandLine, ALIASES)


def _base_config(given: dict[str, Any]) -> tuple[Config, frozenset[str]]:
    """Return the configuration that the command line is laid over, and which of its fields the `--config` file set."""
    base = Config()
    if "resume" in given:
        if not (given["resume"] / CONFIG_FILE).is_file():
            raise UserError(f"resume: {given['resume']} is not the directory of a run (it has no {CONFIG_FILE})")
        base = load_config(given["resume"] / CONFIG_FILE)
    return _lay_file(given["config"], base) if "config" in given else (base, frozenset())


def _print_help(argv: Sequence[str]) -> None:
    try:
        given = _read_given([token for token in argv if token not in HELP_OPTIONS])
    except UserError:  # whoever asks for help may have got an option wrong
        given = {}
    base, _ = _base_config(given)
    values = {field.name: getattr(base, field.name) for field in dataclasses.fields(Config)}
    print_help(_CommandLine(**values, config=given.get("config")), PROGRAM)
