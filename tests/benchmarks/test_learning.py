"""The reduction of a run directory to a published curve, on a run written by hand."""

import dataclasses
import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from benchmarks import learning
from benchmarks.studies import STUDIES
from jaxrl_engine.runtime.config import load_config, to_yaml

STEPS = [1024, 2048, 3072]
RETURNS = [[10.0, 20.0, 60.0], [30.0, 40.0, 80.0], [480.0, 490.0, 530.0]]  # 3 evaluations, 3 seeds


@pytest.fixture
def job(tmp_path: Path) -> learning.Job:
    """A finished run of three seeds: metric rows with and without an evaluation, and a summary."""
    (tmp_path / "study.yaml").write_text("env: gymnax:CartPole-v1\n")
    study = dataclasses.replace(STUDIES["cartpole"], config=str(tmp_path / "study.yaml"))
    made = learning.Job(study, tmp_path / "run", total_steps=3072, seeds=3, episodes=5)
    made.run_dir.mkdir()
    rows = [{"env_steps": 512, "Charts/EpisodeReturn": 3.0}]
    rows += [{"env_steps": step, "Eval/return": float(np.mean(each)), "Eval/return_per_seed": each}
             for step, each in zip(STEPS, RETURNS, strict=True)]  # fmt: skip
    (made.run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = {"status": "finished", "random_policy": {"return": 21.0}, "steps_per_second": 1e5, "versions": {}}
    summary |= dict.fromkeys(["compile_seconds", "wall_seconds", "peak_memory_bytes", "platform"], 7)
    made.origin.write_text(json.dumps({"command": shlex.join(made.command), "commit": "abc"}))
    (made.run_dir / "summary.json").write_text(json.dumps(summary))
    (made.run_dir / "config.yaml").write_text(to_yaml(made.config))
    return made


def test_curve_holds_the_evaluations_only(job):
    steps, returns = learning.read_curve(job.run_dir)
    assert steps == STEPS
    np.testing.assert_array_equal(returns, RETURNS)


def test_interval_is_students():
    # 1, 2, 3, 4, 5: mean 3, sd sqrt(5/2), t(0.975; 4) = 2.776445 from a printed table.
    low, high = learning.interval(np.array([[1.0, 2.0, 3.0, 4.0, 5.0]]))
    half = 2.776445 * np.sqrt(2.5 / 5.0)
    np.testing.assert_allclose([low[0], high[0]], [3 - half, 3 + half], rtol=1e-6)
    np.testing.assert_array_equal(learning.interval(np.array([[7.0]])), [[7.0], [7.0]])


def test_result_of_a_run_written_by_hand(job, tmp_path):
    measured = learning.publish([job], tmp_path / "results")
    assert measured["final_return"] == 500.0
    assert measured["final_return_per_seed"] == [480.0, 490.0, 530.0]
    assert measured["threshold_met"] is True
    assert measured["seeds_at_threshold"] == 2
    assert measured["return_mean"] == [30.0, 50.0, 500.0]
    assert measured["random_policy"] == 21.0
    assert measured["commit"] == "abc"
    assert "--num-seeds 3" in measured["command"] and "study.yaml" in measured["command"]
    written = json.loads((tmp_path / "results" / "learning_cartpole.json").read_text())
    assert written == json.loads(json.dumps(measured))
    assert (tmp_path / "results" / "learning_cartpole.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_with_other_settings_is_refused(job):
    assert job.finished()
    other = learning.Job(job.study, job.run_dir, total_steps=4096, seeds=3, episodes=5)
    with pytest.raises(SystemExit, match="total_steps: 3072 -> 4096"):
        other.finished()


def test_an_interrupted_run_is_not_finished(job):
    summary = {"status": "interrupted"}
    (job.run_dir / "summary.json").write_text(json.dumps(summary))
    assert not job.finished()
    (job.run_dir / "summary.json").unlink()
    assert not job.finished()


@pytest.mark.parametrize("study", STUDIES.values(), ids=list(STUDIES))
def test_studies_have_a_configuration_and_references(study):
    config = load_config(learning.ROOT / "configs" / study.config)
    modes = {"color_lines_async": "async", "map_elites": "map-elites"}
    assert config.mode == modes.get(study.name, "sync")
    dear = study.seeds == 1  # hundreds of steps per second, or the whole mode's default run: the title says so
    assert dear == ("one seed" in study.title) and (dear or study.seeds >= 5)
    assert study.references or study.metric != "return"  # a return of our own world has nothing to stand beside
