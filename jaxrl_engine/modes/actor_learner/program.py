"""The async mode: actor threads collect while the learner learns, on parameters a bounded number of updates apart.

One call of `run_chunk` runs a number of updates,

    for each update:  rollouts from the actors → one compiled step (new chunks + replay) → publish → tickets back

and stands where the sync mode has its compiled chunk: evaluation, checkpoints, metrics and signals are the same
session. An update takes a fixed number of new chunks, each of them once, so environment steps are counted as exactly.

Free-running, rollouts are taken as they come and actors use the newest parameters; after a resume they begin new
episodes. In lockstep they are taken actor by actor, each with the parameters of the ticket it was given: the same
numbers on every run, and after every resume, as the actors' worlds and the rollouts on their way are part of the state.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Chunk, PyTree, TrainState
from jaxrl_engine.envs.host.environment import HostEnvironment
from jaxrl_engine.live.easel import Easel
from jaxrl_engine.modes.actor_learner.actors import Message
from jaxrl_engine.modes.actor_learner.collector import Collector, JaxSource, Source
from jaxrl_engine.modes.actor_learner.host_collector import HostSource
from jaxrl_engine.modes.actor_learner.learner import LearnerState
from jaxrl_engine.modes.actor_learner.ray_collector import RaySource
from jaxrl_engine.modes.actor_learner.rows import RowWindow
from jaxrl_engine.modes.actor_learner.running import Lockstep, Running, observed_names
from jaxrl_engine.modes.actor_learner.spread import Spread, Step, make_learner
from jaxrl_engine.modes.build import Build
from jaxrl_engine.modes.first_actions import listening, tell
from jaxrl_engine.modes.fused import Mean, Rows
from jaxrl_engine.modes.placement import ONE_DEVICE, Placement, on_first_device
from jaxrl_engine.runtime.errors import RunError, one_line

STARTS = 2**31 - 1
"""Folded into the key of an actor's place for its first episodes: no rollout has this number."""
SMALL_REPLAY = 2**28
"""Bytes up to which replay is saved by itself."""
ACTOR_STREAM = 5
"""Folded into a run's seed key: what actors draw is not what the learner draws."""


class AsyncState(Struct):
    """Everything a run is, between two updates: what a checkpoint holds."""

    learner: LearnerState
    window: dict[str, Mean]  # sums of the row of metrics under way
    lockstep: Lockstep | None  # None: free-running

    @property
    def train_state(self) -> TrainState:
        return self.learner.train_state

    @property
    def updates(self) -> jax.Array:
        return self.learner.updates

    def with_hyper(self, hyper: PyTree) -> "AsyncState":
        """Return the state with other traced hyper-parameters."""
        learner = self.learner
        return self.replace(learner=learner.replace(train_state=learner.train_state.replace(hyper=hyper)))


