"""Validates the record of another clone before any command reads it.

Its writer may have another version, or be hostile: one record must never keep a list or a comparison from being made.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationError

from expmgr.disk.json_text import parse_foreign_json
from expmgr.disk.stored import StoredPart
from expmgr.errors import EventProblem
from expmgr.log.events import Moment, Plain
from expmgr.runs.record import RunRecord
from expmgr.spec.experiment import ExperimentSpec

#: A seed is a 32-bit number of TensorFlow's.
_SEEDS = 2**31
_Step = Annotated[int, Field(ge=0, lt=2**53)]
_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Error(StoredPart):
    message: str


class _Change(StoredPart):
    rule: str
    what: str


class _Attempt(StoredPart):
    started_at: Moment
    ended_at: Moment | None
    train_s: _Seconds | None
    from_step: _Step | None
    to_step: _Step | None
    max_steps: _Step
    error: _Error | None
    changes: list[_Change]


class _Environment(StoredPart):
    name: str | None = None
    lock: str | None = None


class _WarmStart(StoredPart):
    variant: str
    seed: int
    step: _Step


class _ByHand(StoredPart):
    script: str
    head: str
    changed: list[str]


class _Split(StoredPart):
    path: Annotated[Plain, Field(max_length=10_000)]
    rows: _Step | None
    also_in_train: _Step | None


class _Checkpoint(StoredPart):
    step: _Step
    saved_at: Moment


class _Compared(StoredPart):
    metric: str
    split: str


class _Resolved(StoredPart):
    """What a resolved spec has beyond a spec."""

    compare: _Compared


class _Record(StoredPart):
    seed: Annotated[int, Field(ge=0, lt=_SEEDS)]
    created_at: Moment
    step: _Step
    selected_step: _Step | None
    train_s: _Seconds
    examples_seen: _Step
    data: dict[str, _Split]
    checkpoints: list[_Checkpoint]
    parameters: _Step | None
    attempts: Annotated[list[_Attempt], Field(min_length=1)]
    environment: _Environment
    warm_start: _WarmStart | None
    by_hand: _ByHand | None


def foreign_record(content: bytes, writer: str) -> RunRecord:
    """The record in `content`, of which `writer` tells; `EventProblem` unless every command can use it.

    No value is converted: some readers take the JSON as it is.
    """
    try:
        record = RunRecord.model_validate_json(content, strict=True)
        parse_foreign_json(content)
    except ValidationError as error:
        raise EventProblem(f"the record of {writer} cannot be read: {_said(error.errors()[0])}") from None
    except ValueError as error:
        raise EventProblem(f"the record of {writer} cannot be read: {error}") from None
    wrong = wrong_in(record)
    if wrong is not None:
        raise EventProblem(f"the record of {writer} cannot be used: {wrong}")
    return record


def wrong_in(record: RunRecord) -> str | None:
    """What is wrong with a record that another clone tells of; None where nothing is."""
    try:
        _Record.model_validate(record.model_dump())
    except ValidationError as error:
        return _said(error.errors()[0])
    try:
        ExperimentSpec.model_validate(record.spec)
    except ValidationError as error:
        # What only a later version knows is kept, as everywhere.
        wrong = [one for one in error.errors() if one["type"] != "extra_forbidden"]
        if wrong:
            return f"spec.{_said(wrong[0])}"
    try:
        _Resolved.model_validate(record.spec, strict=True)
    except ValidationError as error:
        return f"spec.{_said(error.errors()[0])}"
    return None


def _said(error: Any) -> str:
    place = ".".join(map(str, error["loc"]))
    return f"{place}: {error['msg']}" if place else str(error["msg"])
