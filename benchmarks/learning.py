"""Learning curves over several seeds, with what others reached beside them.

    python -m benchmarks.learning                         every study that is not finished yet, then the table
    python -m benchmarks.learning --task cartpole         one of them; interrupted, the same command goes on
    python -m benchmarks.learning --report-only           only draw and tabulate what has been trained

Each study runs the engine's own command line on a file of configs/ and reads the run directory it leaves.
"""

import argparse
import dataclasses
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from benchmarks.machine import ROOT, provenance
from benchmarks.report import learning_table, write_json
from benchmarks.studies import STUDIES, Study
from jaxrl_engine.core.config import Config, EvaluationConfig
from jaxrl_engine.runtime.command_line import read_arguments
from jaxrl_engine.runtime.config import CONFIG_FILE, config_to_dict, differences, load_config
from jaxrl_engine.runtime.settings import with_values

CURVE_POINTS = 20
FIRST_SEED = 1000
"""The seeds are FIRST_SEED, FIRST_SEED + 1, …: none of those the configurations were chosen on (0 and 1)."""
RESULTS = ROOT / "benchmarks" / "results"


@dataclasses.dataclass(frozen=True)
class Job:
    """A study, where its run lies, and what the user changed for a trial."""

    study: Study
    run_dir: Path
    total_steps: int | None = None
    seeds: int | None = None
    episodes: int = 128
    first_seed: int = FIRST_SEED

    def runs(self) -> list["Job"]:
        """Return the runs of the engine that the study is made of: all seeds in one program, or each in its own."""
        if not self.study.separate:
            return [self]
        seeds = range(self.first_seed, self.first_seed + (self.seeds or self.study.seeds))
        return [
            dataclasses.replace(self, run_dir=self.run_dir / f"seed_{seed}", seeds=1, first_seed=seed) for seed in seeds
        ]

    @property
    def options(self) -> list[str]:
        """Options of the engine's command line."""
        steps = [] if self.total_steps is None else ["--total-steps", str(self.total_steps)]
        evaluation = ["--evaluation.count", str(CURVE_POINTS), "--evaluation.episodes", str(self.episodes)]
        source = ["--config", str(Path("configs") / self.study.config), "--num-seeds", str(self.config.num_seeds)]
        return [*source, *self.study.options, "--seed", str(self.first_seed), *steps, *evaluation]

    @property
    def config(self) -> Config:
        """What those options resolve to."""
        base = load_config(ROOT / "configs" / self.study.config)
        config = with_values(base, read_arguments(self.study.options, Config, {}))
        return dataclasses.replace(
            config,
            seed=self.first_seed,
            num_seeds=1 if self.study.separate else self.seeds or self.study.seeds,
            total_steps=self.total_steps or config.total_steps,
            evaluation=dataclasses.replace(config.evaluation, count=CURVE_POINTS, episodes=self.episodes),
        )

    @property
    def command(self) -> list[str]:
        """The command that makes such a run, wherever it lies."""
        return ["python", "-m", "jaxrl_engine.run", "--mode", self.config.mode, *self.options]

    @property
    def origin(self) -> Path:
        """Where it is noted when, on what machine and from which commit the run began."""
        return self.run_dir.with_suffix(".origin.json")

    def finished(self) -> bool:
        """Say whether the run has reached its end.

        Raises:
            SystemExit: the directory holds a run with other settings than asked for now.
        """
        if not (self.run_dir / CONFIG_FILE).exists():
            return False
        changed = differences(load_config(self.run_dir / CONFIG_FILE), self.config)
        if changed:
            raise SystemExit(f"{self.run_dir} holds a run with other settings ({'; '.join(changed)}): move it away")
        summary = self.run_dir / "summary.json"
        return summary.exists() and json.loads(summary.read_text())["status"] == "finished"

    def finish(self) -> None:
        """Begin the run, or go on with it, unless it has ended.

        Raises:
            SystemExit: the run did not finish; the engine has said why.
        """
        if self.finished():
            return
        command = [sys.executable, "-m", "jaxrl_engine.run", "--resume", str(self.run_dir)]
        if not (self.run_dir / CONFIG_FILE).exists():
            command = [sys.executable, *self.command[1:], "--run-dir", str(self.run_dir)]
            self.run_dir.parent.mkdir(parents=True, exist_ok=True)
            self.origin.write_text(json.dumps({**provenance(), "command": shlex.join(self.command)}) + "\n")
        returncode = subprocess.run(command, cwd=ROOT).returncode
        if returncode:
            raise SystemExit(returncode)


def read_curve(run_dir: Path, metric: str = "return") -> tuple[list[int], np.ndarray]:
    """Return the environment steps of the evaluations and what they measured, `[points, seeds]`."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    name = f"Eval/{metric}"
    evaluations = [row for row in rows if name in row]
    returns = [row.get(f"{name}_per_seed", [row[name]]) for row in evaluations]
    return [row["env_steps"] for row in evaluations], np.asarray(returns, np.float64)


def interval(returns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95 % interval (Student's t) of the mean over seeds, `[points]`; for one seed the mean itself."""
    mean, count = returns.mean(axis=-1), returns.shape[-1]
    if count == 1:
        return mean, mean
    half = stats.t.ppf(0.975, count - 1) * returns.std(axis=-1, ddof=1) / np.sqrt(count)
    return mean - half, mean + half


