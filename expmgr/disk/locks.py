"""The lock that gives a model_dir a single writer, also on storage that several machines share.

A holder owns the newest generation, a file `<generation>.json` made with O_EXCL in the lock's folder. A lock whose owner
is dead (same machine) or silent (another machine) is taken by making the next generation, so of two that try at once
one wins. Before every checkpoint the holder asks whether its generation is still the newest: a holder that was only
slow then knows that it lost the lock, and writes nothing more (fencing).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from expmgr.disk.durable import naming
from expmgr.disk.json_text import parse_json
from expmgr.errors import Busy

#: A holder on another machine that shows no sign of life for so long has lost its lock.
SILENCE_SECS = 60.0

#: What a file system says that knows no hard links (FAT, some network and container mounts).
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES})


@dataclass(frozen=True)
class Process:
    """A process, told apart from a later one with the same number. `pid_space` differs between containers."""

    host: str
    boot: str
    pid_space: str
    pid: int
    started: str
    machine: str = ""
    """What tells machines of one name apart; empty where nothing does, and in what an older expmgr wrote."""

    @classmethod
    def current(cls) -> Process:
        started = _start_time(os.getpid()) or ""
        return cls(socket.gethostname(), _boot_id(), _pid_space(), os.getpid(), started, _machine_id())

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Process:
        return cls(**{name: values[name] for name in cls.__dataclass_fields__ if name in values or name != "machine"})

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def is_alive(self) -> bool | None:
        """Whether the process runs; None where that cannot be seen from here (another machine or container)."""
        if self.host != socket.gethostname() or self.pid_space != _pid_space():
            return None
        if self.boot != _boot_id():
            # The same machine, started anew; or another one of its name, which shares the folder.
            return False if self.machine and self.machine == _machine_id() else None
        return _start_time(self.pid) == self.started


def _boot_id() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return "unknown"


def _machine_id() -> str:
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        with contextlib.suppress(OSError):
            return Path(path).read_text(encoding="ascii", errors="replace").strip()
    return ""


def _pid_space() -> str:
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return "unknown"


def _start_time(pid: int) -> str | None:
    """When the process began, as the system counts; None where there is no such process, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return None
    # macOS has no /proc. `ps` gives the second of the start, which tells a process from a later one of its number.
    found = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C", "TZ": "UTC"},
    ).stdout.split(maxsplit=1)
    return None if not found or found[0].startswith("Z") else found[-1].strip()


def _generation(number: int) -> str:
    return f"{number:08d}.json"


