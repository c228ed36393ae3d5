"""The four charts of the wall, from the rows of metrics that a run writes anyway."""

import json
import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MOST_POINTS = 300
"""Of a line on the page; longer ones are shown as means of as many equal parts."""
WINDOWS = (10, 50, 100)
"""Rows of a moving average."""
RETURN, LENGTH = "Charts/EpisodeReturn", "Charts/EpisodeLength"
LOSSES = (
    ("policy", "Losses/Policy"), ("value", "Losses/Value"), ("entropy", "Losses/Entropy"),
    ("coordinator", "Losses/Coordinator/Total"), ("discoverer", "Losses/Discoverer/Total"),
    ("discriminators", "Losses/Discriminator/Total"),
)  # fmt: skip
EVOLUTION = (
    ("archived", "QD/ArchivedScore"), ("current", "QD/Score"), ("gap", "QD/Gap"), ("fresh targets", "Eval/qd_score"),
)  # fmt: skip


class Curves:
    """Remembers the rows' numbers that are drawn. One thread may add while others ask for the message."""

    def __init__(self) -> None:
        self._lines: dict[str, tuple[list[int], list[float]]] = {}
        self._lock = threading.Lock()

    def add(self, env_steps: int, row: Mapping[str, Any]) -> None:
        """Take one row; what was not measured leaves a gap."""
        with self._lock:
            for name in _DRAWN & row.keys():
                steps, values = self._lines.setdefault(name, ([], []))
                steps.append(env_steps)
                values.append(math.nan if row[name] is None else float(row[name]))

    def read(self, path: Path) -> None:
        """Take the rows of a metrics.jsonl; a line that is not whole is left out."""
        if not path.exists():
            return
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            self.add(int(row["env_steps"]), row)

    def message(self) -> dict[str, Any]:
        """Return the four charts as they are now."""
        with self._lock:
            return {"charts": self._charts()}

    def _charts(self) -> list[dict[str, Any]]:
        returns = [self._line("while training", RETURN), self._line("greedy evaluation", "Eval/return")]
        losses = [self._line(name, metric) for name, metric in LOSSES if metric in self._lines]
        trend = self._trend()
        if any(metric in self._lines for _, metric in EVOLUTION):
            score = [self._line(name, metric) for name, metric in EVOLUTION if metric in self._lines]
            charts = [chart("QD score", score), chart("Return", returns)]
        else:
            charts = [chart("Return", returns), chart("Episode length", [self._line("steps", LENGTH)])]
        return [*charts, chart("Losses", losses), chart("Return trend", trend)]

    def _line(self, name: str, metric: str) -> dict[str, Any]:
        return line(name, *self._lines.get(metric, ([], [])))

    def _trend(self) -> list[dict[str, Any]]:
        steps, values = self._lines.get(RETURN, ([], []))
        return [line(f"{window} rows", steps, moving_average(values, window)) for window in WINDOWS]


_DRAWN = frozenset({RETURN, LENGTH, "Eval/return", *dict(LOSSES).values(), *dict(EVOLUTION).values()})


def moving_average(values: Sequence[float], window: int) -> list[float]:
    """Return the mean of the last `window` values at each place, of those there are; gaps do not count."""
    given = np.asarray(values, np.float64)
    known = np.isfinite(given)
    totals = np.concatenate([[0.0], np.cumsum(np.where(known, given, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    last = np.arange(1, len(given) + 1)
    first = np.maximum(last - window, 0)
    number = counts[last] - counts[first]
    means = (totals[last] - totals[first]) / np.maximum(number, 1)
    return np.where(number > 0, means, math.nan).tolist()


def thinned(steps: Sequence[int], values: Sequence[float]) -> tuple[list[int], list[float]]:
    """Return at most `MOST_POINTS` points: the mean of each of so many equal parts, at its last step."""
    if len(steps) <= MOST_POINTS:
        return list(steps), list(values)
    edges = np.linspace(0, len(steps), MOST_POINTS + 1).astype(int)
    given = np.asarray(values, np.float64)
    known = np.isfinite(given)
    totals = np.add.reduceat(np.where(known, given, 0.0), edges[:-1])
    counts = np.add.reduceat(known.astype(int), edges[:-1])
    means = np.where(counts > 0, totals / np.maximum(counts, 1), math.nan)
    return [steps[edge - 1] for edge in edges[1:]], means.tolist()


def line(name: str, steps: Sequence[int], values: Sequence[float]) -> dict[str, Any]:
    """Return a line of a chart: at most `MOST_POINTS` points, null where nothing was measured."""
    x, y = thinned(steps, values)
    return {"name": name, "x": x, "y": [float(f"{value:.5g}") if math.isfinite(value) else None for value in y]}


def chart(title: str, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a chart of lines."""
    return {"title": title, "unit": "", "lines": list(lines)}
