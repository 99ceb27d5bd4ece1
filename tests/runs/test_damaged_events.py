"""Damaged events of a run whose process was killed: what can be read is used, what cannot is stated once and kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clones import ok, record_of, signature, told
from expmgr.checkpoints.manifest import CheckpointMetadata
from expmgr.checkpoints.model_dir import ModelDir
from expmgr.disk import durable
from expmgr.project import Project
from expmgr.runs.record import Attempt, RunRecord
from runs.test_records import DEAD, point, ready, saved
from tables import index_bytes
from world import Repo

LINES = [ready(worker=DEAD), saved(0), point(50), saved(100), point(120)]


@pytest.fixture
def killed(iris: Repo) -> tuple[Repo, RunRecord, Path]:
    """A run of iris/wide that was killed at step 120, its record, and its events."""
    ok(iris, "new", "iris/wide")
    project = Project.open(iris.path)
    attempt = Attempt(number=1, started_at=1.0, max_steps=1000, launcher=DEAD)
    unused = {"metrics": {}, "selected_step": None, "checkpoints": [], "data": {}, "environment": {}, "step": 0}
    record = record_of(project, "iris/wide", 0, 0.0, status="starting", attempts=[attempt], **unused)
    folder = project.records.begin(record)
    for line in LINES:
        durable.append_line(folder.events, line)
    return iris, record, folder.events


def flip(number: int) -> Callable[[bytes], bytes]:
    def damage(content: bytes) -> bytes:
        lines = content.splitlines(keepends=True)
        lines[number] = lines[number].replace(b'"at"', b'"aT"')
        return b"".join(lines)

    return damage


def zeros(number: int) -> Callable[[bytes], bytes]:
    def damage(content: bytes) -> bytes:
        lines = content.splitlines(keepends=True)
        lines[number] = b"\0" * (len(lines[number]) - 1) + b"\n"
        return b"".join(lines)

    return damage


#: Damage, how many lines it takes, and the last step that can be read.
CASES = {
    "the first line": (flip(0), 1, 120),
    "zeros in the first line": (zeros(0), 1, 120),
    "a line in between": (flip(3), 1, 120),
    "the last line": (flip(4), 1, 100),
    "the end of the last line": (lambda content: content[:-5], 1, 100),
    "two lines": (lambda content: flip(0)(flip(3)(content)), 2, 120),
    "all lines": (lambda content: b"\0" * 20 + b"\n" + b"\0" * 30 + b"\n", 2, 0),
}


@pytest.mark.parametrize("case", CASES)
def test_what_can_be_read_is_used_and_the_rest_is_stated_once(killed: tuple[Repo, RunRecord, Path], case: str) -> None:
    repo, record, path = killed
    damage, lines, step = CASES[case]
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    what = "1 line of its events.jsonl" if lines == 1 else f"{lines} lines of its events.jsonl"
    note = (
        f"Note: run {record.run_id} (iris/wide, seed 0): {what} cannot be read, and what they said is missing from its "
        "record; the file is kept\n"
    )
    first = repo.expmgr("list", "--json")
    assert (first.code, first.stderr) == (0, note)
    assert json.loads(first.stdout)["variants"][0]["runs"] == {"killed": 1}
    kept = path.with_name("events-1.damaged.jsonl")
    assert (kept.read_bytes(), path.exists()) == (damaged, False)
    for command in (("list",), ("show", "iris/wide"), ("show", record.run_id)):
        assert repo.expmgr(*command).stderr == ""
    shown = told(repo, "show", record.run_id)
    assert (shown["status"], shown["step"], shown["attempts"][0]["damaged_lines"]) == ("killed", step, lines)
    count = "1 line" if lines == 1 else f"{lines} lines"
    line = f"attempt 1: {count} of its events could not be read, and are missing here; kept in events-1.damaged.jsonl"
    assert line in ok(repo, "show", record.run_id)


def test_a_run_that_is_shown_where_nothing_can_be_written_states_it(killed: tuple[Repo, RunRecord, Path]) -> None:
    repo, record, path = killed
    path.write_bytes(flip(0)(path.read_bytes()))
    (repo.path / ".git/expmgr/sweep.lock").unlink(missing_ok=True)
    (repo.path / ".git/expmgr/sweep.lock").mkdir()  # nobody can sweep up
    for _ in range(2):
        result = repo.expmgr("show", record.run_id)
        assert (result.code, result.stderr.count("1 line of its events.jsonl cannot be read")) == (0, 1)
    assert path.exists()


def test_a_run_whose_events_are_empty_has_begun_if_it_saved(killed: tuple[Repo, RunRecord, Path]) -> None:
    repo, record, path = killed
    folder = ModelDir(
        repo.path / "models/iris/wide/seed-0", shown="models/iris/wide/seed-0", variant="iris/wide", seed=0
    )
    folder.prepare(time.time())
    made = signature(7).model_copy(update={"provenance": {"run_id": record.run_id}})

    def write(prefix: Path) -> None:
        prefix.with_name(f"{prefix.name}.index").write_bytes(index_bytes({}))
        prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(b"weights")

    folder.save(7, write, made, CheckpointMetadata(time.time(), 7))
    path.write_bytes(b"")
    assert told(repo, "list")["variants"][0]["runs"] == {"killed": 1}


def test_a_run_that_was_killed_while_it_said_that_it_begins_is_forgotten(killed: tuple[Repo, RunRecord, Path]) -> None:
    repo, _record, path = killed
    path.write_bytes(path.read_bytes()[:50])
    listed = repo.expmgr("list", "--json")
    assert (json.loads(listed.stdout)["variants"][0]["runs"], listed.stderr) == ({}, "")


def test_a_run_that_never_began_is_forgotten_as_before(killed: tuple[Repo, RunRecord, Path]) -> None:
    repo, _record, path = killed
    path.unlink()
    assert told(repo, "list")["variants"][0]["runs"] == {}
    assert not path.parent.exists()
