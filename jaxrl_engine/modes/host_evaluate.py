"""Whole episodes in a world outside JAX: environments of their own, nothing learned and no statistics moved."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Key

from jaxrl_engine.algos.protocol import Acting
from jaxrl_engine.core.types import PyTree, TimeStep, TrainState
from jaxrl_engine.envs.host.environment import HostEnvironment
from jaxrl_engine.envs.host.protocol import HostStep
from jaxrl_engine.modes.actor_learner.host_collector import MAX_SEED, shown, timestep_of
from jaxrl_engine.modes.evaluate import EpisodeResults, greedy_policy, uniform_action


class HostEvaluation:
    """One episode in each of `episodes` environments, made for the occasion and closed after it."""

    def __init__(self, algorithm: Acting, env: HostEnvironment, episodes: int, max_steps: int) -> None:
        self.algorithm, self.env, self.episodes = algorithm, env, episodes
        self.limit = min(env.spec.time_limit or max_steps, max_steps)
        self._act: Any = None

    def compile(self, train_state: TrainState) -> None:
        """Compile the decision for parameters of these shapes."""
        carry = jax.eval_shape(lambda: self.algorithm.initial_carry(self.episodes))
        seen, key = shown(self.env.spec, self.episodes), jax.random.key(0)
        uniform = jax.ShapeDtypeStruct((), np.bool_)
        self._act = jax.jit(self._decide).lower(train_state, carry, seen, key, uniform).compile()

    def __call__(self, train_state: TrainState, key: Key[Array, ""], *, uniform: bool) -> EpisodeResults:
        """Play greedily, or uniformly at random. The key is consumed.

        Raises:
            HostWorldError: the world failed.
        """
        key_seed, key_act = jax.random.split(key)
        carry = jax.tree.map(np.asarray, self.algorithm.initial_carry(self.episodes))
        world = self.env.make(self.episodes)
        try:
            step = world.reset(int(jax.random.randint(key_seed, (), 0, MAX_SEED)))
            results = _nothing_yet(step.metrics, self.episodes)
            for number in range(self.limit):
                key_now = jax.random.fold_in(key_act, number)
                action, carry = self._act(train_state, carry, timestep_of(step), key_now, np.bool_(uniform))
                step = world.step(np.asarray(action))
                results = _counted(results, step)
                if not results.cut.any():
                    break
        finally:
            world.close()
        return results

    def _decide(
        self, train_state: TrainState, carry: PyTree, seen: TimeStep, key: Key[Array, ""], uniform: Bool[Array, ""]
    ) -> tuple[Array, PyTree]:
        key_greedy, key_uniform = jax.random.split(key)
        action, carry = greedy_policy(self.algorithm, train_state)(carry, seen, key_greedy)
        chance = uniform_action(self.env.spec.action, seen, key_uniform).astype(action.dtype)
        return jax.numpy.where(uniform, chance, action), carry


def _nothing_yet(metrics: dict[str, Any], episodes: int) -> EpisodeResults:
    zeros: Any = np.zeros(episodes, np.float32)
    running: Any = np.ones(episodes, bool)
    return EpisodeResults(
        episode_return=zeros, episode_length=zeros.astype(np.int32), cut=running,
        metrics=dict.fromkeys(metrics, zeros),
    )  # fmt: skip


def _counted(results: EpisodeResults, after: HostStep) -> EpisodeResults:
    """Take one step into the episodes that are still running."""
    running: Any = np.asarray(results.cut)
    metrics: Any = {name: np.where(running, after.metrics[name], old) for name, old in results.metrics.items()}
    return EpisodeResults(
        episode_return=results.episode_return + np.where(running, after.reward.mean(axis=-1), 0.0).astype(np.float32),
        episode_length=results.episode_length + running.astype(np.int32),
        cut=running & ~np.asarray(after.done),
        metrics=metrics,
    )
