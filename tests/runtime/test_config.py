"""Files become configurations, or one line that says why not; configurations become files and back."""

import dataclasses
import re
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from jaxrl_engine.core.config import Config, NetworkConfig, PPOConfig
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime.config import (
    Invocation,
    config_to_dict,
    differences,
    load_config,
    parse,
    sweep_settings,
    to_yaml,
)
from jaxrl_engine.runtime.settings import field_types

# Files


SHIPPED = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_file_says_what_it_is_and_is_valid(path):
    assert path.read_text().startswith("# ")
    config = load_config(path)
    assert config != Config() and config.mode in ("sync", "async", "map-elites")


def test_a_file_is_laid_over_the_defaults(tmp_path, write):
    path = write(
        tmp_path,
        "num-envs: 8\nppo:\n  learning_rate: 1e-3\n  max-grad-norm: 1\nnetwork: {hidden_sizes: [32, 16]}\n"
        "env_params: {num_links: 3, backend: spring, dt: 2e-2, heavy: true}\nsweep: ['ppo.gamma=0.9,0.99']\n",
    )
    expected = dataclasses.replace(
        Config(),
        num_envs=8,
        ppo=dataclasses.replace(PPOConfig(), learning_rate=0.001, max_grad_norm=1.0),
        network=dataclasses.replace(NetworkConfig(), hidden_sizes=(32, 16)),
        env_params={"num_links": 3, "backend": "spring", "dt": 0.02, "heavy": True},
        sweep=("ppo.gamma=0.9,0.99",),
    )
    loaded = load_config(path)
    assert loaded == expected
    assert type(loaded.ppo.max_grad_norm) is float


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("num_env: 3", "unknown key 'num_env'; did you mean 'num_envs'?"),
        ("ppo: {lr: 1}", "unknown key 'ppo.lr'"),
        ("ppo: {gama: 1}", "unknown key 'ppo.gama'; did you mean 'ppo.gamma'?"),
        ("learning_rate: 1", "unknown key 'learning_rate'; did you mean 'ppo.learning_rate'?"),
        ("num_envs: 3\nnum-envs: 4", "duplicate key 'num_envs'"),
        ("ppo: {gamma: 1}\nppo-: {}", "unknown key 'ppo-'; did you mean 'ppo'?"),
        ("ppo: 3", "ppo must be a mapping of names to values, not 3"),
        ("ppo:", "ppo must be a mapping of names to values, not null"),
        ("num_envs: 1e3", "num_envs must be a whole number, not 1000.0"),
        ("num_envs: true", "num_envs must be a whole number, not true"),
        ("num_envs:", "num_envs must be a whole number, not null"),
        ("num_envs: '8'", "num_envs must be a whole number, not '8'"),
        ("num_envs: 0", "num_envs must be a whole number >= 1, not 0"),
        ("ppo: {gamma: true}", "ppo.gamma must be a finite number, not true"),
        ("ppo: {learning_rate: .inf}", "ppo.learning_rate must be a finite number, not inf"),
        ("ppo: {learning_rate: .nan}", "ppo.learning_rate must be a finite number, not nan"),
        ("env_params: {x: .nan}", "env_params must be a mapping of names to numbers, true, false or text, not"),
        ("env_params: {x: [1]}", "env_params must be a mapping of names to numbers, true, false or text, not"),
        ("ppo: {gamma: 1.5}", "ppo.gamma must be a number from 0 to 1, not 1.5"),
        ("ppo: {clip_value: no}", "ppo.clip_value must be true or false, not 'no'"),
        ("env: 3", "env must be text, not 3"),
        (
            "network: {torso: mpl}",
            "network.torso must be one of auto, mlp, cnn, body-mlp, body-set, body-transformer, not 'mpl'; "
            "did you mean 'mlp'?",
        ),
        ("network: {hidden_sizes: 64}", "network.hidden_sizes must be a list of whole numbers, not 64"),
        ("network: {hidden_sizes: [64, 1.5]}", "network.hidden_sizes must be a list of whole numbers, not [64, 1.5]"),
        ("network: {hidden_sizes: []}", "network.hidden_sizes must be one or more whole numbers >= 1, not ()"),
        ("mode: async", "algo must be impact with mode async, and only there, not 'ppo'"),
        ("mode: map-elites", "network.torso must be body-mlp, body-set or body-transformer with mode map-elites"),
        ("mode: snyc", "mode must be one of sync, async, map-elites, not 'snyc'; did you mean 'sync'?"),
        ("num_envs: 3\nnum_steps: 5", "ppo.num_minibatches must be such that"),
        ("sweep: ['ppo.gamma=2']", "sweep: ppo.gamma must be a number from 0 to 1, not 2.0"),
        ("- 1", "the top level must be a mapping"),
    ],
)
def test_a_bad_file_is_one_line_with_its_name(tmp_path, text, expected, write, complaint):
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: {expected}")
    assert complaint(["--config", str(path)]).startswith(f"{path}: {expected}")


