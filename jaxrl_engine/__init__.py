"""A vectorised reinforcement-learning engine in JAX. The names below are loaded when first used."""

import importlib
import importlib.metadata
import os
from typing import Any

__all__ = ["Config", "Result", "SavedPolicy", "UserError", "evaluate", "load", "make", "register", "train"]

_FAULTY_FUSION = "--xla_cpu_experimental_ynn_fusion_type"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'jaxrl_engine' has no attribute {name!r}")
    return getattr(importlib.import_module("jaxrl_engine.api"), name)


def _switch_off_faulty_fusion() -> None:
    """Keep the CPU backend of jaxlib 0.10.2 to 0.11 from its new reductions; whoever sets the flag has the last word.

    They sum wrongly (jax-ml/jax#39103) and wait for one another for ever (jax-ml/jax#39257; seen here in a batched
    physics evaluation). XLA reads its flags when JAX is first used, so this must happen as early as importing us.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    version = tuple(int(part) for part in importlib.metadata.version("jaxlib").split(".")[:2])
    if (0, 10) <= version < (0, 12) and _FAULTY_FUSION not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_FAULTY_FUSION}=-reduce".strip()


_switch_off_faulty_fusion()
