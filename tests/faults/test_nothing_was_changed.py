"""What says that nothing was changed has changed nothing: git locked, on a read-only or a full disk, in the middle of it."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from clones import asked, commit_on, copied_team, new_team, ok
from expmgr.errors import ExpmgrError
from expmgr.launch.call import commit_changes
from expmgr.project import Project
from once import made_once
from world import Repo, Result

SPEC = "experiments/iris/spec.yaml"
CLAIMS = ("Nothing was changed.", "Nothing was written.", "Your checkout is as it was.", "Nothing was lost")

IN_CI = bool(os.environ.get("CI"))
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


def require_strace() -> None:
    """Skip the test without strace; fail where the variable CI is set, which installs it."""
    if shutil.which("strace") is None:
        (pytest.fail if IN_CI else pytest.skip)("needs strace: apt-get install strace")


@pytest.fixture
def ann(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Ann has a review that may be merged, and a branch on which many files differ; somebody else has pushed a variant."""

    def make(folder: Path) -> None:
        team = new_team(folder)
        team.hub.git("config", "receive.denyDeletes", "false")
        repo = asked(team)
        repo.git("branch", "other", "main")
        for number in range(5):
            commit_on(repo, "other", f"data/{number}.csv", "1,2\n" * 10_000)
        commit_on(repo, "other", "experiments/iris/extra.py", "x = 1\n")
        commit_on(repo, "other", "experiments/iris/README.md", None)
        repo.git("branch", "exp/iris/other", "other")
        bob = team.join("bob")
        ok(bob, "pull")
        ok(bob, "review", "approve", "wide")
        ok(bob, "new", "iris/of-bob", "--from", "exp/iris/baseline")
        ok(bob, "push")
        ok(repo, "pull")
        ok(bob, "new", "iris/later", "--from", "exp/iris/baseline")
        ok(bob, "push")
        (repo.path / SPEC).chmod(0o600)
        repo.write("untracked.txt", "mine\n")

    (repo,) = copied_team(made_once(tmp_path_factory, "nothing-was-changed", make), tmp_path, "ann")
    return repo


def commit_before_a_run(repo: Repo) -> Result:
    """As `run --commit`, without the run."""
    try:
        commit_changes(Project.open(repo.path), "iris/wide", "changed")
    except ExpmgrError as error:
        return Result(int(error.exit_code), "", "\n".join(error.lines()) + "\n")
    return Result(0, "", "")


def typed(*argv: str) -> Callable[[Repo], Result]:
    return lambda repo: repo.expmgr(*argv)


def on_wide(repo: Repo) -> None:
    repo.git("switch", "--quiet", "exp/iris/wide")
    repo.write(SPEC, repo.read(SPEC).replace("[20, 20]", "[30, 30]"))
    repo.write("experiments/iris/new.py", "x = 1\n")
    repo.write("staged.txt", "staged\n")
    repo.git("add", "staged.txt")


def nothing(repo: Repo) -> None: ...


#: What is done before, and what is tried.
OPERATIONS: dict[str, tuple[Callable[[Repo], None], Callable[[Repo], Result]]] = {
    "new": (nothing, typed("new", "iris/deep")),
    "new --switch": (nothing, typed("new", "iris/deep", "--from", "exp/iris/other", "--switch")),
    "init": (nothing, typed("init", "--experiment", "mine", "--commit")),
    "run --commit": (on_wide, commit_before_a_run),
    "review merge": (nothing, typed("review", "merge", "wide")),
    "note": (nothing, typed("note", "iris/wide", "-m", "words")),
    "pull": (nothing, typed("pull")),
    "push": (nothing, typed("push")),
}
#: Names of locks, and what strace lets git's calls end with: one after the other, so that each is met in its middle.
LOCKS = ("refs/heads/main", "refs/heads/exp/iris/wide", "HEAD", "index", "packed-refs", "config")
CALLS = {
    "full disk": [f"write:error=ENOSPC:when={number}+" for number in (1, 2, 4, 7, 12, 20)],
    "read-only": [f"rename:error=EROFS:when={number}+" for number in (1, 2, 3)]
    + [f"unlink:error=EROFS:when={number}+" for number in (1, 2, 3)],
}
_WRITING = ("merge", "switch", "commit", "add", "update-ref", "unpack-objects", "commit-tree", "fetch", "push", "rm")


def snapshot(repo: Repo) -> dict[str, Any]:
    """All that somebody has, to the byte; locks of expmgr's own, which are empty files, apart."""
    found = repo.snapshot()
    assert isinstance(found["expmgr"], Mapping)
    found["expmgr"] = {name: one for name, one in found["expmgr"].items() if not name.endswith(".lock")}
    found["heads"] = repo.git("reflog", "show", "HEAD")
    return found


