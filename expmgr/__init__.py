"""An experiment manager for TensorFlow: each variant has a git branch and a model_dir of its own."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "restore", "save"]


def __getattr__(name: str) -> Any:
    # The Python API needs TensorFlow, which the commands do without.
    if name in ("restore", "save"):
        from importlib import import_module

        return getattr(import_module("expmgr.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
