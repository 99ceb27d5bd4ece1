"""Writes the variables of a live Keras model to a checkpoint, and restores them by path.

Keys read `variables/hidden_0/kernel/.ATTRIBUTES/VARIABLE_VALUE`, `optimizer/adagrad/iteration/...`, `state/...` and
`global_step/...`: what `tf.train.Checkpoint(variables={"hidden_0": {"kernel": v}}, ...)` writes, so TensorFlow reads it
as well. Restoring goes by path, one variable at a time, after the guard said yes: TensorFlow's own restoring is
positional for Keras objects, and silent about what does not fit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from expmgr.checkpoints.bundle import VALUE, key_of
from expmgr.checkpoints.signature import AVERAGE, Signature, Variable, slot_path
from expmgr.disk import durable
from expmgr.errors import CheckpointRefused, DiskFull, OurBug
from expmgr.guard.warm_start import Plan
from expmgr.train.model.optimizers import averages, inner_optimizer

_STEP_KEY = f"global_step{VALUE}"
_PIPELINE = "pipeline"
#: What TensorFlow says, in an error of its own, when the disk is full or broken.
_DISK_WORDS = (
    *("No space left on device", "Disk quota exceeded", "Input/output error", "File too large"),
    "Read-only file system",
)


@dataclass(frozen=True)
class LiveVariables:
    """All variables of a compiled model, by path: weights in the order of the layers, the optimizer's, and the rest."""

    weights: dict[str, Any]
    optimizer: dict[str, Any]
    state: dict[str, Any]
    """Seed generators, and running metrics as far as they are built."""

    @property
    def groups(self) -> dict[str, dict[str, Any]]:
        """The three by their name in a checkpoint."""
        return {"variables": self.weights, "optimizer": self.optimizer, "state": self.state}


def live_variables(model: Any) -> LiveVariables:
    """The variables of `model` as they are now; metrics are built by the first step that is traced."""
    weights = dict(_numbered((variable.path, variable) for variable in model.weights))
    of_optimizer = getattr(getattr(model, "optimizer", None), "variables", ())  # none before `compile`
    pairs = [(slot_name(variable.path), variable) for variable in of_optimizer]
    for name, other in other_optimizers(model).items():
        pairs.extend((f"{name}.{slot_name(variable.path)}", variable) for variable in other.variables)
    optimizer = dict(_numbered(pairs))
    state = dict(_numbered(_seed_states(model, {id(variable) for variable in model.weights})))
    state.update(_numbered((f"metrics/{variable.path}", variable) for variable in model.metrics_variables))
    return LiveVariables(weights, optimizer, state)


def other_optimizers(model: Any) -> dict[str, Any]:
    """The optimizers that a model keeps besides the one that it was compiled with, by the name of the attribute."""
    kind = keras.optimizers.Optimizer
    found = {name: one for name, one in sorted(vars(model).items()) if isinstance(one, kind)}
    first = getattr(model, "optimizer", None)
    return {name: one for name, one in found.items() if one is not first}


def slot_name(path: str) -> str:
    """The path of an optimizer's variable, without the number that Keras gives the second `Adam()` of a process."""
    return re.sub(r"\A([A-Za-z_]+?)_\d+/", r"\1/", path)


