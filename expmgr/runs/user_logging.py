"""`expmgr.log_metrics` and `expmgr.log_artifact`, which the code of a run may call.

Outside of a run they have no effect, so that a script runs anywhere.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expmgr.disk import durable
from expmgr.errors import DataProblem
from expmgr.paths import RunDir
from expmgr.runs.events import CurvePoint, append_event

_RUN_DIR = "EXPMGR_RUN_DIR"


@dataclass(frozen=True)
class Lent:
    """What a run lends to the training script that it calls."""

    params: Mapping[str, Any]
    """The spec's `model.params`."""
    seed: int
    take: Callable[[Any, Mapping[str, Any]], None]
    """Takes what `expmgr.fit` was called with: the model, and the arguments by name. It does not come back."""
    taken: dict[str, Any] = field(default_factory=dict)
    """What `expmgr.params` gave: defaults, and what the spec says otherwise."""


lent: Lent | None = None
"""Set in a run that calls a script; None everywhere else."""

listeners: list[Callable[[int, Mapping[str, float]], None]] = []
"""Who else wants to know what `log_metrics` is given, in a run: the writer of event files."""


def is_inside() -> bool:
    """Whether this process is one of a run."""
    return _RUN_DIR in os.environ


def log_metrics(step: int, values: Mapping[str, float]) -> None:
    """Put a point of each of `values` at `step` into the run's record, as curves of the split `logged`.

    Values that are not finite are left out. Outside of a run nothing happens.
    """
    folder = os.environ.get(_RUN_DIR)
    if folder is None:
        return
    kept = {str(name): float(value) for name, value in values.items() if math.isfinite(float(value))}
    if not kept:
        return
    with durable.disk_errors("the run's events"):
        append_event(RunDir(Path(folder)), CurvePoint(split="logged", step=int(step), values=kept))
    for listener in listeners:
        listener(int(step), kept)


def log_artifact(path: str | Path, name: str | None = None) -> None:
    """Copy the file `path` to the run's folder, `artifacts/<name>`, by default its own name.

    Outside of a run nothing happens. Raises `DataProblem` where there is no such file, or `name` leads out of the folder.
    """
    folder = os.environ.get(_RUN_DIR)
    if folder is None:
        return
    source, target = Path(path), Path(folder, "artifacts", name or Path(path).name)
    if not source.is_file():
        raise DataProblem(f"log_artifact: there is no file {source}")
    if ".." in target.parts or not target.is_relative_to(Path(folder, "artifacts")):
        raise DataProblem(f"log_artifact: {name} leads out of the run's folder")
    with durable.disk_errors(f"artifact {target.name}"), durable.naming(target, source.stat().st_size):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
