"""Evaluates a model, predicts with it, or exports it, after the guard has accepted its checkpoint."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from expmgr.checkpoints.model_dir import Whole
from expmgr.checkpoints.signature import Signature
from expmgr.disk import durable
from expmgr.errors import DataProblem, OutputProblem, UnknownCheckpoint, UserCodeFailed
from expmgr.guard.judge import Judgement, judge
from expmgr.guard.refusal import refusal
from expmgr.runs.events import Answered
from expmgr.runs.request import Ask, Request
from expmgr.train.building import Built
from expmgr.train.data.datasets import Rows
from expmgr.train.data.pipelines import Stream
from expmgr.train.model import checkpoints
from expmgr.train.model.structure import parts_of
from expmgr.train.signature import probe
from expmgr.train.user.code import UserCode

_BATCH = 1024


class Asked(Protocol):
    """A model that is asked, whoever trained it."""

    @property
    def request(self) -> Request: ...

    def signature(self, step: int) -> Signature: ...


def answer(built: Built) -> Answered:
    """Restore what the request names, through the guard, and do what it asks. Nothing of the model_dir is written."""
    ask = built.request.ask
    assert ask is not None
    whole, judgement = _restored(built, ask)
    done = {"evaluate": _evaluate, "predict": _predict, "export": _export}[ask.what](built, ask)
    return answered(whole, judgement, done)


def answered(whole: Whole, judgement: Judgement, done: dict[str, Any]) -> Answered:
    """What is told of a checkpoint that was used."""
    return Answered(
        checkpoint=whole.shown,
        step=whole.saved.step,
        judgement=judgement.as_dict(),
        selected_step=whole.manifest.selected_step,
        done=done,
    )


def admitted(built: Asked, ask: Ask) -> tuple[Whole, Judgement]:
    """The checkpoint that is asked, which the guard lets through."""
    at = ask.source
    whole = at.folder.inspect(at.step)
    if whole is None:
        raise UnknownCheckpoint(f"{at.variant} has no checkpoint yet", hint=f"expmgr run {at.variant}")
    wanted = built.signature(whole.saved.step)
    judgement = judge(whole.signature, wanted, built.request.allow, purpose="ask")
    if not judgement.verdict.may_restore:
        raise refusal(judgement, whole.shown, at.variant, at.seed)
    return whole, judgement


def _restored(built: Built, ask: Ask) -> tuple[Whole, Judgement]:
    whole, judgement = admitted(built, ask)
    checkpoints.restore(
        built.model,
        whole.prefix,
        shown=whole.shown,
        signature=whole.signature,
        renames=judgement.renames,
        weights_only=True,
    )
    _look(built, whole, judgement, whole.prefix.parent)
    checkpoints.take_averages(built.model, whole.prefix, whole.signature, judgement.renames)
    return whole, judgement


def _look(built: Built, whole: Whole, judgement: Judgement, folder: Path) -> None:
    """The probe: a model that is asked has to give the outputs that it gave."""
    saved = whole.signature.probe
    batch = probe.read_batch(folder, saved.batch, built.data.first()) if saved else None
    if saved is None or batch is None:
        return
    may_move = {"loss", "step", "metrics"}
    for one in judgement.differences:
        may_move |= {"outputs"} if one.is_allowed else one.rule.moves
    probe.require_unmoved(built.model, batch, saved, may_move, whole.shown)


# What it is asked.


def _evaluate(built: Built, ask: Ask) -> dict[str, Any]:
    if ask.data is None and ask.split not in built.data.splits:
        raise DataProblem(
            f"{built.request.variant} has no rows to be evaluated ({ask.split})",
            left_alone="Nothing was changed.",
            hint="give expmgr.fit validation_data, in a variant of its own, or name a file: --data FILE",
        )
    if ask.data is None:
        rows, what = built.data.rows(ask.split), built.data.as_dict()[ask.split]["path"]
    else:
        rows, what = built.data.read(ask.data), str(ask.data)
    evaluation = built.evaluation(rows)
    metrics = evaluation.run(lambda: False, time.monotonic)
    return {"data": what, "rows": rows.count, "metrics": metrics, "not_finite": evaluation.not_finite}


def _predict(built: Built, ask: Ask) -> dict[str, Any]:
    assert ask.data is not None
    assert ask.output is not None
    rows = built.data.read_inputs(ask.data)
    is_json = ask.output.suffix in (".jsonl", ".json")
    predicted = []
    with built.code.errors("the model does not take what is to be predicted"):
        for batch in _batches(rows):
            inputs, _, _ = parts_of(batch)
            predicted += _lines(built, built.model(inputs, training=False), is_nested=is_json)
    content = as_json_lines(predicted) if is_json else as_csv(predicted)
    write_output(ask.output, content)
    return {"data": str(ask.data), "rows": len(predicted), "output": str(ask.output)}


def _batches(rows: Rows | Stream) -> Iterator[Any]:
    if isinstance(rows, Stream):
        yield from rows
        return
    for first in range(0, rows.count, _BATCH):
        yield rows.take(tf.range(first, min(first + _BATCH, rows.count)))


def _lines(built: Built, outputs: Any, *, is_nested: bool) -> list[dict[str, Any]]:
    """A row each: the class and the probability of each, the number, or every output."""
    labels = built.data.labels
    if labels is not None and isinstance(outputs, tf.Tensor) and outputs.shape.rank == 2:
        shares = _shares(built, outputs, len(labels))
        if shares is not None:
            return [classified(labels, row) for row in shares]
    named = _named(outputs)
    arrays = {name: tf.cast(one, tf.float64).numpy() if one.dtype.is_floating else one.numpy() for name, one in named}
    return [row_of(arrays, number, is_nested) for number in range(len(next(iter(arrays.values()))))]


def classified(labels: list[str], row: Any) -> dict[str, Any]:
    """The class and the probability of each."""
    shares = {f"p_{label}": float(share) for label, share in zip(labels, row, strict=True)}
    return {"prediction": labels[int(row.argmax())], **shares}


def _shares(built: Built, outputs: Any, classes: int) -> Any:
    """The probability of each class, shape (rows, classes); None where the outputs say nothing of so many."""
    values = tf.cast(outputs, tf.float32).numpy()
    are_logits = built.gives_logits(values)
    if values.shape[1] == classes:
        return tf.nn.softmax(values).numpy() if are_logits else values
    if values.shape[1] == 1 and classes == 2:
        second = tf.sigmoid(values).numpy() if are_logits else values
        return np.concatenate([1 - second, second], axis=1)
    return None


def _named(outputs: Any) -> list[tuple[str, Any]]:
    """Each output by its name, or its place."""
    if isinstance(outputs, Mapping):
        return [(str(name), one) for name, one in outputs.items()]
    if isinstance(outputs, (list, tuple)):
        return [(f"output_{place}", one) for place, one in enumerate(outputs)]
    return [("prediction", outputs)]


def row_of(arrays: Mapping[str, Any], number: int, is_nested: bool) -> dict[str, Any]:
    """Row `number` of every output."""
    line: dict[str, Any] = {}
    for name, array in arrays.items():
        value = array[number]
        if value.size == 1:
            line[name] = _plain(value.ravel()[0])
        elif is_nested:
            line[name] = [_plain(one) for one in value] if value.ndim == 1 else value.tolist()
        else:
            line.update({f"{name}_{place}": _plain(one) for place, one in enumerate(value.ravel())})
    return line


def _plain(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value.item()


def as_csv(lines: list[dict[str, Any]]) -> bytes:
    """Predictions as a table."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [*lines[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue().encode()


