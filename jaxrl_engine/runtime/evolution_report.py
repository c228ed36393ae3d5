"""One page that says what an evolution found: static, in one file, readable without a network and on a phone."""

import base64
import html
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl_engine.runtime.evolution import AXES, CSV_FILE, NPZ_FILE, EvolutionRecord, wilson
from jaxrl_engine.runtime.evolution_pictures import BY_LINKS, CURVES, FILM, GALLERY, HEATMAP, Rows, series
from jaxrl_engine.runtime.json_files import replace_file, to_json

REPORT_FILE = "report.html"
FITNESS = (
    "Fitness is the share of a fixed set of targets that a body reaches under the shared policy acting greedily, the "
    "same targets for all bodies; between equal shares the smaller mean distance to the target decides."
)
DEFINITIONS = (
    ("Cells", "Every cell of the map keeps the fittest body found with its descriptors; that body is its elite."),
    ("Current", "Elites are measured again as the policy learns: the current QD score is the sum of how far their "
     "fitness, under the newest policy it was measured with, lies above {offset:g}."),
    ("Gap", "The archived QD score sums the fitness each elite was inserted with, as a repertoire that never measures "
     "again would; the gap is archived minus current, and a negative one says that the policy has improved since."),
    ("Fresh targets", "Success is counted on targets that served neither training nor selection, so that it is not the "
     "luck of the selected."),
    ("Interval", "Intervals are Wilson's 95 % score intervals of a proportion, which hold for shares near 0 and 1."),
    ("Feasible", "Coverage counts only cells in which a body of the family can be{estimate}."),
)  # fmt: skip
CAPTIONS = {
    HEATMAP: "Fitness of every cell's elite under the current policy.",
    FILM: "How the map filled: fitness of each elite under the policy of that generation.",
    CURVES: "Learning and search against environment steps; the band is the gap between archived and current score.",
    "elites.gif": "One episode of the fittest elite of each number of links.",
    GALLERY: "Elites as bodies at the place of their cells, coloured by success on fresh targets.",
    BY_LINKS: "Success on fresh targets by number of links, with 95 % intervals.",
}
TYPES = {".png": "image/png", ".gif": "image/gif"}
STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --card: #f4f6f8; --ink: #33414e; --pale: #6b7783; --line: #d5dae0;
  --accent: #1f6fb4; }
