"""One learner on several devices: shards of replay and chunks of the batch over the mesh axis `data`, all else on each.

Actors work on the first device alone, with a copy of the parameters there.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
from jax.sharding import PartitionSpec

from jaxrl_engine.algos.impact import Impact
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.core.types import Chunk, PyTree
from jaxrl_engine.modes.actor_learner.learner import Learner, LearnerState, Metrics, one_batch
from jaxrl_engine.modes.build import Build
from jaxrl_engine.modes.placement import AXIS, Placement
from jaxrl_engine.replay import prioritised
from jaxrl_engine.replay.sharded import ShardedReplay

Step: TypeAlias = Callable[[LearnerState, tuple[Chunk, ...]], tuple[LearnerState, Metrics]]


@dataclasses.dataclass(frozen=True)
class Spread:
    """How the learner's arrays lie on several devices.

    Raises:
        UserError: the devices could not share the shards of replay evenly.
    """

    placement: Placement  # on a mesh
    num_shards: int  # of replay

    def __post_init__(self) -> None:
        devices, shards = self.placement.size, self.num_shards
        if shards % devices:
            fix = f"--impact.replay-shards {-(-shards // devices) * devices}"
            raise UserError(f"impact.replay_shards must be a multiple of the {devices} devices ({fix}), not {shards}")

    def shardings(self, state: PyTree) -> PyTree:
        """Where each leaf of an `AsyncState` lives."""
        return self.placement.of(state, lambda path: path[:2] == ["learner", "replay"])

    def of_learner(self, state: LearnerState) -> LearnerState:
        """Where each leaf of the learner's state lives."""
        placed: LearnerState = self.placement.of(state, lambda path: path[0] == "replay")
        return placed

    def over_shards(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of one shard of replay as one of all: each device computes its own, and sees no other's."""
        # What varies over the devices is not followed into the loops of the sum tree, which begin with constants.
        return jax.shard_map(
            jax.vmap(function),
            mesh=self.placement.mesh,
            in_specs=PartitionSpec(AXIS),
            out_specs=PartitionSpec(AXIS),
            check_vma=False,
        )

    def lower(self, learner: Learner, state: LearnerState, rollouts: tuple[Chunk, ...]) -> jax.stages.Lowered:
        """Trace the learner's step for rollouts of these shapes, taken as one batch; the state is donated."""
        placed = self.of_learner(state)
        step = jax.jit(
            learner.step,
            donate_argnums=0,
            in_shardings=(placed, self.placement.split),
            out_shardings=(placed, self.placement.everywhere),
        )
        with self.placement.context():
            return step.lower(state, (jax.eval_shape(one_batch, rollouts),))

    def compile(self, learner: Learner, state: LearnerState, rollouts: tuple[Chunk, ...]) -> Step:
        """Compile the learner's step for rollouts of these shapes, wherever they come from; the state is donated."""
        compiled, join = self.lower(learner, state, rollouts).compile(), jax.jit(one_batch)

        def step(state: LearnerState, rollouts: tuple[Chunk, ...]) -> tuple[LearnerState, Metrics]:
            # Joined where they were collected: each device is then sent its part and no more.
            return compiled(state, (jax.device_put(join(rollouts), self.placement.split),))

        return step


def make_learner(built: Build, spread: Spread | None = None) -> Learner:
    """The learner's share of a configuration, on one device or spread over several."""
    config, impact = built.config, built.config.impact
    assert isinstance(built.algorithm, Impact)  # the configuration admits no other
    shards, over_shards = impact.replay_shards, jax.vmap if spread is None else spread.over_shards
    return Learner(
        algorithm=built.algorithm, config=impact, num_new=config.new_chunks,
        num_replayed=impact.batch_size // config.num_steps - config.new_chunks,
        capacity=impact.buffer_capacity // (config.num_steps * shards) * shards,
        min_size=-(-impact.min_buffer_size // config.num_steps), total_updates=config.num_updates,
        replay=prioritised if shards == 1 else ShardedReplay(shards, over_shards),
    )  # fmt: skip
