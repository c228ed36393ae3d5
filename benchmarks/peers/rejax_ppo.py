"""rejax's PPO (0.1.3, gymnax 0.0.9): the closest relative, one fused JAX program per training."""

import functools
from typing import Any

import jax
import rejax

from benchmarks.contestant import Repetition, Task, serve
from benchmarks.fused import checksum

PACKAGES = ("rejax", "gymnax", "brax", "jax", "flax", "optax", "distrax")


def environment(task: Task) -> dict[str, Any]:
    """Name the environment as rejax does; gymnax's wrapper resets it, so brax's own reset is left out."""
    if task.environment == "cartpole":
        return {"env": "CartPole-v1"}
    params = {"backend": "generalized", "episode_length": task.episode_length, "auto_reset": False}
    return {"env": "brax/reacher", "env_params": params}


def algorithm(task: Task) -> Any:
    """Configure PPO as the other contestants are, and take the evaluation out of its training program."""
    ppo = rejax.PPO.create(
        **environment(task),
        agent_kwargs={"activation": "tanh", "hidden_layer_sizes": task.hidden_sizes},
        num_envs=task.num_envs,
        num_steps=task.num_steps,
        num_epochs=task.num_epochs,
        num_minibatches=task.num_minibatches,
        total_timesteps=task.steps,
        eval_freq=task.steps,
        skip_initial_evaluation=True,
        learning_rate=task.learning_rate,
        gamma=task.gamma,
        gae_lambda=task.gae_lambda,
        clip_eps=task.clip_epsilon,
        vf_coef=task.value_coefficient,
        ent_coef=task.entropy_coefficient,
        max_grad_norm=task.max_grad_norm,
    )
    return ppo.replace(eval_callback=lambda algo, train_state, key: ())


def train(ppo: Any, task: Task, state: Any) -> tuple[Any, Any]:
    """Run rejax's own training loop from a state."""
    return ppo.train(train_state=state)


def collect(ppo: Any, task: Task, state: Any) -> tuple[Any, Any]:
    """Act and step as in training, but learn nothing."""

    def update(state: Any, _: None) -> tuple[Any, jax.Array]:
        state, trajectories = ppo.collect_trajectories(state)
        return state, checksum(trajectories)

    return jax.lax.scan(update, state, None, task.updates)


def step_randomly(ppo: Any, task: Task, state: Any) -> tuple[Any, Any]:
    """Step and reset the environments under uniformly random actions."""
    sample = jax.vmap(ppo.action_space.sample)

    def step(carry: tuple[Any, jax.Array], _: None) -> tuple[tuple[Any, jax.Array], jax.Array]:
        env_state, key = carry
        key, action_key, step_key = jax.random.split(key, 3)
        actions = sample(jax.random.split(action_key, task.num_envs))
        step_keys = jax.random.split(step_key, task.num_envs)
        observation, env_state, reward, done, _ = ppo.vmap_step(step_keys, env_state, actions, ppo.env_params)
        return (env_state, key), checksum((observation, reward, done))

    carry, sums = jax.lax.scan(step, (state.env_state, state.rng), None, task.updates * task.num_steps)
    return state.replace(env_state=carry[0], rng=carry[1]), sums


LEVELS = {"environment": step_randomly, "inference": collect, "training": train}


def build(task: Task) -> Repetition:
    """Return a function that trains `task.updates` updates further at each call."""
    ppo = algorithm(task)
    program = jax.jit(functools.partial(LEVELS[task.level], ppo, task))
    state = jax.jit(ppo.init_state)(jax.random.PRNGKey(task.seed))

    def repetition() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(program(state))

    return repetition


if __name__ == "__main__":
    serve(build, PACKAGES, {"reacher": "rejax.compat.brax2gymnax"})
