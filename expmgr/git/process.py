"""Runs one git process, with fixed options and a cleaned environment."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from expmgr.errors import DiskFull, GitFailed
from expmgr.git.runner import git_runner
from expmgr.paths import REPOSITORY_VARIABLES

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
) -> GitResult:
    """Run `git <args>` in `folder` and return what it said, whatever its exit status. `config` holds KEY=VALUE; the user's
    hooks run on `hooks` alone."""
    own = [one for one in _CONFIG if not (hooks and one.startswith("core.hooksPath="))]
    settings = (part for setting in (*own, *config) for part in ("-c", setting))
    command = ["git", *_OPTIONS, *settings, *args]
    leaked = [name for name in REPOSITORY_VARIABLES if name in os.environ and name not in (env or {})]
    if leaked:  # GitPython can add variables but not take one away
        command = ["env", *(part for name in leaked for part in ("-u", name)), *command]
    with contextlib.ExitStack() as stack:
        istream = None
        if stdin is not None:
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
    return GitResult(int(status), stdout, stderr)


def run_git(
    folder: Path,
    args: Sequence[str],
    *,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    config: Sequence[str] = (),
) -> GitResult:
    """`call_git`, and `GitFailed` with git's own words where it exits with another status than 0.

    `DiskFull` where the reason is that there is no space left.
    """
    answer = call_git(folder, args, stdin=stdin, env=env, config=config)
    if answer.status:
        words = answer.stderr.strip().splitlines()
        # The C library's words, not git's: the same in every version of git.
        if any(line.endswith(os.strerror(code)) for line in words for code in (errno.ENOSPC, errno.EDQUOT)):
            raise DiskFull(f"git {args[0]} failed in {folder}: no space left", details=words[:5])
        raise GitFailed(f"git {args[0]} failed in {folder} (exit {answer.status})", details=words[:5])
    return answer


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
