"""The index: a cache that no answer hangs on."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clones import refuses
from expmgr.disk import durable
from expmgr.disk.index import VERSION, Head
from expmgr.disk.locks import Process
from expmgr.paths import Layout, RunDir, VariantName
from expmgr.runs.records import Records
from world import Repo

WIDE = VariantName("iris", "wide")


def record(run_id: str, variant: str = "iris/wide", seed: int = 0, **values: Any) -> dict[str, Any]:
    attempt = {"number": 1, "status": "finished", "started_at": 5.0, "max_steps": 9, "launcher": {}, "from_step": 0}
    parts = {
        "format": 1, "run_id": run_id, "variant": variant, "seed": seed, "commit": "c", "tree": "t", "code_digest": "d",
        "spec": {"compare": {"metric": "accuracy", "split": "eval"}, "model": {"units": seed}}, "status": "finished",
        "created_at": 1.0, "model_dir": "m", "attempts": [attempt], "metrics": {"selected": {"eval": {"accuracy": 0.5}}},
        "curves": {"train": {"loss": [[1, 0.5]]}},
    }  # fmt: skip
    return {**parts, **values}


class Store:
    """Records on a disk, each command a process of its own: nothing is remembered but what lies there."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root / ".git", root / "models")
        self.path = self.layout.own / "index.sqlite"

    def write(self, content: dict[str, Any]) -> None:
        path = self.layout.run_dir(content["run_id"]) / "run.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".tmp")
        aside.write_text(json.dumps(content))
        aside.replace(path)

    def heads(self) -> list[Head]:
        return Records(self.layout).heads()

    def told(self) -> list[tuple[Any, ...]]:
        return [(one.run_id, one.seed, one.status, one.metric("accuracy", "eval"), one.spec) for one in self.heads()]

    def rows(self) -> list[Any]:
        database = sqlite3.connect(self.path)
        try:
            return database.execute("SELECT run_id, status FROM runs").fetchall()
        finally:
            database.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path)
    for number in range(5):
        found.write(record(f"2026-{number}", seed=number))
    return found


def test_the_second_answer_is_the_first_and_reads_no_record(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = store.told()
    assert [one[:4] for one in first] == [(f"2026-{n}", n, "finished", 0.5) for n in range(5)]
    assert first[3][4]["model"] == {"units": 3}
    assert len(store.rows()) == 5
    read: list[Path] = []
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path))
    assert store.told() == first
    assert read == []


def test_a_spec_keeps_the_order_of_its_columns(store: Store) -> None:
    """It is that of the first layer's rows: in another order it is another model."""
    columns = {"width": "number", "height": "number", "age": "number"}
    store.write(record("2026-9", spec={"data": {"features": columns}, "compare": None}))
    assert [[*one.spec["data"]["features"]] for one in (store.heads()[-1], store.heads()[-1])] == [[*columns]] * 2


def test_what_is_new_changed_or_gone_is_seen(store: Store) -> None:
    store.heads()
    store.write(record("2026-1", seed=1, metrics={"selected": {"eval": {"accuracy": 0.75}}}))  # another attempt
    store.write(record("2026-9", seed=9))
    shutil.rmtree(store.layout.run_dir("2026-0"))
    assert [one[:4] for one in store.told()] == [
        ("2026-1", 1, "finished", 0.75), ("2026-2", 2, "finished", 0.5), ("2026-3", 3, "finished", 0.5),
        ("2026-4", 4, "finished", 0.5), ("2026-9", 9, "finished", 0.5),
    ]  # fmt: skip
    assert len(store.rows()) == 5


