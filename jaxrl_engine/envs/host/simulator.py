"""What steps the copies of one world, in this process or in a worker: NumPy in, NumPy out.

Nothing here or in a family's own module imports JAX: a worker process starts in a fraction of the time, and memory,
that JAX would take.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from jaxrl_engine.core.spaces import ActionSpace, Box, Discrete, MultiDiscrete

Arrays: TypeAlias = dict[str, np.ndarray]
"""What a simulator shows, by name.

    observation  [b, A, *shape]  what the agents see now: the start of the next episode where one ended
    reward       [b, A]          not after a reset, nor are those below
    terminated   [b]
    truncated    [b]
    metrics      [b, names]      at this step, before any reset
    final        [e, A, *shape]  the true last observations of the `e` episodes that ended, in the order of the copies
"""

REFUSALS = (ValueError, TypeError, AssertionError, LookupError, NotImplementedError)
"""What a world raises while it is made and does not like what it was given."""


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a simulator knows of its world; `observation` and `action` are one agent's."""

    num_agents: int
    observation: Box
    action: ActionSpace
    choices: tuple[int, ...] = ()  # of each agent, where they differ: those beyond are masked
    agent_ids: bool = False  # observations shall end with a one-hot vector of the agent's index
    time_limit: int | None = None  # steps
    metric_names: tuple[str, ...] = ()
    remark: str = ""


@runtime_checkable
class Simulator(Protocol):
    """`num_envs` copies of a world that start anew by themselves. Actions are legal ones when they arrive."""

    @property
    def facts(self) -> Facts: ...

    @property
    def num_envs(self) -> int: ...

    def reset(self, seed: int) -> Arrays:
        """Start every copy; copy `i` is seeded with `seed + i`. What its later episodes draw follows from that."""

    def step(self, actions: np.ndarray) -> Arrays:
        """Advance every copy by its row of `actions [b, A, *action.shape]`."""

    def pictures(self, count: int) -> UInt8[np.ndarray, "n height width 3"]:
        """Return RGB pictures of the first `count` copies as they are now; whatever it raises, there are none."""

    def close(self) -> None:
        """Free what is held; a second call does nothing."""


def stepped(
    observation: np.ndarray,
    reward: np.ndarray,
    flags: tuple[np.ndarray, np.ndarray],
    final: Sequence[np.ndarray] | np.ndarray,
    metrics: np.ndarray | None = None,
) -> Arrays:
    """Gather what a step shows; `flags` are terminated and truncated, without `metrics` there are none."""
    none_ended = np.zeros((0, *observation.shape[1:]), observation.dtype)
    return {
        "observation": observation,
        "reward": np.asarray(reward, np.float32),
        "terminated": np.asarray(flags[0], bool),
        "truncated": np.asarray(flags[1], bool),
        "metrics": np.zeros((len(observation), 0), np.float32) if metrics is None else metrics,
        "final": np.asarray(final, observation.dtype) if len(final) else none_ended,
    }


def box_of(space: Any) -> Box:
    """Translate a Box of gymnasium's: images of bytes stay bytes, everything else becomes float32."""
    dtype = "uint8" if space.dtype == np.uint8 else "float32"
    low, high = (np.asarray(bound, np.float32).ravel().tolist() for bound in (space.low, space.high))
    return Box(tuple(space.shape), tuple(low), tuple(high), dtype)


def action_space_of(space: Any, owner: str) -> ActionSpace:
    """Translate a space of gymnasium's, `owner` is who acts.

    Raises:
        ValueError: it is neither one choice, nor several, nor real numbers.
    """
    kind = type(space).__name__
    if kind == "Discrete":
        return Discrete(int(space.n))
    if kind == "MultiDiscrete" and space.nvec.ndim == 1:
        return MultiDiscrete(tuple(space.nvec.tolist()))
    if kind == "MultiBinary" and len(space.shape) == 1:
        return MultiDiscrete((2,) * space.shape[0])
    if kind == "Box" and np.issubdtype(space.dtype, np.floating):
        return box_of(space)
    raise ValueError(f"the actions of {owner} must be one choice, a row of choices or real numbers, not {space}")


def native_actions(space: Any, actions: np.ndarray) -> np.ndarray:
    """Give actions `[b, *shape]` the numbering and the type in which `space` knows them."""
    return np.asarray(actions + getattr(space, "start", 0), space.dtype)
