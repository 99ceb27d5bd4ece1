"""The part `model` of a spec: premade models, Python functions, scripts and Estimators."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    Field,
    PositiveInt,
)

from expmgr.spec.part import Part, Reference

CLASSIFIERS = frozenset({"dnn_classifier", "linear_classifier"})

Activation = Literal[
    "relu", "tanh", "sigmoid", "elu", "selu", "gelu", "silu", "softplus", "softsign", "leaky_relu", "relu6", "linear"
]


class _Dnn(Part):
    hidden_units: list[PositiveInt] = Field(min_length=1)
    """Width of each hidden layer, the input's side first."""
    activation: Activation = "relu"
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the outputs of each hidden layer that is dropped in training."""
    batch_norm: bool = False
    """BatchNormalization after each hidden layer's activation."""


class DnnClassifier(_Dnn):
    """Fully connected layers, then one logit a class."""

    kind: Literal["dnn_classifier"]


class DnnRegressor(_Dnn):
    """Fully connected layers, then one number."""

    kind: Literal["dnn_regressor"]


class LinearClassifier(Part):
    """One logit a class, linear in the features."""

    kind: Literal["linear_classifier"]


class LinearRegressor(Part):
    """One number, linear in the features."""

    kind: Literal["linear_regressor"]


class PythonModel(Part):
    """What a function of the repository builds: `build(params) -> keras.Model`."""

    kind: Literal["python"]
    build: Reference
    """The function; it may name `seed` too."""
    params: dict[str, Any] = {}
    """What it is given as `params`."""
    params_model: Reference | None = None
    """A pydantic model that `params` are made, so that `--set` checks them."""


class ScriptModel(Part):
    """What a training script hands to `expmgr.fit`, compiled."""

    kind: Literal["script"]
    script: str = Field(min_length=1, pattern=r"^[^/].*\.py$")
    """The script, in the experiment's folder."""
    params: dict[str, Any] = {}
    """What `expmgr.params({...})` gives in it, in the place of the defaults that stand there."""


class EstimatorModel(Part):
    """What a function of the repository builds: `build(params, run_config) -> tf.estimator.Estimator`.

    It is trained by TensorFlow 2.14 or 2.15, the last that have Estimators, in an environment of its own.
    """

    kind: Literal["estimator"]
    build: Reference
    """The function; it is given the run's `tf.estimator.RunConfig` as `run_config`, and may name `seed` too."""
    params: dict[str, Any] = {}
    """What it is given as `params`."""
    params_model: Reference | None = None
    """A pydantic model that `params` are made, so that `--set` checks them."""
    serving: Reference | None = None
    """A `serving_input_receiver_fn` for `export`; None: raw tensors, as the features of the data are."""
