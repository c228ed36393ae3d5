"""How a fused update's time divides into collection and learning.

In one compiled program the two are not apart in time. The probe compiles them apart and times each on the run's own
state: an honest estimate of the split, not a measurement inside the run (fused, they also share work).
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Key

from jaxrl_engine.core.types import PyTree, TrainState, Trajectory
from jaxrl_engine.modes.fused import FusedProgram, RunState
from jaxrl_engine.modes.rollout import ActorState, rollout
from jaxrl_engine.modes.sync import OnPolicy

REPETITIONS = 5


def split_times(program: FusedProgram[OnPolicy], state: RunState) -> dict[str, float]:
    """Return the median seconds of one rollout and of one update compiled apart; the state is left as it is."""
    collect, learn = collect_and_learn(program)
    # The run's key is copied, not consumed: what is drawn here never reaches the run.
    with program.placement.context():
        collection, trajectory = _timed(collect, state.train_state, state.actor, state.key)
        update, _ = _timed(learn, state.train_state, trajectory, state.key)
    return {"Sync/CollectionTime": collection, "Sync/UpdateTime": update}


def collect_and_learn(program: FusedProgram[OnPolicy]) -> tuple[Callable[..., Trajectory], Callable[..., PyTree]]:
    """Return `(train state, actor, key) -> trajectory` and `(train state, trajectory, key) -> what was learned`."""
    trainer = program.trainer

    def collect(train_state: TrainState, actor: ActorState, key: Key[Array, ""]) -> Trajectory:
        shared = (trainer.algorithm, trainer.vector_env, train_state, actor, key, trainer.env_params)
        return rollout(*shared, trainer.num_steps)[1]

    def learn(train_state: TrainState, trajectory: Trajectory, key: Key[Array, ""]) -> PyTree:
        return trainer.algorithm.update(train_state, trajectory, key)

    return (collect, learn) if program.num_runs is None else (jax.vmap(collect), jax.vmap(learn))


def _timed(function: Any, *arguments: PyTree) -> tuple[float, Any]:
    """Median seconds of the compiled function, and what it returned."""
    compiled = jax.jit(function).lower(*arguments).compile()
    result = jax.block_until_ready(compiled(*arguments))
    seconds = []
    for _ in range(REPETITIONS):
        begun = time.perf_counter()
        result = jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds), result