def test_a_run_that_goes_on_is_never_taken_from_it(store: Store) -> None:
    going = record("2026-7", seed=7, status="running", metrics={})
    going["attempts"][0] |= {"status": "running", "launcher": Process.current().as_dict()}
    store.write(going)
    assert [one[:3] for one in store.told()][-1] == ("2026-7", 7, "running")
    ended = {
        "kind": "ended", "at": 9.0, "status": "finished", "step": 9, "examples_seen": 1, "train_s": 4.0, "selected_step": 9,
        "metrics": {"selected": {"eval": {"accuracy": 0.25}}, "last": {}}, "error": None,
    }  # fmt: skip
    durable.append_line(RunDir(store.layout.run_dir("2026-7")).events, ended)
    assert store.told()[-1][:4] == ("2026-7", 7, "finished", 0.25)
    assert "2026-7" not in dict(store.rows())  # nobody folded it yet
    Records(store.layout).finish("2026-7")
    assert store.told()[-1][:4] == ("2026-7", 7, "finished", 0.25)
    assert dict(store.rows())["2026-7"] == "finished"


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + b"\7" * 5000])
def test_one_that_is_broken_is_made_anew(store: Store, content: bytes) -> None:
    before = store.told()
    store.path.write_bytes(content)
    assert store.told() == before
    assert len(store.rows()) == 5


def test_one_that_is_cut_is_made_anew(store: Store) -> None:
    before = store.told()
    whole = store.path.read_bytes()
    for size in range(0, len(whole), 1024):
        store.path.write_bytes(whole[:size])
        assert store.told() == before
    store.heads()
    assert len(store.rows()) == 5


def test_one_of_another_version_is_made_anew(store: Store) -> None:
    before = store.told()
    for version in (VERSION - 1, VERSION + 1):
        database = sqlite3.connect(store.path)
        with database:
            database.execute("DROP TABLE runs")
            database.execute("CREATE TABLE runs (something INTEGER)")
            database.execute(f"PRAGMA user_version = {version}")
        database.close()
        assert store.told() == before
        assert len(store.rows()) == 5


def test_it_may_go_at_any_moment(store: Store) -> None:
    heads = store.heads()
    store.path.unlink()
    assert [head.spec["model"]["units"] for head in heads] == [0, 1, 2, 3, 4]
    warm = store.heads(), store.heads()[0]
    store.path.unlink()
    assert warm[1].spec["model"] == {"units": 0}
    assert Records(store.layout).newest(WIDE, 3) is not None


def test_one_that_is_locked_for_long_is_done_without(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("expmgr.disk.index._BUSY_S", 0.1)
    before = store.told()
    holder = sqlite3.connect(store.path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        store.write(record("2026-9", seed=9))
        assert [one[:3] for one in store.told()] == [*(one[:3] for one in before), ("2026-9", 9, "finished")]
    finally:
        holder.close()


def test_where_nothing_can_be_written_it_is_done_without(store: Store) -> None:
    before = store.told()
    store.path.unlink()
    store.path.mkdir()  # as good as a folder that is read-only, also for root
    assert store.told() == before
    assert Records(store.layout).code_digest("c", WIDE, lambda: "digest") == "digest"


def test_records_that_cannot_be_read_are_named_as_ever(store: Store) -> None:
    (store.layout.run_dir("2026-1") / "run.json").write_text("{")
    (store.layout.run_dir("2026-2") / "run.json").write_text('{"format": 1, "status": "finished", "attempts": []}')
    (store.layout.run_dir("2026-3") / "run.json").write_text('{"format": 7}')
    for _ in range(2):
        records = Records(store.layout)
        assert [one.run_id for one in records.heads()] == ["2026-0", "2026-4"]
        assert sorted(records.skipped) == ["2026-1", "2026-2", "2026-3"]
        assert "has format 7, this expmgr reads format 1" in records.skipped["2026-3"].reason


def test_a_code_digest_is_made_once(store: Store) -> None:
    made: list[int] = []

    def make() -> str:
        made.append(1)
        return "digest"

    assert [Records(store.layout).code_digest("c", WIDE, make) for _ in range(3)] == ["digest"] * 3
    assert len(made) == 1
    assert Records(store.layout).code_digest("other", WIDE, lambda: "another") == "another"


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from disk.test_index import Store, record
store, who = Store(Path(sys.argv[2])), int(sys.argv[3])
for number in range(30):
    store.write(record(f"2027-{who}-{number:02d}", seed=number))
    mine = [head for head in store.heads() if head.run_id.startswith(f"2027-{who}-")]
    assert len(mine) == number + 1, (len(mine), number)
    if number % 10 == 9 and who == 0:
        store.path.unlink(missing_ok=True)
"""


def test_several_processes_at_once_lose_nothing(store: Store, tmp_path: Path) -> None:
    """Four that write records and read lists, one of which takes the index away now and then."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(Path(__file__).parents[1]), str(tmp_path), str(who)],
            stderr=subprocess.PIPE, text=True, env=environment,
        )
        for who in range(4)
    ]  # fmt: skip
    for process in running:
        _, words = process.communicate(timeout=120)
        assert process.returncode == 0, words
    assert len(store.heads()) == 125
    assert len(store.told()) == 125
    assert len(store.rows()) == 125


