"""Every wrong value of the configuration is refused in one line that names its field and what is allowed."""

import dataclasses
import importlib.util
import math
from pathlib import Path

import pytest


def load_unhooked(name):
    """A module as its users have it: under the tests' hook a value of a wrong type never reaches its checks."""
    path = Path(__file__).parents[2] / "jaxrl_engine" / "core" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"unhooked_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


unhooked = load_unhooked("config")
CheckpointConfig, Config, EvaluationConfig = unhooked.CheckpointConfig, unhooked.Config, unhooked.EvaluationConfig
LoggingConfig, NetworkConfig = unhooked.LoggingConfig, unhooked.NetworkConfig
algos = load_unhooked("algo_config")
MATConfig, PPOConfig, HMASDConfig = algos.MATConfig, algos.PPOConfig, load_unhooked("hmasd_config").HMASDConfig
asynchronous = load_unhooked("async_config")
ImpactConfig, ActorsConfig = asynchronous.ImpactConfig, asynchronous.ActorsConfig
MapElitesConfig = load_unhooked("qd_config").MapElitesConfig

NAN, INF = math.nan, math.inf

# (group's name as the user types it, class, field, wrong values)
WRONG = [
    ("ppo.", PPOConfig, "learning_rate", [-1e-3, NAN, INF, "3e-4"]),
    ("ppo.", PPOConfig, "gamma", [-0.1, 1.1, NAN]),
    ("ppo.", PPOConfig, "gae_lambda", [-0.1, 1.1, NAN]),
    ("ppo.", PPOConfig, "clip_epsilon", [0.0, -0.2, NAN, INF]),
    ("ppo.", PPOConfig, "entropy_coefficient", [-1.0, NAN]),
    ("ppo.", PPOConfig, "value_coefficient", [-1.0, NAN]),
    ("ppo.", PPOConfig, "max_grad_norm", [0.0, -1.0, NAN]),
    ("ppo.", PPOConfig, "huber_delta", [-1.0, NAN, INF]),
    ("ppo.", PPOConfig, "num_epochs", [0, -1, 1.0, True]),
    ("ppo.", PPOConfig, "num_minibatches", [0, -1, 1.5]),
    ("ppo.", PPOConfig, "accumulate_gradients", [0, -1, 2.0]),
    ("ppo.", PPOConfig, "shuffle_groups", [0, -1, 2.0]),
    ("ppo.", PPOConfig, "adam_epsilon", [0.0, -1.0, 2.0, NAN]),
    ("mat.", MATConfig, "blocks", [0, -1, 1.0]),
    ("mat.", MATConfig, "heads", [0, -1, 3]),
    ("mat.", MATConfig, "width", [0, -1, 64.0]),
    ("mat.", MATConfig, "initial_log_std", [-21.0, 6.0, NAN]),
    ("hmasd.", HMASDConfig, "skill_length", [0, -1, 16.0]),
    ("hmasd.", HMASDConfig, "team_skills", [0, -1, 2.0]),
    ("hmasd.", HMASDConfig, "individual_skills", [0, -1, 4.0]),
    ("hmasd.", HMASDConfig, "high_entropy", [-0.1, NAN, INF]),
    ("hmasd.", HMASDConfig, "low_entropy", [-0.1, NAN, INF]),
    ("hmasd.", HMASDConfig, "extrinsic", [-0.1, NAN, INF]),
    ("hmasd.", HMASDConfig, "team_discriminator", [-0.1, NAN, INF]),
    ("hmasd.", HMASDConfig, "individual_discriminator", [-0.1, NAN, INF]),
    ("hmasd.", HMASDConfig, "discriminator_epochs", [0, -1, 1.0]),
    ("hmasd.", HMASDConfig, "discriminator_learning_rate", [-0.1, NAN, INF]),
    ("hmasd.", HMASDConfig, "chunk_length", [0, -1, 8.0]),
    ("hmasd.", HMASDConfig, "width", [0, -1, 64.0]),
    ("hmasd.", HMASDConfig, "heads", [0, -1, 3]),
    ("hmasd.", HMASDConfig, "blocks", [0, -1, 1.0]),
    ("impact.", ImpactConfig, "batch_size", [0, -1, 64.0]),
    ("impact.", ImpactConfig, "new_fraction", [0.0, -0.5, 1.5, NAN]),
    ("impact.", ImpactConfig, "buffer_capacity", [0, -1, 1023]),
    ("impact.", ImpactConfig, "min_buffer_size", [-1, 100_001]),
    ("impact.", ImpactConfig, "per_alpha", [-0.1, 1.1, NAN]),
    ("impact.", ImpactConfig, "per_beta_start", [-0.1, 1.1, NAN]),
    ("impact.", ImpactConfig, "peak_share", [-0.1, 1.1, NAN]),
    ("impact.", ImpactConfig, "staleness_decay", [-0.1, 1.1, NAN]),
    ("impact.", ImpactConfig, "max_lag", [0, -1, 2.0]),
    ("impact.", ImpactConfig, "max_reuse", [0, -1, 2.0]),
    ("impact.", ImpactConfig, "replay_shards", [0, -1, 2.0, True]),
    ("impact.", ImpactConfig, "ratio_limit", [-0.1, 0.0, NAN, INF]),
    ("impact.", ImpactConfig, "proximal_decay", [-0.1, 1.0, NAN]),
    ("actors.", ActorsConfig, "num_workers", [0, -1, 257, 2.0]),
    ("actors.", ActorsConfig, "weight_sync_interval", [0, -1, 2.0]),
    ("actors.", ActorsConfig, "mailbox", [0, -1, 2.0]),
    ("actors.", ActorsConfig, "max_restarts", [-1]),
    ("actors.", ActorsConfig, "heartbeat_seconds", [0.0, -1.0, NAN]),
    ("qd.", MapElitesConfig, "min_links", [1, 9, 2.0, True]),
    ("qd.", MapElitesConfig, "max_links", [1, 9, 8.0]),
    ("qd.", MapElitesConfig, "min_length", [0.0, -1.0, NAN, INF]),
    ("qd.", MapElitesConfig, "max_length", [0.1, 0.0, NAN, INF]),
    ("qd.", MapElitesConfig, "thickness", [(1.0,), (2.0, 1.0), (0.0, 1.0), (1.0, INF)]),
    ("qd.", MapElitesConfig, "gear", [(1.0,), (2.0, 1.0), (-1.0, 1.0), (NAN, 1.0)]),
    ("qd.", MapElitesConfig, "iso_sigma", [-0.1, 1.1, NAN]),
    ("qd.", MapElitesConfig, "line_sigma", [-0.1, 1.1, NAN]),
    ("qd.", MapElitesConfig, "link_rate", [-0.1, 1.1, NAN]),
    ("qd.", MapElitesConfig, "immigrants", [-0.1, 1.1, NAN]),
    ("qd.", MapElitesConfig, "descriptors", [("links",), ("links", "links"), ("links", "reward")]),
    ("qd.", MapElitesConfig, "bins", [1, 1025, 32.0]),
    ("qd.", MapElitesConfig, "num_cells", [0, -1, 224.0]),
    ("qd.", MapElitesConfig, "num_initial", [0, -1, 128.0]),
    ("qd.", MapElitesConfig, "num_offspring", [0, -1, 128.0]),
    ("qd.", MapElitesConfig, "num_targets", [0, -1, 32.0]),
    ("qd.", MapElitesConfig, "updates_per_generation", [0, -1, 16.0]),
    ("qd.", MapElitesConfig, "elites", [-0.1, 1.1, NAN]),
    ("qd.", MapElitesConfig, "offspring", [-0.1, 0.6, NAN]),
    ("qd.", MapElitesConfig, "warm_up", [-0.1, 1.0, NAN]),
    ("network.", NetworkConfig, "hidden_sizes", [(), (0,), (64, -1), (64.0,)]),
    ("network.", NetworkConfig, "cnn_channels", [(), (0,), (16, -1), (16.0,)]),
    ("network.", NetworkConfig, "cnn_sizes", [(), (0,), (3, 3), (3.0,)]),
    ("network.", NetworkConfig, "cnn_strides", [(), (0,), (1, 2), (2.0,)]),
    ("network.", NetworkConfig, "cnn_kinds", [0, -1, 7.0]),
    ("network.", NetworkConfig, "transformer_blocks", [0, -1, 3.0]),
    ("network.", NetworkConfig, "transformer_heads", [0, -1, 3]),
    ("network.", NetworkConfig, "transformer_width", [0, -1, 64.0]),
    ("network.", NetworkConfig, "recurrent_size", [0, -1, 64.0]),
    ("network.", NetworkConfig, "initial_log_std", [-21.0, 6.0, NAN]),
    ("evaluation.", EvaluationConfig, "episodes", [0, -1, 2.0]),
    ("evaluation.", EvaluationConfig, "count", [-1]),
    ("evaluation.", EvaluationConfig, "max_steps", [0, -5]),
    ("checkpoint.", CheckpointConfig, "every_seconds", [-1.0, NAN, INF]),
    ("checkpoint.", CheckpointConfig, "keep", [0, -1]),
    ("logging.", LoggingConfig, "every_updates", [-1]),
    ("", Config, "total_steps", [0, -1, 1e6]),
    ("", Config, "num_envs", [0, -1, 32.0]),
    ("", Config, "num_steps", [0, -1, 32.0]),
    ("", Config, "num_seeds", [0, -1]),
    ("", Config, "max_skipped_updates", [0, -1]),
    ("", Config, "seed", [-1, 2**31, 1.5]),
]
TABLE = [(group, cls, field, value) for group, cls, field, values in WRONG for value in values]
GROUPS = {"ppo", "mappo", "mat", "hmasd", "impact", "actors", "qd", "network", "evaluation", "checkpoint", "logging"}
FREE = {"sweep", "env", "env_params", "mode", "algo", *GROUPS}
CLASSES = [
    PPOConfig, algos.MAPPOConfig, MATConfig, HMASDConfig, ImpactConfig, ActorsConfig, MapElitesConfig, NetworkConfig,
    EvaluationConfig, CheckpointConfig, LoggingConfig, Config,
]  # fmt: skip


