"""A model that is asked, not trained: evaluated, made to predict, or exported. The guard stands at each of these doors."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from expmgr import csvdata, durable
from expmgr.errors import DataProblem, OutputProblem, UnknownCheckpoint
from expmgr.guard import Judgement, judge, refusal
from expmgr.model_dir import ModelDir, Whole
from expmgr.train import checkpoints, probe
from expmgr.train.building import Built
from expmgr.train.datasets import Rows
from expmgr.train.loop import Evaluation
from expmgr.train.request import Ask

_BATCH = 1024


def answer(built: Built) -> dict[str, Any]:
    """Restore what the request names, through the guard, and do what it asks. Nothing of the model_dir is written."""
    ask = built.request.ask
    assert ask is not None
    whole, judgement = _restored(built, ask)
    done = {"evaluate": _evaluate, "predict": _predict, "export": _export}[ask.what](built, ask)
    about = {"checkpoint": whole.shown, "step": whole.saved.step, "judgement": judgement.as_dict()}
    about["selected_step"] = whole.manifest.selected_step
    return {**about, **done}


def _restored(built: Built, ask: Ask) -> tuple[Whole, Judgement]:
    at = ask.source
    folder = ModelDir(at.model_dir, shown=at.shown, variant=at.variant, seed=at.seed)
    whole = folder.inspect(at.step)
    if whole is None:
        raise UnknownCheckpoint(f"{at.variant} has no checkpoint yet", hint=f"expmgr run {at.variant}")
    wanted = built.signature(whole.saved.step)
    judgement = judge(whole.signature, wanted, built.request.allow, purpose="ask")
    if not judgement.verdict.may_restore:
        raise refusal(judgement, whole.shown, at.variant, at.seed)
    checkpoints.restore(
        built.model,
        whole.prefix,
        shown=whole.shown,
        signature=whole.signature,
        renames=judgement.renames,
        weights_only=True,
    )
    _look(built, whole, judgement, folder.path)
    checkpoints.take_averages(built.model, whole.prefix, whole.signature, judgement.renames)
    return whole, judgement


def _look(built: Built, whole: Whole, judgement: Judgement, folder: Path) -> None:
    """The probe: a model that is asked has to give the outputs that it gave."""
    saved = whole.signature.probe
    batch = probe.read_batch(folder, saved.batch, [*built.first_inputs]) if saved else None
    if saved is None or batch is None:
        return
    may_move = {"loss", "step", "metrics"}
    for one in judgement.differences:
        may_move |= {"outputs"} if one.is_allowed else one.rule.moves
    probe.require_unmoved(built.model, batch, saved, may_move, whole.shown)


# What it is asked.


def _evaluate(built: Built, ask: Ask) -> dict[str, Any]:
    data = built.data
    if ask.data is None:
        rows, what = built.rows[ask.split], data.splits[ask.split].path
    else:
        table = csvdata.read_table(_content(ask.data), str(ask.data))
        csvdata.require_column(table, data.label)
        rows, what = (
            Rows(csvdata.encode(table, data.features, data.label, data.labels), data.features, data.labels),
            str(ask.data),
        )
    metrics = Evaluation(built.model, rows, built.spec.data.batch_size).run(lambda: False, time.monotonic)
    return {"data": what, "rows": rows.count, "metrics": metrics}


def _predict(built: Built, ask: Ask) -> dict[str, Any]:
    assert ask.data is not None
    assert ask.output is not None
    table = csvdata.read_table(_content(ask.data), str(ask.data))
    split = csvdata.encode_inputs(table, built.data.features)
    rows = Rows(split, built.data.features, None)
    predicted = [line for batch in _batches(rows) for line in _lines(built, built.model(batch, training=False))]
    content = _as_json_lines(predicted) if ask.output.suffix in (".jsonl", ".json") else _as_csv(predicted)
    with durable.disk_errors(str(ask.output)):
        durable.write_bytes(ask.output, content)
    return {"data": str(ask.data), "rows": rows.count, "output": str(ask.output)}


def _batches(rows: Rows) -> Iterator[dict[str, Any]]:
    for first in range(0, rows.count, _BATCH):
        inputs, _targets = rows.take(tf.range(first, min(first + _BATCH, rows.count)))
        yield inputs


def _lines(built: Built, outputs: Any) -> Iterator[dict[str, Any]]:
    """A row: the class and the probability of each, or the number."""
    labels = built.data.labels
    if labels is None:
        yield from ({"prediction": float(value)} for value in outputs.numpy()[:, 0])
        return
    for row in tf.nn.softmax(outputs).numpy():
        shares = {f"p_{label}": float(share) for label, share in zip(labels, row, strict=True)}
        yield {"prediction": labels[int(row.argmax())], **shares}


def _as_csv(lines: list[dict[str, Any]]) -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [*lines[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue().encode()


def _as_json_lines(lines: list[dict[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines).encode()


def _export(built: Built, ask: Ask) -> dict[str, Any]:
    assert ask.output is not None
    target = ask.output
    aside = target.with_name(f".{target.name}.{os.urandom(4).hex()}{'.keras' if ask.format == 'keras' else ''}")
    try:
        if ask.format == "keras":
            built.model.save(aside)
        else:
            built.model.export(str(aside), format="tf_saved_model", verbose=False)
        os.rename(aside, target)
    except OSError as error:
        raise OutputProblem(
            f"{target} cannot be written: {error.strerror or error}", left_alone="Nothing was kept of it."
        ) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        aside.unlink(missing_ok=True) if aside.is_file() else None
    return {"output": str(target), "format": ask.format, "outputs": "logits" if built.data.labels else "value"}


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataProblem(f"{path} cannot be read: {error.strerror}", left_alone="Nothing was changed.") from None
