"""Command lines become invocations, or one line that says why not; help documents all of it."""

import dataclasses
import io
import re
import resource
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from jaxrl_engine.core.config import Config
from jaxrl_engine.runtime.config import Invocation, Session, parse
from jaxrl_engine.runtime.settings import field_types

FIELDS = list(field_types(Config))


def test_command_line_over_file_over_code(tmp_path, write):
    path = write(tmp_path, "num_envs: 8\nnum_steps: 16\nenv_params: {a: 1, b: 2}\nppo: {gamma: 0.5}\n")
    result = parse(
        ["--config", str(path), "--num-envs", "4", "--ppo.learning_rate=1e-3", "--env-params", "b=3", "c=spring"]
    )
    config = result.config
    assert (config.num_envs, config.num_steps, config.total_steps) == (4, 16, 2_000_000)
    assert (config.ppo.gamma, config.ppo.learning_rate) == (0.5, 0.001)
    assert config.env_params == {"a": 1, "b": 3, "c": "spring"}
    assert result.config_file == path
    assert result.overrides == {"num_envs", "num_steps", "env_params", "ppo.gamma", "ppo.learning_rate"}


def test_values_are_converted_by_their_fields():
    result = parse(
        [
            *("--env-params", "n=3", "x=1e-2", "flag=true", "name=no", "empty=", "kind=a=b"),
            *("--network.hidden-sizes", "32", "16", "--network.initial-log-std", "-.5"),
            *("--ppo.no-anneal-learning-rate", "--ppo.clip-value", "--wandb", "--tensorboard", "--quiet"),
            *("--run-dir", "out/x", "--platform", "cpu", "--devices", "all", "--log-level", "debug", "--env", "17"),
        ]
    )
    config = result.config
    assert config.env_params == {"n": 3, "x": 0.01, "flag": True, "name": "no", "empty": "", "kind": "a=b"}
    assert config.network.hidden_sizes == (32, 16)
    assert config.network.initial_log_std == -0.5
    assert (config.ppo.anneal_learning_rate, config.ppo.clip_value) == (False, True)
    assert (config.logging.wandb, config.logging.tensorboard, result.tensorboard) == (True, True, True)
    assert config.env == "17"
    assert (result.run_dir, result.platform, result.devices) == (Path("out/x"), "cpu", "all")
    assert (result.quiet, result.log_level, result.eval_only, result.print_config) == (True, "debug", False, False)
    assert result.overrides == {
        *("env", "env_params", "network.hidden_sizes", "network.initial_log_std", "ppo.anneal_learning_rate"),
        *("ppo.clip_value", "logging.wandb"),
    }


def test_repeated_options():
    argv = ["--seed", "1", "--seed", "2", "--sweep", "ppo.gamma=0.9", "--sweep", "ppo.learning-rate=1e-3,1e-4"]
    argv += ["--network.hidden-sizes", "3", "--network.hidden-sizes", "5", "7"]
    argv += ["--env-params", "a=1", "--env-params", "b=2", "--wandb", "--no-wandb"]
    config = parse(argv).config
    assert config.seed == 2
    assert config.sweep == ("ppo.gamma=0.9", "ppo.learning-rate=1e-3,1e-4")
    assert config.network.hidden_sizes == (5, 7)
    assert config.env_params == {"a": 1, "b": 2}
    assert config.logging.wandb is False


def test_an_empty_list_clears_what_the_file_says(tmp_path, write):
    path = write(tmp_path, "env_params: {a: 1}\nsweep: [ppo.gamma=0.9]\n")
    config = parse(["--config", str(path), "--env-params", "--sweep"]).config
    assert (config.env_params, config.sweep) == ({}, ())


def test_boolean_options_take_their_value_too():
    assert parse(["--ppo.clip-value", "true"]).config.ppo.clip_value is True
    assert parse(["--ppo.clip-value=false"]).config.ppo.clip_value is False
    assert parse(["--ppo.no-clip-value=false"]).config.ppo.clip_value is True


def test_nothing_given_is_the_default():
    result = parse([])
    assert result.config == Config()
    assert (result.config_file, result.overrides, result.run_dir, result.resume) == (None, frozenset(), None, None)
    assert (result.platform, result.devices, result.log_level) == ("auto", 1, "info")


