"""What a measurement was made on, recorded beside every result."""

import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def _first_line(path: str, field: str) -> str | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), None)


def _output(*command: str) -> str | None:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def describe_machine() -> dict[str, Any]:
    """Return processor, cores this process may use, memory, accelerators and operating system."""
    return {
        "processor": _first_line("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": _first_line("/proc/meminfo", "MemTotal"),
        "accelerators": _output("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"),
        "system": platform.platform(),
    }


def provenance() -> dict[str, Any]:
    """Return the command line, the time, the commit and the load of the machine when the measurement began.

    Of paths outside the project only the last name is kept.
    """
    module = sys.modules["__main__"].__spec__
    program = ["python", "-m", module.name] if module else ["python", Path(sys.argv[0]).name]
    words = [Path(word).name if word.startswith("/") else word for word in sys.argv[1:]]
    return {
        "command": shlex.join([*program, *words]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _output("git", "describe", "--always", "--dirty"),
        "load_average_1min": os.getloadavg()[0],
        "machine": describe_machine(),
    }