def _numbered(pairs: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Paths made different: Keras gives two layers of one name the same. The part that each plays tells them apart."""
    seen: dict[str, int] = {}
    for path, variable in pairs:
        seen[path] = seen.get(path, 0) + 1
        yield (path if seen[path] == 1 else f"{path}#{seen[path]}"), variable


def _seed_states(model: Any, weights: set[int]) -> Iterator[tuple[str, Any]]:
    # A seed generator's own path (seed_generator_1/...) counts generators: the layer's name is what stays.
    seen = weights | {id(variable) for variable in model.metrics_variables}
    for layer in (*model.layers, model):
        name = "model" if layer is model else layer.name
        for number, variable in enumerate(one for one in layer.variables if id(one) not in seen):
            seen.add(id(variable))
            yield f"{name}/{variable.name}{f'_{number}' if number else ''}", variable


def described(path: str, variable: Any) -> Variable:
    """Path, shape, dtype, trainable or not."""
    shape = [int(size) for size in variable.shape]
    return Variable(path=path, shape=shape, dtype=str(variable.dtype), trainable=bool(variable.trainable))


def is_finite(model: Any) -> bool:
    """Whether no weight and no variable of the optimizer is NaN or infinite."""
    live = live_variables(model)
    values = [variable.value for variable in (*live.weights.values(), *live.optimizer.values())]
    return all(bool(tf.reduce_all(tf.math.is_finite(value))) for value in values if value.dtype.is_floating)


def size_bytes(model: Any) -> int:
    """How many bytes a checkpoint of `model` holds, about."""
    groups = live_variables(model).groups.values()
    sizes = [one.value.shape.num_elements() * one.value.dtype.size for group in groups for one in group.values()]
    return sum(sizes)


def write(model: Any, step: int, prefix: Path, pipeline: bytes | None = None) -> None:
    """Write `prefix`.index and .data-?????-of-?????; `DiskFull` where TensorFlow finds no room.

    `pipeline` is where the training data stands.
    """
    groups = {name: {path: one.value for path, one in group.items()} for name, group in _groups(model).items()}
    write_values(groups, step, prefix, pipeline)


def _groups(model: Any) -> dict[str, dict[str, Any]]:
    return live_variables(model).groups


def copies(model: Any) -> dict[str, dict[str, Any]]:
    """The state of `model` as it is now, by group and path, in memory of its own: what `write_values` takes."""
    with tf.device("CPU:0"):  # a copy on the accelerator could leave it without memory
        return {
            name: {path: tf.Variable(tf.identity(one.value)) for path, one in group.items()}
            for name, group in _groups(model).items()
        }


def write_values(
    groups: Mapping[str, Mapping[str, Any]], step: int, prefix: Path, pipeline: bytes | None = None
) -> None:
    """As `write`, of variables by group and path. May be called beside training, by another thread."""
    trees: dict[str, Any] = {name: _nested(group) for name, group in groups.items()}
    if pipeline is not None:
        trees[_PIPELINE] = tf.Variable(pipeline, dtype=tf.string)
    checkpoint = tf.train.Checkpoint(**trees, global_step=tf.Variable(step, dtype=tf.int64))
    try:
        checkpoint.write(str(prefix))
    except tf.errors.OpError as error:
        sizes = [one.shape.num_elements() * one.dtype.size for group in groups.values() for one in group.values()]
        needed = sum(sizes) if all(isinstance(one, int) for one in sizes) else None
        raise disk_error(error, f"checkpoint {prefix.name}", prefix, needed) or error from None


def pipeline_of(prefix: Path) -> bytes | None:
    """Where the training data stood when the checkpoint `prefix` was written; None where it does not say."""
    reader = tf.train.load_checkpoint(str(prefix))
    key = f"{_PIPELINE}{VALUE}"
    return bytes(reader.get_tensor(key)) if reader.has_tensor(key) else None


def disk_error(
    error: Exception, what: str, path: Path | None = None, needed_bytes: int | None = None
) -> DiskFull | None:
    """`error` as `DiskFull` where it speaks of the disk; `what` was written to `path`, about `needed_bytes`."""
    words = next((words for words in _DISK_WORDS if words in str(error)), None)
    details = [durable.place_and_bytes(str(path), needed_bytes)] if path is not None else []
    return DiskFull(f"{what} could not be written: {words}", details=details) if words else None


def _nested(group: Mapping[str, Any]) -> dict[str, Any]:
    """`{"hidden_0/kernel": v}` as `{"hidden_0": {"kernel": v}}`, so that the keys read like the paths."""
    tree: dict[str, Any] = {}
    for path, variable in group.items():
        *folders, last = path.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
            if not isinstance(place, dict):
                raise OurBug(f"the path of variable {path} begins with another variable's")
        if last in place:
            raise OurBug(f"the path of variable {path} is the beginning of another's")
        place[last] = variable
    return tree


def restore(
    model: Any,
    prefix: Path,
    *,
    shown: str,
    signature: Signature,
    renames: Mapping[str, str] | None = None,
    weights_only: bool = False,
) -> None:
    """Put the checkpoint `prefix` into `model`: every weight, all of the optimizer, and what it has of state.

    The guard has judged `signature` before; `renames` is what it found (old path to new path). All is read and compared
    before the first variable changes. What only one side has keeps its start (dropout switched on, gradients that are
    gathered from now on) or is left out, where a rule of the guard states so: state, a learning rate that a schedule
    takes the place of, accumulators, a loss scale, and the slots of no variable. With `weights_only` the optimizer and
    the state stay as they are.
    """
    live = live_variables(model)
    renames = dict(renames or {})
    _look_again(live, signature, renames, shown)
    reader = tf.train.load_checkpoint(str(prefix))
    shapes = reader.get_variable_to_shape_map()
    if _STEP_KEY not in shapes or int(reader.get_tensor(_STEP_KEY)) != signature.step:
        raise _unfit(shown, f"its global_step is not {signature.step}")
    wanted = {key_of(name, path): one for name, group in live.groups.items() for path, one in group.items()}
    taken_from = {**_sources(signature, renames), **_renamed_state(signature, live)}
    saved = {key for key in shapes if key.endswith(VALUE) and key != _STEP_KEY}
    values = {}
    for key in sorted(saved):
        target = taken_from.get(key, key)
        if weights_only and not key.startswith("variables/"):
            continue
        if target in wanted:
            values[target] = reader.get_tensor(key)
        elif key.startswith("variables/"):
            raise _unfit(shown, f"{key.removesuffix(VALUE)}: nothing in the model takes it")
    if not weights_only:
        _convert(values, signature, model)
    for key, value in values.items():
        if tuple(np.shape(value)) != tuple(wanted[key].shape):
            raise _unfit(
                shown, f"{key.removesuffix(VALUE)} has shape {np.shape(value)}, not {tuple(wanted[key].shape)}"
            )
    for key, value in values.items():
        wanted[key].value.assign(tf.cast(value, wanted[key].dtype) if wanted[key].dtype != "string" else value)
    _look_at_what_is_there(values, wanted, shown)
    _finalize(model)


def _convert(values: dict[str, Any], signature: Signature, model: Any) -> None:
    """Let the optimizer's counter go on counting updates, where another number of steps gathers gradients for one; and
    a moving average begin with the weights as they are, where none was kept before."""
    old = signature.training.optimizer.get("gradient_accumulation_steps") or 1
    inner = inner_optimizer(model)
    if not signature.training.optimizer.get("use_ema"):
        for weight, average in averages(model):
            found = values.get(key_of("variables", weight.path))
            if found is not None:
                values[key_of("optimizer", slot_name(average.path))] = found
    new = getattr(inner, "gradient_accumulation_steps", None) or 1
    if old != new:
        # Keras 3 divides the counter by the number of steps: Adam would take the first update's correction again.
        key = key_of("optimizer", slot_name(inner._iterations.path))
        values[key] = values[key] // old * new


def _sources(signature: Signature, renames: Mapping[str, str]) -> dict[str, str]:
    """Key in the checkpoint to key in the model, for what has another path now."""
    if not renames:
        return {}
    found = {key_of("variables", old): key_of("variables", new) for old, new in renames.items()}
    for variable in signature.optimizer_variables:
        found[key_of("optimizer", variable.path)] = key_of("optimizer", slot_path(variable.path, dict(renames)))
    return found


def _renamed_state(signature: Signature, live: LiveVariables) -> dict[str, str]:
    """Key in the checkpoint to key in the model, for the seeds of layers that have another name now: in their order, where
    there are as many."""
    saved = {one.path: one for one in signature.state if not one.path.startswith("metrics/")}
    gone = [path for path in saved if path not in live.state]
    come = [path for path in live.state if path not in saved and not path.startswith("metrics/")]
    kinds = [[path.rpartition("/")[2] for path in side] for side in (gone, come)]
    if kinds[0] != kinds[1]:
        return {}
    return {key_of("state", old): key_of("state", new) for old, new in zip(gone, come, strict=True)}


def _look_again(live: LiveVariables, signature: Signature, renames: Mapping[str, str], shown: str) -> None:
    """The live weights against the signature: the model may have changed since the guard looked at it."""
    saved = {renames.get(one.path, one.path): one.shape for one in signature.variables}
    found = {path: [int(size) for size in variable.shape] for path, variable in live.weights.items()}
    if found != saved:
        raise _unfit(shown, "the variables of the model are not those of its signature")


def _look_at_what_is_there(values: Mapping[str, Any], wanted: Mapping[str, Any], shown: str) -> None:
    """The third look: every value that was read stands in its variable now."""
    for key, value in values.items():
        found = np.asarray(wanted[key].value)
        expected = value if found.dtype.kind in "OSU" else np.asarray(tf.cast(value, wanted[key].dtype))
        if not np.array_equal(found, expected, equal_nan=found.dtype.kind not in "OSUbiu"):
            raise OurBug(f"{shown}: {key.removesuffix(VALUE)} does not hold what was read from the checkpoint")


def take_averages(model: Any, prefix: Path, signature: Signature, renames: Mapping[str, str]) -> None:
    """Let the weights be the moving averages of the checkpoint `prefix`, where it has them: they are what is asked."""
    reader = tf.train.load_checkpoint(str(prefix))
    weights = live_variables(model).weights
    for path, key in _average_keys(signature).items():
        weights[renames.get(path, path)].value.assign(reader.get_tensor(key))


def _average_keys(signature: Signature) -> dict[str, str]:
    """Path of a weight to the key of its moving average; none where no average was kept, or nothing was trained."""
    if not signature.training.optimizer.get("use_ema") or signature.step == 0:
        return {}
    slots = {one.path.partition("/")[2]: one.path for one in signature.optimizer_variables}
    found = {one.path: slots.get(f"{one.path.replace('/', '_')}{AVERAGE}") for one in signature.variables}
    return {path: key_of("optimizer", slot) for path, slot in found.items() if slot is not None}


def take(model: Any, prefix: Path, plan: Plan, *, shown: str, signature: Signature) -> None:
    """Put what `plan` names into `model`; the rest keeps its start. All is read before the first variable changes.

    Moving averages stand for their weights, as they do where a model is asked, unless the optimizer is taken too.
    """
    averaged = {} if plan.slots else _average_keys(signature)
    live = live_variables(model)
    reader = tf.train.load_checkpoint(str(prefix))
    shapes = reader.get_variable_to_shape_map()
    values: list[tuple[Any, Any]] = []
    for group, taken, variables in (
        ("variables", plan.taken, live.weights),
        ("optimizer", plan.slots, live.optimizer),
    ):
        for one in taken:
            key = averaged.get(one.old, key_of(group, one.old)) if group == "variables" else key_of(group, one.old)
            if key not in shapes or tuple(shapes[key]) != one.shape:
                raise _unfit(shown, f"{one.old}: the checkpoint does not hold it as its signature says")
            values.append((variables[one.new], reader.get_tensor(key)))
    for variable, value in values:
        if tuple(variable.shape) != np.shape(value):  # grown: what it overlaps with
            whole = np.array(variable.value)
            whole[tuple(slice(size) for size in np.shape(value))] = value
            value = whole
        variable.value.assign(tf.cast(value, variable.dtype))
    _finalize(model)


def _finalize(model: Any) -> None:
    """Let restored statistics take effect: a Normalization layer computes with copies (keras#20147)."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization) and layer.built and layer.input_mean is None:
            layer.finalize_state()
            for name in ("train_function", "test_function", "predict_function"):
                setattr(model, name, None)  # what was traced before holds the old copies


def _unfit(shown: str, why: str) -> CheckpointRefused:
    return CheckpointRefused(f"{shown} was not restored: {why}", left_alone="Nothing was changed on disk.")


def apply_settings(model: Any, wanted: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Let a learning rate that was changed take effect: a restored optimizer has the checkpoint's, TensorFlow's
    silent trap. One that a callback moved stays where it was.

    All other settings that the guard lets through are no variables: the optimizer was built with them. `wanted` is the
    optimizer of the model's own signature, `saved` that of the checkpoint's.
    """
    _apply_rate(inner_optimizer(model), wanted, saved)
    for name, one in other_optimizers(model).items():
        _apply_rate(one, wanted.get(name) or {}, saved.get(name) or {})


def _apply_rate(optimizer: Any, wanted: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    rate = wanted.get("learning_rate")
    if isinstance(rate, float) and saved.get("learning_rate") != rate:
        optimizer.learning_rate.assign(rate)
