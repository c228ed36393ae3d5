"""Metrics of the async mode on their way from updates to rows: sums and weights, kept by the host."""

import math
from collections.abc import Iterable, Mapping

import jax.numpy as jnp
import numpy as np

from jaxrl_engine.modes.fused import MAX_ROWS, Mean, Rows

MAXIMA = ("Async/LagMax",)
"""Metrics of which a row tells the largest value instead of the mean."""


class RowWindow:
    """The row under way. Its sums are part of a run's state, so that rows do not depend on where chunks end."""

    def __init__(self, known: Mapping[str, Mean]) -> None:
        self.sums = {name: (float(mean.total), float(mean.weight)) for name, mean in known.items()}
        self._rows: list[tuple[int, dict[str, float]]] = []

    def add(self, name: str, total: float | int, weight: float | int = 1) -> None:
        """Take a weighted value in; one that is not a number is left out."""
        if not math.isfinite(total):
            return
        old_total, old_weight = self.sums.get(name, (0.0, 0.0))
        if name in MAXIMA:
            self.sums[name] = (max(old_total, total), 1.0)
        else:
            self.sums[name] = (old_total + total, old_weight + weight)

    def close(self, updates: int) -> None:
        """End the row: what was never observed is NaN."""
        means = {name: total / weight if weight else math.nan for name, (total, weight) in self.sums.items()}
        self._rows.append((updates, means))
        self.sums = dict.fromkeys(self.sums, (0.0, 0.0))

    def state(self, names: Iterable[str]) -> dict[str, Mean]:
        """Return the sums as part of a run's state."""
        sums = {name: self.sums.get(name, (0.0, 0.0)) for name in names}
        return {name: Mean(total=jnp.float32(t), weight=jnp.float32(w)) for name, (t, w) in sums.items()}

    def flush(self, updates_done: int, skipped_in_a_row: int) -> Rows:
        """Return the rows that were closed since the last call."""
        closed, self._rows = self._rows[:MAX_ROWS], []
        names = {name for _, means in closed for name in means}
        values = {name: np.full(MAX_ROWS, np.nan, np.float32) for name in names}
        updates = np.zeros(MAX_ROWS, np.int32)
        for row, (count, means) in enumerate(closed):
            updates[row] = count
            for name, value in means.items():
                values[name][row] = value
        return Rows(
            values={name: jnp.asarray(value) for name, value in values.items()}, updates=jnp.asarray(updates),
            count=jnp.int32(len(closed)), updates_done=jnp.int32(updates_done),
            skipped_in_a_row=jnp.int32(skipped_in_a_row),
        )  # fmt: skip
