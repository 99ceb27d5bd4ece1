"""Locks that a killed git left: our own are deleted if they are provably dead; all others are named, with what to type."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clones import Team, copied_team, logs_of, new_team, ok
from expmgr.errors import GitFailed
from expmgr.git import locks
from expmgr.git.process import GitResult
from expmgr.launch.call import commit_changes
from expmgr.project import Project
from once import made_once
from world import Repo

HOUR = 3600
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
#: For what a process does that the test starts: in a container it deletes no lock.
whole_machine = pytest.mark.skipif(
    sys.platform != "linux" or os.readlink("/proc/self/ns/pid") != locks._FIRST_PID_NAMESPACE,
    reason="not Linux, or a container, from which not all processes are seen",
)


@pytest.fixture(autouse=True)
def no_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, a container is as good as the machine: whoever uses the repository of a test is in it too."""
    if sys.platform == "linux":
        monkeypatch.setattr(locks, "_FIRST_PID_NAMESPACE", os.readlink("/proc/self/ns/pid"))


@pytest.fixture
def ann(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Ann has a variant with a note, and has pushed both."""

    def make(folder: Path) -> None:
        found = new_team(folder)
        repo = found.join("ann")
        ok(repo, "new", "iris/wide")
        ok(repo, "note", "iris/wide", "-m", "first")
        ok(repo, "push")

    (repo,) = copied_team(made_once(tmp_path_factory, "git-locks", make), tmp_path, "ann")
    return repo


def lock(repo: Repo, name: str, age_s: float = HOUR) -> Path:
    """A lock file of git that was made so long ago."""
    path = repo.path / ".git" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def own_log(repo: Repo) -> str:
    (name,) = logs_of(repo)
    return name


def removed(path: Path, age: str = "1 hour") -> str:
    return f"Note: removed {path}, a lock that a killed git left {age} ago: no git works in this repository"


@pytest.fixture
def git_at_work(ann: Repo) -> Iterator[subprocess.Popen[bytes]]:
    """A git that works in Ann's repository, from a folder below it."""
    folder = ann.path / "experiments"
    with subprocess.Popen(["git", "cat-file", "--batch"], cwd=folder, stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


COMMANDS: dict[str, tuple[Callable[[Repo], str], tuple[str, ...]]] = {
    "note": (own_log, ("note", "iris/wide", "-m", "second")),
    "new": (lambda repo: "refs/heads/exp/iris/deep", ("new", "iris/deep")),
    "log of a new variant": (own_log, ("new", "iris/deep")),
    "retract": (own_log, ("retract", "EVENT", "-m", "wrong")),
    "push": (lambda repo: f"refs/expmgr/remotes/origin/log/{own_log(repo).rpartition('/')[2]}", ("push",)),
}


@linux
@pytest.mark.parametrize("name", COMMANDS)
def test_a_dead_lock_of_our_own_refs_is_deleted_and_the_command_works(ann: Repo, name: str) -> None:
    find, command = COMMANDS[name]
    if name == "push":
        ok(ann, "note", "iris/wide", "-m", "second")
    events = json.loads(ok(ann, "log", "--json"))["events"]
    event = next(one["id"] for one in events if one["kind"] == "note")
    path = lock(ann, find(ann))
    done = ann.expmgr(*(event if one == "EVENT" else one for one in command))
    assert done.code == 0, done.stderr
    assert removed(path) in done.stderr.splitlines()
    assert not path.exists()
    assert ann.git("fsck", "--strict") == ""
    assert not list((ann.path / ".git/expmgr").glob(".dead-lock*"))


@linux
def test_pull_deletes_a_dead_lock_on_what_it_fetches(ann: Repo, tmp_path: Path) -> None:
    bob = Team(tmp_path).join("bob")
    path = lock(bob, f"refs/expmgr/remotes/origin/log/{own_log(ann).rpartition('/')[2]}")
    branch = lock(bob, "refs/heads/exp/iris/wide")
    pulled = bob.expmgr("pull")
    assert (
        pulled.stdout
        == "pulled from origin: 2 events, 0 runs\n  Ann: note on iris/wide: first\n  exp/iris/wide: new here\n"
    )
    assert pulled.stderr.splitlines() == [removed(path), removed(branch)]


@pytest.mark.wide
@linux
def test_run_commit_deletes_a_dead_lock_on_the_variants_branch(ann: Repo) -> None:
    """The commit before a run, without the run."""
    notes: list[str] = []
    ann.git("switch", "--quiet", "exp/iris/wide")
    ann.write("experiments/iris/new.py", "x = 1\n")
    path = lock(ann, "refs/heads/exp/iris/wide")
    made = commit_changes(Project.open(ann.path, notes.append), "iris/wide", "changed")
    assert made.commit == ann.git("rev-parse", "exp/iris/wide").strip()
    assert [f"Note: {one}" for one in notes] == [removed(path)]
    assert ann.git("status", "--porcelain") == ""


#: A git that is killed when it has the locks of the refs that it is to move.
KILLED_GIT = """\
#!{python}
import os, signal, subprocess, sys
words = sys.argv[1:]
if "update-ref" in words:
    git = subprocess.Popen([{real!r}, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    git.stdin.write(b"start\\n" + sys.stdin.buffer.read() + b"prepare\\n")
    git.stdin.flush()
    while git.stdout.readline() not in (b"prepare: ok\\n", b""):
        pass
    git.kill()
    git.wait()
    os.kill(os.getpid(), signal.SIGKILL)
os.execv({real!r}, [{real!r}, *words])
"""


@linux
def test_a_git_that_is_really_killed(ann: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The git that adds to the log dies when it has locked its ref; the next command waits until that is certain."""
    wrapper = tmp_path / "bin" / "git"
    wrapper.parent.mkdir()
    wrapper.write_text(KILLED_GIT.format(python=sys.executable, real=shutil.which("git")))
    wrapper.chmod(0o755)
    path = ann.path / ".git" / f"{own_log(ann)}.lock"
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
        killed = ann.expmgr_process("note", "iris/wide", "-m", "second")
    assert killed.code != 0
    assert path.exists(), killed.stderr
    done = ann.expmgr("note", "iris/wide", "-m", "third")
    assert done.code == 0, done.stderr
    assert re.sub(r"\d+ seconds?", "N seconds", done.stderr.splitlines()[0]) == removed(path, "N seconds")


@linux
def test_a_lock_is_left_while_a_git_works_in_the_repository(ann: Repo, git_at_work: subprocess.Popen[bytes]) -> None:
    path = lock(ann, own_log(ann))
    told = ann.expmgr("note", "iris/wide", "-m", "second")
    lines = told.stderr.splitlines()
    assert told.code == 4
    assert lines[0] == f"Error: git could not move {own_log(ann)}"
    assert lines[-3:] == [
        f"  {path} is 1 hour old: process {git_at_work.pid} works in this repository: git cat-file --batch",
        "Nothing was written.",
        f"Hint: make sure that no git is at work in this repository, then remove the lock: rm {path}",
    ]
    assert any("remove the file manually to continue" in line for line in lines)  # git's own way out, whole
    assert path.exists()
    subprocess.run(lines[-1].partition("the lock: ")[2], shell=True, check=True)
    ok(ann, "note", "iris/wide", "-m", "second")


@pytest.mark.wide
@linux
def test_a_variant_is_made_though_the_log_is_locked(ann: Repo, git_at_work: subprocess.Popen[bytes]) -> None:
    """The branch is there, and what keeps the log from saying so is said with the way out."""
    path = lock(ann, own_log(ann))
    made = ann.expmgr("new", "iris/deep")
    assert made.code == 0
    assert made.stderr.splitlines()[0] == (
        f"Note: the log does not say it yet: git could not move {own_log(ann)}: make sure that no git is at work in this "
        f"repository, then remove the lock: rm {path}; push says it, once that is mended"
    )
    git_at_work.kill()
    git_at_work.wait()
    assert removed(path) in ann.expmgr("push").stderr.splitlines()
    assert ok(ann, "log").count("variant iris/deep from main") == 1


@pytest.mark.wide
@linux
def test_a_git_of_another_folder_that_names_the_repository(ann: Repo, tmp_path: Path) -> None:
    path = lock(ann, own_log(ann))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    common, command = ann.path / ".git", ("git", "cat-file", "--batch")
    for words, env in (((command[0], f"--git-dir={common}", *command[1:]), {}), (command, {"GIT_DIR": str(common)})):
        with subprocess.Popen(words, cwd=elsewhere, stdin=subprocess.PIPE, env={**os.environ, **env}) as process:
            (found,) = locks.find_locks(common, common)
            assert (
                found.doubt == f"process {process.pid} works in this repository: {' '.join(words)}"[: len(found.doubt)]
            )
            process.kill()
    with subprocess.Popen(["git", "hash-object", "--stdin"], cwd=elsewhere, stdin=subprocess.PIPE) as process:
        ok(ann, "note", "iris/wide", "-m", "second")
        process.kill()
    assert not path.exists()


@linux
def test_a_lock_that_a_process_holds_open_is_left(ann: Repo) -> None:
    path = lock(ann, own_log(ann))
    with subprocess.Popen(["tail", "-f", str(path)], stdout=subprocess.DEVNULL) as process:
        time.sleep(0.3)
        found = locks.find_locks(ann.path / ".git", ann.path / ".git")
        process.kill()
    assert [one.doubt.partition(": ")[0] for one in found] == [f"process {process.pid} works in this repository"]


@linux
def test_an_expmgr_that_began_before_the_lock_may_hold_it(ann: Repo, tmp_path: Path) -> None:
    script = tmp_path / "expmgr"
    script.write_text("import time; print(flush=True); time.sleep(60)")
    with subprocess.Popen([sys.executable, str(script)], cwd=ann.path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.1)
        path = lock(ann, own_log(ann))
        (found,) = locks.find_locks(ann.path / ".git", ann.path / ".git")
        process.kill()
    assert found.doubt.startswith(f"process {process.pid} works in this repository: ")
    (found,) = locks.find_locks(ann.path / ".git", ann.path / ".git")
    assert (found.path, found.doubt) == (path, "")


USERS = {
    "index": ("init", "--experiment", "mine", "--commit"),
    "refs/heads/main": ("init", "--experiment", "mine", "--commit"),
    "HEAD": ("new", "iris/deep", "--switch"),
}


@pytest.mark.parametrize("name", USERS)
def test_a_lock_of_the_users_own_is_named_and_left(ann: Repo, name: str) -> None:
    path = lock(ann, name, 3 * 24 * HOUR)
    done = ann.expmgr(*USERS[name])
    assert done.code == 4, done.stderr
    assert f"{path} is 3 days old" in done.stderr
    assert f"then remove the lock: rm {path}" in done.stderr
    assert path.exists()


def test_a_lock_on_packed_refs_is_the_users_too(ann: Repo) -> None:
    project = Project.open(ann.path)
    project.repo.set_ref("refs/expmgr/keep/some", project.repo.head(), "test")
    path = lock(ann, "packed-refs")
    with pytest.raises(GitFailed) as raised:
        project.repo.delete_ref("refs/expmgr/keep/some")
    assert (raised.value.exit_code, path.exists()) == (4, True)
    assert str(raised.value.hint).endswith(f"then remove the lock: rm {path}")


@pytest.mark.wide
@whole_machine
def test_six_commands_that_find_one_dead_lock(ann: Repo) -> None:
    path = lock(ann, own_log(ann))
    time.sleep(0.1)  # whoever began before the lock may hold it
    env = {**os.environ}
    command = [sys.executable, "-m", "expmgr", "note", "iris/wide", "-m", "another"]
    processes = [
        subprocess.Popen(command, cwd=ann.path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    told = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 6, "\n".join(told)
    assert sum(removed(path) in one for one in told) == 1
    assert ok(ann, "log").count("another") == 6


@linux
def test_a_lock_that_somebody_made_meanwhile_stays(ann: Repo) -> None:
    common = ann.path / ".git"
    path = lock(ann, own_log(ann))
    (found,) = locks.find_locks(common, common)
    path.unlink()
    assert not locks.take_away(found, common)  # another one was quicker
    lock(ann, own_log(ann), 2 * HOUR)
    assert not locks.take_away(found, common)
    (again,) = locks.find_locks(common, common)
    assert again.doubt == ""
    assert locks.take_away(again, common)
    path.symlink_to("/nowhere")
    assert [one.doubt for one in locks.find_locks(common, common)] == ["it is no file of git"]


def test_what_cannot_be_proved_is_left(ann: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    common = ann.path / ".git"
    lock(ann, own_log(ann), -HOUR)
    assert [one.doubt for one in locks.find_locks(common, common)] == ["its time is in the future"]
    lock(ann, own_log(ann), 2)
    assert [one.doubt for one in locks.find_locks(common, common)] == ["it is new"]
    path = lock(ann, own_log(ann))
    monkeypatch.setattr(locks, "_file_system", lambda folder: "nfs4")  # none can be mounted in a test
    assert [one.doubt for one in locks.find_locks(common, common)] == [
        "it is on nfs4, where another machine may hold it"
    ]
    assert ann.expmgr("note", "iris/wide", "-m", "second").code == 4
    assert path.exists()


@pytest.mark.wide
@linux
def test_in_a_container_other_processes_cannot_be_seen(ann: Repo) -> None:
    path = lock(ann, own_log(ann))
    inside = [
        "unshare",
        "--pid",
        "--fork",
        "--mount-proc",
        sys.executable,
        "-m",
        "expmgr",
        "note",
        "iris/wide",
        "-m",
        "x",
    ]
    if subprocess.run([*inside[:4], "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs unshare --pid")
    done = subprocess.run(inside, cwd=ann.path, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "processes outside of this container cannot be seen" in done.stderr
    assert path.exists()


@pytest.mark.skipif(
    shutil.which("lsof") is None or shutil.which("ps") is None, reason="needs ps and lsof, as macOS has"
)
def test_processes_as_macos_shows_them(ann: Repo, git_at_work: subprocess.Popen[bytes]) -> None:
    roots = [str(ann.path), f"{ann.path}/.git"]
    assert [one.pid for one in locks._by_ps(roots)] == [git_at_work.pid]
    git_at_work.kill()
    git_at_work.wait()
    assert list(locks._by_ps(roots)) == []


def test_the_lock_of_all_refs_in_a_reftable(ann: Repo) -> None:
    path = lock(ann, "reftable/tables.list")
    common = ann.path / ".git"
    found = locks.named_in(locks.find_locks(common, common), common, "fatal: cannot lock references")
    assert [(one.path, one.is_ours, one.command) for one in found] == [(path, False, f"rm {shlex.quote(str(path))}")]


@pytest.mark.parametrize("code", [errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOSPC, errno.ENOTDIR, errno.EIO])
def test_a_lock_that_cannot_be_made_is_not_waited_for(ann: Repo, code: int) -> None:
    repo = Project.open(ann.path).repo
    ref = own_log(ann)
    words = f"fatal: cannot lock ref '{ref}': Unable to create '{ann.path}/.git/{ref}.lock': {{}}"
    soon = time.monotonic() + 60
    assert not repo._is_unlocked(GitResult(128, b"", words.format(os.strerror(code))), soon)
    assert repo._is_unlocked(GitResult(128, b"", words.format(f"{os.strerror(errno.EEXIST)}.")), soon)


def test_a_folder_in_which_no_lock_can_be_made_is_met_once(
    ann: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = (ann.path / ".git" / own_log(ann)).parent
    wrapper, calls = tmp_path / "bin" / "git", tmp_path / "calls"
    wrapper.parent.mkdir()
    wrapper.write_text(
        f'#!/bin/sh\ncase " $* " in *" update-ref "*) echo x >> {calls};; esac\nexec {shutil.which("git")} "$@"\n'
    )
    wrapper.chmod(0o755)
    folder.chmod(0o500)
    try:
        if (
            not os.geteuid()
            and subprocess.run(["chattr", "+i", str(folder)], check=False, capture_output=True).returncode
        ):
            pytest.skip("root may write everywhere, and chattr does not work here")
        with monkeypatch.context() as patch:
            patch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
            noted = ann.expmgr("note", "iris/wide", "-m", "second")
    finally:
        if not os.geteuid():
            subprocess.run(["chattr", "-i", str(folder)], check=False, capture_output=True)
        folder.chmod(0o700)
    assert noted.code == 1
    assert os.strerror(errno.EACCES if os.geteuid() else errno.EPERM) in noted.stderr
    assert calls.read_text() == "x\n"


@pytest.mark.wide
@linux
def test_what_somebody_stages_while_a_lock_is_waited_for_stays_staged(
    ann: Repo, git_at_work: subprocess.Popen[bytes]
) -> None:
    """The lock may be in use, so that the commit fails after some seconds."""
    ann.git("switch", "--quiet", "exp/iris/wide")
    ann.write("experiments/iris/new.py", "x = 1\n")
    ann.write("mine.txt", "mine\n")
    lock(ann, "refs/heads/exp/iris/wide")

    def stage() -> None:
        time.sleep(1)
        for _ in range(100):
            if (
                subprocess.run(["git", "add", "mine.txt"], cwd=ann.path, check=False, capture_output=True).returncode
                == 0
            ):
                return
            time.sleep(0.02)

    other = threading.Thread(target=stage)
    other.start()
    with pytest.raises(GitFailed):
        commit_changes(Project.open(ann.path), "iris/wide", "changed")
    other.join()
    assert ann.git("status", "--porcelain") == "A  mine.txt\n?? experiments/iris/new.py\n"