@pytest.mark.parametrize(("group", "cls", "field", "value"), TABLE, ids=[f"{g}{f}={v!r}" for g, _, f, v in TABLE])
def test_a_wrong_value_names_its_field(group, cls, field, value):
    with pytest.raises(ValueError, match="must be") as caught:
        cls(**{field: value})
    message = str(caught.value)
    assert message.startswith(f"{group}{field} must be ")
    assert message.endswith(f", not {value!r}")
    assert "\n" not in message


def test_the_table_covers_every_number():
    """A number that is added to the configuration is added to the table above too."""
    covered = {(cls, field) for _, cls, field, _ in WRONG}
    for cls in CLASSES:
        default = cls()
        for field in dataclasses.fields(cls):
            value = getattr(default, field.name)
            if isinstance(value, bool | str) or field.name in FREE:
                continue
            assert (cls, field.name) in covered, f"no wrong value of {cls.__name__}.{field.name} is tried"


@pytest.mark.parametrize("cls", CLASSES)
def test_configurations_are_frozen_documented_values(cls):
    assert cls() == cls()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(cls(), dataclasses.fields(cls)[0].name, 1)
    assert cls.__doc__


def test_edges_are_allowed():
    PPOConfig(learning_rate=0.0, gamma=1.0, gae_lambda=0.0, num_epochs=1, entropy_coefficient=0.0, adam_epsilon=1.0)
    NetworkConfig(hidden_sizes=(1,), initial_log_std=-20.0)
    EvaluationConfig(count=0)
    CheckpointConfig(every_seconds=0.0)
    Config(seed=2**31 - 1, total_steps=1)


