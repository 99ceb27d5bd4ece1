"""One writer a model_dir: taken, refused, taken over from the dead, and fenced."""

from __future__ import annotations

import errno
import inspect
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from expmgr.disk import locks
from expmgr.disk.locks import SILENCE_SECS, Heartbeat, Lock, Process, held
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
    """A monotonic clock, which may stand anywhere when a process asks for the first time."""

    def __init__(self, now: float) -> None:
        self.begin = self.now = now

    def clock(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds

    @property
    def waited(self) -> float:
        return self.now - self.begin


@pytest.fixture(params=[0.0, 20.0, 5_000_000.0])
def time(request: pytest.FixtureRequest) -> Time:
    return Time(request.param)


def test_an_owner_on_another_machine_is_dead_after_a_minute_of_silence(folder: Path, time: Time) -> None:
    assert SILENCE_SECS == 60.0
    hold(folder, replace(Process.current(), host="elsewhere"))
    lock = Lock(folder, time.clock)
    lock.acquire("it", time.wait)
    assert 60 <= time.waited < 62
    assert lock.is_held()


@pytest.mark.parametrize("first_sign_s", [1, 30, 59])
def test_an_owner_on_another_machine_that_shows_life_keeps_it(folder: Path, time: Time, first_sign_s: float) -> None:
    path = hold(folder, replace(Process.current(), host="elsewhere"))

    def wait(seconds: float) -> None:
        time.wait(seconds)
        if time.waited >= first_sign_s:
            os.utime(path, ns=(1, int(time.now * 1e9)))

    lock = Lock(folder, time.clock)
    with pytest.raises(Busy, match="on elsewhere"):
        lock.acquire("it", wait)
    assert (time.waited, lock.is_held(), [one.name for one in folder.iterdir()]) == (first_sign_s, False, [path.name])


@pytest.mark.parametrize("how", ["withdrawn", "released"])
def test_an_owner_on_another_machine_that_gives_it_back_is_not_waited_for(folder: Path, time: Time, how: str) -> None:
    path = hold(folder, replace(Process.current(), host="elsewhere"))

    def wait(seconds: float) -> None:
        time.wait(seconds)
        if how == "withdrawn":
            path.unlink()
        else:
            path.write_text(json.dumps({"format": 1, "released": True}))
            os.utime(path, ns=(1, int(time.now * 1e9)))

    lock = Lock(folder, time.clock)
    if how == "withdrawn":
        lock.acquire("it", wait)
    else:  # it moved: who tries again has it
        with pytest.raises(Busy):
            lock.acquire("it", wait)
        lock.acquire("it", never)
    assert time.waited == 1
    assert lock.is_held()


@pytest.mark.parametrize(
    ("other", "is_alive"),
    [
        ({}, True),
        ({"started": "0"}, False),
        ({"host": "elsewhere"}, None),
        ({"pid_space": "another container"}, None),
        ({"boot": "another"}, False),  # this machine, started anew
        ({"boot": "another", "machine": "its twin"}, None),  # two machines of one name that share the folder
        ({"boot": "another", "machine": ""}, None),  # an older expmgr wrote it
    ],
)
def test_only_what_can_be_seen_from_here_is_known(
    other: dict[str, str], is_alive: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_machine_id", lambda: "this machine")
    assert replace(Process.current(), **other).is_alive() is is_alive


def test_a_machine_without_an_id_is_not_taken_for_another_one_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_machine_id", lambda: "")
    assert replace(Process.current(), boot="another").is_alive() is None


def test_a_process_that_is_only_not_collected_is_dead(folder: Path) -> None:
    """Its parent has not asked for its exit code yet: it has a number and a start, and writes nothing more."""
    gone = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = locks._start_time(gone.pid)
    assert started
    hold(folder, replace(Process.current(), pid=gone.pid, started=started))
    with pytest.raises(Busy):
        Lock(folder).acquire("it", never)
    assert gone.stdin is not None
    gone.stdin.close()
    os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)  # ended, and left as it is
    Lock(folder).acquire("it", never)
    gone.wait()


def test_a_holder_that_was_only_slow_knows_that_it_lost(folder: Path) -> None:
    slow = Lock(folder)
    slow.acquire("it")
    hold(folder, replace(Process.current(), host="elsewhere"), generation=2)
    (folder / "00000001.json").unlink()  # as whoever took it over does
    assert not slow.is_held()
    slow.beat()
    slow.release()
    assert [path.name for path in folder.iterdir()] == ["00000002.json"]
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


def test_a_lock_that_cannot_be_had_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="No space left"):
        Lock(tmp_path / "models" / ".locks" / "seed-0").acquire("it", never)
    assert list(tmp_path.iterdir()) == []


# Signs of life, and `held`.


def test_a_beat_is_seen_by_others(folder: Path) -> None:
    lock = Lock(folder)
    lock.beat()  # not held: nothing to show
    lock.acquire("it", never)
    (path,) = folder.iterdir()
    os.utime(path, ns=(1, 1))
    lock.beat()
    assert path.stat().st_mtime_ns > 1


def test_a_heartbeat_beats_until_the_work_ends() -> None:
    beats, thrice = [0], threading.Event()

    def beat() -> None:
        beats[0] += 1
        if beats[0] == 3:
            thrice.set()

    with Heartbeat(beat, every_s=0.001):
        assert thrice.wait(30)
    count = beats[0]
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}
    assert beats[0] == count


def test_a_holder_shows_life_many_times_in_a_minute() -> None:
    """A machine that is slow for some seconds, or a file system that shows times late, loses no lock."""
    assert inspect.signature(Heartbeat).parameters["every_s"].default == 5.0


def test_held_takes_it_and_gives_it_back(folder: Path) -> None:
    with held(folder, "it", wait=never) as lock:
        assert lock.is_held()
        assert "heartbeat" in {thread.name for thread in threading.enumerate()}
        with pytest.raises(Busy, match=r"^it is in use"), held(folder, "it", wait=never):
            pass
        assert lock.is_held()
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}
    with held(folder, "it", wait=never):
        assert [path.name for path in folder.iterdir()] == ["00000002.json"]


@pytest.mark.parametrize("undo", [False, True])
def test_held_gives_it_back_after_an_error(folder: Path, undo: bool) -> None:
    """Work that wrote nothing leaves nothing; else the generation stays, so that one that is slow finds it taken."""
    with pytest.raises(ValueError, match="no work"), held(folder, "it", wait=never, undo_on_error=undo):
        raise ValueError("no work")
    names = [path.name for path in folder.iterdir()] if folder.exists() else None
    assert names == (None if undo else ["00000001.json"])
    Lock(folder).acquire("it", never)
