"""A saved policy: loaded from a run directory without writing to it, to be called, evaluated or drawn."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.core.types import PyTree, TimeStep, TrainState
from jaxrl_engine.envs.host.environment import HostEnvironment
from jaxrl_engine.envs.protocol import Embodied
from jaxrl_engine.envs.reacher.env import Reacher
from jaxrl_engine.modes.build import Build, build
from jaxrl_engine.modes.host_evaluate import HostEvaluation
from jaxrl_engine.modes.map_elites.choose import BEST, choose_elite
from jaxrl_engine.modes.map_elites.elites import population_of
from jaxrl_engine.modes.map_elites.judge import embody
from jaxrl_engine.modes.programs import make_program
from jaxrl_engine.modes.record import Watched, watch
from jaxrl_engine.modes.session import summarize
from jaxrl_engine.runtime.checkpoint import CheckpointStore
from jaxrl_engine.runtime.config import load_config
from jaxrl_engine.runtime.run_directory import RunDirectory

POLICY_STREAM = 2
"""Folded into the key of an evaluation asked for by hand: its episodes are not those seen during training."""

FILM_STREAM = 3
"""Likewise, of episodes to look at."""


class SavedPolicy:
    """The greedy policy of a checkpoint and the world it was trained in.

    Calling it acts in `B` environments: `action, memory = policy(timestep, memory)`, beginning with
    `memory = policy.memory(num_envs)`.
    """

    def __init__(self, built: Build, train_state: TrainState, env_steps: int, elite: int | None = None) -> None:
        self.built = built
        self.elite = elite  # whose body it moves: a cell of the repertoire, in the mode map-elites
        self.train_state = train_state  # of one run, without the axis S
        self.env_steps = env_steps
        self._act = jax.jit(self._decide)
        self._evaluations: dict[int, Any] = {}

    def __call__(self, timestep: TimeStep, memory: PyTree) -> tuple[Array, PyTree]:
        return self._act(self.train_state, memory, timestep)

    def memory(self, num_envs: int) -> PyTree:
        """What the policy remembers at the start of an episode, `[B, …]`."""
        return self.built.algorithm.initial_carry(num_envs)

    def evaluate(self, episodes: int, *, seed: int = 0, uniform: bool = False) -> dict[str, Any]:
        """Play fresh episodes greedily (or uniformly at random) and return the means of what was seen."""
        key = jax.random.fold_in(jax.random.key(seed), POLICY_STREAM)
        if isinstance(self.built.env, HostEnvironment):
            return summarize(self._host_evaluation(episodes)(self.train_state, key, uniform=uniform))
        if episodes not in self._evaluations:
            self._evaluations[episodes] = jax.jit(self.built.evaluation(episodes))
        results = self._evaluations[episodes](self.train_state, key, jnp.asarray(uniform))
        return summarize(jax.device_get(results))

    def _host_evaluation(self, episodes: int) -> HostEvaluation:
        built = self.built
        assert isinstance(built.env, HostEnvironment)
        if episodes not in self._evaluations:
            evaluation = HostEvaluation(built.algorithm, built.env, episodes, built.config.evaluation.max_steps)
            evaluation.compile(self.train_state)
            self._evaluations[episodes] = evaluation
        return self._evaluations[episodes]

    def watch(self, worlds: int, num_steps: int, *, seed: int = 0, with_joints: bool = False) -> Watched | None:
        """Play one greedy episode, or its first `num_steps` steps, in each of some worlds; None: it has no picture.

        `with_joints`: see `record.watch`.
        """
        key = jax.random.fold_in(jax.random.key(seed), FILM_STREAM)
        limit = min(num_steps, self.built.env.spec.time_limit or num_steps)
        return watch(self.built, self.train_state, key, worlds, limit, with_joints=with_joints)

    def _decide(self, train_state: TrainState, memory: PyTree, timestep: TimeStep) -> tuple[Array, PyTree]:
        decision, memory = self.built.algorithm.act(train_state, memory, timestep, None)
        return decision.env_action, memory


def load_policy(
    path: Path, *, run: int | None = None, step: int | None = None, elite: int | str | None = None
) -> SavedPolicy:
    """Load the policy of a run directory: its best checkpoint, or the one saved at environment step `step`.

    Where the best is damaged, the newest intact one is taken, with a warning.

    `run` chooses one of several seeds or settings; by default the one that evaluated best at that checkpoint. `elite`
    chooses the body of a map-elites run: `best`, which is the default, or a cell's number.

    Raises:
        UserError: not a run directory, no such checkpoint, run or elite, or nothing readable.
    """
    directory = RunDirectory.open(path, exclusive=False)
    config = load_config(directory.config_path)
    built = build(config)
    store = CheckpointStore(directory.checkpoints, keep=config.checkpoint.keep)
    program = make_program(built)
    template = program.saved(jax.eval_shape(program.init, built.keys, built.hyper))
    # The tables of a map-elites run speak of its end.
    preferred = None if config.mode == "map-elites" else store.best_step()
    restored = store.restore(template, step, prefer=preferred)
    state = restored.state
    if built.num_runs is not None:
        index = _choose_run(run, built.num_runs, restored.metadata)
        state = jax.tree.map(lambda leaf: leaf[index], state)
    elif run not in (None, 0):
        raise UserError(f"run must be 0 (this directory holds a single run), not {run}")
    train_state = jax.device_put(state.train_state)
    if config.mode != "map-elites":
        if elite is not None:
            raise UserError(f"elite: {path} is a run of mode {config.mode}, which has no repertoire")
        return SavedPolicy(built, train_state, restored.step)
    assert isinstance(built.env, Embodied)  # `modes.build` admits no other
    cell, arm = choose_elite(population_of(state).repertoire, BEST if elite is None else str(elite))
    body = jax.tree.map(lambda leaf: leaf[0], embody(built.env, jax.tree.map(lambda leaf: leaf[None], arm)))
    env = built.env
    if isinstance(env, Reacher):  # its pictures are as large as the arm, not as the longest of the repertoire
        env = dataclasses.replace(env, total_length=float(body.lengths.sum()))
    return SavedPolicy(dataclasses.replace(built, env=env, env_params=body), train_state, restored.step, cell)


def _choose_run(run: int | None, num_runs: int, metadata: dict[str, Any]) -> int:
    if run is not None:
        if not 0 <= run < num_runs:
            raise UserError(f"run must be from 0 to {num_runs - 1}, not {run}")
        return run
    returns = metadata.get("evaluation", {}).get("return_per_seed", [0.0])
    return returns.index(max(returns))
