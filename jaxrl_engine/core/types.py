"""The nouns that flow through the engine, with the shape of every array.

Axes, named once for the whole code base:

    T   time: steps of a rollout, or of a chunk
    B   parallel environments
    A   agents of one environment (1 for single-agent worlds; never squeezed away)
    K   replayed chunks
    N   repertoire cells or robot bodies
    S   independent runs in one program: seeds × settings of a sweep
    M   samples of a minibatch
    D   features

Leading axes are written `*batch`: a `Transition` is `[T, B]` in a rollout and `[K, T]` in replay; one class serves all.
"""

import dataclasses
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8

from jaxrl_engine.core.spaces import ActionSpace, Box, Tokens
from jaxrl_engine.core.struct import Struct

if TYPE_CHECKING:
    Leaf: TypeAlias = jax.Array
else:
    Leaf: TypeAlias = jax.Array | np.ndarray | jax.ShapeDtypeStruct
"""Actors hand over NumPy, shape evaluation hands over ShapeDtypeStruct: a container accepts each. Code that computes
with a leaf holds an array, so that is what the static checker is told."""

PyTree: TypeAlias = Any


@dataclasses.dataclass(frozen=True)
class EnvSpec:
    """Static facts about a world.

    `observation` and `action` describe one agent; `global_state` the input of a centralised critic. `time_limit` is in
    environment steps (None: episodes end only by termination). `metric_names` are the keys of `TimeStep.metrics`.
    `remark` is what a run says about the world when it starts, such as a choice the world made by itself. `tokens` says
    how a flat observation of a body is laid out, one slot per number of the action.
    """

    name: str
    num_agents: int
    observation: Box
    global_state: Box
    action: ActionSpace
    time_limit: int | None = None
    metric_names: tuple[str, ...] = ()
    masks_actions: bool = False
    remark: str = ""
    tokens: Tokens | None = None


class TimeStep(Struct):
    """What a world shows after `reset` or `step`. `reward` and the flags belong to the step that led here.

    After `reset` the reward is 0 and both flags are False. A step may be terminated or truncated or both; termination
    wins when values are bootstrapped.
    """

    observation: Shaped[Leaf, "..."]  # [*batch, A, *observation.shape]
    global_state: Shaped[Leaf, "..."]  # [*batch, *global_state.shape]; the joint observation if the world has none
    action_mask: Bool[Leaf, "*batch A n"] | None  # True: allowed. n = Discrete.n, or sum(MultiDiscrete.nvec)
    reward: Float[Leaf, "*batch A"]
    terminated: Bool[Leaf, "*batch"]  # the world ended: no value follows
    truncated: Bool[Leaf, "*batch"]  # only our patience ended: the value of the final observation follows
    metrics: dict[str, Float[Leaf, "*batch"]]  # e.g. `success`, read at the step that ends an episode

    @property
    def done(self) -> jax.Array:  # [*batch] bool
        return self.terminated | self.truncated


class Transition(Struct):
    """What one step leaves behind for learning.

    `observation` is what the policy saw, `final_observation` the true next one *before* any reset: where the step is
    truncated the value of `final_observation` is bootstrapped, never that of the next episode's first observation.
    `action` is the one `log_prob` speaks of (for squashed policies: before squashing). `extras` is typed per algorithm.
    """

    observation: Shaped[Leaf, "..."]  # [*batch, A, *observation.shape]
    global_state: Shaped[Leaf, "..."]  # [*batch, *global_state.shape]
    action_mask: Bool[Leaf, "*batch A n"] | None
    action: Shaped[Leaf, "..."]  # [*batch, A, *action.shape]
    log_prob: Float[Leaf, "*batch A"]  # nats, under the behaviour policy
    reward: Float[Leaf, "*batch A"]
    terminated: Bool[Leaf, "*batch"]
    truncated: Bool[Leaf, "*batch"]
    final_observation: Shaped[Leaf, "..."]  # [*batch, A, *observation.shape]
    final_global_state: Shaped[Leaf, "..."]  # [*batch, *global_state.shape]
    is_first: Bool[Leaf, "*batch"]  # `observation` is the first of its episode: recurrent state was cleared before it
    policy_version: Int[Leaf, "*batch"]  # number of updates behind the parameters that acted
    extras: PyTree

    @property
    def done(self) -> jax.Array:  # [*batch] bool
        return self.terminated | self.truncated


class Chunk(Struct):
    """`T` steps of one environment, as actors hand them over and replay keeps them: every observation once.

    Where step `t` is truncated the true final observation follows it, never `observation[t + 1]`; a chunk has room for
    one, that of its first truncated step. `valid` leaves out the steps of an episode whose truncation was a later one.
    """

    observation: Shaped[Leaf, "..."]  # [*batch, T + 1, A, *observation.shape]; the last one follows the chunk
    cut_observation: Shaped[Leaf, "..."]  # [*batch, A, *observation.shape]; meaningful where a step is truncated
    packed_mask: UInt8[Leaf, "*batch A bytes"] | None  # [*batch, T, A, ⌈n / 8⌉] allowed actions, a bit each
    action: Shaped[Leaf, "..."]  # [*batch, T, A, *action.shape]
    log_prob: Float[Leaf, "*batch A"]  # [*batch, T, A] nats, under the behaviour policy
    reward: Float[Leaf, "*batch A"]  # [*batch, T, A]
    terminated: Bool[Leaf, "*batch"]  # [*batch, T]
    truncated: Bool[Leaf, "*batch"]  # [*batch, T]
    valid: Bool[Leaf, "*batch"]  # [*batch, T]
    discounted_return: Float[Leaf, "*batch A"] | None  # [*batch, T, A] so far; only where rewards are scaled
    policy_version: Int[Leaf, "..."]  # [*batch] of the parameters that acted

    @property
    def done(self) -> jax.Array:  # [*batch, T] bool
        return self.terminated | self.truncated


class Decision(Struct):
    """What an algorithm decided for one step."""

    env_action: Shaped[Leaf, "..."]  # [*batch, A, *action.shape] what the environments receive
    action: Shaped[Leaf, "..."]  # [*batch, A, *action.shape] what `log_prob` speaks of
    log_prob: Float[Leaf, "*batch A"]  # nats
    extras: PyTree


class Trajectory(Struct):
    """A rollout: `T` transitions of `B` environments and what stood at its two ends."""

    transitions: Transition  # leading axes [T, B]
    initial_carry: PyTree  # [B, …] the algorithm's memory before the first step
    last: TimeStep  # [B] what the next rollout starts from


class TrainState(Struct):
    """All a checkpoint needs from an algorithm."""

    params: PyTree
    optimizer: PyTree
    statistics: PyTree  # running statistics of observations, rewards, values: frozen during a rollout and its update
    hyper: PyTree  # traced hyper-parameters: scalars, so that runs differing in them share one program
    policy_version: Int[Leaf, "*batch"]  # updates applied so far
    skipped_updates: Int[Leaf, "*batch"]  # updates rejected because a loss or gradient was not finite
    skipped_in_a_row: Int[Leaf, "*batch"]
