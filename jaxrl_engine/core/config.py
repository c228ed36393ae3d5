"""What a run is: a tree of frozen dataclasses, checked at construction.

A wrong value raises `ValueError` with one line that names the field and what is allowed. The strings below the fields
are the command line's help. This module imports neither jax nor anything that does: `--help` must be instant.
"""

import dataclasses
import math
from typing import Literal

from jaxrl_engine.core.algo_config import MAPPOConfig, MATConfig, PPOConfig
from jaxrl_engine.core.async_config import ActorsConfig, ImpactConfig
from jaxrl_engine.core.checks import require, require_positive_int, require_range
from jaxrl_engine.core.hmasd_config import HMASDConfig
from jaxrl_engine.core.qd_config import MapElitesConfig

__all__ = [
    "ActorsConfig",
    "CheckpointConfig",
    "Config",
    "EnvValue",
    "EvaluationConfig",
    "HMASDConfig",
    "ImpactConfig",
    "LoggingConfig",
    "MAPPOConfig",
    "MATConfig",
    "MapElitesConfig",
    "NetworkConfig",
    "PPOConfig",
    "require",
]

EnvValue = int | float | bool | str


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Actor and critic of ppo and mappo: two networks of the same shape that share no weights."""

    torso: Literal["auto", "mlp", "cnn", "body-mlp", "body-set", "body-transformer"] = "auto"
    """auto: cnn for observations with three axes (height, width, channels), mlp for all others. The others are for
    bodies seen as one token per joint (reacher), of which slots may be empty, with ppo.normalize-observations off.
    body-mlp: all slots as one vector. body-set: the same layers for every joint, and their mean over the joints.
    body-transformer: attention among the joints."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the fully connected layers (body-set: for each joint)."""
    activation: Literal["tanh", "relu", "elu", "silu", "gelu"] = "tanh"
    """Nonlinearity after each hidden layer."""
    cnn_channels: tuple[int, ...] = (16,)
    """Channels of the cnn torso's convolutions, layer by layer."""
    cnn_sizes: tuple[int, ...] = (3,)
    """Side of their square kernels in pixels: one for all layers, or one per layer."""
    cnn_strides: tuple[int, ...] = (1,)
    """Pixels from one place of the kernel to the next: one for all layers, or one per layer."""
    cnn_kinds: int = 1
    """The image's channels are of so many interchangeable kinds, such as colours: channel i is of kind i mod cnn_kinds.
    The same convolutions then serve each kind, which they see beside the sum over all."""
    transformer_blocks: int = 3
    """Blocks of the body-transformer: attention among the joints, then a feed-forward layer."""
    transformer_heads: int = 4
    """Its attention heads per block."""
    transformer_width: int = 64
    """Width of its embeddings and of its feed-forward layers; it reads neither hidden_sizes nor activation."""
    recurrent: Literal["none", "gru"] = "none"
    """Put a recurrent layer between torso and head; it is cleared where an episode starts."""
    recurrent_size: int = 64
    """Width of the recurrent layer."""
    head: Literal["auto", "dense", "pairs"] = "auto"
    """Discrete policies. dense: a logit per action from the hidden layers. pairs: actions that are pairs of cells of an
    image (a ball from here to there) are scored by what the cnn's last layer says of the two cells; hidden_sizes then
    serve the critic alone. auto: pairs where the observation is an image of n cells and there are n² actions."""
    gaussian: Literal["diagonal", "tanh"] = "diagonal"
    """Continuous actions: a diagonal Gaussian whose samples are clipped, or one squashed by tanh."""
    initial_log_std: float = 0.0
    """Logarithm of the Gaussian's standard deviation at the start, in units of half the action range."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the hidden layers; parameters, heads and losses stay float32."""

    def __post_init__(self) -> None:
        for name in ("hidden_sizes", "cnn_channels", "cnn_sizes", "cnn_strides"):
            sizes = getattr(self, name)
            valid = len(sizes) > 0 and all(isinstance(size, int) and size >= 1 for size in sizes)
            require(valid, f"network.{name}", "one or more whole numbers >= 1", sizes)
        transformer = ("transformer_blocks", "transformer_heads", "transformer_width")
        require_positive_int(self, "network.", "recurrent_size", "cnn_kinds", *transformer)
        width, heads = self.transformer_width, self.transformer_heads
        require(
            width % heads == 0, "network.transformer_heads", f"a divisor of network.transformer_width = {width}", heads
        )
        layers = len(self.cnn_channels)
        for name in ("cnn_sizes", "cnn_strides"):
            sizes = getattr(self, name)
            require(len(sizes) in (1, layers), f"network.{name}", f"1 or {layers} numbers, as many as layers", sizes)
        allowed = "auto or dense with an mlp, a body, a gru or strides"
        require(self.head != "pairs" or self.sees_cells, "network.head", allowed, self.head)
        require_range(self, "network.", -20.0, 5.0, "initial_log_std")
        if self.sees_bodies:
            allowed = f"none with network.torso {self.torso}"
            require(self.recurrent == "none", "network.recurrent", allowed, self.recurrent)
        if self.torso == "body-transformer":
            allowed = "float32 with network.torso body-transformer"
            require(self.compute_dtype == "float32", "network.compute_dtype", allowed, self.compute_dtype)

    @property
    def sees_bodies(self) -> bool:
        """Whether an observation is read as the tokens of a body."""
        return self.torso in ("body-mlp", "body-set", "body-transformer")

    @property
    def sees_cells(self) -> bool:
        """Whether the cnn's last layer has features of each of the image's cells."""
        return self.torso in ("auto", "cnn") and self.recurrent == "none" and max(self.cnn_strides) == 1


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Greedy episodes in environments of their own, with keys of their own; training statistics are read, not fed."""

    episodes: int = 128
    """Episodes per evaluation, all in parallel."""
    count: int = 10
    """Evaluations over the run, evenly spaced, the last at its end (0: only at the end)."""
    max_steps: int = 10_000
    """An episode of a world without a time limit is cut here (and counted as cut)."""

    def __post_init__(self) -> None:
        require_positive_int(self, "evaluation.", "episodes", "max_steps")
        require(self.count >= 0, "evaluation.count", "a whole number >= 0", self.count)


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When the whole run is saved, and how many saves are kept."""

    every_seconds: float = 30.0
    """Wall-clock seconds between two saves (a save never changes the result)."""
    keep: int = 3
    """Newest checkpoints kept, besides the one that evaluated best."""
    replay: Literal["auto", "always", "never"] = "auto"
    """Whether replay is saved with the rest; auto: up to 256 MiB. Without it a resumed run begins with empty replay."""

    def __post_init__(self) -> None:
        require_range(self, "checkpoint.", 0.0, math.inf, "every_seconds")
        require_positive_int(self, "checkpoint.", "keep")


