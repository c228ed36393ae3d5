"""The repertoire as the wall's page draws it."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxrl_engine.live.clip import Label
from jaxrl_engine.modes.map_elites.space import DescriptorSpace
from jaxrl_engine.qd.arms import Arms
from jaxrl_engine.qd.cells import Grid
from jaxrl_engine.qd.repertoire import Repertoire
from jaxrl_engine.runtime.evolution import AXES


@dataclasses.dataclass(frozen=True)
class Atlas:
    """Where cells lie. The second descriptor runs to the right, the first one up."""

    space: DescriptorSpace

    def labels(self, repertoire: Repertoire, cells: Int[np.ndarray, "n"]) -> list[Label]:
        """Say which bodies are on the screens; before elites are judged they are random ones."""
        held = repertoire.fitness > -np.inf
        return [
            Label(describe(repertoire.genotypes, int(cell)), int(cell)) if held[cell] else Label("a random body")
            for cell in cells
        ]

    def message(self, repertoire: Repertoire, shown: Int[np.ndarray, "n"], chosen: int | None) -> dict[str, Any]:
        """Return the message of a repertoire in NumPy."""
        fitness: Float[np.ndarray, "N"] = np.asarray(repertoire.fitness, np.float64)
        held, arms = np.isfinite(fitness), repertoire.genotypes
        told: dict[str, Any] = {
            "x": self._axis(1), "y": self._axis(0), "feasible": self.space.feasible.tolist(),
            "fitness": [round(float(value), 4) if there else None for value, there in zip(fitness, held, strict=True)],
            "texts": [
                f"{describe(arms, cell)}: {fitness[cell]:.3f}" if held[cell] else None for cell in range(len(fitness))
            ],
            "chosen": chosen, "shown": [int(cell) for cell in shown if held[cell]],
            "qd_score": round(float(fitness[held].sum()), 3),
            "coverage": float((held & self.space.feasible).sum() / max(int(self.space.feasible.sum()), 1)),
            "elites": int(held.sum()),
        }  # fmt: skip
        if isinstance(self.space.cells, Grid):
            rows, columns = self.space.cells.shape
            return {"kind": "grid", "rows": rows, "columns": columns, **told}
        places = self.space.in_units(np.asarray(self.space.cells.centroids))[:, ::-1]
        return {"kind": "points", "places": places.round(4).tolist(), **told}

    def _axis(self, number: int) -> dict[str, Any]:
        bins = self.space.cells.shape[number] if isinstance(self.space.cells, Grid) else 1
        edges = np.linspace(self.space.low[number], self.space.high[number], bins + 1)
        return {"name": AXES[self.space.names[number]].label, "edges": edges.round(4).tolist()}


def describe(arms: Arms, cell: int) -> str:
    """Say what the body in a cell is."""
    links = int(arms.count[cell])
    return f"{links} links, {float(np.asarray(arms.lengths)[cell, :links].sum()):.2f} m"
