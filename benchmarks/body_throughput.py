"""Bodies by the batch: what it costs that they differ, and what one compiled program for all of them saves.

    python -m benchmarks.body_throughput                    on the machine at hand
    python -m benchmarks.body_throughput --batches 1 64     for a trial

`stepping` steps the whole world (observations, rewards, resets) with random actions: arms of two to eight links, all
different, beside as many copies of one of eight links, in turn. `judging` evaluates batches of bodies on 32 targets
each under one policy. `compiling` evaluates some bodies the other way: a program compiled for each of them alone.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.driver import spread
from benchmarks.fused import checksum
from benchmarks.machine import ROOT, provenance
from benchmarks.report import rate, table, write_json
from jaxrl_engine.core.types import PyTree
from jaxrl_engine.envs.vector import VectorEnv
from jaxrl_engine.modes.build import build
from jaxrl_engine.modes.evaluate import greedy_policy, uniform_action
from jaxrl_engine.modes.map_elites.build import make_evolution
from jaxrl_engine.modes.map_elites.evolution import Evolution
from jaxrl_engine.modes.map_elites.judge import embody, judge
from jaxrl_engine.qd.arms import Arms, random_arms
from jaxrl_engine.runtime.config import load_config

STEPS = 100
TARGETS = 32
GOALS = {"steps_per_second": 500_000.0, "share_of_one_body": 0.95}
"""At 1,024 bodies, on two CPU cores."""


def stepping(evolution: Evolution, count: int) -> dict[str, Callable[[], None]]:
    """Return functions that step `count` worlds `STEPS` times: of different bodies, and of the same one."""
    different = random_arms(jax.random.key(0), evolution.config, count)
    longest = jax.tree.map(lambda leaf: leaf[int(different.count.argmax())], different)
    same = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), longest)
    worlds = VectorEnv(evolution.env, count, params_axis=0)

    def run(bodies: PyTree, key: jax.Array) -> jax.Array:
        key_reset, key_fresh, key_steps = jax.random.split(key, 3)
        begin = (worlds.reset(key_reset, bodies), worlds.fresh(key_fresh, bodies))

        def step(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            key_action, key_step = jax.random.split(key)
            vector, fresh = carry
            action = uniform_action(worlds.env.spec.action, vector.timestep, key_action)
            vector, fresh, timestep, episodes = worlds.step(
                jax.random.split(key_step, count), vector, action, bodies, fresh
            )
            return (vector, fresh), checksum((timestep, episodes))

        return jax.lax.scan(step, begin, jax.random.split(key_steps, STEPS))[1]

    compiled = jax.jit(run).lower(embody(evolution.env, different), jax.random.key(1)).compile()

    def way(arms: Arms) -> Callable[[], None]:
        bodies = embody(evolution.env, arms)
        return lambda: compiled(bodies, jax.random.key(1)).block_until_ready()

    return {"different": way(different), "same": way(same)}


def judging(evolution: Evolution, train_state: PyTree, arms: Arms) -> Callable[[], None]:
    """Return a function that evaluates these bodies, compiled."""
    algorithm = evolution.practice.algorithm

    def run(train_state: PyTree, arms: Arms, key: jax.Array) -> Any:
        policy = greedy_policy(algorithm, train_state)
        return judge(policy, algorithm.initial_carry, evolution.env, key, arms, TARGETS)

    compiled = jax.jit(run).lower(train_state, arms, jax.random.key(2)).compile()
    return lambda: jax.block_until_ready(compiled(train_state, arms, jax.random.key(2)))


def seconds_of(function: Callable[[], Any]) -> float:
    """Seconds of one call."""
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def measure(batches: Sequence[int], bodies_alone: int, repetitions: int) -> dict[str, Any]:
    """Measure all three."""
    built = build(load_config(ROOT / "configs" / "map_elites_reacher.yaml"))
    evolution = make_evolution(built)
    train_state = evolution.init(jax.random.key(0), built.hyper)
    ways = stepping(evolution, 1024)
    for way in ways.values():
        way()
    rounds = [{name: seconds_of(way) for name, way in ways.items()} for _ in range(repetitions)]
    record: dict[str, Any] = {
        "stepping": {
            **{name: spread([1024 * STEPS / told[name] for told in rounds]) for name in ways},
            "share_of_one_body": spread([told["same"] / told["different"] for told in rounds]),
        },
        "judging": {},
    }
    arms = random_arms(jax.random.key(3), evolution.config, max(*batches, bodies_alone))
    for batch in batches:
        few = jax.tree.map(lambda leaf, batch=batch: leaf[:batch], arms)
        way = judging(evolution, train_state, few)
        way()
        record["judging"][str(batch)] = spread([batch / seconds_of(way) for _ in range(repetitions)])
    record["compiling"] = compiling(evolution, train_state, arms, bodies_alone)
    return record


def compiling(evolution: Evolution, train_state: PyTree, arms: Arms, count: int) -> dict[str, float]:
    """Seconds per body, compilation included: every body in one program, and each in one of its own."""
    together = jax.tree.map(lambda leaf: leaf[:count], arms)

    def alone(index: int) -> None:
        one = jax.tree.map(lambda leaf: leaf[index : index + 1], arms)
        algorithm = evolution.practice.algorithm

        def run(train_state: PyTree, key: jax.Array) -> Any:  # the body is a constant of the program
            policy = greedy_policy(algorithm, train_state)
            return judge(policy, algorithm.initial_carry, evolution.env, key, one, TARGETS)

        jax.block_until_ready(jax.jit(run)(train_state, jax.random.key(2)))

    jax.clear_caches()
    all_at_once = seconds_of(lambda: judging(evolution, train_state, together)())
    each = [seconds_of(lambda index=index: alone(index)) for index in range(count)]
    return {
        "bodies": count, "one_program_seconds_per_body": all_at_once / count,
        "own_program_seconds_per_body": statistics.median(each), "times": statistics.median(each) * count / all_at_once,
    }  # fmt: skip


def report(record: dict[str, Any]) -> str:
    """Return the record as Markdown tables."""
    step = record["stepping"]
    rows = [
        ["environment steps/s, 1,024 different bodies", rate(step["different"]["median"])],
        ["environment steps/s, 1,024 times one body of eight links", rate(step["same"]["median"])],
        ["speed of different bodies over that of one", f"{step['share_of_one_body']['median']:.2f}"],
        *[[f"bodies judged/s, batch {batch}", rate(told["median"])] for batch, told in record["judging"].items()],
        ["a program for each body, over one for all", f"{record['compiling']['times']:.1f} times the time"],
    ]
    return table(("bodies", "median"), rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write everything measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.body_throughput", description=__doc__.split("\n")[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 256, 1024, 4096, 16384])
    parser.add_argument("--bodies-alone", type=int, default=8, help="bodies compiled one by one")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "body_throughput.json")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    origin = provenance()
    record = measure(options.batches, options.bodies_alone, options.repetitions)
    write_json(options.output, {**origin, "goals": GOALS, "record": record})
    print(report(record))


if __name__ == "__main__":
    main()
