"""What the ranks of a run must do alike, though each sees another clock and other signals.

Between two chunks a rank may want to stop, to save, or to make the next chunk longer. If ranks did what each wants,
they would run different programs, and wait for each other for ever. So each says what it wants, and all do what is
agreed: they stop if any was told to, and follow rank 0 in everything else.

The votes are a program of their own on the run's devices, started before a chunk and read before the next one: what is
agreed is a chunk old, and nobody waits for it.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from jaxrl_engine.modes.placement import AXIS, Placement


@dataclasses.dataclass(frozen=True)
class Motion:
    """What a rank wants, or all have agreed on."""

    length: int = 1  # updates of the next chunk
    save: bool = False  # after the next chunk
    signal: int | None = None  # that asks for an end


@runtime_checkable
class Council(Protocol):
    """Who decides."""

    def agree(self, motion: Motion) -> Motion:
        """Vote, and return what is agreed."""


class Alone:
    """One process does what it wants."""

    def agree(self, motion: Motion) -> Motion:
        return motion


ALONE = Alone()


class Together:
    """All ranks of a run; each must vote at the same points of its program."""

    def __init__(self, placement: Placement) -> None:
        mesh = placement.mesh
        assert mesh is not None  # several processes have several devices
        self._sharding = NamedSharding(mesh, PartitionSpec(AXIS))
        self._count = placement.in_turn(jax.jit(_count, out_shardings=placement.everywhere))
        self._size = mesh.size
        self._last: Int[Array, "3"] | None = None

    def agree(self, motion: Motion) -> Motion:
        """Vote, and return the outcome of the vote before."""
        vote = np.array([[motion.length, int(motion.save), motion.signal or 0]], np.int32)
        votes = jax.make_array_from_callback((self._size, 3), self._sharding, lambda _: vote)
        outcome, self._last = self._last, self._count(votes)
        if outcome is None:
            return Motion()
        length, save, signal = (int(number) for number in jax.device_get(outcome))
        return Motion(length=length, save=bool(save), signal=signal or None)


def _count(votes: Int[Array, "devices 3"]) -> Int[Array, "3"]:
    """Rank 0's length and word on saving; any rank's signal."""
    return jnp.stack([votes[0, 0], votes[0, 1], votes[:, 2].max()])
