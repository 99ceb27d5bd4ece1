"""Makes the signature of a live Keras model: what it computes, its configuration and its data."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from expmgr.checkpoints.signature import (
    DataContract,
    Feature,
    Fingerprint,
    Signature,
    SplitContent,
    TrainingSetup,
    Variable,
)
from expmgr.train.model.checkpoints import described as describe
from expmgr.train.model.checkpoints import live_variables, other_optimizers
from expmgr.train.model.structure import any_rows, leaves, parts_of, type_spec_of
from expmgr.train.signature.fingerprint import Traced, trace_inference, trace_training
from expmgr.train.signature.graph import CannotTrace
from expmgr.train.signature.leaves import digest_of
from expmgr.train.signature.sourcecode import code_of_parts

#: Rows of the eval split that the contract looks at by value.
FIRST_ROWS = 32
#: What a layer is called, where its code lies, which numbers it drew from: not what it does.
_NAMES = frozenset({"name", "seed", "module", "registered_name", "build_config", "compile_config", "shared_object_id"})
_LONG = 32


def signature_of(
    model: Any,
    batch: Any,
    contract: DataContract,
    setup: TrainingSetup,
    *,
    trained: Any = None,
    step: int = 0,
    order: Sequence[str] = (),
    architecture: Mapping[str, Any] | None = None,
    code: str | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Signature:
    """What a checkpoint of the compiled and built `model` requires, and what `model` offers to one.

    `batch` is one batch as `model.train_step` takes it, (inputs, targets[, weights]), tensors or type specs; its number of
    rows does not count. `trained` is one of the training split, where that has another structure. `order` gives the keys
    of a dict of inputs in the order that counts.
    """
    inference, training_step, traced = _fingerprints(model, batch, batch if trained is None else trained, order, code)
    live = live_variables(model)
    roles, blind = (traced.roles, traced.blind_roles) if traced else ({}, {})

    def described(path: str, variable: Any) -> Variable:
        return _with_role(describe(path, variable), roles.get(id(variable)), blind.get(id(variable)))

    return Signature(
        step=step,
        variables=[described(path, variable) for path, variable in live.weights.items()],
        optimizer_variables=[describe(path, variable) for path, variable in live.optimizer.items()],
        state=[describe(path, variable) for path, variable in live.state.items()],
        inference=inference,
        training_step=training_step,
        code=code,
        step_code=_step_code(model),
        architecture=dict(architecture) if architecture is not None else None,
        layers=layer_configs(model),
        data=contract,
        training=setup,
        provenance=dict(provenance or {}),
    )


def inference_signature(
    model: Any,
    inputs: Any,
    contract: DataContract,
    setup: TrainingSetup,
    *,
    order: Sequence[str],
    provenance: Mapping[str, Any],
    architecture: Mapping[str, Any] | None,
    code: str | None = None,
) -> Signature:
    """The signature of a model that is only asked, compiled or not: nothing is said of its training."""
    inference, traced = _fingerprint(lambda shape: trace_inference(model, shape(inputs), order), code)
    roles, blind = (traced.roles, traced.blind_roles) if traced else ({}, {})
    weights = [
        _with_role(describe(path, variable), roles.get(id(variable)), blind.get(id(variable)))
        for path, variable in live_variables(model).weights.items()
    ]
    return Signature(
        step=0,
        variables=weights,
        optimizer_variables=[],
        state=[],
        inference=inference,
        training_step=Fingerprint(by="none"),
        code=code,
        architecture=dict(architecture) if architecture is not None else None,
        layers=layer_configs(model),
        data=contract,
        training=setup,
        provenance=dict(provenance),
    )


def _step_code(model: Any) -> str | None:
    """Digest of what the user's code makes of a training step: its own train_step, loss and optimizer; None for Keras'."""
    names = ("train_step", "compute_loss", "_compute_loss")
    own = [getattr(type(model), name, None) for name in names]
    parts = [one for one, name in zip(own, names, strict=True) if one is not getattr(keras.Model, name, None)]
    for one in (*tf.nest.flatten(getattr(model, "loss", None)), getattr(model, "optimizer", None)):
        kind = one if inspect.isroutine(one) or inspect.isclass(one) else type(one)
        if one is not None and not isinstance(one, str) and not kind.__module__.startswith(("keras.", "builtins")):
            parts.append(kind)
    return code_of_parts(parts) if parts else None


def _with_role(variable: Variable, role: int | None, blind: int | None) -> Variable:
    return variable.model_copy(update={"role": role, "blind_role": blind if blind != role else None})


def _fingerprints(
    model: Any, batch: Any, trained: Any, order: Sequence[str], code: str | None
) -> tuple[Fingerprint, Fingerprint, Traced | None]:
    """Of the inference and of a training step, and the trace of the first."""
    inputs, _, _ = parts_of(batch)
    inference, traced = _fingerprint(lambda shape: trace_inference(model, shape(inputs), order), code)
    training, _ = _fingerprint(lambda shape: trace_training(model, shape(trained), order), code)
    return inference, training, traced


def _fingerprint(
    trace: Callable[[Callable[[Any], Any]], Traced], code: str | None
) -> tuple[Fingerprint, Traced | None]:
    """By the graph with any number of rows, by the graph with the batch's own (a stateful model), or by the code."""
    reason = ""
    for shape in (any_rows, _own_rows):
        try:
            traced = trace(shape)
        except CannotTrace as error:
            reason = reason or str(error)
            continue
        return fingerprint_of(traced), traced
    if code is None:
        return Fingerprint(by="none", reason=reason), None
    return Fingerprint(by="code", digest=code, reason=reason), None


