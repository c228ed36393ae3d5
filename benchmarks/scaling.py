"""What more devices and more processes cost, and the pieces from which `benchmarks.cost_model` predicts many machines.

    python -m benchmarks.scaling                             all sections (about eight minutes on two quiet cores)
    python -m benchmarks.scaling --sections processes        one of them; the others keep what the file holds
    python -m benchmarks.scaling --quick --output trial.json for a trial

Sections: `devices` (strong and weak scaling over 1, 2, 4 and 8 simulated devices, and memory per environment),
`processes` (the sync mode in one process and in two on loopback, in turn), `all_reduce` (between two processes),
`pieces` (bytes, and a parameter broadcast taken apart) and `gpu` (one GPU from 32 to 65,536 environments; null where
there is none).

Simulated devices share the host's cores: with n of them everything takes as much work as with one, and what takes
longer is what splitting costs. Speed gained by devices is not measured here.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.driver import spread
from benchmarks.machine import ROOT, describe_machine, provenance
from benchmarks.report import write_json
from benchmarks.scaling_report import report
from jaxrl_engine.runtime.places import free_port

SECTIONS = ("devices", "processes", "all_reduce", "pieces", "gpu")
RUN = "gymnax:CartPole-v1"
"""What whole runs train on: they start often, and this world compiles soon."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured."""

    env: str = "reacher"  # of all sections but `processes`
    strong: tuple[int, ...] = (256, 1024, 4096)  # environments over one device and over the most; the last over each
    per_device: int = 128  # environments of weak scaling
    counts: tuple[int, ...] = (1, 2, 4, 8)  # simulated devices
    rounds: int = 5
    seconds: float = 0.3  # of each part of each cell in a round
    process_envs: int = 1024
    process_steps: int = 1_000_000  # of a run in one process, or in two
    sizes: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)  # bytes of an all-reduce
    gpu_envs: tuple[int, ...] = (32, 128, 512, 2048, 8192, 32_768, 65_536)


QUICK = Plan(
    env=RUN, strong=(8,), per_device=4, counts=(1, 2), rounds=2, seconds=0.01, process_envs=8, process_steps=256,
    sizes=(1_000, 4_000),
)  # fmt: skip


