"""Training speed of the team algorithms, and how near their updates come to what the machine's matrix products reach.

    python -m benchmarks.team_throughput                              every case, on the machine at hand
    python -m benchmarks.team_throughput --case hmasd_uav --num-envs 32 1024

Cases are measured in turn, round after round, a large matrix product among them in the same rounds. The update is
compiled apart to be timed (`modes.probe`); its operations are those of its matrix products (`benchmarks.flops`).
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.driver import spread
from benchmarks.flops import matmul_flops
from benchmarks.machine import ROOT, provenance
from benchmarks.report import rate, table, write_json
from jaxrl_engine.modes.build import build
from jaxrl_engine.modes.probe import collect_and_learn
from jaxrl_engine.modes.train import make_program
from jaxrl_engine.runtime.config import load_config

CASES = {
    "hmasd": "hmasd_alice_and_bob.yaml",
    "hmasd_32x32": "hmasd_alice_and_bob_32x32.yaml",
    "hmasd_uav": "hmasd_uav.yaml",
    "mat": "mat_alice_and_bob.yaml",
    "mappo": "mappo_alice_and_bob.yaml",
}
MATRIX = 2048  # rows and columns of the product that shows the ceiling
SECONDS = 2.0  # of training in a round


@dataclasses.dataclass
class Case:
    """One configuration, compiled and warm."""

    name: str
    num_envs: int
    samples: int  # per update
    state: Any
    chunk: Any  # (state, number of updates) -> (state, metrics)
    learn: Any  # the update alone
    rollout: tuple[Any, ...]  # what it is given
    flops: int  # of the update
    updates: int = 1  # in a round

    def train(self) -> float:
        """Train for a round and return environment steps per second."""
        begun = time.perf_counter()
        self.state, rows = self.chunk(self.state, jnp.int32(self.updates))
        jax.block_until_ready(rows)
        return self.updates * self.samples / (time.perf_counter() - begun)

    def update(self) -> float:
        """Repeat the update alone for a round and return the seconds of one."""
        begun = time.perf_counter()
        for _ in range(self.updates):
            result = self.learn(*self.rollout)
        jax.block_until_ready(result)
        return (time.perf_counter() - begun) / self.updates


def make_case(name: str, num_envs: int | None) -> Case:
    """Build and compile a configuration, and find how many updates fill a round."""
    config = load_config(ROOT / "configs" / CASES[name])
    config = dataclasses.replace(config, num_envs=num_envs or config.num_envs)
    built = build(config)
    program = make_program(built)
    state = program.init(built.keys, built.hyper)
    collect, learn = collect_and_learn(program)
    given = (state.train_state, jax.jit(collect)(state.train_state, state.actor, state.key), jax.random.key(1))
    case = Case(
        name=f"{name} x {config.num_envs}", num_envs=config.num_envs, samples=config.samples_per_update,
        chunk=program.compile(state), learn=jax.jit(learn).lower(*given).compile(),
        rollout=jax.tree.map(jnp.copy, given), flops=matmul_flops(learn, *given), state=state,
    )  # fmt: skip
    case.train()
    case.updates = max(1, round(SECONDS * case.train() / case.samples))
    case.update()
    return case


def ceiling() -> Callable[[], float]:
    """Return a function that measures the operations per second of a large float32 matrix product."""
    left = jax.random.normal(jax.random.key(0), (MATRIX, MATRIX))
    product = jax.jit(lambda matrix: matrix @ left).lower(left).compile()

    def measure() -> float:
        begun, rounds = time.perf_counter(), 10
        result = left
        for _ in range(rounds):
            result = product(left)
        jax.block_until_ready(result)
        return rounds * 2 * MATRIX**3 / (time.perf_counter() - begun)

    measure()
    return measure


def measure(cases: Sequence[Case], repetitions: int) -> list[dict[str, Any]]:
    """Train all cases in turn, and return what is published of each."""
    product, rounds = ceiling(), []
    for _ in range(repetitions):
        rounds += [(case.name, case.train(), case.update(), product()) for case in cases]
    return [_record(case, [values for name, *values in rounds if name == case.name]) for case in cases]


def _record(case: Case, rounds: Sequence[Sequence[float]]) -> dict[str, Any]:
    return {
        "case": case.name,
        "num_envs": case.num_envs,
        "steps_per_second": spread([speed for speed, _, _ in rounds]),
        "update_flops_per_step": case.flops / case.samples,
        "update_flops_per_second": spread([case.flops / seconds for _, seconds, _ in rounds]),
        "update_share_of_time_estimate": spread([seconds * speed / case.samples for speed, seconds, _ in rounds]),
        "matmul_flops_per_second": spread([top for _, _, top in rounds]),
        "share_of_matmul": spread([case.flops / seconds / top for _, seconds, top in rounds]),
    }


def report(records: Sequence[dict[str, Any]]) -> str:
    """Return the records as a Markdown table."""
    rows = [
        [
            record["case"], rate(record["steps_per_second"]["median"]),
            f"{rate(record['steps_per_second']['min'])} to {rate(record['steps_per_second']['max'])}",
            f"{record['update_flops_per_step'] / 1e6:.2f}",
            f"{record['update_share_of_time_estimate']['median']:.0%}",
            f"{record['update_flops_per_second']['median'] / 1e9:.1f}",
            f"{record['matmul_flops_per_second']['median'] / 1e9:.1f}", f"{record['share_of_matmul']['median']:.0%}",
        ]
        for record in records
    ]  # fmt: skip
    header = (
        "case", "steps/s", "range", "update, MFLOP/step", "update's share of time", "update, GFLOP/s",
        f"matmul {MATRIX}, GFLOP/s", "share",
    )  # fmt: skip
    return table(header, rows)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.team_throughput", description=__doc__.split("\n")[0])
    parser.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES), help="which configurations")
    parser.add_argument(
        "--num-envs", nargs="+", type=int, help="numbers of environments (default: the configuration's)"
    )
    parser.add_argument("--repetitions", type=int, default=5, help="rounds")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "team_throughput.json")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write everything measured."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    origin = provenance()
    cases = [make_case(name, count) for name in options.case for count in options.num_envs or [None]]
    records = measure(cases, options.repetitions)
    write_json(options.output, {**origin, "records": records})
    print(report(records))


if __name__ == "__main__":
    main()
