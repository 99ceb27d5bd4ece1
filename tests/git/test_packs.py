"""What is written to git as objects is what git itself would write; and how one git process is run."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from expmgr.errors import DiskFull, GitFailed
from expmgr.git.commits import commit_tree, extend_ref, merged_tree, write_commit, write_merge
from expmgr.git.objects import NewCommit, NewObjects, folders_of
from expmgr.git.process import call_git, read_config, run_git
from expmgr.git.remotes import (
    _asking,
    default_branch,
    fetch_refs,
    push_refs,
    reasons_in,
    refs_at,
    remote_followed,
    remote_names,
    upstream_remote,
)
from expmgr.git.repo import CommitId, GitRepo
from world import Repo


def git(repo: Repo) -> GitRepo:
    return GitRepo.discover(repo.path)


def test_folders_on_the_way() -> None:
    assert folders_of(["a/b/c.txt", "a/d.txt", "e.txt"]) == ["", "a", "a/b"]
    assert folders_of([]) == []
    assert folders_of(["e.txt"]) == [""]


@pytest.mark.parametrize("form", ["sha1", "sha256"])
def test_a_pack_is_gits(tmp_path: Path, form: str) -> None:
    """Sizes around each byte that a header gains: 4 bits, then 7 each."""
    path = tmp_path / form
    subprocess.run(["git", "init", "--quiet", f"--object-format={form}", str(path)], check=True)
    new = NewObjects(form)
    assert len(new) == 0
    contents = [bytes(size) for size in (0, 1, 14, 15, 16, 17, 127, 128, 2047, 2048, 2049, 262_143, 262_144)]
    ids = [new.add("blob", content).hex() for content in contents]
    assert new.add("blob", contents[3]).hex() == ids[3]
    assert len(new) == len(contents)
    for how in (["unpack-objects", "-q", "--strict"], ["index-pack", "--stdin", "--strict"]):
        subprocess.run(["git", *how], cwd=path, input=new.pack(), check=True, capture_output=True)
        for oid, content in zip(ids, contents, strict=True):
            assert subprocess.check_output(["git", "cat-file", "blob", oid], cwd=path) == content


def test_a_tree_is_gits(repo: Repo) -> None:
    """A folder sorts as if its name ended with a slash; what is executable stays so; other files stay."""
    for name in ("a.txt", "a/x", "a-b", "b/c/deep", "b.c", "run.sh", "ü"):
        repo.write(name, name)
    os.chmod(repo.path / "run.sh", 0o755)
    head = repo.commit()
    files = {"a/new": b"1", "run.sh": b"2", "b/c/d/e": b"3", "a0": b"4", "ü": b"5", "a.txt": b"6"}
    made = write_commit(git(repo), CommitId(head), files, "changed\n\nwhy\n")
    repo.git("reset", "--quiet", "--hard")
    for name, content in files.items():
        repo.write(name, content)
    repo.git("add", "--all")
    assert repo.git("rev-parse", f"{made}^{{tree}}") == repo.git("write-tree")
    assert repo.git("log", "-1", "--format=%B|%P", made) == f"changed\n\nwhy\n|{head}\n"
    assert "100755" in repo.git("ls-tree", made, "run.sh")
    assert repo.git("fsck", "--strict", "--no-dangling") == ""
    replaced = write_commit(git(repo), CommitId(head), {"a": b"now a file"}, "x\n")
    assert repo.git("ls-tree", replaced, "a").startswith("100644 blob")


@pytest.mark.parametrize("count", [97, 98, 99, 120])
def test_many_objects_are_taken_in_as_a_pack(repo: Repo, count: int) -> None:
    head = repo.git("rev-parse", "HEAD").strip()
    folder = repo.path / ".git/objects/pack"
    before = len(list(folder.glob("*.pack")))
    made = write_commit(git(repo), CommitId(head), {f"{number}": b"%d" % number for number in range(count)}, "x\n")
    assert len(repo.git("ls-tree", made).splitlines()) == count
    assert len(list(folder.glob("*.pack"))) - before == (count + 1 >= 100)  # with the tree


def test_a_merge_without_a_checkout(repo: Repo) -> None:
    repo.write("a", "one\ntwo\n")
    base = repo.commit()
    repo.write("b", "b")
    ours = repo.commit()
    repo.git("switch", "--quiet", "--detach", base)
    repo.write("c", "c")
    theirs = repo.commit()
    tree, conflicts = merged_tree(git(repo), ours, theirs)
    assert tree is not None
    assert conflicts == []
    merge = write_merge(git(repo), tree, [ours, theirs], {"d/e": b"e"}, "merged\n")
    assert repo.git("ls-tree", "-r", "--name-only", merge).split() == ["a", "b", "c", "d/e"]
    assert repo.git("log", "-1", "--format=%P", merge).split() == [ours, theirs]
    repo.git("switch", "--quiet", "--detach", base)
    repo.write("b", "other")
    repo.write("c", "other")
    other = repo.commit()
    assert merged_tree(git(repo), ours, other) == (None, ["b"])
    repo.git("switch", "--quiet", "--orphan", "elsewhere")
    with pytest.raises(GitFailed, match="git could not merge"):
        merged_tree(git(repo), ours, repo.commit())


def test_a_ref_is_extended_only_from_where_it_was(repo: Repo) -> None:
    one, ref = git(repo), "refs/expmgr/log/x"
    first = extend_ref(one, ref, None, [NewCommit({"a": b"1"}, "one\n"), NewCommit({"a": b"2"}, "two\n")], "why")
    assert first is not None
    assert repo.git("log", "--format=%s|%an|%ae", ref).splitlines() == [
        "two|Ann|ann@example.com", "one|Ann|ann@example.com",
    ]  # fmt: skip
    assert extend_ref(one, ref, None, [NewCommit({"a": b"3"}, "late\n")], "why") is None
    assert repo.git("rev-parse", ref).strip() == first
    head = repo.git("rev-parse", "HEAD").strip()
    repo.git("update-ref", "refs/expmgr/keep/y", head)
    second = extend_ref(one, ref, first, [NewCommit({"a": b"4"}, "m\n", [head])], "why", drop=["refs/expmgr/keep/y"])
    assert second is not None
    assert repo.git("log", "-1", "--format=%P", ref).split() == [first, head]
    assert repo.git("for-each-ref", "refs/expmgr/keep/") == ""
    assert extend_ref(one, ref, second, [], "why", drop=["refs/expmgr/keep/y"]) == second
    with pytest.raises(GitFailed, match="git could not move refs/expmgr/log/x/y"):
        extend_ref(one, f"{ref}/y", None, [NewCommit({"a": b"5"}, "x\n")], "why")
    repo.git("config", "user.signingKey", str(repo.path / "none"))
    repo.git("config", "gpg.format", "ssh")
    with pytest.raises(GitFailed) as caught:
        extend_ref(one, ref, second, [NewCommit({"a": b"6"}, "x\n")], "why", sign=True)
    assert caught.value.lines()[0] == "Error: git could not sign with your key"
    assert repo.git("rev-parse", ref).strip() == second


def test_who_is_at_work_may_be_unknown_to_a_log(repo: Repo, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".gitconfig").write_text("[user]\n\tuseConfigOnly = true\n")
    for name in ("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE", "EMAIL"):
        monkeypatch.delenv(name, raising=False)
    assert extend_ref(git(repo), "refs/expmgr/log/x", None, [NewCommit({"a": b"1"}, "one\n")], "why")
    shown = repo.git("log", "-1", "--format=%an <%ae> %ai", "refs/expmgr/log/x")
    assert re.fullmatch(r"unknown <unknown> 20\d\d-.* \+0000\n", shown)
    head = repo.git("rev-parse", "HEAD").strip()
    with pytest.raises(GitFailed, match="git does not know who you are"):
        commit_tree(git(repo), repo.git("rev-parse", "HEAD^{tree}").strip(), [head], "x\n")


def test_a_failure_carries_gits_words(repo: Repo) -> None:
    with pytest.raises(GitFailed) as caught:
        run_git(repo.path, ["rev-parse", "--verify", "nothing"])
    assert caught.value.lines() == [
        f"Error: git rev-parse failed in {repo.path} (exit 128)", "  fatal: Needed a single revision",
    ]  # fmt: skip
    for number in (28, 122):  # ENOSPC, EDQUOT
        script = f"alias.full=!echo 'error: x: {os.strerror(number)}' >&2; exit 1"
        with pytest.raises(DiskFull) as full:
            run_git(repo.path, ["full"], config=(script,))
        begin = f"Error: git full failed in {repo.path}: no space left in {repo.path}: "
        assert full.value.lines()[0].startswith(begin)
        assert full.value.lines()[0].endswith(" bytes are free")
    many = "alias.many=!for i in 1 2 3 4 5 6 7; do echo line $i >&2; done; exit 1"
    with pytest.raises(GitFailed) as caught:
        run_git(repo.path, ["many"], config=(many,))
    assert caught.value.lines()[1:] == [f"  line {number}" for number in range(1, 8)]
    answer = call_git(repo.path, ["cat-file", "blob", "nothing"])
    assert (answer.status, answer.stdout) == (128, b"")
    echoed = call_git(repo.path, ["hash-object", "--stdin"], stdin=b"x\n")
    assert (echoed.text, echoed.stderr) == ("587be6b4c3f93f93c489c0111bba5596147a26cb\n", "")


def test_a_process_knows_only_what_it_is_given(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a hook nor a variable of a user that leads into another repository reaches us."""
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_LITERAL_PATHSPECS", "1")
    monkeypatch.setenv("GIT_ICASE_PATHSPECS", "1")
    assert call_git(repo.path, ["rev-parse", "--git-dir"]).text == ".git\n"
    assert call_git(repo.path, ["rev-parse", "--git-dir"], env={"GIT_DIR": str(repo.path / ".git")}).text == (
        f"{repo.path / '.git'}\n"
    )
    assert call_git(repo.path, ["config", "core.hooksPath"]).text == "/dev/null\n"
    assert call_git(repo.path, ["config", "core.hooksPath"], hooks=True).status == 1
    assert call_git(repo.path, ["config", "core.fsync"], hooks=True).text == "all\n"
    assert call_git(repo.path, ["config", "x.y"], config=("x.y=3",)).text == "3\n"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GitFailed) as caught:
        call_git(repo.path, ["version"])
    assert caught.value.lines()[::2] == ["Error: git is not on the PATH", "Hint: install git 2.36 or newer"]


