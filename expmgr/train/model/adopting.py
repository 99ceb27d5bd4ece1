"""Reads a checkpoint from elsewhere, and copies its tensors into a model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from expmgr.errors import CheckpointRefused, WarmStartProblem
from expmgr.guard.adoption import Adoption, NamedTensor
from expmgr.train.model.checkpoints import live_variables

_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


def find_checkpoint(folder: Path, step: int | None) -> Path:
    """The prefix of the checkpoint in `folder`: of `step`, else the newest that its `checkpoint` file names, else its
    only one. `folder` may be a prefix itself."""
    if folder.with_name(f"{folder.name}.index").is_file():
        return folder
    found = sorted(path.with_suffix("") for path in folder.glob("*.index"))
    if not found:
        raise WarmStartProblem(f"{folder} holds no checkpoint of TensorFlow", left_alone="Nothing was changed.")
    if step is not None:
        of_step = [path for path in found if path.name.rpartition("-")[2] == str(step)]
        if not of_step:
            raise WarmStartProblem(
                f"{folder} has no checkpoint of step {step}", hint=f"it has {', '.join(path.name for path in found)}"
            )
        return of_step[0]
    newest = tf.train.latest_checkpoint(str(folder))
    if newest is not None:
        return Path(newest)
    if len(found) > 1:
        raise CheckpointRefused(
            f"{folder} does not say which of its checkpoints is the newest: its file `checkpoint` is missing or names none",
            details=[path.name for path in found[:5]],
            left_alone="Nothing was changed.",
            hint="say which with --step",
        )
    return found[0]


def tensors_of(prefix: Path) -> list[NamedTensor]:
    """What the checkpoint says of itself: keys and shapes, and the names of its object graph."""
    try:
        reader = tf.train.load_checkpoint(str(prefix))
    except (tf.errors.OpError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise CheckpointRefused(f"{prefix} cannot be read: {first}", left_alone="Nothing was changed.") from None
    shapes = reader.get_variable_to_shape_map()
    names = _full_names(reader) if _GRAPH in shapes else {}
    return [
        NamedTensor(key, tuple(int(size) for size in shape), names.get(key))
        for key, shape in sorted(shapes.items())
        if key != _GRAPH
    ]


def _full_names(reader: Any) -> dict[str, str]:
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.ParseFromString(reader.get_tensor(_GRAPH))
    return {
        attribute.checkpoint_key: attribute.full_name
        for node in graph.nodes
        for attribute in node.attributes
        if attribute.name == "VARIABLE_VALUE" and attribute.full_name
    }


def step_of(prefix: Path, adoption: Adoption) -> int:
    """The step that the checkpoint names, or that its name ends in; 0 where neither does."""
    if adoption.step_key is not None and "save_counter" not in adoption.step_key:
        return int(tf.train.load_checkpoint(str(prefix)).get_tensor(adoption.step_key))
    last = prefix.name.rpartition("-")[2]
    return int(last) if last.isdigit() else 0


def take(model: Any, prefix: Path, adoption: Adoption) -> None:
    """Put what was matched into `model`; all is read before the first variable changes."""
    live = live_variables(model)
    groups = {"variables": live.weights, "optimizer": live.optimizer}
    reader = tf.train.load_checkpoint(str(prefix))
    values = []
    for one in adoption.matches:
        value = np.asarray(reader.get_tensor(one.key))
        values.append((groups[one.group][one.path], value if one.rows is None else value[list(one.rows)]))
    for variable, value in values:
        variable.value.assign(tf.cast(value, variable.dtype))


def digests(prefix: Path) -> dict[str, str]:
    """sha256 of the files of the checkpoint."""
    files = sorted(prefix.parent.glob(f"{prefix.name}.*"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
