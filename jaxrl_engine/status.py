"""What a run is doing or did: `python -m jaxrl_engine.status RUN [--json]`. Never imports jax.

Exit codes: 0 the run is running, finished or interrupted; 3 it failed or was killed; 2 there is no such run.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime.errors import exit_with
from jaxrl_engine.runtime.json_files import to_json
from jaxrl_engine.runtime.run_directory import is_locked, read_status

USAGE = "usage: python -m jaxrl_engine.status RUN [--json]"
EXIT_DEAD = 3

_ALIVE_STATES = ("starting", "running")
_ORDER = (
    "state", "pid", "model", "checkpoints", "env_steps", "total_steps", "updates", "steps_per_second", "message",
)  # fmt: skip


def run_status(path: Path) -> dict[str, Any]:
    """Return the fields of status.json with `state` corrected: `killed` if it claims to run but no process does.

    Adds `run`, `heartbeat_age` (seconds) and, where the numbers allow it, `progress` (0 to 1).

    Raises:
        UserError: the path is not the directory of a run.
    """
    locked = is_locked(path)  # asked before the state is read: a run that ends in between counts as finished
    status = read_status(path)
    if status is None:
        raise UserError(f"{path} is not the directory of a run (it has no readable status.json)")
    if status.get("state") in _ALIVE_STATES and not locked:
        status["state"] = "killed"
    done, total = status.get("env_steps"), status.get("total_steps")
    if isinstance(done, int) and isinstance(total, int) and total > 0:
        status["progress"] = min(1.0, done / total)
    if isinstance(status.get("heartbeat"), int | float):
        status["heartbeat_age"] = round(max(0.0, time.time() - status["heartbeat"]), 1)
    return {"run": str(path), **status}


def table(status: dict[str, Any]) -> str:
    """Return the status as two aligned columns."""
    rows = [("run", status["run"])]
    rows += [(name, _cell(status[name])) for name in _ORDER if status.get(name) is not None]
    if "progress" in status:
        rows.append(("progress", f"{100 * status['progress']:.1f} %"))
    if "heartbeat_age" in status:
        rows.append(("last heartbeat", f"{status['heartbeat_age']:.0f} s ago"))
    metrics = status.get("metrics")
    rows += [(name, _cell(value)) for name, value in metrics.items()] if isinstance(metrics, dict) else []
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.replace('_', ' '):<{width}}  {value}" for name, value in rows)


def _cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def main(argv: Sequence[str]) -> int:
    """Print the status of the run named in the arguments; return the exit code."""
    if "-h" in argv or "--help" in argv:
        print(f"{USAGE}\n\n{__doc__}")
        return 0
    paths = [argument for argument in argv if not argument.startswith("-")]
    options = [argument for argument in argv if argument.startswith("-")]
    if len(paths) != 1 or any(option != "--json" for option in options):
        raise UserError(USAGE)
    status = run_status(Path(paths[0]))
    print(to_json(status, indent=1) if "--json" in options else table(status))
    return EXIT_DEAD if status.get("state") in ("killed", "failed") else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as problem:
        exit_with(problem)
