"""Stops an Estimator's evaluation when asked, and reads the metrics that it returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from expmgr.errors import Stopped


class Interrupt(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Ends an evaluation where somebody asks the run to stop: `Stopped`."""

    def __init__(self, is_stopped: Callable[[], bool]) -> None:
        self._is_stopped = is_stopped

    def after_run(self, run_context: Any, run_values: Any) -> None:
        if self._is_stopped():
            raise Stopped("stopped while it was evaluated")


def metrics_of(found: Mapping[str, Any]) -> dict[str, float]:
    """What `Estimator.evaluate` gave, by name: numbers that are finite, the loss first."""
    values = {
        str(name): float(value)
        for name, value in sorted(found.items(), key=lambda pair: (pair[0] != "loss", pair[0]))
        if name != "global_step" and np.ndim(value) == 0 and np.asarray(value).dtype.kind in "fiub"
    }
    return {name: value for name, value in values.items() if math.isfinite(value)}
