"""Where a run computes: platform, devices, the compile cache, and a record of all that can change its bits."""

import functools
import importlib.metadata
import os
import platform as host
import re
import resource
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.monitoring
import numpy as np

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime.errors import one_line
from jaxrl_engine.runtime.logs import log

_DEVICE_COUNT_FLAG = "--xla_force_host_platform_device_count"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "brax", "gymnax")
_TRACE_EVENTS = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
)
_COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
_CACHE_HIT_EVENT = "/jax/compilation_cache/cache_hits"


def configure_platform(
    platform: Literal["auto", "cpu", "gpu"], devices: int | None, connect: Callable[[], None] = lambda: None
) -> None:
    """Choose where JAX computes; call it before JAX is first used. `auto` leaves JAX's own choice.

    Args:
        platform: `cpu` also splits this process's share of the host into `devices` devices.
        devices: devices each process will use (None: all there are).
        connect: connects the processes of a run, which must come between choosing and first use.

    Raises:
        UserError: there is no GPU, fewer devices than asked for, or JAX already runs elsewhere.
    """
    if platform == "cpu" and devices is not None and devices > 1:
        _split_host(devices)
    if platform != "auto":
        # An empty list lets JAX try each accelerator and fall back quietly; whether it found one is checked below.
        jax.config.update("jax_platforms", "cpu" if platform == "cpu" else "")
    connect()
    try:
        found = jax.default_backend()
    except RuntimeError as error:
        raise UserError(f"platform {platform}: {one_line(error)}") from None
    if platform == "gpu" and found != "gpu":
        raise UserError(f"platform must be auto or cpu: JAX sees no GPU, only {found} (is a cuda extra installed?)")
    if platform == "cpu" and found != "cpu":
        raise UserError(f"platform cpu must be chosen before JAX is first used; it runs on {found} already")
    _require_devices(devices)


def _split_host(devices: int) -> None:
    flags = re.sub(rf"{_DEVICE_COUNT_FLAG}=\S+", "", os.environ.get("XLA_FLAGS", ""))
    os.environ["XLA_FLAGS"] = f"{flags.strip()} {_DEVICE_COUNT_FLAG}={devices}".strip()


def _require_devices(devices: int | None) -> None:
    available = jax.local_device_count()
    if devices is not None and devices > available:
        hint = "; with --platform cpu the host is split into as many as you ask for" if available == 1 else ""
        raise UserError(f"devices must be at most {available}, the devices JAX sees, not {devices}{hint}")


def data_mesh(devices: int | None) -> jax.sharding.Mesh | None:
    """Return a mesh with the one axis `data` over the first `devices` devices of every process (None: all of them).

    Where that is a single device there is no mesh: programs then need none.

    Raises:
        UserError: there are fewer devices.
    """
    _require_devices(devices)
    of_process = [jax.local_devices(process_index=process)[:devices] for process in range(jax.process_count())]
    chosen = [device for each in of_process for device in each]
    return jax.sharding.Mesh(np.array(chosen), ("data",)) if len(chosen) > 1 else None


def enable_compile_cache() -> Path | None:
    """Let JAX keep compiled programs on disk, in a directory that only this user can write.

    `$JAX_COMPILATION_CACHE_DIR` if set, else `jaxrl_engine/jax` under `$XDG_CACHE_HOME` or `~/.cache`. The cache holds
    native code that will be executed: a directory of another user's, or one others can write to, is refused with a
    warning, and so is one that cannot be made. Returns the directory, or None if there is no cache.
    """
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    path = Path(chosen) if chosen else _default_cache()
    problem = _prepare_cache(path)
    if problem is not None:
        log.warning("no compile cache: %s %s", path, problem)
        jax.config.update("jax_compilation_cache_dir", None)
        return None
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return path


def _default_cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path("~/.cache").expanduser()) / "jaxrl_engine" / "jax"


def _prepare_cache(path: Path) -> str | None:
    """Make the directory, private; return what is wrong with it, or None."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        facts = path.stat()
    except (OSError, RuntimeError) as error:
        return f"cannot be made: {one_line(error)}"
    if facts.st_uid != os.getuid():
        return f"belongs to another user (uid {facts.st_uid})"
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be written by other users"
    return None


class CompileClock:
    """Counts what JAX compiles while the context is open.

    Attributes:
        compilations: programs built, those loaded from the cache included.
        cache_hits: how many of them the compile cache held.
    """

    def __init__(self) -> None:
        self.compilations = 0
        self.cache_hits = 0
        self._spans: list[tuple[float, float]] = []
        self._mutex = threading.Lock()

    @property
    def seconds(self) -> float:
        """Wall-clock seconds spent tracing, lowering and compiling; overlapping spans count once."""
        with self._mutex:
            return sum(end - start for start, end in self._spans)

    def __enter__(self) -> "CompileClock":
        jax.monitoring.register_event_time_span_listener(self._on_span)
        jax.monitoring.register_event_listener(self._on_event)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        jax.monitoring.unregister_event_time_span_listener(self._on_span)
        jax.monitoring.unregister_event_listener(self._on_event)

    def _on_span(self, event: str, start_time: float, end_time: float, **_: str | int) -> None:
        if event != _COMPILE_EVENT and event not in _TRACE_EVENTS:
            return
        with self._mutex:
            self.compilations += event == _COMPILE_EVENT
            touching = [span for span in self._spans if span[0] <= end_time and start_time <= span[1]]
            apart = [span for span in self._spans if span not in touching]
            whole = min([start_time, *(start for start, _ in touching)]), max([end_time, *(end for _, end in touching)])
            self._spans = [*apart, whole]

    def _on_event(self, event: str, **_: str | int) -> None:
        if event == _CACHE_HIT_EVENT:
            with self._mutex:
                self.cache_hits += 1


def environment_record() -> dict[str, Any]:
    """Return what a run's bits depend on besides its configuration: versions, flags and devices."""
    return {
        "python": host.python_version(),
        **{package: _version(package) for package in _PACKAGES},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "platform": jax.default_backend(),
        "device_kind": jax.devices()[0].device_kind,
        "device_count": jax.device_count(),
        "cpu_count": os.cpu_count(),
    }


@functools.cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def peak_memory_bytes() -> int:
    """Return the most memory used so far: on the fullest accelerator, or on the CPU by this process."""
    statistics = [device.memory_stats() for device in jax.local_devices()]
    peaks = [facts["peak_bytes_in_use"] for facts in statistics if facts and "peak_bytes_in_use" in facts]
    if peaks:
        return int(max(peaks))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
