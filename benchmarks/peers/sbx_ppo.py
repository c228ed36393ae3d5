"""SBX's PPO: Stable-Baselines3's loop around updates in JAX."""

from sbx import PPO

from benchmarks.contestant import Repetition, Task, serve
from benchmarks.peers.stable_baselines import environments, repeat, settings

PACKAGES = ("sbx-rl", "stable-baselines3", "torch", "gymnasium", "brax", "jax", "flax", "optax")


def build(task: Task) -> Repetition:
    """Return a function that trains further at each call; SBX knows no clipping of the value loss."""
    return repeat(PPO("MlpPolicy", environments(task), **settings(task)), task)


if __name__ == "__main__":
    serve(build, PACKAGES, {"reacher": "benchmarks.peers.brax_vec_env"})
