"""How the pictures of an evolution look: one ink, one scale of colours, one way to say empty and out of reach."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, FixedLocator, MaxNLocator
from matplotlib.transforms import ScaledTranslation

from jaxrl_engine.core.scene import Ink
from jaxrl_engine.runtime.drawing import BACKGROUND, CAPTION, FRAME, colour
from jaxrl_engine.runtime.evolution import AXES, EvolutionRecord
from jaxrl_engine.runtime.json_files import whole_file

DPI = 150
MUTED = "#6b7783"
EMPTY = "#dde1e6"
HATCH, HATCH_INK = "/////", "#b4bcc6"
UNTESTED = colour(Ink.WALL)
SCALE = LinearSegmentedColormap.from_list(
    "scale", ["#16283a", "#1d4a78", "#1f7396", "#2f9e8b", "#86c268", "#e6d55a", "#fbf3b4"]
)
"""From low to high; lightness rises evenly, so that it also reads in grey and by the colour-blind."""

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans", "font.size": 9.0, "text.color": CAPTION, "text.parse_math": False,
    "axes.edgecolor": FRAME, "axes.labelcolor": CAPTION, "axes.titlecolor": CAPTION, "axes.titlesize": 10.0,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": False, "axes.axisbelow": True, "axes.facecolor": BACKGROUND, "figure.facecolor": BACKGROUND,
    "grid.color": "#e8ebef", "grid.linewidth": 0.8, "xtick.color": FRAME, "ytick.color": FRAME,
    "xtick.labelcolor": CAPTION, "ytick.labelcolor": CAPTION, "legend.frameon": False, "legend.fontsize": 8.5,
    "hatch.linewidth": 0.8, "lines.solid_capstyle": "round",
}  # fmt: skip


def new_figure(width: float, height: float) -> Figure:
    """Return an empty picture of this size in inches; call it, and all that draws on it, under `styled`."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1), dpi=DPI)


def styled() -> Any:
    """Return the context in which everything looks alike."""
    return matplotlib.rc_context(STYLE)


def save_png(figure: Figure, path: Path) -> None:
    """Write the picture; raises `RunError` if the file system refuses."""
    with whole_file(path) as file:
        figure.savefig(file, format="png", bbox_inches="tight", pad_inches=0.12)


def write_titles(axes: Axes, title: str, subtitle: str) -> Any:
    """Put a bold title above the axes and a paler line between; return that line's artist."""
    axes.set_title(shortened(title), pad=21)
    return axes.annotate(
        subtitle, (0, 1), xytext=(0, 7), xycoords="axes fraction", textcoords="offset points", color=MUTED, fontsize=8.5
    )


def shortened(text: str, most: int = 90) -> str:
    """Return a text that fits into a line of a picture."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def label_axes(axes: Axes, record: EvolutionRecord) -> None:
    """Show the descriptors' box, axis 0 upwards and axis 1 to the right, with names, units and whole links."""
    axes.set(ylim=(record.low[0], record.high[0]), xlim=(record.low[1], record.high[1]))
    axes.set_ylabel(AXES[record.axes[0]].label)
    axes.set_xlabel(AXES[record.axes[1]].label, loc="left")
    for number, axis in enumerate((axes.yaxis, axes.xaxis)):
        if record.axes[number] == "links":
            axis.set_major_locator(FixedLocator(whole_numbers(float(record.low[number]), float(record.high[number]))))
        else:
            axis.set_major_locator(MaxNLocator(8 if number else 6, steps=[1, 2, 2.5, 5, 10]))


def whole_numbers(low: float, high: float) -> list[int]:
    """Return the whole numbers of an interval."""
    return list(range(int(np.ceil(low)), int(np.floor(high)) + 1))


def explain_cells(axes: Axes, record: EvolutionRecord, others: Sequence[Any] = ()) -> None:
    """Say below the axes, at the right, what a grey and what a hatched cell is."""
    handles = [*others, Patch(facecolor=EMPTY, label="empty")]
    if not record.feasible.all():
        name = "no sampled body falls here" if record.feasible_is_estimate else "no body can be here"
        handles.append(Patch(facecolor=BACKGROUND, edgecolor=HATCH_INK, hatch=HATCH, linewidth=0, label=name))
    axes.legend(
        handles=handles, **legend_below(axes, 24.0), ncols=len(handles), handlelength=1.6, columnspacing=1.6,
    )  # fmt: skip


def legend_below(axes: Axes, points: float) -> dict[str, Any]:
    """Return the settings that put a legend so far below the axes, flush with their right end."""
    down = ScaledTranslation(0.0, -points / 72, axes.figure.dpi_scale_trans)
    return {
        "loc": "upper right", "bbox_to_anchor": (1.0, 0.0), "bbox_transform": axes.transAxes + down,
        "borderaxespad": 0.0, "borderpad": 0.0,
    }  # fmt: skip


def add_scale(axes: Axes, scale: Normalize, label: str) -> None:
    """Put the scale of colours beside the axes, as high as these."""
    bar = axes.figure.colorbar(ScalarMappable(scale, SCALE), cax=axes.inset_axes((1.018, 0.0, 0.018, 1.0)))
    bar.set_label(label)
    bar.outline.set_visible(False)


def limits(*values: Float[np.ndarray, "..."]) -> tuple[float, float]:
    """Return the lowest and the highest of all finite values, apart even where they are one; 0 and 1 without any."""
    finite = np.concatenate([each[np.isfinite(each)].ravel() for each in values])
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def steps_axis(axes: Axes) -> None:
    """Let the axis to the right count environment steps in thousands and millions."""
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(5))