def fingerprint_of(traced: Traced) -> Fingerprint:
    """What a signature keeps of a trace."""
    about = {"digest": traced.digest, "blind": traced.blind, "named": traced.named, "neutral": traced.neutral}
    return Fingerprint(by="graph", **about)


def _own_rows(structure: Any) -> Any:
    return tf.nest.map_structure(type_spec_of, structure)


# The configuration.


def layer_configs(model: Any) -> dict[str, dict[str, Any]]:
    """Class and configuration of every layer by its path, in a form that is the same in every process."""
    found: dict[str, dict[str, Any]] = {}
    for layer in model._flatten_layers(include_self=False, recursive=True):
        path = str(layer.path or layer.name)
        key, number = path, 2
        while key in found:
            key, number = f"{path}#{number}", number + 1
        found[key] = _layer_config(layer)
    return found


def _layer_config(layer: Any) -> dict[str, Any]:
    about: dict[str, Any] = {"class": type(layer).__name__}
    if not isinstance(layer, keras.Model):  # a model's own configuration is that of its layers
        try:
            config = layer.get_config()
        except Exception:  # a layer of one's own without get_config: its code and its graph speak for it
            config = {}
        about.update(_canonical({key: value for key, value in config.items() if key != "trainable"}))
    if (state := _layer_state(layer)) is not None:
        about["state"] = state
    return about


def _layer_state(layer: Any) -> str | None:
    """Digest of what a preprocessing layer learned from data before training."""
    if hasattr(layer, "get_vocabulary"):
        return digest_of(str(word) for word in layer.get_vocabulary())
    if isinstance(layer, keras.layers.Normalization) and getattr(layer, "mean", None) is not None:
        return digest_of(
            f"{float(f'{value:.6g}')}" for part in (layer.mean, layer.variance) for value in np.ravel(part)
        )
    return None


def _canonical(value: Any) -> Any:
    """`value` as JSON, without names, seeds and nulls; long lists by their digest."""
    if isinstance(value, Mapping):
        if value.get("class_name") in ("DTypePolicy", "FloatDTypePolicy"):
            return value["config"]["name"]
        kept = {str(key): _canonical(one) for key, one in value.items() if key not in _NAMES and one is not None}
        if set(kept) == {"class_name", "config"}:
            return {"class": kept["class_name"], **kept["config"]} if isinstance(kept["config"], dict) else kept
        return dict(sorted(kept.items()))
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        if len(value) > _LONG:
            return f"{len(value)} values, digest {digest_of(repr(_canonical(one)) for one in value)}"
        return [_canonical(one) for one in value]
    if isinstance(value, bool) or value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, (float, np.floating)):
        if not math.isfinite(value):
            return str(float(value))  # JSON has no such number
        return float(f"{float(value):.7g}")  # Keras keeps some settings in float32
    if isinstance(value, np.integer):
        return int(value)
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    return type(value).__name__


