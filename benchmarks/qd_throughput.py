"""The quality-diversity repertoire beside other libraries: insertion alone, and a whole MAP-Elites loop.

    python -m benchmarks.qd_throughput                                  insertion, and loops of 256, 1,024, 4,096
    python -m benchmarks.qd_throughput --batches 1024 --rounds 5

`insert` offers 1,024 candidates to a grid of 32 × 32 cells that holds elites already; `insert inside` does so within a
program, without the cost of crossing from Python for every batch. `loop` asks, evaluates and tells: parents
drawn uniformly, iso+line (0.01, 0.1), a planar arm of 8 joints (genotype in [0, 1]⁸, angles π (2 x − 1), fitness minus
their variance, descriptors the tip's position, links of 1/8), insertion. Figures are medians over rounds in which the
contestants take turns; a ratio is the median of the ratios of neighbours, above 1 where ours is faster. All start from
the same elites; `elites` in the results says how many there were at the end.

In ours and QDax a program runs many generations. Ours draws the random numbers of several generations at once, Gaussian
ones at the 65,536 quantiles of `qd.variation.gaussian`. pyribs runs on the host, with the arm in NumPy.

Peers are optional: `pip install -c constraints.txt qdax==0.5.0 ribs==0.12.0`. What is not installed is left out, and
said so.
"""

import argparse
import dataclasses
import functools
import importlib.metadata
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.machine import ROOT, provenance
from benchmarks.report import rate, table as markdown_table, write_json
from jaxrl_engine.qd import cells, repertoire as archive
from jaxrl_engine.qd.variation import along_line, gaussian

RESULT = ROOT / "benchmarks" / "results" / "qd_throughput.json"
JOINTS, SIDE = 8, 32
ISO_SIGMA, LINE_SIGMA = 0.01, 0.1
CANDIDATES, INSIDE = 1024, 32
"""Candidates of one insertion; different batches of them, and insertions in one program of `insert inside`."""
EVALUATIONS = 2**18
"""Evaluations of one run of a loop."""
DRAWN_TOGETHER = 2**15
"""Candidates whose random numbers ours draws at once: below, the cost of starting the generator shows."""
SECONDS_PER_RUN = 0.05
GOALS: dict[tuple[str, str], float] = {
    ("insert", "qdax"): 10.0, ("insert inside", "qdax"): 10.0, ("loop", "qdax"): 1.0, ("loop", "pyribs"): 1.0,
}  # fmt: skip
"""How many times faster than a peer."""
GOAL_PER_SECOND = 2e6
"""Evaluations per second of our loop, in the best of the batch sizes."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What is timed."""

    run: Callable[[int], Any]  # does it, for the i-th time
    amount: int  # insertions or evaluations of one call
    elites: Callable[[], int]  # cells that hold one now


Jobs: TypeAlias = dict[str, Job]
"""By operation: `insert`, `insert inside`, and `loop <batch>`."""


@dataclasses.dataclass(frozen=True)
class Work:
    """What every contestant is given, drawn once."""

    genotypes: np.ndarray  # [INSIDE, CANDIDATES, JOINTS]
    fitness: np.ndarray  # [INSIDE, CANDIDATES]
    descriptors: np.ndarray  # [INSIDE, CANDIDATES, 2]

    @classmethod
    def draw(cls) -> "Work":
        """Draw from a fixed seed; later batches are fitter, so that each has something to insert."""
        random = np.random.default_rng(0)
        genotypes = random.random((INSIDE, CANDIDATES, JOINTS), np.float32)
        fitness, descriptors = arm(genotypes, np)
        return cls(genotypes, fitness + 0.05 * np.arange(INSIDE, dtype=np.float32)[:, None], descriptors)


