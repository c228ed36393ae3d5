"""The report of a benchmark of methods, on runs written by hand; the ablations as settings."""

import json
import shlex

import pytest

from benchmarks import hmasd_alice_and_bob as bench
from benchmarks.learning import Job
from benchmarks.machine import ROOT
from jaxrl_engine.runtime.config import differences, load_config, parse, to_yaml

STEPS = [150, 300]


def finish(runs, name, seeds):
    """Finished runs of two evaluations, the last with the given success of each seed; None: not begun."""
    whole = Job(bench.METHODS[name], (runs / name).resolve(), 300, len(seeds), bench.EPISODES)
    for rate, (job, success) in zip([1e3, 3e3, 2e3], zip(whole.runs(), seeds, strict=True), strict=True):
        if success is None:
            continue
        job.run_dir.mkdir(parents=True)
        rows = [
            {"env_steps": step, "Eval/success_rate": value} for step, value in zip(STEPS, [0, success], strict=True)
        ]
        (job.run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        summary = {"status": "finished", "random_policy": {"success_rate": 0}, "steps_per_second": rate, "versions": {}}
        summary |= dict.fromkeys(["compile_seconds", "wall_seconds", "peak_memory_bytes", "platform"], 7)
        job.origin.write_text(json.dumps({"command": shlex.join(job.command), "commit": "abc"}))
        (job.run_dir / "summary.json").write_text(json.dumps(summary))
        (job.run_dir / "config.yaml").write_text(to_yaml(job.config))


def report(tmp_path, capsys, *arguments):
    places = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results"), "--total-steps", "300"]
    bench.main([*arguments, "--seeds", "3", "--report-only", *places])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    return {row[0]: row[1:] for row in rows[2:]}


def test_the_report_names_every_seed(tmp_path, capsys):
    finish(tmp_path / "runs", "hmasd", [0.5, 1.0, 0.75])
    finish(tmp_path / "runs", "mappo", [0.0, 0.0, 0.0])
    rows = report(tmp_path, capsys)
    # mean 0.75, sd 0.25, t(0.975; 2) = 4.302653: 0.75 ± 0.62, cut at what a rate can be
    assert rows["HMASD"] == ["0.750", "0.13 to 1.00", "1.00 0.75 0.50", "0.738", "300", "2,000"]
    assert rows["NoExRew (= HMASD)"][0] == "0.750"
    assert rows["MAPPO"][:4] == ["0.000", "0.00 to 0.00", "0.00 0.00 0.00", "0"]
    assert "MAT" not in rows
    written = json.loads((tmp_path / "results" / "hmasd_alice_and_bob.json").read_text())
    assert list(written["methods"]) == ["hmasd", "mappo"]
    assert "--num-seeds 1 --seed 1000" in written["methods"]["hmasd"]["command"]
    assert (tmp_path / "results" / "hmasd_alice_and_bob.png").read_bytes().startswith(b"\x89PNG")


def test_seeds_that_are_not_finished_are_left_out(tmp_path, capsys):
    finish(tmp_path / "runs", "hmasd", [None, 0.25, 0.75])
    assert report(tmp_path, capsys)["HMASD"][2] == "0.75 0.25"


def test_every_seed_is_a_run_of_its_own(tmp_path):
    jobs = Job(bench.METHODS["mat"], tmp_path / "mat", None, 3, bench.EPISODES).runs()
    assert [(job.config.seed, job.config.num_seeds) for job in jobs] == [(1000, 1), (1001, 1), (1002, 1)]
    assert len({job.run_dir for job in jobs}) == 3


def test_results_outlive_their_runs_seed_by_seed(tmp_path, capsys):
    finish(tmp_path / "runs", "mat", [0.5, 0.75, None])
    report(tmp_path, capsys)
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    finish(tmp_path / "runs", "mat", [None, None, 0.25])
    finish(tmp_path / "runs", "hmasd", [0.25, 0.25, 0.25])
    rows = report(tmp_path, capsys, "--method", "hmasd", "mat")
    assert (rows["MAT"][2], rows["HMASD"][2]) == ("0.75 0.50 0.25", "0.25 0.25 0.25")


def test_a_seed_of_other_settings_is_not_taken_for_one_of_these(tmp_path, capsys):
    finish(tmp_path / "runs", "mat", [0.5, None, None])
    report(tmp_path, capsys)
    place = tmp_path / "results" / "hmasd_alice_and_bob.json"
    place.write_text(place.read_text().replace('"gamma": 0.99', '"gamma": 0.5'))
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    finish(tmp_path / "runs", "mat", [None, 0.25, None])
    assert report(tmp_path, capsys)["MAT"][2] == "0.25"


def test_a_known_seed_is_not_trained_again(tmp_path, capsys, monkeypatch):
    finish(tmp_path / "runs", "mappo", [0.0, 0.0, 0.0])
    report(tmp_path, capsys)
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    monkeypatch.setattr(Job, "finish", lambda self: pytest.fail("trained"))
    places = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results"), "--total-steps", "300"]
    bench.main(["--method", "mappo", "--seeds", "3", *places])
    assert "MAPPO" in capsys.readouterr().out


ABLATED = {
    "no_team": {"hmasd.team_skills: 2 -> 1", "hmasd.team_discriminator: 0.1 -> 0.0"},
    "no_indi": {"hmasd.individual_skills: 4 -> 1", "hmasd.individual_discriminator: 0.2 -> 0.0"},
    "no_high": {"hmasd.high: 'learned' -> 'uniform'"},
    "no_exrew": set(),
    "no_inrew": {"hmasd.team_discriminator: 0.1 -> 0.0", "hmasd.individual_discriminator: 0.2 -> 0.0"},
}


@pytest.mark.parametrize("name", ABLATED)
def test_an_ablation_takes_away_what_it_says_and_nothing_else(name, tmp_path):
    whole, part = (Job(bench.METHODS[each], tmp_path / each).config for each in ("hmasd", name))
    assert set(differences(whole, part)) == ABLATED[name]
    assert (bench.SAME.get(name) == "hmasd") == (ABLATED[name] == set())


@pytest.mark.parametrize("name", bench.METHODS)
def test_the_command_resolves_to_the_configuration(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    job = Job(bench.METHODS[name], tmp_path / name, None, 7, bench.EPISODES).runs()[-1]
    assert parse(job.command[3:]).config == job.config
    assert job.config.total_steps == 3_000_000


PUBLISHED = {
    "num_envs": 32, "num_steps": 100, "ppo.learning_rate": 5e-4, "ppo.num_epochs": 15, "ppo.num_minibatches": 1,
    "ppo.clip_epsilon": 0.2, "ppo.value_coefficient": 1.0, "ppo.huber_delta": 10.0, "ppo.gamma": 0.99,
    "ppo.gae_lambda": 0.95, "ppo.normalize_values": True, "ppo.max_grad_norm": 10.0,
}  # fmt: skip


@pytest.mark.parametrize("name", ["hmasd", "mat", "mappo"])
def test_parity_configurations_hold_the_published_values(name):
    config = load_config(ROOT / "configs" / bench.METHODS[name].config)
    for dotted, value in PUBLISHED.items():
        group, _, leaf = dotted.rpartition(".")
        assert getattr(getattr(config, group) if group else config, leaf) == value, dotted
