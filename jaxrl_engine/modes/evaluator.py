"""The compiled evaluation of a run, whatever its mode."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_engine.core.types import PyTree
from jaxrl_engine.envs.host.environment import HostEnvironment
from jaxrl_engine.modes.build import Build
from jaxrl_engine.modes.fused import FusedProgram
from jaxrl_engine.modes.host_evaluate import HostEvaluation
from jaxrl_engine.modes.map_elites.elites import evaluation as elite_evaluation, summarize_elites
from jaxrl_engine.modes.map_elites.evolution import Evolution
from jaxrl_engine.modes.placement import ONE_DEVICE, on_first_device
from jaxrl_engine.modes.session import summarize


class Evaluator:
    """`(state, updates, uniform) -> results`: greedy by default, uniformly random on request."""

    def __init__(self, built: Build, program: Any, state: PyTree) -> None:
        self.built = built
        self.summarize: Callable[[Any], dict[str, Any]] = summarize
        self._seen: Callable[[PyTree], tuple[PyTree, ...]] = lambda state: (state.train_state,)
        self._compiled: Any = None
        if isinstance(built.env, HostEnvironment):
            limits = (built.config.evaluation.episodes, built.config.evaluation.max_steps)
            self._host = HostEvaluation(built.algorithm, built.env, *limits)
            self._shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state.train_state)
            return
        evaluate: Callable[..., Any] = built.evaluation(built.config.evaluation.episodes)
        if isinstance(program, FusedProgram) and isinstance(program.trainer, Evolution):
            evolution = program.trainer
            evaluate = elite_evaluation(evolution, built.config.evaluation.episodes)
            self.summarize = lambda results: summarize_elites(results, evolution.space.feasible)
            self._seen = lambda state: (state.train_state, state.actor.repertoire)
        seen = self._seen(state)
        if built.num_runs is not None:
            evaluate = jax.vmap(evaluate, in_axes=(*[0] * len(seen), 0, None))
        keys = jax.eval_shape(built.evaluation_keys, 0)
        placement = program.placement if isinstance(program, FusedProgram) else ONE_DEVICE
        self._in_turn = placement.in_turn
        with placement.context():
            compiled = jax.jit(evaluate, out_shardings=placement.everywhere)
            self._lowered = compiled.lower(*seen, keys, jax.ShapeDtypeStruct((), jnp.bool_))

    def compile(self) -> None:
        """Compile what was traced."""
        if isinstance(self.built.env, HostEnvironment):
            self._host.compile(self._shapes)
        else:
            self._compiled = self._in_turn(self._lowered.compile())

    def __call__(self, state: PyTree, updates: int, *, uniform: bool = False) -> Any:
        """Start an evaluation of the state after `updates` updates, on episodes of its own."""
        keys = self.built.evaluation_keys(updates)
        if isinstance(self.built.env, HostEnvironment):
            return self._host(on_first_device(state.train_state), keys, uniform=uniform)
        return self._compiled(*self._seen(state), keys, jnp.asarray(uniform))
