"""What `check` and `checkpoints` say when a worker answers some of its questions and then fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import expmgr
from expmgr.checkpoints.manifest import Manifest, SavedCheckpoint
from expmgr.errors import UserCodeFailed
from expmgr.launch import local
from expmgr.paths import RunDir
from expmgr.runs.events import CandidateJudged, RunEvent, Withdrawn, append_event
from expmgr.runs.request import read_request
from world import Repo

STORY = UserCodeFailed("model.py raised ValueError: no").as_dict()


class FailingWorker:
    """Answers for the first candidate of each request, and then fails as `ending` says."""

    ending: tuple[int, bool] = (1, True)
    """The exit status of the run's process, and whether it could say what was wrong."""

    def __init__(self, *_: str) -> None:
        self.ended: list[dict[str, Any]] = []

    def start(self, path: Path) -> None:
        folder = RunDir(path)
        status, can_tell = self.ending
        events: list[RunEvent] = [CandidateJudged.of(read_request(folder).candidates[0])]
        events += [Withdrawn(error=STORY)] if can_tell else []
        for event in events:
            append_event(folder, event)
        self.ended.append({"ended": str(path), "status": status})

    def said(self, _wait_s: float) -> Iterator[dict[str, Any]]:
        while self.ended:
            yield self.ended.pop(0)

    def close(self) -> None: ...


@pytest.fixture
def two(iris: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """Two variants of whose checkpoints only the failing worker can say something."""
    for name in ("baseline", "wide"):
        assert iris.expmgr("new", f"iris/{name}").code == 0
    monkeypatch.setattr(local, "WorkerProcess", FailingWorker)
    monkeypatch.setattr(local, "decided", lambda *_: None)
    return iris


@pytest.mark.parametrize(
    ("ending", "code", "told"),
    [
        ((1, True), 1, "model.py raised ValueError: no"),
        ((0, False), 70, "iris/wide seed 0 ended without a word (exit 0)"),
        ((-11, False), 1, "iris/wide seed 0 was killed by SIGSEGV"),
        ((74, False), 74, "iris/wide seed 0: no space left, or an input/output error"),
    ],
)
def test_a_check_fails_if_its_worker_answered_in_part(
    two: Repo, monkeypatch: pytest.MonkeyPatch, ending: tuple[int, bool], code: int, told: str
) -> None:
    monkeypatch.setattr(FailingWorker, "ending", ending)
    command = ("check", "iris/wide", "--against", "iris/baseline")
    shown = two.expmgr(*command)
    assert (shown.code, shown.stdout) == (code, "")
    assert f"Error: {told}\n" in shown.stderr
    asked = two.expmgr(*command, "--json")
    assert asked.code == code
    found = json.loads(asked.stdout)
    assert found["exit_code"] == code
    assert [(one["variant"], one.get("from"), one["exit_code"]) for one in found["checks"]] == [
        ("iris/wide", None, code), ("iris/wide", "iris/wide", 0),
        ("iris/baseline", None, code), ("iris/baseline", "iris/wide", 0),
    ]  # fmt: skip
    answers = expmgr.open(two.path).check("iris/wide", against="iris/baseline")
    assert answers.exit_code == code
    assert next(one.error.message for one in answers if one.error is not None) == told


def test_a_check_whose_answers_all_came_is_no_answer_if_its_process_crashed(
    two: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FailingWorker, "ending", (-11, False))
    found = two.expmgr("check", "iris/wide")
    assert (found.code, "was killed by SIGSEGV" in found.stderr) == (1, True)


def test_checkpoints_without_an_answer_are_listed_as_unknown(two: Repo) -> None:
    folder = two.path / "models/iris/wide/seed-0"
    folder.mkdir(parents=True)
    saved = [SavedCheckpoint(step=step, saved_at=1.0, examples_seen=0, finite=True, files={}) for step in (100, 200)]
    (folder / "manifest.json").write_text(
        Manifest(variant="iris/wide", seed=0, last_preserved_at=1.0, checkpoints=saved).model_dump_json()
    )
    found = two.expmgr("checkpoints", "iris/wide", "--json")
    assert (found.code, found.stderr) == (1, "Error: model.py raised ValueError: no\n")
    rows = json.loads(found.stdout)["checkpoints"]
    assert [(one["step"], one["verdict"]) for one in rows] == [(100, "damaged"), (200, "unknown")]