@media (prefers-color-scheme: dark) { :root { --paper: #12181f; --card: #1c252e; --ink: #dfe6ec; --pale: #97a4b0;
  --line: #33404c; --accent: #7db7ea; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem; }
p { margin: .5rem 0; } .pale { color: var(--pale); }
.cards { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.25rem 0; }
.card { flex: 1 1 10rem; background: var(--card); border-radius: .6rem; padding: .8rem 1rem; }
.card b { display: block; font-size: 1.5rem; line-height: 1.3; color: var(--accent);
  font-variant-numeric: tabular-nums; }
.card span { display: block; font-size: .85rem; color: var(--pale); overflow-wrap: normal; }
figure { margin: 1.25rem 0; }
figure .scroll { background: #ffffff; border: 1px solid var(--line); border-radius: .6rem; }
figure img { display: block; width: 100%; height: auto; }
figcaption { color: var(--pale); font-size: .9rem; margin-top: .4rem; }
dl { display: grid; grid-template-columns: minmax(6rem, 8rem) 1fr; gap: .4rem 1rem; margin: 0; }
dt { font-weight: 600; } dd { margin: 0; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
  font-size: .92rem; overflow-wrap: normal; }
th, td { padding: .4rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--pale); font-weight: 600; } table.settings td, table.settings th { text-align: left; }
table.settings td { white-space: normal; overflow-wrap: anywhere; }
pre { background: var(--card); border-radius: .6rem; padding: .8rem 1rem; overflow-x: auto; font-size: .88rem; }
@media (max-width: 40rem) { figure img { width: 42rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .6rem; } }
"""


def write_report(
    record: EvolutionRecord,
    rows: Rows,
    directory: Path,
    summary: Mapping[str, Any],
    fitness: str = FITNESS,
) -> Path:
    """Write report.html of the run in `directory`, with those pictures that lie there; return its path.

    `summary` are the settings and results to list, `fitness` says in a sentence how fitness was measured.

    Raises:
        RunError: the file system refuses.
    """
    parts = [
        f"<h1>{_text(record.title)}</h1>",
        f'<p class="pale">{_text(_effort(record, rows))}</p>',
        _headline(record),
        *([] if record.occupied.any() else ["<p><strong>The repertoire is empty: no body was kept.</strong></p>"]),
        *(_figure(directory / name, caption) for name, caption in CAPTIONS.items()),
        _best_table(record),
        _definitions(record, fitness),
        _commands(record, directory),
        _settings(summary),
    ]
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(record.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
    )
    path = directory / REPORT_FILE
    replace_file(path, head + "\n".join(part for part in parts if part) + "\n</body>\n</html>\n")
    return path


def _text(value: object) -> str:
    return html.escape(str(value))


def _effort(record: EvolutionRecord, rows: Rows) -> str:
    text = (
        f"{record.generations:,} generations · {record.env_steps:,} environment steps of training · "
        f"{record.evaluation_steps:,} of evaluation"
    )
    success = series(rows, "Charts/Success")
    return f"{text} · success while training at the end {_percent(success[1, -1])}" if success.size else text


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _span(successes: int, trials: int) -> str:
    """Write the interval of a proportion."""
    low, high = wilson(np.asarray(successes), np.asarray(trials))
    return f"{100 * float(low):.1f} to {_percent(float(high))}"


def _headline(record: EvolutionRecord) -> str:
    tested = record.tested
    successes, trials = int(record.successes[tested].sum()), int(record.trials[tested].sum())
    feasible = int(record.feasible.sum())
    cards = [
        (_percent(record.coverage), f"coverage: elites in {int((record.occupied & record.feasible).sum()):,} of "
         f"{feasible:,} feasible cells"),
        (f"{record.score:.2f}", "QD score, current policy"),
        (f"{record.archived_score:.2f}", "QD score, archived"),
        (f"{record.archived_score - record.score:+.2f}", "gap, archived minus current"),
    ]  # fmt: skip
    if trials:
        cards.append((
            _percent(successes / trials), f"mean success of {int(tested.sum()):,} elites on {_targets(record)} fresh "
            f"targets each; 95 % interval {_span(successes, trials)}"
        ))  # fmt: skip
    else:
        cards.append(("–", "mean success: no elite was tried on fresh targets"))
    inner = "".join(
        f'<div class="card"><b>{_text(number)}</b><span>{_text(what)}</span></div>' for number, what in cards
    )
    return f'<div class="cards">{inner}</div>'


def _targets(record: EvolutionRecord) -> str:
    numbers = np.unique(record.trials[record.tested])
    return f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,} to {numbers[-1]:,}"


def _figure(path: Path, caption: str) -> str:
    """Embed a picture; nothing where there is none."""
    try:
        content = path.read_bytes()
    except OSError:
        return ""
    data = base64.b64encode(content).decode("ascii")
    return (
        f'<figure><div class="scroll"><img alt="{_text(caption)}" src="data:{TYPES[path.suffix]};base64,{data}"></div>'
        f"<figcaption>{_text(caption)}</figcaption></figure>"
    )


def best_by_links(record: EvolutionRecord) -> list[int]:
    """Return the cell of the fittest elite of every number of links, fewest links first."""
    cells = np.flatnonzero(record.occupied)
    groups = (cells[record.counts[cells] == number] for number in np.unique(record.counts[cells]))
    return [int(group[np.argmax(record.fitness[group])]) for group in groups]


def _best_table(record: EvolutionRecord) -> str:
    best = best_by_links(record)
    if not best:
        return ""
    names = ["links", "length (m)", "fitness", "archived", "success", "95 % interval", "targets", "born",
             "cell", "lengths of the links (m)"]  # fmt: skip
    return f"<h2>Best elite by number of links</h2>{_table(names, [_best_row(record, cell) for cell in best])}"


def _best_row(record: EvolutionRecord, cell: int) -> list[str]:
    links = record.lengths[cell, : record.counts[cell]]
    successes, trials = int(record.successes[cell]), int(record.trials[cell])
    return [
        str(record.counts[cell]), f"{links.sum():.3f}", f"{record.fitness[cell]:.3f}", f"{record.archived[cell]:.3f}",
        _percent(successes / trials) if trials else "–", _span(successes, trials) if trials else "–", f"{trials:,}",
        f"{record.born[cell]:,}", str(cell), " ".join(f"{length:.3f}" for length in links),
    ]  # fmt: skip


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _definitions(record: EvolutionRecord, fitness: str) -> str:
    estimate = "; which these are is an estimate from a large sample of bodies" if record.feasible_is_estimate else ""
    axes = " and ".join(AXES[name].label for name in record.axes)
    kind = "Voronoi cells" if record.shape is None else f"a grid of {record.shape[0]} by {record.shape[1]} cells"
    entries = [("Fitness", fitness), ("Descriptors", f"Bodies are told apart by {axes}, on {kind}.")]
    entries += [(name, text.format(offset=record.offset, estimate=estimate)) for name, text in DEFINITIONS]
    inner = "".join(f"<dt>{_text(name)}</dt><dd>{_text(text)}</dd>" for name, text in entries)
    return f"<h2>What was measured</h2><dl>{inner}</dl>"


def _commands(record: EvolutionRecord, directory: Path) -> str:
    run = shlex.quote(str(directory.parent))
    lines = [f"python -m jaxrl_engine.run --resume {run}"]
    if record.occupied.any():
        lines.append(f"python -m jaxrl_engine.play {run} --elite {int(np.argmax(record.fitness))}")
    files = f"{CSV_FILE} holds a row for every elite, {NPZ_FILE} all arrays. An elite is named by its cell."
    commands = "\n".join(_text(line) for line in lines)
    return f'<h2>Go on</h2><pre>{commands}</pre><p class="pale">{_text(files)}</p>'


def _settings(summary: Mapping[str, Any]) -> str:
    rows = "".join(f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in _flat(summary, ""))
    return (
        f'<h2>Settings and results</h2><div class="scroll"><table class="settings"><tbody>{rows}</tbody></table></div>'
    )


def _flat(values: Mapping[str, Any], prefix: str) -> list[tuple[str, str]]:
    """Name what is nested by its path."""
    found = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value if isinstance(value, str) else to_json(value)))
    return found
