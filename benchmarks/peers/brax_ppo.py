"""brax.training's PPO (0.14.2), under JAX 0.9: the last release calls a function that JAX 0.10 removed.

`ppo.train` compiles within, so it is called once and held between two of its epochs: it reports each epoch's speed,
measured by itself around nothing but the compiled program, and that is the repetition.
"""

import functools
import sys
import time
from typing import Any

import brax.envs
import jax
from brax.training.agents.ppo import networks, train

from benchmarks.contestant import Line, Task, device, installed, peak_memory_bytes

PACKAGES = ("brax", "jax", "flax", "optax")
MOST_REPETITIONS = 1000


class Epochs:
    """Called by `ppo.train` after every epoch: answers the driver and sleeps until the next command."""

    def __init__(self, line: Line, task: Task) -> None:
        self._line, self._task = line, task
        self._start, self._epoch, self._first = time.perf_counter(), 0, 0.0
        self._processor = 0.0

    def __call__(self, env_steps: int, metrics: dict[str, Any]) -> None:
        self._epoch += 1
        seconds = self._task.steps / float(metrics["training/sps"])
        if self._epoch == 1:
            self._first = time.perf_counter() - self._start
            return
        if self._epoch == 2:
            compile_seconds = max(0.0, self._first - seconds)
            self._line.say(ready=True, compile_seconds=compile_seconds, versions=installed(*PACKAGES))
        else:
            self._answer(seconds)
        if not self._line.wait():
            sys.exit(0)
        self._processor = time.process_time()

    def _answer(self, seconds: float) -> None:
        cpu_seconds = time.process_time() - self._processor
        memory = {"peak_memory_bytes": peak_memory_bytes(), "device": device()}
        self._line.say(steps=self._task.steps, seconds=seconds, cpu_seconds=cpu_seconds, **memory)


def main() -> None:
    """Train on the reacher; brax has no discrete actions, so there is no CartPole."""
    line, task = Line(), Task.from_json(sys.argv[1])
    if task.environment != "reacher" or task.level != "training":
        raise ValueError("this contestant only trains, and only on the reacher")
    network_factory = functools.partial(
        networks.make_ppo_networks,
        policy_hidden_layer_sizes=task.hidden_sizes,
        value_hidden_layer_sizes=task.hidden_sizes,
        activation=jax.numpy.tanh,
        distribution_type="normal",
        noise_std_type="log",
    )
    train.train(
        environment=brax.envs.get_environment("reacher", backend="generalized"),
        num_timesteps=task.steps * MOST_REPETITIONS,
        num_evals=MOST_REPETITIONS + 1,
        run_evals=False,
        progress_fn=Epochs(line, task),
        network_factory=network_factory,
        num_envs=task.num_envs,
        episode_length=task.episode_length,
        unroll_length=task.num_steps,
        batch_size=task.num_envs // task.num_minibatches,
        num_minibatches=task.num_minibatches,
        num_updates_per_batch=task.num_epochs,
        learning_rate=task.learning_rate,
        discounting=task.gamma,
        gae_lambda=task.gae_lambda,
        clipping_epsilon=task.clip_epsilon,
        clipping_epsilon_value=task.clip_epsilon,
        entropy_cost=task.entropy_coefficient,
        vf_loss_coefficient=task.value_coefficient,
        max_grad_norm=task.max_grad_norm,
        seed=task.seed,
    )


if __name__ == "__main__":
    main()
