"""The process that is timed: it compiles, says it is ready, then trains once for every `run` it reads.

Arguments: the task as JSON and the file descriptor to answer on (1 by default; libraries print on theirs). One line of
JSON per answer, one command (`run` or `quit`) per line on standard input. Between two commands the process sleeps in a
read, so contestants that wait cost the one that runs nothing. Standard library only: the same file serves every virtual
environment.
"""

import dataclasses
import importlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

Repetition = Callable[[], None]


@dataclasses.dataclass(frozen=True)
class Task:
    """What every contestant is asked to do; `updates` of `num_envs` × `num_steps` steps are one repetition."""

    environment: Literal["cartpole", "reacher"] = "cartpole"
    level: Literal["environment", "inference", "training"] = "training"
    num_envs: int = 32
    num_steps: int = 32
    num_epochs: int = 4
    num_minibatches: int = 4
    updates: int = 16
    seed: int = 0
    episode_length: int = 50  # reacher only
    hidden_sizes: tuple[int, ...] = (64, 64)
    learning_rate: float = 3e-4
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_epsilon: float = 0.2
    value_coefficient: float = 0.5
    entropy_coefficient: float = 0.0
    max_grad_norm: float = 0.5

    @property
    def samples_per_update(self) -> int:
        return self.num_envs * self.num_steps

    @property
    def minibatch_size(self) -> int:
        return self.samples_per_update // self.num_minibatches

    @property
    def steps(self) -> int:
        """Environment steps of one repetition."""
        return self.updates * self.samples_per_update

    @classmethod
    def from_json(cls, text: str) -> "Task":
        """Read what `json.dumps(dataclasses.asdict(task))` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "hidden_sizes": tuple(fields["hidden_sizes"])})


class Line:
    """The line to the driver."""

    def __init__(self) -> None:
        self._answers = os.fdopen(int(sys.argv[2]) if len(sys.argv) > 2 else 1, "w", buffering=1)

    def say(self, **message: Any) -> None:
        """Send one answer."""
        self._answers.write(json.dumps(message) + "\n")

    def wait(self) -> bool:
        """Sleep until the next command; True: run, False: quit (or the driver is gone)."""
        return sys.stdin.readline().strip() == "run"


def peak_memory_bytes() -> int:
    """Return the largest resident set this process has had, or -1 where the system does not tell."""
    # Not getrusage: its maximum survives exec and would contain the driver's own memory.
    try:
        with open("/proc/self/status") as status:
            peak = next(line for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return -1
    return int(peak.split()[1]) * 1024


def device() -> dict[str, Any]:
    """Describe the accelerator JAX uses and its peak memory; an empty dictionary where JAX is not loaded."""
    jax = sys.modules.get("jax")
    if jax is None:
        return {}
    first = jax.devices()[0]
    memory = first.memory_stats() or {}
    return {"platform": first.platform, "kind": first.device_kind, "peak_bytes": memory.get("peak_bytes_in_use")}


def installed(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of the named packages."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}


def timed(repetition: Repetition) -> dict[str, float]:
    """Run once; wall seconds, and processor seconds of all threads."""
    wall, processor = time.perf_counter(), time.process_time()
    repetition()
    return {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - processor}


def serve(build: Callable[[Task], Repetition], packages: tuple[str, ...], worlds: Mapping[str, str]) -> None:
    """Build the task given as the first argument, warm up, and answer commands until told to quit.

    `compile_seconds` is what the first repetition costs, from nothing built to its last step done, above the second.
    `worlds` names the module that brings each environment: it is imported before that clock starts, like all others.
    """
    line = Line()
    task = Task.from_json(sys.argv[1])
    if task.environment in worlds:
        importlib.import_module(worlds[task.environment])
    start = time.perf_counter()
    repetition = build(task)
    repetition()
    first = time.perf_counter() - start
    compile_seconds = max(0.0, first - timed(repetition)["seconds"])
    line.say(ready=True, compile_seconds=compile_seconds, versions=installed(*packages))
    while line.wait():
        line.say(steps=task.steps, **timed(repetition), peak_memory_bytes=peak_memory_bytes(), device=device())
