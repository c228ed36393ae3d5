"""The leaves of a state as named host arrays, their checksums, and the way back.

Typed keys are stored as their bits. A leaf's facts are its path, logical shape and dtype: two trees whose facts agree
hold the same things in the same places.
"""

import dataclasses
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from jaxrl_engine.core.types import PyTree

_MAX_DIFFERENCES = 3


@dataclasses.dataclass(frozen=True)
class LeafFacts:
    """What identifies a leaf: where it is and what it can hold."""

    path: str
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


def leaf_facts(tree: PyTree) -> list[LeafFacts]:
    """Return the facts of every leaf, in the order of `jax.tree.leaves`; leaves may be arrays, scalars or shapes.

    Raises:
        TypeError: a leaf is not numeric.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    named = [(jax.tree_util.keystr(path, simple=True, separator=".") or "state", leaf) for path, leaf in leaves]
    return [LeafFacts(path, _shape(leaf), _dtype(path, leaf)) for path, leaf in named]


def _shape(leaf: Any) -> tuple[int, ...]:
    return tuple(leaf.shape) if hasattr(leaf, "shape") else ()


def _dtype(path: str, leaf: Any) -> str:
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
    if not _is_key(leaf) and dtype.kind in "OUSMm":
        raise TypeError(f"{path} holds a {type(leaf).__name__}, which is not a number")
    return str(dtype)


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def difference(saved: list[LeafFacts], expected: list[LeafFacts]) -> str | None:
    """Say in one line where a saved tree does not fit the expected one, or return None if it does."""
    theirs = {leaf.path: leaf for leaf in saved}
    ours = {leaf.path: leaf for leaf in expected}
    problems = [
        f"{path} is {theirs[path]} in the checkpoint, {ours[path]} here"
        for path in theirs.keys() & ours.keys()
        if theirs[path] != ours[path]
    ]
    problems += [f"{path} is only in the checkpoint" for path in theirs.keys() - ours.keys()]
    problems += [f"{path} is not in the checkpoint" for path in ours.keys() - theirs.keys()]
    if not problems and [leaf.path for leaf in saved] != [leaf.path for leaf in expected]:
        problems = ["the leaves are in another order"]
    more = len(problems) - _MAX_DIFFERENCES
    shown = sorted(problems)[:_MAX_DIFFERENCES]
    return "; ".join([*shown, f"{more} more"] if more > 0 else shown) or None


def to_host(tree: PyTree) -> list[np.ndarray]:
    """Copy every leaf to a NumPy array of its own, C-contiguous: donating or changing the originals is safe afterwards.

    The copy is needed even for arrays already fetched: on the CPU a fetched array is a view of the device's memory.
    What is split over several processes is gathered, so all of them must ask.
    """
    raw = [jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in jax.tree.leaves(tree)]
    return [np.array(leaf, copy=True, order="C") for leaf in jax.device_get([_whole(leaf) for leaf in raw])]


def _whole(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
        return leaf
    return multihost_utils.process_allgather(leaf, tiled=True)


def from_host(template: PyTree, arrays: list[np.ndarray]) -> PyTree:
    """Return the arrays as a tree like the template: leaves of its kinds and, for JAX arrays, placement."""
    leaves, structure = jax.tree.flatten(template)
    placed = [_place(leaf, array) for leaf, array in zip(leaves, arrays, strict=True)]
    return jax.tree.unflatten(structure, placed)


def _place(template: Any, array: np.ndarray) -> Any:
    if isinstance(template, np.ndarray | np.generic):
        return array
    if not isinstance(template, jax.Array | jax.ShapeDtypeStruct):
        return type(template)(array.item())
    value = jnp.array(array)  # a copy: JAX may use memory it was only lent as its own
    if _is_key(template):
        dtype: Any = template.dtype
        value = jax.random.wrap_key_data(value, dtype=dtype)
    fixed = getattr(template, "committed", True) and template.sharding is not None
    return jax.device_put(value, template.sharding) if fixed else value


def empty_array(template: Any) -> np.ndarray:
    """Return the host array of a leaf without elements."""
    raw = jax.eval_shape(jax.random.key_data, template) if _is_key(template) else template
    return np.zeros(raw.shape, raw.dtype)


def checksum(array: np.ndarray) -> int:
    """Return the CRC-32 of an array's dtype, shape and bytes."""
    header = zlib.crc32(f"{array.dtype}{array.shape}".encode())
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, header)
