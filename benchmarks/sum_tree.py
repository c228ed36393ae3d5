"""Prioritised replay beside other libraries: writing priorities, sampling, and a learner's whole cycle.

    python -m benchmarks.sum_tree                                       N = 1e4, 1e5, 1e6 and B = 128, 1024
    python -m benchmarks.sum_tree --capacities 100000 --batches 128

Microseconds per operation on B items of N, medians over rounds in which the contestants take turns; a ratio is the
median of the ratios of neighbours, above 1 where ours is faster. `set` writes B priorities (ours checks B generations
too), `sample` finds B slots, `cycle` inserts B chunks, samples B with their weights and content and writes B priorities
back. `… inside` is the same for JAX libraries in one compiled program, as a fused learner calls it: without the cost of
crossing from Python for every operation. JAX contestants donate their state alike.

Peers are optional: `pip install flashbax==0.1.3 cpprb==11.0.0`. What is not installed is left out, and said so.
"""

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from benchmarks.fused import checksum
from benchmarks.machine import ROOT, provenance
from benchmarks.report import table as markdown_table
from jaxrl_engine.replay import prioritised, sum_tree

RESULT = ROOT / "benchmarks" / "results" / "sum_tree.json"
OPERATIONS = ("set", "sample", "cycle", "set inside", "sample inside", "cycle inside")
SECONDS_PER_RUN = 0.05
INSIDE = 32
"""Operations in one program of the `inside` figures, and different batches every contestant goes through."""
STEPS, BETA, ALPHA = 8, 0.5, 0.6
GOALS = {("set", "flashbax"): 1.0, ("sample", "flashbax"): 1.3, ("cycle", "flashbax"): 1.5}
"""How many times faster than a peer at N = 1e5 and B = 128, in one call and `inside` alike."""

Operations: TypeAlias = dict[str, tuple[Callable[[int], Any], int]]
"""Name to a function that does it on batch number i, and how many operations one call is."""


@dataclasses.dataclass(frozen=True)
class Work:
    """What every contestant does, drawn once."""

    capacity: int
    batch: int
    indices: np.ndarray  # [INSIDE, B]
    priorities: np.ndarray  # [INSIDE, B]
    uniforms: np.ndarray  # [INSIDE, B] one per stratum
    chunks: dict[str, np.ndarray]  # leaves [B, STEPS, …]

    @classmethod
    def draw(cls, capacity: int, batch: int) -> "Work":
        """Draw from a fixed seed."""
        random = np.random.default_rng(0)
        shape = (INSIDE, batch)
        return cls(
            capacity=capacity,
            batch=batch,
            indices=random.integers(0, capacity, shape, np.int32),
            priorities=random.random(shape, np.float32) + 0.1,
            uniforms=np.float32((np.arange(batch) + 0.99 * random.random(shape)) / batch),
            chunks={
                "observation": random.random((batch, STEPS, 4), np.float32),
                "action": random.integers(0, 9, (batch, STEPS), np.int8),
                "reward": random.random((batch, STEPS), np.float32),
                "log_prob": random.random((batch, STEPS), np.float32),
                "terminated": random.random((batch, STEPS)) < 0.1,
            },
        )


