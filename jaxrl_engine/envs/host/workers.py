"""A simulator spread over processes: each steps a share of the copies, and none can keep the run waiting.

Workers are programs of their own, not forks: a process in which JAX runs threads must not be forked, and a script
without a `__main__` guard must not be run again. A terminal's Ctrl-C reaches the run alone.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.envs.host.pictures import NoPictures, stacked
from jaxrl_engine.envs.host.protocol import HostWorldError
from jaxrl_engine.envs.host.simulator import Arrays, Facts
from jaxrl_engine.envs.host.wire import Deadline, facts_from_words, receive, send

GRACE = 2.0
"""Seconds that workers have to leave by themselves when they are closed."""
LAST_WAIT = 5.0
"""Seconds to wait for the system to clear away a process that was killed, or that closed its connection."""


class Worker:
    """One process and the connection to it."""

    def __init__(self, title: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jaxrl_engine.envs.host.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        self.sock = ours
        self.title = f"{title} (process {self.process.pid})"

    def tell(self, words: dict[str, Any], arrays: Arrays, seconds: float, deadline: Deadline) -> None:
        """Ask for something that may take `seconds`."""
        with self._blamed(seconds):
            send(self.sock, {**words, "seconds": seconds}, arrays, deadline)

    def hear(self, seconds: float, deadline: Deadline) -> tuple[dict[str, Any], Arrays]:
        """Return the answer.

        Raises:
            UserError: what the user asked for cannot be had.
            ValueError: the world could not be made with what it was given.
            HostWorldError: the worker failed, died or did not answer in time.
        """
        with self._blamed(seconds):
            words, arrays = receive(self.sock, deadline)
        if words.get("user"):
            raise UserError(words["reason"])
        if words.get("refused"):
            raise ValueError(words["reason"])
        if "error" in words:
            raise HostWorldError(f"{self.title} failed: {words['error']}: {words['reason']}\n{words['trace']}")
        return words, arrays

    def end(self, deadline: Deadline) -> None:
        """Wait until the process has ended; kill it at the deadline."""
        with contextlib.suppress(subprocess.TimeoutExpired, TimeoutError):
            self.process.wait(deadline.left())
            return
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(LAST_WAIT)

    @contextlib.contextmanager
    def _blamed(self, seconds: float) -> Any:
        """Name this worker in whatever goes wrong with its connection."""
        try:
            yield
        except TimeoutError as error:
            raise HostWorldError(f"{self.title} did not answer within {seconds:g} s") from error
        except (EOFError, OSError) as error:
            raise HostWorldError(f"{self.title} {self._fate()}") from error

    def _fate(self) -> str:
        try:
            code = self.process.wait(LAST_WAIT)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


class Workers:
    """A family's simulator, `num_envs` copies shared out over processes. After a failure it can only be closed."""

    def __init__(
        self, env_id: str, module: str, num_envs: int, processes: int, seconds: float, values: Mapping[str, Any]
    ) -> None:
        """Start the processes; `module.simulate(name, share, **values)` makes what each of them steps.

        Raises:
            UserError: what the user asked for cannot be had.
            ValueError: the world could not be made with what it was given.
            HostWorldError: a worker failed, died or did not answer within `seconds`.
        """
        self.num_envs = num_envs
        self._seconds = seconds
        shares = [num_envs // processes + (i < num_envs % processes) for i in range(processes)]
        self._starts = np.cumsum([0, *shares])
        self._workers: list[Worker] = []
        try:
            for i in range(processes):
                self._workers.append(Worker(f"worker {i} of {processes} of {env_id}"))
            wanted = {"module": module, "name": env_id.partition(":")[2], "values": dict(values)}
            answers = self._asked(lambda i: ({**wanted, "num_envs": shares[i]}, {}))
        except BaseException:
            self.close()
            raise
        self.facts: Facts = facts_from_words(answers[0][0])

    @property
    def pids(self) -> list[int]:
        """The processes' ids."""
        return [worker.process.pid for worker in self._workers]

    def reset(self, seed: int) -> Arrays:
        """Start every copy; copy `i` is seeded with `seed + i`, whichever process it is in.

        Raises:
            HostWorldError: a worker failed, died or did not answer in time.
        """
        return self._joined(self._asked(lambda i: ({"seed": seed + int(self._starts[i])}, {})))

    def step(self, actions: np.ndarray) -> Arrays:
        """Advance every copy by its row of `actions [b, A, *action.shape]`.

        Raises:
            HostWorldError: a worker failed, died or did not answer in time.
        """
        return self._joined(self._asked(lambda i: ({}, {"actions": actions[self._starts[i] : self._starts[i + 1]]})))

    def pictures(self, count: int) -> UInt8[np.ndarray, "n height width 3"]:
        """Return pictures of the first `count` copies; the other processes are not asked.

        Raises:
            NoPictures: the world has none, or failed to draw one.
            HostWorldError: a worker died or did not answer in time.
        """
        shares = np.diff(np.minimum(self._starts, count))
        involved = [worker for worker, share in zip(self._workers, shares, strict=True) if share]
        answers = self._asked(lambda i: ({"pictures": int(shares[i])}, {}), involved)
        for words, _ in answers:
            if "no_pictures" in words:
                raise NoPictures(words["no_pictures"])
        return stacked([picture for _, arrays in answers for picture in arrays["pictures"]])

    def close(self) -> None:
        """End the processes: those that do not leave by themselves are killed."""
        for worker in self._workers:
            worker.sock.close()
        deadline = Deadline(GRACE)
        for worker in self._workers:
            worker.end(deadline)

    def _asked(
        self, question: Callable[[int], tuple[dict[str, Any], Arrays]], asked: Sequence[Worker] | None = None
    ) -> list[tuple[dict[str, Any], Arrays]]:
        """Ask all, or the first few, then hear them: together they have one deadline."""
        deadline, asked = Deadline(self._seconds), self._workers if asked is None else asked
        for i, worker in enumerate(asked):
            worker.tell(*question(i), self._seconds, deadline)
        return [worker.hear(self._seconds, deadline) for worker in asked]

    @staticmethod
    def _joined(answers: list[tuple[dict[str, Any], Arrays]]) -> Arrays:
        return {name: np.concatenate([arrays[name] for _, arrays in answers]) for name in answers[0][1]}
