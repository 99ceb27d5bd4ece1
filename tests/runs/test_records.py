"""Records: folded from events, whole at every moment, never rewritten."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expmgr.disk import durable
from expmgr.disk.locks import Process
from expmgr.errors import NewerFormat, UnknownRun
from expmgr.paths import Layout, VariantName
from expmgr.runs import folding
from expmgr.runs.counting import counted_runs
from expmgr.runs.events import event_of
from expmgr.runs.folding import thinned
from expmgr.runs.record import Attempt, RunRecord, is_abandoned, new_run_id
from expmgr.runs.records import Records

DEAD = replace(Process.current(), boot="another boot").as_dict()
ALIVE = Process.current().as_dict()


def record(run_id: str = "20260101-000000000-aaaaaa", launcher: dict[str, Any] = ALIVE, **values: Any) -> RunRecord:
    parts: dict[str, Any] = {
        "run_id": run_id, "variant": "iris/wide", "seed": 0, "commit": "c" * 40, "tree": "t" * 40, "code_digest": "d",
        "spec": {}, "created_at": 1.0, "model_dir": "models/iris/wide/seed-0",
        "attempts": [Attempt(number=1, started_at=1.0, max_steps=100, launcher=launcher)],
    }  # fmt: skip
    return RunRecord(**{**parts, **values})


def fold(record: RunRecord, lines: list[dict[str, Any]]) -> RunRecord:
    """The record with what lines of `events.jsonl` say."""
    return folding.fold(record, [event for line in lines if (event := event_of(line))])


def ready(step: int = 0, worker: dict[str, Any] = ALIVE) -> dict[str, Any]:
    return {
        "kind": "ready", "at": 2.0, "worker": worker, "from_step": step, "changes": [], "parameters": 7,
        "data": {"train": {"path": "a.csv", "rows": 3, "sha256": "s"}}, "environment": {"python": "3"},
    }  # fmt: skip


def point(step: int, loss: float = 0.5, split: str = "train") -> dict[str, Any]:
    return {"kind": "point", "at": 3.0, "split": split, "step": step, "values": {"loss": loss}}


def saved(step: int) -> dict[str, Any]:
    return {"kind": "checkpoint", "at": 3.0, "step": step, "files": {"x": "s"}}


def ended(status: str, step: int, error: dict[str, Any] | None = None) -> dict[str, Any]:
    metrics = {"selected": {"eval": {"accuracy": 0.9}}, "last": {}} if status == "finished" else {}
    return {
        "kind": "ended", "at": 9.0, "status": status, "step": step, "examples_seen": step * 10, "train_s": 4.0,
        "selected_step": step if status == "finished" else None, "metrics": metrics, "error": error,
    }  # fmt: skip


def test_a_finished_run() -> None:
    done = fold(record(), [ready(), saved(0), point(50), point(100), saved(100), ended("finished", 100)])
    assert (done.status, done.step, done.examples_seen, done.selected_step) == ("finished", 100, 1000, 100)
    assert done.metric("accuracy", "eval") == 0.9
    assert done.metric("loss", "eval") is None
    assert done.curves == {"train": {"loss": [(50, 0.5), (100, 0.5)]}}
    (attempt,) = done.attempts
    assert (attempt.from_step, attempt.to_step, attempt.train_s, attempt.ended_at) == (0, 100, 4.0, 9.0)
    assert done.train_s == 4.0


def test_a_failed_run_keeps_its_error() -> None:
    failed = fold(record(), [ready(), ended("failed", 3, {"message": "NaN"})])
    assert (failed.status, failed.attempts[0].error) == ("failed", {"message": "NaN"})


def test_an_attempt_that_resumes_forgets_what_it_does_again() -> None:
    first = fold(record(), [ready(), saved(0), point(50, 1.0), saved(60), point(100, 2.0)])
    again = first.model_copy(deep=True)
    again.attempts.append(Attempt(number=2, started_at=5.0, max_steps=200, launcher=ALIVE))
    done = fold(again, [ready(60), point(100, 3.0), saved(200), ended("finished", 200)])
    assert done.curves == {"train": {"loss": [(50, 1.0), (100, 3.0)]}}
    assert [one.step for one in done.checkpoints] == [0, 60, 200]
    assert done.attempts[0].from_step == 0


def test_an_attempt_that_was_killed_has_no_metrics_of_an_earlier_one() -> None:
    first = fold(record(), [ready(), saved(0), saved(100), ended("finished", 100)])
    again = first.model_copy(deep=True)
    again.attempts.append(Attempt(number=2, started_at=5.0, max_steps=200, launcher=ALIVE))
    cut = fold(again, [ready(100), {**saved(150), "examples_seen": 1500, "train_s": 2.5}])
    assert (cut.metrics, cut.selected_step, cut.examples_seen) == ({}, None, 1500)
    assert (cut.attempts[0].metrics, cut.attempts[0].selected_step) == (first.metrics, 100)
    assert [one.train_s for one in cut.attempts] == [4.0, 2.5]


def test_a_step_that_is_evaluated_again_stands_once_in_its_curve() -> None:
    done = fold(record(), [ready(), point(50, 1.0), point(50, 2.0), point(100, 3.0)])
    assert done.curves == {"train": {"loss": [(50, 2.0), (100, 3.0)]}}


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(Layout(tmp_path / ".git", tmp_path / "models"))


def test_from_begin_to_finish(records: Records) -> None:
    folder = records.begin(record())
    assert list(records.all()) == []
    assert records.abandoned() == []
    for event in (ready(), point(100)):
        durable.append_line(folder.events, event)
    assert records.load(folder.path.name).status == "running"
    durable.append_line(folder.events, ended("finished", 100))
    done = records.finish(folder.path.name)
    assert records.load(folder.path.name) == done
    assert sorted(path.name for path in folder.path.iterdir()) == ["run.json"]
    assert not any(records.layout.active.iterdir())


def test_events_that_a_crash_left_are_not_folded_twice(records: Records) -> None:
    folder = records.begin(record())
    events = [ready(), saved(0), point(100), saved(100), ended("finished", 100)]
    for event in events:
        durable.append_line(folder.events, event)
    done = records.finish(folder.path.name)
    for event in events:
        durable.append_line(folder.events, event)
    assert records.load(folder.path.name) == done
    assert records.finish(folder.path.name) == done


def test_a_killed_run_is_shown_as_killed_by_whoever_looks(records: Records) -> None:
    folder = records.begin(record(launcher=DEAD))
    durable.append_line(folder.events, ready(worker=DEAD))
    durable.append_line(folder.events, point(100))
    before = folder.record.read_bytes()
    found = records.load(folder.path.name)
    assert (found.status, found.attempts[0].status, found.step) == ("killed", "killed", 100)
    assert folder.record.read_bytes() == before
    assert records.abandoned() == [folder.path.name]


def test_a_run_whose_worker_lives_is_not_abandoned() -> None:
    assert not is_abandoned(fold(record(launcher=DEAD), [ready()]))
    assert is_abandoned(fold(record(launcher=DEAD), [ready(worker=DEAD)]))


def test_withdrawn_is_as_if_it_had_never_been(records: Records) -> None:
    folder = records.begin(record())
    records.withdraw(folder.path.name)
    assert not folder.path.exists()
    done = fold(record(), [ready(), ended("finished", 100)])
    folder = records.begin(done)
    records.finish(done.run_id)
    content = folder.record.read_bytes()
    again = done.model_copy(deep=True)
    again.attempts.append(Attempt(number=2, started_at=5.0, max_steps=200, launcher=ALIVE))
    again.status = "starting"
    records.begin(again)
    records.withdraw(done.run_id, done)
    assert folder.record.read_bytes() == content


def test_what_a_newer_expmgr_wrote_is_passed_on(records: Records) -> None:
    folder = records.begin(record())
    values = json.loads(folder.record.read_text())
    values["of_tomorrow"] = {"x": 1}
    folder.record.write_text(json.dumps(values))
    for event in (ready(), {"kind": "of tomorrow", "at": 1.0}, ended("finished", 100)):
        durable.append_line(folder.events, event)
    records.finish(folder.path.name)
    assert json.loads(folder.record.read_text())["of_tomorrow"] == {"x": 1}


def test_another_format_is_named(records: Records) -> None:
    folder = records.begin(record())
    folder.record.write_text('{"format": 2}')
    with pytest.raises(NewerFormat, match="has format 2, this expmgr reads format 1"):
        records.load(folder.path.name)


def test_a_record_that_cannot_be_read_hides_no_other(records: Records) -> None:
    name = VariantName("iris", "wide")
    for run_id in ("1", "2", "3"):
        records.begin(fold(record(run_id), [ready()]))
    records.run_dir("2").record.write_text('{"format": 2}')
    records.run_dir("3").record.write_text("{")
    assert [one.run_id for one in records.all()] == ["1"]
    assert set(records.skipped) == {"2", "3"}
    assert records.abandoned() == []
    newest = records.newest(name, 0)
    assert newest is not None
    assert newest.run_id == "1"


def test_the_newest_run_of_a_seed_is_found_among_others(records: Records) -> None:
    runs = [("1", "iris/base", 0), ("2", "iris/base", 1), ("3", "iris/wide", 0), ("4", "iris/base", 0)]
    for run_id, variant, seed in runs:
        records.begin(fold(record(run_id).model_copy(update={"variant": variant, "seed": seed}), [ready()]))
    found = {(variant, seed): records.newest(VariantName("iris", variant), seed) for variant, seed in
             (("base", 0), ("base", 1), ("wide", 0), ("wide", 1), ("other", 0))}  # fmt: skip
    assert {key: one.run_id if one else None for key, one in found.items()} == {
        ("base", 0): "4", ("base", 1): "2", ("wide", 0): "3", ("wide", 1): None, ("other", 0): None
    }  # fmt: skip
    assert [one.run_id for one in records.of_variant(VariantName("iris", "base"))] == ["1", "2", "4"]


def test_find_by_a_prefix(records: Records) -> None:
    for run_id in ("20260101-000000000-aaaaaa", "20260101-000000000-bbbbbb"):
        records.begin(fold(record(run_id), [ready()]))
    found = records.find("20260101-000000000-a")
    assert found is not None
    assert found.run_id.endswith("aaaaaa")
    assert records.find("2027") is None
    with pytest.raises(UnknownRun) as caught:
        records.find("2026")
    assert caught.value.message == "2 runs begin with 2026"


def test_counted_is_the_newest_finished_run_of_each_seed() -> None:
    runs = [
        record("3", seed=1, status="finished"), record("1", status="finished"), record("2", status="finished"),
        record("4", status="failed"),
    ]  # fmt: skip
    assert [one.run_id for one in counted_runs(runs)] == ["2", "3"]


def test_run_ids_sort_by_time_and_differ() -> None:
    ids = [new_run_id(1_000_000_000 + number / 100) for number in range(1000)]
    assert ids == sorted(ids)
    assert len({new_run_id(5.0) for _ in range(30)}) == 30  # of 16 million


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=3000), st.integers(10, 1000))
def test_thinning_keeps_ends_and_extremes(values: list[float], most: int) -> None:
    points = list(enumerate(values))
    kept = thinned(points, most)
    assert len(kept) <= most
    assert kept == sorted(set(kept))
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert {min(values), max(values)} <= {value for _, value in kept}


def test_newest_of_a_variant(records: Records) -> None:
    for run_id, seed in (("1", 0), ("2", 1), ("3", 0)):
        records.begin(fold(record(run_id, seed=seed), [ready(), ended("finished", 9)]))
    found = records.newest(VariantName("iris", "wide"), 0)
    assert found is not None
    assert found.run_id == "3"


WRITER = """
import sys
from pathlib import Path
from expmgr.disk import durable
number = 0
while True:
    durable.write_json(Path(sys.argv[1]) / "run.json", {"number": number, "padding": "x" * 20000})
    durable.append_line(Path(sys.argv[1]) / "events.jsonl", {"number": number, "padding": "y" * 20000})
    number += 1
