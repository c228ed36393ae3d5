"""A repertoire of elites, one for each cell, that knows under which policy every fitness was measured.

MAP-Elites (Mouret and Clune 2015, arXiv:1504.04909) where the evaluator learns: a fitness belongs to a version of the
policy and goes stale. An elite carries its fitness under `policy_version`, overwritten by `refresh`, beside the one it
was let in with, which an archive that never looks again would still claim. The difference of the two is reported.

What is not finite, or lies outside every cell, is turned away and counted. All of it is pure and fits into `jit`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int8, PRNGKeyArray

from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf, PyTree
from jaxrl_engine.qd.cells import Cells

REJECTED, IMPROVED, NEW_CELL = 0, 1, 2
"""What became of a candidate, in the numbers of pyribs."""


class Candidates(Struct):
    """Genotypes that ask to be let in, with what was measured of them."""

    genotypes: PyTree  # leaves [C, …]
    fitness: Float[Leaf, "C"]
    descriptors: Float[Leaf, "C D"]
    policy_version: Int[Leaf, "*C"]  # of the policy that was measured: one for all, or one each


class Repertoire(Struct):
    """One elite at most for each cell. The five counters add up to the candidates seen, plus what `refresh` counted."""

    genotypes: PyTree  # leaves [N, …]
    fitness: Float[Leaf, "*batch N"]  # under `policy_version`; −inf: the cell is empty
    archived: Float[Leaf, "*batch N"]  # the fitness it was let in with
    descriptors: Float[Leaf, "*batch N D"]
    policy_version: Int[Leaf, "*batch N"]  # of the policy `fitness` was measured under
    born: Int[Leaf, "*batch N"]  # generation it was let in
    evaluations: Int[Leaf, "*batch N"]  # times its fitness was measured
    not_finite: Int[Leaf, "*batch"]  # candidates and refreshed fitnesses that were not finite
    out_of_range: Int[Leaf, "*batch"]  # finite candidates outside every cell
    inserted: Int[Leaf, "*batch"]  # candidates that took an empty cell
    improved: Int[Leaf, "*batch"]  # candidates that replaced an elite
    rejected: Int[Leaf, "*batch"]  # candidates inside a cell that another held or took
    cells: Cells

    @property
    def num_cells(self) -> int:
        return self.fitness.shape[-1]

    @property
    def occupied(self) -> Bool[Array, "*batch N"]:
        return jnp.asarray(self.fitness) > -jnp.inf


def empty(cells: Cells, genotype_example: PyTree) -> Repertoire:
    """Return a repertoire without elites for genotypes shaped like the example (arrays or their shapes)."""
    size = cells.num_cells
    # An array each: a buffer can be donated only once.
    version, born, evaluations = (jnp.zeros(size, jnp.int32) for _ in range(3))
    fitness, archived = (jnp.full(size, -jnp.inf) for _ in range(2))
    not_finite, out_of_range, inserted, improved, rejected = (jnp.zeros((), jnp.int32) for _ in range(5))
    return Repertoire(
        genotypes=jax.tree.map(lambda leaf: jnp.zeros((size, *jnp.shape(leaf)), leaf.dtype), genotype_example),
        fitness=fitness,
        archived=archived,
        descriptors=jnp.zeros((size, cells.low.shape[-1])),
        policy_version=version,
        born=born,
        evaluations=evaluations,
        not_finite=not_finite,
        out_of_range=out_of_range,
        inserted=inserted,
        improved=improved,
        rejected=rejected,
        cells=cells,
    )


def insert(
    repertoire: Repertoire,
    candidates: Candidates,
    generation: Int[Array, ""] | int,
    asking: Bool[Array, "C"] | bool = True,
) -> tuple[Repertoire, Int8[Array, "C"]]:
    """Let in every candidate that is fitter than its cell's elite and the fittest of those that ask for the cell.

    At equal fitness the elite stays, and of candidates the first one wins. Also returned: what became of each, 0
    rejected, 1 improved, 2 new cell. Of several candidates for one cell only the one that holds it afterwards is 1 or 2
    (pyribs compares each with the elite alone). Those that are not `asking` are rejected, and nowhere counted. Work
    O(C + N) for grids.
    """
    candidates = jax.tree.map(jnp.asarray, candidates)
    index, inside = jax.vmap(repertoire.cells.cell_of)(candidates.descriptors)
    finite = jnp.isfinite(candidates.fitness) & jnp.all(jnp.isfinite(candidates.descriptors), axis=-1)
    valid = finite & inside & asking
    incumbent = repertoire.fitness[index]
    winner = _winners(jnp.where(valid, candidates.fitness, -jnp.inf), index, incumbent, repertoire.num_cells)
    enters = winner[index] == jnp.arange(index.size)
    status = jnp.where(enters, jnp.where(incumbent > -jnp.inf, IMPROVED, NEW_CELL), REJECTED).astype(jnp.int8)

    def count(which: Array) -> Array:
        return jnp.sum(which, dtype=jnp.int32)

    repertoire = _settle(repertoire, candidates, winner, jnp.asarray(generation, jnp.int32))
    return repertoire.replace(
        not_finite=repertoire.not_finite + count(asking & ~finite),
        out_of_range=repertoire.out_of_range + count(asking & finite & ~inside),
        inserted=repertoire.inserted + count(status == NEW_CELL),
        improved=repertoire.improved + count(status == IMPROVED),
        rejected=repertoire.rejected + count(valid & ~enters),
    ), status


def _winners(fitness: Array, index: Array, incumbent: Array, num_cells: int) -> Array:
    """Return for every cell the candidate that takes it, C (the number of candidates) where none does."""
    best = jax.ops.segment_max(fitness, index, num_cells)
    contends = (fitness > incumbent) & (fitness == best[index])
    return jax.ops.segment_min(jnp.where(contends, jnp.arange(index.size), index.size), index, num_cells)


def _settle(repertoire: Repertoire, candidates: Candidates, winner: Array, generation: Array) -> Repertoire:
    """Write each cell's winner, a number beyond the candidates meaning none, into its cell."""
    last = candidates.fitness.size - 1
    taken, source = winner <= last, jnp.minimum(winner, last)

    def put(new: Array, old: Array) -> Array:
        """Take a candidate's row, or the same number for all, where a cell is taken."""
        rows = new.at[source].get(mode="promise_in_bounds") if new.ndim else jnp.broadcast_to(new, old.shape)
        return jnp.where(taken.reshape(taken.shape + (1,) * (old.ndim - 1)), rows.astype(old.dtype), old)

    return repertoire.replace(
        genotypes=jax.tree.map(put, candidates.genotypes, repertoire.genotypes),
        fitness=put(candidates.fitness, repertoire.fitness),
        archived=put(candidates.fitness, repertoire.archived),
        descriptors=put(candidates.descriptors, repertoire.descriptors),
        policy_version=put(candidates.policy_version, repertoire.policy_version),
        born=put(generation, repertoire.born),
        evaluations=put(jnp.int32(1), repertoire.evaluations),
    )


