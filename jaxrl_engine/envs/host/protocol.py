"""What a host world offers: a batch of real environments, stepped from Python, that start anew by themselves."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import EnvSpec


class HostWorldError(RuntimeError):
    """A world outside JAX failed, died or hung; the text names it and its process. Only `close` is left to call."""


class HostStep(Struct):
    """What `b` environments show after `reset` or `step`: a `core.types.TimeStep` in NumPy, and how episodes ended.

    Reward, flags and metrics belong to the step that led here, `observation`, `global_state` and `action_mask` to what
    comes next: where an episode ended, the first of the new one. A step may be terminated or truncated or both.

    No two arrays share memory, with one another or with the world: JAX takes over aligned arrays without copying them.
    """

    observation: Shaped[np.ndarray, "b A ..."]  # [b, A, *observation.shape]
    global_state: Shaped[np.ndarray, "b ..."]  # [b, *global_state.shape]
    action_mask: Bool[np.ndarray, "b A n"] | None  # True: allowed
    reward: Float[np.ndarray, "b A"]  # float32
    terminated: Bool[np.ndarray, "b"]  # the world ended: no value follows
    truncated: Bool[np.ndarray, "b"]  # only patience ended: the value of the final observation follows
    metrics: dict[str, Float[np.ndarray, "b"]]  # float32, read where an episode ended
    final_observation: Shaped[np.ndarray, "b A ..."]  # the true last one where an episode ended, else `observation`
    final_global_state: Shaped[np.ndarray, "b ..."]  # likewise

    @property
    def done(self) -> Bool[np.ndarray, "b"]:
        """Where an episode ended."""
        return self.terminated | self.truncated


@runtime_checkable
class HostVectorEnv(Protocol):
    """`num_envs` environments of one world. One thread at a time may use it."""

    @property
    def spec(self) -> EnvSpec: ...

    @property
    def num_envs(self) -> int: ...

    def reset(self, seed: int) -> HostStep:
        """Start every environment, the `i`-th seeded with `seed + i`: rewards and metrics 0, no flag set."""

    def step(self, actions: Shaped[np.ndarray, "b A ..."]) -> HostStep:
        """Advance every environment. Illegal actions become the nearest legal ones and are counted."""

    def pictures(self, count: int) -> UInt8[np.ndarray, "n height width 3"] | None:
        """Return RGB pictures of the first `min(count, num_envs)` environments as they are now; None: it has none."""

    def close(self) -> None:
        """End what runs, within seconds, whatever state it is in; a second call does nothing."""
