"""An experiment manager for TensorFlow: each variant has its own git branch and its own model_dir."""

from typing import Any

__version__ = "0.1.0"
__all__ = [
    "BadArgument",
    "Busy",
    "CheckpointRefused",
    "DataProblem",
    "ExperimentSpec",
    "ExpmgrError",
    "NoTensorFlow",
    "Repository",
    "SpecProblem",
    "Stopped",
    "TrainingFailed",
    "UserCodeFailed",
    "__version__",
    "compare",
    "fit",
    "log_artifact",
    "log_metrics",
    "params",
    "restore",
    "save",
    "seed",
]

#: Where each name is: nothing is imported before it is used, and only `save` and `restore` import TensorFlow.
_HOMES = {
    "BadArgument": "errors",
    "Busy": "errors",
    "CheckpointRefused": "errors",
    "DataProblem": "errors",
    "ExperimentSpec": "spec.experiment",
    "ExpmgrError": "errors",
    "NoTensorFlow": "errors",
    "Repository": "api.repository",
    "SpecProblem": "errors",
    "Stopped": "errors",
    "TrainingFailed": "errors",
    "UserCodeFailed": "errors",
    "compare": "api.repository",
    "fit": "api.scripts",
    "log_artifact": "runs.user_logging",
    "log_metrics": "runs.user_logging",
    "open": "api.repository",
    "params": "api.scripts",
    "restore": "api.save_restore",
    "save": "api.save_restore",
    "seed": "api.scripts",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from expmgr.errors import NoTensorFlow

        try:
            return _imported(name)
        except NoTensorFlow:
            return _without_tensorflow(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _imported(name: str) -> Any:
    from importlib import import_module

    return getattr(import_module(f"expmgr.{_HOMES[name]}"), name)


def _without_tensorflow(name: str) -> Any:
    """What `name` is if TensorFlow is not installed: a function that can be imported and, when called, raises `NoTensorFlow`."""

    def function(*args: Any, **kwargs: Any) -> Any:
        return _imported(name)(*args, **kwargs)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = "Needs TensorFlow, which is not installed: raises `NoTensorFlow`."
    return function


def __dir__() -> list[str]:
    # `open` is not in `__all__`, since `from expmgr import *` would hide the builtin.
    return sorted({*__all__, *_HOMES, *(name for name in globals() if name.startswith("__"))})
