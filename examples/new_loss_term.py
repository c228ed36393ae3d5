"""A loss term of your own: PPO with a penalty on large policy logits, in the engine's compiled loop.

python examples/new_loss_term.py
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_engine.algos.ppo import PPO
from jaxrl_engine.core.config import Config
from jaxrl_engine.modes.build import build
from jaxrl_engine.modes.train import make_program


@dataclasses.dataclass(frozen=True)
class CalmPPO(PPO):
    """PPO whose loss has one more term, `calmness · E[mean of squared logits]`."""

    calmness: float = 0.1

    def _loss(self, params, hyper, batch):
        total, metrics = super()._loss(params, hyper, batch)
        distribution, _ = self._evaluate(params, batch)  # computed once: XLA merges it with the one of the other terms
        penalty = jnp.square(distribution.logits).mean()
        return total + self.calmness * penalty, metrics | {"Losses/Logits": penalty}


if __name__ == "__main__":
    built = build(Config(env="gymnax:CartPole-v1", total_steps=100_000))
    for algorithm in (built.algorithm, CalmPPO(built.env.spec, built.config.ppo, built.config.network)):
        program = make_program(dataclasses.replace(built, algorithm=algorithm))
        state = program.init(built.keys, built.hyper)
        state, rows = program.compile(state)(state, np.int32(60))
        rows = jax.device_get(rows)
        last = {name: float(values[rows.count - 1]) for name, values in rows.values.items()}
        print(f"{type(algorithm).__name__:8} return {last['Charts/EpisodeReturn']:.1f}", end=" ")
        print(
            f"entropy {last['Losses/Entropy']:.3f}", f"mean squared logit {last.get('Losses/Logits', float('nan')):.3f}"
        )
