"""What Stable-Baselines3 and SBX share: the environments and the settings of PPO, which both name alike."""

from typing import Any

from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.contestant import Repetition, Task


def environments(task: Task) -> VecEnv:
    """Make the environments as the library's documentation does: CartPole in one process, one after another."""
    if task.environment == "cartpole":
        return make_vec_env("CartPole-v1", n_envs=task.num_envs, seed=task.seed)
    from benchmarks.peers.brax_vec_env import BraxReacher

    return BraxReacher(task)


def settings(task: Task) -> dict[str, Any]:
    """Translate the task; the network is left at the default, two separate tanh networks of 64 and 64 units."""
    if task.level != "training" or task.hidden_sizes != (64, 64):
        raise ValueError("this contestant only trains, with hidden_sizes (64, 64)")
    return {
        "learning_rate": task.learning_rate,
        "n_steps": task.num_steps,
        "batch_size": task.minibatch_size,
        "n_epochs": task.num_epochs,
        "gamma": task.gamma,
        "gae_lambda": task.gae_lambda,
        "clip_range": task.clip_epsilon,
        "ent_coef": task.entropy_coefficient,
        "vf_coef": task.value_coefficient,
        "max_grad_norm": task.max_grad_norm,
        "seed": task.seed,
        "device": "cpu",
    }


def repeat(model: Any, task: Task) -> Repetition:
    """Return a function that trains `task.steps` steps further at each call."""
    return lambda: model.learn(task.steps, reset_num_timesteps=False)
