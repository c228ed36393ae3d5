"""Results as a person reads them."""

from collections.abc import Mapping
from typing import Any


def results_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """One line per labelled result, one column per number (lists are left to the files)."""
    names = list(dict.fromkeys(name for row in rows.values() for name, value in row.items() if _is_number(value)))
    labels = max(len("policy"), *(len(label) for label in rows))
    widths = [max(len(name), 10) for name in names]
    lines = [" " * labels + "".join(f"  {name:>{width}}" for name, width in zip(names, widths, strict=True))]
    for label, row in rows.items():
        cells = (f"{row[name]:.4g}" if _is_number(row.get(name)) else "-" for name in names)
        lines.append(f"{label:<{labels}}" + "".join(f"  {c:>{w}}" for c, w in zip(cells, widths, strict=True)))
    return "\n".join(lines)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