class Lock:
    """The right to write to one model_dir. Taken by `acquire`, checked by `is_held`, kept alive by `beat`."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = folder
        self._clock = clock
        self._mine: Path | None = None
        self._made: list[Path] = []
        """The folders that were made for the lock, the deepest first."""

    def acquire(self, what: str, wait: Callable[[float], None] = time.sleep) -> None:
        """Take the lock; `Busy` where another process holds `what`.

        A holder on another machine is watched for `SILENCE_SECS` of this machine's own clock before it counts as dead.
        If the lock cannot be had, the folders made for it are removed again.
        """
        self._made = [place for place in (self.folder, *self.folder.parents) if not place.exists()]
        try:
            self._take(what, wait)
        except BaseException:
            self._remove_made()
            raise

    def _take(self, what: str, wait: Callable[[float], None]) -> None:
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            newest = self._newest()
            if newest is not None and self._is_live(newest, wait):
                owner = self._read(newest).get("owner", {})
                raise Busy(
                    f"{what} is in use by process {owner.get('pid', '?')} on {owner.get('host', '?')}",
                    left_alone="Nothing was changed.",
                    hint="wait for it to end; expmgr list shows what runs",
                )
            number = int(newest.stem) + 1 if newest is not None else 1
            mine = self.folder / _generation(number)
            if self._claim(mine):
                if self._newest() != mine:  # the number was free only because others have gone on from it
                    mine.unlink(missing_ok=True)
                    continue
                self._mine = mine
                for older in self._generations():
                    if older < mine:
                        older.unlink(missing_ok=True)
                return

    def is_held(self) -> bool:
        """Whether this is still the newest generation: the question before every write."""
        return self._mine is not None and self._newest() == self._mine

    def beat(self) -> None:
        """A sign of life for other machines; called every few seconds."""
        if self._mine is not None:
            with contextlib.suppress(OSError):
                os.utime(self._mine)

    def release(self) -> None:
        """Give the lock back. The generation stays, as released: one that is slow must not find its number free."""
        if self._mine is not None and self.is_held():
            with contextlib.suppress(OSError):
                os.replace(self._draft({"format": 1, "released": True}), self._mine)
        self._mine = None

    def withdraw(self) -> None:
        """Give back a lock under which nothing was written, as if it had never been taken.

        Where others have had it, its number must not become free again: then it is only released.
        """
        if self._mine is None or self._mine.name != _generation(1) or not self.is_held():
            self.release()
            return
        self._mine.unlink(missing_ok=True)
        self._mine = None
        self._remove_made()

    def _remove_made(self) -> None:
        for folder in self._made:
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _claim(self, mine: Path) -> bool:
        """Make `mine`, whole, if nobody made it before: a link to a written file, since O_EXCL makes an empty one."""
        try:
            draft = self._draft({"format": 1, "owner": Process.current().as_dict()})
        except FileNotFoundError:  # who withdrew took the folder along
            return False
        try:
            os.link(draft, mine)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return self._claim_without_links(draft, mine)
        finally:
            draft.unlink(missing_ok=True)
        return True

    @staticmethod
    def _claim_without_links(draft: Path, mine: Path) -> bool:
        """On a file system without hard links: whoever reads it while it is empty goes on from it, and we lose it."""
        try:
            with open(mine, "xb") as file:
                file.write(draft.read_bytes())
        except FileExistsError:
            return False
        return True

    def _draft(self, values: dict[str, Any]) -> Path:
        draft = self.folder / f".{os.urandom(6).hex()}.tmp"
        content = json.dumps(values).encode()
        with naming(draft, len(content)):
            draft.write_bytes(content)
        return draft

    def _generations(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*.json") if path.stem.isdigit())

    def _newest(self) -> Path | None:
        generations = self._generations()
        return generations[-1] if generations else None

    @staticmethod
    def _read(path: Path) -> dict[str, Any]:
        try:
            values = parse_json(path.read_bytes())
        except (OSError, ValueError):
            return {}
        return values if isinstance(values, dict) else {}

    def _is_live(self, path: Path, wait: Callable[[float], None]) -> bool:
        owner = self._read(path).get("owner")
        alive = Process.from_dict(owner).is_alive() if owner else False
        if alive is not None:
            return alive
        seen, since = self._stamp(path), self._clock()
        while self._clock() - since < SILENCE_SECS:
            wait(1.0)
            if self._stamp(path) != seen:
                return self._stamp(path) is not None
        return False

    @staticmethod
    def _stamp(path: Path) -> int | None:
        try:
            return path.stat().st_mtime_ns
        except FileNotFoundError:
            return None


class Heartbeat:
    """Calls `beat` every few seconds, beside the work, until the `with` block ends."""

    def __init__(self, beat: Callable[[], None], every_s: float = 5.0) -> None:
        self._beat = beat
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            self._beat()


@contextlib.contextmanager
def held(
    folder: Path, what: str, *, wait: Callable[[float], None] = time.sleep, undo_on_error: bool = False
) -> Iterator[Lock]:
    """The lock in `folder` for the time of a `with` block, kept alive by a heartbeat; `Busy` if another process holds `what`.

    After an error it is released; with `undo_on_error`, for work that wrote nothing, it is as if it had never been taken.
    """
    lock = Lock(folder)
    lock.acquire(what, wait)
    try:
        with Heartbeat(lock.beat):
            yield lock
    except BaseException:
        (lock.withdraw if undo_on_error else lock.release)()
        raise
    lock.release()