def judge(repo: Repo, before: dict[str, Any], done: Result) -> None:
    after = snapshot(repo)
    said = [line for line in done.stderr.splitlines() if line.startswith(CLAIMS)]
    if done.code == 0:
        return
    assert done.code in (1, 4, 74), done.stderr
    assert "Traceback" not in done.stderr
    if not said or said[0].startswith("Nothing was lost"):
        return
    if said[0].startswith("Your checkout"):  # the variant was made, and its event told
        for one in ("refs", "expmgr"):
            before.pop(one), after.pop(one)
    assert after == before, done.stderr


@pytest.mark.parametrize("operation", [*OPERATIONS])
@pytest.mark.wide
@pytest.mark.parametrize("lock", LOCKS)
def test_locked(ann: Repo, operation: str, lock: str) -> None:
    prepare, act = OPERATIONS[operation]
    prepare(ann)
    path = ann.path / ".git" / f"{lock}.lock"
    path.touch()
    os.utime(path, (time.time() - 3600,) * 2)
    before = snapshot(ann)
    judge(ann, before, act(ann))


def failing_git(folder: Path, fault: str) -> Path:
    """A git whose writing commands meet `fault`."""
    real = shutil.which("git")
    trace = fault.partition(":")[0]
    cases = "|".join(f'*" {one} "*' for one in _WRITING)
    path = folder / "failing" / "git"
    path.parent.mkdir()
    path.write_text(
        f'#!/bin/sh\ncase " $* " in {cases})\n'
        f'  exec strace -f -qq -o /dev/null -e trace={trace} -e inject={fault} {real} "$@";;\nesac\nexec {real} "$@"\n'
    )
    path.chmod(0o755)
    return path.parent


@pytest.mark.wide
@pytest.mark.parametrize("operation", [*OPERATIONS])
@pytest.mark.parametrize("fault", [fault for some in CALLS.values() for fault in some])
def test_cut_in_the_middle(
    ann: Repo, operation: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_strace()
    prepare, act = OPERATIONS[operation]
    prepare(ann)
    before = snapshot(ann)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{failing_git(tmp_path, fault)}:{os.environ['PATH']}")
        done = act(ann)
    judge(ann, before, done)
    if "ENOSPC" in fault and done.code:
        assert done.code in (74, 1), done.stderr


def test_a_merge_that_cannot_take_the_ref_changes_nothing(ann: Repo) -> None:
    path = ann.path / ".git/refs/heads/main.lock"
    path.touch()
    before = snapshot(ann)
    done = ann.expmgr("review", "merge", "wide")
    assert done.code == 4
    assert done.stderr.startswith(
        f"Error: main is checked out in {ann.path}, and git cannot move it on: git merge failed"
    )
    assert f"then remove the lock: rm {path}" in done.stderr
    assert "Nothing was changed." in done.stderr.splitlines()
    assert snapshot(ann) == before
    assert (ann.path / SPEC).stat().st_mode & 0o777 == 0o600
    path.unlink()
    ok(ann, "review", "merge", "wide")


def test_a_branch_that_cannot_be_checked_out_changes_nothing_of_the_checkout(ann: Repo) -> None:
    path = ann.path / ".git/HEAD.lock"
    path.touch()
    before = snapshot(ann)
    done = ann.expmgr("new", "iris/deep", "--from", "exp/iris/other", "--switch")
    after = snapshot(ann)
    assert done.code == 4
    assert "Your checkout is as it was." in done.stderr.splitlines()
    for one in ("refs", "expmgr"):
        before.pop(one), after.pop(one)
    assert after == before


def test_what_somebody_stages_meanwhile_stays(ann: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another git has the lock of the index when a review is merged, and is done when that has failed."""
    real = shutil.which("git")
    wrapper = tmp_path / "failing" / "git"
    wrapper.parent.mkdir()
    wrapper.write_text(
        f'#!/bin/sh\ncase " $* " in *" merge "*)\n  touch .git/index.lock; {real} "$@"; code=$?; rm .git/index.lock\n'
        f'  {real} add untracked.txt; exit $code;;\nesac\nexec {real} "$@"\n'
    )
    wrapper.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
        done = ann.expmgr("review", "merge", "wide")
    assert done.code != 0
    assert "index.lock" in done.stderr
    assert ann.git("diff", "--cached", "--name-only") == "untracked.txt\n"


@pytest.mark.parametrize(("in_ci", "outcome"), [(False, pytest.skip.Exception), (True, pytest.fail.Exception)])
def test_a_machine_of_ci_without_strace_fails(
    in_ci: bool, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "IN_CI", in_ci)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(outcome, match="needs strace"):
        require_strace()
