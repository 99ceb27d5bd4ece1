"""Records that were edited, broken or deleted: named, used nowhere, and restored from the event log."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import expmgr
from clones import Team, asked, ok, put, ran, record_of, saved, told
from expmgr.disk.locks import Process
from expmgr.errors import RecordDamaged
from expmgr.git.repo import GitRepo
from expmgr.log.refs import KEEP
from expmgr.project import Project
from expmgr.runs.record import Attempt
from expmgr.team.publish import tell_runs
from world import Repo

DEAD = replace(Process.current(), boot="another boot").as_dict()


def record_path(repo: Repo, run_id: str) -> Path:
    return repo.path / ".git/expmgr/runs" / run_id / "run.json"


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Edit a record as a person or a script would."""
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values, indent=1) + "\n")


def better(values: dict[str, Any]) -> None:
    values["metrics"]["selected"]["eval"]["accuracy"] = 0.9999


def in_place(path: Path) -> None:
    """One digit, with the size, the inode and the times of before."""
    about = path.stat()
    content = path.read_bytes()
    assert content.count(b"0.95") == 1
    with open(path, "r+b") as file:
        file.write(content.replace(b"0.95", b"0.99"))
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert (path.stat().st_mtime_ns, path.stat().st_size, path.stat().st_ino) == (
        about.st_mtime_ns, about.st_size, about.st_ino,
    )  # fmt: skip


def test_one_edited_digit_is_named_counts_nowhere_and_is_restored(team: Team) -> None:
    ann = asked(team)
    before = {command: ann.expmgr(*command.split(), "--json").stdout for command in ("list", "review show wide")}
    run_id = told(ann, "show", "iris/wide:0")["run_id"]
    in_place(record_path(ann, run_id))
    note = (
        f"Note: run {run_id} was skipped: its record differs from the event log "
        f"(restore it from the event log: expmgr restore {run_id})\n"
    )
    for command in (
        ["list"], ["show", "iris/wide"], ["compare", "iris/baseline", "iris/wide"], ["diff", "iris/baseline", "iris/wide"],
        ["review", "list"], ["review", "show", "wide"],
    ):  # fmt: skip
        result = ann.expmgr(*command)
        assert result.stderr.count(note) == 1, command
        assert "0.99" not in result.stdout, command
    (wide,) = [one for one in told(ann, "list")["variants"] if one["variant"] == "iris/wide"]
    assert (wide["runs"], wide["seeds"], run_id in wide["current"]) == ({"damaged": 1, "finished": 2}, [1, 2], False)
    assert wide["mean"] == pytest.approx((0.97 + 0.96) / 2)
    assert "1 damaged, 2 finished" in ann.expmgr("list").stdout
    listed = ann.expmgr("list", "--json")
    assert json.loads(listed.stdout)["skipped"] == [
        {
            "run_id": run_id, "variant": "iris/wide", "seed": 0, "status": "damaged",
            "reason": "its record differs from the event log",
        }
    ]  # fmt: skip
    (row,) = [line for line in ann.expmgr("show", "iris/wide").stdout.splitlines() if line.startswith(run_id)]
    assert row.split()[:3] == [run_id, "0", "damaged"]
    named = ann.expmgr("show", run_id)
    assert (named.code, named.stdout, named.stderr) == (
        1,
        "",
        f"Error: the record of run {run_id} differs from the event log\n"
        "Nothing was changed.\n"
        f"Hint: restore it from the event log: expmgr restore {run_id}\n",
    )
    edited = record_path(ann, run_id).read_bytes()
    kept = f".git/expmgr/runs/{run_id}/damaged-1.json"
    assert ok(ann, "restore", run_id) == f"restored run {run_id} (iris/wide seed 0); what was there is kept in {kept}\n"
    assert (ann.path / kept).read_bytes() == edited
    for command, stdout in before.items():
        assert ann.expmgr(*command.split(), "--json").stdout == stdout
    assert ok(ann, "restore", run_id) == f"run {run_id} (iris/wide seed 0) was not damaged\n"
    unneeded = ann.expmgr("restore")
    assert (unneeded.code, unneeded.stdout, unneeded.stderr) == (0, "", "No record is damaged. Nothing was changed.\n")


DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "metric": better,
    "seed": lambda values: values.update(seed=7),
    "variant": lambda values: values.update(variant="iris/baseline"),
    "status": lambda values: values.update(status="failed"),
    "running again": lambda values: values.update(status="running"),
    "one attempt more": lambda values: values["attempts"].append(values["attempts"][0]),
    "no attempt": lambda values: values.update(attempts=[]),
    "spec": lambda values: values["spec"]["optimizer"].update(learning_rate=7.0),
    "no number": lambda values: values.update(step="many"),
    "not the shape": lambda values: values.clear(),
}


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
def test_any_edit_is_found_and_undone(team: Team, change: Callable[[dict[str, Any]], object]) -> None:
    ann = team.join("ann")
    ok(ann, "new", "iris/wide")
    (run,) = ran(ann, "iris/wide", 0.95)
    path = record_path(ann, run.run_id)
    whole, listed = path.read_bytes(), ok(ann, "list", "--json")
    rewritten(path, change)
    (skipped,) = told(ann, "list")["skipped"]
    assert (skipped["run_id"], skipped["variant"], skipped["seed"]) == (run.run_id, "iris/wide", 0)
    assert told(ann, "list")["variants"][0]["runs"] == {"damaged": 1}
    ok(ann, "restore")
    assert path.read_bytes() == whole
    assert ok(ann, "list", "--json") == listed


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null", b"1" * 5_000])
def test_a_record_that_is_no_json_is_restored(team: Team, content: bytes) -> None:
    ann = team.join("ann")
    ok(ann, "new", "iris/wide")
    (run,) = ran(ann, "iris/wide", 0.95)
    path = record_path(ann, run.run_id)
    whole = path.read_bytes()
    path.write_bytes(content)
    result = ann.expmgr("list")
    assert (result.code, "1 damaged" in result.stdout, "its record cannot be read (" in result.stderr) == (
        0,
        True,
        True,
    )
    ok(ann, "restore", run.run_id[:12])
    assert path.read_bytes() == whole


def test_a_deleted_record_is_restored(team: Team) -> None:
    ann = team.join("ann")
    ok(ann, "new", "iris/wide")
    (run,) = ran(ann, "iris/wide", 0.95)
    path = record_path(ann, run.run_id)
    whole = path.read_bytes()
    shutil.rmtree(path.parent)
    assert ok(ann, "restore") == f"restored run {run.run_id} (iris/wide seed 0)\n"
    assert path.read_bytes() == whole


def test_the_record_of_another_clone(team: Team) -> None:
    ann, bob = asked(team), team.join("bob")
    ok(bob, "pull")
    run_id = told(bob, "show", "iris/wide:0")["run_id"]
    path = record_path(bob, run_id)
    whole, origin = path.read_bytes(), (path.parent / "origin.json").read_bytes()
    rewritten(path, better)
    assert f"run {run_id} was skipped" in bob.expmgr("compare", "iris/baseline", "iris/wide").stderr
    assert ok(bob, "restore").startswith(f"restored run {run_id} (iris/wide seed 0)")
    assert (path.read_bytes(), (path.parent / "origin.json").read_bytes()) == (whole, origin)
    # Whoever takes the mark of the other clone away does not make it a run of this one.
    rewritten(path, better)
    (path.parent / "origin.json").unlink()
    assert f"run {run_id} was skipped" in bob.expmgr("list").stderr
    ok(bob, "restore", run_id)
    assert (path.read_bytes(), (path.parent / "origin.json").read_bytes()) == (whole, origin)
    assert told(ann, "show", run_id) == told(bob, "show", run_id)


