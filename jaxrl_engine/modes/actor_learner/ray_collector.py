"""Collectors in processes of Ray's, on this machine or on others: the same source of worlds, NumPy in and out.

A thread per Ray actor drives it as it would drive worlds of its own, so tickets, heartbeats, restarts and their counts
are those of `actors`. It has one call under way: while the learner's thread takes a rollout, the next one of each actor
is being collected, and a second call would only fix its parameters earlier than they are needed.
"""

import collections
import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, UInt32

from jaxrl_engine.core.types import Chunk, PyTree, TrainState
from jaxrl_engine.modes.actor_learner.collector import Collected, Collector, Source
from jaxrl_engine.runtime import ray_session
from jaxrl_engine.runtime.devices import enable_compile_cache
from jaxrl_engine.runtime.errors import RunError

COMPILE_SECONDS = 1800.0
CLOSE_SECONDS = 3.0
"""An idle actor has so long to end the processes of its worlds before it is killed."""
SAFE_THREADS = 4
"""Of a process with more than one: as `jaxrl_engine` sets it."""
KEPT_VERSIONS = 2
"""Parameters in Ray's store: a thread may have fetched the older ones just before the newer came."""


class LostActorError(RunError):
    """A Ray actor's process is gone, and the episodes that were under way in it."""


class Workplace:
    """What runs in the process of a Ray actor: the worlds of one actor, stepped by the collector of a source."""

    def __init__(self, source: Source) -> None:
        enable_compile_cache()
        self._source = source
        self._collector: Collector | None = None

    def compile(self, behaviour: PyTree) -> int:
        """Compile for parameters of these shapes, or load that from the cache; returns the process's id."""
        self._source.compile(behaviour)
        return os.getpid()

    def begin(self, key: UInt32[np.ndarray, "..."], actor: int) -> None:
        """Begin episodes. The key is consumed."""
        self._collector = self._source.begin(_key(key), actor)

    def collect(self, behaviour: PyTree, key: UInt32[np.ndarray, "..."]) -> Collected:
        """Return a rollout in NumPy's arrays. The key is consumed."""
        assert self._collector is not None  # `begin` comes first
        collected: Collected = jax.device_get(self._collector.collect(behaviour, _key(key)))
        return collected

    def close(self) -> None:
        """Free what the worlds hold."""
        if self._collector is not None:
            self._collector.close()


