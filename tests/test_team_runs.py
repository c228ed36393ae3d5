"""Runs of the multi-agent algorithms as a user starts them: resumed to the bit, evaluated, refused in one line."""

import shutil

import pytest
from engine_cli import assert_one_line_error, fingerprint, rows, run, summary

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SHAPE = [
    *("--env", "alice_and_bob", "--num-envs", 4, "--num-steps", 8, "--ppo.num-epochs", 1, "--ppo.num-minibatches", 2),
    *("--ppo.no-anneal-learning-rate", "--ppo.normalize-values", "--logging.every-updates", 1, "--quiet"),
    *("--evaluation.episodes", 3, "--evaluation.count", 0),
]
UPDATE = 4 * 8
ALGORITHMS = {
    "mappo": ["--algo", "mappo", "--network.recurrent", "gru", "--network.recurrent-size", 7],
    "mat": ["--algo", "mat", "--mat.width", 8],
    "hmasd": ["--algo", "hmasd", "--hmasd.width", 8, "--hmasd.chunk-length", 4, "--hmasd.skill-length", 4],
}


@pytest.fixture(scope="module", params=ALGORITHMS)
def runs(request, tmp_path_factory):
    """One run of six updates and two seeds, and the same stopped after two and resumed."""
    place = tmp_path_factory.mktemp(request.param)
    settings = [*ALGORITHMS[request.param], *SHAPE, "--num-seeds", 2]
    for name, updates in (("straight", 6), ("split", 2)):
        done = run(*settings, "--total-steps", updates * UPDATE, "--run-dir", place / name, timeout=400)
        assert done.returncode == 0, done.stderr
    shutil.copytree(place / "split", place / "half")
    done = run("--resume", place / "split", "--total-steps", 6 * UPDATE, "--quiet")
    assert done.returncode == 0, done.stderr
    return request.param, place


def test_a_resumed_run_ends_as_the_one_nobody_disturbed_to_the_bit(runs):
    _, place = runs
    assert fingerprint(place / "half") != fingerprint(place / "straight")
    assert fingerprint(place / "split") == fingerprint(place / "straight")
    assert summary(place / "split")["eval"] == summary(place / "straight")["eval"]
    learned = [{name: row[name] for name in row if not name.startswith("Eval")} for row in rows(place / "split")]
    expected = [{name: row[name] for name in row if not name.startswith("Eval")} for row in rows(place / "straight")]
    assert [row for row in learned if len(row) > 2] == [row for row in expected if len(row) > 2]


def test_the_summary_speaks_of_every_seed(runs):
    algo, place = runs
    told = summary(place / "straight")
    assert told["algo"] == algo and told["env_steps"] == 6 * UPDATE
    assert len(told["eval"]["success_rate_per_seed"]) == 2
    assert [one["seed"] for one in told["runs"]] == [0, 1]


def test_evaluation_alone_reads_the_run_and_leaves_it(runs):
    _, place = runs
    before = fingerprint(place / "straight"), (place / "straight" / "metrics.jsonl").read_bytes()
    done = run("--eval-only", "--resume", place / "straight")
    assert done.returncode == 0, done.stderr
    assert "success_rate" in done.stdout
    assert (fingerprint(place / "straight"), (place / "straight" / "metrics.jsonl").read_bytes()) == before


def test_another_algorithm_or_world_is_refused_in_one_line_and_nothing_is_lost(runs):
    algo, place = runs
    other = "ppo" if algo != "mappo" else "hmasd"
    before = fingerprint(place / "half")
    assert_one_line_error(run("--resume", place / "half", "--algo", other), f"algo: '{algo}' -> '{other}'")
    assert_one_line_error(run("--resume", place / "half", "--env", "probe:together"), "env: 'alice_and_bob' ->")
    assert fingerprint(place / "half") == before


def test_a_checkpoint_of_another_algorithm_is_refused_in_one_line(runs, tmp_path):
    """The configuration says one algorithm, the checkpoint is another's."""
    algo, place = runs
    foreign = tmp_path / "foreign"
    shutil.copytree(place / "half", foreign)
    text = (foreign / "config.yaml").read_text()
    assert f"algo: {algo}\n" in text
    (foreign / "config.yaml").write_text(text.replace(f"algo: {algo}\n", "algo: ppo\n"))
    for arguments in (["--resume", foreign], ["--eval-only", "--resume", foreign]):
        assert_one_line_error(run(*arguments), "does not fit this run")
    (foreign / "config.yaml").write_text(text)
    assert run("--eval-only", "--resume", foreign).returncode == 0
