"""`expmgr.save` and `expmgr.restore`: the guard in notebooks and scripts, without a repository.

This and the worker are the only modules that import TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

try:
    import tensorflow as tf
except ModuleNotFoundError as missing:
    if missing.name != "tensorflow":
        raise
    from expmgr.launch.environments import no_tensorflow

    raise no_tensorflow(in_python=True) from None

from expmgr.checkpoints.manifest import Manifest
from expmgr.checkpoints.signature import DataContract, Signature, TrainingSetup, read_signature
from expmgr.disk import durable
from expmgr.errors import CheckpointRefused, ExpmgrError
from expmgr.guard.judge import Judgement, judge
from expmgr.guard.rules import Verdict
from expmgr.train.environment import versions
from expmgr.train.model import checkpoints
from expmgr.train.signature import live
from expmgr.train.signature.sourcecode import code_of


class ModelProblem(ExpmgrError):
    """The model is not built, or no batch says what it takes."""


def save(
    model: Any,
    checkpoint: str | Path,
    *,
    train: tuple[Any, Any],
    evaluated: tuple[Any, Any] | None = None,
    step: int = 0,
    features: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    declared: Mapping[str, Any] | None = None,
) -> None:
    """Write `checkpoint`.index, .data-?????-of-????? and, after them, `checkpoint`.json: its signature.

    `model` is built and compiled. `train` and `evaluated` are (inputs, targets) as arrays that enter the model, of any
    number of rows; `evaluated` is `train` where there is none. `features` names the columns, `labels` the classes in the
    order of the outputs, `declared` what else the inputs depend on (a tokenizer's vocabulary).
    """
    prefix = Path(checkpoint)
    signature = _signature(model, train, evaluated or train, features, labels, declared)
    checkpoints.write(model, step, prefix)
    content = signature.model_copy(update={"step": step}).model_dump_json(indent=1)
    durable.write_bytes(prefix.with_name(f"{prefix.name}.json"), f"{content}\n".encode())


def restore(
    model: Any,
    checkpoint: str | Path,
    *,
    train: tuple[Any, Any] | None = None,
    evaluated: tuple[Any, Any] | None = None,
    features: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    declared: Mapping[str, Any] | None = None,
    allow: Sequence[str] = (),
) -> Judgement:
    """Put `checkpoint` into `model` if the guard lets it; else `CheckpointRefused`, and no weight has changed.

    `checkpoint` is a prefix (`models/iris/wide/seed-0/model.ckpt-200`) or the folder of a run, which means its newest.
    With `train` (as for `save`) and a compiled model, training may go on: optimizer and state are restored too.
    Without, the weights alone are, to be asked; how the model was trained then does not count, and the judgement's
    notes say what could not be compared.
    """
    prefix = _prefix(Path(checkpoint))
    saved = read_signature(prefix, str(prefix))
    purpose: Literal["train", "ask"] = "train" if train is not None and getattr(model, "optimizer", None) else "ask"
    if train is not None:
        wanted = _signature(model, train, evaluated or train, features, labels, declared)
    else:
        wanted = _asked(model, saved)
    wanted = wanted.model_copy(update={"training": _with_seed(wanted.training, saved.training)})
    judgement = judge(saved, wanted, allow, purpose=purpose)
    if not judgement.verdict.may_restore:
        raise _refused(prefix, judgement)
    checkpoints.restore(
        model,
        prefix,
        shown=str(prefix),
        signature=saved,
        renames=judgement.renames,
        weights_only=purpose == "ask",
    )
    if train is None:
        notes = (*judgement.notes, "no data was given: what the model is asked has to be what it was trained on")
        return Judgement(judgement.verdict, judgement.differences, judgement.renames, notes)
    return judgement


def _with_seed(wanted: TrainingSetup, saved: TrainingSetup) -> TrainingSetup:
    """What a notebook does not know of: the seed and the batches of a run."""
    return wanted.model_copy(update={key: getattr(saved, key) for key in ("seed", "batch_size", "shuffle")})


def _signature(
    model: Any,
    train: tuple[Any, Any],
    evaluated: tuple[Any, Any],
    features: Sequence[str] | None,
    labels: Sequence[str] | None,
    declared: Mapping[str, Any] | None,
) -> Signature:
    if not model.built or not model.compiled:
        raise ModelProblem("the model is not built and compiled", hint="call it on a batch, and model.compile(...)")
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    contract = live.contract_of_arrays(train, evaluated, features=features, labels=labels, declared=declared)
    batch = tf.nest.map_structure(lambda array: tf.constant(array[: live.FIRST_ROWS]), train)
    setup = live.setup_of(model)
    return live.signature_of(model, batch, contract, setup, code=code_of(model), provenance=versions())


def _asked(model: Any, saved: Signature) -> Signature:
    """What a model offers that is only asked: the saved contract stands in for data that nobody showed."""
    inputs = getattr(model, "inputs", None)
    if not model.built or not inputs:
        raise ModelProblem(
            "what the model takes is not known",
            hint="give a batch: restore(model, checkpoint, train=(inputs, targets))",
        )
    structure = getattr(model, "_inputs_struct", inputs[0] if len(inputs) == 1 else inputs)
    type_specs = tf.nest.map_structure(lambda one: tf.TensorSpec(one.shape, one.dtype), structure)
    contract: DataContract = saved.data
    order = [*type_specs] if isinstance(type_specs, dict) else []
    return live.inference_signature(
        model,
        type_specs,
        contract,
        saved.training,
        order=order,
        provenance=versions(),
        architecture=saved.architecture,
        code=code_of(model),
    )


def _prefix(path: Path) -> Path:
    manifest = path / "manifest.json"
    if not manifest.is_file():
        return path
    saved = Manifest.model_validate_json(manifest.read_bytes()).checkpoints
    if not saved:
        raise CheckpointRefused(f"{path} has no checkpoint", left_alone="Nothing was changed.")
    return path / saved[-1].name


def _refused(prefix: Path, judgement: Judgement) -> CheckpointRefused:
    lines = [
        f"{one.what}   saved {one.saved}   wanted {one.wanted}   (rule {one.rule.id})" for one in judgement.differences
    ]
    more = [f"and {len(lines) - 5} more"] if len(lines) > 5 else []
    rules = dict.fromkeys(one.rule.id for one in judgement.differences if not one.verdict.may_restore)
    hint = (
        "no weight that does not fit is ever restored" if "variables" in rules else f"allow={list(rules)} lets it pass"
    )
    kind = "may only be a warm start" if judgement.verdict is Verdict.WARM_START else "does not fit the model"
    return CheckpointRefused(
        f"{prefix} was not restored: it {kind}",
        details=[*lines[:5], *more, *judgement.notes],
        left_alone="No weight of the model was changed.",
        hint=hint,
    )
