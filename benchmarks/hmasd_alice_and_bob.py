"""HMASD, its ablations, MAT and MAPPO on Alice & Bob in one harness: success of greedy episodes, seed by seed.

    python -m benchmarks.hmasd_alice_and_bob                      every method that is not finished yet, then the report
    python -m benchmarks.hmasd_alice_and_bob --method hmasd mat   some of them; interrupted, the same command goes on
    python -m benchmarks.hmasd_alice_and_bob --report-only        only draw and tabulate what has been trained

Every seed is a run of its own, and the report holds the seeds that are finished. What the results file holds of a seed
with the same settings is not trained again, on whatever machine it was measured.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.learning import RESULTS, Job, measure, result
from benchmarks.machine import ROOT
from benchmarks.report import table
from benchmarks.studies import Reference, Study
from jaxrl_engine.core.config import Config
from jaxrl_engine.runtime.config import differences
from jaxrl_engine.runtime.settings import read_tree, with_values

EPISODES = 100
NAME = "hmasd_alice_and_bob"


def _study(name: str, title: str, config: str, published: float | None, *options: str) -> Study:
    references = () if published is None else (Reference("Yang et al. 2023, mean of 5 seeds", published, 3_000_000),)
    return Study(name, title, config, 5, published or 0.0, references, "success_rate", options, separate=True)


_PARITY = "hmasd_alice_and_bob.yaml"
METHODS = {
    study.name: study
    for study in (
        _study("hmasd", "HMASD", _PARITY, 0.738),
        _study("mat", "MAT", "mat_alice_and_bob.yaml", 0.4),
        _study("mappo", "MAPPO", "mappo_alice_and_bob.yaml", 0.0),
        _study("hmasd_32x32", "HMASD, 32 × 32, k = 16", "hmasd_alice_and_bob_32x32.yaml", None),
        _study("no_team", "NoTeam", _PARITY, None, "--hmasd.team-skills", "1", "--hmasd.team-discriminator", "0"),
        _study(
            "no_indi", "NoIndi", _PARITY, None,
            "--hmasd.individual-skills", "1", "--hmasd.individual-discriminator", "0",
        ),
        _study("no_high", "NoHigh", _PARITY, None, "--hmasd.high", "uniform"),
        _study("no_exrew", "NoExRew", _PARITY, None, "--hmasd.extrinsic", "0"),
        _study(
            "no_inrew", "NoInRew", _PARITY, None,
            "--hmasd.team-discriminator", "0", "--hmasd.individual-discriminator", "0",
        ),
    )
}  # fmt: skip
SAME = {"no_exrew": "hmasd"}
"""On this task the published discoverer earns nothing from the world anyway (λ_e = 0), so NoExRew is HMASD itself."""


def collect(job: Job, known: Sequence[dict[str, Any]], *, train: bool) -> list[dict[str, Any]]:
    """Return what there is of each seed of a method: known already, in a finished run, or trained now."""
    runs = []
    for each in job.runs():
        kept = [run for run in known if not differences(_settings(run), each.config)]
        if train and not kept:
            each.finish()
        if each.finished():
            kept = [measure(each)]
        runs += kept
    return runs


def _settings(run: Mapping[str, Any]) -> Config:
    """The configuration of a run in the results file; a setting that did not exist then had its default."""
    return with_values(Config(), read_tree(run["config"], Config))


def per_seed(methods: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the final success of every method as a Markdown table: mean, interval, each seed, what was published."""
    rows = []
    for name, study in METHODS.items():
        source = SAME.get(name, name)
        if source not in methods:
            continue
        measured = methods[source]
        low, high = measured["final_interval_95"]
        rows.append([
            study.title if source == name else f"{study.title} (= {METHODS[source].title})",
            f"{measured['final_return']:.3f}", f"{max(low, 0.0):.2f} to {min(high, 1.0):.2f}",
            " ".join(f"{value:.2f}" for value in sorted(measured["final_return_per_seed"], reverse=True)),
            "" if not study.references else f"{study.references[0].value:.3g}",
            f"{measured['env_steps'][-1]:,}", f"{measured['run']['steps_per_second']:,.0f}",
        ])  # fmt: skip
    header = ("method", "success", "95 %", "each seed", "published", "steps per seed", "steps/s, median")
    return table(header, rows)


def draw(methods: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Plot every method's mean over seeds, and its seeds faintly."""
    figure = Figure(figsize=(8.0, 4.6), layout="constrained")
    axes = figure.subplots()
    for index, (name, measured) in enumerate(methods.items()):
        steps, curves = measured["env_steps"], np.asarray(measured["return_per_seed"])
        axes.plot(steps, curves, color=f"C{index}", alpha=0.2, linewidth=0.7)
        label = f"{METHODS[name].title}, {curves.shape[1]} seeds"
        axes.plot(steps, curves.mean(axis=1), color=f"C{index}", linewidth=2.0, label=label)
    reference = METHODS["hmasd"].references[0]
    axes.axhline(reference.value, color="black", linestyle=":", linewidth=1.0, label="HMASD as published")
    axes.set(
        title="Alice & Bob", ylim=(-0.03, 1.03), xlabel="environment steps per seed",
        ylabel=f"success of {EPISODES} greedy episodes",
    )  # fmt: skip
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=130)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{NAME}", description=__doc__.split("\n")[0])
    trained = [name for name in METHODS if name not in SAME]
    parser.add_argument("--method", nargs="+", choices=trained, default=trained, help="which methods")
    parser.add_argument("--seeds", type=int, help="number of seeds (default: 5)")
    parser.add_argument("--report-only", action="store_true", help="train nothing")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / NAME, help="where run directories lie")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where JSON and PNG go")
    parser.add_argument("--total-steps", type=int, help="for a trial: fewer steps than the configurations say")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is unfinished, publish what is finished, and print the table."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / f"{NAME}.json"
    known: dict[str, Any] = json.loads(path.read_text())["methods"] if path.exists() else {}
    for name in options.method:
        job = Job(METHODS[name], (options.runs / name).resolve(), options.total_steps, options.seeds, EPISODES)
        runs = collect(job, known.get(name, {}).get("runs", ()), train=not options.report_only)
        if runs:
            known[name] = result(job.study, runs)
            methods = {name: known[name] for name in METHODS if name in known}
            path.write_text(json.dumps({"same": SAME, "methods": methods}, indent=1, allow_nan=False) + "\n")
    methods = {name: known[name] for name in METHODS if name in known}
    if methods:
        draw(methods, path.with_suffix(".png"))
    print(per_seed(methods))


if __name__ == "__main__":
    main()