def jax_operations(work: Work, tree: Any, buffer: Any, write: Any, find: Any, cycle: Any) -> Operations:
    """Operations from pure functions `write(tree, i, p)`, `find(tree, u)`, `cycle(buffer, key, p, chunks)`."""
    each = [tuple(map(jnp.asarray, row)) for row in zip(work.indices, work.priorities, work.uniforms, strict=True)]
    stacked = tuple(map(jnp.asarray, (work.indices, work.priorities, work.uniforms)))
    keys, chunks = jax.random.split(jax.random.key(0), INSIDE), jax.tree.map(jnp.asarray, work.chunks)
    key_list = list(keys)
    held = {"tree": tree, "buffer": buffer}

    def keep(name: str, function: Any) -> Callable[..., None]:
        compiled = jax.jit(function, donate_argnums=0)

        def run(*arguments: Any) -> None:
            held[name], out = jax.block_until_ready(compiled(held[name], *arguments))
            del out

        return run

    def sample_all(tree: Any, uniforms: Any) -> Any:
        return jax.lax.scan(lambda total, u: (total + jnp.sum(find(tree, u)), None), jnp.int32(0), uniforms)[0]

    def write_all(tree: Any, indices: Any, priorities: Any) -> Any:
        return jax.lax.scan(lambda tree, x: (write(tree, *x), None), tree, (indices, priorities))

    def cycle_all(buffer: Any, keys: Any, priorities: Any, chunks: Any) -> Any:
        def one(carry: Any, x: Any) -> Any:
            buffer, out = cycle(carry, *x, chunks)
            return buffer, checksum(out)

        return jax.lax.scan(one, buffer, (keys, priorities))

    set_one, cycle_one = keep("tree", lambda tree, i, p: (write(tree, i, p), None)), keep("buffer", cycle)
    set_all, run_cycles = keep("tree", write_all), keep("buffer", cycle_all)
    find_one, find_all = jax.jit(find), jax.jit(sample_all)
    return {
        "set": (lambda i: set_one(each[i][0], each[i][1]), 1),
        "sample": (lambda i: jax.block_until_ready(find_one(held["tree"], each[i][2])), 1),
        "cycle": (lambda i: cycle_one(key_list[i], each[i][1], chunks), 1),
        "set inside": (lambda _: set_all(*stacked[:2]), INSIDE),
        "sample inside": (lambda _: jax.block_until_ready(find_all(held["tree"], stacked[2])), INSIDE),
        "cycle inside": (lambda _: run_cycles(keys, stacked[1], chunks), INSIDE),
    }


