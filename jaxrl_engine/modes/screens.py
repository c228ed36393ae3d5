"""What the wall shows: a few worlds of its own, in which the newest policy plays beside training.

Training is only looked at: its worlds, its keys and its order of work are the same whether anybody watches or not. The
policy acts as it does in training (it samples), and goes on with new parameters in the middle of an episode.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from jaxrl_engine.algos.hmasd.types import HMASDCarry
from jaxrl_engine.algos.protocol import Acting
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf, PyTree, TrainState
from jaxrl_engine.envs.protocol import Embodied, Pictured
from jaxrl_engine.envs.vector import VectorEnv
from jaxrl_engine.live.clip import Clip
from jaxrl_engine.modes.map_elites.judge import embody
from jaxrl_engine.modes.rollout import ActorState, rollout, start
from jaxrl_engine.ops.rows import where_rows
from jaxrl_engine.qd.arms import Arms, random_arms
from jaxrl_engine.qd.repertoire import Repertoire

MOST_FRAMES = 64
"""Of one clip: what is shown until the next, where a chunk of training takes long."""


class Stage(Struct):
    """The wall's own worlds, between two clips."""

    actor: ActorState  # [n]
    cells: Int[Leaf, "n"]  # whose body each world has, where bodies differ
    key: Key[Leaf, ""]


class Casting(Struct):
    """Which bodies play."""

    repertoire: Repertoire | None  # None: every world has the same parameters
    cells: Int[Leaf, "n"]


Bodies = Callable[[Casting], PyTree]


@dataclasses.dataclass(frozen=True)
class Screens:
    """`n` worlds and the algorithm that plays in them."""

    algorithm: Acting
    vector_env: VectorEnv
    bodies: Bodies  # the worlds' parameters

    def begin(self, key: Key[Array, ""], casting: Casting) -> Stage:
        """Start an episode in every world. The key is consumed."""
        key_start, key_run = jax.random.split(key)
        actor = start(self.algorithm, self.vector_env, key_start, self.bodies(casting))
        return Stage(actor=actor, cells=casting.cells, key=key_run)

    def play(
        self, train_state: TrainState, stage: Stage, casting: Casting, frames: Int[Array, ""]
    ) -> tuple[Stage, Clip]:
        """Act for `frames` steps, at most `MOST_FRAMES`; the clip has that many frames and zeros behind them.

        A world whose cell in `casting` is another one begins anew with that body.
        """
        params = self.bodies(casting)
        key_begin, key_run = jax.random.split(stage.key)
        anew = start(self.algorithm, self.vector_env, key_begin, params)
        actor = where_rows(casting.cells != stage.cells, anew, stage.actor)

        def step(key: Key[Array, ""], actor: ActorState) -> tuple[Key[Array, ""], ActorState, Clip]:
            key, key_step = jax.random.split(key)
            after, _, ended = rollout(self.algorithm, self.vector_env, train_state, actor, key_step, params, 1)
            episodes = jax.tree.map(lambda leaf: leaf[0], ended)
            clip = Clip(
                scenes=self._scenes(actor, params), ended=episodes.ended,
                episode_return=jnp.where(episodes.ended, episodes.episode_return, actor.vector.episode_return),
                step=jnp.where(episodes.ended, episodes.episode_length, actor.vector.episode_length),
                skills=after.carry.skills if isinstance(after.carry, HMASDCarry) else None,
            )  # fmt: skip
            return key, after, clip

        example = jax.eval_shape(step, key_run, actor)[2]
        film = jax.tree.map(lambda leaf: jnp.zeros((MOST_FRAMES, *leaf.shape), leaf.dtype), example)

        def one(number: Int[Array, ""], loop: tuple[Any, ActorState, Clip]) -> tuple[Any, ActorState, Clip]:
            key, after, clip = step(*loop[:2])
            return key, after, jax.tree.map(lambda all, one: all.at[number].set(one), loop[2], clip)

        key, actor, film = jax.lax.fori_loop(0, jnp.minimum(frames, MOST_FRAMES), one, (key_run, actor, film))
        return Stage(actor=actor, cells=casting.cells, key=key), film

    def _scenes(self, actor: ActorState, params: PyTree) -> Any:
        env = self.vector_env.env
        assert isinstance(env, Pictured)
        return jax.vmap(env.scene, in_axes=(0, self.vector_env.params_axis))(actor.vector.env, params)


def same_worlds(algorithm: Acting, env: Any, env_params: PyTree, count: int) -> Screens:
    """Screens whose worlds all have the same parameters."""
    return Screens(algorithm, VectorEnv(env, count), lambda casting: env_params)


def elites(algorithm: Acting, env: Embodied, config: Any, count: int) -> Screens:
    """Screens of elites; where a cell holds none, of random bodies: before the first ones are judged."""

    def bodies(casting: Casting) -> PyTree:
        repertoire = casting.repertoire
        assert repertoire is not None
        held = repertoire.occupied[casting.cells]
        chosen: Arms = jax.tree.map(lambda leaf: leaf[casting.cells], repertoire.genotypes)
        return embody(env, where_rows(held, chosen, random_arms(jax.random.key(0), config, count)))

    return Screens(algorithm, VectorEnv(env, count, params_axis=0), bodies)