# `expmgr list`.


@pytest.fixture
def listed(repo: Repo) -> Repo:
    """Three variants without TensorFlow: their records are written by hand."""
    assert repo.expmgr("init", "--example", "iris", "--commit").code == 0
    for name, setting in (("a", "[10, 10]"), ("b", "[20, 20]"), ("c", "[5]")):
        assert repo.expmgr("new", f"iris/{name}", "--set", f"model.hidden_units={setting}").code == 0
    assert repo.expmgr("new", "iris/d", "--set", "optimizer.learning_rate=0.5").code == 0
    store = Store(repo.path)
    for number, (name, value) in enumerate((("a", 0.7), ("b", 0.9), ("c", 0.8))):
        commit = repo.git("rev-parse", f"exp/iris/{name}").strip()
        metrics = {"selected": {"eval": {"accuracy": value}}}
        store.write(record(f"2026-{number}", f"iris/{name}", commit=commit, metrics=metrics))
    return repo


def names(repo: Repo, *options: str) -> list[str]:
    result = repo.expmgr("list", "--json", *options)
    assert result.code == 0, result.stderr
    return [one["variant"].removeprefix("iris/") for one in json.loads(result.stdout)["variants"]]


def test_conditions_and_order(listed: Repo) -> None:
    assert names(listed, "--sort", "-accuracy") == ["b", "c", "a", "d"]
    assert names(listed, "--sort", "accuracy", "--limit", "2") == ["a", "c"]
    assert names(listed, "--where", "accuracy>0.75", "--where", "accuracy <= 0.8") == ["c"]
    assert names(listed, "--where", "accuracy=null") == ["d"]
    assert names(listed, "--where", "accuracy==0.7") == ["a"]
    assert names(listed, "--where", "runs=0") == ["d"]
    assert names(listed, "--where", "variant~iris/b") == ["b"]
    assert names(listed, "--where", "optimizer.learning_rate=0.5") == ["d"]
    assert names(listed, "--where", "status!=finished") == ["d"]


def test_a_key_that_nothing_has_is_told_with_the_nearest(listed: Repo) -> None:
    result = listed.expmgr("list", "--where", "model.hiden_units=[20, 20]")
    assert (result.code, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: there is no key model.hiden_units to ask for\nNothing was changed.\nHint: did you mean model.hidden_units?\n"
    )
    refuses(listed, "list", "--where", "accuracy", code=2, words="a condition is KEY=VALUE")
    assert listed.expmgr("list", "--sort", "acuracy").stderr.endswith("Hint: did you mean accuracy?\n")
    nope = listed.expmgr("list", "nope")
    assert (nope.code, nope.stdout) == (1, "")
    assert nope.stderr.startswith("Error: there is no variant of an experiment nope\n")
    assert nope.stderr.endswith("Hint: there is iris\n")
    none = listed.expmgr("list", "--where", "accuracy>1")
    assert (none.code, none.stdout, none.stderr) == (0, "", "no variant is like that\n")
