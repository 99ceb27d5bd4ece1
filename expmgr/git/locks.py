"""Lock files that a killed git left: finds them, proves that they are dead, and deletes our own.

git makes `<file>.lock` while it changes a file, and deletes it at its end, also when a signal ends it. Only SIGKILL, a
crash of the machine or an end of memory leaves one, and git then refuses for ever.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from expmgr.disk import durable
from expmgr.paths import BRANCH_PREFIX

#: git holds the lock of a ref for milliseconds; its own patience with others is at most a second.
DEAD_AFTER_S = 10
#: Refs that are moved by us, and by people seldom. All other locks are a person's own.
_OURS = ("refs/expmgr/", f"refs/heads/{BRANCH_PREFIX}")
_FILES = ("packed-refs.lock", "HEAD.lock", "index.lock", "config.lock", "shallow.lock")
#: File systems on which no other machine can hold a lock.
_LOCAL = (
    *("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "reiserfs", "bcachefs", "nilfs2"),
    *("tmpfs", "ramfs", "overlay", "ecryptfs", "ntfs3", "vfat", "exfat"),
)
#: The precision of a process's start time.
_TICK_S = 0.02
_FIRST_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO in linux/proc_ns.h
#: They live in a repository as long as the machine runs, and lock nothing.
_HARMLESS = ("fsmonitor--daemon", "credential-cache--daemon")


@dataclass(frozen=True)
class GitLock:
    """A lock file of git. `age_s`: since it was made; `doubt`: why it may be in use, empty where it is provably dead."""

    path: Path
    age_s: float
    is_ours: bool
    doubt: str
    made: tuple[int, ...]
    """What tells this file from another one of the same name."""

    @property
    def command(self) -> str:
        """What a person types to take it away."""
        return f"rm {shlex.quote(str(self.path))}"

    @property
    def fact(self) -> str:
        age = f"is {duration(self.age_s)} old" if self.age_s >= 0 else "has a time in the future"
        return f"{self.path} {age}: {self.doubt or 'no git works in this repository, so a killed one left it'}"

    @property
    def is_young(self) -> bool:
        """Whether it is so new that whoever holds it may be about to end, and so that it is not known to be dead yet."""
        return 0 <= self.age_s < DEAD_AFTER_S

    @property
    def remains(self) -> str:
        """What a dead lock is, once it is deleted."""
        return f"a lock that a killed git left {duration(self.age_s)} ago: no git works in this repository"


@dataclass(frozen=True)
class _Process:
    pid: int
    name: str
    command: str
    is_git: bool
    started_at: float


def duration(seconds: float) -> str:
    """How old a lock is, as people say it."""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{max(0, int(seconds))} seconds"


def lock_paths(common: Path, git_dir: Path) -> list[Path]:
    """The lock files of a repository, those of its worktrees too."""
    folders = dict.fromkeys([common, git_dir, *sorted(common.glob("worktrees/*"))])
    found = [folder / name for folder in folders for name in _FILES]
    found += sorted((common / "reftable").glob("*.lock"))
    walked = os.walk(common / "refs")
    found += sorted(Path(folder, name) for folder, _, files in walked for name in files if name.endswith(".lock"))
    return [path for path in found if os.path.lexists(path)]


def find_locks(common: Path, git_dir: Path, now: float | None = None) -> list[GitLock]:
    """All lock files of a repository, and what is known of each."""
    found = []
    for path in lock_paths(common, git_dir):
        with contextlib.suppress(FileNotFoundError):
            found.append(_examine(path, common, time.time() if now is None else now))
    return found


def named_in(locks: Iterable[GitLock], common: Path, words: str) -> list[GitLock]:
    """Those of `locks` that git speaks of: by their path, or by the ref that they lock. A lock on all refs is always
    meant where git speaks of locks."""
    if "lock" not in words.lower():
        return []
    found = []
    for lock in locks:
        relative = str(lock.path.relative_to(common)) if lock.path.is_relative_to(common) else lock.path.name
        names = {relative, relative.removesuffix(".lock")} - {"HEAD", "index", "config", "shallow"}
        ends = "|".join(re.escape(name) for name in names)
        is_named = re.search(rf"(?<![\w-])(?:{ends})(?![\w/-])", words) is not None
        if is_named or relative.startswith("reftable/"):
            found.append(lock)
    return found


def take_away(lock: GitLock, common: Path) -> bool:
    """Delete a dead lock of ours; whether that was done. False where it is no longer there, or not the same, or in doubt.

    One process after another does this in a clone. The file is renamed first and looked at again, so that a lock which
    somebody made meanwhile under the same name is put back.
    """
    own = common / "expmgr"
    durable.make_folder(own)
    with open(own / "dead-locks.lock", "ab") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        try:
            again = _examine(lock.path, common, time.time())
        except FileNotFoundError:
            return False
        if again.made != lock.made or not again.is_ours or again.doubt:
            return False
        aside = own / f".dead-lock.{os.urandom(4).hex()}"
        try:
            os.rename(lock.path, aside)
        except FileNotFoundError:
            return False
        is_same = _made(aside.lstat()) == lock.made
        if not is_same:
            with contextlib.suppress(FileExistsError):
                os.link(aside, lock.path, follow_symlinks=False)
        aside.unlink()
        return is_same


def _made(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _examine(path: Path, common: Path, now: float) -> GitLock:
    status = path.lstat()
    relative = path.relative_to(common).as_posix() if path.is_relative_to(common) else ""
    age = now - status.st_mtime
    return GitLock(path, age, relative.startswith(_OURS), _doubt(path, status, common, age), _made(status))


def _doubt(path: Path, status: os.stat_result, common: Path, age: float) -> str:
    """Why a lock may be in use; nothing where it cannot be."""
    if not stat.S_ISREG(status.st_mode):
        return "it is no file of git"
    if age < 0:
        return "its time is in the future"
    if age < DEAD_AFTER_S:
        return "it is new"
    kind = _file_system(path.parent)
    if kind not in _LOCAL:
        return f"it is on {kind}, where another machine may hold it" if kind else "its file system is not known"
    return _user_of(path, status, common) or ""


def _file_system(folder: Path) -> str:
    """The type of the file system that holds `folder`, empty where that cannot be found out."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError):
            device = folder.stat().st_dev
            wanted = f"{os.major(device)}:{os.minor(device)}"
            best = ("", "")
            for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
                fields = line.split(" ")
                point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
                kind = fields[fields.index("-") + 1]
                if fields[2] == wanted:
                    return kind
                if folder.resolve().is_relative_to(point) and len(point) >= len(best[0]):
                    best = (point, kind)  # btrfs shows another device than it mounts
            return best[1]
        return ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):  # macOS: `... on /System (apfs, local, journaled)`
        best, place = ("", ""), folder.resolve()
        for line in _output("mount").splitlines():
            found = re.search(r" on (/.*) \((\w+)(.*)\)$", line)
            if found and place.is_relative_to(found[1]) and len(found[1]) >= len(best[0]):
                best = (found[1], "ext4" if " local" in found[3] else found[2])
        return best[1]
    return ""