def measure(job: Job) -> dict[str, Any]:
    """Reduce one finished run to what is kept of it."""
    steps, returns = read_curve(job.run_dir, job.study.metric)
    summary = json.loads((job.run_dir / "summary.json").read_text())
    measured = ("steps_per_second", "compile_seconds", "wall_seconds", "peak_memory_bytes", "platform", "versions")
    return {
        "seed": job.config.seed,
        **json.loads(job.origin.read_text()),
        "run": {name: summary[name] for name in measured},
        "config": json.loads(json.dumps(config_to_dict(job.config))),
        "env_steps": steps,
        "return_per_seed": returns.tolist(),
        "random_policy": summary["random_policy"][job.study.metric],
    }


def result(study: Study, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Reduce the runs of a study to what is published; provenance and configuration are the first one's."""
    returns = np.concatenate([run["return_per_seed"] for run in runs], axis=1)
    low, high = interval(returns)
    final, speeds = returns[-1], [run["run"]["steps_per_second"] for run in runs]
    first = {name: value for name, value in runs[0].items() if name != "seed"}
    return {
        "study": study.name,
        "title": study.title,
        **first,
        "run": {**first["run"], "steps_per_second": float(np.median(speeds))},
        "return_per_seed": returns.tolist(),
        "return_mean": returns.mean(axis=-1).tolist(),
        "return_interval_95": [low.tolist(), high.tolist()],
        "metric": study.metric,
        "final_return_per_seed": final.tolist(),
        "final_return": float(final.mean()),
        "final_interval_95": [float(low[-1]), float(high[-1])],
        "threshold": study.threshold,
        "threshold_met": bool(final.mean() >= study.threshold),
        "seeds_at_threshold": int((final >= study.threshold).sum()),
        "references": [dataclasses.asdict(reference) for reference in study.references],
        **({"runs": list(runs)} if study.separate else {}),
    }


def draw(measured: dict[str, Any], path: Path) -> None:
    """Plot every seed, their mean with its interval, the references and the threshold."""
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.subplots()
    steps, returns = np.asarray(measured["env_steps"]), np.asarray(measured["return_per_seed"])
    low, high = measured["return_interval_95"]
    axes.plot(steps, returns, color="tab:blue", alpha=0.25, linewidth=0.8)
    axes.fill_between(steps, low, high, color="tab:blue", alpha=0.2, label="95 % interval of the mean")
    axes.plot(steps, measured["return_mean"], color="tab:blue", linewidth=2.0, label=f"ours, {returns.shape[1]} seeds")
    for number, reference in enumerate(measured["references"]):
        label = reference["label"] + (f" ({reference['steps']:,} steps)" if reference["steps"] else "")
        axes.axhline(reference["value"], color=f"C{number + 1}", linestyle="--", linewidth=1.0, label=label)
    axes.axhline(measured["threshold"], color="black", linestyle=":", linewidth=1.0, label="threshold")
    everything = [
        returns.min(),
        returns.max(),
        measured["threshold"],
        *(each["value"] for each in measured["references"]),
    ]
    margin = 0.05 * (max(everything) - min(everything))
    axes.set_ylim(
        min(everything) - margin, max(everything) + margin
    )  # the interval of few seeds is cut, not the curves
    axes.set(
        title=measured["title"],
        xlabel="environment steps per seed",
        ylabel=f"{measured['metric'].replace('_', ' ')} of greedy episodes",
    )
    axes.legend(fontsize="small", loc="lower right")
    figure.savefig(path, dpi=130)


def publish(jobs: Sequence[Job], results: Path) -> dict[str, Any]:
    """Write a finished study's JSON and PNG."""
    measured = result(jobs[0].study, [measure(job) for job in jobs])
    results.mkdir(parents=True, exist_ok=True)
    path = results / f"learning_{measured['study']}.json"
    write_json(path, measured)
    draw(measured, path.with_suffix(".png"))
    return measured


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__.split("\n")[0])
    parser.add_argument("--task", nargs="+", choices=list(STUDIES), default=list(STUDIES), help="which studies")
    parser.add_argument("--report-only", action="store_true", help="train nothing")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "learning", help="where run directories lie")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where JSON and PNG go")
    parser.add_argument("--total-steps", type=int, help="for a trial: fewer steps than the configuration says")
    parser.add_argument("--seeds", type=int, help="for a trial: another number of seeds")
    parser.add_argument("--episodes", type=int, default=EvaluationConfig().episodes, help="episodes per evaluation")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is unfinished, publish what is finished, and print the table."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    published = []
    for name in options.task:
        job = Job(STUDIES[name], (options.runs / name).resolve(), options.total_steps, options.seeds, options.episodes)
        jobs = job.runs()
        if not options.report_only:
            for each in jobs:
                each.finish()
        if all(each.finished() for each in jobs):
            published.append(publish(jobs, options.results))
    print(learning_table(published))


if __name__ == "__main__":
    main()
