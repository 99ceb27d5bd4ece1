"""`expmgr doctor`: each thing that can be wrong with a set-up, what it says, and what `--fix` does."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import expmgr
from clones import Team, ok, ran, saved
from expmgr.api.doctor import CHECKS, _of_error
from expmgr.errors import ExpmgrError
from expmgr.git import locks
from world import Repo, sealed

IDS = list(CHECKS)


def checks(repo: Repo, *options: str, code: int = 0) -> dict[str, list[tuple[str, str, str | None]]]:
    """Check to what it found: state, message, fix."""
    done = repo.expmgr("doctor", "--json", *options)
    assert done.code == code, (done.stdout, done.stderr)
    found = json.loads(done.stdout)
    assert (found["format"], found["ok"]) == (1, code == 0)
    told: dict[str, list[tuple[str, str, str | None]]] = {}
    for one in found["checks"]:
        told.setdefault(one["id"], []).append(("fixed" if one["fixed"] else one["state"], one["message"], one["fix"]))
    return told


def test_nothing_is_wrong_and_nothing_is_changed(iris: Repo) -> None:
    ok(iris, "new", "iris/wide")
    before = iris.snapshot(), iris.digest(".git")
    found = checks(iris)
    assert list(found) == IDS
    assert {state for some in found.values() for state, _, _ in some} <= {"ok", "warn"}
    assert found["git"][0][1].startswith("git version ")
    assert found["identity"] == [("ok", "Ann <ann@example.com>", None)]
    assert found["locks"] == [("ok", "no lock of git is left", None)]
    assert found["remote"][0][2] == "git remote add origin URL"
    assert (iris.snapshot(), iris.digest(".git")) == before
    assert [line.split()[1] for line in ok(iris, "doctor").splitlines()] == IDS
    assert not expmgr.open(iris.path).doctor().has_errors
    assert expmgr.open(iris.path).doctor().as_dict()["checks"][0]["id"] == "git"


def old(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (time.time() - 7200,) * 2)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_locks(iris: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    # In a container too: whoever uses the repository of the test is in it.
    monkeypatch.setattr(locks, "_FIRST_PID_NAMESPACE", os.readlink("/proc/self/ns/pid"))
    ours = old(iris.path / ".git/refs/heads/exp/iris/wide.lock")
    users = old(iris.path / ".git/refs/heads/main.lock")
    dead = "is 2 hours old: no git works in this repository, so a killed one left it"
    assert checks(iris, code=1)["locks"] == [
        ("warn", f"{ours} {dead}", "expmgr doctor --fix"),
        ("error", f"{users} {dead}", f"rm {users}"),
    ]
    assert checks(iris, "--fix", code=1)["locks"] == [
        ("fixed", f"{ours} {dead}", None),
        ("error", f"{users} {dead}", f"rm {users}"),
    ]
    assert (ours.exists(), users.exists()) == (False, True)
    subprocess.run(shlex.split(f"rm {users}"), check=True)  # what it says to type
    with subprocess.Popen(["git", "cat-file", "--batch"], cwd=iris.path, stdin=subprocess.PIPE) as process:
        old(ours)
        ((state, message, fix),) = checks(iris, "--fix")["locks"]
        process.kill()
    what = f"is 2 hours old: process {process.pid} works in this repository: git cat-file --batch"
    assert (state, fix) == ("warn", f"rm {ours}")
    assert message == f"{ours} {what}. It goes when that git ends; if it stays, delete it"
    assert ours.exists()


def break_identity(repo: Repo) -> None:
    repo.git("config", "user.useConfigOnly", "true")
    repo.git("config", "--global", "--unset", "user.email")


def break_index(repo: Repo) -> None:
    (repo.path / ".git/index").write_bytes(b"DIRC broken")


def break_ref(repo: Repo) -> None:
    repo.write(".git/refs/heads/exp/iris/gone", "1" * 40 + "\n")


def break_settings(repo: Repo) -> None:
    repo.write("expmgr.toml", "no_such_setting = 1\n")


def break_store(repo: Repo) -> None:
    repo.write("expmgr.toml", 'store = "/nowhere/store"\n')


BROKEN: dict[str, tuple[str, Callable[[Repo], None], str]] = {
    "identity": ("identity", break_identity, "git does not know who you are"),
    "git's index": ("repository", break_index, "git ls-files failed in "),
    "a ref": ("repository", break_ref, "not every ref can be read: "),
    "settings": ("settings", break_settings, "unknown setting no_such_setting"),
    "store": ("store", break_store, "the store /nowhere/store is not there"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken(iris: Repo, name: str) -> None:
    check, act, words = BROKEN[name]
    act(iris)
    found = checks(iris, code=1)
    assert [one for one in found[check] if one[0] == "error" and words in one[1]], found[check]
    assert list(found) == IDS  # all others are looked at


def test_what_a_kill_left_of_a_changed_checkout(iris: Repo) -> None:
    kept = iris.write(".git/expmgr/.put-back.abc/0", "as it was").parent
    assert [state for state, _, _ in checks(iris)["killed"]] == ["ok"]  # it may be in use
    os.utime(kept, (time.time() - 7200,) * 2)
    ((state, message, fix),) = checks(iris, "--fix")["killed"]
    assert (state, fix) == ("warn", f"rm -r {kept}")
    assert message.endswith(f"the files as they were are in {kept}")


def test_a_broken_index_is_only_a_cache(iris: Repo) -> None:
    ok(iris, "list")
    path = iris.write(".git/expmgr/index.sqlite", "broken")
    ((state, message, fix),) = checks(iris)["index"]
    assert (state, fix) == ("warn", "expmgr doctor --fix")
    assert message == f"{path} cannot be read: file is not a database. It is only a cache"
    assert [one[0] for one in checks(iris, "--fix")["index"]] == ["fixed", "ok"]
    assert not path.exists()


def test_a_remote_is_asked_only_where_somebody_wants_it(iris: Repo, tmp_path: Path) -> None:
    iris.git("remote", "add", "origin", "http://me:SECRET@127.0.0.1:1/x.git?private_token=SECRET")
    assert [one[0] for one in checks(iris)["remote"]] == ["ok"]
    ((state, message, fix),) = checks(iris, "--network", code=1)["remote"]
    assert (state, fix) == ("error", "git ls-remote origin")
    assert message.startswith("origin does not answer: ")
    assert "SECRET" not in iris.expmgr("doctor", "--network").stdout
    iris.git("remote", "set-url", "origin", str(iris.path))
    assert checks(iris, "--network")["remote"] == [("ok", "origin answers", None)]


def test_outside_of_a_repository_and_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = Repo(tmp_path)
    found = checks(nowhere, code=1)
    assert list(found) == ["git", "repository", "tensorflow"]
    assert found["repository"][0][1] == f"{tmp_path} is not in a git repository"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert checks(nowhere, code=1)["git"][0][:2] == ("error", "git is not on the PATH")


@pytest.mark.wide
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_a_disk_that_is_nearly_full(iris: Repo, tmp_path: Path) -> None:
    script = (
        f"mount -t tmpfs -o size=4m none {shlex.quote(str(tmp_path))}/disk && {sys.executable} -m expmgr doctor --json"
    )
    (tmp_path / "disk").mkdir()
    iris.write(".git/expmgr/config.toml", f'models_dir = "{tmp_path}/disk"\n')
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], cwd=iris.path, capture_output=True, text=True, check=False,
        env=sealed(Path(os.environ["HOME"]), os.environ),
    )  # fmt: skip
    if not done.stdout:
        pytest.skip(f"needs a tmpfs: {done.stderr}")
    found = [one for one in json.loads(done.stdout)["checks"] if one["id"] == "disk"]
    assert [one["state"] for one in found] == ["ok", "error"]
    assert found[1]["fix"] == f"df -h {tmp_path}/disk"


def test_damaged_records_and_empty_folders(team: Team) -> None:
    ann = team.join("ann")
    ok(ann, "new", "iris/wide")
    (run,) = ran(ann, "iris/wide", 0.9)
    folder = ann.path / ".git/expmgr/runs"
    path = folder / run.run_id / "run.json"
    whole = path.read_bytes()
    assert checks(ann)["records"] == [("ok", "1 run, none damaged", None)]
    ok(ann, "list")
    path.write_bytes(whole.replace(b"0.9", b"0.8"))
    empty, held = folder / "20260101-120000000-a1b2c3", folder / "20260101-120000000-a1b2c4"
    for one in (empty, held):
        one.mkdir()
    (held / "log.txt").write_text("it began")
    for one in (empty, held):
        os.utime(one, (1.0, 1.0))
    before = ann.digest(".git")
    assert checks(ann, code=1)["records"] == [
        ("error", f"run {run.run_id}: its record differs from the event log", f"expmgr restore {run.run_id}"),
        ("warn", f".git/expmgr/runs/{empty.name} has no run.json", "expmgr doctor --fix"),
        ("warn", f".git/expmgr/runs/{held.name} has no run.json; it contains log.txt", f"rm -r {held}"),
    ]
    assert ann.digest(".git") == before
    assert [one[0] for one in checks(ann, "--fix")["records"]] == ["fixed", "fixed", "warn"]
    assert (path.read_bytes(), empty.exists(), held.exists()) == (whole, False, True)


def test_a_record_that_no_log_has_and_one_that_was_deleted(team: Team) -> None:
    ann = team.join("ann")
    ok(ann, "new", "iris/wide")
    (deleted,) = ran(ann, "iris/wide", 0.9)
    (lost,) = ran(ann, "iris/wide", 0.9, first=1, tell=False)
    folder = ann.path / ".git/expmgr/runs"
    shutil.rmtree(folder / deleted.run_id)
    (folder / lost.run_id / "run.json").write_text("{}")
    damaged, gone = checks(ann, code=1)["records"]
    assert (damaged[0], damaged[2]) == ("error", None)
    assert damaged[1] == f"run {lost.run_id}: its record cannot be read: run_id: Field required"
    assert "move its folder away" in ann.expmgr("doctor").stdout
    assert gone == (
        "warn",
        f"run {deleted.run_id}: its record was deleted, and the event log has it",
        f"expmgr restore {deleted.run_id}",
    )
    ok(ann, *gone[2].split()[1:])
    assert len(checks(ann, code=1)["records"]) == 1


def test_a_damaged_manifest(team: Team) -> None:
    ann = team.join("ann")
    ok(ann, "new", "iris/wide")
    saved(ann, "iris/wide", 0, b"weights")
    assert checks(ann)["model_dirs"] == [("ok", "1 model_dir, each manifest can be read", None)]
    (ann.path / "models/iris/wide/seed-0/manifest.json").write_text("{")
    ((state, message, fix),) = checks(ann, code=1)["model_dirs"]
    assert (state, "manifest.json" in message) == ("error", True)
    assert fix == "expmgr checkpoints iris/wide --rebuild"
    ok(ann, *shlex.split(fix)[1:])
    assert checks(ann)["model_dirs"][0][0] == "ok"
    path = ann.path / "models/iris/wide/seed-0/manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "checkpoints": [], "selected_step": None}))
    ((state, message, fix),) = checks(ann, code=1)["model_dirs"]
    assert (state, "does not list every checkpoint" in message) == ("error", True)
    ok(ann, *shlex.split(str(fix))[1:])
    assert checks(ann)["model_dirs"][0][0] == "ok"


@pytest.mark.parametrize(
    ("hint", "fix"),
    [
        ("rebuild the manifest: expmgr checkpoints iris/wide --rebuild", "expmgr checkpoints iris/wide --rebuild"),
        ("make room: df -h '/a b: c'", ""),
        ("git config user.name 'A'; git config user.email a@b", "git config user.name 'A'; git config user.email a@b"),
        ("end it first: git status says how", ""),
        ("git init, then expmgr init --example iris --commit", ""),
        ("no two variants share a model_dir: move it back to where it was", ""),
        ("is it there? store in [tool.expmgr] says where it is", ""),
        ("", ""),
    ],
)
def test_a_fix_is_a_command_and_all_other_advice_is_a_hint(hint: str, fix: str) -> None:
    found = _of_error("disk", ExpmgrError("broken", hint=hint)).as_dict()
    assert (found["fix"], found["hint"]) == (fix or None, None if fix else hint or None)


def test_advice_is_printed(iris: Repo) -> None:
    ok(iris, "new", "iris/wide", "--set", "train.max_steps=30")
    break_identity(iris)
    iris.write("models/iris/wide/seed-0/manifest.json/file", "x")
    done = iris.expmgr("doctor")
    assert "hint: a folder is in its place: move it away" in done.stdout
    assert "fix: git config --global user.name" in done.stdout


def test_an_empty_log_of_a_run_that_never_began_is_deleted_with_its_folder(team: Team) -> None:
    ann = team.join("ann")
    folder = ann.path / ".git/expmgr/runs/20260101-120000000-a1b2c3"
    folder.mkdir(parents=True)
    (folder / "log.txt").touch()
    os.utime(folder, (1.0, 1.0))
    assert [one[2] for one in checks(ann)["records"]] == ["expmgr doctor --fix"]
    assert checks(ann, "--fix")["records"][0][0] == "fixed"
    assert not folder.exists()
