"""A record of another clone is read up to its limits, and not beyond."""

from __future__ import annotations

from typing import Any

import pytest

from comparison.test_checks import SPEC, run
from expmgr.runs.record import Attempt, Checkpoint, DataSplit, RunRecord
from expmgr.team.validate_record import wrong_in

RECORD = run("iris/wide", 0, 0.9)
BIG, LATEST = 2**53, 250_000_000_000


def changed(**values: Any) -> RunRecord:
    return RECORD.model_copy(update=values)


def attempt(**values: Any) -> dict[str, Any]:
    return {"attempts": [RECORD.attempts[0].model_copy(update=values)]}


def split(**values: Any) -> dict[str, Any]:
    return {
        "data": {"eval": DataSplit(path="a.csv", rows=1, sha256="0" * 64, also_in_train=0).model_copy(update=values)}
    }


def saved(**values: Any) -> dict[str, Any]:
    return {"checkpoints": [Checkpoint(step=1, saved_at=1.0, files={}).model_copy(update=values)]}


WARM = {"variant": "iris/base", "seed": 0, "step": 5}


@pytest.mark.parametrize(
    "values",
    [
        {}, {"seed": 2**31 - 1}, {"created_at": 0}, {"created_at": LATEST}, {"step": BIG - 1}, {"step": 0},
        {"selected_step": None}, {"selected_step": BIG - 1}, {"train_s": 0}, {"train_s": 1e300}, {"parameters": None},
        {"parameters": BIG - 1}, {"examples_seen": BIG - 1}, {"warm_start": WARM}, {"warm_start": {**WARM, "later": 1}},
        {"by_hand": {"script": "a.py", "head": "h", "changed": ["a.py"]}}, {"environment": {}}, {"environment": {"x": 1}},
        attempt(ended_at=None, train_s=None, from_step=None, to_step=None), attempt(ended_at=LATEST, to_step=BIG - 1),
        attempt(error={"message": "x"}, changes=[{"rule": "a", "what": "b"}]), attempt(max_steps=0),
        split(rows=None, also_in_train=None), split(path="p" * 10_000), split(rows=BIG - 1), saved(), saved(step=BIG - 1),
        saved(saved_at=LATEST), {"checkpoints": []}, {"data": {}},
    ],
)  # fmt: skip
def test_what_can_be(values: dict[str, Any]) -> None:
    assert wrong_in(changed(**values)) is None


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"seed": -1}, "seed"), ({"seed": 2**31}, "seed"), ({"created_at": -1}, "created_at"),
        ({"created_at": LATEST + 1}, "created_at"), ({"step": -1}, "step"), ({"step": BIG}, "step"),
        ({"selected_step": -1}, "selected_step"), ({"selected_step": BIG}, "selected_step"), ({"train_s": -1}, "train_s"),
        ({"train_s": float("inf")}, "train_s"), ({"train_s": float("nan")}, "train_s"), ({"parameters": -1}, "parameters"),
        ({"parameters": BIG}, "parameters"), ({"examples_seen": -1}, "examples_seen"), ({"attempts": []}, "attempts"),
        ({"warm_start": {}}, "warm_start.variant"), ({"warm_start": {**WARM, "step": -1}}, "warm_start.step"),
        ({"by_hand": {"script": 1}}, "by_hand.script"), ({"environment": {"name": 1}}, "environment.name"),
        ({"environment": {"lock": 1}}, "environment.lock"), (attempt(started_at=-1), "attempts.0.started_at"),
        (attempt(started_at=LATEST + 1), "attempts.0.started_at"), (attempt(ended_at=-1), "attempts.0.ended_at"),
        (attempt(train_s=-1), "attempts.0.train_s"), (attempt(from_step=-1), "attempts.0.from_step"),
        (attempt(to_step=BIG), "attempts.0.to_step"), (attempt(max_steps=-1), "attempts.0.max_steps"),
        (attempt(error={}), "attempts.0.error.message"), (attempt(changes=[{"rule": "a"}]), "attempts.0.changes.0.what"),
        (attempt(changes=[{"what": "a"}]), "attempts.0.changes.0.rule"), (split(rows=-1), "data.eval.rows"),
        (split(rows=BIG), "data.eval.rows"), (split(also_in_train=-1), "data.eval.also_in_train"),
        (split(path="p" * 10_001), "data.eval.path"), (split(path="a\x1b[31m"), "data.eval.path"),
        (saved(step=-1), "checkpoints.0.step"), (saved(saved_at=-1), "checkpoints.0.saved_at"),
    ],
)  # fmt: skip
def test_what_cannot_be(values: dict[str, Any], place: str) -> None:
    told = wrong_in(changed(**values))
    assert told is not None
    assert told.startswith(f"{place}: ")


def test_a_spec_of_a_later_version_is_read_and_a_wrong_one_is_not() -> None:
    spec = SPEC.resolved()
    assert wrong_in(changed(spec={**spec, "mood": "good"})) is None
    assert wrong_in(changed(spec={**spec, "train": {**spec["train"], "mood": "good"}})) is None
    told = wrong_in(changed(spec={**spec, "mood": "good", "train": {**spec["train"], "max_steps": "many"}}))
    assert told is not None
    assert told.startswith("spec.train.max_steps: ")


def test_more_attempts_are_each_looked_at() -> None:
    one = RECORD.attempts[0]
    assert isinstance(one, Attempt)
    assert wrong_in(changed(attempts=[one, one.model_copy(update={"number": 2})])) is None
    told = wrong_in(changed(attempts=[one, one.model_copy(update={"max_steps": -1})]))
    assert told is not None
    assert told.startswith("attempts.1.max_steps: ")
