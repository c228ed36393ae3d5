"""The directory of one run: where everything it writes lies, and the lock that keeps a second process out."""

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from jaxrl_engine.core.config import Config
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime.config import CONFIG_FILE, to_yaml
from jaxrl_engine.runtime.json_files import replace_file, to_json

State = Literal["starting", "running", "finished", "interrupted", "failed"]

LOCK_FILE = "run.lock"
STATUS_FILE = "status.json"
DEFAULT_ROOT = Path("runs")
_LOCK_PATIENCE_SECONDS = 0.3  # longer than the moment for which a status reader holds the lock to test it


class RunDirectory:
    """A run's files. `create` and `open` return it locked; the lock ends with `close`, or with the process."""

    def __init__(self, path: Path, lock: int | None) -> None:
        self.path = path
        self._lock = lock
        self._status: dict[str, Any] = read_status(path) or {}

    @classmethod
    def create(cls, path: Path | None, config: Config) -> "RunDirectory":
        """Make the directory of a new run (None: `runs/<time>-<mode>-<env>`), write its config.yaml and lock it.

        Raises:
            UserError: the directory cannot be made, is not empty, or another process works in it.
        """
        path = _make_directory(path) if path is not None else default_directory(config)
        lock = _acquire(path)
        if _has_content(path):
            os.close(lock)
            raise _not_empty(path)
        run = cls(path, lock)
        replace_file(run.config_path, to_yaml(config))
        run.write_status(state="starting", env_steps=0, total_steps=config.total_steps, updates=0)
        return run

    @classmethod
    def open(cls, path: Path, *, exclusive: bool = True) -> "RunDirectory":
        """Open the directory of an existing run; without `exclusive` only for reading, with no lock.

        Raises:
            UserError: it is not the directory of a run, or (exclusive) another process works in it.
        """
        if not (path / CONFIG_FILE).is_file():
            raise UserError(f"{path} is not the directory of a run (it has no {CONFIG_FILE})")
        return cls(path, _acquire(path) if exclusive else None)

    @property
    def config_path(self) -> Path:
        return self.path / CONFIG_FILE

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def status_path(self) -> Path:
        return self.path / STATUS_FILE

    @property
    def summary_path(self) -> Path:
        return self.path / "summary.json"

    def write_config(self, config: Config) -> None:
        """Write config.yaml; raises like `write_status`."""
        self._require_lock()
        replace_file(self.config_path, to_yaml(config))

    def write_status(self, **fields: Any) -> None:
        """Change the named fields of status.json; the others keep their values, `pid` and `heartbeat` are set here.

        Usual fields: state (`State`), env_steps, total_steps, updates, steps_per_second, metrics, message.

        Raises:
            RunError: the file system refuses (full, read-only).
            ValueError: the directory was opened for reading only, or is closed.
        """
        self._require_lock()
        self._status.update(fields, pid=os.getpid(), heartbeat=time.time())
        replace_file(self.status_path, to_json(self._status, indent=1) + "\n")

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json; raises like `write_status`."""
        self._require_lock()
        replace_file(self.summary_path, to_json(summary, indent=1) + "\n")

    def _require_lock(self) -> None:
        if self._lock is None:
            raise ValueError(f"{self.path} is open for reading only, or closed")

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            fcntl.flock(self._lock, fcntl.LOCK_UN)  # also for a forked child that still has the descriptor
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close()


def read_status(path: Path) -> dict[str, Any] | None:
    """Return what status.json of a run directory says, or None if there is none that can be read."""
    try:
        status = json.loads((path / STATUS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return status if isinstance(status, dict) else None


def is_locked(path: Path) -> bool:
    """Say whether a living process works in a run directory.

    The lock alone tells: a process id may have been given to another program since.
    """
    try:
        descriptor = os.open(path / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _acquire(path: Path) -> int:
    """Take the lock and write our process id into it; the kernel releases it when we die, however we die."""
    try:
        descriptor = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(f"cannot write in {path}: {error.strerror}") from None
    deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS
    while not _try_lock(descriptor):
        if time.monotonic() > deadline:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise UserError(f"{path} is in use by process {holder}")
        time.sleep(0.02)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _try_lock(descriptor: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _make_directory(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
        if _has_content(path) and not (path / LOCK_FILE).exists():  # leave no lock file in a stranger's directory
            raise _not_empty(path)
    except FileExistsError:
        raise UserError(f"run_dir: {path} is a file") from None
    except OSError as error:
        raise UserError(f"run_dir: cannot make {path}: {error.strerror}") from None
    return path


def default_directory(config: Config) -> Path:
    """Make the directory of a run for which none was named.

    Raises:
        UserError: it cannot be made.
    """
    env = re.sub(r"[^A-Za-z0-9._-]", "-", config.env)
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{config.mode}-{env}"[:120]
    number = 1
    while True:
        path = DEFAULT_ROOT / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            number += 1
        except OSError as error:
            raise UserError(f"run_dir: cannot make {path}: {error.strerror}") from None


def _has_content(path: Path) -> bool:
    return any(entry.name != LOCK_FILE for entry in path.iterdir())


def _not_empty(path: Path) -> UserError:
    return UserError(f"run_dir: {path} is not empty; continue its run with --resume {path} or choose another directory")