def test_a_whole_number_too_large_for_a_float_is_refused(tmp_path, write):
    with pytest.raises(UserError, match="must be a finite number"):
        load_config(write(tmp_path, "ppo: {learning_rate: 1e999}"))


leaf_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([64, 0.5, "sync", "mlp", "reacher", [32, 32], ["ppo.gamma=0.9"], {"a": 1}]),
)
keys = st.one_of(st.sampled_from([*dir(Config()), *field_types(PPOConfig), *field_types(Config)]), st.text(max_size=6))
trees = st.recursive(
    leaf_values,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=8,
)
plausible_trees = st.fixed_dictionaries(
    {},
    optional={
        "num_envs": leaf_values,
        "env_params": trees,
        "sweep": trees,
        "ppo": st.dictionaries(st.sampled_from(list(field_types(PPOConfig))), leaf_values, max_size=3),
        "network": st.dictionaries(st.sampled_from(list(field_types(NetworkConfig))), leaf_values, max_size=3),
    },
)


@hypothesis.settings(max_examples=500)
@hypothesis.given(st.one_of(plausible_trees, trees, st.text(max_size=60)))
def test_any_file_loads_or_is_refused_in_one_line(tmp_path_factory, run_parse, tree):
    import yaml

    text = tree if isinstance(tree, str) else yaml.safe_dump(tree, allow_unicode=True)
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    code, _, err, result = run_parse(["--config", str(path)])
    if code == 0:
        assert isinstance(result, Invocation)
    else:
        assert code == 2
        assert re.fullmatch(r"error: [^\n]+\n", err)


# Writing


def random_config(data: st.DataObject) -> Config:
    probability = st.floats(0, 1)
    positive = st.floats(1e-6, 1e6)
    ppo = PPOConfig(
        learning_rate=data.draw(positive),
        gamma=data.draw(probability),
        clip_value=data.draw(st.booleans()),
        num_minibatches=data.draw(st.sampled_from([1, 2, 4])),
    )
    network = NetworkConfig(hidden_sizes=tuple(data.draw(st.lists(st.integers(1, 512), min_size=1, max_size=4))))
    values = st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text())
    return Config(
        env=data.draw(st.text()),
        env_params=data.draw(st.dictionaries(st.text(min_size=1), values, max_size=3)),
        seed=data.draw(st.integers(0, 2**31 - 1)),
        sweep=data.draw(st.sampled_from([(), ("ppo.gamma=0.9,0.99", "ppo.learning-rate=1e-3")])),
        ppo=ppo,
        network=network,
    )


@hypothesis.settings(max_examples=60)
@hypothesis.given(st.data())
def test_a_configuration_survives_its_yaml(tmp_path_factory, data):
    config = random_config(data)
    path = tmp_path_factory.getbasetemp() / "round.yaml"
    path.write_bytes(to_yaml(config).encode("utf-8"))
    assert load_config(path) == config


def test_equal_parameters_of_different_types_stay_different(tmp_path, write):
    params = {
        "a": 1,
        "b": 1.0,
        "c": True,
        "d": "1",
        "e": "1e-3",
        "f": "true",
        "g": "null",
        "h": "",
        "i": 1e-7,
        "j": "17:30",
    }
    loaded = load_config(write(tmp_path, to_yaml(Config(env_params=params))))
    assert [(type(value), value) for value in loaded.env_params.values()] == [(type(v), v) for v in params.values()]


