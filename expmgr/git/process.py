"""Runs one git process, with fixed options and a cleaned environment."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from expmgr.disk.durable import disk_errors, free_bytes
from expmgr.errors import DiskFull, ExitCode, ExpmgrError, GitFailed
from expmgr.git.runner import git_runner
from expmgr.paths import REPOSITORY_VARIABLES
from expmgr.redact import redacted

if TYPE_CHECKING:
    from expmgr.git.locks import GitLock

#: Of git's words so many lines are shown.
_MOST_LINES = 12
#: A disk with less is full: what git was to write did not fit.
_NO_ROOM_BYTES = 65_536

#: `worktree list -z` came with it.
OLDEST_GIT = (2, 36)

# What every call carries. Hooks, file monitors, replace refs and colours of the user's configuration do not reach us;
# core.fsync=all because a branch that a crash empties takes a result's code with it.
_OPTIONS = (
    "--no-pager",
    "--no-replace-objects",
    "--literal-pathspecs",
)
_CONFIG = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.fsync=all",
    "color.ui=false",
    "core.quotePath=false",
    "protocol.ext.allow=never",
    "gc.auto=0",
)
_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "LC_ALL": "C",
    # Beside --literal-pathspecs git refuses to start where a user has set one of these.
    "GIT_GLOB_PATHSPECS": "0",
    "GIT_NOGLOB_PATHSPECS": "0",
    "GIT_ICASE_PATHSPECS": "0",
}


_Git, _GitCommandNotFound = git_runner()


@dataclass(frozen=True)
class GitResult:
    """What one git process said."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout.decode("utf-8", "surrogateescape")


def call_git(
    folder: Path,
    args: Sequence[str],
    *,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    config: Sequence[str] = (),
    hooks: bool = False,
    most_bytes: int | None = None,
) -> GitResult:
    """Run `git <args>` in `folder` and return what it said, whatever its exit status. `config` holds KEY=VALUE; the user's
    hooks run on `hooks` alone. `TooMuchOutput` where it prints more than `most_bytes`, which is not read."""
    own = [one for one in _CONFIG if not (hooks and one.startswith("core.hooksPath="))]
    settings = (part for setting in (*own, *config) for part in ("-c", setting))
    command = ["git", *_OPTIONS, *settings, *args]
    leaked = [name for name in REPOSITORY_VARIABLES if name in os.environ and name not in (env or {})]
    if leaked:  # GitPython can add variables but not take one away
        command = ["env", *(part for name in leaked for part in ("-u", name)), *command]
    sink = None if most_bytes is None else _Sink(most_bytes)
    with contextlib.ExitStack() as stack:
        istream = None
        if stdin is not None:
            with disk_errors(f"a temporary file in {tempfile.gettempdir()} ({len(stdin):,} bytes)"):
                istream = stack.enter_context(tempfile.TemporaryFile())
                istream.write(stdin)
                istream.seek(0)
        try:
            status, stdout, stderr = _Git(str(folder)).execute(
                command,
                istream=istream,
                with_extended_output=True,
                with_exceptions=False,
                stdout_as_string=False,
                strip_newline_in_stdout=False,
                env={**_ENVIRONMENT, **(env or {})},
                output_stream=cast("BinaryIO", sink),
            )
        except _GitCommandNotFound:
            if shutil.which("git") is not None:  # it is `folder` that is not there
                raise
            wanted = ".".join(map(str, OLDEST_GIT))
            raise GitFailed(
                "git is not on the PATH", left_alone="Nothing was changed.", hint=f"install git {wanted} or newer"
            ) from None
    if isinstance(stderr, bytes):
        stderr = stderr.decode("utf-8", "replace")
    return GitResult(int(status), stdout if sink is None else b"".join(sink.parts), redacted(stderr))


class TooMuchOutput(Exception):
    """git printed more than was to be read."""


class _Sink:
    """Takes what git prints, up to a number of bytes."""

    def __init__(self, most: int) -> None:
        self.parts: list[bytes] = []
        self._room = most

    def write(self, part: bytes) -> int:
        self._room -= len(part)
        if self._room < 0:
            raise TooMuchOutput
        self.parts.append(part)
        return len(part)


