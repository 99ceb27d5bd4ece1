"""Evaluates an Estimator, predicts with it, or exports it, after the guard has accepted its checkpoint."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from expmgr.errors import DataProblem, OutputProblem
from expmgr.runs.events import Answered
from expmgr.runs.request import Ask
from expmgr.spec.model import EstimatorModel
from expmgr.train.estimators.building import BuiltEstimator
from expmgr.train.inference import (
    admitted,
    answered,
    as_csv,
    as_json_lines,
    classified,
    export_to,
    row_of,
    write_output,
)


def answer(built: BuiltEstimator) -> Answered:
    """Do what the request asks of the checkpoint that it names. Nothing of the model_dir is written."""
    ask = built.request.ask
    assert ask is not None
    whole, judgement = admitted(built, ask)
    built.newest = whole.prefix
    done = {"evaluate": _evaluate, "predict": _predict, "export": _export}[ask.what](built, ask)
    return answered(whole, judgement, done)


def _evaluate(built: BuiltEstimator, ask: Ask) -> dict[str, Any]:
    if ask.data is None:
        fed, what = built.data.rows(ask.split), built.data.as_dict()[ask.split]["path"]
    else:
        fed, what = built.data.read(ask.data), str(ask.data)
    metrics = built.evaluation(fed).run(lambda: False, time.monotonic)
    return {"data": what, "rows": fed.count, "metrics": metrics, "not_finite": {}}


def _predict(built: BuiltEstimator, ask: Ask) -> dict[str, Any]:
    assert ask.data is not None
    assert ask.output is not None
    fed = built.data.read_inputs(ask.data)
    is_json = ask.output.suffix in (".jsonl", ".json")
    with built.code.errors("the model does not take what is to be predicted"):
        found: Iterable[Any] = built.estimator.predict(fed.input_fn, checkpoint_path=str(built.newest))
        lines = [_line(built.data.labels, one, is_json) for one in found]
    write_output(ask.output, as_json_lines(lines) if is_json else as_csv(lines))
    return {"data": str(ask.data), "rows": len(lines), "output": str(ask.output)}


def _line(labels: list[str] | None, found: Any, is_nested: bool) -> dict[str, Any]:
    """One row: the class and the probability of each where its head gives them, else every output by its name."""
    outputs: Mapping[str, Any] = found if isinstance(found, Mapping) else {"prediction": found}
    shares = outputs.get("probabilities")
    if labels is not None and shares is not None and np.shape(shares) == (len(labels),):
        return classified(labels, np.asarray(shares))
    arrays = {str(name): np.asarray(one)[np.newaxis] for name, one in outputs.items()}
    return row_of(arrays, 0, is_nested)


def _export(built: BuiltEstimator, ask: Ask) -> dict[str, Any]:
    assert ask.output is not None
    if ask.format == "keras":
        raise OutputProblem(
            "an Estimator is no Keras model: it can be exported as a SavedModel alone",
            left_alone="Nothing was written.",
            hint="--format savedmodel",
        )

    def write(aside: Path) -> Path:
        checkpoint = str(built.newest)
        return Path(
            os.fsdecode(built.estimator.export_saved_model(str(aside), _serving(built), checkpoint_path=checkpoint))
        )

    export_to(ask.output, write, built.code)
    return {"output": str(ask.output), "as": ask.format, "outputs": "as built", "inputs": {}, "needs_code": False}


def _serving(built: BuiltEstimator) -> Any:
    """The spec's `serving_input_receiver_fn`; else one of raw tensors, as the features are."""
    assert isinstance(built.spec.model, EstimatorModel)
    if built.spec.model.serving is not None:
        return built.code.find(built.spec.model.serving, "model.serving")
    features, _ = built.data.type_specs("eval")
    given = features if isinstance(features, Mapping) else {"features": features}
    if not all(isinstance(one, tf.TensorSpec) for one in given.values()):
        raise DataProblem(
            "the features are not all dense tensors, so what a server is given has to be said",
            left_alone="Nothing was written.",
            hint='model.serving: "model:serving_input_receiver_fn"',
        )

    def receiver() -> Any:
        placeholders = {
            str(name): tf.compat.v1.placeholder(one.dtype, one.shape, name=str(name)) for name, one in given.items()
        }
        fed = placeholders if isinstance(features, Mapping) else placeholders["features"]
        return tf.estimator.export.ServingInputReceiver(fed, placeholders)

    return receiver