def test_minibatches_must_divide_the_rollout():
    with pytest.raises(ValueError, match=r"ppo.num_minibatches must be .* divides num_envs × num_steps = 35, not 4"):
        Config(num_envs=7, num_steps=5)
    Config(num_envs=7, num_steps=5, ppo=PPOConfig(num_minibatches=5))
    with pytest.raises(ValueError, match="= 1024, not 12"):
        Config(ppo=PPOConfig(num_minibatches=4, accumulate_gradients=3))


def test_recurrent_minibatches_are_whole_environments():
    recurrent = NetworkConfig(recurrent="gru")
    with pytest.raises(ValueError, match="divides num_envs = 6, not 4"):
        Config(num_envs=6, num_steps=32, network=recurrent)
    Config(num_envs=8, num_steps=3, network=recurrent)


@pytest.mark.parametrize(
    "without_cells", [{"torso": "mlp"}, {"torso": "body-set"}, {"recurrent": "gru"}, {"cnn_strides": (2,)}]
)
def test_pairs_need_the_cells_of_a_cnn(without_cells):
    with pytest.raises(ValueError, match=r"network\.head must be auto or dense with an mlp, a body, a gru or strides"):
        NetworkConfig(head="pairs", **without_cells)
    NetworkConfig(head="pairs")


