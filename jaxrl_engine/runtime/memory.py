"""Whether a run fits into memory, asked before it is tried."""

import math
from pathlib import Path
from typing import Any

import jax

from jaxrl_engine.core.errors import UserError


def free_memory_bytes() -> int | None:
    """Return what the fullest accelerator, or this machine, has left for arrays; None where it does not say."""
    statistics = [device.memory_stats() for device in jax.local_devices()]
    left = [facts["bytes_limit"] - facts["bytes_in_use"] for facts in statistics if facts and "bytes_limit" in facts]
    if left:
        return int(min(left))
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    amounts = {name: amount for name, _, amount in (line.partition(":") for line in lines)}
    return int(amounts["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in amounts else None


def require_memory(needed: int, settings: str) -> None:
    """Refuse what would not fit, before it is tried: a process that runs out of memory may be killed without a word.

    `settings` names what the need grows with.

    Raises:
        UserError: more bytes are needed than are free.
    """
    free = free_memory_bytes()
    if free is not None and needed > free:
        share = f"about {free / needed:.2g} times as many fit"
        raise UserError(f"{settings} need {needed / 2**30:.3g} GiB, and {free / 2**30:.3g} GiB are free: {share}")


def bytes_of(shapes: Any, shardings: Any = None) -> int:
    """Return the size of a pytree of arrays or of their shapes, or, with shardings, of one device's part of it.

    Keys count as what they are made of.
    """
    if shardings is not None:
        part = jax.tree.map(lambda leaf, where: where.shard_shape(leaf.shape), shapes, shardings)
        shapes = jax.tree.map(lambda leaf, shape: jax.ShapeDtypeStruct(shape, leaf.dtype), shapes, part)
    return sum(math.prod(leaf.shape) * max(leaf.dtype.itemsize, 1) for leaf in jax.tree.leaves(shapes))
