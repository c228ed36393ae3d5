"""All pictures of an evolution, and its curves: drawn without a window from a record and the logged metrics."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from jaxrl_engine.core.scene import Ink
from jaxrl_engine.runtime.drawing import DISTINCT_COLOURS, colour
from jaxrl_engine.runtime.evolution import EvolutionRecord, wilson
from jaxrl_engine.runtime.evolution_gallery import save_gallery
from jaxrl_engine.runtime.evolution_map import save_film, save_heatmap
from jaxrl_engine.runtime.evolution_style import (
    legend_below,
    new_figure,
    save_png,
    shortened,
    steps_axis,
    styled,
    write_titles,
)

Rows = Sequence[Mapping[str, Any]]
"""Rows of metrics.jsonl."""

HEATMAP, FILM, CURVES, GALLERY, BY_LINKS = (
    "heatmap.png", "evolution.gif", "curves.png", "gallery.png", "success_by_links.png"
)  # fmt: skip
CURRENT, ARCHIVED, GAP = DISTINCT_COLOURS[0], colour(Ink.JOINT), colour(Ink.GOAL)
COLUMNS = 3


class Panel(NamedTuple):
    """A small plot of one or more metrics."""

    title: str
    names: dict[str, str]  # metric to label
    is_share: bool = False


PANELS = (
    Panel("Coverage of feasible cells", {"QD/Coverage": ""}, is_share=True),
    Panel("Success while training", {"Charts/Success": ""}, is_share=True),
    Panel("Fitness of the elites", {"QD/MaxFitness": "best", "QD/MeanFitness": "mean"}),
    Panel("Policy loss", {"Losses/Policy": ""}),
    Panel("Value loss", {"Losses/Value": ""}),
    Panel("Entropy of the policy", {"Losses/Entropy": ""}),
)


def draw_all(record: EvolutionRecord, rows: Rows, directory: Path) -> tuple[Path, ...]:
    """Write every picture there is something to show in, and return their paths.

    The heat map is always drawn; the film needs a snapshot, the curves a logged metric, the gallery an elite, and the
    success by number of links an elite that was tried on fresh targets.

    Raises:
        RunError: the file system refuses.
    """
    save_heatmap(record, directory / HEATMAP)
    written = [directory / HEATMAP]
    if bool((record.history_generation >= 0).any()):
        save_film(record, directory / FILM)
        written.append(directory / FILM)
    if save_curves(record.title, rows, directory / CURVES):
        written.append(directory / CURVES)
    if bool(record.occupied.any()):
        save_gallery(record, directory / GALLERY)
        written.append(directory / GALLERY)
    if bool(record.tested.any()):
        save_success_by_links(record, directory / BY_LINKS)
        written.append(directory / BY_LINKS)
    return tuple(written)


# --- curves ----------------------------------------------------------------------------------------------------------


def series(rows: Rows, *names: str) -> Float[np.ndarray, "curves points"]:
    """Return environment steps and, below them, the named metrics, of those rows that have them all."""
    wanted = ("env_steps", *names)
    full = [[row[name] for name in wanted] for row in rows if all(_is_finite(row.get(name)) for name in wanted)]
    return np.asarray(full, np.float64).reshape(-1, len(wanted)).T


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def save_curves(title: str, rows: Rows, path: Path) -> bool:
    """Draw the QD scores with the gap between them and a panel for every other group of metrics; say if there were any.

    Raises:
        RunError: the file system refuses.
    """
    with_score = any(series(rows, name).size for name in ("QD/Score", "QD/ArchivedScore"))
    panels = [panel for panel in PANELS if any(series(rows, name).size for name in panel.names)]
    lines = with_score + math.ceil(len(panels) / COLUMNS)
    if not lines:
        return False
    with styled():
        figure = new_figure(9.6, 0.5 + 2.1 * lines + 0.6 * with_score)
        grid = figure.add_gridspec(lines, COLUMNS, height_ratios=[1.3] * with_score + [1.0] * (lines - with_score))
        figure.suptitle(shortened(title), x=0.012, ha="left", fontweight="bold", fontsize=10.5)
        if with_score:
            _draw_scores(figure.add_subplot(grid[0, :]), rows)
        for number, panel in enumerate(panels):
            axes = figure.add_subplot(grid[with_score + number // COLUMNS, number % COLUMNS])
            _draw_panel(axes, panel, rows)
        save_png(figure, path)
    return True


def _draw_scores(axes: Axes, rows: Rows) -> None:
    steps, archived, current = series(rows, "QD/ArchivedScore", "QD/Score")
    axes.fill_between(steps, archived, current, color=GAP, alpha=0.35, linewidth=0, label="gap between the two")
    _draw_line(axes, series(rows, "QD/ArchivedScore"), "archived: as each elite was inserted", ARCHIVED, "--")
    _draw_line(axes, series(rows, "QD/Score"), "current: every elite under the policy of that time", CURRENT)
    _finish(axes, "QD score")
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.legend(loc="lower right", fontsize=8.5)


def _draw_panel(axes: Axes, panel: Panel, rows: Rows) -> None:
    for number, (name, label) in enumerate(panel.names.items()):
        _draw_line(axes, series(rows, name), label, (CURRENT, ARCHIVED)[number], ("-", "--")[number])
    _finish(axes, panel.title)
    if panel.is_share:
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    if any(panel.names.values()):
        axes.legend(loc="lower right")


def _draw_line(axes: Axes, curve: Float[np.ndarray, "2 points"], label: str, ink: str, dashes: str = "-") -> None:
    marker = "o" if curve.shape[1] == 1 else ""
    axes.plot(*curve, color=ink, linestyle=dashes, linewidth=1.7, marker=marker, markersize=4, label=label)


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=9.5)
    axes.set_xlabel("environment steps", fontsize=8.5)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.grid(axis="y")
    steps_axis(axes)


# --- success by number of links --------------------------------------------------------------------------------------


def save_success_by_links(record: EvolutionRecord, path: Path) -> None:
    """Draw success on fresh targets of every elite, and of all with as many links together with its 95 % interval.

    Raises:
        RunError: the file system refuses.
    """
    with styled():
        figure = new_figure(7.6, 4.2)
        _draw_success(figure, record)
        save_png(figure, path)


def _draw_success(figure: Figure, record: EvolutionRecord) -> None:
    axes = figure.subplots()
    numbers = np.unique(record.counts[record.tested])
    shares = record.successes / np.maximum(record.trials, 1)
    names = []
    for number in numbers:
        group = np.flatnonzero(record.tested & (record.counts == number))
        names.append(f"{number}\n{len(group)} {'elite' if len(group) == 1 else 'elites'}")
        spread = number + 0.16 + 0.2 * (np.arange(len(group)) + 0.5) / len(group)
        axes.plot(spread, shares[group], "o", markersize=3, color=CURRENT, alpha=0.35, markeredgewidth=0)
        _draw_interval(axes, int(number), record, group)
    axes.plot([], [], "o", markersize=3, color=CURRENT, alpha=0.5, markeredgewidth=0, label="one elite")
    axes.plot([], [], "o-", markersize=6, color=ARCHIVED, label="all of them, with the 95 % interval")
    lowest = float(shares[record.tested].min())
    axes.set(
        xlim=(numbers[0] - 0.7, numbers[-1] + 0.6), ylim=(max(0.0, math.floor(10 * lowest - 0.5) / 10) - 0.02, 1.02)
    )
    axes.set_xticks(numbers, names)
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel("number of links", loc="left")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.grid(axis="y")
    axes.legend(**legend_below(axes, 36.0), ncols=2)
    trials = np.unique(record.trials[record.tested])
    each = f"{trials[0]:,}" if len(trials) == 1 else f"{trials[0]:,} to {trials[-1]:,}"
    write_titles(
        axes, "Success by number of links", f"on {each} fresh targets for every elite · {shortened(record.title, 70)}"
    )


def _draw_interval(axes: Axes, number: int, record: EvolutionRecord, group: np.ndarray) -> None:
    successes, trials = record.successes[group].sum(), record.trials[group].sum()
    low, high = wilson(np.asarray(successes), np.asarray(trials))
    axes.plot([number, number], [low, high], color=ARCHIVED, linewidth=2.0)
    for end in (low, high):
        axes.plot([number - 0.07, number + 0.07], [end, end], color=ARCHIVED, linewidth=1.4)
    axes.plot(number, successes / trials, "o", markersize=6, color=ARCHIVED, markeredgewidth=0)
    axes.annotate(
        f"{100 * successes / trials:.1f} %", (number, successes / trials), xytext=(-8, 0), textcoords="offset points",
        ha="right", va="center", fontsize=8.5, color=ARCHIVED,
    )  # fmt: skip