def test_chunks_divide_among_the_minibatches_of_hmasd():
    config = {"algo": "hmasd", "num_envs": 6, "num_steps": 20, "hmasd": HMASDConfig(chunk_length=5)}
    with pytest.raises(ValueError, match=r"divides num_envs × num_steps / hmasd.chunk_length = 24, not 5"):
        Config(ppo=PPOConfig(num_minibatches=5), **config)
    Config(ppo=PPOConfig(num_minibatches=3), **config)


def test_a_transformer_has_no_memory():
    with pytest.raises(ValueError, match=r"network\.recurrent must be none with algo mat, not 'gru'"):
        Config(algo="mat", network=NetworkConfig(recurrent="gru"))


@pytest.mark.parametrize("torso", ["body-mlp", "body-set", "body-transformer"])
def test_networks_of_bodies_have_no_memory(torso):
    with pytest.raises(ValueError, match=f"network.recurrent must be none with network.torso {torso}, not 'gru'"):
        NetworkConfig(torso=torso, recurrent="gru")


def test_networks_of_bodies_say_what_fits():
    assert NetworkConfig(transformer_heads=3, transformer_width=9).transformer_heads == 3
    with pytest.raises(ValueError, match=r"heads must be a divisor of network\.transformer_width = 64, not 5"):
        NetworkConfig(transformer_heads=5)
    with pytest.raises(
        ValueError, match=r"network\.compute_dtype must be float32 with network\.torso body-transformer"
    ):
        NetworkConfig(torso="body-transformer", compute_dtype="bfloat16")
    read = {torso for torso in ("auto", "mlp", "cnn", "body-mlp", "body-set", "body-transformer")
            if NetworkConfig(torso=torso).sees_bodies}  # fmt: skip
    assert read == {"body-mlp", "body-set", "body-transformer"}


def test_derived_numbers():
    config = Config(num_envs=32, num_steps=32, total_steps=1025)
    assert (config.samples_per_update, config.num_updates) == (1024, 2)
    assert Config(total_steps=1024 * 5000).updates_per_row == 10
    assert Config(total_steps=1024).updates_per_row == 1
    assert Config(logging=LoggingConfig(every_updates=7)).updates_per_row == 7


def test_require_says_what_was_given():
    unhooked.require(True, "field", "anything", None)
    with pytest.raises(ValueError, match="field must be a whole number, not 'x'"):
        unhooked.require(False, "field", "a whole number", "x")