def as_json_lines(lines: list[dict[str, Any]]) -> bytes:
    """Predictions as JSON, a line each."""
    return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines).encode()


def write_output(path: Path, content: bytes) -> None:
    """Write predictions. Raises `DiskFull`, or `OutputProblem` where the file cannot be there."""
    try:
        with durable.disk_errors(str(path)):
            durable.write_bytes(path, content)
    except OSError as error:
        raise OutputProblem(
            f"{path} cannot be written: {error.strerror or error}",
            left_alone="Nothing was kept of it.",
            hint="name a file in a folder that you may write to: --output FILE",
        ) from error


def export_to(target: Path, write: Callable[[Path], Path], code: UserCode, needed_bytes: int | None = None) -> None:
    """Let `write` write an export, of about `needed_bytes`, to a place beside `target`; what it says that it made becomes
    `target`, whole or not at all. Raises `OutputProblem`, or `DiskFull`."""
    aside = target.with_name(f".{os.urandom(4).hex()}.{target.name}")
    try:
        with code.errors("the model cannot be exported"):
            made = write(aside)
        os.rename(made, target)
    except Exception as error:
        cause = error.__cause__ if isinstance(error, UserCodeFailed) else error
        about = (str(target), target, needed_bytes)
        full = checkpoints.disk_error(cause, *about) if isinstance(cause, Exception) else None
        if full is not None:
            full.left_alone = "Nothing was kept of it."
            raise full from None
        if not isinstance(error, OSError):
            raise
        raise OutputProblem(
            f"{target} cannot be written: {error.strerror or error}", left_alone="Nothing was kept of it."
        ) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True) if aside.is_file() else None


def _export(built: Built, ask: Ask) -> dict[str, Any]:
    assert ask.output is not None

    if ask.format != "keras" and type(built.model).call is keras.Model.call:
        raise OutputProblem(
            "a SavedModel holds what the model computes of its inputs, and the model has no call",
            left_alone="Nothing was changed.",
            hint="give it a call(self, inputs), in a variant of its own, or keep its parts: --format keras",
        )

    def write(aside: Path) -> Path:
        if ask.format == "keras":
            built.model.save(aside)
        else:
            built.model.export(str(aside), format="tf_saved_model", verbose=False)
        return aside

    export_to(ask.output, write, built.code, checkpoints.size_bytes(built.model))
    is_known = not built.spec.is_own
    kinds = {type(one).__module__.partition(".")[0] for one in built.model._flatten_layers()}
    outputs = ("logits" if built.data.labels else "value") if is_known else "as built"
    return {
        "output": str(ask.output),
        "as": ask.format,
        "outputs": outputs,
        "inputs": dict(built.data.input_names),
        "needs_code": ask.format == "keras" and kinds != {"keras"},
    }