def _user_of(path: Path, status: os.stat_result, common: Path) -> str | None:
    """A process that may hold the lock, or why nobody can know that; None where none does.

    Any git that works in the repository may, whatever it does; an expmgr may that began before the lock was made, since it
    starts git.
    """
    made_at = max(status.st_mtime, status.st_ctime)
    try:
        roots = _roots(common)
        processes = _by_proc(roots, path) if sys.platform == "linux" else _by_ps(roots)
        for one in processes:
            if one.pid != os.getpid() and (one.is_git or one.started_at <= made_at + _TICK_S):
                return f"process {one.pid} works in this repository: {one.command[:60]}"
    except _Unknown as unknown:
        return str(unknown)
    return None


class _Unknown(Exception):
    """Whether a process uses the repository cannot be found out."""


def _roots(common: Path) -> list[str]:
    """The folders of a repository: its git dir, its checkouts."""
    found = [common, *([common.parent] if common.name == ".git" else [])]
    for pointer in common.glob("worktrees/*/gitdir"):
        with contextlib.suppress(OSError):
            found.append(Path(pointer.read_text(errors="surrogateescape").strip()).parent)
    return list(dict.fromkeys(os.path.realpath(one) for one in found))


def _is_in(place: str, roots: Iterable[str]) -> bool:
    return any(place == root or place.startswith(f"{root}/") for root in roots)


