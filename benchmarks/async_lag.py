"""How old the data are that the async learner learns from, over ten thousand updates.

    python -m benchmarks.async_lag                     CartPole, free-running, ten thousand updates
    python -m benchmarks.async_lag --updates 500       for a trial

The run is the engine's own, with a row of metrics for every update; every row's greatest lag is held against the cap.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import ROOT, provenance
from benchmarks.report import write_json

MAX_LAG = 8
NEW_STEPS = 64
OPTIONS = (
    "--mode", "async", "--env", "gymnax:CartPole-v1", "--num-envs", 16, "--num-steps", 8, "--num-workers", 4,
    "--batch-size", 2 * NEW_STEPS, "--ppo.num-minibatches", 1, "--num-epochs", 1, "--impact.max-lag", MAX_LAG,
    "--evaluation.count", 0, "--logging.every-updates", 1, "--logging.no-tensorboard", "--quiet",
)  # fmt: skip


def measure(updates: int) -> dict[str, Any]:
    """Run, and return the distribution of the lags and the number of updates beyond the cap."""
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        options = [*map(str, OPTIONS), "--total-steps", str(updates * NEW_STEPS), "--run-dir", str(run)]
        subprocess.run([sys.executable, "-m", "jaxrl_engine.run", *options], cwd=ROOT, check=True)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    seen = [row for row in rows if "Async/LagMax" in row]
    most = np.asarray([row["Async/LagMax"] for row in seen])
    return {
        "options": list(map(str, OPTIONS)), "updates": len(seen), "max_lag": MAX_LAG,
        "violations": int((most > MAX_LAG).sum()), "lag_max": float(most.max()),
        "lag_p95_mean": float(np.mean([row["Async/LagP95"] for row in seen])),
        "lag_p50_mean": float(np.mean([row["Async/LagP50"] for row in seen])),
        "dropped_old": float(seen[-1]["Async/DroppedOld"]), "expired_by_age": float(seen[-1]["Buffer/ExpiredByAge"]),
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.async_lag", description=__doc__.split("\n")[0])
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "async_lag.json")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    record = measure(options.updates)
    write_json(options.output, {**provenance(), "record": record})
    print(f"{record['violations']} of {record['updates']} updates learned from data older than {MAX_LAG} updates")


if __name__ == "__main__":
    main()
