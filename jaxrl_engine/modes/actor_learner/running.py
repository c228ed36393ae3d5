"""Actors at work: whose rollout is next, which parameters are out, and what is measured of both."""

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jaxrl_engine.core.config import ActorsConfig
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf, PyTree, TrainState
from jaxrl_engine.envs.vector import Episodes
from jaxrl_engine.modes.actor_learner.actors import POLL_SECONDS, Message, Supervisor
from jaxrl_engine.modes.actor_learner.collector import Collected, Collector
from jaxrl_engine.modes.actor_learner.rows import RowWindow
from jaxrl_engine.modes.fused import chart_name


class Lockstep(Struct):
    """What must be saved of the actors for a run to go on to the bit."""

    actors: tuple[PyTree, ...]  # of each actor: its collector's state
    mail: tuple[tuple[Collected, ...], ...]  # of each actor: rollouts that wait for the learner
    taken: Int[Leaf, "..."]  # rollouts taken of all actors so far: whose turn is next follows from it


class Running:
    """The actors of a run and the learner's side of everything that goes back and forth."""

    def __init__(
        self,
        config: ActorsConfig,
        make: Callable[[int, int], Collector],
        key_of: Callable[[int, int, int], jax.Array],
        latest: tuple[int, TrainState],
        lockstep: Lockstep | None,
    ) -> None:
        self.config, self.latest = config, latest
        self.dropped_old = 0
        workers = range(config.num_workers)
        self.held: list[collections.deque[Message]] = [collections.deque() for _ in workers]
        self.granted = [0 for _ in workers]  # rollouts of each actor, so far
        self.taken = 0
        self.supervisor = Supervisor(
            make, key_of, lambda: self.latest, num_actors=config.num_workers,
            max_restarts=0 if config.lockstep or config.failure == "fail" else config.max_restarts,
            heartbeat_seconds=config.heartbeat_seconds,
        )  # fmt: skip
        if lockstep is not None:
            self._go_on_from(lockstep)
        self.supervisor.begin()
        if lockstep is None:
            for index in range(config.num_workers * config.mailbox):
                self.grant(index % config.num_workers)

    def grant(self, index: int) -> None:
        """Let an actor collect once more."""
        behaviour = self.latest[1] if self.config.lockstep else None
        self.supervisor.grant(index, (self.granted[index], behaviour))
        self.granted[index] += 1

    def publish(self, updates: int, behaviour: TrainState) -> None:
        """Offer new parameters to the actors."""
        self.latest = (updates, behaviour)

    def next(self, oldest: int) -> Message | None:
        """Return the rollout to learn from next, or None where none came for a while.

        In lockstep it is the next actor's in turn. Otherwise one whose parameters are older than update `oldest` is
        dropped and counted, and its actor may collect again.

        Raises:
            RunError: actors have broken more often than is allowed.
        """
        if not self.config.lockstep:
            message = self.supervisor.take(POLL_SECONDS)
            if message is None or message.version >= oldest:
                return message
            self.dropped_old += 1
            self.grant(message.actor)
            return None
        turn = self.taken % self.config.num_workers
        if not self.held[turn]:
            message = self.supervisor.take(POLL_SECONDS)
            if message is not None:
                self.held[message.actor].append(message)
            return None
        self.taken += 1
        return self.held[turn].popleft()

    def settle(self) -> Lockstep:
        """Wait until every actor has answered its tickets; return what a checkpoint needs of them.

        Raises:
            RunError: an actor broke.
        """
        while any(actor.outstanding for actor in self.supervisor.actors):
            message = self.supervisor.take(POLL_SECONDS)
            if message is not None:
                self.held[message.actor].append(message)
        collectors = [actor.collector for actor in self.supervisor.actors]
        return Lockstep(
            actors=tuple(None if each is None else each.state for each in collectors),
            mail=tuple(tuple(message.collected for message in waiting) for waiting in self.held),
            taken=jnp.int32(self.taken),
        )

    def _go_on_from(self, lockstep: Lockstep) -> None:
        self.taken = int(lockstep.taken)
        for index, waiting in enumerate(lockstep.mail):
            taken = (self.taken - index + len(lockstep.mail) - 1) // len(lockstep.mail)
            for number, collected in enumerate(waiting, taken):
                version = int(jnp.ravel(collected.chunks.policy_version)[0])
                self.held[index].append(Message(index, 0, number, version, collected, 0.0))
            self.granted[index] = taken + len(waiting)

    # --- what is measured ---------------------------------------------------------------------------------------

    def observe(
        self,
        window: RowWindow,
        measured: Mapping[str, Any],
        messages: Sequence[Message],
        updates: int,
        waited: float,
        seconds: float,
    ) -> None:
        """Take one update into the row under way: what the learner measured, and what stands around it."""
        for name, value in measured.items():
            window.add(name, float(value))
        for name, total, weight in episode_sums([message.collected.episodes for message in messages]):
            window.add(name, total, weight)
        now = {
            "Async/PublishLag": updates - self.latest[0],
            "Async/MailboxDepth": self.supervisor.inbox.qsize() + sum(len(waiting) for waiting in self.held),
            "Async/ActorsAlive": self.supervisor.alive,
            "Async/ActorsRestarted": self.supervisor.restarts,
            "Async/DroppedOld": self.dropped_old,
            "Async/DroppedAbandoned": self.supervisor.dropped,
            "Async/CollectSeconds": float(np.mean([message.seconds for message in messages])),
        }
        for name, value in now.items():
            window.add(name, float(value))
        window.add("Async/LearnerIdle", waited, seconds)  # a share: the sums of both are divided
        window.add("Async/UpdatesPerSecond", 1.0, seconds)
        window.add("Async/TrainedStepsPerSecond", len(messages) * messages[0].collected.chunks.valid.size, seconds)


OBSERVED = (
    "Async/PublishLag", "Async/MailboxDepth", "Async/ActorsAlive", "Async/ActorsRestarted", "Async/DroppedOld",
    "Async/DroppedAbandoned", "Async/CollectSeconds", "Async/LearnerIdle", "Async/UpdatesPerSecond",
    "Async/TrainedStepsPerSecond",
)  # fmt: skip
"""What `Running.observe` adds to the learner's metrics and those of episodes."""


def observed_names(metric_names: Sequence[str]) -> list[str]:
    """Return every name that `Running.observe` adds in a world with these metrics."""
    return [*OBSERVED, *map(chart_name, ("episode_return", "episode_length", "episodes", *metric_names))]


def episode_sums(episodes: Sequence[Episodes]) -> list[tuple[str, float, float]]:
    """Return `(metric, sum, count)` over the episodes that ended."""
    sums = []
    for each in episodes:
        ended = np.asarray(each.ended)
        count = float(ended.sum())
        values = {"episode_return": each.episode_return, "episode_length": each.episode_length, **each.metrics}
        sums += [(chart_name(name), float(np.asarray(v)[ended].sum()), count) for name, v in values.items()]
        sums.append(("Charts/Episodes", count, 1.0))
    return sums
