"""A model that a function of the repository builds: called, compiled if needed, and checked."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from expmgr.errors import SpecProblem, UserCodeFailed
from expmgr.spec.experiment import ExperimentSpec
from expmgr.spec.model import PythonModel
from expmgr.spec.optimizer import Named
from expmgr.train.model.optimizers import build_optimizer
from expmgr.train.model.structure import parts_of
from expmgr.train.user.code import UserCode
from expmgr.train.user.params import params_of

#: Words that `compile` understands by the shapes of outputs and targets.
_BY_SHAPE = frozenset({"accuracy", "acc", "crossentropy", "ce"})


def build_user_model(spec: ExperimentSpec, code: UserCode, seed: int, batch: Any) -> Any:
    """The compiled and built model. `batch` holds the first rows of the eval split, as `test_step` takes them.

    Raises `UserCodeFailed`, and `SpecProblem` where spec and code both say, or neither says, how the model is trained.
    """
    about = spec.model
    assert isinstance(about, PythonModel)
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed % 2**32)
    keras.config.set_dtype_policy(spec.train.precision)
    params = params_of(about.params, about.params_model, code, "model")
    model = code.call(about.build, "model.build", {"params": params, "seed": seed})
    if not isinstance(model, keras.Model):
        raise UserCodeFailed(
            f"model.build: {about.build} gives {type(model).__name__}, not a keras.Model",
            left_alone="Nothing was changed.",
            hint="return the model" if model is None else None,
        )
    _compile(model, spec, code)
    _build(model, code, about.build, batch)
    _look_at_variables(model, about.build)
    return model


def handed_over(model: Any, code: UserCode, about: Any, batch: Any) -> Any:
    """A compiled model that a script made, built."""
    _build(model, code, about.script, batch)
    _look_at_variables(model, about.script)
    return model


def _compile(model: Any, spec: ExperimentSpec, code: UserCode) -> None:
    said = [key for key in ("optimizer", "loss", "loss_weights", "metrics") if getattr(spec, key) is not None]
    build = getattr(spec.model, "build", "")
    if model.compiled:
        if said:
            raise SpecProblem(
                f"{build} gives a compiled model, and the spec names {' and '.join(said)} too",
                left_alone="Nothing was changed.",
                hint=f"say it in one place: remove {' and '.join(said)} from the spec, or model.compile from the code",
            )
        return
    if spec.optimizer is None:
        raise SpecProblem(
            f"{build} gives a model that is not compiled, and the spec names no optimizer",
            left_alone="Nothing was changed.",
            hint="optimizer: {kind: adam, learning_rate: 0.001} and loss: in the spec, or model.compile(...) in the code",
        )
    with code.errors("loss: the model cannot be compiled"):
        model.compile(
            optimizer=build_optimizer(spec),
            loss=_each(spec.loss, lambda one: _loss(one, code)),
            loss_weights=spec.loss_weights,
            metrics=_each(spec.metrics, lambda one: _metric(one, code)),
            run_eagerly=False,
            jit_compile=False,
        )


def _each(value: Any, make: Any) -> Any:
    if isinstance(value, list):
        return [_each(one, make) for one in value]
    if isinstance(value, Mapping):
        return {key: _each(one, make) for key, one in value.items()}
    return None if value is None else make(value)


def _loss(named: Named, code: UserCode) -> Any:
    return _made(named, code, "loss", keras.losses)


def _metric(named: Named, code: UserCode) -> Any:
    if named.use in _BY_SHAPE and not named.params:
        return named.use
    return _made(named, code, "metrics", keras.metrics)


def _made(named: Named, code: UserCode, key: str, module: Any) -> Any:
    """The loss or metric: of the repository by `module:name`, of Keras by its name."""
    if ":" in named.use:
        found = code.find(named.use, key)
        with code.errors(f"{key}: {named.use} cannot be made"):
            if isinstance(found, type):
                return found(**named.params)
            return functools.partial(found, **named.params) if named.params else found
    try:
        found = module.get({"class_name": named.use, "config": dict(named.params)} if named.params else named.use)
    except (ValueError, TypeError) as error:
        first = next(iter(str(error).splitlines()), "")
        raise SpecProblem(
            f"{key}: Keras cannot make {named.use}: {first[:200]}",
            left_alone="Nothing was changed.",
            hint='a name of keras.losses or keras.metrics, or "module:name" of your own',
        ) from None
    return found


def _build(model: Any, code: UserCode, reference: str, batch: Any) -> None:
    """Let every layer have its variables, and the optimizer its slots."""
    inputs, _, _ = parts_of(batch)
    with code.errors(f"model.build: the model of {reference} does not take the first rows of the eval split"):
        try:
            model(inputs, training=False)
        except NotImplementedError:
            if type(model).call is not keras.Model.call:
                raise
            # One without call(), whose train_step says what it computes.
    with code.errors(f"model.build: the optimizer of {reference} cannot be built"):
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)


def _look_at_variables(model: Any, reference: str) -> None:
    """Everything that is learned has to be known to Keras, or no checkpoint holds it."""
    for layer in model._flatten_layers():
        if type(layer).__module__.partition(".")[0] == "keras":
            continue
        for name, value in vars(layer).items():
            if isinstance(value, tf.Variable):
                raise UserCodeFailed(
                    f"model.build: {type(layer).__name__}.{name} in the model of {reference} is a tf.Variable, which "
                    "Keras 3 neither trains nor saves",
                    left_alone="Nothing was changed.",
                    hint=f"self.{name} = self.add_weight(shape=..., initializer=..., trainable=...)",
                )
