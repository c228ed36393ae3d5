"""From a configuration to the objects a mode runs: world, algorithm, keys, traced settings, evaluation program."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from jaxrl_engine.algos.hmasd.learner import HMASD
from jaxrl_engine.algos.hmasd.types import make_hyper as make_hmasd_hyper
from jaxrl_engine.algos.impact import Impact
from jaxrl_engine.algos.mat import MAT
from jaxrl_engine.algos.ppo import PPO
from jaxrl_engine.algos.ppo_types import make_hyper
from jaxrl_engine.algos.protocol import Acting
from jaxrl_engine.core.config import Config
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.core.types import EnvSpec, PyTree, TrainState
from jaxrl_engine.envs.host.registry import is_host_world
from jaxrl_engine.envs.protocol import Embodied, Environment
from jaxrl_engine.envs.registry import make_env
from jaxrl_engine.envs.vector import VectorEnv
from jaxrl_engine.modes.evaluate import EpisodeResults, evaluate, greedy_policy, mixed_policy
from jaxrl_engine.runtime.config import sweep_settings

EVALUATION_STREAM = 1
"""Folded into a run's seed key, so that evaluation never shares randomness with training."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one algorithm is made of a configuration; `hyper` takes the changes of one point of a sweep."""

    make: Callable[[EnvSpec, Config], Acting]
    hyper: Callable[[Config, Mapping[str, float]], PyTree]


def _ppo_hyper(config: Config, changes: Mapping[str, float]) -> PyTree:
    return make_hyper(config.ppo, config.policy_updates, changes)


RECIPES = {
    "ppo": Recipe(lambda spec, config: PPO(spec, config.ppo, config.network), _ppo_hyper),
    "mappo": Recipe(
        lambda spec, config: PPO(spec, config.ppo, config.network, centralized=config.mappo.centralized), _ppo_hyper
    ),
    "mat": Recipe(lambda spec, config: MAT(spec, config.ppo, config.mat), _ppo_hyper),
    "impact": Recipe(lambda spec, config: Impact(spec, config.ppo, config.impact, config.network), _ppo_hyper),
    "hmasd": Recipe(
        lambda spec, config: HMASD(spec, config.ppo, config.hmasd, config.num_steps),
        lambda config, changes: make_hmasd_hyper(config.ppo, config.hmasd, config.num_updates, changes),
    ),
}
"""A new algorithm is one line here."""


@dataclasses.dataclass(frozen=True)
class Build:
    """Everything a mode needs, made from the configuration alone."""

    config: Config
    env: Environment[Any, Any]
    env_params: PyTree
    algorithm: Acting
    settings: tuple[dict[str, float], ...]  # one per point of the sweep; a single {} without one

    @property
    def num_runs(self) -> int | None:
        """Number of independent runs `S`, or None for a single one (which then has no such axis)."""
        runs = len(self.settings) * self.config.num_seeds
        return None if runs == 1 else runs

    @property
    def run_labels(self) -> list[dict[str, int | float]]:
        """Seed and swept settings of each run, in the order of the axis `S`."""
        seeds = range(self.config.seed, self.config.seed + self.config.num_seeds)
        return [{"seed": seed, **setting} for setting in self.settings for seed in seeds]

    @property
    def keys(self) -> Key[Array, "*runs"]:
        """One key per run; points of a sweep share their seeds (common random numbers)."""
        if self.num_runs is None:
            return jax.random.key(self.config.seed)
        return jnp.stack([jax.random.key(int(label["seed"])) for label in self.run_labels])

    @property
    def hyper(self) -> PyTree:
        """Traced hyper-parameters, scalars or `[S]`."""
        make = RECIPES[self.config.algo].hyper
        if self.num_runs is None:
            return make(self.config, self.settings[0])
        each = [make(self.config, setting) for setting in self.settings for _ in range(self.config.num_seeds)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)

    @property
    def training_env(self) -> VectorEnv:
        return VectorEnv(self.env, self.config.num_envs)

    def evaluation(self, episodes: int) -> Callable[[TrainState, Key[Array, ""], Bool[Array, ""]], EpisodeResults]:
        """Return the function `(train state, key, uniform) -> results [episodes]` of one run, to be compiled.

        It plays greedily, or uniformly at random where `uniform` is true, so that both share one program.
        """
        vector_env = VectorEnv(self.env, episodes)
        limit = min(self.env.spec.time_limit or self.config.evaluation.max_steps, self.config.evaluation.max_steps)

        def one_run(train_state: TrainState, key: Key[Array, ""], uniform: Bool[Array, ""]) -> EpisodeResults:
            policy = mixed_policy(self.env.spec.action, greedy_policy(self.algorithm, train_state), uniform)
            carry = self.algorithm.initial_carry(episodes)
            return evaluate(policy, carry, vector_env, key, self.env_params, limit)

        return one_run

    def evaluation_keys(self, updates: int | Int[Array, ""]) -> Key[Array, "*runs"]:
        """Keys of the evaluation after `updates` updates: fresh episodes each time, the same for the same seed."""

        def one_run(key: Key[Array, ""]) -> Key[Array, ""]:
            return jax.random.fold_in(jax.random.fold_in(key, EVALUATION_STREAM), updates)

        return one_run(self.keys) if self.num_runs is None else jax.vmap(one_run)(self.keys)


def build(config: Config) -> Build:
    """Make the world and the algorithm a configuration names.

    Raises:
        UserError: the world, its parameters, or a combination with the network is not possible.
    """
    env, env_params = _make_env(config)
    recipe, settings = RECIPES[config.algo], tuple(sweep_settings(config))
    try:
        algorithm = recipe.make(env.spec, config)
        jax.eval_shape(algorithm.init, jax.random.key(0), recipe.hyper(config, settings[0]))
    except ValueError as error:
        raise UserError(str(error)) from error
    return Build(config=config, env=env, env_params=env_params, algorithm=algorithm, settings=settings)


def _make_env(config: Config) -> tuple[Environment[Any, Any], PyTree]:
    """Make the world; of one outside JAX only its facts are kept."""
    if config.mode == "map-elites":
        return _make_embodied(config)
    if not is_host_world(config.env):
        return make_env(config.env, config.env_params)
    if config.mode != "async":
        raise UserError(f"env: {config.env} is stepped from Python, which only --mode async does")
    host = importlib.import_module("jaxrl_engine.envs.host.environment")
    return host.host_environment(config.env, config.env_params), ()


def _make_embodied(config: Config) -> tuple[Environment[Any, Any], PyTree]:
    """Make a world with room for the longest of the bodies that evolve in it."""
    own = {"num_links", "lengths", "bodies", "min_links", "total_length"} & set(config.env_params)
    if own:
        raise UserError(f"env_params.{min(own)} must not be set with mode map-elites: bodies are what evolves (qd.*)")
    if is_host_world(config.env) or not isinstance(make_env(config.env, {})[0], Embodied):
        raise UserError(f"env: {config.env} has no bodies to evolve; reacher and reacher-zigzag have")
    values = {**config.env_params, "num_links": config.qd.max_links}
    if config.env == "reacher":  # the scale of its pictures
        values["total_length"] = config.qd.max_links * config.qd.max_length
    return make_env(config.env, values)
