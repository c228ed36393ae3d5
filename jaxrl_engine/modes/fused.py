"""The fused program: whatever a mode repeats, compiled into one loop with no host callback inside.

One call of the program runs a chunk of updates. Its number of updates is an argument, not a shape: one compilation
serves every chunk length. The state is donated. Metrics are averaged on the device over `updates_per_row` updates; the
running averages are part of the state, so rows do not depend on where chunks or checkpoints fall. Independent runs
(seeds, settings of a sweep) are a leading axis `S` over everything (absent when there is one run). Over several devices
`S` is split where they divide it, and else `B` (`modes.placement`).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf, PyTree, TrainState
from jaxrl_engine.modes.placement import ONE_DEVICE, Placement

MAX_ROWS = 64
"""Rows of metrics one chunk can hold."""


class Mean(Struct):
    """A weighted sum on its way to being a mean; its value is NaN (written as null) where nothing was observed."""

    total: Float[Leaf, "*batch"]
    weight: Float[Leaf, "*batch"]


class RunState(Struct):
    """Everything a run is, between two updates: what a checkpoint holds. With `S` runs every leaf leads with `S`."""

    train_state: TrainState
    actor: PyTree  # what the mode keeps beside the learner: its worlds [B, …], a repertoire
    key: Key[Leaf, "*batch"]
    updates: Int[Leaf, "*batch"]  # rollouts, or generations, learned from or rejected
    window: dict[str, Mean]  # averages of the row of metrics under way

    def with_hyper(self, hyper: PyTree) -> "RunState":
        """Return the state with other traced hyper-parameters."""
        return self.replace(train_state=self.train_state.replace(hyper=hyper))


Learned: TypeAlias = tuple[TrainState, PyTree, dict[str, Mean]]


class Rows(Struct):
    """Metrics of one chunk, read by the host one chunk late."""

    values: dict[str, Float[Leaf, "*rows"]]  # [MAX_ROWS] or [MAX_ROWS, S]
    updates: Int[Leaf, "rows"]  # [MAX_ROWS] the update count each row was closed at
    count: Int[Leaf, ""]  # rows written
    updates_done: Int[Leaf, ""]  # update count at the end of the chunk
    skipped_in_a_row: Int[Leaf, ""]  # the worst of the runs


@runtime_checkable
class Trainer(Protocol):
    """What a fused program repeats, for one run."""

    def init(self, key: Key[Array, ""], hyper: PyTree) -> TrainState:
        """Draw the parameters. The key is consumed."""

    def start(self, key: Key[Array, ""]) -> PyTree:
        """Begin the worlds, and whatever else is kept beside the learner. The key is consumed."""

    def batched(self, path: Sequence[str]) -> bool:
        """Say whether what lies at a path of fields within what `start` returns leads with the environments."""

    def learn(self, train_state: TrainState, actor: PyTree, key: Key[Array, ""]) -> Learned:
        """Collect, learn, and say what was seen. The key is consumed."""


T = TypeVar("T", bound=Trainer)


@dataclasses.dataclass(frozen=True)
class FusedProgram(Generic[T]):
    """One trainer, repeated."""

    trainer: T
    updates_per_row: int
    max_skipped_updates: int
    num_runs: int | None = None  # S; None: a single run, without the axis
    placement: Placement = ONE_DEVICE

    def init(self, keys: Key[Array, "*runs"], hyper: PyTree) -> RunState:
        """Start every run: parameters, episodes, counters at zero. The keys are consumed."""
        shardings = self.shardings(self.shapes(keys, hyper))
        with self.placement.context():
            return jax.jit(self._make, out_shardings=shardings)(keys, hyper)

    def shapes(self, keys: Key[Array, "*runs"], hyper: PyTree) -> RunState:
        """The shapes of what `init` returns."""
        with self.placement.context():
            return jax.eval_shape(self._make, keys, hyper)

    def compile(self, state: RunState) -> Any:
        """Compile the chunk program `(state, num_updates) -> (state, rows)`; the state passed to it is donated."""
        shardings, everywhere = self.shardings(state), self.placement.everywhere
        chunk = jax.jit(
            self.run_chunk, donate_argnums=0, in_shardings=(shardings, everywhere),
            out_shardings=(shardings, everywhere),
        )  # fmt: skip
        with self.placement.context():
            return chunk.lower(state, jax.ShapeDtypeStruct((), jnp.int32)).compile()

    def saved(self, state: PyTree) -> PyTree:
        """What of a state goes into a checkpoint: all."""
        return state

    def whole(self, saved: PyTree) -> PyTree:
        """The state that goes on from what a checkpoint held."""
        return saved

    def shardings(self, state: PyTree) -> PyTree:
        """Where each leaf lies: environments, or whole runs, split over the devices, all else on each of them."""

        def batched(path: Sequence[str]) -> bool:
            return path[0] == "actor" and self.trainer.batched(path[1:])

        return self.placement.of(state, batched)

    def run_chunk(self, state: RunState, num_updates: Int[Array, ""]) -> tuple[RunState, Rows]:
        """Run up to `num_updates` updates, stopping early where too many in a row were rejected as not finite."""
        update = self._update_one if self.num_runs is None else jax.vmap(self._update_one)
        shape = (MAX_ROWS,) if self.num_runs is None else (MAX_ROWS, self.num_runs)
        rows = Rows(
            values={name: jnp.zeros(shape) for name in state.window}, updates=jnp.zeros(MAX_ROWS, jnp.int32),
            count=jnp.zeros((), jnp.int32), updates_done=state.updates.max(),
            skipped_in_a_row=state.train_state.skipped_in_a_row.max(),
        )  # fmt: skip
        last = rows.updates_done + num_updates

        def step(loop: tuple[RunState, Rows]) -> tuple[RunState, Rows]:
            state, rows = loop
            state, closed = update(state)
            return state, self._record(rows, state, closed)

        def unfinished(loop: tuple[RunState, Rows]) -> Bool[Array, ""]:
            rows = loop[1]
            return (rows.updates_done < last) & (rows.skipped_in_a_row < self.max_skipped_updates)

        return jax.lax.while_loop(unfinished, step, (state, rows))

    @functools.cached_property
    def _make(self) -> Callable[[Key[Array, "*runs"], PyTree], RunState]:
        """What starts every run; jitted, so that it is traced once for its shapes and to be run."""
        return jax.jit(self._init_one if self.num_runs is None else jax.vmap(self._init_one))

    def _init_one(self, key: Key[Array, ""], hyper: PyTree) -> RunState:
        key_params, key_start, key_run = jax.random.split(key, 3)
        train_state = self.trainer.init(key_params, hyper)
        actor = self.trainer.start(key_start)
        metrics = jax.eval_shape(self._learn, train_state, actor, key_run)[2]
        return RunState(
            train_state=train_state, actor=actor, key=key_run, updates=jnp.zeros((), jnp.int32),
            window=jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), metrics),
        )  # fmt: skip

    @functools.cached_property
    def _learn(self) -> Callable[[TrainState, PyTree, Key[Array, ""]], Learned]:
        """What the trainer does.

        Jitted, so that it is traced once for `init`, which needs the names of its metrics, and for the chunk: tracing
        physics takes seconds.
        """
        return jax.jit(self.trainer.learn)

    def _update_one(self, state: RunState) -> tuple[RunState, dict[str, Float[Array, ""]]]:
        """Learn once; return the row's means so far and, where the row is complete, begin the next."""
        key, key_learn = jax.random.split(state.key)
        train_state, actor, metrics = self._learn(state.train_state, state.actor, key_learn)
        updates = state.updates + 1
        window = jax.tree.map(jnp.add, state.window, metrics)
        means = {name: mean.total / mean.weight for name, mean in window.items()}  # 0/0 is NaN: nothing observed
        complete = updates % self.updates_per_row == 0
        window = jax.tree.map(lambda leaf: jnp.where(complete, 0.0, leaf), window)
        return RunState(train_state=train_state, actor=actor, key=key, updates=updates, window=window), means

    def _record(self, rows: Rows, state: RunState, means: dict[str, Array]) -> Rows:
        """Write the means to the row under way, and move on where it is complete."""
        done = state.updates.max()
        complete = done % self.updates_per_row == 0
        return Rows(
            values={name: rows.values[name].at[rows.count].set(means[name], mode="drop") for name in rows.values},
            updates=rows.updates.at[rows.count].set(done, mode="drop"),
            count=rows.count + complete,
            updates_done=done,
            skipped_in_a_row=state.train_state.skipped_in_a_row.max(),
        )


def observed(value: Array) -> Mean:
    """Return one observation."""
    return Mean(total=jnp.asarray(value, jnp.float32), weight=jnp.ones(()))


def chart_name(metric: str) -> str:
    """Return what a world's metric is called in the rows: `final_distance` is `Charts/FinalDistance`."""
    return "Charts/" + "".join(word.capitalize() for word in metric.split("_"))
