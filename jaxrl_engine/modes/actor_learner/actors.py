"""Actor threads and who watches over them.

An actor works only with a *ticket*: permission for one rollout. The learner gives a new one for each rollout that it
has taken, so no more of an actor's rollouts wait or are under way than it had tickets at the start: that bounds memory
and staleness, and no queue can overflow. In lockstep a ticket also names the parameters to act with, which makes every
rollout a function of what the learner has taken before.

Threads cannot be killed. One that is silent for too long is abandoned: what it may still deliver is dropped, it ends
as soon as it wakes, and another takes its place.
"""

import dataclasses
import queue
import threading
import time
import traceback
from collections.abc import Callable

import jax

from jaxrl_engine.core.types import TrainState
from jaxrl_engine.modes.actor_learner.collector import Collected, Collector
from jaxrl_engine.runtime.errors import RunError, one_line

POLL_SECONDS = 0.2
"""No thread waits longer without looking whether it should stop."""
JOIN_SECONDS = 5.0
LONGEST_BACKOFF = 5.0
AGAIN = 2**30
"""Rollouts that take the place of lost ones are numbered from here: no key is used twice."""


@dataclasses.dataclass(frozen=True)
class Message:
    """A rollout on its way to the learner."""

    actor: int
    generation: int  # of the actor: how many came before it in its place
    number: int  # of the rollout, among those of this generation
    version: int  # of the parameters that acted
    collected: Collected
    seconds: float  # it took


@dataclasses.dataclass
class Actor:
    """One place for an actor, and the thread that fills it now."""

    index: int
    tickets: "queue.SimpleQueue[tuple[int, TrainState | None]]"
    generation: int = 0
    collector: Collector | None = None
    thread: threading.Thread | None = None
    heartbeat: float = 0.0
    working: bool = False
    outstanding: int = 0  # tickets given out and not yet answered
    restart_at: float | None = None  # when the next thread begins; None: one is running


class Supervisor:
    """Starts actors, hands out tickets, notices who has broken, and ends them all.

    `make(index, generation)` builds a collector; it runs in the actor's own thread. `latest()` returns the newest
    parameters and their version. All methods are for the learner's thread.
    """

    def __init__(
        self,
        make: Callable[[int, int], Collector],
        key_of: Callable[[int, int, int], jax.Array],
        latest: Callable[[], tuple[int, TrainState]],
        *,
        num_actors: int,
        max_restarts: int,
        heartbeat_seconds: float,
    ) -> None:
        self.make, self.key_of, self.latest = make, key_of, latest
        self.max_restarts, self.heartbeat_seconds = max_restarts, heartbeat_seconds
        self.inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.failures: queue.SimpleQueue[tuple[int, int, BaseException, str]] = queue.SimpleQueue()
        self.stopping = threading.Event()
        self.actors = [Actor(index, queue.SimpleQueue()) for index in range(num_actors)]
        self.restarts = self.dropped = 0
        self.causes: list[str] = []

    @property
    def alive(self) -> int:
        return sum(actor.thread is not None and actor.thread.is_alive() for actor in self.actors)

    def begin(self) -> None:
        """Start every actor."""
        for actor in self.actors:
            self._start(actor)

    def grant(self, index: int, ticket: tuple[int, TrainState | None]) -> None:
        """Let an actor collect once more; the ticket is the number of its rollout and, in lockstep, its parameters."""
        actor = self.actors[index]
        actor.outstanding += 1
        actor.tickets.put(ticket)

    def take(self, timeout: float) -> Message | None:
        """Return the next rollout of an actor still in its place, or None after `timeout` seconds without one.

        Raises:
            RunError: actors have broken more often than is allowed.
        """
        self._watch()
        try:
            message = self.inbox.get(timeout=timeout)
        except queue.Empty:
            return None
        actor = self.actors[message.actor]
        if message.generation != actor.generation:
            self.dropped += 1
            return None
        actor.outstanding -= 1
        return message

    def end(self) -> list[str]:
        """Ask every actor to stop, wait for them a while, and return the names of those that did not."""
        self.stopping.set()
        deadline = time.monotonic() + JOIN_SECONDS
        survivors = []
        for actor in self.actors:
            if actor.thread is None:
                continue
            actor.thread.join(max(0.0, deadline - time.monotonic()))
            if actor.thread.is_alive():
                survivors.append(actor.thread.name)
        return survivors

    # --- what is watched ----------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while True:
            try:
                index, generation, error, trace = self.failures.get_nowait()
            except queue.Empty:
                break
            if generation == self.actors[index].generation:
                self._replace(self.actors[index], f"{type(error).__name__}: {one_line(error)}", trace)
        now = time.monotonic()
        for actor in self.actors:
            if actor.working and now - actor.heartbeat > self.heartbeat_seconds:
                self._replace(actor, f"silent for {now - actor.heartbeat:.0f} s", "")
            if actor.restart_at is not None and now >= actor.restart_at:
                self._start(actor)

    def _replace(self, actor: Actor, cause: str, trace: str) -> None:
        """Leave the thread to itself and plan another in its place, which has the same tickets to work off."""
        self.causes.append(f"actor {actor.index}: {cause}")
        if self.restarts >= self.max_restarts:
            raise RunError(f"actor {actor.index} broke, after {self.restarts} restarts of actors: {cause}\n{trace}")
        delay = min(LONGEST_BACKOFF, 0.1 * 2.0**self.restarts)
        self.restarts += 1
        actor.generation += 1
        actor.working = False
        lost = actor.outstanding - actor.tickets.qsize()
        for _ in range(lost):
            actor.tickets.put((-1, None))  # never in lockstep, where a broken actor ends the run
        actor.restart_at = time.monotonic() + delay

    def _start(self, actor: Actor) -> None:
        actor.restart_at = None
        actor.heartbeat = time.monotonic()
        arguments = (actor, actor.generation)
        name = f"actor-{actor.index}.{actor.generation}"
        actor.thread = threading.Thread(target=self._run, args=arguments, name=name, daemon=True)
        actor.thread.start()

    # --- what an actor's thread does ----------------------------------------------------------------------------

    def _run(self, actor: Actor, generation: int) -> None:
        collector: Collector | None = None
        try:
            actor.working = True
            collector = self.make(actor.index, generation)
            if generation == actor.generation:
                actor.collector = collector
            self._work(actor, generation, collector)
        except BaseException as error:  # whatever it is, the learner must hear of it
            self.failures.put((actor.index, generation, error, traceback.format_exc()))
        finally:
            if collector is not None:
                collector.close()

    def _work(self, actor: Actor, generation: int, collector: Collector) -> None:
        done = 0
        while not self.stopping.is_set() and generation == actor.generation:
            actor.working, actor.heartbeat = False, time.monotonic()
            try:
                number, behaviour = actor.tickets.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            actor.heartbeat, actor.working = time.monotonic(), True
            begun = time.perf_counter()
            version, behaviour = self._behaviour(behaviour)
            number = number if number >= 0 else AGAIN + done
            key = self.key_of(actor.index, generation, number)
            collected = collector.collect(behaviour, key)
            done += 1
            seconds = time.perf_counter() - begun
            self.inbox.put(Message(actor.index, generation, number, version, collected, seconds))

    def _behaviour(self, given: TrainState | None) -> tuple[int, TrainState]:
        return self.latest() if given is None else (int(given.policy_version), given)
