"""Digests of how a model is evaluated: its metrics, its loss and its `test_step`."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any

import keras

from expmgr.train.signature.leaves import digest_of
from expmgr.train.signature.sourcecode import code_of_parts

#: What a model may do in its own way when it is evaluated.
_STEPS = ("test_step", "compute_loss", "compute_metrics")
_PENALTIES = ("kernel_regularizer", "bias_regularizer", "activity_regularizer", "embeddings_regularizer")


def measures_of(model: Any) -> dict[str, str]:
    """Digests of `metrics` and `loss` as they were compiled, settings and own code included (the penalties that Keras adds
    to a loss belong to it), and of `steps`, the code of the model's own evaluation; empty where Keras' is taken."""
    compiled = _compiled(model)
    metrics = compiled.get("metrics"), compiled.get("weighted_metrics")
    loss = compiled.get("loss"), compiled.get("loss_weights")
    steps = [step for name in _STEPS if not _is_of_keras(step := getattr(type(model), name))]
    return {
        "metrics": digest_of([_text(metrics), _code(metrics)]),
        "loss": digest_of([_text(loss), _code(loss), *sorted(_penalties(model))]),
        "steps": code_of_parts(steps) if steps else "",
    }


def _compiled(model: Any) -> dict[str, Any]:
    """What `compile` was given, as it was given."""
    given = getattr(model, "_compile_config", None)  # get_compile_config() fails for what has no settings
    return dict(given.config) if given is not None else {}


def _penalties(model: Any) -> Iterator[str]:
    for layer in model._flatten_layers():
        for name in _PENALTIES:
            if getattr(layer, name, None) is not None:
                yield f"{type(layer).__name__} {name} {_text(getattr(layer, name))}"


def _text(value: Any) -> str:
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    """A metric or loss as its class and settings, a function as its name."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items() if key != "name"}  # Keras numbers names
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if hasattr(value, "get_config"):
        try:
            return [type(value).__name__, _plain(keras.saving.serialize_keras_object(value)["config"])]
        except Exception:  # one of the user's own, whose settings cannot be told: its code speaks
            return type(value).__name__
    if callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)


def _code(parts: Any) -> str:
    """Digest of the code of metrics and losses that are not Keras'; empty where there are none."""
    kinds = [one if inspect.isfunction(one) or inspect.isclass(one) else type(one) for one in _leaves(parts)]
    own = [kind for kind in kinds if not _is_of_keras(kind)]
    return code_of_parts(own) if own else ""


def _is_of_keras(part: Any) -> bool:
    return str(getattr(part, "__module__", "")).partition(".")[0] in ("keras", "tf_keras", "builtins")


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = [*value.values()]
    if isinstance(value, (list, tuple)):
        for one in value:
            yield from _leaves(one)
    elif value is not None:
        yield value
