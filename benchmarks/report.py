"""Results of the benchmarks as Markdown tables."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return one Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_json(path: Path, content: Record) -> None:
    """Write a results file and its directory: strict JSON, where a number that is not finite raises `ValueError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def rate(value: float) -> str:
    """Write a number with three significant digits and thousands as `k`, millions as `M`."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def _megabytes(value: float) -> str:
    return f"{value / 2**20:.0f}"


def _compare(record: Record) -> list[str]:
    ratio, by_cpu = record["ratio"], record["ratio_by_cpu_time"]
    ours, theirs = (record[side]["steps_per_second"]["median"] for side in ("ours", "theirs"))
    spread = f"{ratio['median']:.3g} ({ratio['min']:.3g} to {ratio['max']:.3g})"
    return [record["environment"], record["peer"], rate(ours), rate(theirs), spread, f"{by_cpu['median']:.3g}"]


def _compile(record: Record) -> list[str]:
    seconds = [f"{record[name]['median']:.1f}" for name in ("cold_seconds", "cached_seconds")]
    memory = [_megabytes(record[f"{name}_peak_memory_bytes"]) for name in ("cold", "cached")]
    return [record["environment"], record["contestant"], *seconds, *memory]


def _levels(record: Record) -> list[str]:
    speed = record["steps_per_second"]
    interval = f"{rate(speed['min'])} to {rate(speed['max'])}"
    return [record["environment"], record["level"], record["contestant"], rate(speed["median"]), interval]


def _scale(record: Record) -> list[str]:
    label = [record["environment"], record["level"], str(record["num_envs"])]
    return [*label, rate(record["steps_per_second"]["median"]), _megabytes(record["peak_memory_bytes"])]


SECTIONS = {
    "compare": (
        "Training beside peers (steps/s, medians; ratio of pairs with its range)",
        ("environment", "peer", "ours", "theirs", "ratio", "ratio by CPU time"),
        _compare,
    ),
    "compile": (
        "Compilation (seconds, medians) and peak memory (MiB, resident)",
        ("environment", "contestant", "cold", "from cache", "memory, cold", "memory, cached"),
        _compile,
    ),
    "levels": (
        "Levels (steps/s)",
        ("environment", "level", "contestant", "median", "range"),
        _levels,
    ),
    "scale": (
        "Ours over the number of environments (steps/s, medians; peak memory in MiB)",
        ("environment", "level", "environments", "steps/s", "memory"),
        _scale,
    ),
}


def markdown(results: Mapping[str, Any]) -> str:
    """Return every section of a result file as a titled table, with the machine and the command it came from."""
    parts = []
    for section, (title, header, row) in SECTIONS.items():
        if section in results:
            measured = results[section]
            machine = measured["machine"]
            origin = f"`{measured['command']}` on {machine['processor']}, {machine['cores']} cores"
            parts.append(f"### {title}\n\n{table(header, map(row, measured['records']))}\n\n{origin}")
    return "\n\n".join(parts)


def _learning(record: Record) -> list[str]:
    low, high = record["final_interval_95"]
    seeds = len(record["final_return_per_seed"])
    reached = f"{record['final_return']:.4g} ({low:.4g} to {high:.4g})"
    met = f"{'yes' if record['threshold_met'] else 'no'} ({record['seeds_at_threshold']} of {seeds} seeds)"
    beside = ", ".join(f"{reference['label']} {reference['value']:g}" for reference in record["references"])
    return [record["title"], f"{record['env_steps'][-1]:,}", reached, f"{record['threshold']:g}", met, beside]


def learning_table(records: Iterable[Record]) -> str:
    """Return the final returns of the learning studies (mean over seeds, its 95 % interval) as a table."""
    header = ("task", "steps per seed", "final return", "threshold", "met", "references")
    return table(header, map(_learning, records))
