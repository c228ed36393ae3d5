"""One elite out of a saved repertoire."""

import jax
import numpy as np

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.qd.arms import Arms
from jaxrl_engine.qd.repertoire import Repertoire

BEST = "best"


def choose_elite(repertoire: Repertoire, which: str) -> tuple[int, Arms]:
    """Return the cell and the genotype of the fittest elite (`best`), or of the one in the cell of this number.

    Raises:
        UserError: no such cell, an empty one, or an empty repertoire.
    """
    fitness = np.asarray(repertoire.fitness)
    held = np.flatnonzero(fitness > -np.inf)
    if not held.size:
        raise UserError("elite: the repertoire is still empty: nothing has been judged before the warm-up's end")
    cell = int(fitness.argmax()) if which == BEST else _read_cell(which, fitness.size)
    if cell not in held:
        nearest = int(held[np.abs(held - cell).argmin()])
        raise UserError(f"elite: cell {cell} is empty; {held.size} cells hold an elite, {nearest} is the nearest")
    return cell, jax.tree.map(lambda leaf: np.asarray(leaf)[cell], repertoire.genotypes)


def _read_cell(which: str, count: int) -> int:
    if not which.isdecimal() or int(which) >= count:
        raise UserError(f"elite must be best or the number of a cell from 0 to {count - 1}, not {which!r}")
    return int(which)
