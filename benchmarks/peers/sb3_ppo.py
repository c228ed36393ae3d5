"""Stable-Baselines3's PPO in PyTorch, on one thread: with two it is several times slower at this size."""

import torch
from stable_baselines3 import PPO

from benchmarks.contestant import Repetition, Task, serve
from benchmarks.peers.stable_baselines import environments, repeat, settings

PACKAGES = ("stable-baselines3", "torch", "gymnasium", "brax", "jax")


def build(task: Task) -> Repetition:
    """Return a function that trains further at each call; the value loss is clipped, as in rejax."""
    torch.set_num_threads(1)
    model = PPO("MlpPolicy", environments(task), clip_range_vf=task.clip_epsilon, **settings(task))
    return repeat(model, task)


if __name__ == "__main__":
    serve(build, PACKAGES, {"reacher": "benchmarks.peers.brax_vec_env"})