def test_an_attempt_that_is_not_told_yet_is_not_damaged(team: Team) -> None:
    ann = team.join("ann")
    ok(ann, "new", "iris/wide")
    (run,) = ran(ann, "iris/wide", 0.95)
    project = Project.open(ann.path)
    again = run.model_copy(deep=True)
    again.attempts.append(Attempt(number=2, status="killed", started_at=1.0, max_steps=9, launcher={}, from_step=0))
    again.status = "killed"
    record_path(ann, run.run_id).write_text(json.dumps(again.model_dump(mode="json")))
    ann.git("update-ref", f"{KEEP}{run.run_id}", run.commit)
    assert told(ann, "list")["variants"][0]["runs"] == {"killed": 1}
    refused = ann.expmgr("restore", run.run_id)  # what the log has is older
    assert (refused.code, "was not damaged" in refused.stdout) == (0, True)
    ann.git("update-ref", "-d", f"{KEEP}{run.run_id}")
    assert told(ann, "list")["variants"][0]["runs"] == {"damaged": 1}
    assert project.records.run_dir(run.run_id).record.exists()


def test_a_record_that_no_log_has(team: Team) -> None:
    """A run that has just ended is used, as it always was; once it is told, it is checked."""
    ann = team.join("ann")
    ok(ann, "new", "iris/wide")
    (run,) = ran(ann, "iris/wide", 0.95, tell=False)
    assert told(ann, "list")["variants"][0]["runs"] == {"finished": 1}
    path = record_path(ann, run.run_id)
    path.write_text("{")
    before = ann.snapshot()
    listed = ann.expmgr("list")
    assert "no event log has this record yet; to do without the run, move its folder away" in listed.stderr
    refused = ann.expmgr("restore", run.run_id)
    assert (refused.code, refused.stderr) == (
        1,
        f"Error: the record of run {run.run_id} is in no event log here\n"
        "Nothing was changed.\n"
        "Hint: fetch the logs of other clones: expmgr pull\n",
    )
    assert ann.snapshot() == before
    assert "there is no run 2031" in ann.expmgr("restore", "2031").stderr
    path.parent.rename(ann.path.parent / "away")
    assert ann.expmgr("list").stderr == ""


def test_a_damaged_run_is_not_trained_on(team: Team) -> None:
    ann = team.join("ann")
    ok(ann, "new", "iris/wide")
    (run,) = ran(ann, "iris/wide", 0.95)
    rewritten(record_path(ann, run.run_id), better)
    before = ann.snapshot()
    refused = ann.expmgr("run", "iris/wide")
    assert refused.code == 1
    assert refused.stderr.endswith(
        f"Error: the record of run {run.run_id} differs from the event log\n"
        "Nothing was changed.\n"
        f"Hint: restore it from the event log: expmgr restore {run.run_id}\n"
    )
    assert ann.snapshot() == before


def test_a_withdrawn_attempt_leaves_the_record_as_the_log_names_it(team: Team) -> None:
    """Byte for byte: also one that an older version wrote in another way."""
    ann = team.join("ann")
    ok(ann, "new", "iris/wide")
    project = Project.open(ann.path)
    run = record_of(project, "iris/wide", 0, 0.95)
    put(project, run)
    path = record_path(ann, run.run_id)
    path.write_text(json.dumps(run.model_dump(mode="json")))  # in one line
    ok(ann, "push")
    whole = path.read_bytes()
    again = run.model_copy(deep=True)
    again.attempts.append(Attempt(number=2, started_at=1.0, max_steps=9, launcher={}))
    project.records.begin(again)
    project.records.withdraw(run.run_id, run)
    assert path.read_bytes() == whole
    assert sorted(one.name for one in path.parent.iterdir()) == ["run.json"]


