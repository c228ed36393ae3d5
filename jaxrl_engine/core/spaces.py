"""What an agent may observe and do: static, hashable descriptions of one agent's observation or action."""

import dataclasses
import math
from typing import Any, TypeAlias

from jaxtyping import Bool, Float


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


@dataclasses.dataclass(frozen=True)
class Tokens:
    """How a flat observation describes a set: `count` tokens of `size` numbers, row by row, then a global vector.

    Each token is a slot, such as one for a joint of a body. Its last number says whether the slot is in use: 1, or 0.
    """

    count: int
    size: int

    def split(
        self, observation: Float[Any, "*batch D"]
    ) -> tuple[Float[Any, "*batch count size"], Bool[Any, "*batch count"], Float[Any, "*batch G"]]:
        """Return the tokens, which of them are in use, and the global vector; of NumPy's arrays as of JAX's."""
        length = self.count * self.size
        tokens = observation[..., :length].reshape(*observation.shape[:-1], self.count, self.size)
        return tokens, tokens[..., -1] > 0.5, observation[..., length:]


ActionSpace: TypeAlias = Discrete | MultiDiscrete | Box
