"""One of two processes on the loopback interface that sum arrays with each other: how long does one all-reduce take?

    python -m benchmarks.scaling_ranks '{"coordinator": "127.0.0.1:PORT", "rank": 0, …}'    rank 0 answers in JSON

The all-reduces of a measurement follow each other inside one compiled loop, as those of gradient steps do.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.driver import spread

CALLS = 50


def repeated(mesh: Mesh, calls: int) -> Callable[[jax.Array], jax.Array]:
    """Return a program that replaces an array by the mean of all processes', over and over."""

    def own(part: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, calls, lambda _, mine: jax.lax.psum(mine, "data") / mesh.size, part)

    split = PartitionSpec("data")
    return jax.jit(jax.shard_map(own, mesh=mesh, in_specs=split, out_specs=split, check_vma=False))


def measure(sizes: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """Time an all-reduce of each number of bytes, all sizes in turn, round after round."""
    mesh = Mesh(np.array(jax.devices()), ("data",))
    where, program = NamedSharding(mesh, PartitionSpec("data")), repeated(mesh, CALLS)
    arrays = [
        jax.make_array_from_callback((mesh.size, size // 4), where, lambda _, size=size: np.ones((1, size // 4), "f4"))
        for size in sizes
    ]
    for array in arrays:
        jax.block_until_ready(program(array))
    seconds: list[list[float]] = [[] for _ in sizes]
    for _ in range(rounds):
        for each, array in zip(seconds, arrays, strict=True):
            begun = time.perf_counter()
            jax.block_until_ready(program(array))
            each.append((time.perf_counter() - begun) / CALLS)
    return [{"bytes": size, "seconds": spread(each)} for size, each in zip(sizes, seconds, strict=True)]


def main(words: Sequence[str]) -> None:
    """Do what the one argument says."""
    asked = json.loads(words[0])
    coordinator = asked["coordinator"]
    jax.config.update("jax_platforms", "cpu")
    jax.distributed.initialize(
        coordinator, asked["processes"], asked["rank"], cluster_detection_method="deactivate",
        coordinator_bind_address=coordinator,
    )  # fmt: skip
    told = measure(asked["sizes"], asked["rounds"])
    if asked["rank"] == 0:
        print(json.dumps(told), flush=True)
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(sys.argv[1:])