def test_python_is_told_and_can_restore(team: Team, capsys: pytest.CaptureFixture[str]) -> None:
    ann = team.join("ann")
    ok(ann, "new", "iris/wide")
    (run,) = ran(ann, "iris/wide", 0.95)
    repository = expmgr.open(ann.path)
    assert repository.list()[0].runs == {"finished": 1}
    rewritten(record_path(ann, run.run_id), better)
    assert repository.list()[0].runs == {"damaged": 1}
    assert f"Note: run {run.run_id} was skipped" in capsys.readouterr().err
    with pytest.raises(RecordDamaged, match="differs from the event log"):
        repository.show(run.run_id)
    (restored,) = repository.restore()
    assert (restored.record.run_id, restored.was_damaged) == (run.run_id, True)
    assert repository.list()[0].runs == {"finished": 1}
    assert repository.show("iris/wide").skipped == []  # type: ignore[union-attr]


def test_an_index_that_cannot_be_written_hides_no_damage(team: Team) -> None:
    ann = team.join("ann")
    ok(ann, "new", "iris/wide")
    (run,) = ran(ann, "iris/wide", 0.95)
    rewritten(record_path(ann, run.run_id), better)
    index = ann.path / ".git/expmgr/index.sqlite"
    index.unlink()
    index.mkdir()
    assert stat.S_ISDIR(index.stat().st_mode)
    assert told(ann, "list")["variants"][0]["runs"] == {"damaged": 1}


