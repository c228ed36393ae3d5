"""A small evolution, run generation by generation."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_engine.core.config import Config, MapElitesConfig, NetworkConfig, PPOConfig
from jaxrl_engine.modes.build import build
from jaxrl_engine.modes.programs import make_program

SMALL = {
    "num_initial": 11, "num_offspring": 7, "num_targets": 5, "updates_per_generation": 2, "bins": 3, "warm_up": 0.3,
    "max_links": 3,
}  # fmt: skip


def small_config(**changes):
    """Ten generations of arms of two or three links in three bins of length; three of them are warm-up."""
    settings = {
        "mode": "map-elites", "env": "reacher", "env_params": {"episode_length": 5}, "num_envs": 8, "num_steps": 5,
        "total_steps": 10 * 2 * 8 * 5, "qd": MapElitesConfig(**SMALL),
        "ppo": PPOConfig(num_epochs=1, num_minibatches=2, normalize_observations=False, learning_rate=3e-2),
        "network": NetworkConfig(torso="body-mlp", hidden_sizes=(8,)),
    }  # fmt: skip
    return Config(**settings | changes)


class Evolved:
    """A program and the states it went through, one per generation."""

    def __init__(self, config):
        self.built = build(config)
        self.program = make_program(self.built)
        state = self.program.init(self.built.keys, self.built.hyper)
        chunk = self.program.compile(state)
        self.states, self.rows = [jax.tree.map(jnp.copy, state)], []
        for _ in range(config.num_updates):
            state, rows = chunk(state, np.int32(1))
            self.states.append(jax.tree.map(jnp.copy, state))
            self.rows.append({name: float(values[0]) for name, values in jax.device_get(rows).values.items()})

    @property
    def evolution(self):
        return self.program.trainer