def setup_of(
    model: Any, *, batch_size: int | None = None, shuffle: bool | None = None, seed: int | None = None
) -> TrainingSetup:
    """How the compiled `model` trains. Metrics and steps per execution do not count."""
    optimizer, scale = model.optimizer, None
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        scale = _canonical({k: v for k, v in optimizer.get_config().items() if k != "inner_optimizer"})
        optimizer = optimizer.inner_optimizer
    config = _canonical(_optimizer_config(optimizer))
    compiled = _compile_config(model)
    loss = {key: _canonical(compiled[key]) for key in ("loss", "loss_weights") if compiled.get(key)}
    kind = type(optimizer).__name__.lower()
    others = {name: _canonical(_optimizer_config(one)) for name, one in other_optimizers(model).items()}
    return TrainingSetup(
        loss=loss or None,
        optimizer={"kind": kind, **config, **others},
        loss_scale=scale,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
    )


def _optimizer_config(optimizer: Any) -> dict[str, Any]:
    """Its configuration; where a schedule of the user's own has none, its plain settings: the graph of a training step
    speaks for the schedule."""
    try:
        return dict(optimizer.get_config())
    except NotImplementedError:
        plain = (bool, int, float, str)
        config = {key: value for key, value in vars(optimizer).items() if key[:1] != "_" and isinstance(value, plain)}
        return {**config, "learning_rate": {"class_name": type(optimizer._learning_rate).__name__, "config": {}}}


def _compile_config(model: Any) -> dict[str, Any]:
    """What `compile` was given, as far as it can be told; what cannot, the code and the graph speak for."""
    try:
        return (model.get_compile_config() if model.compiled else None) or {}
    except Exception:  # losses and metrics of one's own without get_config
        return {}


# Data that is there as arrays.


def contract_of_arrays(
    train: Any,
    evaluated: Any,
    *,
    features: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    declared: Mapping[str, Any] | None = None,
) -> DataContract:
    """The contract of two splits, each (inputs, targets) of arrays as they enter the model.

    A single array of inputs has a feature a column where `features` names as many as it has, else one for all.
    """
    inputs, targets = train[0], train[1]
    return DataContract(
        features=list(_features(inputs, features)),
        labels=list(labels) if labels is not None else None,
        targets=digest_of_arrays(targets),
        splits={name: _content(split) for name, split in (("train", train), ("eval", evaluated))},
        first_batch=first_batch(evaluated[0], evaluated[1]),
        declared={name: digest_of([repr(value)]) for name, value in (declared or {}).items()},
    )


def first_batch(inputs: Any, targets: Any) -> dict[str, str]:
    """Digests of the first rows as they enter the model, in their order, whatever their names."""
    first = [[one[:FIRST_ROWS] for one in leaves(part)] for part in (inputs, targets)]
    return {"inputs": digest_of_arrays(first[0]), "targets": digest_of_arrays(first[1])}


def _features(inputs: Any, names: Sequence[str] | None) -> Iterator[Feature]:
    if not isinstance(inputs, (Mapping, list, tuple)):
        array = np.asarray(inputs)
        if names is not None and array.ndim == 2 and array.shape[1] == len(names):
            for number, name in enumerate(names):
                yield _feature(name, array[:, number])
            return
        inputs = {names[0] if names else "inputs": array}
    pairs: Iterable[tuple[Any, Any]] = inputs.items() if isinstance(inputs, Mapping) else enumerate(inputs)
    for name, value in pairs:
        yield _feature(str(name), np.asarray(value))


def _feature(name: str, array: Any) -> Feature:
    shape = ", ".join(map(str, array.shape[1:]))
    return Feature(name=name, kind="tensor", sha256=digest_of_arrays(array), spec=f"{array.dtype} ({shape})")


def _content(split: Any) -> SplitContent:
    flat = [np.asarray(one) for one in tf.nest.flatten((split[0], split[1]))]
    return SplitContent(rows=len(flat[0]), sha256=digest_of_arrays((split[0], split[1])))


def digest_of_arrays(structure: Any) -> str:
    """sha256 of arrays: dtype, shape and content of each, in their order (a dict's own)."""
    digest = hashlib.sha256()
    for array in _in_order(structure):
        if array.dtype.kind in "OUS":
            words = [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in array.ravel()]
            content = digest_of(words).encode()
        else:
            content = np.ascontiguousarray(array).tobytes()
        digest.update(f"{array.dtype.kind}{array.dtype.itemsize if array.dtype.kind not in 'OUS' else ''} ".encode())
        digest.update(f"{array.shape}".encode())
        digest.update(content)
    return digest.hexdigest()


def _in_order(structure: Any) -> Iterator[Any]:
    for one in leaves(structure):
        if isinstance(one, tf.RaggedTensor | tf.SparseTensor):
            yield from (part.numpy() for part in tf.nest.flatten(one, expand_composites=True))
        else:
            yield np.asarray(one)