def ours(work: Work) -> Operations:
    """This engine."""
    generations = jnp.ones(work.batch, jnp.int32)
    full = np.random.default_rng(1).random(work.capacity, np.float32) + 0.1
    tree = jax.jit(sum_tree.put)(sum_tree.init(work.capacity), jnp.arange(work.capacity), full)
    buffer = prioritised.init(jax.tree.map(lambda leaf: leaf[0], work.chunks), work.capacity, alpha=ALPHA)
    insert = jax.jit(prioritised.insert, donate_argnums=0)
    for _ in range(work.capacity // work.batch):
        buffer = insert(buffer, work.chunks, None, 0)

    def cycle(buffer: Any, key: Any, priorities: Any, chunks: Any) -> Any:
        buffer = prioritised.insert(buffer, chunks, None, 0)
        buffer, drawn = prioritised.sample(buffer, key, work.batch, 0)
        buffer = prioritised.update_priorities(buffer, drawn.indices, drawn.generations, priorities)
        return buffer, (drawn.items, prioritised.importance_weights(drawn, BETA))

    def write(tree: Any, indices: Any, priorities: Any) -> Any:
        return sum_tree.set(tree, indices, priorities, generations)

    return jax_operations(work, tree, buffer, write, lambda tree, uniforms: sum_tree.sample(tree, uniforms)[0], cycle)


def flashbax(work: Work) -> Operations:
    """Flashbax 0.1.3: as many rows as chunks in an insert, a stride of one chunk; the weights are left to its user."""
    import flashbax as library
    from flashbax.buffers import sum_tree as peer_tree
    from flashbax.buffers.prioritised_trajectory_buffer import SET_BATCH_FN

    write = SET_BATCH_FN[jax.default_backend()]
    full = np.random.default_rng(1).random(work.capacity, np.float32) + 0.1
    tree = jax.jit(write)(peer_tree.init(work.capacity), jnp.arange(work.capacity), full)
    api = library.make_prioritised_trajectory_buffer(
        add_batch_size=work.batch,
        sample_batch_size=work.batch,
        sample_sequence_length=STEPS,
        period=STEPS,
        min_length_time_axis=STEPS,
        max_length_time_axis=work.capacity // work.batch * STEPS,
        priority_exponent=ALPHA,
        device=jax.default_backend(),
    )
    buffer = api.init(jax.tree.map(lambda leaf: jnp.asarray(leaf[0, 0]), work.chunks))
    add = jax.jit(api.add, donate_argnums=0)
    for _ in range(work.capacity // work.batch):
        buffer = add(buffer, work.chunks)

    def cycle(buffer: Any, key: Any, priorities: Any, chunks: Any) -> Any:
        buffer = api.add(buffer, chunks)
        drawn = api.sample(buffer, key)
        weights = (work.capacity * drawn.probabilities) ** -BETA
        buffer = api.set_priorities(buffer, drawn.indices, priorities)
        return buffer, (drawn.experience, weights / jnp.max(weights))

    def find(tree: Any, uniforms: Any) -> Any:
        return jax.vmap(peer_tree.sample, in_axes=(None, None, 0))(tree, None, uniforms)

    return jax_operations(work, tree, buffer, write, find, cycle)


def cpprb(work: Work) -> Operations:
    """cpprb 11: C++ on the host. Its `sample` cannot be had without weights and content."""
    from cpprb import PrioritizedReplayBuffer

    fields = {name: {"shape": leaf.shape[1:], "dtype": leaf.dtype} for name, leaf in work.chunks.items()}
    buffer = PrioritizedReplayBuffer(work.capacity, fields, alpha=ALPHA)
    for _ in range(work.capacity // work.batch):
        buffer.add(**work.chunks)

    def cycle(i: int) -> None:
        buffer.add(**work.chunks)
        drawn = buffer.sample(work.batch, BETA)
        buffer.update_priorities(drawn["indexes"], work.priorities[i])

    return {
        "set": (lambda i: buffer.update_priorities(work.indices[i], work.priorities[i]), 1),
        "sample": (lambda i: buffer.sample(work.batch, BETA), 1),
        "cycle": (cycle, 1),
    }


def plain_python(work: Work) -> Operations:
    """A heap in a list."""
    leaves = 1 << (work.capacity - 1).bit_length()
    nodes = [0.0] * leaves + [1.0] * work.capacity + [0.0] * (leaves - work.capacity)
    for node in range(leaves - 1, 0, -1):
        nodes[node] = nodes[2 * node] + nodes[2 * node + 1]

    def write(i: int) -> None:
        for index, priority in zip(work.indices[i].tolist(), work.priorities[i].tolist(), strict=True):
            node = leaves + index
            nodes[node] = priority
            while node > 1:
                node >>= 1
                nodes[node] = nodes[2 * node] + nodes[2 * node + 1]

    def find(i: int) -> list[int]:
        found = []
        for uniform in work.uniforms[i].tolist():
            node, target = 1, uniform * nodes[1]
            while node < leaves:
                node *= 2
                if target >= nodes[node] and nodes[node + 1] > 0.0:
                    target, node = target - nodes[node], node + 1
            found.append(node - leaves)
        return found

    return {"set": (write, 1), "sample": (find, 1)}


CONTESTANTS: dict[str, Callable[[Work], Operations]] = {
    "ours": ours, "flashbax": flashbax, "cpprb": cpprb, "plain Python": plain_python,
}  # fmt: skip
BUILT_IN = ("ours", "plain Python")


def installed(name: str) -> bool:
    """Whether a contestant can run here."""
    return name in BUILT_IN or importlib.util.find_spec(name) is not None


def _seconds(function: Callable[[int], Any], calls: int) -> float:
    begun = time.perf_counter()
    for call in range(calls):
        function(call % INSIDE)
    return (time.perf_counter() - begun) / calls


def measure(capacity: int, batch: int, names: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """Time every operation of every contestant, in turn; one row for each."""
    work = Work.draw(capacity, batch)
    operations = {name: CONTESTANTS[name](work) for name in names}
    rows = []
    for operation in OPERATIONS:
        runners = {name: made[operation] for name, made in operations.items() if operation in made}
        for function, _ in runners.values():
            _seconds(function, 2)  # compiles
        calls = {name: max(2, round(SECONDS_PER_RUN / _seconds(each[0], 2))) for name, each in runners.items()}
        times: dict[str, list[float]] = {name: [] for name in runners}
        for _ in range(rounds):
            for name, (function, count) in runners.items():
                times[name].append(1e6 * _seconds(function, calls[name]) / count)
        rows += [_row(capacity, batch, operation, name, times) for name in runners]
    return rows


def _row(capacity: int, batch: int, operation: str, name: str, times: dict[str, list[float]]) -> dict[str, Any]:
    ratio = statistics.median(theirs / own for theirs, own in zip(times[name], times["ours"], strict=True))
    goal = GOALS.get((operation.removesuffix(" inside"), name)) if (capacity, batch) == (100_000, 128) else None
    return {
        "capacity": capacity, "batch": batch, "operation": operation, "contestant": name,
        "microseconds": statistics.median(times[name]), "fastest": min(times[name]), "slowest": max(times[name]),
        "ratio": ratio, "goal": goal,
    }  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as Markdown: one line for an operation at a size, the contestants beside one another."""
    names = list(dict.fromkeys(row["contestant"] for row in rows))
    lines: dict[tuple[Any, ...], dict[str, str]] = {}
    for row in rows:
        place = (row["operation"], f"{row['capacity']:,}", f"{row['batch']:,}")
        lines.setdefault(place, {})[row["contestant"]] = _cell(row)
    header = ("operation", "N", "B", *(f"{name}, µs" for name in names))
    return markdown_table(
        header, ([*place, *(cells.get(name, "") for name in names)] for place, cells in lines.items())
    )


def _cell(row: dict[str, Any]) -> str:
    if row["contestant"] == "ours":
        return f"{row['microseconds']:.3g}"
    missed = f" **goal {row['goal']:g} missed**" if row["goal"] and row["ratio"] < row["goal"] else ""
    return f"{row['microseconds']:.3g} ({row['ratio']:.2f}×){missed}"


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot microseconds over the capacity, one panel for each operation, for the smallest batch."""
    batch = min(row["batch"] for row in rows)
    figure = Figure(figsize=(11.0, 6.0), layout="constrained")
    for axes, operation in zip(figure.subplots(2, 3).flat, OPERATIONS, strict=True):
        chosen = [row for row in rows if row["operation"] == operation and row["batch"] == batch]
        for name in dict.fromkeys(row["contestant"] for row in chosen):
            own = [row for row in chosen if row["contestant"] == name]
            axes.plot([row["capacity"] for row in own], [row["microseconds"] for row in own], marker="o", label=name)
        axes.set(xscale="log", yscale="log", title=f"{operation}, B = {batch}", xlabel="N", ylabel="µs")
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=130)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sum_tree", description=__doc__.split("\n")[0])
    parser.add_argument("--capacities", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--batches", nargs="+", type=int, default=[128, 1024])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    names = [name for name in CONTESTANTS if installed(name)]
    left_out = [name for name in CONTESTANTS if name not in names]
    if left_out:
        print(f"not installed, left out: {', '.join(left_out)}", file=sys.stderr)
    rows = []
    for capacity in options.capacities:
        for batch in options.batches:
            rows += measure(capacity, batch, names, options.rounds)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    versions = {name: importlib.metadata.version(name) for name in ("jax", *names) if name not in BUILT_IN}
    record = {**provenance(), "versions": versions, "left_out": left_out, "rows": rows}
    options.output.write_text(json.dumps(record, indent=1) + "\n")
    draw(rows, options.output.with_suffix(".png"))
    print(table(rows))


if __name__ == "__main__":
    main()
