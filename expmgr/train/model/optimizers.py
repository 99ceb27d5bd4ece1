"""Builds the optimizer that a spec names: clipping, accumulation, learning rate, averaged weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from expmgr.errors import OurBug
from expmgr.spec.experiment import ExperimentSpec

_OPTIMIZERS = {
    "adagrad": keras.optimizers.Adagrad,
    "sgd": keras.optimizers.SGD,
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "rmsprop": keras.optimizers.RMSprop,
    "ftrl": keras.optimizers.Ftrl,
}
_SCHEDULES = {
    "exponential_decay": keras.optimizers.schedules.ExponentialDecay,
    "piecewise_constant_decay": keras.optimizers.schedules.PiecewiseConstantDecay,
    "polynomial_decay": keras.optimizers.schedules.PolynomialDecay,
    "inverse_time_decay": keras.optimizers.schedules.InverseTimeDecay,
    "cosine_decay": keras.optimizers.schedules.CosineDecay,
    "cosine_decay_restarts": keras.optimizers.schedules.CosineDecayRestarts,
}
#: What Keras keeps where no average is wanted: its own default, so that its configuration stays as it was.
_UNUSED_MOMENTUM = 0.99


def build_optimizer(spec: ExperimentSpec) -> Any:
    """The optimizer of the spec, named for its kind, so that its variables are too."""
    assert spec.optimizer is not None
    settings = spec.optimizer.model_dump()
    kind, rate, momentum = (settings.pop(name) for name in ("kind", "learning_rate", "ema_momentum"))
    if kind not in _OPTIMIZERS:
        raise OurBug(f"optimizer.kind {kind} has no builder")
    return _OPTIMIZERS[kind](
        **settings,
        learning_rate=_learning_rate(rate),
        use_ema=momentum is not None,
        ema_momentum=_UNUSED_MOMENTUM if momentum is None else momentum,
        loss_scale_factor=None,
        name=kind,
    )


def _learning_rate(rate: Any) -> Any:
    if not isinstance(rate, dict):
        return rate
    settings = dict(rate)
    kind = settings.pop("kind")
    if kind not in _SCHEDULES:
        raise OurBug(f"optimizer.learning_rate.kind {kind} has no builder")
    return _SCHEDULES[kind](**settings, name=kind)


def inner_optimizer(model: Any) -> Any:
    """The optimizer of `model`, out of the loss scaling that mixed precision wraps it in; None before `compile`."""
    optimizer = getattr(model, "optimizer", None)
    return getattr(optimizer, "inner_optimizer", optimizer)


def averages(model: Any) -> list[tuple[Any, Any]]:
    """Each trained weight with its moving average; none where the optimizer keeps no averages."""
    optimizer = inner_optimizer(model)
    if optimizer is None or not optimizer.use_ema:
        return []
    pairs = zip(model.trainable_variables, optimizer._model_variables_moving_average, strict=True)
    return [(weight, average) for weight, average in pairs if average is not None]


@contextlib.contextmanager
def averaged(model: Any) -> Iterator[None]:
    """Within, the weights are their moving averages, where the optimizer keeps them and has begun to."""
    optimizer = inner_optimizer(model)
    pairs = averages(model) if optimizer is not None and int(optimizer._iterations.numpy()) else []
    before = [tf.identity(weight.value) for weight, _ in pairs]
    for weight, average in pairs:
        weight.value.assign(average.value)
    try:
        yield
    finally:
        for (weight, _), value in zip(pairs, before, strict=True):
            weight.value.assign(value)