def start(module: str, *words: str, devices: int = 1, platform: str = "cpu") -> "subprocess.Popen[str]":
    """Start a module, with so many simulated devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}".strip()
    own = {"XLA_FLAGS": flags, "JAX_PLATFORMS": platform} if platform == "cpu" else {}
    return subprocess.Popen(
        [sys.executable, "-m", module, *words], cwd=ROOT, env=os.environ | own, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ask(module: str, question: dict[str, Any], **where: Any) -> Any:
    """Return what a module of this benchmark answers."""
    return json.loads(said([start(module, json.dumps(question), **where)])[0].splitlines()[-1])


def said(processes: Iterable["subprocess.Popen[str]"]) -> list[str]:
    """What each process printed, once all have ended.

    Raises:
        RuntimeError: one ended with another exit code than 0; the message carries the end of what it complained of.
    """
    told = [(process, *process.communicate()) for process in list(processes)]
    for process, _, complaint in told:
        if process.returncode:
            raise RuntimeError(f"{process.args} ended with {process.returncode}:\n{complaint[-2000:]}")
    return [printed for _, printed, _ in told]


def devices(plan: Plan) -> Any:
    """Strong and weak scaling over simulated devices."""
    question = {
        "part": "devices", "env": plan.env, "strong": plan.strong, "per_device": plan.per_device, "counts": plan.counts,
        "rounds": plan.rounds, "seconds": plan.seconds,
    }  # fmt: skip
    cells = ask("benchmarks.scaling_devices", question, devices=max(plan.counts))
    return {"env": plan.env, "per_device": plan.per_device, "steps_per_environment": 32, "cells": cells}


def processes(plan: Plan) -> Any:
    """Whole runs of the sync mode in one process and in two, in turn, each with the same environments in all."""
    speeds: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(plan.rounds):
        for size in (1, 2) if turn % 2 == 0 else (2, 1):
            speeds[size].append(_speed(plan, size))
    ratios = [two / one for one, two in zip(speeds[1], speeds[2], strict=True)]
    return {
        "env": RUN,
        "num_envs": plan.process_envs,
        "steps_per_environment": 32,
        "steps_per_second": {str(size): spread(each) for size, each in speeds.items()},
        "two_over_one": spread(ratios),
    }


def _speed(plan: Plan, size: int) -> float:
    """Environment steps/s of one run, as its summary says."""
    with tempfile.TemporaryDirectory() as directory:
        words = [
            "--platform", "cpu", "--env", RUN, "--num-envs", str(plan.process_envs), "--num-steps", "32",
            "--total-steps", str(plan.process_steps), "--evaluation.count", "0", "--evaluation.episodes", "2",
            "--logging.no-tensorboard", "--quiet", "--run-dir", f"{directory}/run",
        ]  # fmt: skip
        at = f"127.0.0.1:{free_port()}"
        places = [["--distributed", f"{at},{rank},{size}"] if size > 1 else [] for rank in range(size)]
        said([start("jaxrl_engine.run", *words, *place) for place in places])
        summary = json.loads((Path(directory) / "run" / "summary.json").read_text())
    return float(summary["steps_per_second"])


def all_reduce(plan: Plan) -> Any:
    """Seconds of one all-reduce of several sizes between two processes."""
    question = {
        "coordinator": f"127.0.0.1:{free_port()}", "processes": 2, "sizes": plan.sizes, "rounds": plan.rounds
    }  # fmt: skip
    started = [start("benchmarks.scaling_ranks", json.dumps({**question, "rank": rank})) for rank in range(2)]
    return json.loads(said(started)[0].splitlines()[-1])


def pieces(plan: Plan) -> Any:
    """Bytes, and seconds of a broadcast."""
    return ask("benchmarks.scaling_pieces", {"env": plan.env, "rounds": plan.rounds})


def gpu(plan: Plan) -> Any:
    """One GPU with more and more environments, each number in a process of its own; None without a GPU."""
    if describe_machine()["accelerators"] is None:
        return None
    seconds = {"part": "climb", "env": plan.env, "rounds": plan.rounds, "seconds": 1.0}
    return [
        ask("benchmarks.scaling_devices", {**seconds, "num_envs": number}, platform="gpu") for number in plan.gpu_envs
    ]


MEASURE = {"devices": devices, "processes": processes, "all_reduce": all_reduce, "pieces": pieces, "gpu": gpu}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, and write everything measured; sections not asked for keep what the file holds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__.split("\n")[0])
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS, help="what to measure")
    parser.add_argument("--rounds", type=int, help="of every section (default: 5)")
    parser.add_argument("--strong", type=int, nargs="+", help="environments of strong scaling (default: 256 1024 4096)")
    parser.add_argument("--counts", type=int, nargs="+", help="simulated devices (default: 1 2 4 8)")
    parser.add_argument("--process-steps", type=int, help="of a run in one process or two (default: 1,000,000)")
    parser.add_argument("--quick", action="store_true", help="as little as shows that it works")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "scaling.json")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    plan = QUICK if options.quick else Plan()
    asked = {name: getattr(options, name) for name in ("rounds", "strong", "counts", "process_steps")}
    plan = dataclasses.replace(plan, **{name: value for name, value in asked.items() if value is not None})
    results = json.loads(options.output.read_text()) if options.output.exists() else {}
    for section in options.sections:
        origin = provenance()
        results[section] = {**origin, "record": MEASURE[section](plan)}
        write_json(options.output, results)
        print(f"{section} is measured", file=sys.stderr, flush=True)
    print(report({name: told["record"] for name, told in results.items()}))


if __name__ == "__main__":
    main()
