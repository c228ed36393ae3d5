"""brax's reacher as Stable-Baselines3 wants its environments; apart, so that CartPole never loads JAX."""

from typing import Any

import brax.envs
import jax
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.contestant import Task


class BraxReacher(VecEnv):
    """One compiled step for all environments; brax's own wrappers count the time and reset.

    Those wrappers keep no final observation, so a truncated episode is not bootstrapped.
    """

    def __init__(self, task: Task) -> None:
        self._env = brax.envs.create(
            "reacher", episode_length=task.episode_length, batch_size=task.num_envs, backend="generalized"
        )
        self._reset, self._step = jax.jit(self._env.reset), jax.jit(self._env.step)
        self._key = jax.random.PRNGKey(task.seed)
        observation = spaces.Box(-np.inf, np.inf, (self._env.observation_size,), np.float32)
        super().__init__(task.num_envs, observation, spaces.Box(-1.0, 1.0, (self._env.action_size,), np.float32))

    def reset(self) -> np.ndarray:
        self._key, key = jax.random.split(self._key)
        self._state = self._reset(key)
        return np.asarray(self._state.obs)

    def step_async(self, actions: np.ndarray) -> None:
        self._state = self._step(self._state, actions)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        done = np.asarray(self._state.done, bool)
        infos = [{"TimeLimit.truncated": True} if ended else {} for ended in done]
        reward = np.array(self._state.reward)  # a copy: the learner writes into it
        return np.asarray(self._state.obs), reward, done, infos

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise AttributeError(attr_name)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        raise AttributeError(method_name)

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs
