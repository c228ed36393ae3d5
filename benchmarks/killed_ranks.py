"""A rank of two is killed in the middle of a run, again and again: how soon all have ended, and how soon they are back.

    python -m benchmarks.killed_ranks              ten trials, the ranks in turn
    python -m benchmarks.killed_ranks --trials 2   for a look

Each trial is a run of its own under `python -m jaxrl_engine.launch`. What is lost is counted in checkpoint intervals:
the time between the newest checkpoint at the kill and the kill itself.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.driver import spread
from benchmarks.machine import ROOT, provenance
from benchmarks.report import table, write_json

INTERVAL = 3.0
"""Seconds between checkpoints."""
RUN = (
    "--platform", "cpu", "--env", "gymnax:CartPole-v1", "--num-envs", "32", "--num-steps", "32",
    "--total-steps", "10000000", "--evaluation.count", "1", "--checkpoint.every-seconds", str(INTERVAL), "--quiet",
)  # fmt: skip
PATIENCE = 120.0
GOALS = {"down_seconds": 30.0, "back_seconds": 60.0, "lost_intervals": 1.0}


def trial(directory: Path, victim: int) -> dict[str, Any]:
    """Kill one rank once checkpoints come; return what followed.

    Raises:
        TimeoutError: something did not happen within two minutes.
    """
    command = [sys.executable, "-m", "jaxrl_engine.launch", "--processes", "2", "--", *RUN, "--run-dir", str(directory)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as launched:
        try:
            _until(lambda: len(_checkpoints(directory)) > 1)
            time.sleep(0.37 * INTERVAL)
            ranks = children(launched.pid)
            newest = max(_checkpoints(directory))
            saved_at = (directory / "checkpoints" / str(newest)).stat().st_mtime
            os.kill(ranks[victim], signal.SIGKILL)
            killed, at = time.monotonic(), time.time()
            _until(lambda: not any(map(alive, ranks)))
            down = time.monotonic() - killed
            _until(lambda: _trains(directory, ranks))
            back = time.monotonic() - killed
            first = _status(directory)["env_steps"]
        finally:
            launched.send_signal(signal.SIGTERM)
            said = launched.communicate(timeout=PATIENCE)[1]
    named = [line for line in said.splitlines() if line.startswith("launch: ")]
    return {
        "victim": victim, "down_seconds": down, "back_seconds": back, "lost_intervals": (at - saved_at) / INTERVAL,
        "checkpoint": newest, "first_steps_again": first, "cause": named[0] if named else None,
        "went_on": first >= newest, "exit_code": launched.returncode,
    }  # fmt: skip


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("two minutes have passed")
        time.sleep(0.02)


def _checkpoints(directory: Path) -> list[int]:
    path = directory / "checkpoints"
    return [int(entry.name) for entry in path.iterdir() if entry.name.isdigit()] if path.is_dir() else []


def _status(directory: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((directory / "status.json").read_text()))
    except (OSError, ValueError):
        return {}


def _trains(directory: Path, former: list[int]) -> bool:
    """Whether other processes than the former ones have learned from something."""
    status = _status(directory)
    return status.get("state") == "running" and status.get("pid") not in former


def children(pid: int) -> list[int]:
    """Processes that a process has started, in order."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def summarize(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians and ranges over the trials, and in how many everything was as it should be."""
    good = [
        each["went_on"] and each["exit_code"] == 143 and all(each[name] <= goal for name, goal in GOALS.items())
        for each in trials
    ]
    return {
        "trials": len(trials), "good": sum(good), "checkpoint_interval_seconds": INTERVAL, "goals": GOALS,
        **{name: spread([each[name] for each in trials]) for name in GOALS}, "each": trials,
    }  # fmt: skip


def main() -> None:
    """Run the trials and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=10)
    arguments = parser.parse_args()
    made, trials = provenance(), []
    for number in range(arguments.trials):
        with tempfile.TemporaryDirectory() as scratch:
            trials.append(trial(Path(scratch) / "run", victim=number % 2))
        print(json.dumps(trials[-1]), flush=True)
    record = made | summarize(trials)
    write_json(ROOT / "benchmarks" / "results" / "killed_ranks.json", record)
    rows = [[name, f"{record[name]['median']:.1f}", f"{record[name]['max']:.1f}", f"{GOALS[name]:g}"] for name in GOALS]
    print(table(["", "median", "worst", "goal"], rows))
    print(f"{record['good']} of {record['trials']} trials as they should be")


if __name__ == "__main__":
    main()
