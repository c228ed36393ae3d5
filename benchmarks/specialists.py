"""What a body loses by sharing its policy: specialists of single bodies beside the one policy of a map-elites run.

    python -m benchmarks.specialists --run runs/<run>                16 elites, evenly spaced over the repertoire
    python -m benchmarks.specialists --run runs/<run> --bodies 2     for a trial

A specialist is PPO on one body alone, with the shared policy's settings and a multilayer perceptron of its width. Both
are judged on the same fresh targets. A specialist has all its steps for one body; the shared policy has had its own for
all bodies together: both numbers stand in the results.
"""

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import ROOT, provenance
from benchmarks.report import table, write_json
from jaxrl_engine.core.config import Config, EvaluationConfig, LoggingConfig, NetworkConfig
from jaxrl_engine.modes.policy import SavedPolicy, load_policy
from jaxrl_engine.modes.train import train
from jaxrl_engine.runtime.evolution import load_record

EPISODES = 2048


def specialist(generalist: SavedPolicy, steps: int, place: Path) -> SavedPolicy:
    """Train PPO on the body of one elite alone."""
    body, config = generalist.built.env_params, generalist.built.config
    lengths = np.asarray(body.lengths)[np.asarray(body.mask)]
    alone = Config(
        env=config.env, env_params={"num_links": len(lengths), "lengths": ",".join(f"{x:.5f}" for x in lengths)},
        total_steps=steps, num_envs=32, num_steps=config.num_steps, seed=config.seed,
        ppo=dataclasses.replace(config.ppo, normalize_observations=True),
        network=NetworkConfig(hidden_sizes=config.network.hidden_sizes),
        evaluation=EvaluationConfig(count=0), logging=LoggingConfig(tensorboard=False),
    )  # fmt: skip
    return load_policy(train(alone, run_dir=place, quiet=True).run_dir)


def measure(run: Path, bodies: int, steps: int) -> dict[str, Any]:
    """Judge elites and their specialists."""
    record = load_record(run / "repertoire")
    held = np.flatnonzero(record.fitness > -np.inf)
    cells = held[np.linspace(0, len(held) - 1, min(bodies, len(held))).astype(int)]
    pairs = []
    for cell in map(int, cells):
        generalist = load_policy(run, elite=cell)
        with tempfile.TemporaryDirectory() as place:
            own = specialist(generalist, steps, Path(place) / "run")
            pairs.append({
                "cell": cell, "links": int(record.counts[cell]),
                "specialist": own.evaluate(EPISODES)["success_rate"],
                "generalist": generalist.evaluate(EPISODES)["success_rate"],
            })  # fmt: skip
    gaps = [pair["specialist"] - pair["generalist"] for pair in pairs]
    low, median, high = np.quantile(gaps, [0.25, 0.5, 0.75])
    return {
        "steps_of_each_specialist": steps, "steps_of_the_generalist": int(record.env_steps), "episodes": EPISODES,
        "pairs": pairs, "gap_median": float(median), "gap_quartiles": [float(low), float(high)],
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write everything measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.specialists", description=__doc__.split("\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="a finished map-elites run")
    parser.add_argument("--bodies", type=int, default=16)
    parser.add_argument("--steps", type=int, default=500_000, help="of each specialist")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "specialists.json")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    origin = provenance()
    record = measure(options.run, options.bodies, options.steps)
    write_json(options.output, {**origin, "record": record})
    rows = [
        [str(p["cell"]), str(p["links"]), f"{p['specialist']:.3f}", f"{p['generalist']:.3f}"] for p in record["pairs"]
    ]
    print(table(("cell", "links", "specialist", "shared policy"), rows))
    print(f"median gap {record['gap_median']:.3f}")


if __name__ == "__main__":
    main()
