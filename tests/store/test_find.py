"""Which run's checkpoint stands for a variant, whose word on the store counts, and what goes there."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from clones import put, record_of, signature
from expmgr.checkpoints.manifest import CheckpointMetadata
from expmgr.checkpoints.signature import ProbeValues
from expmgr.disk.locks import Process
from expmgr.errors import StoreProblem, UnknownCheckpoint
from expmgr.log.events import Stored
from expmgr.log.logs import Draft
from expmgr.log.writers import writer_id
from expmgr.paths import VariantName
from expmgr.project import Project
from expmgr.runs.origin import ORIGIN
from expmgr.runs.record import Attempt, Checkpoint, RunRecord
from expmgr.store.find import find_stored, places, runs_of, store_of
from expmgr.store.upload import plan_uploads
from tables import index_bytes
from team.events import event_of
from world import Repo

WIDE = VariantName("iris", "wide")
OTHER = "bob-00000002"
BY_HAND = {"script": "train.py", "head": "h", "changed": []}


@pytest.fixture
def project(wide: Repo) -> Project:
    return Project.open(wide.path)


def run(project: Project, number: int, seed: int = 0, *, origin: str | None = None, **values: Any) -> RunRecord:
    """The run that began as the `number`-th; of another clone where `origin` says so."""
    run_id = f"20260101-{number:09d}-00000a"
    if values.get("status") in ("running", "starting"):
        values["attempts"] = [Attempt(number=1, started_at=1.0, max_steps=9, launcher=Process.current().as_dict())]
    record = record_of(project, "iris/wide", seed, 0.9, run_id=run_id, **values)
    put(project, record)
    if origin is not None:
        about = {"format": 1, "writer": origin, "event": "0" * 64, "attempt": 1, "by": "Bob"}
        (project.records.run_dir(run_id).path / ORIGIN).write_text(json.dumps(about))
    return record


def stored(
    project: Project, record: RunRecord, step: int | None = None, *, by: str | None = None, contents: str = "a"
) -> None:
    """Somebody says (None: this clone) that the store has a checkpoint of a run."""
    about = {"run_id": record.run_id, "variant": record.variant, "seed": record.seed}
    values = {**about, "step": record.step if step is None else step, "contents": contents * 64, "size_bytes": 5}
    draft = Draft(Stored, values)
    if by is None:
        project.logs.append(writer_id(project.layout.own), [draft], now=time.time(), actor=None)
        return
    own, theirs = f"refs/expmgr/log/{by}", f"refs/expmgr/remotes/origin/log/{by}"
    if tip := project.repo.refs(theirs).get(theirs):
        project.repo.set_ref(own, tip, "as before")
    project.logs.append(by, [draft], now=time.time(), actor=None)
    project.repo.set_ref(theirs, project.repo.refs(own)[own], "fetched")
    project.repo.delete_ref(own)


def stands(project: Project, seed: int | None = None) -> list[RunRecord]:
    return runs_of(project, WIDE, seed)


# Which run stands for a variant.


def test_the_newest_finished_run_of_the_present_code_stands(project: Project) -> None:
    old = run(project, 1, code_digest="old")
    assert stands(project) == [old]  # better than none
    newer = run(project, 2, code_digest="older")
    assert stands(project) == [newer]
    fresh = run(project, 3)
    assert stands(project) == [fresh]
    run(project, 4, status="failed")
    run(project, 5, status="preempted")
    run(project, 6, code_digest="another")
    run(project, 7, status="running")
    run(project, 8, by_hand=BY_HAND)
    assert stands(project) == [fresh]
    newest = run(project, 9)
    assert stands(project) == [newest]


def test_where_none_finished_the_newest_that_ended_stands(project: Project) -> None:
    run(project, 1, status="failed")
    preempted = run(project, 2, status="preempted")
    run(project, 3, status="running")
    run(project, 4, by_hand=BY_HAND)
    assert stands(project) == [preempted]


def test_of_several_that_would_do_one_that_is_in_the_store_stands(project: Project) -> None:
    old, fresh, newer, failed = (
        run(project, 1, code_digest="old"), run(project, 2), run(project, 3), run(project, 4, status="failed")
    )  # fmt: skip
    assert stands(project) == [newer]
    stored(project, old)
    stored(project, failed)
    assert stands(project) == [newer]  # neither is of the present code and finished
    stored(project, fresh)
    assert stands(project) == [fresh]
    stored(project, newer)
    assert stands(project) == [newer]


def test_of_old_runs_one_that_is_in_the_store_stands(project: Project) -> None:
    old = run(project, 1, code_digest="old")
    run(project, 2, code_digest="old")
    stored(project, old)
    assert stands(project) == [old]


def test_each_seed_has_its_run_in_order(project: Project) -> None:
    two, zero, again = run(project, 1, seed=2), run(project, 2), run(project, 3, seed=2)
    assert stands(project) == [zero, again]
    assert stands(project, 2) == [again]
    assert stands(project, 0) == [zero]
    assert stands(project, 1) == []
    assert two not in stands(project)


def test_a_variant_whose_branch_is_gone_has_its_runs(project: Project, wide: Repo) -> None:
    run(project, 1)
    newest = run(project, 2, status="failed")
    wide.git("branch", "-D", "exp/iris/wide")
    assert stands(project) == [newest]


def test_only_the_word_of_who_trained_it_makes_a_run_stand(project: Project) -> None:
    mine, newer = run(project, 1), run(project, 2)
    stored(project, mine, by=OTHER)
    assert stands(project) == [newer]
    theirs, newest = run(project, 3, origin=OTHER), run(project, 4)
    stored(project, theirs)
    assert stands(project) == [newest]
    stored(project, theirs, by=OTHER)
    assert stands(project) == [theirs]


# Where its checkpoint is.


def event(writer: str, contents: str, step: int = 1) -> Stored:
    about = {"run_id": "20260101-000000001-00000a", "variant": "iris/wide", "seed": 0, "size_bytes": 5}
    return event_of(Stored, writer=writer, contents=contents * 64, step=step, **about)


def test_the_trainer_s_words_come_first_the_newest_before_older_ones() -> None:
    told = [
        event("c-1", "a"),
        event("t-1", "b"),
        event("c-1", "c"),
        event("t-1", "d"),
        event("d-1", "e"),
        event("t-2", "f"),
    ]
    found = [one.contents[0] for one in places(told, {"t-00000001", "t-00000002"})]
    # Of each other writer the newest alone.
    assert found == ["f", "d", "b", "e", "c"]
    assert [one.contents[0] for one in places(told, set())] == ["f", "e", "d", "c"]
    twice = [event("c-1", "a"), event("t-1", "b"), event("d-1", "b"), event("t-1", "a")]
    assert [(one.writer, one.contents[0]) for one in places(twice, {"t-00000001"})] == [
        ("t-00000001", "a"),
        ("t-00000001", "b"),
    ]
    assert places([], {"t-00000001"}) == []


def test_the_selected_step_is_looked_for_unless_one_is_asked(project: Project) -> None:
    record = run(project, 1, step=9, selected_step=7)
    for step, contents in ((7, "a"), (9, "b"), (7, "c")):
        stored(project, record, step, contents=contents)
    stored(project, run(project, 2), 7, contents="d")
    assert [one.contents[0] for one in find_stored(project, record, None)] == ["c", "a"]
    assert [one.contents[0] for one in find_stored(project, record, 9)] == ["b"]
    with pytest.raises(UnknownCheckpoint) as caught:
        find_stored(project, record, 8)
    assert caught.value.lines() == [
        f"Error: the store has no checkpoint of step 8 of run {record.run_id} (iris/wide, seed 0)",
        "  it has 7, 9",
        "Nothing was changed.",
        "Hint: expmgr push, in the clone of somebody; --checkpoints all for those that were not selected",
    ]
    none = run(project, 3, origin=OTHER)
    with pytest.raises(UnknownCheckpoint) as caught:
        find_stored(project, none, None)
    assert (list(caught.value.details), caught.value.hint and "in the clone of Bob;" in caught.value.hint) == ([], True)


def test_no_store_is_said(project: Project) -> None:
    with pytest.raises(StoreProblem, match="no store is set up"):
        store_of(project)


# What goes there.


def trained(
    project: Project, number: int, *steps: int, selected: int | None, seed: int = 0, **values: Any
) -> RunRecord:
    """A run with checkpoints in its model_dir; that of `selected` with the rows of its probe."""
    folder = project.model_dir(WIDE, seed)
    folder.prepare(1.0)
    found = []
    for step in steps:
        probe = ProbeValues(batch="0123456789abcdef" * 4, where="cpu", outputs=[], loss=None, metrics={}, step=[])
        of = signature(step).model_copy(update={"probe": probe if step == selected else None})

        def write(prefix: Any, step: int = step) -> None:
            prefix.with_name(f"{prefix.name}.index").write_bytes(index_bytes({}))
            prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(b"w" * step)

        one = folder.save(step, write, of, CheckpointMetadata(1.0, step))
        found.append(Checkpoint(step=step, saved_at=1.0, files={name: file.sha256 for name, file in one.files.items()}))
    about = {"checkpoints": found, "step": steps[-1], "selected_step": selected, **values}
    return run(project, number, seed, **about)


def wanted(project: Project, which: Any = "selected") -> list[tuple[str, int, tuple[str, ...]]]:
    return [(one.record.run_id[9:18], one.saved.step, one.extra) for one in plan_uploads(project, which)]


PROBE = "probe-0123456789abcdef.npz"


def test_the_selected_checkpoint_goes_with_the_rows_of_its_probe(project: Project) -> None:
    record = trained(project, 1, 5, 7, 9, selected=7)
    assert wanted(project) == [("000000001", 7, ())]  # its rows are not there
    folder = project.model_dir(WIDE, 0).path
    (folder / PROBE).write_bytes(b"r" * 11)
    (folder / "probe-ffffffffffffffff.npz").write_bytes(b"others")
    assert wanted(project) == [("000000001", 7, (PROBE,))]
    assert wanted(project, "all") == [("000000001", 5, ()), ("000000001", 7, (PROBE,)), ("000000001", 9, ())]
    assert wanted(project, "none") == []
    (one,) = plan_uploads(project, "selected")
    files = [folder / name for name in (*one.saved.files, PROBE)]
    assert one.size_bytes == sum(path.stat().st_size for path in files)
    assert one.shown == "models/iris/wide/seed-0/model.ckpt-7"
    stored(project, record, 7, contents="c")
    assert wanted(project) == []
    assert wanted(project, "all") == [("000000001", 5, ()), ("000000001", 9, ())]


def test_where_none_was_selected_the_newest_goes(project: Project) -> None:
    trained(project, 1, 5, 7, selected=None)
    assert wanted(project) == [("000000001", 7, ())]


def test_the_word_of_another_sends_it_all_the_same(project: Project) -> None:
    record = trained(project, 1, 5, selected=5)
    stored(project, record, 5, by=OTHER)
    assert wanted(project) == [("000000001", 5, ())]


@pytest.mark.parametrize(
    "about", [{"status": "running"}, {"status": "starting"}, {"by_hand": BY_HAND}, {"origin": OTHER}],
    ids=["running", "starting", "by-hand", "foreign"],
)  # fmt: skip
def test_what_does_not_go_there(project: Project, about: dict[str, Any]) -> None:
    trained(project, 1, 5, selected=5, **about)
    assert wanted(project, "all") == []


def test_what_is_not_as_the_record_says_is_left(project: Project) -> None:
    record = trained(project, 1, 5, 7, selected=7)
    other = [
        one.model_copy(update={"files": {**one.files, "model.ckpt-7.index": "0" * 64}}) for one in record.checkpoints
    ]
    run(project, 2, checkpoints=other, step=7, selected_step=7)
    assert wanted(project) == [("000000001", 7, ())]
    assert wanted(project, "all") == [("000000001", 5, ()), ("000000001", 7, ())]
