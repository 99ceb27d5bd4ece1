"""Files on disk: lines that a crash cut, values that no JSON has, folders that cannot be written; and a lock's last details."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import threading
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from disk.test_index import record
from disk.test_locks import Time, hold, never
from expmgr.disk import durable, locks
from expmgr.disk.index import LARGEST, Index, is_final
from expmgr.disk.locks import SILENCE_SECS, Heartbeat, Lock, Process, held
from expmgr.errors import Busy, DiskFull


def test_lines_are_read_as_far_as_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert durable.read_lines(path) == ([], 0)
    assert durable.read_lines(path, 7) == ([], 7)
    durable.append_line(path, {"a": 1})
    assert path.read_bytes() == b'7 %08x {"a":1}\n' % zlib.crc32(b'{"a":1}')
    assert path.stat().st_mode & 0o777 == 0o644 & ~_umask()
    first = path.stat().st_size
    assert durable.read_lines(path) == ([{"a": 1}], first)
    durable.append_line(path, "two")
    assert path.read_bytes().count(b"\n") == 2  # no empty line between whole ones
    whole = path.stat().st_size
    assert durable.read_lines(path) == ([{"a": 1}, "two"], whole)
    assert durable.read_lines(path, first) == (["two"], whole)
    assert durable.read_lines(path, whole) == ([], whole)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_line_that_a_crash_cut_costs_only_itself(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "events.jsonl"
    durable.append_line(path, "one")
    first = path.stat().st_size
    durable.append_line(path, "two")
    os.truncate(path, path.stat().st_size - cut)
    assert durable.read_lines(path) == (["one"], first)  # the rest may still be written
    durable.append_line(path, "three")
    assert durable.read_lines(path)[0] == (["one", "two", "three"] if cut == 1 else ["one", "three"])


@pytest.mark.parametrize("place", range(17))
def test_a_line_with_one_other_byte_is_passed_over(tmp_path: Path, place: int) -> None:
    path = tmp_path / "events.jsonl"
    durable.append_line(path, "x" * 4)
    damaged = bytearray(path.read_bytes())
    assert len(damaged) == 18
    damaged[place] ^= 1
    path.write_bytes(bytes(damaged))
    durable.append_line(path, "after")
    assert durable.read_lines(path)[0] == ["after"]


def test_what_json_does_not_know_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    durable.write_json(path, {"b": "ä", "a": [1]})
    assert path.read_text(encoding="utf-8") == '{\n "b": "ä",\n "a": [\n  1\n ]\n}\n'
    with pytest.raises(ValueError, match="Out of range"):
        durable.write_json(path, float("nan"))
    with pytest.raises(ValueError, match="Out of range"):
        durable.append_line(path, float("inf"))
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]
    assert json.loads(path.read_bytes()) == {"b": "ä", "a": [1]}
    lines = tmp_path / "lines"
    durable.append_line(lines, {"k": "ä"})
    assert lines.read_bytes().endswith(' {"k":"ä"}\n'.encode())


def test_a_file_that_could_not_be_replaced_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):  # noqa: PT011
        durable.write_bytes(tmp_path / "folder", b"x")
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]


def test_errors_of_the_disk_are_told_from_others() -> None:
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG):
        with pytest.raises(DiskFull) as full, durable.disk_errors("a checkpoint"):
            raise OSError(number, os.strerror(number))
        what = "read or written" if number == errno.EIO else "written"
        assert full.value.message == f"a checkpoint could not be {what}: {os.strerror(number)}"
    with pytest.raises(PermissionError), durable.disk_errors("a checkpoint"):
        raise PermissionError(errno.EACCES, "no")
    with durable.disk_errors("a checkpoint"):
        pass


def test_a_copy_is_a_link_or_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"weights")
    durable.copy_file(source, tmp_path / "link")
    assert (tmp_path / "link").samefile(source)

    def refuse(number: int) -> None:
        def link(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "link", link)

    refuse(errno.EXDEV)
    durable.copy_file(source, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"weights"
    assert not (tmp_path / "copy").samefile(source)
    refuse(errno.ENOSPC)
    with pytest.raises(OSError, match="space"):
        durable.copy_file(source, tmp_path / "third")
    assert not (tmp_path / "third").exists()


def test_why_a_folder_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert durable.unwritable(tmp_path) is None
    assert durable.unwritable(tmp_path / "not" / "there") is None
    (tmp_path / "file").touch()
    assert durable.unwritable(tmp_path / "file") == os.strerror(errno.ENOTDIR)
    assert durable.unwritable(tmp_path / "file" / "below") == os.strerror(errno.ENOTDIR)
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    assert durable.unwritable(tmp_path / "nowhere" / "below") == os.strerror(errno.ENOTDIR)
    asked: list[int] = []

    def access(_: object, mode: int) -> bool:  # as root, every folder can be written
        asked.append(mode)
        return False

    monkeypatch.setattr(os, "access", access)
    assert durable.unwritable(tmp_path) == os.strerror(errno.EACCES)
    assert asked == [os.W_OK | os.X_OK]

    class ReadOnly:
        f_flag = os.ST_RDONLY | 4096

    monkeypatch.setattr(os, "statvfs", lambda _: ReadOnly())
    assert durable.unwritable(tmp_path) == os.strerror(errno.EROFS)


def test_the_digest_of_a_large_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "large").write_bytes(content)
    assert durable.sha256(tmp_path / "large") == hashlib.sha256(content).hexdigest()
    (tmp_path / "empty").touch()
    assert durable.sha256(tmp_path / "empty") == hashlib.sha256().hexdigest()


def test_every_folder_that_is_made_is_named_durably(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[Path] = []
    monkeypatch.setattr(durable, "fsync_dir", named.append)
    durable.make_folder(tmp_path / "a" / "b")
    assert named == [tmp_path, tmp_path / "a"]
    durable.make_folder(tmp_path / "a" / "b")
    assert len(named) == 2


# Locks.


@pytest.mark.parametrize(
    ("other", "alive"),
    [
        ({}, True),
        ({"started": "1"}, False),
        ({"host": "elsewhere"}, None),
        ({"pid_space": "pid:[1]"}, None),
        ({"boot": "another"}, False),
        ({"boot": "another", "machine": "another"}, None),
        ({"boot": "another", "machine": ""}, None),
        ({"machine": "another"}, True),  # of this boot: what an older expmgr did not write decides nothing
    ],
)
def test_whether_a_process_runs(other: dict[str, Any], alive: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_machine_id", lambda: "this machine")
    assert replace(Process.current(), **other).is_alive() is alive


def test_what_tells_processes_apart() -> None:
    me = Process.current()
    assert (me.host, me.pid) == (socket.gethostname(), os.getpid())
    assert Process.from_dict(me.as_dict()) == me
    older = {name: value for name, value in me.as_dict().items() if name != "machine"}
    assert Process.from_dict(older) == replace(me, machine="")
    with pytest.raises(KeyError):
        Process.from_dict({"host": "here"})
    child = os.fork()
    if child == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert locks._start_time(child) is None  # its remains are no process
    finally:
        os.waitpid(child, 0)
    assert locks._start_time(child) is None
    assert locks._start_time(os.getpid()) == me.started != ""


def test_an_owner_elsewhere_is_watched_for_the_whole_silence(tmp_path: Path) -> None:
    hold(tmp_path, replace(Process.current(), host="elsewhere"))
    time = Time(0.0)
    Lock(tmp_path, time.clock).acquire("it", time.wait)
    assert time.now == SILENCE_SECS == 60


def test_an_owner_elsewhere_that_gives_the_lock_back_is_no_longer_waited_for(tmp_path: Path) -> None:
    path = hold(tmp_path, replace(Process.current(), host="elsewhere"))
    time = Time(0.0)

    def wait(seconds: float) -> None:
        time.wait(seconds)
        path.unlink(missing_ok=True)

    lock = Lock(tmp_path, time.clock)
    lock.acquire("it", wait)
    assert (lock.is_held(), time.now) == (True, 1)


@pytest.mark.parametrize("content", ["", "[]", "3", "{}", '{"owner": {}}', '{"owner": null}'])
def test_a_generation_that_names_nobody_is_free(tmp_path: Path, content: str) -> None:
    (tmp_path / "00000007.json").write_text(content)
    (tmp_path / "notes.json").write_text("{}")  # no generation
    lock = Lock(tmp_path)
    lock.acquire("it", never)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["00000008.json", "notes.json"]
    lock.release()
    assert json.loads((tmp_path / "00000008.json").read_text()) == {"format": 1, "released": True}
    assert sorted(one.name for one in tmp_path.iterdir()) == ["00000008.json", "notes.json"]


def test_a_lock_that_cannot_be_had_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match="broken"):
        Lock(tmp_path / "a" / "b").acquire("it", never)
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_others_have_gone_on_from_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim, turns = Lock._claim, iter([True])

    def late(lock: Lock, mine: Path) -> bool:
        if next(turns, False):
            hold(tmp_path, replace(Process.current(), started="1"), generation=5)
        return claim(lock, mine)

    monkeypatch.setattr(Lock, "_claim", late)
    lock = Lock(tmp_path)
    lock.acquire("it", never)
    assert [one.name for one in tmp_path.iterdir()] == ["00000006.json"]
    assert lock.is_held()


def test_without_hard_links_the_second_at_a_number_loses(tmp_path: Path) -> None:
    draft, mine = tmp_path / "draft", tmp_path / "00000001.json"
    draft.write_bytes(b"{}")
    assert Lock._claim_without_links(draft, mine) is True
    assert mine.read_bytes() == b"{}"
    draft.write_bytes(b"others")
    assert Lock._claim_without_links(draft, mine) is False
    assert mine.read_bytes() == b"{}"


def test_a_sign_of_life_moves_the_time_of_the_generation(tmp_path: Path) -> None:
    lock = Lock(tmp_path)
    lock.beat()  # of nothing
    lock.acquire("it", never)
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text()) == {"format": 1, "owner": Process.current().as_dict()}
    os.utime(path, (1, 1))
    lock.beat()
    assert path.stat().st_mtime > 1
    path.unlink()
    lock.beat()  # somebody took it away: no error, the next question says it
    assert not lock.is_held()


def test_a_heart_beats_until_the_work_ends() -> None:
    beaten = threading.Event()
    counted: list[int] = []

    def beat() -> None:
        counted.append(1)
        if len(counted) == 3:
            beaten.set()

    with Heartbeat(beat, every_s=0.001):
        assert beaten.wait(30)
    after = len(counted)
    assert not any(one.name == "heartbeat" for one in threading.enumerate())
    assert len(counted) == after


def test_a_lock_for_a_block_is_given_back_as_the_block_ends(tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    with held(folder, "it", wait=never) as lock:
        assert lock.is_held()
        with pytest.raises(Busy), held(folder, "it", wait=never):
            pass
    assert json.loads((folder / "00000001.json").read_text())["released"] is True
    with pytest.raises(ValueError, match="wrong"), held(folder, "it", wait=never):
        raise ValueError("wrong")
    assert json.loads((folder / "00000002.json").read_text())["released"] is True
    other = tmp_path / "other"
    with pytest.raises(ValueError, match="wrong"), held(other, "it", wait=never, undo_on_error=True):
        raise ValueError("wrong")
    assert not other.exists()


def test_an_untaken_or_lost_lock_gives_nothing_back(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "locks")
    lock.release()
    lock.withdraw()
    assert not lock.is_held()
    lock.acquire("it", never)
    hold(lock.folder, replace(Process.current(), host="elsewhere"), generation=2)
    lock.withdraw()
    assert sorted(one.name for one in lock.folder.iterdir()) == ["00000001.json", "00000002.json"]


# The index.


@pytest.mark.parametrize(
    "values",
    [
        {"format": 2}, {"status": "running"}, {"run_id": None}, {"variant": 1}, {"seed": "0"}, {"commit": None},
        {"code_digest": 1}, {"spec": []}, {"metrics": []}, {"attempts": None}, {"attempts": []}, {"attempts": [3]},
        {"attempts": [{}]}, {"attempts": [{"started_at": "now"}]},
    ],
)  # fmt: skip
def test_a_record_that_has_not_ended_or_is_none_is_not_kept(values: dict[str, Any]) -> None:
    assert is_final(record("2026-0"))
    assert not is_final({**record("2026-0"), **values})


def test_what_is_a_last_word() -> None:
    for content in (None, [], "x", {}):
        assert not is_final(content)
    for status in ("finished", "failed", "preempted", "killed"):
        assert is_final(record("2026-0", status=status))
    made = record("2026-0")
    del made["metrics"]
    assert is_final(made)
    assert is_final(record("2026-0", attempts=[{}, {"started_at": 5}]))  # the newest attempt decides
    assert not is_final(record("2026-0", attempts=[{"started_at": 5}, {}]))


def test_a_head_has_what_the_record_has(tmp_path: Path) -> None:
    runs, path = tmp_path / "runs", tmp_path / "index.sqlite"
    attempts = [{"started_at": 5.0}, {"started_at": 7.0}]
    made = {
        "2026-0": record("2026-0", attempts=attempts, warm_start={"from": "iris/wide"}, by_hand={"script": "a.py"}),
        "2026-1": record("2026-1", spec={"model": {}}, metrics={}),
        "2026-2": record("2026-2", metrics={"selected": {"eval": {"accuracy": LARGEST, "loss": -LARGEST / 2}}}),
    }
    for name, content in made.items():
        (runs / name).mkdir(parents=True)
        (runs / name / "run.json").write_text(json.dumps(content))
    for times_read in (3, 0):  # from the records, and from the index
        read: list[str] = []

        def reading(name: str, read: list[str] = read) -> Any:
            read.append(name)
            return made[name], True, ""

        first, second, third = Index(path, runs).heads(reading, bool)
        assert len(read) == times_read
        assert (first.started_at, first.warm_start, first.by_hand) == (7.0, {"from": "iris/wide"}, True)
        assert (first.metric_name, first.split, first.metric("accuracy", "eval")) == ("accuracy", "eval", 0.5)
        assert (second.warm_start, second.by_hand, second.metric_name, second.split) == (None, None, None, None)
        assert second.metric("accuracy", "eval") is None
        assert second.spec == {"model": {}}
        assert third.metric("accuracy", "eval") is None  # beyond what can be calculated with
        assert third.metric("loss", "eval") == -LARGEST / 2
        assert third.metric("loss", "test") is None


def test_a_run_that_goes_on_is_read_each_time(tmp_path: Path) -> None:
    (tmp_path / "runs" / "2026-0").mkdir(parents=True)
    (tmp_path / "runs" / "2026-0" / "run.json").write_text("{}")
    (tmp_path / "runs" / "2026-1").mkdir()  # without a record
    read: list[str] = []

    def reading(name: str) -> Any:
        read.append(name)
        return record(name, status="running"), False, ""

    for _ in range(2):
        assert [one.status for one in Index(tmp_path / "index.sqlite", tmp_path / "runs").heads(reading, bool)] == [
            "running"
        ]
    assert read == ["2026-0", "2026-0"]
    index = Index(tmp_path / "index.sqlite", tmp_path / "runs")
    assert index.heads(lambda _: None, bool) == []
    assert Index(tmp_path / "index.sqlite", tmp_path / "gone").heads(reading, bool) == []


def test_digests_and_signatures_are_asked_for_once(tmp_path: Path) -> None:
    index = Index(tmp_path / "index.sqlite", tmp_path / "runs")
    asked: list[str] = []

    def made(answer: str | None) -> Any:
        asked.append(str(answer))
        return answer

    for _ in range(2):
        assert index.code_digest("c1", "iris/wide", lambda: made("d1")) == "d1"
        assert index.code_digest("c1", "iris/deep", lambda: made("d2")) == "d2"
        assert index.signature("c1", "s1", lambda: made("Ann")) == "Ann"
        assert index.signature("c1", "s2", lambda: made("")) == ""
        assert index.signature("c2", "s1", lambda: made(None)) is None
    assert asked == ["d1", "d2", "Ann", "", "None", "None"]


def test_rows_of_a_log_are_kept_from_where_they_change(tmp_path: Path) -> None:
    index = Index(tmp_path / "index.sqlite", tmp_path / "runs")
    rows: list[Any] = [(f"c{number}", f"e{number}", number, "note", "{}") for number in range(4)]
    index.keep_log("ref", "c1", rows[:2], after=0)
    index.keep_log("other", "c0", rows[:1], after=0)
    index.keep_log("ref", "c3", rows[2:], after=2)
    assert index.log_rows("ref") == rows
    assert index.log_tips() == {"ref": "c3", "other": "c0"}
    index.keep_log("ref", "c2", rows[2:3], after=1)
    assert index.log_rows("ref") == [rows[0], rows[2]]
    index.keep_log("ref", "c0", rows[:1], after=0)
    assert (index.log_rows("ref"), index.log_rows("other")) == (rows[:1], rows[:1])


def test_free_bytes_are_those_of_the_nearest_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert durable.nearest_folder(tmp_path / "not" / "there") == tmp_path
    free = durable.free_bytes(tmp_path / "not" / "there")
    assert free is not None
    assert free > 0
    found = os.statvfs(tmp_path)

    class NoInodes:
        f_files, f_favail, f_bavail, f_frsize = found.f_files or 1, 0, 7, 4096

    monkeypatch.setattr(os, "statvfs", lambda _: NoInodes())
    assert durable.free_bytes(tmp_path) == 0
