"""What an agent may observe and do: static, hashable descriptions of one agent's observation or action."""

import dataclasses
import math
from typing import TypeAlias


@dataclasses.dataclass(frozen=True)
class Discrete:
    """One of `n` choices; an action is an int32 scalar in `0 … n-1`."""

    n: int

    @property
    def shape(self) -> tuple[int, ...]:
        return ()


@dataclasses.dataclass(frozen=True)
class MultiDiscrete:
    """Several independent choices; an action is an int32 vector `[len(nvec)]`."""

    nvec: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.nvec),)


@dataclasses.dataclass(frozen=True)
class Box:
    """Real numbers of the given shape; bounds are per element, flattened in C order, and may be infinite."""

    shape: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    dtype: str = "float32"

    def __post_init__(self) -> None:
        size = math.prod(self.shape)
        if len(self.low) != size or len(self.high) != size:
            raise ValueError(f"Box.low and Box.high must hold {size} numbers, one per element of shape {self.shape}")

    @classmethod
    def uniform(cls, shape: tuple[int, ...], low: float, high: float, dtype: str = "float32") -> "Box":
        """A box with the same bounds in every element."""
        size = math.prod(shape)
        return cls(shape=shape, low=(low,) * size, high=(high,) * size, dtype=dtype)

    @property
    def bounded(self) -> bool:
        return all(math.isfinite(bound) for bound in (*self.low, *self.high))


ActionSpace: TypeAlias = Discrete | MultiDiscrete | Box
