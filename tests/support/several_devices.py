"""What `split_programs` computes in a process of its own with eight devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np


def with_devices(count: int) -> dict[str, str]:
    """Return the environment of a process whose CPU is to be so many devices."""
    return {**os.environ, "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={count}"}


def compute(*jobs: str) -> dict:
    """Return the answers of `split_programs` for these jobs."""
    command = [sys.executable, str(Path(__file__).with_name("split_programs.py")), *jobs]
    done = subprocess.run(command, env=with_devices(8), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def assert_close(one: list, other: list, tolerance: float) -> None:
    """Leaves agree up to a share of their size, or of a thousandth."""
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(b, a, rtol=tolerance, atol=1e-3 * tolerance)