def _kind(words: list[str], *names: str) -> tuple[bool, bool]:
    """Whether a command line is one of git, and whether it is one of expmgr."""
    programs = {os.path.basename(one) for one in (*names, *words[:1])}
    is_git = any(re.match(r"(git|jgit)($|[-.])", one) for one in programs)
    firsts = [os.path.basename(one) for one in words[:3]]
    is_module = any(a == "-m" and b.partition(".")[0] == "expmgr" for a, b in itertools.pairwise(words))
    is_harmless = any(one in _HARMLESS for one in words)
    return is_git and not is_harmless, is_module or "expmgr" in firsts


def _by_proc(roots: list[str], lock: Path) -> Iterator[_Process]:
    """The processes of git and expmgr in the repository, from Linux' /proc."""
    try:
        if os.readlink("/proc/self/ns/pid") != _FIRST_PID_NAMESPACE:
            raise _Unknown("processes outside of this container cannot be seen")
        mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
        boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    except OSError:
        raise _Unknown("the processes of this machine cannot be seen") from None
    if os.geteuid() and any(line.split(" ")[4] == "/proc" and "hidepid=" in line for line in mounts):
        raise _Unknown("the processes of other users cannot be seen")
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            found = _read_process(int(entry), roots, boot, str(lock))
            if found is not None:
                yield found


def _read_process(pid: int, roots: list[str], boot: float, lock: str) -> _Process | None:
    place = f"/proc/{pid}"
    try:
        before, _, after = Path(place, "stat").read_text(errors="surrogateescape").rpartition(")")
        fields, name = after.split(), before.partition("(")[2]
        words = Path(place, "cmdline").read_text(errors="surrogateescape").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in "ZX" or not words:  # it has ended, or is about to
        return None
    is_git, is_expmgr = _kind(words, name)
    started_at = boot + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    one = _Process(pid, name, " ".join(words) or name, is_git, started_at)
    try:
        files = [os.readlink(entry.path) for entry in os.scandir(f"{place}/fd")]
        if lock in files:
            return _Process(pid, name, one.command, True, started_at)
        if not (is_git or is_expmgr):
            return None
        inside = [os.readlink(f"{place}/cwd"), *files]
        said = " ".join(words) + Path(place, "environ").read_text(errors="surrogateescape")
    except (FileNotFoundError, ProcessLookupError):
        return _Process(pid, name, one.command, True, started_at) if is_git and Path(place).exists() else None
    except PermissionError:  # another user's
        if is_git or is_expmgr:
            raise _Unknown(f"process {pid} of another user may work here: {name}") from None
        return None
    is_here = any(_is_in(one, roots) for one in inside) or any(root in said for root in roots)
    return one if is_here else None


def _by_ps(roots: list[str]) -> Iterator[_Process]:
    """The processes of git and expmgr in the repository, by `ps` and `lsof`, as on macOS."""
    if shutil.which("ps") is None or shutil.which("lsof") is None:
        raise _Unknown("the processes of this machine cannot be seen without ps and lsof")
    try:
        lines = _output("ps", "-axo", "pid=,state=,command=").splitlines()
    except (OSError, subprocess.SubprocessError):
        raise _Unknown("the processes of this machine cannot be seen") from None
    for line in lines:
        pid, state, command = line.split(None, 2) if len(line.split(None, 2)) == 3 else ("", "", "")
        if not pid or state[:1] in "ZX":
            continue
        is_git, is_expmgr = _kind(command.split())
        if not (is_git or is_expmgr) or int(pid) == os.getpid():
            continue
        try:
            places = [one[1:] for one in _output("lsof", "-w", "-p", pid, "-Fn").splitlines() if one[:1] == "n"]
        except (OSError, subprocess.SubprocessError):
            if _has_ended(int(pid)):
                continue
            raise _Unknown(f"where process {pid} works cannot be seen: {command[:60]}") from None
        if any(_is_in(one, roots) for one in places) or any(root in command for root in roots):
            yield _Process(int(pid), command.split()[0], command, is_git, 0.0)


def _has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, timeout=20, check=True, env={**os.environ, "LC_ALL": "C"})
    return done.stdout.decode("utf-8", "surrogateescape")