def arm(genotypes: Any, xp: Any) -> tuple[Any, Any]:
    """Fitness `[*batch]` and descriptors `[*batch, 2]` of planar arms, by NumPy or `jax.numpy`."""
    angles = xp.pi * (2.0 * genotypes - 1.0)
    headings = xp.cumsum(angles, axis=-1)
    tip = xp.stack([xp.mean(xp.cos(headings), axis=-1), xp.mean(xp.sin(headings), axis=-1)], axis=-1)
    return -xp.var(angles, axis=-1), tip


# --- contestants ----------------------------------------------------------------------------------------------------


def _jax_job(function: Any, state: Any, inputs: Sequence[tuple[Any, ...]], amount: int, elites: Any) -> Job:
    """Time `function(state, *inputs[i]) -> state`, compiled; it owns its state."""
    compiled, held = jax.jit(function, donate_argnums=0), {"state": jax.tree.map(jnp.copy, state)}

    def run(i: int) -> None:
        held["state"] = jax.block_until_ready(compiled(held["state"], *inputs[i % len(inputs)]))

    return Job(run, amount, lambda: int(elites(held["state"])))


def _first(work: Work) -> tuple[Any, ...]:
    return tuple(jnp.asarray(array[0]) for array in (work.genotypes, work.fitness, work.descriptors))


def _insert_jobs(work: Work, insert: Any, state: Any, elites: Any) -> Jobs:
    """Jobs from a pure function `insert(state, genotypes, fitness, descriptors) -> state`."""
    everything = tuple(map(jnp.asarray, (work.genotypes, work.fitness, work.descriptors)))
    batches = [tuple(map(jnp.asarray, row)) for row in zip(*everything, strict=True)]

    def insert_all(state: Any, *batches: Any) -> Any:
        return jax.lax.scan(lambda state, row: (insert(state, *row), None), state, batches)[0]

    return {
        "insert": _jax_job(insert, state, batches, 1, elites),
        "insert inside": _jax_job(insert_all, state, [everything], INSIDE, elites),
    }


