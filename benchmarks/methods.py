"""Several methods on one task in one harness: trained seed by seed, reported with every seed.

Every seed is a run of its own, and the report holds the seeds that are finished. What the results file holds of a seed
with the same settings is not trained again, on whatever machine it was measured.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.learning import RESULTS, Job, measure, result
from benchmarks.machine import ROOT
from benchmarks.report import table, write_json
from benchmarks.studies import Study
from jaxrl_engine.core.config import Config
from jaxrl_engine.runtime.config import differences
from jaxrl_engine.runtime.settings import read_tree, with_values


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is trained and how it is shown. The first method's first reference is drawn as a line."""

    name: str  # of the module and of the results' files
    title: str
    measure: str  # what the metric of all studies says
    methods: Mapping[str, Study]
    episodes: int
    bounds: tuple[float, float] = (-np.inf, np.inf)  # between which the metric lies
    same: Mapping[str, str] = dataclasses.field(default_factory=dict)  # methods that are another one by themselves

    @property
    def trained(self) -> list[str]:
        return [name for name in self.methods if name not in self.same]


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


def per_seed(comparison: Comparison, measured: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the end of every method as a Markdown table: mean, interval, each seed, what was published."""
    rows = []
    for name, study in comparison.methods.items():
        source = comparison.same.get(name, name)
        if source not in measured:
            continue
        method = measured[source]
        low, high = np.clip(method["final_interval_95"], *comparison.bounds)
        rows.append([
            study.title if source == name else f"{study.title} (= {comparison.methods[source].title})",
            f"{method['final_return']:.3f}", f"{low:.2f} to {high:.2f}",
            " ".join(f"{value:.2f}" for value in sorted(method["final_return_per_seed"], reverse=True)),
            "" if not study.references else f"{study.references[0].value:.3g}",
            f"{method['env_steps'][-1]:,}", f"{method['run']['steps_per_second']:,.0f}",
        ])  # fmt: skip
    header = ("method", comparison.measure, "95 %", "each seed", "published", "steps per seed", "steps/s, median")
    return table(header, rows)


def draw(comparison: Comparison, measured: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Plot every method's mean over seeds, and its seeds faintly."""
    figure = Figure(figsize=(8.0, 4.6), layout="constrained")
    axes = figure.subplots()
    for index, (name, method) in enumerate(measured.items()):
        steps, curves = method["env_steps"], np.asarray(method["return_per_seed"])
        axes.plot(steps, curves, color=f"C{index}", alpha=0.2, linewidth=0.7)
        label = f"{comparison.methods[name].title}, seeds: {curves.shape[1]}"
        axes.plot(steps, curves.mean(axis=1), color=f"C{index}", linewidth=2.0, label=label)
    reference = next(iter(comparison.methods.values())).references[0]
    axes.axhline(reference.value, color="black", linestyle=":", linewidth=1.0, label=reference.label)
    if np.isfinite(comparison.bounds).all():
        axes.set_ylim(*np.add(comparison.bounds, (-0.03, 0.03)))
    axes.set(
        title=comparison.title, xlabel="environment steps per seed",
        ylabel=f"{comparison.measure} of {comparison.episodes} greedy episodes",
    )  # fmt: skip
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=130)


def parse(comparison: Comparison, arguments: Sequence[str], description: str) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{comparison.name}", description=description)
    methods = comparison.trained
    parser.add_argument("--method", nargs="+", choices=methods, default=methods, help="which methods")
    parser.add_argument("--seeds", type=int, help="number of seeds (default: the studies')")
    parser.add_argument("--report-only", action="store_true", help="train nothing")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / comparison.name, help="where run directories lie")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where JSON and PNG go")
    parser.add_argument("--total-steps", type=int, help="for a trial: fewer steps than the configurations say")
    return parser.parse_args(arguments)


def run(comparison: Comparison, description: str, arguments: Sequence[str] | None = None) -> None:
    """Train what is unfinished, publish what is finished, and print the table."""
    options = parse(comparison, sys.argv[1:] if arguments is None else arguments, description)
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / f"{comparison.name}.json"
    known: dict[str, Any] = json.loads(path.read_text())["methods"] if path.exists() else {}
    for name in options.method:
        place = (options.runs / name).resolve()
        job = Job(comparison.methods[name], place, options.total_steps, options.seeds, comparison.episodes)
        runs = collect(job, known.get(name, {}).get("runs", ()), train=not options.report_only)
        if runs:
            known[name] = result(job.study, runs)
            methods = {name: known[name] for name in comparison.methods if name in known}
            written = {"same": dict(comparison.same), "methods": methods}
            write_json(path, written)
    methods = {name: known[name] for name in comparison.methods if name in known}
    if methods:
        draw(comparison, methods, path.with_suffix(".png"))
    print(per_seed(comparison, methods))
