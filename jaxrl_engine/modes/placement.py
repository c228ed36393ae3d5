"""Where the arrays of a program lie: a mesh of devices with one axis, `data`, and what is split over it.

What learns is one program for one device; which rows of its batch a device computes is said here, at the borders of
that program and at the few places inside where a batch is made, and XLA's partitioner does the rest: it finds the sums
that need every device and puts an all-reduce there, so that losses, advantage moments and running statistics are those
of the whole batch. Nothing below `modes` knows of it.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrl_engine.core.types import PyTree
from jaxrl_engine.runtime.checkpoint_leaves import from_host, to_host

AXIS = "data"
Tree = TypeVar("Tree")


@dataclasses.dataclass(frozen=True)
class Placement:
    """How a program is laid over a mesh; without one it runs on JAX's first device."""

    mesh: Mesh | None = None
    by_run: bool = False  # whole runs are split (the axis `S`), each with all it has: nothing is exchanged
    runs_axis: bool = False  # leaves lead with `S`

    @property
    def size(self) -> int:
        return 1 if self.mesh is None else self.mesh.size

    @property
    def splits_environments(self) -> bool:
        return self.mesh is not None and not self.by_run

    @property
    def everywhere(self) -> NamedSharding | None:
        """A copy on every device."""
        return None if self.mesh is None else NamedSharding(self.mesh, PartitionSpec())

    @property
    def split(self) -> NamedSharding | None:
        """An equal part of the batch on each device."""
        if self.mesh is None:
            return None
        axes = (AXIS,) if self.by_run or not self.runs_axis else (None, AXIS)
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def of(self, tree: PyTree, batched: Callable[[Sequence[str]], bool]) -> PyTree:
        """Where each leaf lies; `batched` says of a path of fields whether what is there leads with the environments.

        None without a mesh.
        """
        if self.mesh is None:
            return None

        def place(path: Any, _: Any) -> NamedSharding | None:
            names = [str(getattr(entry, "name", entry)) for entry in path]
            return self.split if self.by_run or batched(names) else self.everywhere

        return jax.tree_util.tree_map_with_path(place, tree)

    def in_turn(self, program: Callable[..., Tree]) -> Callable[..., Tree]:
        """A compiled program that is never under way beside another one, where that would be wrong.

        A GPU runs programs in the order in which they were started. A CPU runs several at once: then two processes may
        exchange numbers of different programs.
        """
        if jax.process_count() == 1 or jax.default_backend() != "cpu":
            return program
        return lambda *arguments: jax.block_until_ready(program(*arguments))

    def context(self) -> contextlib.AbstractContextManager[Any]:
        """Trace within this, so that `spread` and `everywhere` know the mesh."""
        return jax.set_mesh(self.mesh) if self.splits_environments else contextlib.nullcontext()


ONE_DEVICE = Placement()


def spread(tree: Tree) -> Tree:
    """Let every device hold an equal part of the leading axis; nothing without a mesh, or where it does not divide."""
    return jax.tree.map(lambda leaf: _constrain(leaf, PartitionSpec(AXIS)), tree)


def everywhere(tree: Tree) -> Tree:
    """Let every device hold all of it; where there is no mesh, nothing."""
    return jax.tree.map(lambda leaf: _constrain(leaf, PartitionSpec()), tree)


def _constrain(leaf: Any, spec: PartitionSpec) -> Any:
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or (spec and leaf.shape[0] % mesh.size):
        return leaf
    return jax.lax.with_sharding_constraint(leaf, spec)


def on_first_device(tree: Tree) -> Tree:
    """The copy of this process's first device, of arrays that every device has one of."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0) if len(leaf.sharding.device_set) > 1 else leaf, tree)


def here(tree: Tree, placement: Placement) -> Tree:
    """Return arrays of JAX's default device with what a program's hold, wherever that lies. All ranks must ask."""
    if placement.mesh is None:
        return tree
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
    local: Tree = from_host(shapes, to_host(tree))
    return local


def lay(tree: Tree, shardings: PyTree) -> Tree:
    """Put arrays that every process holds alike where a program wants them (None: on JAX's first device)."""
    return jax.device_put(tree, shardings) if shardings is None else jax.tree.map(_lay, tree, shardings)


def _lay(leaf: Any, sharding: NamedSharding) -> Any:
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_lay(jax.random.key_data(leaf), sharding), impl=jax.random.key_impl(leaf))
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])


def agreed(number: int) -> int:
    """Return rank 0's number, on every rank."""
    if jax.process_count() == 1:
        return number
    halves = np.array(divmod(number, 2**30), np.int32)  # a run may have more steps than an int32 counts
    high, low = multihost_utils.broadcast_one_to_all(halves)
    return int(high) * 2**30 + int(low)
