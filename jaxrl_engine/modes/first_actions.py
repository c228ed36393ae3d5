"""What each worker begins with, for those who want to see that no two are alike: `--log-level debug`."""

import logging
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key, Shaped

from jaxrl_engine.core.types import Leaf
from jaxrl_engine.modes.build import Build
from jaxrl_engine.modes.fused import FusedProgram, RunState
from jaxrl_engine.modes.rollout import first_decision
from jaxrl_engine.modes.sync import OnPolicy
from jaxrl_engine.runtime.logs import log

SHOWN = 16
"""Environments of which a line tells the first action."""


def listening() -> bool:
    """Whether anybody asked."""
    return log.isEnabledFor(logging.DEBUG)


def tell(worker: str, key: Key[Array, ""], actions: Shaped[Leaf, "environments *action"] | None) -> None:
    """Say in one line what a worker draws from and, if it is known, what it did first, as the policy drew it."""
    line = f"{worker}: key {hexadecimal(key)}"
    if actions is not None:
        flat = np.asarray(actions).reshape(len(actions), -1)
        each = [",".join(f"{number:.6g}" for number in action) for action in flat[:SHOWN]]
        line += f", first actions of {len(each)} of {len(flat)} environments: {' | '.join(each)}"
    log.debug("%s", line)


def hexadecimal(key: Key[Array, ""]) -> str:
    """A key's words, eight digits each."""
    return "".join(f"{int(word):08x}" for word in np.ravel(jax.random.key_data(key)))


def tell_runs(built: Build, program: Any, state: Any) -> None:
    """Say for each run, where somebody listens, what it draws from and, in the sync mode, what its worlds do first.

    Of the async mode each actor is told of when its first rollout is taken.
    """
    if not listening() or not isinstance(program, FusedProgram):
        return
    keys, actions = state.key, None
    if isinstance(program.trainer, OnPolicy):
        act = jax.jit(lambda state: first_actions(program, state), out_shardings=program.placement.everywhere)
        actions = act(state)
    if built.num_runs is None:
        tell(f"seed {built.config.seed}", keys, actions)
        return
    for index, label in enumerate(built.run_labels):
        name = ", ".join(f"{name} {value}" for name, value in label.items())
        tell(name, keys[index], None if actions is None else actions[index])


def first_actions(program: FusedProgram[OnPolicy], state: RunState) -> Shaped[Array, "..."]:
    """Return what the next rollout's first step will do, `[B, A, …]` or `[S, B, A, …]`, without stepping any world."""

    def one_run(state: RunState) -> Array:
        trainer, key_learn = program.trainer, jax.random.split(state.key)[1]
        key_rollout = jax.random.split(key_learn)[0]
        steps, count = trainer.num_steps, trainer.vector_env.num_envs
        return first_decision(trainer.algorithm, state.train_state, state.actor, key_rollout, steps, count).action

    return one_run(state) if program.num_runs is None else jax.vmap(one_run)(state)