class AsyncProgram:
    """Actors and learner of one configuration. Once `run_chunk` has been called, `close` must be.

    Over several devices the learner is spread; actors work on the first.

    Raises:
        UserError: the shards of replay cannot be split evenly over the devices.
    """

    def __init__(self, built: Build, placement: Placement = ONE_DEVICE) -> None:
        config = built.config
        self.spread = None if placement.mesh is None else Spread(placement, config.impact.replay_shards)
        self.config, self.hyper = config, built.hyper
        self.interrupted: Callable[[], bool] = lambda: False  # asked while actors are waited for
        self.easel: Easel | None = None  # where actors leave pictures of host worlds; to be set before the run begins
        self.learner = make_learner(built, self.spread)
        share = config.num_envs // config.actors.num_workers
        self.rollouts_per_update = config.new_chunks // share
        self.metric_names = built.env.spec.metric_names
        self.source = make_source(built, share)
        self._actor_key = jax.random.fold_in(jax.random.key(config.seed), ACTOR_STREAM)
        self.broken_by: str | None = None
        self._learn: Step
        self._running: Running | None = None
        self._introduced: set[int] = set()  # actors

    # --- what a run asks of a mode's program ---------------------------------------------------------------------

    def init(self, key: Key[Array, ""], hyper: PyTree) -> AsyncState:
        """Begin a run, in lockstep with the first rollouts of every actor. The key is consumed."""
        placed = None if self.spread is None else self.spread.shardings(self.shapes(key, hyper))
        return jax.jit(self._init, out_shardings=placed)(key, hyper)

    def shapes(self, key: Key[Array, ""], hyper: PyTree) -> AsyncState:
        """The shapes of what `init` returns."""
        return jax.eval_shape(self._init, key, hyper)

    def compile(self, state: AsyncState) -> Callable[[AsyncState, Any], tuple[AsyncState, Rows]]:
        """Compile what actors and learner run; the state passed to the result is donated."""
        behaviour = on_first_device(_behaviour(state.train_state))
        self.source.compile(behaviour)
        self._publish = jax.jit(_copied).lower(behaviour).compile()
        chunks = (self._example(),) * self.rollouts_per_update
        if self.spread is None:
            self._learn = jax.jit(self.learner.step, donate_argnums=0).lower(state.learner, chunks).compile()
        else:
            self._learn = self.spread.compile(self.learner, state.learner, chunks)
        return self.run_chunk

    def saved(self, state: AsyncState) -> AsyncState:
        """What of a state goes into a checkpoint: all, or all but replay where that is large."""
        wanted, sizes = self.config.checkpoint.replay, [leaf.size * leaf.dtype.itemsize for leaf in _arrays(state)]
        if wanted == "always" or (wanted == "auto" and sum(sizes) <= SMALL_REPLAY):
            return state
        return state.replace(learner=state.learner.replace(replay=None))

    def whole(self, saved: AsyncState) -> AsyncState:
        """The state that goes on from what a checkpoint held, with empty replay where it held none."""
        if saved.learner.replay is not None or not self.learner.num_replayed:
            return saved
        return saved.replace(learner=saved.learner.replace(replay=self.learner.empty_replay(self._example())))

    def shardings(self, state: PyTree) -> PyTree:
        """Where each leaf lives: shards of replay split over the devices of the mesh, all else on each of them."""
        return None if self.spread is None else self.spread.shardings(state)

    def run_chunk(self, state: AsyncState, num_updates: int | np.integer) -> tuple[AsyncState, Rows]:
        """Run `num_updates` updates; fewer after too many rejected in a row, a signal, or too many broken actors.

        Raises:
            RunError: an actor broke in lockstep; what it was to deliver cannot be made up for.
        """
        running = self._running or self._begin(state)
        learner, window = state.learner, RowWindow(state.window)
        updates, skipped = int(learner.updates), int(learner.train_state.skipped_in_a_row)
        for _ in range(int(num_updates)):
            begun = time.perf_counter()
            messages = self._take(running, running.latest[0] - self.config.impact.max_lag)
            if messages is None or skipped >= self.config.max_skipped_updates:
                break
            waited = time.perf_counter() - begun
            chunks = tuple(message.collected.chunks for message in messages)
            learner, metrics = self._learn(learner, chunks)
            measured = jax.device_get(metrics)  # waits: actors must never be given parameters that are not there yet
            updates, skipped = updates + 1, int(learner.train_state.skipped_in_a_row)
            version = int(learner.train_state.policy_version)
            if updates % self.config.actors.weight_sync_interval == 0:
                running.publish(version, self._behaviour(learner.train_state))
            for message in messages:
                running.grant(message.actor)
            running.observe(window, measured, messages, version, waited, time.perf_counter() - begun)
            if updates % self.config.updates_per_row == 0:
                window.close(updates)
        lockstep = running.settle() if self.config.actors.lockstep else None
        after = AsyncState(learner=learner, window=window.state(state.window), lockstep=lockstep)
        return after, window.flush(updates, skipped)

    def close(self) -> list[str]:
        """End the actors; returns the names of threads that would not end, which the process takes with it."""
        end = list if self._running is None else self._running.supervisor.end
        survivors: list[str] = end()
        if isinstance(self.source, RaySource):
            self.source.dismiss()  # who waits for a process wakes up
            survivors = survivors and end()
            self.source.close()
        return survivors

    def broken(self) -> str | None:
        """Say why the run cannot go on, if it cannot."""
        return self.broken_by

    def failures(self) -> list[str]:
        """Say which actors broke, and why, in the order in which it was noticed."""
        return [] if self._running is None else list(self._running.supervisor.causes)

    # --- how -----------------------------------------------------------------------------------------------------

    def _init(self, key: Key[Array, ""], hyper: PyTree) -> AsyncState:
        key_actors, key_learner = jax.random.split(key)
        keys = jax.random.split(key_actors, self.config.actors.num_workers)
        example = self._example()
        learner = self.learner.init(key_learner, hyper, example)
        chunks = (example,) * self.rollouts_per_update
        measured = jax.eval_shape(self.learner.step, learner, chunks)[1]
        names = {*measured, *observed_names(self.metric_names)}
        zero = Mean(total=jnp.zeros(()), weight=jnp.zeros(()))
        lockstep = None
        if self.config.actors.lockstep:
            lockstep = self._first_rollouts(_behaviour(learner.train_state), keys)
        return AsyncState(learner=learner, window=dict.fromkeys(sorted(names), zero), lockstep=lockstep)

    def _example(self) -> Chunk:
        """Shapes of one rollout's chunks `[b, …]`."""
        key = jax.random.key(0)
        behaviour = jax.eval_shape(lambda k: _behaviour(self.learner.algorithm.init(k, self.hyper)), key)
        return self.source.example(behaviour)

    def _first_rollouts(self, behaviour: TrainState, keys: Key[Array, "W"]) -> Lockstep:
        source, actors, mail = self.source, [], []
        assert isinstance(source, JaxSource)  # no other goes in lockstep: `make_source`
        for index, key in enumerate(keys):
            state, waiting = source.start(key), []
            for number in range(self.config.actors.mailbox):
                state, collected = source.rollout(behaviour, state, self._key(index, 0, number))
                waiting.append(collected)
            actors.append(state)
            mail.append(tuple(waiting))
        return Lockstep(actors=tuple(actors), mail=tuple(mail), taken=jnp.zeros((), jnp.int32))

    def _key(self, actor: int, generation: int, number: int) -> Key[Array, ""]:
        """The key of one rollout: never used twice, whoever asks."""
        key = jax.random.fold_in(jax.random.fold_in(self._actor_key, actor), generation)
        return jax.random.fold_in(key, number)

    def _begin(self, state: AsyncState) -> Running:
        """Start the actors; free-running ones that go on after a stop draw what was not drawn before."""
        updates = int(state.learner.updates)
        lockstep = on_first_device(state.lockstep)
        if lockstep is None:
            self._actor_key = jax.random.fold_in(self._actor_key, updates)

        def make(index: int, generation: int) -> Collector:
            if lockstep is not None and isinstance(self.source, JaxSource):
                return self.source.go_on(lockstep.actors[index])
            return self.source.begin(self._key(index, generation, STARTS), index)

        if isinstance(self.source, HostSource):
            self.source.easel = self.easel
        behaviour = self._behaviour(state.train_state)
        latest = (int(behaviour.policy_version), behaviour)
        self._running = Running(self.config.actors, make, self._key, latest, lockstep)
        return self._running

    def _behaviour(self, train_state: TrainState) -> TrainState:
        """What actors need of a learner, where they are, in memory that the learner's next step leaves alone."""
        return self._publish(on_first_device(_behaviour(train_state)))

    def _take(self, running: Running, oldest: int) -> list[Message] | None:
        """Return the rollouts of one update, or None where the run is to stop."""
        taken: list[Message] = []
        while len(taken) < self.rollouts_per_update:
            whole = self.config.actors.lockstep and taken  # what was taken in turn must be learned from
            if self.interrupted() and not whole:
                return None
            try:
                message = running.next(oldest)
            except RunError as error:
                if self.config.actors.lockstep:
                    raise
                self.broken_by = one_line(error)
                return None
            if message is not None:
                taken.append(message)
                self._introduce(message)
        return taken

    def _introduce(self, message: Message) -> None:
        """Say once for each actor, where somebody listens, what the first rollout taken of it drew from and did."""
        if message.actor in self._introduced or not listening():
            return
        self._introduced.add(message.actor)
        key = self._key(message.actor, message.generation, message.number)
        tell(f"actor {message.actor}", key, message.collected.chunks.action[:, 0])


def make_source(built: Build, num_envs: int) -> Source:
    """Where the collectors of a configuration come from.

    Raises:
        UserError: lockstep in a world whose state cannot be saved; or Ray is asked for and not there.
    """
    config, env, actors = built.config, built.env, built.config.actors
    source: Source
    if isinstance(env, HostEnvironment):
        if actors.lockstep:
            raise UserError(f"actors.lockstep must be false with {config.env}, whose state cannot be saved")
        source = HostSource(built.algorithm, env, num_envs, config.num_steps)
    else:
        source = JaxSource(built.algorithm, env, built.env_params, num_envs, config.num_steps)
    if actors.kind == "threads":
        return source
    return RaySource(source, actors.ray_address, actors.num_workers, actors.heartbeat_seconds)


def _behaviour(train_state: TrainState) -> TrainState:
    """What actors need of a learner."""
    return train_state.replace(optimizer=None)


def _arrays(state: AsyncState) -> list[jax.Array]:
    """The arrays of replay, or their shapes; of keys there are none."""
    return jax.tree.leaves(state.learner.replay)


def _copied(tree: PyTree) -> PyTree:
    """A copy that outlives the learner's next step, which reuses the memory of what it is given."""
    return jax.tree.map(jnp.copy, tree)
