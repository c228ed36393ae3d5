"""A small stochastic world that terminates and truncates, for tests of what surrounds a world."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.core.spaces import Box, Discrete
from jaxrl_engine.core.types import EnvSpec, TimeStep


class Walk:
    """A walker on a line, pushed left or right by its action and by noise; 1 per step to the right of the origin.

    Terminates beyond ±2 and truncates after 7 steps. `poison_after` turns rewards to NaN from that step of the run on.
    """

    spec = EnvSpec(
        name="walk", num_agents=1, observation=Box.uniform((3,), -np.inf, np.inf),
        global_state=Box.uniform((3,), -np.inf, np.inf), action=Discrete(2), time_limit=7, metric_names=("success",),
    )  # fmt: skip

    def __init__(self, poisoned: bool = False):
        self.poisoned = poisoned

    def default_params(self):
        return ()

    def _show(self, x, time, reward, terminated, truncated):
        observation = jnp.stack([x, x * x, jnp.ones(())])
        return TimeStep(
            observation=observation[None], global_state=observation, action_mask=None, reward=reward[None],
            terminated=terminated, truncated=truncated, metrics={"success": (x > 0).astype(jnp.float32)},
        )  # fmt: skip

    def reset(self, key, params):
        x = jax.random.uniform(key, minval=-1.0, maxval=1.0)
        no = jnp.zeros((), bool)
        return (x, jnp.zeros((), jnp.int32)), self._show(x, 0, jnp.zeros(()), no, no)

    def step(self, key, state, action, params):
        x = state[0] + 0.5 * (2.0 * action[0] - 1.0) + 0.3 * jax.random.normal(key)
        time = state[1] + 1
        reward = jnp.where(x > 0, 1.0, 0.0)
        if self.poisoned:
            reward = jnp.where(x > 1.2, jnp.nan, reward)
        return (x, time), self._show(x, time, reward, jnp.abs(x) > 2.0, time >= 7)


@pytest.fixture
def walk():
    return Walk()


@pytest.fixture
def poisoned_walk():
    return Walk(poisoned=True)
