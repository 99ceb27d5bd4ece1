"""A disk that is full, fails, or may not be written to, at every operation of a command: the file is named, nothing is an
internal error, and once the disk is well the command does its work. No TensorFlow."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clones import Team, ok, saved
from expmgr.errors import ExitCode
from faults.test_every_operation import Call, Disk
from world import Repo

#: What the system says, and the exit code of the command.
ERRORS = {
    errno.ENOSPC: ExitCode.DISK,
    errno.EIO: ExitCode.DISK,
    errno.EROFS: ExitCode.DISK,
    errno.EDQUOT: ExitCode.DISK,
    errno.EACCES: ExitCode.MISTAKE,
}


_ELSEWHERE = "elsewhere"


class Failing(Disk):
    """A disk that answers with `number` from its operation `fails_at` on; it still deletes."""

    def __init__(self, root: Path, fails_at: int, number: int) -> None:
        super().__init__(root, fails_at, "a full disk")
        self._number = number
        self._paths = defaultdict(lambda: _ELSEWHERE)

    def _now(self, call: Call, half: Callable[[], object] = lambda: None) -> None:
        if call.path == _ELSEWHERE or call.path.startswith(".."):  # a pipe to git, or another disk
            return
        try:
            super()._now(call, half)
        except OSError:
            path = None if call.kind in ("write", "fsync") else str(self.root / call.path)
            raise OSError(self._number, os.strerror(self._number), path) from None


def cases(repo: Repo, keep: Path, *command: str) -> Iterator[int]:
    """The numbers of the operations of `command` below `repo`, to be done again from the same state each time."""
    with Failing(repo.path, 0, 0) as disk:
        done = repo.expmgr(*command)
    assert done.code == 0, done.stderr
    for at in range(1, len(disk.calls) + 1):
        shutil.rmtree(repo.path)
        shutil.copytree(keep, repo.path, symlinks=True)
        yield at


def named(stderr: str, root: Path) -> bool:
    """Whether a file or a store is named."""
    return str(root) in stderr or bool(re.search(r"models/iris/wide", stderr))


@pytest.fixture
def ann(team: Team) -> Repo:
    repo = team.join("ann")
    (repo.path / "expmgr.toml").write_text(f'store = "{team.root / "ann" / "shared"}"\n')
    ok(repo, "new", "iris/wide", "--set", "train.max_steps=30")
    saved(repo, "iris/wide", 0, os.urandom(100), steps=2)
    return repo


def damage(repo: Repo) -> tuple[str, ...]:
    (repo.path / "models/iris/wide/seed-0/manifest.json").write_text("{")
    (repo.path / "models/iris/wide/variant.json").write_text("{")
    return "checkpoints", "iris/wide", "--rebuild"


def unstored(repo: Repo) -> tuple[str, ...]:
    return "push", "--checkpoints", "all"


def fetched(repo: Repo) -> tuple[str, ...]:
    ok(repo, "push")
    shutil.rmtree(repo.path / "models")
    return "pull", "iris/wide"


def _cases() -> Iterator[object]:
    """Every story with every error; the first two in everyday tests too."""
    for story in (damage, unstored, fetched):
        for number in ERRORS:
            is_everyday = story is damage and number in (errno.ENOSPC, errno.EACCES)
            marks = () if is_everyday else (pytest.mark.wide if story is damage else pytest.mark.nightly,)
            yield pytest.param(story, number, id=f"{story.__name__}-{errno.errorcode[number]}", marks=marks)


@pytest.mark.parametrize(("story", "number"), list(_cases()))
def test_every_operation_of_a_command(
    ann: Repo, tmp_path: Path, story: Callable[[Repo], tuple[str, ...]], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command = story(ann)
    keep = tmp_path / "keep"
    shutil.copytree(ann.path, keep, symlinks=True)
    found = []
    for at in cases(ann, keep, *command):
        with Failing(ann.path, at, number) as disk:
            result = ann.expmgr(*command)
        where = f"{disk.calls[at - 1] if len(disk.calls) >= at else at}: exit {result.code}: {result.stderr}"
        if result.code not in (0, ERRORS[number], ExitCode.MISTAKE if number == errno.EACCES else ERRORS[number]):
            found.append(where)
        elif result.code and not named(result.stderr, ann.path):
            found.append(f"no file is named: {where}")
        again = ann.expmgr(*command)
        if again.code != 0:
            found.append(f"not afterwards: {where}: {again.stderr}")
    assert found == []