class Worker:
    """The near end of a workplace."""

    def __init__(self, source: Any, environment: Mapping[str, str]) -> None:
        ray = ray_session.ray()
        # No restarts by Ray: a process begun anew would have lost its worlds without anybody knowing. No CPUs either:
        # they are Ray's bookkeeping, and four actors on two cores must not wait for one another.
        options = {"num_cpus": 0, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        remote = ray.remote(Workplace).options(**options, runtime_env={"env_vars": dict(environment)})
        self.handle = remote.remote(source)
        self.title = "a Ray actor"
        self._closing = threading.Lock()
        self.is_ready = self._busy = self._closed = False

    def compile(self, behaviour: PyTree) -> Any:
        """Begin to compile; what is returned is for `compiled`."""
        return self.handle.compile.remote(behaviour)

    def compiled(self, promise: Any, seconds: float) -> None:
        """Wait until that is done.

        Raises:
            TimeoutError, LostActorError: see `ask`.
        """
        self.pid = int(self._hear(promise, seconds))
        self.title, self.is_ready = f"the Ray actor in process {self.pid}", True

    def ask(self, name: str, seconds: float, *arguments: Any) -> Any:
        """Call a method of the workplace and return its answer; if that was an exception, raise it.

        Raises:
            TimeoutError: no answer in time.
            LostActorError: the process, or its machine, is gone.
        """
        self._busy = True
        try:
            answer = self._hear(getattr(self.handle, name).remote(*arguments), seconds)
        except Exception as error:
            self._busy = isinstance(error, TimeoutError)  # it may still be at it
            raise
        self._busy = False
        return answer

    def close(self) -> None:
        """Kill the process, after asking an idle one to end those of its worlds; safe to call twice."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            with contextlib.suppress(Exception):  # it is gone, or Ray is
                if not self._busy:
                    self.ask("close", CLOSE_SECONDS)
            with contextlib.suppress(Exception):
                ray_session.ray().kill(self.handle)

    def _hear(self, promise: Any, seconds: float) -> Any:
        ray = ray_session.ray()
        try:
            return ray.get(promise, timeout=seconds)
        except ray.exceptions.GetTimeoutError:
            raise TimeoutError(f"{self.title} did not answer within {seconds:g} s") from None
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from error
        except ray.exceptions.RayError as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            ends = said[0] if len(said) == 1 else f"{said[0]} {said[-1]}"
            raise LostActorError(f"{self.title} is gone: {ends}") from error


class Parameters:
    """What actors act with, put into Ray's store once for all of them."""

    def __init__(self) -> None:
        self._kept: collections.deque[tuple[TrainState, Any]] = collections.deque(maxlen=KEPT_VERSIONS)
        self._mutex = threading.Lock()

    def reference(self, behaviour: TrainState) -> Any:
        """Return where in the store these parameters are; the oldest ones there are dropped for new ones."""
        with self._mutex:
            for kept, reference in self._kept:
                if kept is behaviour:
                    return reference
            reference = ray_session.ray().put(jax.device_get(behaviour))
            self._kept.append((behaviour, reference))
            return reference


class RayCollector:
    """The worlds of one actor, in a process of Ray's. Their state is there, and is not saved."""

    def __init__(self, worker: Worker, parameters: Parameters, seconds: float) -> None:
        self.state = None
        self.worker = worker
        self._parameters, self._seconds = parameters, seconds

    def collect(self, behaviour: TrainState, key: Key[Array, ""]) -> Collected:
        """Step every environment `T` times; the arrays are NumPy's and read-only. The key is consumed.

        Raises:
            TimeoutError, LostActorError: see `Worker.ask`; whatever the worlds raise is raised here too.
        """
        reference = self._parameters.reference(behaviour)
        collected: Collected = self.worker.ask("collect", self._seconds, reference, _data(key))
        return collected

    def close(self) -> None:
        self.worker.close()


class RaySource:
    """Any source, at work in processes of Ray's. It is sent there as it is, so worlds of the user's own work too."""

    def __init__(self, source: Source, address: str, num_workers: int, seconds: float) -> None:
        """Join Ray, before anything of a run is written; an actor that is silent for `seconds` counts as lost.

        Raises:
            UserError, RunError: see `ray_session.join`.
        """
        ray_session.join(address)
        self._leave = weakref.finalize(self, ray_session.leave)
        self.source = source
        self._address, self._num_workers, self._seconds = address, num_workers, seconds
        self._parameters = Parameters()
        self._workers: weakref.WeakSet[Worker] = weakref.WeakSet()
        self._ready: collections.deque[Worker] = collections.deque()
        self._dismissed = False

    def example(self, behaviour: TrainState) -> Chunk:
        return self.source.example(behaviour)

    def compile(self, behaviour: TrainState) -> None:
        """Start a process for each actor; the first one compiles, the others load that from the cache.

        Raises:
            TimeoutError, LostActorError: see `Worker.ask`; whatever the compiler raises is raised here too.
        """
        self._behaviour = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), behaviour)
        self._sent = ray_session.ray().put(self.source)
        workers = [self._employ() for _ in range(self._num_workers)]
        workers[0].compiled(workers[0].compile(self._behaviour), COMPILE_SECONDS)
        promises = [(worker, worker.compile(self._behaviour)) for worker in workers[1:]]
        for worker, promise in promises:
            worker.compiled(promise, COMPILE_SECONDS)
        self._ready.extend(workers)

    def begin(self, key: Key[Array, ""], actor: int = 0) -> RayCollector:
        """Return a collector at the start of new episodes, in a process of its own. The key is consumed.

        Raises:
            TimeoutError, LostActorError: see `Worker.ask`; whatever the worlds raise is raised here too.
        """
        worker = self._ready.popleft() if self._ready else self._employ()  # actors never outnumber those made ready
        try:
            if not worker.is_ready:
                worker.compiled(worker.compile(self._behaviour), self._seconds)
            worker.ask("begin", self._seconds, _data(key), actor)
        except BaseException:
            worker.close()
            raise
        return RayCollector(worker, self._parameters, self._seconds)

    def dismiss(self) -> None:
        """End every process, for good: whoever waits for one wakes with a LostActorError."""
        self._dismissed = True
        for worker in list(self._workers):
            worker.close()

    def close(self) -> None:
        """End every process, and Ray where nobody else in this process needs it; safe to call twice."""
        self.dismiss()
        self._leave()

    def _employ(self) -> Worker:
        if self._dismissed:
            raise LostActorError("all Ray actors have been dismissed")
        worker = Worker(self._sent, _environment(self._address, self._num_workers))
        self._workers.add(worker)
        return worker


def _data(key: Key[Array, ""]) -> UInt32[np.ndarray, "..."]:
    """A key as NumPy's numbers."""
    return np.asarray(jax.random.key_data(key))


def _key(data: UInt32[np.ndarray, "..."]) -> Key[Array, ""]:
    return jax.random.wrap_key_data(jnp.asarray(data))


def _environment(address: str, num_workers: int) -> dict[str, str]:
    """Of a Ray actor's process: accelerators are the learner's, and cores are shared out.

    With a core for each process, or less, one thread steps its worlds: it makes all of a batch of LAPACK calls by
    itself, which is as safe as the engine's four threads and more, and not so with two or three. Of other machines
    nothing is known. In a Ray of the run's own, modules are looked for where this process looks for them.
    """
    if address:
        return {"JAX_PLATFORMS": "cpu", "NPROC": "1"}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = 1 if cores < 2 * num_workers else max(SAFE_THREADS, cores // num_workers)
    return {"JAX_PLATFORMS": "cpu", "NPROC": str(threads), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
