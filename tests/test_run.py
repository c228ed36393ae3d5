"""The command line from end to end: what a run leaves behind, and how it refuses."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
import yaml
from engine_cli import SMALL, assert_one_line_error, rows, run, start, stop, summary, wait_for_steps
from PIL import Image

from jaxrl_engine import play
from jaxrl_engine.core.config import Config
from jaxrl_engine.runtime.config import config_to_dict, load_config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    done = run(*SMALL, "--total-steps", 6400, "--run-dir", run_dir, "--num-seeds", 2)
    assert done.returncode == 0, done.stderr
    return run_dir, done


def digest(directory) -> dict[str, str]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_summary_tells_how_the_run_went(finished):
    told = summary(finished[0])
    assert (told["mode"], told["env"], told["algo"], told["seed"]) == ("sync", "gymnax:CartPole-v1", "ppo", 0)
    assert (told["status"], told["env_steps"], told["updates"]) == ("finished", 6400, 200)
    assert told["wall_seconds"] > told["compile_seconds"] > 0
    assert told["steps_per_second"] > 0
    assert told["eval"]["return"] == pytest.approx(sum(told["eval"]["return_per_seed"]) / 2)
    assert told["runs"] == [{"seed": 0}, {"seed": 1}]
    assert told["versions"]["jax"]
    assert told["platform"] == "cpu"


def test_metrics_are_strict_json_and_steps_never_fall(finished):
    lines = (finished[0] / "metrics.jsonl").read_text().splitlines()

    def refuse(token):
        raise AssertionError(f"{token} is not JSON")

    parsed = [json.loads(line, parse_constant=refuse) for line in lines]
    steps = [row["env_steps"] for row in parsed]
    assert steps == sorted(steps) and steps[-1] == 6400
    training = [row for row in parsed if "Losses/Policy" in row]
    assert len(training) == 200
    assert {row["Sync/BatchSize"] for row in training} == {32.0}
    names = {"Charts/EpisodeReturn", "Charts/EpisodeLength", "Losses/Value", "Losses/Entropy", "Perf/SPS"}
    assert names <= set(training[-1])
    evaluations = [row for row in parsed if "Eval/return" in row]
    assert [row["env_steps"] for row in evaluations] == [3200, 6400]
    assert len(evaluations[0]["Eval/return_per_seed"]) == 2


def test_the_resolved_configuration_is_saved(finished):
    config = load_config(finished[0] / "config.yaml")
    assert (config.num_seeds, config.network.hidden_sizes, config.total_steps) == (2, (8,), 6400)


def test_the_report_names_policy_and_random(finished):
    lines = finished[1].stdout.splitlines()
    assert any(line.startswith("finished after 6400 steps") for line in lines)
    assert [line.split()[0] for line in lines[-2:]] == ["policy", "random"]


def test_eval_only_and_play_leave_the_run_as_it_was(finished):
    before = digest(finished[0])
    done = run("--resume", finished[0], "--eval-only")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2].startswith("policy")
    done = run(finished[0], "--episodes", 3, "--run", 1, module="play")
    assert done.returncode == 0, done.stderr
    assert "no picture" in done.stdout
    assert digest(finished[0]) == before


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("arms") / "run"
    sizes = "--num-envs 2 --num-steps 4 --total-steps 16 --ppo.num-minibatches 1 --evaluation.episodes 2"
    done = run("--env", "reacher", "--env-params", "episode_length=7", *sizes.split(), "--run-dir", run_dir, "--quiet")
    assert done.returncode == 0, done.stderr
    return run_dir


def assert_arms_move(path):
    with Image.open(path) as film:
        assert film.n_frames >= 8
        assert film.size == (2 * 176, 2 * (176 + 18))
        first = film.convert("RGB").tobytes()
        film.seek(7)
        assert film.convert("RGB").tobytes() != first


@pytest.mark.slow
def test_play_draws_arms_that_move_where_mujoco_cannot_render(arms):
    environment = {**os.environ, "MUJOCO_GL": "nonsense"}
    done = run(arms, "--episodes", 2, "--screens", 3, module="play", env=environment)
    assert done.returncode == 0, done.stderr
    assert "success_rate" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("no picture by MuJoCo")]
    assert "flat" in line and "MUJOCO_GL=nonsense" in line
    assert_arms_move(arms / "play.gif")


@pytest.mark.slow
def test_play_renders_arms_that_move(arms, tmp_path):
    gif, mp4 = tmp_path / "play.gif", tmp_path / "play.mp4"
    done = run(arms, "--episodes", 2, "--screens", 3, "--render", "mujoco", "--gif", gif, "--mp4", mp4, module="play")
    if "MuJoCo cannot render here" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    assert_arms_move(gif)
    assert mp4.read_bytes()[4:8] == b"ftyp"


def test_play_refuses_to_render_where_it_cannot():
    done = run("no-run", "--render", "mujoco", module="play", env={**os.environ, "MUJOCO_GL": "nonsense"})
    assert_one_line_error(done, "render", "MUJOCO_GL=nonsense")


@pytest.mark.parametrize("option", ["gif", "mp4"])
def test_play_refuses_a_file_that_cannot_be_before_it_looks_at_the_run(tmp_path, option):
    done = run("no-run", f"--{option}", tmp_path / "nowhere" / "film", module="play")
    assert_one_line_error(done, option, str(tmp_path / "nowhere" / "film"))
    assert_one_line_error(run("no-run", f"--{option}", tmp_path, module="play"), option, str(tmp_path))


def test_play_without_the_extra_for_videos_says_so_before_it_looks_at_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(SystemExit) as leaving:
        play.main(["no-run", "--mp4", str(tmp_path / "film.mp4")])
    assert leaving.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: mp4: ") and ".[video]" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--env gymnax:CartPole-v2", ["gymnax:CartPole-v1"]),
        ("--env nowhere", ["nowhere"]),
        ("--env reacher --env-params num_link=3", ["num_links"]),
        ("--env reacher --env-params num_links=99", ["num_links", "1 to 8"]),
        ("--env gymnax:CartPole-v1 --network.torso cnn", ["network.torso"]),
        ("--env gymnax:Acrobot-v1 --sweep ppo.gama=0.9", ["ppo.gama"]),
        ("--ppo.gamma 2", ["ppo.gamma", "0 to 1"]),
        ("--num-envs 3 --num-steps 5", ["ppo.num_minibatches"]),
        ("--num-enva 3", ["--num-envs"]),
        ("--config /nonexistent.yaml", ["/nonexistent.yaml"]),
        ("--resume /nonexistent", ["/nonexistent"]),
        ("--eval-only", ["--resume"]),
        ("--platform gpu", ["platform", "GPU"]),
        ("--platform cpu --devices 3", ["num_envs", "3"]),
    ],
)
def test_wrong_input_is_one_line_and_nothing_on_disk(tmp_path, arguments, words):
    done = run(*arguments.split(), cwd=tmp_path)
    assert_one_line_error(done, *words)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_in_use_or_not_empty_is_refused(tmp_path):
    run_dir = tmp_path / "run"
    process = start(*SMALL, "--total-steps", 10**8, "--run-dir", run_dir, "--quiet")
    wait_for_steps(run_dir, 1, process)
    try:
        assert_one_line_error(run("--resume", run_dir), str(process.pid))
        assert_one_line_error(run(*SMALL, "--run-dir", run_dir), str(run_dir))
    finally:
        assert stop(process, 15)[0] == 143
    assert_one_line_error(run(*SMALL, "--run-dir", run_dir), "not empty")


def test_a_full_disk_is_one_line_and_earlier_files_stay_readable(tmp_path):
    """The file-size limit stands in for a full disk: the checkpoint's writes are refused as they would be there."""
    run_dir = tmp_path / "run"
    arguments = [
        *SMALL,
        "--network.hidden-sizes",
        "64",
        "64",
        "--total-steps",
        "640",
        "--quiet",
        "--logging.no-tensorboard",
    ]
    command = [sys.executable, "-m", "jaxrl_engine.run", *arguments, "--run-dir", str(run_dir)]
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    limited = ["bash", "-c", 'ulimit -f 24 && exec "$@"', "bash", *command]  # files of at most 24 KiB
    done = subprocess.run(limited, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 1, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "checkpoint" in errors[0]
    assert "Traceback" not in done.stderr
    assert yaml.safe_load((run_dir / "config.yaml").read_text())["total_steps"] == 640
    assert json.loads((run_dir / "status.json").read_text())["state"] == "failed"
    assert rows(run_dir)[-1]["env_steps"] == 640


def test_print_config_is_what_a_file_can_hold(tmp_path):
    done = run("--print-config", "--num-envs", 64)
    assert done.returncode == 0
    path = tmp_path / "config.yaml"
    path.write_text(done.stdout)
    expected = config_to_dict(Config()) | {"num_envs": 64}
    assert config_to_dict(load_config(path)) == expected
