"""Steps per second of the worlds alone: random legal actions, automatic reset, one scan.

    python -m benchmarks.env_throughput                                  every native world, 1 to 16,384 environments
    python -m benchmarks.env_throughput --worlds reacher --batches 1024

Each figure is the median of several runs, taken in turn over all worlds. `reset share` is what automatic reset adds to
a step: the same scan with `VectorEnv` against bare `vmap`ped stepping. Beside some worlds runs one of another library,
the same where our adapter wraps it, else the one most like it, with that library's own automatic reset.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key
from matplotlib.figure import Figure

from benchmarks import peer_worlds
from benchmarks.fused import checksum
from benchmarks.machine import ROOT, provenance
from benchmarks.report import table as markdown_table
from jaxrl_engine.core.config import EnvValue
from jaxrl_engine.envs.registry import make_env
from jaxrl_engine.envs.vector import VectorEnv
from jaxrl_engine.modes.evaluate import uniform_action

RESULT = ROOT / "benchmarks" / "results" / "env_throughput.json"
SECONDS_PER_RUN = 0.4
ROW_SECONDS = 240.0
MAX_STEPS = 4096
TRIAL_STEPS = 4


@dataclasses.dataclass(frozen=True)
class Entry:
    """A world as it is measured, and the steps per second to reach at 1,024 environments (None: no goal)."""

    name: str
    env_id: str
    params: dict[str, EnvValue]
    goal: int | None = None
    peer: str | None = None  # a world of `benchmarks.peer_worlds`


WORLDS = (
    Entry("reacher, mixed 2-8 links, planar", "reacher", {"num_links": 8, "bodies": "mixed"}, 600_000),
    Entry("reacher, mixed 2-8 links, brax", "reacher", {"num_links": 8, "bodies": "mixed", "physics": "brax"}, 75_000),
    Entry("reacher, 2 links, planar", "reacher", {}),
    Entry("brax:reacher", "brax:reacher", {"episode_length": 50}, peer="brax:reacher"),
    Entry("uav_coverage", "uav_coverage", {}, 50_000),
    Entry("uav_relay", "uav_relay", {}, 15_000),
    Entry("color_lines", "color_lines", {}, 30_000, peer="pgx:2048"),
    Entry("alice_and_bob", "alice_and_bob", {}, 3_000_000, peer="jaxmarl:switch_riddle"),
    Entry("jaxmarl:overcooked", "jaxmarl:overcooked", {}, peer="jaxmarl:overcooked"),
    Entry("gymnax:CartPole-v1", "gymnax:CartPole-v1", {}),
)

Program = Callable[[Key[Array, ""], Array], Any]


def with_reset(entry: Entry, num_envs: int) -> Program:
    """`(key, steps) -> checksum`: environments start anew where they end, as in training."""
    env, params = make_env(entry.env_id, entry.params)
    vector = VectorEnv(env, num_envs)

    def run(key: Key[Array, ""], steps: Array) -> Any:
        key_reset, key_fresh, key_steps = jax.random.split(key, 3)
        carry = (vector.reset(key_reset, params), vector.fresh(key_fresh, params), jnp.zeros(()))

        def step(index: Array, carry: Any) -> Any:
            state, fresh, total = carry
            key_action, key_step = jax.random.split(jax.random.fold_in(key_steps, index))
            action = uniform_action(env.spec.action, state.timestep, key_action)
            state, fresh, true, _ = vector.step(jax.random.split(key_step, num_envs), state, action, params, fresh)
            return state, fresh, total + checksum(seen_by_policy(true))

        return jax.lax.fori_loop(0, steps, step, carry)[2]

    return jax.jit(run)


def without_reset(entry: Entry, num_envs: int) -> Program:
    """The same without resets: finished environments step on."""
    env, params = make_env(entry.env_id, entry.params)
    reset, advance = jax.vmap(env.reset, in_axes=(0, None)), jax.vmap(env.step, in_axes=(0, 0, 0, None))

    def run(key: Key[Array, ""], steps: Array) -> Any:
        key_reset, key_steps = jax.random.split(key)
        state, timestep = reset(jax.random.split(key_reset, num_envs), params)

        def step(index: Array, carry: Any) -> Any:
            state, timestep, total = carry
            key_action, key_step = jax.random.split(jax.random.fold_in(key_steps, index))
            action = uniform_action(env.spec.action, timestep, key_action)
            state, timestep = advance(jax.random.split(key_step, num_envs), state, action, params)
            return state, timestep, total + checksum(seen_by_policy(timestep))

        return jax.lax.fori_loop(0, steps, step, (state, timestep, jnp.zeros(())))[2]

    return jax.jit(run)


def seen_by_policy(timestep: Any) -> tuple[Any, ...]:
    """What nothing may be left out of the program for."""
    return timestep.observation, timestep.action_mask, timestep.reward


@dataclasses.dataclass
class Measurement:
    """One program on its way to a median."""

    program: Program
    num_envs: int
    compile_seconds: float = 0.0
    steps: int = 0
    speeds: list[float] = dataclasses.field(default_factory=list)

    def prepare(self) -> None:
        """Compile, and choose how many steps one run takes."""
        self.compile_seconds = self._seconds(1)
        trial = self._seconds(TRIAL_STEPS)
        self.steps = max(2, min(MAX_STEPS, round(TRIAL_STEPS * SECONDS_PER_RUN / trial)))

    def run(self) -> None:
        """Time once."""
        self.speeds.append(self.steps * self.num_envs / self._seconds(self.steps))

    def _seconds(self, steps: int) -> float:
        begun = time.perf_counter()
        jax.block_until_ready(self.program(jax.random.key(0), jnp.int32(steps)))
        return time.perf_counter() - begun


def measure(entry: Entry, num_envs: int, repetitions: int) -> dict[str, Any]:
    """Time a world with and without reset and, where there is one, its peer, in turn."""
    full, bare = (Measurement(make(entry, num_envs), num_envs) for make in (with_reset, without_reset))
    contestants = [full, bare]
    if entry.peer and peer_worlds.installed(entry.peer):
        contestants.append(Measurement(peer_worlds.program(entry.peer, num_envs), num_envs))
    for measurement in contestants:
        measurement.prepare()
    for _ in range(repetitions):
        for measurement in contestants:
            measurement.run()
    row = {
        "world": entry.name, "num_envs": num_envs, "steps_per_second": statistics.median(full.speeds),
        "bare_steps_per_second": statistics.median(bare.speeds),
        "reset_share": statistics.median(1 - a / b for a, b in zip(full.speeds, bare.speeds, strict=True)),
        "compile_seconds": full.compile_seconds, "goal": entry.goal if num_envs == 1024 else None,
    }  # fmt: skip
    for peer in contestants[2:]:
        row["peer"], row["peer_steps_per_second"] = entry.peer, statistics.median(peer.speeds)
        row["ratio"] = statistics.median(a / b for a, b in zip(full.speeds, peer.speeds, strict=True))
    return row


def measure_apart(entry: Entry, num_envs: int, repetitions: int) -> dict[str, Any] | None:
    """Measure in a process of its own, begun anew once if it does not end; None if it does not end again.

    jaxlib below 0.11.2 may stand still in LAPACK calls on CPUs of few cores; the engine's import makes that unlikely.

    Raises:
        SystemExit: it failed.
    """
    arguments = ["--row", "--worlds", entry.name, "--batches", str(num_envs), "--repetitions", str(repetitions)]
    for _ in range(2):
        try:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.env_throughput", *arguments],
                cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=ROW_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            print(f"{entry.name} x {num_envs} did not end in {ROW_SECONDS:.0f} s", file=sys.stderr, flush=True)
            continue
        if done.returncode:
            raise SystemExit(done.returncode)
        return json.loads(done.stdout.splitlines()[-1])
    return None


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as Markdown."""
    header = ("world", "environments", "steps/s", "bare", "reset share", "goal", "peer", "peer's steps/s", "ratio")
    return markdown_table(header, map(_cells, rows))


