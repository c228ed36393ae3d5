"""Start the engine as a user does, in a process of its own, and read what it left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SMALL = [
    *("--env", "gymnax:CartPole-v1", "--num-envs", "4", "--num-steps", "8", "--network.hidden-sizes", "8"),
    *("--ppo.num-epochs", "1", "--evaluation.episodes", "4", "--evaluation.count", "2"),
]
"""A run whose update takes well under a millisecond."""

TIMES = ("wall_seconds", "Perf/SPS")


class Process(subprocess.Popen):
    """A process that a failed test does not wait for."""

    def __exit__(self, failed, *rest):
        if failed:
            self.kill()
        super().__exit__(failed, *rest)


def start(*arguments: object, module: str = "run", **kwargs) -> Process:
    command = [sys.executable, "-m", f"jaxrl_engine.{module}", *map(str, arguments)]
    return Process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)


def run(*arguments: object, module: str = "run", timeout: float = 110, **kwargs) -> subprocess.CompletedProcess:
    process = start(*arguments, module=module, **kwargs)
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def assert_one_line_error(done: subprocess.CompletedProcess, *words: str, code: int = 2) -> None:
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    for word in words:
        assert word in lines[0]


def wait_for_steps(run_dir: Path, env_steps: int, process: subprocess.Popen, seconds: float = 90) -> None:
    """Return once the run says it has passed `env_steps`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            status = json.loads((run_dir / "status.json").read_text())
        except (OSError, ValueError):
            status = {}
        if status.get("env_steps", 0) >= env_steps and status.get("state") == "running":
            return
        if process.poll() is not None:
            raise AssertionError(f"ended too early: {process.communicate()}")
        time.sleep(0.02)
    raise AssertionError("the run did not get under way")


def stop(process: subprocess.Popen, signum: int) -> tuple[int, float, str]:
    """Send a signal; returns exit code, seconds until the exit, and stderr."""
    begun = time.monotonic()
    os.kill(process.pid, signum)
    _, stderr = process.communicate(timeout=60)
    return process.returncode, time.monotonic() - begun, stderr


def kill(process: subprocess.Popen) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)


def rows(run_dir: Path) -> list[dict]:
    """The rows of metrics.jsonl without the two that tell the time."""
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in TIMES} for line in lines]


def summary(run_dir: Path) -> dict:
    return json.loads((run_dir / "summary.json").read_text())


def newest_checkpoint(run_dir: Path) -> Path:
    steps = [path for path in (run_dir / "checkpoints").iterdir() if path.name.isdigit()]
    return max(steps, key=lambda path: int(path.name))


def fingerprint(run_dir) -> tuple[int, list]:
    """Step, and path, shape, dtype and CRC-32 of every leaf of the newest checkpoint: the whole state, key included."""
    path = newest_checkpoint(run_dir)
    leaves = json.loads((path / "record.json").read_text())["content"]["leaves"]
    assert len(leaves) > 30
    return int(path.name), leaves
