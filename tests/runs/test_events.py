"""What a run tells: lines of `events.jsonl`, typed."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from expmgr.disk import durable
from expmgr.errors import Busy
from expmgr.paths import RunDir
from expmgr.runs.events import (
    AdoptionPlanned,
    Answered,
    CandidateJudged,
    CheckpointSaved,
    CurvePoint,
    Ended,
    JudgedEvent,
    Ready,
    RunEvent,
    Withdrawn,
    append_event,
    event_of,
    last_of,
    read_events,
)
from expmgr.runs.request import CheckpointRef

ROOT = Path(__file__).parents[2]
CANDIDATE = CheckpointRef(
    variant="iris/wide", seed=1, model_dir=Path("models"), shown="models/iris/wide/seed-1", step=3
)

#: Each kind as a run writes it: no key may go, and none may change its name.
LINES: dict[type[RunEvent], dict[str, Any]] = {
    Ready: {
        "kind": "ready", "at": 1.0, "worker": {"pid": 1}, "from_step": 0, "changes": [], "data": {}, "parameters": 7,
        "environment": {}, "params": {"width": 3}, "measures": {}, "unread": [], "probe": None, "not_exact": [],
        "warm_start": None, "adopted": None,
    },
    CurvePoint: {"kind": "point", "at": 1.0, "split": "train", "step": 5, "values": {"loss": 0.5}},
    CheckpointSaved: {
        "kind": "checkpoint", "at": 1.0, "step": 5, "files": {"x": "s"}, "examples_seen": 50, "train_s": 1.5,
    },
    Ended: {
        "kind": "ended", "at": 1.0, "status": "finished", "step": 9, "examples_seen": 90, "train_s": 2.0,
        "selected_step": 9, "metrics": {}, "error": None, "ended_early": "no better for 3 evaluations",
    },
    Withdrawn: {"kind": "withdrawn", "at": 1.0, "error": {"error": "Busy", "message": "busy"}},
    CandidateJudged: {
        "kind": "judged", "at": 1.0, "from": "iris/wide", "seed": 1, "checkpoint": None, "step": 3,
        "judgement": None, "error": None, "exit_code": 0,
    },
    AdoptionPlanned: {"kind": "judged", "at": 1.0, "adoption": {"taken": []}, "exit_code": 0},
    Answered: {
        "kind": "judged", "at": 1.0, "checkpoint": "model.ckpt-3", "step": 3, "judgement": {}, "selected_step": None,
        "data": "iris_test.csv", "rows": 30, "metrics": {"accuracy": 1.0}, "not_finite": {},
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", LINES, ids=lambda kind: kind.__name__)
def test_a_line_is_read_as_it_was_written(kind: type[RunEvent]) -> None:
    event = event_of(LINES[kind])
    assert type(event) is kind
    assert event.as_line() == LINES[kind]


def test_every_kind_has_its_line() -> None:
    def below(kind: type[RunEvent]) -> set[type[RunEvent]]:
        return {kind}.union(*(below(one) for one in kind.__subclasses__()))

    assert below(RunEvent) == {*LINES, RunEvent, JudgedEvent}


def test_what_came_of_an_answer_is_beside_the_rest() -> None:
    event = event_of(LINES[Answered])
    assert isinstance(event, Answered)
    assert event.done == {"data": "iris_test.csv", "rows": 30, "metrics": {"accuracy": 1.0}, "not_finite": {}}
    assert "kind" not in event.body()


def test_older_and_newer_lines() -> None:
    old = {key: value for key, value in LINES[CheckpointSaved].items() if key not in ("examples_seen", "train_s")}
    assert event_of(old) == CheckpointSaved(at=1.0, step=5, files={"x": "s"})
    assert event_of({**LINES[CurvePoint], "of_tomorrow": 1}) == event_of(LINES[CurvePoint])
    assert event_of({"kind": "of tomorrow", "at": 1.0}) is None


def test_they_are_followed_as_they_are_told(tmp_path: Path) -> None:
    folder = RunDir(tmp_path)
    append_event(folder, CurvePoint(at=1.0, split="train", step=5, values={"loss": 0.5}))
    first, at = read_events(folder)
    durable.append_line(folder.events, {"kind": "of tomorrow", "at": 1.0})
    append_event(folder, CurvePoint(split="train", step=6, values={"loss": 0.25}))
    then, _ = read_events(folder, at)
    assert first == [event_of(LINES[CurvePoint])]
    assert [event.step for event in then if isinstance(event, CurvePoint)] == [6]
    assert last_of(CurvePoint, [*first, *then]) is then[-1]
    assert last_of(Ended, then) is None


def test_what_check_says_of_a_candidate() -> None:
    there_is_none = CandidateJudged.of(CANDIDATE)
    assert (there_is_none.variant, there_is_none.step, there_is_none.exit_code) == ("iris/wide", 3, 0)
    unreadable = CandidateJudged.of(CANDIDATE, error=Busy("busy"))
    assert unreadable.error == Busy("busy").as_dict()
    assert unreadable.exit_code == Busy.exit_code


def test_events_are_written_and_read_in_one_place() -> None:
    doors = {"append_line", "read_lines"}
    users = {
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "expmgr").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in doors
    }
    assert users == {"expmgr/runs/events.py"}
