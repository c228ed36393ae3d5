"""Runs of the map-elites mode as a user starts them: what they leave, resumed to the bit, refused in one line."""

import csv
import json
import shutil
import signal

import mujoco
import numpy as np
import pytest
from engine_cli import assert_one_line_error, fingerprint, rows, run, start, stop, summary, wait_for_steps

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

GENERATION = 2 * 8 * 5
SHAPE = [
    *("--mode", "map-elites", "--env-params", "episode_length=5", "--num-envs", 8, "--num-steps", 5),
    *("--qd.updates-per-generation", 2, "--qd.num-targets", 3, "--num-offspring", 5, "--num-initial", 6),
    *("--qd.bins", 3, "--qd.max-links", 3, "--qd.warm-up", 0.2, "--ppo.num-epochs", 1, "--ppo.num-minibatches", 2),
    *("--ppo.no-anneal-learning-rate", "--network.hidden-sizes", 8, "--logging.every-updates", 1),
    *("--evaluation.episodes", 7, "--evaluation.count", 2, "--quiet"),
]
FILES = {
    "repertoire.csv", "repertoire.npz", "heatmap.png", "evolution.gif", "curves.png", "gallery.png",
    "success_by_links.png", "report.html", "elites.gif",
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run of ten generations, and one that was stopped by a signal and resumed."""
    place = tmp_path_factory.mktemp("evolution")
    done = run(*SHAPE, "--total-steps", 10 * GENERATION, "--run-dir", place / "straight", timeout=800)
    assert done.returncode == 0, done.stderr
    return place


def test_a_run_leaves_its_repertoire_pictures_and_report(place):
    left = {path.name for path in (place / "straight" / "repertoire").iterdir()}
    assert left >= FILES
    told = summary(place / "straight")
    assert told["mode"] == "map-elites" and told["env_steps"] == 10 * GENERATION
    evaluation = told["eval"]
    assert 0 < evaluation["coverage"] <= 1 and 0 <= evaluation["success_rate"] <= 1 and evaluation["elites"] >= 1
    with (place / "straight" / "repertoire" / "repertoire.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == evaluation["elites"]
    assert abs(sum(float(row["success"]) for row in table) - evaluation["qd_score"]) < 1e-4
    assert {int(row["links"]) for row in table} <= {2, 3}


def test_a_run_stopped_by_a_signal_and_resumed_ends_as_the_undisturbed_one(place):
    process = start(*SHAPE, "--total-steps", 2000 * GENERATION, "--run-dir", place / "stopped")
    wait_for_steps(place / "stopped", 3 * GENERATION, process, seconds=400)
    code, _, stderr = stop(process, signal.SIGINT)
    assert code == 130, stderr
    assert (place / "stopped" / "repertoire" / "report.html").exists()
    seen = summary(place / "stopped")["env_steps"]
    assert 3 * GENERATION <= seen < 2000 * GENERATION
    more = seen + 3 * GENERATION
    shutil.copytree(place / "stopped", place / "again")
    for name in ("stopped", "again"):
        done = run("--resume", place / name, "--total-steps", more, "--quiet", timeout=400)
        assert done.returncode == 0, done.stderr
    assert fingerprint(place / "stopped") == fingerprint(place / "again")


def test_half_a_run_resumed_is_the_whole_run_to_the_bit(place):
    """The length of a run decides how long it warms up, so both halves are told the whole."""
    process = start(
        *SHAPE, "--total-steps", 10 * GENERATION, "--run-dir", place / "killed", "--checkpoint.every-seconds", 0
    )
    wait_for_steps(place / "killed", 4 * GENERATION, process, seconds=400)
    process.kill()
    process.communicate()
    done = run("--resume", place / "killed", "--quiet", timeout=400)
    assert done.returncode == 0, done.stderr
    assert fingerprint(place / "killed") == fingerprint(place / "straight")
    assert summary(place / "killed")["eval"] == summary(place / "straight")["eval"]
    assert rows(place / "killed")[-1] == rows(place / "straight")[-1]


def test_an_elite_is_played_and_measures_what_the_table_says(place):
    with (place / "straight" / "repertoire" / "repertoire.csv").open() as file:
        table = list(csv.DictReader(file))
    best = max(table, key=lambda row: float(row["objective"]))
    mjcf = place / "elite.xml"
    done = run(
        place / "straight", "--elite", best["index"], "--episodes", 500, "--gif", place / "elite.gif",
        "--export-mjcf", mjcf, module="play", timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"elite {best['index']}: {best['links']} links" in done.stdout
    success = float(next(line for line in done.stdout.splitlines() if line.startswith("policy")).split()[-1])
    assert 0 <= success <= 1 and (place / "elite.gif").stat().st_size > 0
    model = mujoco.MjModel.from_xml_path(str(mjcf))
    assert model.njnt == int(best["links"])
    lengths = [float(best[name]) for name in best if name.startswith("solution_")]
    measured = [2 * model.geom_size[i][1] for i in range(model.ngeom)]
    assert set(np.round(measured, 4)) <= set(np.round(lengths, 4))


def test_the_status_says_what_the_model_is_and_where(place):
    done = run(place / "straight", "--json", module="status")
    told = json.loads(done.stdout)
    assert told["state"] == "finished" and told["updates"] == 10
    assert "ppo with network.torso body-mlp" in told["model"] and "parameters" in told["model"]
    assert told["checkpoints"].endswith("checkpoints")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--mode map-elites --algo mappo", ["algo must be ppo"]),
        ("--mode map-elites --network.torso mlp", ["network.torso must be body-mlp"]),
        ("--mode map-elites --env color_lines", ["color_lines has no bodies to evolve"]),
        ("--mode map-elites --env-params num_links=3", ["env_params.num_links must not be set"]),
        ("--mode map-elites --qd.max-links 9", ["qd.max_links", "from 2 to 8"]),
        ("--mode map-elites --qd.min-links 1", ["qd.min_links", "from 2 to 8"]),
        ("--mode map-elites --qd.min-length 0", ["qd.min_length", "above 0"]),
        ("--mode map-elites --num-initial 10000", ["qd.num_initial must be at most"]),
        ("--mode map-elites --devices 2", ["devices"]),
        ("--mode map-elites --num-envs 50000000", ["num_envs", "GiB", "times as many fit"]),
        ("--mode map-elites --num-envs 500000000", ["num_envs must be", "below 2^31"]),
        ("--mode map-elites --env reacher-zigzag --qd.descriptors links energy", ["energy", "does not measure"]),
        ("--mode map-elites --ppo.normalize-observations", ["ppo.normalize_observations must be false"]),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, words):
    assert_one_line_error(run(*arguments.split(), timeout=300), *words)


@pytest.mark.parametrize(
    ("which", "words"),
    [("99", ["elite", "from 0 to 5", "99"]), ("first", ["elite must be best or the number"])],
)
def test_an_elite_that_is_not_there_is_refused_in_one_line(place, which, words):
    assert_one_line_error(run(place / "straight", "--elite", which, module="play", timeout=300), *words)
