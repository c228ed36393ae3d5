"""Many copies of a world stepped together: `vmap`, automatic reset, episode statistics.

Resetting must not double the cost of a step. A world whose reset is as dear as its step would pay for `B` resets at
every step to use hardly any; so a rollout draws one pool of `B` fresh episodes, and an environment that finishes takes
its next one from the pool. The `r`-th reset of environment `b` within a rollout takes entry `(b + r) mod B`: each start
is an independent draw from the world's own reset distribution, never seen before by that environment, and shared with a
neighbour only where one environment finishes more than once within a single rollout.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf, PyTree, TimeStep
from jaxrl_engine.envs.protocol import Environment
from jaxrl_engine.ops.rows import where_rows


class VectorState(Struct):
    """`B` running episodes."""

    env: PyTree  # [B, …] the worlds' own states
    timestep: TimeStep  # [B] what the agents see now; reward and flags still belong to the step before
    is_first: Bool[Leaf, "*batch"]  # [B] `timestep.observation` starts an episode
    episode_return: Float[Leaf, "*batch"]  # [B] undiscounted so far, mean over agents
    episode_length: Int[Leaf, "*batch"]  # [B] steps so far


class Fresh(Struct):
    """A pool of `B` episodes that have not begun, and how many of them each environment has taken."""

    env: PyTree  # [B, …]
    timestep: TimeStep  # [B]
    taken: Int[Leaf, "*batch"]  # [B]


class Episodes(Struct):
    """Statistics of the episodes that ended at a step; meaningful where `ended`."""

    ended: Bool[Leaf, "*batch"]
    episode_return: Float[Leaf, "*batch"]
    episode_length: Int[Leaf, "*batch"]
    metrics: dict[str, Float[Leaf, "*batch"]]  # the world's metrics at the final step


@dataclasses.dataclass(frozen=True)
class VectorEnv:
    """`num_envs` copies of `env`. With `params_axis=0` every copy has parameters (a body) of its own."""

    env: Environment[Any, Any]
    num_envs: int
    params_axis: int | None = None
    split: bool = False  # over several devices, which share nothing while they step

    @property
    def shares_starts(self) -> bool:
        """Whether an environment may begin with a start that was drawn beside another's."""
        return self.params_axis is None  # a start drawn for another body does not fit

    def reset(self, key: Key[Array, ""], params: PyTree) -> VectorState:
        """Start `B` episodes. The key is consumed."""
        env_state, timestep = self._reset_all(key, params)
        zeros = jnp.zeros(self.num_envs)
        return VectorState(
            env=env_state, timestep=timestep, is_first=jnp.ones(self.num_envs, bool),
            episode_return=zeros, episode_length=jnp.zeros(self.num_envs, jnp.int32),
        )  # fmt: skip

    def fresh(self, key: Key[Array, ""], params: PyTree) -> Fresh:
        """Draw the pool that one rollout's resets are taken from. The key is consumed."""
        env_state, timestep = self._reset_all(key, params)
        return Fresh(env=env_state, timestep=timestep, taken=jnp.zeros(self.num_envs, jnp.int32))

    def step(
        self, keys: Key[Array, "B"], state: VectorState, action: Array, params: PyTree, fresh: Fresh
    ) -> tuple[VectorState, Fresh, TimeStep, Episodes]:
        """Step every environment, and start anew those that finished.

        Returns the next state, the pool, the *true* next TimeStep `[B]` (before any reset: bootstrap from this one)
        and the statistics of the episodes that ended. `keys` are consumed.
        """
        step = jax.vmap(self.env.step, in_axes=(0, 0, 0, self.params_axis))
        env_state, timestep = step(keys, state.env, action, params)
        done = timestep.done
        episode_return = state.episode_return + timestep.reward.mean(axis=-1)
        episode_length = state.episode_length + 1
        episodes = Episodes(
            ended=done, episode_return=episode_return, episode_length=episode_length, metrics=timestep.metrics
        )
        begin_env, begin_timestep = self._begin(done, fresh, env_state, timestep)
        next_state = VectorState(
            env=begin_env,
            timestep=begin_timestep.replace(
                reward=timestep.reward, terminated=timestep.terminated, truncated=timestep.truncated,
                metrics=timestep.metrics,
            ),
            is_first=done,
            episode_return=jnp.where(done, 0.0, episode_return),
            episode_length=jnp.where(done, 0, episode_length),
        )  # fmt: skip
        return next_state, fresh.replace(taken=fresh.taken + done), timestep, episodes

    def _begin(
        self, done: Bool[Array, "B"], fresh: Fresh, env_state: PyTree, timestep: TimeStep
    ) -> tuple[PyTree, TimeStep]:
        """Put starts from the pool where an episode ended.

        On a CPU a step at which none did skips it: choosing between two arrays costs as much as filling one. A GPU
        would have to ask the host which way to go, and several devices one another.
        """

        def start() -> tuple[PyTree, TimeStep]:
            begun = (fresh.env, fresh.timestep)
            if self.shares_starts:
                index = (jnp.arange(self.num_envs) + fresh.taken) % self.num_envs
                begun = jax.tree.map(lambda pool: pool[index], begun)
            return where_rows(done, begun, (env_state, timestep))

        def start_if_any() -> tuple[PyTree, TimeStep]:
            return jax.lax.cond(done.any(), start, lambda: (env_state, timestep))

        if self.split:
            return start()
        return jax.lax.platform_dependent(cpu=start_if_any, default=start)

    def _reset_all(self, key: Key[Array, ""], params: PyTree) -> tuple[PyTree, TimeStep]:
        keys = jax.random.split(key, self.num_envs)
        return jax.vmap(self.env.reset, in_axes=(0, self.params_axis))(keys, params)
