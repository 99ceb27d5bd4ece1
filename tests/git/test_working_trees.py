"""Working trees: what differs in them, what is committed of them, and that a refusal leaves all as it was."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from expmgr.errors import GitFailed
from expmgr.git.checkouts import (
    Worktree,
    changed_in,
    commit_paths,
    fast_forward,
    ignored_by_git,
    put_back_on_failure,
    switch_branch,
    take_snapshot,
    uncommitted,
    worktrees,
)
from expmgr.git.repo import GitRepo
from world import Repo


@pytest.fixture
def tree(repo: Repo) -> Repo:
    for name in ("a", "b", "c/d", "ü"):
        repo.write(name, name)
    repo.commit("files")
    return repo


def test_the_checkouts_of_a_repository(tree: Repo, tmp_path: Path) -> None:
    repo = GitRepo.discover(tree.path)
    assert worktrees(repo) == [Worktree(tree.path, "refs/heads/main")]
    tree.git("worktree", "add", "--quiet", "-b", "other", str(tmp_path / "other"))
    tree.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "third"))
    assert worktrees(repo)[1:] == [Worktree(tmp_path / "other", "refs/heads/other"), Worktree(tmp_path / "third", None)]
    assert worktrees(GitRepo.discover(tmp_path / "third"))[0].path == tree.path
    tree.git("clone", "--quiet", "--bare", ".", str(tmp_path / "bare.git"))
    assert worktrees(GitRepo.discover(tmp_path / "bare.git")) == []


def test_what_is_not_as_in_head(tree: Repo) -> None:
    assert (uncommitted(tree.path, ["."]), changed_in(tree.path)) == ([], [])
    tree.write("a", "changed")
    (tree.path / "b").unlink()
    tree.write("c/new", "new")
    tree.write("e", "staged")
    tree.git("add", "e")
    assert uncommitted(tree.path, ["."]) == ["a", "b", "c/new", "e"]
    assert uncommitted(tree.path, ["c", "a"]) == ["a", "c/new"]
    assert sorted(changed_in(tree.path)) == ["a", "b", "e"]
    tree.write(".gitignore", "*.log\n")
    tree.write("x.log", "")
    tree.write("c/y.log", "")
    assert ignored_by_git(tree.path, ["."]) == ["c/y.log", "x.log"]
    assert ignored_by_git(tree.path, ["c"]) == ["c/y.log"]
    assert ignored_by_git(tree.path, ["a"]) == []


def test_a_branch_is_moved_on_where_nothing_is_overwritten(tree: Repo) -> None:
    first = tree.git("rev-parse", "HEAD").strip()
    tree.write("a", "newer")
    newer = tree.commit()
    tree.git("reset", "--quiet", "--hard", first)
    fast_forward(tree.path, "refs/heads/main", newer)
    assert (tree.read("a"), tree.git("rev-parse", "HEAD").strip()) == ("newer", newer)
    tree.git("reset", "--quiet", "--hard", first)
    tree.write("a", "mine")
    before = tree.snapshot()
    with pytest.raises(GitFailed, match="git merge failed"):
        fast_forward(tree.path, "refs/heads/main", newer)
    with pytest.raises(GitFailed) as caught:
        fast_forward(tree.path, "refs/heads/other", newer)
    assert caught.value.lines() == [
        f"Error: {tree.path} has another branch checked out by now", "  refs/heads/main",
    ]  # fmt: skip
    tree.git("switch", "--quiet", "--detach")
    with pytest.raises(GitFailed) as caught:
        fast_forward(tree.path, "refs/heads/main", newer)
    assert caught.value.lines()[1] == "  none"
    tree.git("switch", "--quiet", "main")
    assert tree.snapshot()["files"] == before["files"]
    tree.git("branch", "other")
    switch_branch(tree.path, "other")
    assert tree.git("branch", "--show-current") == "other\n"
    with pytest.raises(GitFailed, match="refs/heads/nobody"):
        switch_branch(tree.path, "nobody")


def test_a_snapshot_takes_in_all_but_what_is_large(tree: Repo) -> None:
    repo = GitRepo.discover(tree.path)
    head = tree.git("rev-parse", "HEAD").strip()
    assert take_snapshot(repo, "x\n") == (head, [])
    tree.write("a", "changed")
    (tree.path / "b").unlink()
    tree.write("c/ä new\nname", "new")
    for name, size in (("most", 10_000_000), ("more", 10_000_001)):
        with open(tree.path / name, "wb") as file:
            file.truncate(size)
    for name in ("venv/lib/x.py", "venv/pyvenv.cfg", "deep/er/venv/pyvenv.cfg", "deep/er/venv/x"):
        tree.write(name, "")
    tree.write("deep/er/plain", "")
    tree.write("pyvenv.cfg", "")  # of no folder of its own
    (tree.path / "broken").symlink_to("nowhere")
    before = tree.snapshot()
    commit, changed = take_snapshot(repo, "as it was\n")
    assert changed == ["a", "b", "broken", "c/ä new\nname", "deep/er/plain", "most", "pyvenv.cfg"]
    names = tree.git("-c", "core.quotePath=false", "ls-tree", "-r", "-z", "--name-only", commit).split("\0")[:-1]
    assert names == ["a", "broken", "c/d", "c/ä new\nname", "deep/er/plain", "most", "pyvenv.cfg", "ü"]
    assert tree.git("log", "-1", "--format=%B|%P", commit) == f"as it was\n|{head}\n"
    assert tree.git("show", f"{commit}:a") == "changed"
    after = tree.snapshot()
    assert {key: after[key] for key in ("files", "index", "head", "refs")} == {
        key: before[key] for key in ("files", "index", "head", "refs")
    }
    os.truncate(tree.path / "ü", 10_000_001)  # tracked, it counts whatever its size
    assert take_snapshot(repo, "x\n")[1] == [name for name in changed if name != "ü"]


def test_what_is_named_is_committed_and_nothing_else(tree: Repo) -> None:
    tree.write("a", "changed")
    tree.write("b", "staged")
    tree.git("add", "b")
    tree.write("new", "new")
    tree.write("other", "other")
    commit = commit_paths(tree.path, ["a", "new"], "two files")
    assert tree.git("show", "--format=%s", "--name-status", commit).split() == ["two", "files", "M", "a", "A", "new"]
    assert tree.git("diff", "--cached", "--name-only") == "b\n"
    assert tree.git("ls-files", "--others") == "other\n"
    tree.write(".git/info/exclude", "*.log\n")
    tree.write("x.log", "x")
    with pytest.raises(GitFailed, match="git commit failed"):
        commit_paths(tree.path, ["x.log"], "x")
    commit = commit_paths(tree.path, ["x.log"], "ignored", also_ignored=True)
    assert tree.git("show", "--format=", "--name-only", commit) == "x.log\n"


def test_a_commit_that_git_refuses_leaves_the_index(tree: Repo) -> None:
    tree.write("new", "new")
    hook = tree.write(".git/hooks/pre-commit", "#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    tree.git("config", "core.hooksPath", str(hook.parent))
    tree.git("config", "gpg.program", "false")
    tree.git("config", "commit.gpgSign", "true")
    before = tree.git("ls-files", "--stage")
    with pytest.raises(GitFailed, match="git commit failed"):
        commit_paths(tree.path, ["new"], "x")
    assert tree.git("ls-files", "--stage") == before
    assert tree.read("new") == "new"


@pytest.mark.parametrize("count", [1, 5, 6, 8])
def test_in_the_middle_of_a_merge_nothing_is_committed(tree: Repo, count: int) -> None:
    paths = [f"f{number}" for number in range(count)]
    for path in paths:
        tree.write(path, path)
    begin, end = f"Error: {tree.path} is in the middle of ", ", so git cannot commit these files alone"
    details = [f"  {path}" for path in paths[:5]] + ([f"  and {count - 5} more"] if count > 5 else [])
    for name, what in (
        ("MERGE_HEAD", "a merge"), ("CHERRY_PICK_HEAD", "a cherry-pick or a rebase"),
    ):  # fmt: skip
        tree.write(f".git/{name}", tree.git("rev-parse", "HEAD"))
        with pytest.raises(GitFailed) as caught:
            commit_paths(tree.path, paths, "x")
        assert caught.value.lines()[0] == f"{begin}{what}{end}"
        assert caught.value.lines()[1 : 1 + len(details)] == details
        assert caught.value.lines()[1 + len(details) :] == [
            "Nothing was changed.", "Hint: end it first: git status says how",
        ]  # fmt: skip
        (tree.path / ".git" / name).unlink()
    blob = tree.git("rev-parse", "HEAD:a").strip()
    entries = "".join(f"100644 {blob} {stage}\tconflict\n" for stage in (1, 2, 3))
    subprocess.run(["git", "update-index", "--index-info"], cwd=tree.path, input=entries.encode(), check=True)
    with pytest.raises(GitFailed) as caught:
        commit_paths(tree.path, paths, "x")
    assert caught.value.lines()[0] == f"{begin}a merge with conflicts{end}"


@pytest.fixture
def newer(tree: Repo) -> str:
    """A commit that changes a, deletes b, and adds new/x and an executable."""
    tree.git("switch", "--quiet", "-c", "newer")
    tree.write("a", "newer\nlines\n")
    (tree.path / "b").unlink()
    tree.write("new/x", "x")
    tree.write("tool", "tool").chmod(0o755)
    commit = tree.commit("newer")
    tree.git("switch", "--quiet", "main")
    return commit


def put_back(tree: Repo, commit: str | None, *acts: Callable[[], object], added: Sequence[str] = ()) -> None:
    def fail() -> None:
        for act in acts:
            act()
        raise RuntimeError("git failed")

    with pytest.raises(RuntimeError, match="git failed"), put_back_on_failure(tree.path, commit, added):
        fail()


def test_what_git_wrote_is_taken_back(tree: Repo, newer: str) -> None:
    before = tree.snapshot()
    put_back(tree, newer, lambda: tree.git("read-tree", "-m", "-u", "HEAD", newer))
    assert tree.snapshot() == before

    def cut() -> None:  # a disk that fills
        for name, text in (("a", "newer\nli"), ("new/x", ""), ("tool", "to")):
            (tree.path / name).unlink(missing_ok=True)
            tree.write(name, text)

    put_back(tree, newer, cut)
    assert tree.snapshot() == before
    put_back(tree, newer, lambda: tree.git("merge", "--quiet", "--ff-only", newer))
    after = tree.snapshot()
    assert {key: after[key] for key in ("files", "index", "head")} == {
        key: before[key] for key in ("files", "index", "head")
    }


def test_what_an_editor_saves_meanwhile_stays(tree: Repo, newer: str) -> None:
    def save(name: str) -> None:
        tree.write(f"{name}.tmp", "my edit\n")
        os.replace(tree.path / f"{name}.tmp", tree.path / name)

    names = ("a", "b", "new/x", "tool", "ü")
    put_back(tree, newer, *(lambda name=name: save(name) for name in names))
    assert {tree.read(name) for name in names} == {"my edit\n"}
    assert tree.git("diff", "--cached", "--name-only") == ""


def test_what_is_staged_meanwhile_stays_and_what_git_staged_does_not(tree: Repo, newer: str) -> None:
    tree.write("mine", "mine")

    def stage() -> None:
        tree.git("add", "mine")
        tree.git("rm", "--quiet", "--cached", "c/d")

    put_back(tree, newer, stage)
    assert tree.git("diff", "--cached", "--name-status") == "D\tc/d\nA\tmine\n"
    tree.git("reset", "--quiet")
    put_back(tree, newer, lambda: tree.git("read-tree", "-m", "-u", "HEAD", newer), stage)
    assert tree.git("diff", "--cached", "--name-status") == "D\tc/d\nA\tmine\n"
    assert tree.git("diff", "--name-only") == ""
    tree.git("reset", "--quiet")
    tree.write("other", "other")
    put_back(tree, None, lambda: tree.git("add", "--intent-to-add", "other"), stage, added=["other"])
    assert tree.git("status", "--porcelain").splitlines() == ["D  c/d", "A  mine", "?? c/", "?? other"]
