"""Calls `train_step` and `test_step` of a model as Keras' `fit` does, and rejects NaN and infinity."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

#: Puts what user code raises into words: `errors("a training step failed")`.
Errors = Callable[[str], contextlib.AbstractContextManager[None]]


def no_errors(_what: str) -> contextlib.AbstractContextManager[None]:
    """Nothing is put into words: no user code runs."""
    return contextlib.nullcontext()


class StepFunction:
    """`train_step` or `test_step` of a model, called as `fit` would: in a graph unless the model runs eagerly.

    What it gives counts where it is the user's own: Keras' own gives the running metrics, which the model holds.
    """

    def __init__(self, model: Any, name: str) -> None:
        self._model = model
        self.not_finite: dict[str, str] = {}
        """Metrics that were NaN or infinite when `values` was asked last."""
        self.is_eager = bool(model.run_eagerly)
        self.is_own = getattr(type(model), name) is not getattr(keras.Model, name)
        step = getattr(model, name)
        is_compiled = bool(getattr(model, "jit_compile", False)) and not self.is_eager
        # As `fit` traces it: without autograph, which takes a fifth of a second to find nothing to convert in Keras' own.
        traced = tf.function(step, autograph=False, jit_compile=is_compiled or None, reduce_retracing=True)
        self.call = step if self.is_eager else traced

    def traced(self, type_spec: Any) -> Any:
        """The concrete function for batches of `type_spec`."""
        return self.call.get_concrete_function(type_spec)

    def logs(self, result: Any) -> dict[str, Any]:
        """What a call gave, by name, as far as it is the user's own and numbers."""
        if not self.is_own or not isinstance(result, Mapping):
            return {}
        return {str(name): tf.convert_to_tensor(value) for name, value in result.items() if _is_number(value)}

    def values(self, logs: Mapping[str, Any]) -> dict[str, float]:
        """The loss and metrics by name, those that are finite, the loss first; a vector's by their place."""
        found = flat(logs if self.is_own and logs else self._model.get_metrics_result())
        self.not_finite = {name: str(value) for name, value in found.items() if not math.isfinite(value)}
        return {name: value for name, value in found.items() if math.isfinite(value)}


def _is_number(value: Any) -> bool:
    return (hasattr(value, "dtype") and hasattr(value, "shape")) or isinstance(value, (int, float))


def flat(found: Mapping[str, Any]) -> dict[str, float]:
    values: dict[str, float] = {}
    for name in sorted(found, key=lambda name: name != "loss"):
        array = np.asarray(found[name], dtype="float64")
        if array.ndim == 0:
            values[name] = float(array)
        else:
            values.update({f"{name}_{place}": float(one) for place, one in enumerate(array.ravel())})
    return values


def zeros(step: StepFunction, type_spec: Callable[[], Any]) -> dict[str, Any]:
    """What a user's own step gives, as zeros: a loop on the device has to know it beforehand."""
    if not step.is_own:
        return {}
    given = step.traced(type_spec()).structured_outputs
    known = {} if not isinstance(given, Mapping) else given
    return {
        str(name): tf.zeros(one.shape, one.dtype)
        for name, one in known.items()
        if isinstance(one, tf.TypeSpec | tf.Tensor) and one.shape.is_fully_defined()
    }


def is_loss(name: str) -> bool:
    return name == "loss" or name.endswith("_loss")


def only_finite(result: Any) -> Any:
    """Whether the losses that a step gave are finite."""
    if not isinstance(result, Mapping):
        return tf.constant(True)
    losses = [result["loss"]] if "loss" in result else [one for name, one in result.items() if is_loss(str(name))]
    found = [tf.reduce_all(tf.math.is_finite(tf.cast(one, tf.float32))) for one in losses]
    return tf.reduce_all(tf.stack(found)) if found else tf.constant(True)


class NotFinite(Exception):
    """The loss, or a weight, became NaN or infinite at `step`."""

    def __init__(self, what: str, word: str, step: int) -> None:
        super().__init__(f"{what} is {word} at step {step}")
        self.what = what
        self.word = word
        self.step = step