def test_settings_are_those_of_the_repository_alone(repo: Repo, home: Path) -> None:
    with open(home / ".gitconfig", "a") as file:
        file.write("[some]\n\tone = of the user\n")
    (repo.path / ".git/more").write_text("[some]\n\tfour = two\\nlines\n")
    with open(repo.path / ".git/config", "a") as file:
        file.write('[some]\n\ttwo\n\tthree = "a b"\n[include]\n\tpath = more\n')
    assert read_config(repo.path, r"^some\.") == [
        ("some.two", "true"), ("some.three", "a b"), ("some.four", "two\nlines"),
    ]  # fmt: skip
    assert read_config(repo.path, "^nothing$") == []


def test_remotes(repo: Repo, tmp_path: Path) -> None:
    hub, one = tmp_path / "hub.git", git(repo)
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(hub)], check=True)
    assert (remote_names(one), upstream_remote(one), remote_followed(one, "main")) == ([], None, None)
    repo.git("remote", "add", "origin", str(hub))
    flags, answer = push_refs(one, "origin", ["refs/heads/main:refs/heads/main"])
    assert (flags, answer.status) == ({"refs/heads/main": "*"}, 0)
    assert push_refs(one, "origin", ["main:refs/heads/main"])[0] == {"refs/heads/main": "="}
    head = repo.git("rev-parse", "HEAD").strip()
    newer = repo.commit()
    assert push_refs(one, "origin", ["main:refs/heads/main"])[0] == {"refs/heads/main": " "}
    flags, answer = push_refs(one, "origin", [f"{head}:refs/heads/main", "main:refs/heads/next"])
    assert (flags, answer.status) == ({"refs/heads/main": "!", "refs/heads/next": "*"}, 1)
    assert reasons_in(answer) == {"refs/heads/main": "non-fast-forward"}
    assert refs_at(one, "origin", "refs/heads/*") == {"refs/heads/main": newer, "refs/heads/next": newer}
    refused = refs_at(one, str(tmp_path / "gone"), "*")
    assert not isinstance(refused, dict)
    assert "gone" in refused.stderr
    hook = repo.write(".git/hooks/pre-push", "#!/bin/sh\necho not today >&2\nexit 1\n")
    hook.chmod(0o755)
    flags, answer = push_refs(one, "origin", ["main:refs/heads/third"])  # the user's hooks count
    assert (flags, answer.status, "not today" in answer.stderr) == ({}, 1, True)
    hook.unlink()
    assert fetch_refs(one, "origin", ["refs/heads/next:refs/x/next"]).status == 0
    assert repo.git("rev-parse", "refs/x/next").strip() == newer
    assert repo.git("for-each-ref", "refs/remotes/") == repo.git(
        "for-each-ref", "refs/remotes/origin/main", "refs/remotes/origin/next"
    )
    assert default_branch(one, "origin") is None
    repo.git("remote", "set-head", "origin", "main")
    assert default_branch(one, "origin") == "main"
    repo.git("branch", "--quiet", "--set-upstream-to=origin/main")
    assert (upstream_remote(one), remote_names(one)) == ("origin", ["origin"])
    repo.git("config", "branch.main.remote", ".")
    assert upstream_remote(one) is None
    repo.git("switch", "--quiet", "--detach")
    assert upstream_remote(one) is None


@pytest.mark.parametrize(("stdin", "stderr"), [(True, True), (True, False), (False, True), (False, False)])
def test_a_password_is_asked_for_only_at_a_terminal(stdin: bool, stderr: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: stdin))
    monkeypatch.setattr("sys.stderr", SimpleNamespace(isatty=lambda: stderr))
    assert _asking() == ({"GIT_TERMINAL_PROMPT": "1"} if stdin and stderr else {})