def refresh(
    repertoire: Repertoire,
    fitness: Float[Array, "N"],
    policy_version: Int[Array, "..."] | int,
    floor: Float[Array, ""] | float,
) -> Repertoire:
    """Overwrite the fitness of every elite with one measured under another policy; nothing else of it changes.

    `policy_version` is one number or one for each cell. A fitness that is not finite is counted and becomes `floor`, a
    finite number, the lowest the task can give: the elite keeps its place until a candidate beats that.
    """
    occupied, finite = repertoire.occupied, jnp.isfinite(fitness)
    return repertoire.replace(
        fitness=jnp.where(occupied, jnp.where(finite, fitness, floor), repertoire.fitness),
        policy_version=jnp.where(occupied, policy_version, repertoire.policy_version),
        evaluations=repertoire.evaluations + occupied,
        not_finite=repertoire.not_finite + jnp.sum(occupied & ~finite, dtype=jnp.int32),
    )


def select(repertoire: Repertoire, key: PRNGKeyArray, count: int) -> tuple[PyTree, Int[Array, "count"]]:
    """Draw elites uniformly with replacement: genotypes `[count, …]` and their cells. Without any elite: cell 0."""
    return pick(repertoire, jax.random.uniform(key, (count,)))


def pick(repertoire: Repertoire, uniforms: Float[Array, "count"]) -> tuple[PyTree, Int[Array, "count"]]:
    """`select` by numbers in [0, 1) drawn before: u stands for elite number floor(u × elites) in the cells' order."""
    ranks = jnp.cumsum(repertoire.occupied, dtype=jnp.int32) - 1
    # Looking a rank up in the list of occupied cells is a gather; a binary search of the ranks would be ten.
    place = jnp.where(repertoire.occupied, ranks, repertoire.num_cells)
    elites = jnp.zeros_like(ranks).at[place].set(jnp.arange(ranks.size, dtype=jnp.int32), mode="drop")
    drawn = (uniforms * (ranks[-1] + 1)).astype(jnp.int32)
    indices = elites[jnp.clip(drawn, 0, jnp.maximum(ranks[-1], 0))]
    return jax.tree.map(lambda leaf: leaf[indices], repertoire.genotypes), indices


def coverage(repertoire: Repertoire, feasible: Bool[Array, "N"]) -> Float[Array, ""]:
    """Return the share of the feasible cells that hold an elite. An elite in another cell does not count."""
    return jnp.sum(repertoire.occupied & feasible) / jnp.maximum(jnp.sum(feasible), 1)


def qd_score(
    fitness: Float[Array, "N"], offset: Float[Array, ""] | float, occupied: Bool[Array, "N"]
) -> Float[Array, ""]:
    """Return Σ (fitness − offset) over occupied cells; with the lowest fitness as offset no elite lowers the score.

    Source: Pugh, Soros and Stanley 2016, "Quality Diversity: A New Frontier for Evolutionary Computation", section 4.
    """
    return jnp.sum(jnp.where(occupied, fitness - offset, 0.0))


def summary(
    repertoire: Repertoire,
    feasible: Bool[Array, "N"],
    offset: Float[Array, ""] | float,
    generation: Int[Array, ""] | int,
) -> dict[str, Array]:
    """Return the scalars to log. Maximum and means are NaN without any elite: there was nothing to measure."""
    occupied, elites = repertoire.occupied, jnp.sum(repertoire.occupied, dtype=jnp.int32)
    archived = qd_score(repertoire.archived, offset, occupied)
    current = qd_score(repertoire.fitness, offset, occupied)

    def mean(values: Array) -> Array:
        return jnp.sum(jnp.where(occupied, values, 0)) / jnp.where(elites > 0, elites, jnp.nan)

    return {
        "QD/ArchivedScore": archived,
        "QD/Score": current,
        "QD/Gap": archived - current,
        "QD/Coverage": coverage(repertoire, feasible),
        "QD/Elites": elites,
        "QD/MaxFitness": jnp.where(elites > 0, jnp.max(repertoire.fitness), jnp.nan),
        "QD/MeanFitness": mean(repertoire.fitness),
        "QD/NotFinite": jnp.asarray(repertoire.not_finite),
        "QD/OutOfRange": jnp.asarray(repertoire.out_of_range),
        "QD/MeanAge": mean(generation - repertoire.born),
    }
