"""A vectorised reinforcement-learning engine in JAX. The names below are loaded when first used."""

import importlib
from typing import Any

__all__ = ["Config", "Result", "SavedPolicy", "UserError", "evaluate", "load", "make", "register", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'jaxrl_engine' has no attribute {name!r}")
    return getattr(importlib.import_module("jaxrl_engine.api"), name)