def ours(work: Work, batches: Sequence[int]) -> Jobs:
    """This engine."""
    grid = cells.grid((-1.0, -1.0), (1.0, 1.0), (SIDE, SIDE))

    def insert(state: Any, genotypes: Any, fitness: Any, descriptors: Any) -> Any:
        group = archive.Candidates(
            genotypes=genotypes, fitness=fitness, descriptors=descriptors, policy_version=jnp.int32(0)
        )
        return archive.insert(state, group, 1)[0]

    def generation(state: Any, drawn: tuple[Any, Any]) -> tuple[Any, None]:
        uniforms, noise = drawn
        first, second = jnp.split(archive.pick(state, uniforms)[0], 2)
        genotypes = jnp.clip(along_line(noise, first, second, ISO_SIGMA, LINE_SIGMA), 0.0, 1.0)
        return insert(state, genotypes, *arm(genotypes, jnp)), None

    def block(state: Any, key: Any, together: int, batch: int) -> tuple[Any, None]:
        pick_key, noise_key = jax.random.split(key)
        uniforms = jax.random.uniform(pick_key, (together, 2 * batch))
        return jax.lax.scan(generation, state, (uniforms, gaussian(noise_key, (together, batch, JOINTS + 1))))

    def loop(batch: int) -> Job:
        together = max(1, DRAWN_TOGETHER // batch)
        blocks = max(1, EVALUATIONS // (together * batch))
        keys = [(jax.random.split(key, blocks),) for key in jax.random.split(jax.random.key(0), INSIDE)]

        def run(state: Any, keys: Any) -> Any:
            return jax.lax.scan(lambda state, key: block(state, key, together, batch), state, keys)[0]

        return _jax_job(run, state, keys, blocks * together * batch, count)

    def count(state: Any) -> Any:
        return jnp.sum(state.occupied)

    state = insert(archive.empty(grid, jnp.zeros(JOINTS)), *_first(work))
    return {**_insert_jobs(work, insert, state, count), **{f"loop {batch}": loop(batch) for batch in batches}}


def qdax(work: Work, batches: Sequence[int]) -> Jobs:
    """QDax 0.5.0: its grid is a set of centroids, and a cell the nearest of them."""
    from qdax.core.containers.mapelites_repertoire import MapElitesRepertoire, compute_euclidean_centroids
    from qdax.core.emitters.mutation_operators import isoline_variation
    from qdax.core.emitters.standard_emitters import MixingEmitter
    from qdax.core.map_elites import MAPElites

    centroids = compute_euclidean_centroids((SIDE, SIDE), -1.0, 1.0)
    vary = functools.partial(isoline_variation, iso_sigma=ISO_SIGMA, line_sigma=LINE_SIGMA, minval=0.0, maxval=1.0)

    def insert(state: Any, genotypes: Any, fitness: Any, descriptors: Any) -> Any:
        return state.add(genotypes, descriptors, fitness)

    def loop(batch: int) -> Job:
        emitter = MixingEmitter(lambda genotypes, _: genotypes, vary, variation_percentage=1.0, batch_size=batch)
        evolution = MAPElites(lambda genotypes, _: (*arm(genotypes, jnp), {}), emitter, lambda _: {})
        generations = max(1, EVALUATIONS // batch)

        def run(state: Any, key: Any) -> Any:
            return jax.lax.scan(evolution.scan_update, (state, None, key), None, length=generations)[0][0]

        keys = [(key,) for key in jax.random.split(jax.random.key(0), INSIDE)]
        return _jax_job(run, state, keys, generations * batch, count)

    def count(state: Any) -> Any:
        return jnp.sum(jnp.isfinite(state.fitnesses))

    state = MapElitesRepertoire.init(*_first(work), centroids)
    return {**_insert_jobs(work, insert, state, count), **{f"loop {batch}": loop(batch) for batch in batches}}


def pyribs(work: Work, batches: Sequence[int]) -> Jobs:
    """pyribs 0.12.0 on the host."""
    from ribs.archives import GridArchive
    from ribs.emitters import IsoLineEmitter
    from ribs.schedulers import Scheduler

    def filled() -> Any:
        grid = GridArchive(solution_dim=JOINTS, dims=[SIDE, SIDE], ranges=[(-1.0, 1.0)] * 2, seed=0, dtype=np.float32)
        grid.add(work.genotypes[0], work.fitness[0], work.descriptors[0])
        return grid

    def insert() -> Job:
        grid = filled()
        batches = list(zip(work.genotypes, work.fitness, work.descriptors, strict=True))
        return Job(lambda i: grid.add(*batches[i % INSIDE]), 1, lambda: grid.stats.num_elites)

    def loop(batch: int) -> Job:
        grid, generations = filled(), max(1, EVALUATIONS // batch)
        emitter = IsoLineEmitter(
            grid, iso_sigma=ISO_SIGMA, line_sigma=LINE_SIGMA, x0=np.full(JOINTS, 0.5), batch_size=batch, seed=0,
            lower_bounds=[0.0] * JOINTS, upper_bounds=[1.0] * JOINTS,
        )  # fmt: skip
        scheduler = Scheduler(grid, [emitter])

        def run(_: int) -> None:
            for _ in range(generations):
                scheduler.tell(*arm(scheduler.ask(), np))

        return Job(run, generations * batch, lambda: grid.stats.num_elites)

    return {"insert": insert(), **{f"loop {batch}": loop(batch) for batch in batches}}


CONTESTANTS: dict[str, Callable[[Work, Sequence[int]], Jobs]] = {"ours": ours, "qdax": qdax, "pyribs": pyribs}
MODULES = {"qdax": "qdax", "pyribs": "ribs"}


def installed(name: str) -> bool:
    """Whether a contestant can run here."""
    return name not in MODULES or importlib.util.find_spec(MODULES[name]) is not None


# --- measuring and reporting ----------------------------------------------------------------------------------------


def _seconds(job: Job, calls: int, first: int) -> float:
    begun = time.perf_counter()
    for call in range(first, first + calls):
        job.run(call)
    return (time.perf_counter() - begun) / calls


def measure(names: Sequence[str], batches: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """Time every operation of every contestant, in turn; one row for each."""
    work = Work.draw()
    jobs = {name: CONTESTANTS[name](work, batches) for name in names}
    rows = []
    for operation in jobs["ours"]:
        runners = {name: made[operation] for name, made in jobs.items() if operation in made}
        for job in runners.values():
            _seconds(job, 2, 0)  # compiles
        calls = {name: max(1, round(SECONDS_PER_RUN / _seconds(job, 1, 2))) for name, job in runners.items()}
        times: dict[str, list[float]] = {name: [] for name in runners}
        for turn in range(rounds):
            for name, job in runners.items():
                times[name].append(_seconds(job, calls[name], 3 + turn * calls[name]) / job.amount)
        rows += [_row(operation, name, times, runners[name].elites()) for name in runners]
    return rows


def _row(operation: str, name: str, times: dict[str, list[float]], elites: int) -> dict[str, Any]:
    """Seconds are those of one insertion of a batch, or of one evaluation in a loop."""
    ratio = statistics.median(theirs / own for theirs, own in zip(times[name], times["ours"], strict=True))
    goal = GOALS.get(("loop" if operation.startswith("loop") else operation, name))
    return {
        "operation": operation, "contestant": name, "seconds": statistics.median(times[name]),
        "fastest": min(times[name]), "slowest": max(times[name]), "ratio": ratio, "goal": goal, "elites": elites,
    }  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as Markdown: microseconds of an insertion, evaluations per second of a loop."""
    names = list(dict.fromkeys(row["contestant"] for row in rows))
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        unit = "evaluations/s" if row["operation"].startswith("loop") else "µs"
        lines.setdefault(f"{row['operation']}, {unit}", {})[row["contestant"]] = _cell(row)
    return markdown_table(
        ("operation", *names), ([place, *(cell.get(name, "") for name in names)] for place, cell in lines.items())
    )


def _cell(row: dict[str, Any]) -> str:
    is_loop = row["operation"].startswith("loop")
    figure = rate(1.0 / row["seconds"]) if is_loop else f"{1e6 * row['seconds']:.3g}"
    if row["contestant"] == "ours":
        return figure
    return f"{figure} ({row['ratio']:.3g}×)"


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """Say of every goal whether it was met."""
    loops = [row for row in rows if row["contestant"] == "ours" and row["operation"].startswith("loop")]
    fastest = max((1.0 / row["seconds"] for row in loops), default=0.0)
    lines = [f"loop: {rate(fastest)} evaluations/s, goal {rate(GOAL_PER_SECOND)}: {_met(fastest >= GOAL_PER_SECOND)}"]
    for row in rows:
        if row["goal"]:
            label = f"{row['operation']}: {row['ratio']:.3g} times {row['contestant']}, goal {row['goal']:g}"
            lines.append(f"{label}: {_met(row['ratio'] >= row['goal'])}")
    return "\n".join(lines)


def _met(met: bool) -> str:
    return "met" if met else "missed"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.qd_throughput", description=__doc__.split("\n")[0])
    parser.add_argument("--batches", nargs="+", type=int, default=[256, 1024, 4096])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    origin = provenance()
    names = [name for name in CONTESTANTS if installed(name)]
    left_out = [name for name in CONTESTANTS if name not in names]
    if left_out:
        print(f"not installed, left out: {', '.join(left_out)}", file=sys.stderr)
    rows = measure(names, options.batches, options.rounds)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    versions = {name: importlib.metadata.version(name) for name in ("jax", *(MODULES[n] for n in names if n != "ours"))}
    write_json(options.output, {**origin, "versions": versions, "left_out": left_out, "rows": rows})
    print(table(rows), verdict(rows), sep="\n\n")


if __name__ == "__main__":
    main()
