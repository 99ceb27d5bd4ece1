"""One writer a model_dir: taken, refused, taken over from the dead, and fenced."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from expmgr.disk.locks import SILENCE_SECS, Lock, Process
from expmgr.errors import Busy


def hold(folder: Path, owner: Process, generation: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{generation:08d}.json"
    path.write_text(json.dumps({"format": 1, "owner": owner.as_dict()}))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "locks" / "seed-0"


def never(_seconds: float) -> None:
    raise AssertionError("there was nothing to wait for")


def test_a_second_holder_is_told_who_has_it(folder: Path) -> None:
    first = Lock(folder)
    first.acquire("models/iris/wide/seed-0")
    with pytest.raises(Busy) as caught:
        Lock(folder).acquire("models/iris/wide/seed-0", never)
    assert caught.value.lines()[0] == (
        f"Error: models/iris/wide/seed-0 is in use by process {os.getpid()} on {Process.current().host}"
    )
    assert first.is_held()
    first.release()
    second = Lock(folder)
    second.acquire("it", never)
    assert second.is_held()
    assert not first.is_held()


def test_a_dead_owner_on_this_machine_loses_it_at_once(folder: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    hold(folder, replace(Process.current(), pid=gone.pid, started="1"))
    lock = Lock(folder)
    lock.acquire("it", never)
    assert lock.is_held()


@pytest.mark.parametrize("other", [{"started": "an earlier start"}, {"boot": "another boot"}])
def test_a_later_process_with_the_same_number_is_not_the_owner(folder: Path, other: dict[str, str]) -> None:
    hold(folder, replace(Process.current(), **other))
    Lock(folder).acquire("it", never)


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


def test_an_owner_on_another_machine_is_dead_after_silence(folder: Path) -> None:
    hold(folder, replace(Process.current(), host="elsewhere"))
    time = Time()
    Lock(folder, time.clock).acquire("it", time.wait)
    assert time.now >= SILENCE_SECS


def test_an_owner_on_another_machine_that_shows_life_keeps_it(folder: Path) -> None:
    path = hold(folder, replace(Process.current(), host="elsewhere"))
    time = Time()

    def wait(seconds: float) -> None:
        time.wait(seconds)
        if time.now > SILENCE_SECS / 2:
            os.utime(path, ns=(1, int(time.now * 1e9)))

    with pytest.raises(Busy, match="on elsewhere"):
        Lock(folder, time.clock).acquire("it", wait)


def test_a_holder_that_was_only_slow_knows_that_it_lost(folder: Path) -> None:
    slow = Lock(folder)
    slow.acquire("it")
    hold(folder, replace(Process.current(), host="elsewhere"), generation=2)
    assert not slow.is_held()
    slow.release()
    assert json.loads((folder / "00000002.json").read_text())["owner"]["host"] == "elsewhere"


def test_generations_never_go_down(folder: Path) -> None:
    for number in range(1, 4):
        lock = Lock(folder)
        lock.acquire("it")
        assert [path.name for path in folder.iterdir()] == [f"{number:08d}.json"]
        lock.release()


CONTENDER = """
import sys, os, time
from pathlib import Path
from expmgr.errors import Busy
from expmgr.disk.locks import Lock
folder, inside, total = Path(sys.argv[1]), Path(sys.argv[2]), 0
deadline = time.monotonic() + 60
while total < 10 and time.monotonic() < deadline:
    lock = Lock(folder)
    try:
        lock.acquire("it")
    except Busy:
        time.sleep(0.001)
        continue
    try:
        os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        sys.exit("two holders")
    os.unlink(inside)
    total += 1
    if total == 5 and sys.argv[3] == "dies":
        os.kill(os.getpid(), 9)
    lock.release()
print(total)
"""


def test_sixteen_contenders_of_which_some_die(folder: Path, tmp_path: Path) -> None:
    def start(number: int) -> subprocess.Popen[str]:
        how = "dies" if number % 4 == 0 else "lives"
        command = [sys.executable, "-c", CONTENDER, str(folder), str(tmp_path / "inside"), how]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    told = [(process.communicate(), process.returncode) for process in [start(number) for number in range(16)]]
    assert sorted(code for _, code in told) == [-9] * 4 + [0] * 12, told
    assert {out for (out, _), code in told if code == 0} == {"10\n"}


def test_where_there_are_no_hard_links(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)  # no such file system can be mounted here
    first, second = Lock(folder), Lock(folder)
    first.acquire("it", never)
    with pytest.raises(Busy):
        second.acquire("it", never)
    first.release()
    second.acquire("it", never)
    assert (first.is_held(), second.is_held()) == (False, True)
    assert not list(folder.glob(".*"))


def test_a_lock_that_was_not_needed_leaves_nothing(tmp_path: Path) -> None:
    """Where others had it before, its number does not become free: a slow one would take it for its own."""
    lock = Lock(tmp_path / "models" / "iris" / ".locks" / "seed-0")
    lock.acquire("it", never)
    lock.withdraw()
    assert list(tmp_path.iterdir()) == []
    assert not lock.is_held()
    lock.acquire("it", never)
    lock.release()
    lock.acquire("it", never)
    lock.withdraw()
    assert [path.name for path in lock.folder.iterdir()] == ["00000002.json"]
    again = Lock(lock.folder)
    again.acquire("it", never)
    assert again.is_held()


def test_a_folder_that_goes_while_a_lock_is_taken_is_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newest, turns = Lock._newest, iter([True])

    def late(lock: Lock) -> Path | None:
        found = newest(lock)
        if next(turns, False):
            lock.folder.rmdir()  # by another one's `withdraw`
        return found

    monkeypatch.setattr(Lock, "_newest", late)
    lock = Lock(folder)
    lock.acquire("it", never)
    assert lock.is_held()
