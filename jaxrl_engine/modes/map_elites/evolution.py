"""The map-elites mode: bodies evolve while one policy learns to move them all.

One update of the fused program is a generation,

    bodies to train on (elites, offspring, random)
    → rollouts and updates of the shared policy
    → every elite evaluated anew under the policy as it now is
    → offspring evaluated under the same policy on the same targets → inserted where they are better

so that what competes was always measured alike, and the repertoire never shows what an earlier policy could do. Until
the warm-up is over the policy learns on random bodies alone: begun together, bodies that are easy to move at first
crowd out the rest. Source: Mouret & Clune 2015, arXiv:1504.04909, with the elites re-evaluated.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from jaxrl_engine.core.config import MapElitesConfig
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf, PyTree, TrainState
from jaxrl_engine.envs.protocol import Embodied
from jaxrl_engine.modes.evaluate import greedy_policy
from jaxrl_engine.modes.fused import Learned, Mean
from jaxrl_engine.modes.map_elites.judge import embody, judge
from jaxrl_engine.modes.map_elites.space import DescriptorSpace
from jaxrl_engine.modes.rollout import ActorState, start
from jaxrl_engine.modes.sync import OnPolicy, learn_once
from jaxrl_engine.qd import repertoire as archive
from jaxrl_engine.qd.arms import Arms, random_arms
from jaxrl_engine.qd.repertoire import Candidates, Repertoire
from jaxrl_engine.qd.variation import offspring

FLOOR = -1.0
"""Fitness of an elite that could not be measured; the least a body can have is a little below 0."""
SNAPSHOTS = 64
"""Pictures of the repertoire kept over a run, evenly spaced."""


class History(Struct):
    """How the repertoire looked, for the film of its evolution."""

    fitness: Float[Leaf, "*batch frames N"]  # under the policy of that time; -inf: empty
    generation: Int[Leaf, "*batch frames"]  # -1: not taken yet


class Population(Struct):
    """What the mode keeps beside the learner."""

    worlds: ActorState  # [B, …]
    repertoire: Repertoire  # [N, …]
    targets: Key[Leaf, "*batch"]  # where targets and starts of every evaluation come from, the same for all bodies
    generation: Int[Leaf, "*batch"]
    evaluation_steps: UInt32[Leaf, "*batch"]  # environment steps of evaluations so far
    history: History


@dataclasses.dataclass(frozen=True)
class Evolution:
    """Generations of bodies under one learning policy; see `modes.fused.Trainer`."""

    practice: OnPolicy  # how the policy learns; its worlds have a body each
    env: Embodied
    config: MapElitesConfig  # the bounds of bodies and how offspring vary among it
    space: DescriptorSpace
    warm_up: int  # generations
    generations: int

    def init(self, key: Key[Array, ""], hyper: PyTree) -> TrainState:
        """Draw the policy's parameters. The key is consumed."""
        return self.practice.init(key, hyper)

    def start(self, key: Key[Array, ""]) -> Population:
        """Begin with random bodies and an empty repertoire. The key is consumed."""
        key_arms, key_worlds, key_targets = jax.random.split(key, 3)
        arms = random_arms(key_arms, self.config, self.practice.vector_env.num_envs)
        practice = self.practice
        worlds = start(practice.algorithm, practice.vector_env, key_worlds, embody(self.env, arms))
        return Population(
            worlds=worlds, repertoire=archive.empty(self.space.cells, jax.tree.map(lambda leaf: leaf[0], arms)),
            targets=key_targets, generation=jnp.zeros((), jnp.int32), evaluation_steps=jnp.zeros((), jnp.uint32),
            history=History(
                fitness=jnp.full((SNAPSHOTS, self.space.cells.num_cells), -jnp.inf),
                generation=jnp.full((SNAPSHOTS,), -1, jnp.int32),
            ),
        )  # fmt: skip

    def batched(self, path: Sequence[str]) -> bool:
        """Only the worlds do; the repertoire is everybody's."""
        return path[0] == "worlds"

    def learn(self, train_state: TrainState, actor: Population, key: Key[Array, ""]) -> Learned:
        """Run one generation. The key is consumed."""
        key_children, key_random, key_elites, key_train, key_first = jax.random.split(key, 5)
        children = offspring(key_children, actor.repertoire, self.config, self.config, self.config.num_offspring)
        # A repertoire once begun stays, even where a resumed run is told to take longer.
        warm = (actor.generation < self.warm_up) & ~actor.repertoire.occupied.any()
        arms = self._training_bodies(actor.repertoire, children, warm, key_random, key_elites)
        train_state, worlds, metrics = self._train(train_state, actor.worlds, embody(self.env, arms), warm, key_train)
        repertoire, steps = jax.lax.cond(
            warm,
            lambda: (actor.repertoire, jnp.zeros((), jnp.uint32)),
            lambda: self._evolve(train_state, actor, children, key_first),
        )
        after = actor.replace(
            worlds=worlds, repertoire=repertoire, generation=actor.generation + 1,
            evaluation_steps=actor.evaluation_steps + steps,
            history=self._remember(actor.history, actor.generation, repertoire),
        )  # fmt: skip
        return train_state, after, metrics | self._describe(after)

    # --- how -----------------------------------------------------------------------------------------------------

    def _training_bodies(
        self,
        repertoire: Repertoire,
        children: Arms,
        warm: Bool[Array, ""],
        key_random: Key[Array, ""],
        key_elites: Key[Array, ""],
    ) -> Arms:
        """`B` bodies: elites, offspring and random ones in their shares; random ones alone during the warm-up."""
        count = self.practice.vector_env.num_envs
        num_elites, num_children = round(self.config.elites * count), round(self.config.offspring * count)
        fresh = random_arms(key_random, self.config, count)
        elites, _ = archive.select(repertoire, key_elites, num_elites)
        row = jnp.arange(num_children) % self.config.num_offspring
        rest = num_elites + num_children

        def mix(random: Array, elite: Array, child: Array) -> Array:
            mixed = jnp.concatenate([elite, child[row], random[rest:]])
            alone = warm | ~repertoire.occupied.any()
            return jnp.where(alone, random, mixed)

        return jax.tree.map(mix, fresh, elites, children)

    def _train(
        self, train_state: TrainState, worlds: ActorState, bodies: PyTree, warm: Bool[Array, ""], key: Key[Array, ""]
    ) -> tuple[TrainState, ActorState, dict[str, Mean]]:
        """Several updates of the policy. A world takes its new body when its episode ends."""
        keys = jax.random.split(key, self.config.updates_per_generation)

        def update(carry: tuple[TrainState, ActorState], key: Key[Array, ""]) -> tuple[tuple, dict[str, Mean]]:
            learned, worlds, metrics = learn_once(self.practice, *carry, key, bodies)
            if not self.config.learn_after_warm_up:
                learned = jax.tree.map(lambda new, old: jnp.where(warm, new, old), learned, carry[0])
            return (learned, worlds), metrics

        (train_state, worlds), metrics = jax.lax.scan(update, (train_state, worlds), keys)
        return train_state, worlds, jax.tree.map(lambda leaf: leaf.sum(axis=0), metrics)

    def _evolve(
        self, train_state: TrainState, actor: Population, children: Arms, key: Key[Array, ""]
    ) -> tuple[Repertoire, UInt32[Array, ""]]:
        """Refresh the repertoire and let the offspring compete; returns the environment steps this took, too.

        All are evaluated in one batch. While the repertoire is empty, random bodies stand where its elites will.
        """
        repertoire, cells = actor.repertoire, self.refreshed
        empty = ~repertoire.occupied.any()
        elites = jax.tree.map(lambda leaf: leaf[cells], repertoire.genotypes)
        arms = jax.tree.map(
            lambda random, elite, child: jnp.concatenate([jnp.where(empty, random, elite), child]),
            random_arms(key, self.config, len(cells)), elites, children,
        )  # fmt: skip
        fitness, descriptors, steps = self._measure(train_state, actor.targets, arms)
        if self.config.refresh:
            everywhere = repertoire.fitness.at[cells].set(fitness[: len(cells)])
            repertoire = archive.refresh(repertoire, everywhere, train_state.policy_version, FLOOR)
        candidates = Candidates(
            genotypes=arms, fitness=fitness, descriptors=descriptors, policy_version=train_state.policy_version
        )
        row = jnp.arange(fitness.shape[0])
        asking = jnp.where(empty, row < self.config.num_initial, row >= len(cells))
        return archive.insert(repertoire, candidates, actor.generation, asking)[0], steps

    @property
    def refreshed(self) -> Int[np.ndarray, "cells"]:
        """The cells whose elites are evaluated in every generation."""
        return self.space.judged[: None if self.config.refresh else 0]

    def _measure(
        self, train_state: TrainState, targets: Key[Array, ""], arms: Arms
    ) -> tuple[Float[Array, "n"], Float[Array, "n D"], UInt32[Array, ""]]:
        """Fitness and descriptors of bodies under the policy, and the environment steps it took to tell.

            fitness = success rate − d / (1 + d) / (2 · num_targets),   d the mean final distance,

        so that the distance decides between equals and never outweighs a success.
        """
        algorithm, count = self.practice.algorithm, self.config.num_targets
        policy = greedy_policy(algorithm, train_state)
        results = judge(policy, algorithm.initial_carry, self.env, targets, arms, count)
        means = {name: value.mean(axis=1) for name, value in results.metrics.items()}
        distance = means["final_distance"]
        fitness = means["success"] - 0.5 / count * distance / (1.0 + distance)
        return fitness, self.space.describe(arms, means), results.episode_length.sum(dtype=jnp.uint32)

    def _remember(self, history: History, generation: Int[Array, ""], repertoire: Repertoire) -> History:
        """Keep the repertoire's fitness where a new picture is due: the last generation of each of equal spans."""
        frame, following = (SNAPSHOTS * (generation + step) // self.generations for step in (0, 1))
        row = jnp.where(following > frame, frame, SNAPSHOTS)
        return History(
            fitness=history.fitness.at[row].set(repertoire.fitness, mode="drop"),
            generation=history.generation.at[row].set(generation, mode="drop"),
        )

    def _describe(self, actor: Population) -> dict[str, Mean]:
        """What the rows say of the repertoire; means that nothing was observed of are left out of theirs."""
        told = archive.summary(actor.repertoire, jnp.asarray(self.space.feasible), 0.0, actor.generation)
        told |= {"QD/Generation": actor.generation, "QD/EvaluationSteps": actor.evaluation_steps}
        values = {name: jnp.asarray(value, jnp.float32) for name, value in told.items()}
        known = {name: jnp.isfinite(value) for name, value in values.items()}
        return {
            name: Mean(total=jnp.where(known[name], value, 0.0), weight=known[name].astype(jnp.float32))
            for name, value in values.items()
        }