@dataclasses.dataclass(frozen=True)
class LoggingConfig:
    """What is written while the run goes on."""

    every_updates: int = 0
    """Updates averaged into one row of metrics (0: about 500 rows over the run)."""
    tensorboard: bool = True
    """Write TensorBoard event files beside metrics.jsonl."""
    wandb: bool = False
    """Also send the metrics to Weights & Biases (needs the extra `wandb`)."""
    split_times: bool = False
    """Time collection and update, compiled apart, once at the start (a second compilation)."""

    def __post_init__(self) -> None:
        require(self.every_updates >= 0, "logging.every_updates", "a whole number >= 0", self.every_updates)


@dataclasses.dataclass(frozen=True)
class Config:
    """A run. Everything that can change its result is here."""

    mode: Literal["sync", "async", "map-elites"] = "sync"
    """sync: rollout and update fused in one compiled program. async: threads collect while the learner learns, from
    what comes and from replay. map-elites: bodies evolve while one policy learns to move them all."""
    env: str = "reacher"
    """The world, e.g. reacher, alice_and_bob, gymnax:<id>, brax:<id>; python -m jaxrl_engine.envs lists them."""
    env_params: dict[str, EnvValue] = dataclasses.field(default_factory=dict)
    """Parameters of the world by name, e.g. num_links=3."""
    algo: Literal["ppo", "mappo", "mat", "hmasd", "impact"] = "ppo"
    """The learning algorithm; it reads the group of its name, and ppo. The groups of the others are left unread. impact
    is that of the async mode."""
    total_steps: int = 2_000_000
    """Environment steps, all environments together, per seed; rounded up to whole updates."""
    num_envs: int = 32
    """Environments stepped in parallel (B)."""
    num_steps: int = 32
    """Steps of each environment between two updates (T)."""
    seed: int = 0
    """Everything random in the run follows from this."""
    num_seeds: int = 1
    """Independent runs with consecutive seeds, in one compiled program."""
    sweep: tuple[str, ...] = ()
    """Grid over traced settings, e.g. ppo.learning-rate=1e-4,3e-4; every combination runs with every seed."""
    max_skipped_updates: int = 10
    """Stop after this many non-finite updates in a row."""
    ppo: PPOConfig = PPOConfig()
    mappo: MAPPOConfig = MAPPOConfig()
    mat: MATConfig = MATConfig()
    hmasd: HMASDConfig = HMASDConfig()
    impact: ImpactConfig = ImpactConfig()
    actors: ActorsConfig = ActorsConfig()
    qd: MapElitesConfig = MapElitesConfig()
    network: NetworkConfig = NetworkConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()

    def __post_init__(self) -> None:
        counts = ("total_steps", "num_envs", "num_steps", "num_seeds", "max_skipped_updates")
        require_positive_int(self, "", *counts)
        valid_seed = isinstance(self.seed, int) and 0 <= self.seed < 2**31
        require(valid_seed, "seed", "a whole number from 0 to 2147483647", self.seed)
        samples = self.num_envs * self.num_steps * self.num_seeds
        require(samples < 2**31, "num_envs", "such that num_envs × num_steps × num_seeds is below 2^31", self.num_envs)
        if self.algo == "mat":
            require(self.network.recurrent == "none", "network.recurrent", "none with algo mat", self.network.recurrent)
        is_async = self.mode == "async"
        require((self.algo == "impact") == is_async, "algo", "impact with mode async, and only there", self.algo)
        if is_async:
            self._check_async()
        if self.mode == "map-elites":
            self._check_map_elites()
        self._check_minibatches()

    def _check_async(self) -> None:
        """An update takes whole rollouts of whole actors."""
        require(
            self.num_seeds == 1 and not self.sweep, "num_seeds", "1, without a sweep, with mode async", self.num_seeds
        )
        apart = self.logging.split_times
        require(not apart, "logging.split_times", "false with mode async, where collection and update are apart", apart)
        workers, steps, impact = self.actors.num_workers, self.num_steps, self.impact
        require(
            self.num_envs % workers == 0, "num_envs", f"a multiple of actors.num_workers = {workers}", self.num_envs
        )
        unit = self.num_envs // workers * steps
        new = impact.batch_size * impact.new_fraction
        whole = impact.batch_size % steps == 0 and new % unit == 0
        allowed = f"a multiple of num_steps = {steps} whose new part is one of {unit}, the steps of one actor's rollout"
        require(whole, "impact.batch_size", allowed, impact.batch_size)
        replayed, shards = impact.batch_size // steps - self.new_chunks, impact.replay_shards
        even = self.new_chunks % shards == 0 and replayed % shards == 0
        allowed = f"a divisor of the {self.new_chunks} new and of the {replayed} replayed chunks of an update"
        require(even, "impact.replay_shards", allowed, shards)

    def _check_map_elites(self) -> None:
        """One policy sees all bodies, by networks that know which links there are."""
        require(self.algo == "ppo", "algo", "ppo with mode map-elites", self.algo)
        allowed = "body-mlp, body-set or body-transformer with mode map-elites"
        require(self.network.sees_bodies, "network.torso", allowed, self.network.torso)
        apart = self.logging.split_times
        require(not apart, "logging.split_times", "false with mode map-elites, which also evaluates", apart)

    def _check_minibatches(self) -> None:
        """Memory is replayed in order: with it whole environments are drawn, or by hmasd chunks of their steps."""
        parts = self.ppo.num_minibatches * self.ppo.accumulate_gradients
        unit, divisible = "num_envs × num_steps", self.samples_per_update
        if self.mode == "async":
            unit, divisible = "impact.batch_size", self.impact.batch_size
        elif self.mode == "map-elites":
            divisible = self.num_envs * self.num_steps
        elif self.algo == "hmasd":
            unit, divisible = unit + " / hmasd.chunk_length", self.samples_per_update // self.hmasd.chunk_length
        elif self.network.recurrent != "none":
            unit, divisible = "num_envs", self.num_envs
        allowed = f"such that ppo.num_minibatches × ppo.accumulate_gradients divides {unit} = {divisible}"
        require(divisible % parts == 0, "ppo.num_minibatches", allowed, parts)

    @property
    def samples_per_update(self) -> int:
        """Environment steps that are new in an update, or in a generation; those of evaluations are not counted."""
        if self.mode == "async":
            return self.new_chunks * self.num_steps
        if self.mode == "map-elites":
            return self.num_envs * self.num_steps * self.qd.updates_per_generation
        return self.num_envs * self.num_steps

    @property
    def new_chunks(self) -> int:
        """Async: chunks of num_steps that are new in an update."""
        return round(self.impact.batch_size * self.impact.new_fraction) // self.num_steps

    @property
    def num_updates(self) -> int:
        """Updates of the run: in the mode map-elites generations, each with several updates of the policy."""
        return -(-self.total_steps // self.samples_per_update)

    @property
    def policy_updates(self) -> int:
        """Updates of the policy over the run."""
        return self.num_updates * (self.qd.updates_per_generation if self.mode == "map-elites" else 1)

    @property
    def warm_up_generations(self) -> int:
        """Map-elites: generations on random bodies, before any is judged; at least one follows."""
        return min(round(self.num_updates * self.qd.warm_up), self.num_updates - 1)

    @property
    def updates_per_row(self) -> int:
        return self.logging.every_updates or max(1, self.num_updates // 500)