def _cells(row: dict[str, Any]) -> list[str]:
    goal = f"{row['goal']:,}" if row["goal"] else ""
    missed = " **missed**" if row["goal"] and row["steps_per_second"] < row["goal"] else ""
    speeds = [f"{row[name]:,.0f}" for name in ("steps_per_second", "bare_steps_per_second")]
    peer = [row["peer"], f"{row['peer_steps_per_second']:,.0f}", f"{row['ratio']:.3g}"] if "peer" in row else [""] * 3
    return [row["world"], f"{row['num_envs']:,}", *speeds, f"{row['reset_share']:.0%}", goal + missed, *peer]


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot steps per second over the number of environments."""
    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(row["world"] for row in rows):
        own = [row for row in rows if row["world"] == name]
        axes.plot([row["num_envs"] for row in own], [row["steps_per_second"] for row in own], marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="environments", ylabel="steps per second, automatic reset included")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=130)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.env_throughput", description=__doc__.split("\n")[0])
    parser.add_argument("--worlds", nargs="+", help="parts of names (default: all)")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32, 1024, 16384])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--row", action="store_true", help="only the first world and batch, as a line of JSON")
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    chosen = [
        each
        for each in WORLDS
        if (not options.worlds or any(part in each.name for part in options.worlds))
        and (not each.env_id.startswith("jaxmarl:") or peer_worlds.installed(each.env_id))
    ]
    if options.row:
        print(json.dumps(measure(chosen[0], options.batches[0], options.repetitions)))
        return
    origin, rows = provenance(), []
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for entry in chosen:
        for num_envs in options.batches:
            row = measure_apart(entry, num_envs, options.repetitions)
            if row is None:
                continue
            rows.append(row)
            print(json.dumps(row), flush=True)
            options.output.write_text(json.dumps({**origin, "rows": rows}, indent=1) + "\n")
    draw(rows, options.output.with_suffix(".png"))
    print(table(rows))


if __name__ == "__main__":
    main()