def test_resume_takes_the_configuration_of_the_run(tmp_path):
    (tmp_path / "config.yaml").write_text("num_envs: 8\nppo: {gamma: 0.5}\n")
    result = parse(["--resume", str(tmp_path), "--total-steps", "77"])
    assert (result.config.num_envs, result.config.ppo.gamma, result.config.total_steps) == (8, 0.5, 77)
    assert (result.resume, result.overrides) == (tmp_path, {"total_steps"})
    assert parse(["--resume", str(tmp_path), "--eval-only"]).eval_only


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("--num-env 3", "unknown option '--num-env'; did you mean '--num-envs'?"),
        ("--learning-rate 3", "unknown option '--learning-rate'; did you mean '--ppo.learning-rate'?"),
        ("--ppo.gama 3", "unknown option '--ppo.gama'; did you mean '--ppo.gamma'?"),
        ("--zzzz", "unknown option '--zzzz'"),
        ("-x", "unexpected argument '-x'"),
        ("num_envs=3", "unexpected argument 'num_envs=3'"),
        ("--", "unknown option '--'"),
        ("--num-envs=3 4", "unexpected argument '4'"),
        ("--num-envs 3 4", "num_envs must be a whole number, not '3 4'"),
        ("--num-envs", "num_envs must be a whole number, not nothing"),
        ("--num-envs=", "num_envs must be a whole number, not ''"),
        ("--num-envs many", "num_envs must be a whole number, not 'many'"),
        ("--num-envs 1e3", "num_envs must be a whole number, not 1000.0"),
        ("--num-envs -3", "num_envs must be a whole number >= 1, not -3"),
        ("--num-envs " + "9" * 5000, "num_envs: 999999999999... has more than 64 digits"),
        ("--seed 2147483648", "seed must be a whole number from 0 to 2147483647, not 2147483648"),
        ("--ppo.gamma nan", "ppo.gamma must be a finite number, not 'nan'"),
        ("--ppo.gamma .nan", "ppo.gamma must be a finite number, not nan"),
        ("--ppo.gamma 1.5", "ppo.gamma must be a number from 0 to 1, not 1.5"),
        ("--wandb maybe", "logging.wandb must be true or false, not 'maybe'"),
        ("--mode async --algo ppo", "algo must be impact with mode async, and only there, not 'ppo'"),
        (
            "--mode map-elite",
            "mode must be one of sync, async, map-elites, not 'map-elite'; did you mean 'map-elites'?",
        ),
        (
            "--network.torso mpl",
            "network.torso must be one of auto, mlp, cnn, body-mlp, body-set, body-transformer, not 'mpl'; "
            "did you mean 'mlp'?",
        ),
        ("--network.hidden-sizes", "network.hidden_sizes must be one or more whole numbers >= 1"),
        ("--network.hidden-sizes 3 x", "network.hidden_sizes must be a list of whole numbers, not [3, 'x']"),
        ("--env-params links", "env_params must be written NAME=VALUE, not 'links'"),
        ("--env-params =3", "env_params must be written NAME=VALUE, not '=3'"),
        ("--env-params x=.inf", "env_params must be a mapping"),
        ("--ppo.num-minibatches 7", "ppo.num_minibatches must be such that"),
        ("--sweep gamma=0.9", "sweep: 'gamma' cannot be swept; did you mean 'ppo.gamma'?"),
        ("--platform tpu", "platform must be one of auto, cpu, gpu, not 'tpu'"),
        ("--devices 0", "devices must be a whole number >= 1 or all, not 0"),
        ("--distributed 127.0.0.1:1,0", "distributed must be auto, off or HOST:PORT,RANK,SIZE, not '127.0.0.1:1,0'"),
        ("--distributed-timeout 0", "distributed_timeout must be a number > 0, not 0.0"),
        ("--eval-only", "eval_only needs a run to evaluate"),
        ("--resume /nowhere", "resume: /nowhere is not the directory of a run"),
        ("--config /nowhere.yaml", "/nowhere.yaml: No such file or directory"),
        ("--config /", "/: is not a file"),
        ("--config", "config must be a path, not nothing"),
    ],
)
def test_a_bad_command_line_is_one_line(argv, expected, complaint):
    assert complaint(argv.split(" ")).startswith(expected)


