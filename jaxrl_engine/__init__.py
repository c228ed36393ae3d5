"""A vectorised reinforcement-learning engine in JAX. The names below are loaded when first used."""

import importlib
import importlib.metadata
import os
from typing import Any

__all__ = ["Config", "Result", "SavedPolicy", "UserError", "evaluate", "load", "make", "register", "train"]

_FAULTY_FUSION = "--xla_cpu_experimental_ynn_fusion_type"
_THREADS = 4


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'jaxrl_engine' has no attribute {name!r}")
    return getattr(importlib.import_module("jaxrl_engine.api"), name)


def _keep_clear_of_faults() -> None:
    """Set what keeps the CPU backend of some jaxlibs out of trouble; whoever sets a variable has the last word.

    XLA reads these when JAX is first used, so this must happen as early as importing us.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    version = tuple(int(part) for part in importlib.metadata.version("jaxlib").split(".")[:3] if part.isdigit())
    # Its new reductions sum wrongly (jax-ml/jax#39103) and wait for one another for ever (jax-ml/jax#39257).
    if (0, 10) <= version < (0, 12) and _FAULTY_FUSION not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_FAULTY_FUSION}=-reduce".strip()
    # A batched LAPACK call waits for threads of the pool it runs on: with as many at once as threads none ever ends.
    # Brax's physics makes two at once, which two cores cannot bear. More threads than cores cost a few per cent.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if version < (0, 11, 2) and cores < _THREADS:
        os.environ.setdefault("NPROC", str(_THREADS))


_keep_clear_of_faults()
