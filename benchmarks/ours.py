"""The engine as a contestant: the sync mode's compiled program, without evaluation, checkpoints or metrics written."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from benchmarks.contestant import Repetition, Task, serve
from benchmarks.fused import checksum
from jaxrl_engine.core.config import Config, EnvValue, EvaluationConfig, LoggingConfig, NetworkConfig, PPOConfig
from jaxrl_engine.envs.vector import Fresh, VectorState
from jaxrl_engine.modes.build import Build, build as build_objects
from jaxrl_engine.modes.evaluate import uniform_action
from jaxrl_engine.modes.fused import FusedProgram, RunState
from jaxrl_engine.modes.programs import make_program
from jaxrl_engine.modes.rollout import rollout
from jaxrl_engine.modes.sync import OnPolicy

PACKAGES = ("jax", "jaxlib", "flax", "optax", "gymnax", "brax")
ADAPTERS = {"cartpole": "jaxrl_engine.envs.gymnax_adapter", "reacher": "jaxrl_engine.envs.brax_adapter"}
ENVIRONMENTS = {"cartpole": "gymnax:CartPole-v1", "reacher": "brax:reacher"}

Update: TypeAlias = Callable[[RunState], tuple[RunState, Any]]


def configuration(task: Task) -> Config:
    """Translate the task; as with the peers, the value loss is clipped and nothing is normalised but advantages."""
    ppo = PPOConfig(
        learning_rate=task.learning_rate,
        anneal_learning_rate=False,
        gamma=task.gamma,
        gae_lambda=task.gae_lambda,
        clip_epsilon=task.clip_epsilon,
        clip_value=True,
        entropy_coefficient=task.entropy_coefficient,
        value_coefficient=task.value_coefficient,
        max_grad_norm=task.max_grad_norm,
        num_epochs=task.num_epochs,
        num_minibatches=task.num_minibatches,
        normalize_observations=False,
        normalize_rewards=False,
    )
    return Config(
        env=ENVIRONMENTS[task.environment],
        env_params=_env_params(task),
        total_steps=task.steps,
        num_envs=task.num_envs,
        num_steps=task.num_steps,
        seed=task.seed,
        ppo=ppo,
        network=NetworkConfig(hidden_sizes=task.hidden_sizes, activation="tanh"),
        evaluation=EvaluationConfig(count=0),
        logging=LoggingConfig(tensorboard=False),
    )


def _env_params(task: Task) -> dict[str, EnvValue]:
    if task.environment == "cartpole":
        return {}
    return {"backend": "generalized", "episode_length": task.episode_length}


def collect(program: FusedProgram[OnPolicy], state: RunState) -> tuple[RunState, Any]:
    """Act and step as in training, but learn nothing."""
    trainer = program.trainer
    key, key_rollout = jax.random.split(state.key)
    actor, trajectory, episodes = rollout(
        trainer.algorithm, trainer.vector_env, state.train_state, state.actor, key_rollout, trainer.env_params,
        trainer.num_steps,
    )  # fmt: skip
    return state.replace(actor=actor, key=key), checksum((trajectory.transitions, episodes))


def step_randomly(program: FusedProgram[OnPolicy], state: RunState) -> tuple[RunState, Any]:
    """Step and reset the environments under uniformly random actions."""
    worlds, params = program.trainer.vector_env, program.trainer.env_params
    key, key_fresh, key_steps = jax.random.split(state.key, 3)

    def step(carry: tuple[VectorState, Fresh], key: Key[Array, ""]) -> tuple[tuple[VectorState, Fresh], jax.Array]:
        vector, fresh = carry
        key_action, key_step = jax.random.split(key)
        action = uniform_action(worlds.env.spec.action, vector.timestep, key_action)
        keys = jax.random.split(key_step, worlds.num_envs)
        vector, fresh, timestep, episodes = worlds.step(keys, vector, action, params, fresh)
        return (vector, fresh), checksum((timestep, episodes))

    start = (state.actor.vector, worlds.fresh(key_fresh, params))
    (vector, _), sums = jax.lax.scan(step, start, jax.random.split(key_steps, program.trainer.num_steps))
    return state.replace(actor=state.actor.replace(vector=vector), key=key), sums


def repeated(update: Update, state: RunState) -> Any:
    """Compile `num_updates` repetitions of a part of the training, as the engine compiles the whole."""

    def chunk(state: RunState, num_updates: Array) -> tuple[RunState, jax.Array]:
        def once(_: Array, carry: tuple[RunState, jax.Array]) -> tuple[RunState, jax.Array]:
            state, total = carry
            state, sums = update(state)
            return state, total + jnp.sum(sums)

        return jax.lax.fori_loop(0, num_updates, once, (state, jnp.float32(0.0)))

    return jax.jit(chunk, donate_argnums=0).lower(state, jnp.zeros((), jnp.int32)).compile()


def compile_level(task: Task, program: FusedProgram[OnPolicy], state: RunState) -> Any:
    """Compile what the task's level asks for: `(state, num_updates) -> (state, outputs)`."""
    if task.level == "training":
        return program.compile(state)
    part = collect if task.level == "inference" else step_randomly
    return repeated(lambda state: part(program, state), state)


def build(task: Task) -> Repetition:
    """Return a function that runs `task.updates` updates further at each call."""
    built: Build = build_objects(configuration(task))
    program = make_program(built)
    state = program.init(built.keys, built.hyper)
    chunk, updates = compile_level(task, program, state), jnp.int32(task.updates)

    def repetition() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(chunk(state, updates))

    return repetition


if __name__ == "__main__":
    serve(build, PACKAGES, ADAPTERS)