"""


def test_a_file_is_whole_at_every_moment(tmp_path: Path) -> None:
    told = 0
    for number in range(6):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)])
        while not (tmp_path / "events.jsonl").exists() or not (tmp_path / "run.json").exists():
            time.sleep(0.001)
        time.sleep(0.05 + number * 0.003)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert set(json.loads((tmp_path / "run.json").read_text())) == {"number", "padding"}
        lines, _ = durable.read_lines(tmp_path / "events.jsonl")
        assert len(lines) >= told
        told = len(lines)
        (tmp_path / "run.json").unlink()
    assert told > 0


def test_a_cut_line_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    durable.append_line(path, {"n": 1})
    durable.append_line(path, {"n": 2})
    path.write_bytes(path.read_bytes()[:-4])
    assert durable.read_lines(path)[0] == [{"n": 1}]
    durable.append_line(path, {"n": 3})
    assert durable.read_lines(path)[0] == [{"n": 1}, {"n": 3}]
    path.write_bytes(path.read_bytes().replace(b'"n":3', b'"n":4'))
    assert durable.read_lines(path)[0] == [{"n": 1}]


def test_lines_are_read_on_from_where_one_stopped(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert durable.read_lines(path) == ([], 0)
    durable.append_line(path, 1)
    first, at = durable.read_lines(path)
    durable.append_line(path, 2)
    assert (first, durable.read_lines(path, at)[0]) == ([1], [2])


def aged(path: Path) -> None:
    long_ago = time.time() - 600
    os.utime(path, (long_ago, long_ago))


def test_an_empty_folder_is_removed_once_nobody_can_write_there(records: Records) -> None:
    """What a crash leaves between the folder of a run and its record."""
    whole = records.begin(fold(record("1"), [ready()]))
    records.layout.active.mkdir(exist_ok=True)
    names = ("2-old", "3-new", "4-dead", "5-elsewhere", "6-cut-marker", "7-holds-something", "8-temporary")
    for name in names:
        records.run_dir(name).path.mkdir()
    elsewhere = {**ALIVE, "host": "another"}
    for name, process in (("4-dead", json.dumps(DEAD)), ("5-elsewhere", json.dumps(elsewhere)), ("6-cut-marker", "{")):
        (records.layout.active / name).write_text(process)
    (records.run_dir("7-holds-something").path / "log.txt").write_text("what it said")
    (records.run_dir("8-temporary").path / ".run.json.0a0b0c0d.tmp").write_text("{")
    (records.layout.active / "9-no-folder").write_text("")
    for name in names:
        if name not in ("3-new", "4-dead"):
            aged(records.run_dir(name).path)
    found = {one.run_id: (one.is_dead, one.holds) for one in records.empty_folders()}
    assert found == {
        "2-old": (True, ()), "3-new": (False, ()), "4-dead": (True, ()), "5-elsewhere": (False, ()),
        "6-cut-marker": (True, ()), "7-holds-something": (True, ("log.txt",)), "8-temporary": (True, ()),
        "9-no-folder": (False, ()),
    }  # fmt: skip
    assert [one.run_id for one in records.heads()] == ["1"]
    left = sorted(path.name for path in records.layout.runs.iterdir())
    assert left == ["1", "3-new", "5-elsewhere", "7-holds-something"]
    assert whole.record.exists()
    assert sorted(path.name for path in records.layout.active.iterdir()) == ["1", "5-elsewhere", "9-no-folder"]
    assert [one.run_id for one in records.empty_folders()] == [
        "3-new",
        "5-elsewhere",
        "7-holds-something",
        "9-no-folder",
    ]
    aged(records.layout.active / "9-no-folder")
    assert records.abandoned() == ["9-no-folder"]