def test_a_run_that_ends_while_it_is_looked_at_is_not_damaged(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its record is read while it runs, and the log when it has been told."""
    ann = team.join("ann")
    ok(ann, "new", "iris/wide")
    (run,) = ran(ann, "iris/wide", 0.95, tell=False)
    project = Project.open(ann.path)
    path = record_path(ann, run.run_id)
    ended = path.read_text()
    rewritten(path, DAMAGE["running again"])
    look = GitRepo.refs

    def later(repo: GitRepo, *prefixes: str) -> dict[str, str]:
        if path.read_text() != ended:
            path.write_text(ended)
            tell_runs(Project.open(ann.path))
        return look(repo, *prefixes)

    monkeypatch.setattr(GitRepo, "refs", later)
    assert project.records.load(run.run_id).status == "finished"


@pytest.mark.parametrize(
    "content", ["{", "null", "[]", "5", '{"writer": 5}', '{"writer": "eve-00000000", "attempt": "x"}']
)
def test_a_damaged_origin_hides_no_damaged_record(team: Team, content: str) -> None:
    asked(team)
    bob = team.join("bob")
    ok(bob, "pull")
    run_id = told(bob, "show", "iris/wide:0")["run_id"]
    path = record_path(bob, run_id)
    whole, origin = path.read_bytes(), (path.parent / "origin.json").read_bytes()
    rewritten(path, better)
    (path.parent / "origin.json").write_text(content)
    assert f"run {run_id} was skipped" in bob.expmgr("list").stderr
    assert bob.expmgr("pull").code == 0
    ok(bob, "restore", run_id)
    assert (path.read_bytes(), (path.parent / "origin.json").read_bytes()) == (whole, origin)


def test_events_of_an_attempt_that_no_record_has_are_kept(team: Team) -> None:
    """Of a second attempt that was killed, when its record was torn."""
    ann = team.join("ann")
    ok(ann, "new", "iris/wide")
    (run,) = ran(ann, "iris/wide", 0.95)
    project = Project.open(ann.path)
    again = run.model_copy(deep=True)
    again.attempts.append(Attempt(number=2, started_at=1.0, max_steps=9, launcher=DEAD))
    folder = project.records.begin(again)
    ann.git("update-ref", f"{KEEP}{run.run_id}", run.commit)
    folder.events.write_text("what happened")
    folder.record.write_text("{")
    listed = ann.expmgr("list")
    assert listed.stderr.count("Note: ") == 1
    assert f"its record cannot be read (restore it from the event log: expmgr restore {run.run_id})" in listed.stderr
    where = f".git/expmgr/runs/{run.run_id}"
    assert ok(ann, "restore", run.run_id) == (
        f"restored run {run.run_id} (iris/wide seed 0); what was there is kept in {where}/damaged-1.json and "
        f"{where}/damaged-1.events.jsonl\n"
    )
    assert (ann.path / where / "damaged-1.events.jsonl").read_text() == "what happened"
    assert told(ann, "list")["variants"][0]["runs"] == {"finished": 1}


def test_nothing_that_was_kept_is_overwritten(team: Team) -> None:
    ann = team.join("ann")
    ok(ann, "new", "iris/wide")
    (run,) = ran(ann, "iris/wide", 0.95)
    path = record_path(ann, run.run_id)
    for content in ("1", "2"):
        path.write_text(content)
        ok(ann, "restore")
    (path.parent / "damaged-1.json").unlink()
    path.write_text("3")
    ok(ann, "restore")
    assert [(path.parent / f"damaged-{number}.json").read_text() for number in (1, 2)] == ["3", "2"]


def test_a_record_that_cannot_be_restored_keeps_no_other_back(team: Team) -> None:
    ann = team.join("ann")
    ok(ann, "new", "iris/wide")
    (good,) = ran(ann, "iris/wide", 0.95)
    (lost,) = ran(ann, "iris/wide", 0.96, first=1, tell=False)
    for run in (good, lost):
        record_path(ann, run.run_id).write_text("{")
    result = ann.expmgr("restore")
    assert (result.code, result.stdout.startswith(f"restored run {good.run_id} ")) == (1, True)
    assert f"Error: the record of run {lost.run_id} is in no event log here\n" in result.stderr
    found = told(ann, "restore")
    assert ([one["error"] for one in found["errors"]], found["runs"]) == (["RecordDamaged"], [])


def test_a_run_whose_record_was_deleted_is_not_trained_again(team: Team) -> None:
    ann = team.join("ann")
    ok(ann, "new", "iris/wide")
    (run,) = ran(ann, "iris/wide", 0.95)
    shutil.rmtree(record_path(ann, run.run_id).parent)
    refused = ann.expmgr("run", "iris/wide")
    assert (refused.code, refused.stderr) == (
        1,
        f"Error: the record of run {run.run_id} was deleted, and the event log has it\n"
        "Nothing was changed.\n"
        f"Hint: restore it from the event log: expmgr restore {run.run_id}\n",
    )
    assert ok(ann, "restore", "iris/wide:0") == f"restored run {run.run_id} (iris/wide seed 0)\n"


def test_a_run_of_another_clone_does_not_become_one_of_this_clone(team: Team) -> None:
    """Also where the index has confirmed its record before."""
    asked(team)
    bob = team.join("bob")
    ok(bob, "pull")
    ok(bob, "list")
    run_id = told(bob, "show", "iris/wide:0")["run_id"]
    (record_path(bob, run_id).parent / "origin.json").unlink()
    assert "is of another clone, whose mark (origin.json) is missing" in bob.expmgr("list").stderr
    assert bob.expmgr("run", "iris/wide").code == 1
    ok(bob, "restore", run_id)
    assert (record_path(bob, run_id).parent / "origin.json").exists()


def test_a_damaged_note_of_what_was_fetched_is_not_taken_for_none(team: Team) -> None:
    ann = team.join("ann")
    ok(ann, "new", "iris/wide")
    saved(ann, "iris/wide", 0, b"weights")
    path = ann.path / "models/iris/wide/seed-0/fetched.json"
    path.write_text("xx")
    before = ann.snapshot()
    refused = ann.expmgr("run", "iris/wide")
    assert refused.code == 1
    assert "models/iris/wide/seed-0/fetched.json cannot be read, so whose checkpoints were fetched is not known" in (
        refused.stderr
    )
    assert "Hint: fetch them again: expmgr pull iris/wide; " in refused.stderr
    assert ann.snapshot() == before
    ok(ann, "compare", "iris/wide")