def test_the_dict_has_the_groups_as_dicts():
    tree = config_to_dict(Config())
    assert tree["ppo"]["gamma"] == 0.99
    assert tree["network"]["hidden_sizes"] == (64, 64)
    assert list(tree) == [field.name for field in dataclasses.fields(Config)]


def test_differences_name_both_values():
    other = dataclasses.replace(Config(), seed=3, ppo=dataclasses.replace(PPOConfig(), gamma=0.9))
    assert differences(Config(), other) == ["seed: 0 -> 3", "ppo.gamma: 0.99 -> 0.9"]
    assert differences(other, other) == []


# Sweeps


def test_a_sweep_is_the_grid_of_its_entries():
    config = Config(sweep=("ppo.learning-rate=1e-4, 3e-4", "ppo.gamma=0.9,1"))
    assert sweep_settings(config) == [
        {"ppo.learning_rate": 1e-4, "ppo.gamma": 0.9},
        {"ppo.learning_rate": 1e-4, "ppo.gamma": 1.0},
        {"ppo.learning_rate": 3e-4, "ppo.gamma": 0.9},
        {"ppo.learning_rate": 3e-4, "ppo.gamma": 1.0},
    ]
    assert sweep_settings(Config()) == [{}]


def test_an_algorithm_sweeps_what_it_traces():
    skills = Config(algo="hmasd", sweep=("hmasd.extrinsic=0,100",))
    assert sweep_settings(skills) == [{"hmasd.extrinsic": 0.0}, {"hmasd.extrinsic": 100.0}]
    for algo, entry in (("ppo", "hmasd.extrinsic=1"), ("hmasd", "ppo.entropy-coefficient=1"), ("mat", "mat.width=8")):
        with pytest.raises(UserError, match="cannot be swept"):
            sweep_settings(Config(algo=algo, sweep=(entry,)))
    with pytest.raises(UserError, match=r"sweep: hmasd\.low_entropy must be a number >= 0, not -1.0"):
        sweep_settings(Config(algo="hmasd", sweep=("hmasd.low-entropy=-1",)))


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (("ppo.gamma",), "must be written FIELD=VALUE,VALUE"),
        (("ppo.gamma=",), "ppo.gamma must be a finite number, not null"),
        (("ppo.gamma=0.9,",), "ppo.gamma must be a finite number, not null"),
        (("ppo.gamma=high",), "ppo.gamma must be a finite number, not 'high'"),
        (("ppo.gamma=2",), "ppo.gamma must be a number from 0 to 1, not 2.0"),
        (("ppo.gamma=" + "9" * 100,), "has more than 64 digits"),
        (("ppo.num_epochs=2",), "'ppo.num_epochs' cannot be swept"),
        (("network.activation=relu",), "'network.activation' cannot be swept"),
        (("ppo.gamma=0.9", "ppo.gamma=0.8"), "ppo.gamma is listed twice"),
        (tuple(f"ppo.{name}=" + ",".join(["0.5"] * 20) for name in ("gamma", "gae_lambda", "clip_epsilon")), "8000"),
    ],
)
def test_a_bad_sweep_is_named(entries, expected):
    with pytest.raises(UserError) as caught:
        sweep_settings(Config(sweep=entries))
    assert expected in str(caught.value)
    assert str(caught.value).startswith("sweep")


@pytest.mark.parametrize(("mode", "name"), [("async", "async_color_lines"), ("map-elites", "map_elites_reacher")])
def test_a_mode_without_a_world_is_its_configuration_file(mode, name):
    assert parse(["--mode", mode]).config == load_config(Path(__file__).parents[2] / "configs" / f"{name}.yaml")


def test_a_mode_with_a_world_starts_from_the_general_settings():
    config = parse(["--mode", "async", "--env", "gymnax:CartPole-v1"]).config
    assert config == Config(mode="async", algo="impact", env="gymnax:CartPole-v1")