def test_odd_arguments_are_one_line(complaint):
    complaint(["--env", "a\udcffb"])
    complaint(["--env", "a\nb"])
    complaint(["--a\nb"])
    complaint([""])


def test_a_directory_to_resume_cannot_be_moved(tmp_path, complaint):
    (tmp_path / "config.yaml").write_text("num_envs: 8\n")
    assert complaint(["--resume", str(tmp_path), "--run-dir", "elsewhere"]).startswith("run_dir cannot be given")


options = [f"--{name.replace('_', '-')}" for name in FIELDS]
session_options = [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Session)]
words = st.one_of(
    st.sampled_from(
        [*options, *session_options, "--wandb", "--no-quiet", "--config", "-x", "--", "--ppo.", "--=", "-h"]
    ),
    st.sampled_from(["1", "0.5", "-3", "true", "sync", "async", "a=1", "ppo.gamma=0.9", "/", "reacher", "1e-3", ""]),
    st.text(max_size=10),
    st.builds(lambda option, value: f"{option}={value}", st.sampled_from(options), st.text(max_size=6)),
)


@hypothesis.settings(max_examples=500)
@hypothesis.given(st.lists(words, max_size=6).filter(lambda argv: "-h" not in argv))
def test_any_command_line_parses_or_is_refused_in_one_line(run_parse, argv):
    code, _, err, result = run_parse(argv)
    if code == 0:
        assert isinstance(result, Invocation)
        assert err == ""
    else:
        assert code == 2
        assert re.fullmatch(r"error: [^\n]+\n", err)


# Help


@pytest.fixture(scope="module")
def help_text() -> str:
    out = io.StringIO()
    with redirect_stdout(out), pytest.raises(SystemExit) as leaving:
        parse(["--help"])
    assert leaving.value.code == 0
    return out.getvalue()


def test_help_documents_every_option_with_its_default(help_text):
    for field in FIELDS:
        option = "--" + field.replace("_", "-")
        assert re.search(rf"{re.escape(option)}[ ,]", help_text), f"{option} is missing"
    for option in [*session_options, "--config"]:
        assert re.search(rf"{option}[ ,]", help_text), f"{option} is missing"
    assert "--env-params [NAME=VALUE ...]" in help_text
    assert "--platform {auto,cpu,gpu}" in help_text
    assert "(default: 2000000)" in help_text
    described = re.sub(r"[│\s]+", " ", help_text)
    assert "Half-width of the interval the probability ratio is clipped to. (default: 0.2)" in described


def test_every_option_that_help_shows_is_understood(help_text, run_parse):
    shown = set(re.findall(r"(--[a-z.-]*[a-z])", help_text)) - {"--help"}
    assert len(shown) > len(FIELDS)
    for option in shown:
        code, _, err, _ = run_parse([option])
        assert code == 0 or not err.startswith("error: unknown option"), option


def test_help_shows_the_values_of_the_file(tmp_path, write):
    path = write(tmp_path, "num_envs: 12\nenv_params: {num_links: 3}\nppo: {learning_rate: 0.0125}\n")
    out = io.StringIO()
    for argv in (["--config", str(path), "--help"], ["-h", "--config", str(path)]):
        with redirect_stdout(out), pytest.raises(SystemExit) as leaving:
            parse(argv)
        assert leaving.value.code == 0
    text = re.sub(r"[│\s]+", " ", out.getvalue())
    assert text.count("(default: 12)") == text.count("(default: 0.0125)") == text.count("(default: num_links=3)") == 2


def test_help_is_there_for_those_who_got_an_option_wrong():
    out = io.StringIO()
    with redirect_stdout(out), pytest.raises(SystemExit) as leaving:
        parse(["--num-env", "3", "--help"])
    assert leaving.value.code == 0
    assert "--num-envs INT" in out.getvalue()


def test_help_is_quick_and_imports_nothing_slow():
    program = (
        "import sys\nfrom jaxrl_engine.runtime.config import parse\n"
        "try:\n    parse(['--help'])\nexcept SystemExit as e:\n    assert not e.code\n"
        "assert not {'jax', 'numpy', 'orbax'} & set(sys.modules)\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor time, which neighbours on the machine do not change; on an idle one it is the time a person waits.
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 1.0
