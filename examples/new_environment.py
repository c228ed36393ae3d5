"""A world of your own in one file: a boat that has to hold its place in a drifting current.

python examples/new_environment.py
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxrl_engine import Config, register, train
from jaxrl_engine.core.spaces import Box
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import EnvSpec, TimeStep


class BoatState(Struct):
    position: jax.Array  # [], m from the buoy
    current: jax.Array  # [], m/s
    time: jax.Array  # [] int32, steps


@dataclasses.dataclass(frozen=True)
class Boat:
    """Reward 1 − |position| per step; the episode terminates 3 m off and is truncated after `episode_length` steps."""

    episode_length: int = 40  # its arguments are what `env_params` may set

    @property
    def spec(self):
        inf = float("inf")
        return EnvSpec(
            name="boat", num_agents=1, observation=Box.uniform((2,), -inf, inf), action=Box.uniform((1,), -1.0, 1.0),
            global_state=Box.uniform((2,), -inf, inf), time_limit=self.episode_length, metric_names=("success",),
        )  # fmt: skip

    def default_params(self):
        return ()

    def reset(self, key, params):
        position, current = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
        state = BoatState(position=position, current=0.5 * current, time=jnp.zeros((), jnp.int32))
        return state, self._show(state, jnp.zeros(()))

    def step(self, key, state, action, params):
        current = 0.95 * state.current + 0.1 * jax.random.normal(key)
        position = state.position + 0.2 * (current + action[0, 0])
        state = BoatState(position=position, current=current, time=state.time + 1)
        return state, self._show(state, 1.0 - jnp.abs(position))

    def _show(self, state, reward):
        observation = jnp.stack([state.position, state.current])
        return TimeStep(
            observation=observation[None],  # the agent axis
            global_state=observation,
            action_mask=None,
            reward=reward[None],
            terminated=jnp.abs(state.position) > 3.0,  # the boat is lost: no value follows
            truncated=state.time >= self.episode_length,  # only our patience ended
            metrics={"success": (jnp.abs(state.position) < 0.2).astype(jnp.float32)},
        )


if __name__ == "__main__":
    register("boat", Boat)
    summary = train(Config(env="boat", total_steps=100_000)).summary
    print(f"on station at the end: {summary['eval']['success_rate']:.2f}, ", end="")
    print(f"drifting at random: {summary['random_policy']['success_rate']:.2f}")
