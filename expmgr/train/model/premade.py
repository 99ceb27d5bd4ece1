"""Builds the premade models, such as `dnn_classifier`, for a spec and the columns of its data.

Every value that Keras has a default for is passed, so that a change of Keras' defaults changes nothing here. Each layer
draws from a seed of its own, made of the run's seed and the layer's name: a layer that comes or goes leaves the start
of the others as it was.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import keras

from expmgr.checkpoints.signature import Feature
from expmgr.spec.experiment import ExperimentSpec
from expmgr.spec.model import DnnClassifier, DnnRegressor
from expmgr.train.model.optimizers import build_optimizer

_ILLEGAL = re.compile(r"[^A-Za-z0-9_.-]")
_OURS = re.compile(r"(hidden|dropout|batch_norm)_\d+\Z|(logits|features)\Z|(column|scale|categories)_")


def build_model(spec: ExperimentSpec, features: Sequence[Feature], labels: Sequence[str] | None, seed: int) -> Any:
    """A compiled functional model with an input a column, shape (), float32 or string.

    A classifier gives a logit a class, shape (rows, classes); a regressor a number, shape (rows, 1). The paths of the
    variables are the same in every process, whatever was built before.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed % 2**32)
    names = input_names(features)
    inputs = {
        names[one.name]: keras.Input(
            shape=(), name=names[one.name], dtype="float32" if one.kind == "numeric" else "string"
        )
        for one in features
    }
    columns = [_column(one, names[one.name], inputs[names[one.name]]) for one in features]
    outputs = columns[0] if len(columns) == 1 else keras.layers.Concatenate(name="features")(columns)
    if isinstance(spec.model, DnnClassifier | DnnRegressor):
        outputs = _hidden(spec.model, outputs, seed, spec.train.precision)
    units = len(labels) if labels is not None else 1
    outputs = _dense("logits", units, "linear", seed, "float32")(outputs)
    model = keras.Model(inputs=inputs, outputs=outputs, name="model")
    model.compile(
        optimizer=build_optimizer(spec), loss=_loss(spec), metrics=_metrics(spec), run_eagerly=False, jit_compile=False
    )
    model.optimizer.build(model.trainable_variables)
    return model


def input_names(features: Sequence[Feature]) -> dict[str, str]:
    """Column name to the name of its input: itself, or the nearest legal name that nothing else has."""
    names: dict[str, str] = {}
    for feature in features:
        legal = _ILLEGAL.sub("_", feature.name)
        if not legal[0].isalnum() or _OURS.match(legal):
            legal = f"input_{legal}"
        taken = {name.lower() for name in names.values()}
        name, number = legal, 2
        while name.lower() in taken:
            name, number = f"{legal}_{number}", number + 1
        names[feature.name] = name
    return names


def layer_seed(seed: int, layer: str) -> int:
    """The seed of one layer."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{layer}".encode()).digest()[:4], "big") & 0x7FFFFFFF


def _column(feature: Feature, name: str, tensor: Any) -> Any:
    """One column as (rows, width) float32."""
    if feature.kind == "categorical":
        vocabulary = feature.vocabulary or []
        return keras.layers.StringLookup(
            vocabulary=vocabulary,
            num_oov_indices=1,
            mask_token=None,
            oov_token=_oov_token(vocabulary),
            output_mode="one_hot",
            name=f"categories_{name}",
        )(tensor)
    if feature.scale is not None:
        mean, variance = feature.scale
        tensor = keras.layers.Normalization(axis=None, mean=mean, variance=variance, name=f"scale_{name}")(tensor)
    return keras.layers.Reshape((1,), name=f"column_{name}")(tensor)


def _oov_token(vocabulary: Sequence[str]) -> str:
    token = "[UNK]"  # Keras refuses a vocabulary that holds its token
    while token in vocabulary:
        token = f"[{token}]"
    return token


def _hidden(model: DnnClassifier | DnnRegressor, outputs: Any, seed: int, dtype: str) -> Any:
    # The order of tf.estimator's DNN models: activation, dropout, batch normalisation.
    for index, units in enumerate(model.hidden_units):
        outputs = _dense(f"hidden_{index}", units, model.activation, seed, dtype)(outputs)
        if model.dropout:
            name = f"dropout_{index}"
            outputs = keras.layers.Dropout(model.dropout, seed=layer_seed(seed, name), name=name, dtype=dtype)(outputs)
        if model.batch_norm:
            outputs = keras.layers.BatchNormalization(
                momentum=0.99, epsilon=1e-3, name=f"batch_norm_{index}", dtype=dtype
            )(outputs)
    return outputs


def _dense(name: str, units: int, activation: str, seed: int, dtype: str) -> Any:
    return keras.layers.Dense(
        units,
        activation=activation,
        kernel_initializer=keras.initializers.GlorotUniform(seed=layer_seed(seed, name)),
        bias_initializer="zeros",
        name=name,
        dtype=dtype,
    )


def loss_name(spec: ExperimentSpec) -> str:
    return "sparse_categorical_crossentropy" if spec.is_classifier else "mean_squared_error"


def _loss(spec: ExperimentSpec) -> Any:
    if spec.is_classifier:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True, name=loss_name(spec))
    return keras.losses.MeanSquaredError(name=loss_name(spec))


def _metrics(spec: ExperimentSpec) -> list[Any]:
    if spec.is_classifier:
        return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
    return [
        keras.metrics.MeanAbsoluteError(name="mean_absolute_error"),
        keras.metrics.RootMeanSquaredError(name="root_mean_squared_error"),
    ]