def run_git(
    folder: Path,
    args: Sequence[str],
    *,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    config: Sequence[str] = (),
) -> GitResult:
    """`call_git`, and `git_failed` where it exits with another status than 0."""
    answer = call_git(folder, args, stdin=stdin, env=env, config=config)
    if answer.status:
        raise git_failed(f"git {args[0]} failed in {folder} (exit {answer.status})", answer, folder)
    return answer


def git_failed(
    message: str, answer: GitResult, folder: Path, *, left_alone: str | None = None, hint: str | None = None
) -> ExpmgrError:
    """The error for a git in `folder` that failed: `GitFailed` with its own words.

    `DiskFull` where no space is left. A lock of another git that is in the way is named with its age and the command
    that removes it, and the exit code is that of `Busy`.
    """
    details = words_of(answer)
    if is_disk_full(answer, folder):
        free = free_bytes(folder)
        room = "" if free is None else f": {free:,} bytes are free"
        return DiskFull(
            f"{message.partition(' (exit ')[0]}: no space left in {folder}{room}",
            details=details,
            left_alone=left_alone,
            hint=f"make room: df -h {shlex.quote(str(folder))}",
        )
    locks = locks_met(answer, folder)
    if not locks:
        return GitFailed(message, details=details, left_alone=left_alone, hint=hint)
    error = GitFailed(
        message,
        details=[*details, *(lock.fact for lock in locks)],
        left_alone=left_alone,
        hint=f"make sure that no git is at work in this repository, then remove {_them(locks)}: "
        + "; ".join(lock.command for lock in locks),
    )
    error.exit_code = ExitCode.BUSY
    return error


def _them(locks: Sequence[GitLock]) -> str:
    return "the lock" if len(locks) == 1 else "the locks"


def locks_met(answer: GitResult, folder: Path) -> list[GitLock]:
    """The lock files of other gits that a git in `folder` met."""
    words = local_words(answer)
    if answer.status == 0 or "lock" not in words.lower():
        return []
    folders = git_folders(folder)
    if folders is None:
        return []
    from expmgr.git.locks import find_locks, named_in  # a failure alone needs it

    return named_in(find_locks(*folders), folders[0], words)


def git_folders(folder: Path) -> tuple[Path, Path] | None:
    """The common dir and the git dir of the repository that `folder` is in; None where there is none."""
    question = ("rev-parse", "--path-format=absolute", "--git-common-dir", "--git-dir")
    answer = call_git(folder, question) if folder.is_dir() else None
    found = answer.text.splitlines() if answer is not None and answer.status == 0 else []
    return (Path(found[0]), Path(found[1])) if len(found) == 2 else None


def words_of(answer: GitResult) -> list[str]:
    """git's own words, all of them; where they are many, the first and the last, in which git names the way out."""
    lines = [line.rstrip() for line in answer.stderr.splitlines() if line.strip()]
    if len(lines) <= _MOST_LINES:
        return lines
    half = _MOST_LINES // 2
    return [*lines[:half], f"and {len(lines) - 2 * half:,} more lines", *lines[-half:]]


def local_words(answer: GitResult) -> str:
    """What git said of this repository, not of the one that it was in touch with."""
    return "\n".join(line for line in answer.stderr.splitlines() if not line.startswith("remote:"))


def is_disk_full(answer: GitResult, folder: Path) -> bool:
    """Whether a git in `folder` failed because no space was left here."""
    if answer.status == 0:
        return False
    lines = local_words(answer).splitlines()
    # The C library's words, not git's: the same in every version of git.
    if any(os.strerror(code) in line for line in lines for code in (errno.ENOSPC, errno.EDQUOT)):
        return True
    free = free_bytes(folder)  # `git checkout` says `unable to write file` and no reason
    return free is not None and free < _NO_ROOM_BYTES and any("write" in line or "creat" in line for line in lines)


def read_config(folder: Path, pattern: str, *, env: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """The keys and values that match `pattern` in the configuration of the repository alone, and what it includes.

    Section and variable are in lower case. A key without a value is told as git means it: `true`.
    """
    answer = call_git(folder, ["config", "--show-scope", "--null", "--get-regexp", pattern], env=env)
    fields = answer.text.split("\0")
    pairs = [
        entry.partition("\n")
        for scope, entry in zip(fields[::2], fields[1::2], strict=False)
        if scope in ("local", "worktree")
    ]
    return [(key, value if separator else "true") for key, separator, value in pairs]
