"""What is read from git and written to it, held against git's own words. (Not `tests/git`: that is GitPython's name.)"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from expmgr.errors import BranchExists, GitFailed, NoCommitYet, NotARepository
from expmgr.git import repo as repo_module
from expmgr.git.checkouts import changed_in, commit_paths, fast_forward, take_snapshot, uncommitted, worktrees
from expmgr.git.commits import extend_ref, merged_tree, write_commit, write_merge
from expmgr.git.objects import NewCommit, NewObjects, folders_of
from expmgr.git.remotes import default_branch, push_refs, refs_at, remote_followed, remote_names, upstream_remote
from expmgr.git.repo import CommitId, GitRepo
from world import Repo, new_repo

MAIN = "refs/heads/main"
OWN = "refs/expmgr/log/ann-00000001"


@pytest.fixture
def git(repo: Repo) -> GitRepo:
    return GitRepo.discover(repo.path)


def head(repo: Repo, name: str = "HEAD") -> CommitId:
    return CommitId(repo.git("rev-parse", name).strip())


# Where it is.


def test_each_folder_of_a_repository_knows_it(repo: Repo) -> None:
    inner = repo.path / "a" / "b"
    inner.mkdir(parents=True)
    for folder in (repo.path, inner, repo.path / ".git", repo.path / ".git" / "refs"):
        found = GitRepo.discover(folder)
        dirs = (found.git_common_dir, found.git_dir, found.root, found.main_root, found.folder)
        assert dirs == (repo.path / ".git", repo.path / ".git", repo.path, repo.path, repo.path)
        assert found.object_format == "sha1"


def test_a_linked_worktree_has_its_own_root_and_the_common_folder(repo: Repo, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    repo.git("worktree", "add", "--quiet", "-b", "other", str(linked))
    own = repo.path / ".git" / "worktrees" / "linked"
    for folder in (linked, own):
        found = GitRepo.discover(folder)
        assert (found.git_common_dir, found.git_dir, found.root) == (repo.path / ".git", own, linked)
        assert (found.main_root, found.head_ref()) == (repo.path, "refs/heads/other")
    assert [(one.path, one.ref) for one in worktrees(found)] == [(repo.path, MAIN), (linked, "refs/heads/other")]


def test_a_bare_repository_has_no_root(repo: Repo, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    repo.git("clone", "--quiet", "--bare", ".", str(bare))
    found = GitRepo.discover(bare)
    assert (found.root, found.main_root, found.folder, worktrees(found)) == (None, bare, bare, [])


def test_what_is_no_repository_says_so(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(NotARepository) as caught:
            GitRepo.discover(folder)
        assert caught.value.message == f"{folder} is not in a git repository"


# Names.


def test_a_revision_names_a_commit_or_nothing(repo: Repo, git: GitRepo) -> None:
    first = head(repo)
    second = CommitId(repo.commit("second"))
    repo.git("tag", "-a", "-m", "x", "v1", first)
    for name, commit in (
        ("HEAD", second), ("main", second), (second[:12], second), ("main~1", first), ("v1", first),
        ("main~2", None), ("nope", None), ("HEAD:", None), ("^main", None), ("--all", None), ("-n1", None), ("", None),
    ):  # fmt: skip
        assert git.commit_of(name) == commit, name
    assert git.head() == second
    assert git.head_ref() == MAIN
    repo.git("checkout", "--quiet", "--detach")
    assert (git.head(), git.head_ref()) == (second, None)


def test_an_unborn_branch_has_no_commit(empty: Repo) -> None:
    git = GitRepo.discover(empty.path)
    assert git.head_ref() == MAIN
    with pytest.raises(NoCommitYet, match="has no commit yet"):
        git.head()


def test_branches_are_told_with_their_subjects_as_they_are(repo: Repo, git: GitRepo) -> None:
    repo.git("commit", "--quiet", "--allow-empty", "--cleanup=verbatim", "-m", "odd \u2028 \r subject\n\nbody")
    for name in ("exp/a", "exp/b/c", "expert", "other"):
        repo.git("branch", name)
    found = git.branches("refs/heads/exp/")
    assert [(one.ref, one.commit) for one in found] == [
        ("refs/heads/exp/a", head(repo)), ("refs/heads/exp/b/c", head(repo))
    ]  # fmt: skip
    assert found[0].committed_at == int(repo.git("log", "-1", "--format=%ct"))
    assert "\u2028" in found[0].subject
    assert set(git.refs("refs/heads/exp", "refs/heads/other")) == {
        "refs/heads/exp/a", "refs/heads/exp/b/c", "refs/heads/other"
    }  # fmt: skip
    assert git.refs("refs/heads/nope") == {}


# Objects.

ODD = 'a\nline\tand ü "quotes"'


@pytest.fixture
def files(repo: Repo) -> str:
    """A commit with files of odd names, an executable, and a link."""
    repo.write("x/one", "1")
    repo.write("x/deep/two", "22")
    repo.write(f"x/{ODD}", "odd")
    repo.write("empty", "")
    repo.write("run.sh", "#!/bin/sh\n").chmod(0o755)
    os.symlink("x/one", repo.path / "link")
    return repo.commit()


def test_contents_and_ids_are_those_of_git(repo: Repo, git: GitRepo, files: str) -> None:
    names = [f"{files}:x/one", f"{files}:nope", f"{files}:empty", f"{files}:x", f"{files}:x/deep/two", "f" * 40]
    assert git.objects(names) == [b"1", None, b"", None, b"22", None]
    assert git.ids(names) == [
        *(repo.git("rev-parse", name).strip() if number not in (1, 5) else None for number, name in enumerate(names))
    ]
    assert [kind for kind, _ in git.contents(names)] == ["blob", "missing", "blob", "tree", "blob", "missing"]
    assert git.contents([files])[0][1] == repo.git("cat-file", "commit", files).encode()
    assert git.has([files, "f" * 40, f"{files}:x"]) == [True, False, True]
    assert git.objects([]) == git.ids([]) == git.has([]) == []
    # With a newline in it, each is asked for by itself.
    odd = [f"{files}:x/{ODD}", f"{files}:x/one", f"{files}:no\npe"]
    assert git.objects(odd) == [b"odd", b"1", None]
    assert git.ids(odd) == [git.ids([f"{files}:x/{ODD}"])[0], git.ids([f"{files}:x/one"])[0], None]
    assert (git.read(files, "x/one"), git.read(files, "x"), git.read(files, "nope")) == (b"1", None, None)


def test_what_is_too_large_is_not_read(repo: Repo, git: GitRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("a", 99), ("b", 100), ("c", 101), ("d", 100)):
        repo.write(name, name * size)
    repo.write("same", "a" * 99)
    commit = repo.commit()
    read: list[str] = []
    calls: list[int] = []
    contents = GitRepo.contents

    def spied(self: GitRepo, names: list[str]) -> list[tuple[str, bytes]]:
        read.extend(names)
        calls.append(len(names))
        return contents(self, names)

    monkeypatch.setattr(GitRepo, "contents", spied)
    names = [f"{commit}:{name}" for name in ("a", "nope", "c", "b", "same", "d", "a")]
    expected = [b"a" * 99, None, 101, b"b" * 100, b"a" * 99, b"d" * 100, b"a" * 99]
    assert git.objects_within(names, 100) == expected
    assert len(read) == 3  # each content once, c not at all
    assert calls == [3]  # together
    monkeypatch.setattr(repo_module, "_PORTION_BYTES", 150)  # as many as fit at a time
    assert git.objects_within(names, 100) == expected
    assert sorted(calls[1:]) == [1, 2]
    assert git.objects_within([f"{commit}:"], 100) == [None]  # a folder
    assert git.objects_within([], 100) == []


def test_a_tree_is_told_below_a_folder(repo: Repo, git: GitRepo, files: str) -> None:
    lines = repo.git("ls-tree", "-r", "-z", files).split("\0")[:-1]
    told = [f"{one.mode} blob {one.oid}\t{one.path}" for one in git.tree(files)]
    assert told == lines
    assert {one.path: one.mode for one in git.tree(files)} == {
        "empty": "100644", "link": "120000", "run.sh": "100755", "x/deep/two": "100644", "x/one": "100644",
        f"x/{ODD}": "100644",
    }  # fmt: skip
    assert [one.path for one in git.tree(files, "x/deep")] == ["x/deep/two"]
    assert git.tree(files, "x/on") == git.tree(files, "x/one") == []  # no folder
    assert git.tree_id(files) == repo.git("rev-parse", f"{files}^{{tree}}").strip()
    content, folders = git.read_with_folders(files, "x/deep/two")
    assert (content, sorted(folders)) == (b"22", ["", "x", "x/deep"])
    assert git.trees(files, ["", "x", "x/deep", "nope"]) == folders
    assert git.read_with_folders(files, "x/new/file")[0] is None
    assert sorted(git.read_with_folders(files, "x/new/file")[1]) == ["", "x"]


def test_what_changed_between_two_commits(repo: Repo, git: GitRepo, files: str) -> None:
    repo.write("x/one", "1\n2\n3\n")
    repo.write("binary", b"\0\1")
    (repo.path / "empty").unlink()
    (repo.path / "run.sh").rename(repo.path / "moved.sh")
    new = repo.commit()
    assert git.changed_lines(files, new) == {
        "x/one": (3, 1), "binary": None, "empty": (0, 0), "run.sh": (0, 1), "moved.sh": (1, 0)
    }  # fmt: skip
    found = {one.path: (one.mode, one.oid) for one in git.changed(files, new)}
    assert sorted(found) == ["binary", "empty", "moved.sh", "run.sh", "x/one"]
    assert found["empty"] == found["run.sh"] == ("000000", "0" * 40)
    assert found["moved.sh"] == ("100755", git.ids([f"{files}:run.sh"])[0])
    assert found["x/one"][1] == git.ids([f"{new}:x/one"])[0]
    assert git.changed(files, files) == []


# History.


def test_a_chain_goes_along_first_parents(repo: Repo, git: GitRepo) -> None:
    first = head(repo)
    repo.git("switch", "--quiet", "-c", "side")
    side = repo.commit("on the side")
    repo.git("switch", "--quiet", "main")
    second = repo.commit("second")
    repo.git("merge", "--quiet", "--no-ff", "-m", "merge\n\nReview: a.b*c", "side")
    merge = head(repo)
    assert git.chain(merge) == [first, second, merge]
    assert git.chain(merge, second) == [merge]
    assert git.chain(merge, merge) == []
    assert [git.is_ancestor(*pair) for pair in ((first, merge), (side, merge), (merge, first), (side, second))] == [
        True, True, False, False
    ]  # fmt: skip
    assert git.is_ancestor(merge, merge)
    assert git.merges_with_trailer("main", "Review", "a.b*c") == [(merge, [second, side])]
    for value in ("a.bbc", "aXb*c", "a.b*", ".b*c"):
        assert git.merges_with_trailer("main", "Review", value) == []
    assert git.merges_with_trailer("side", "Review", "a.b*c") == []
    # What was merged on the side, and came with a later merge, is no merge into main.
    repo.git("switch", "--quiet", "-c", "other", first)
    repo.git("merge", "--quiet", "--no-ff", "-m", "m\n\nReview: x", "side")
    repo.git("switch", "--quiet", "main")
    repo.git("merge", "--quiet", "--no-ff", "-m", "m", "other")
    assert git.merges_with_trailer("main", "Review", "x") == []
    assert git.merges_with_trailer("other", "Review", "x") == [(head(repo, "other"), [first, side])]


def test_authors_are_those_of_what_is_not_yet_there(repo: Repo, git: GitRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.git("switch", "--quiet", "-c", "side")
    repo.git("commit", "--quiet", "--allow-empty", "-m", "b", "--author=Bob <bob@example.com>")
    repo.git("commit", "--quiet", "--allow-empty", "-m", "c", "--author=Cleo <cleo@example.com>")
    assert git.authors("main", "side") == {"bob@example.com", "cleo@example.com"}
    assert git.authors("side", "main") == set()
    assert git.author("side") == "cleo@example.com"
    assert git.author("main") == "ann@example.com"
    assert git.are_signed(["main", "side"]) == [False, False]
    assert git.signature("main", repo.path / "signers")[0] == "N"
    text = repo.git("cat-file", "commit", "main").replace("\n\n", "\ngpgsig x\n\n", 1)
    repo.write("signed", text)
    signed = repo.git("hash-object", "-t", "commit", "-w", "--literally", "signed").strip()
    quoted = repo.commit("a message\n\ngpgsig in the message")
    assert git.are_signed([signed, quoted]) == [True, False]


# Settings.


def test_settings_are_those_of_the_repository_alone(repo: Repo, git: GitRepo, home: Path) -> None:
    repo.git("config", "expmgr.one", "1")
    repo.git("config", "expmgr.two", "a\nb")
    repo.git("config", "--global", "expmgr.mine", "x")
    with open(repo.path / ".git" / "config", "a") as file:
        file.write("[expmgr]\n\tflag\n")
    assert git.settings(r"^expmgr\.") == [("expmgr.one", "1"), ("expmgr.two", "a\nb"), ("expmgr.flag", "true")]
    assert git.settings(r"^nope\.") == []
    assert not git.has_signing_key()
    repo.git("config", "user.signingKey", "x")
    assert git.has_signing_key()


def test_who_is_at_work(repo: Repo, git: GitRepo, home: Path) -> None:
    assert git.identity() == "Ann <ann@example.com>"
    (home / ".gitconfig").write_text("[user]\n\tuseConfigOnly = true\n")
    with pytest.raises(GitFailed, match="git does not know who you are"):
        git.identity()


def test_an_old_git_is_named(git: GitRepo) -> None:
    git.require_version((1, 8))
    with pytest.raises(
        GitFailed, match=r"^git version .* is too old: this needs git 99\.0 or newer\nNothing was changed\.$"
    ):
        git.require_version((99, 0))


# Moving refs.


def test_a_branch_is_made_once(repo: Repo, git: GitRepo) -> None:
    second = CommitId(repo.commit("second"))
    first = head(repo, "main~1")
    git.create_branch("refs/heads/exp/a/b", first, "expmgr: new")
    assert (head(repo, "exp/a/b"), repo.git("reflog", "exp/a/b", "--format=%gs")) == (first, "expmgr: new\n")
    for name, hint in (
        ("exp/a/b", "choose another name, or look at it: expmgr show a/b"),
        ("exp/a/b/c", "choose another name, or rename the other: git branch -m exp/a/b NEW-NAME"),
        ("exp/a", "choose another name, or rename the other: git branch -m exp/a/b NEW-NAME"),
    ):
        with pytest.raises(BranchExists) as caught:
            git.create_branch(f"refs/heads/{name}", second, "expmgr: new")
        assert (caught.value.hint, caught.value.left_alone) == (hint, "Nothing was changed.")
    repo.git("branch", "one")
    assert git.clash("refs/heads/one/two") == "refs/heads/one"
    assert git.clash("refs/heads/exp/ab") is None
    assert git.clash("refs/heads/exp/a/bb") is None
    with pytest.raises(GitFailed, match="git could not make refs/heads/exp/b"):
        git.create_branch("refs/heads/exp/b", CommitId("f" * 40), "expmgr: new")
    assert head(repo, "exp/a/b") == first


def test_a_branch_moves_only_from_where_it_was(repo: Repo, git: GitRepo) -> None:
    first = head(repo)
    second = repo.commit("second")
    repo.git("branch", "other", first)
    assert not git.move_branch("refs/heads/other", second, second, "why")
    assert not git.move_branch("refs/heads/other", None, second, "why")
    assert head(repo, "other") == first
    assert git.move_branch("refs/heads/other", first, second, "why")
    assert git.move_branch("refs/heads/made", None, first, "why")
    assert (head(repo, "other"), head(repo, "made")) == (second, first)
    git.set_ref("refs/expmgr/x", first, "why")
    git.set_ref("refs/expmgr/x", second, "why")
    assert git.refs("refs/expmgr/") == {"refs/expmgr/x": second}
    git.delete_ref("refs/expmgr/x")
    git.delete_ref("refs/expmgr/x")
    assert git.refs("refs/expmgr/") == {}


# Objects that are made here.


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 2_047, 2_048, 2_049, 262_143, 262_144])
def test_an_object_of_any_size_is_what_git_makes_of_it(repo: Repo, size: int) -> None:
    """The size in a pack is written in 4 bits and then in sevens: its limits lie at 2^4, 2^11 and 2^18."""
    new = NewObjects("sha1")
    name = new.add("blob", b"x" * size).hex()
    new.add("blob", b"x" * size)
    assert len(new) == 1
    subprocess.run(["git", "unpack-objects", "-q", "--strict"], cwd=repo.path, input=new.pack(), check=True)
    assert repo.git("cat-file", "-s", name).strip() == str(size)


def test_a_commit_replaces_files_and_leaves_the_others(repo: Repo, git: GitRepo, files: str) -> None:
    """Sorted as git sorts: the folder `x` behind `x-y` and `x.y`; what was executable stays so."""
    new = {
        "x-y": b"1",
        "x.y": b"2",
        "x/one": b"changed",
        "x/new/deep": b"3",
        "run.sh": b"other",
        "a/b/c": b"4",
        "x0": b"",
    }
    before = {one.path: (one.mode, one.oid) for one in git.tree(files)}
    commit = write_commit(git, CommitId(files), new, "a message\n\nwith more\n")
    after = {one.path: (one.mode, one.oid) for one in git.tree(commit)}
    assert repo.git("fsck", "--strict", "--no-dangling", commit) == ""
    assert {path: after[path] for path in before if path not in new} == {
        path: one for path, one in before.items() if path not in new
    }
    assert {path: git.read(commit, path) for path in new} == new
    assert {path: after[path][0] for path in new} == {**dict.fromkeys(new, "100644"), "run.sh": "100755"}
    assert repo.git("log", "-1", "--format=%P|%B", commit).rstrip() == f"{files}|a message\n\nwith more"
    _, folders = git.read_with_folders(files, "x/one")
    assert write_commit(git, CommitId(files), {"x/one": b"y"}, "m", folders) == write_commit(
        git, CommitId(files), {"x/one": b"y"}, "m"
    )
    assert folders_of(["a/b/c", "a/d", "e"]) == ["", "a", "a/b"]


@pytest.mark.parametrize(("count", "packs"), [(24, 0), (25, 1)])
def test_a_chain_of_any_length_extends_a_ref(repo: Repo, git: GitRepo, count: int, packs: int) -> None:
    """Four objects a commit: from a hundred on they come as a pack."""
    other = head(repo)
    commits = [
        NewCommit({"e.json": b"%d" % one, "d/f": b"%d" % one}, f"{one}\n", [other] if one else [])
        for one in range(count)
    ]
    tip = extend_ref(git, OWN, None, commits, "test")
    assert tip == head(repo, OWN)
    said = repo.git("log", "--first-parent", "--reverse", "--format=%s", OWN).split()
    assert said == [str(one) for one in range(count)]
    parents, *who = repo.git("log", "-1", "--format=%P|%an|%ae|%cn", OWN).strip().split("|")
    assert (parents.split()[1:], who) == ([other], ["Ann", "ann@example.com", "Ann"])
    assert git.read(OWN, "d/f") == b"%d" % (count - 1)
    assert f"\npacks: {packs}\n" in repo.git("count-objects", "-v")
    assert repo.git("fsck", "--strict", "--no-dangling") == ""


def test_a_ref_that_somebody_moved_is_left_and_so_is_what_was_to_be_dropped(repo: Repo, git: GitRepo) -> None:
    keep = "refs/expmgr/keep/x"
    one = [NewCommit({"e.json": b"1"}, "one\n")]
    first = extend_ref(git, OWN, None, one, "test")
    assert first is not None
    git.set_ref(keep, first, "a pin")
    before = repo.git("for-each-ref")
    assert extend_ref(git, OWN, None, one, "test", drop=[keep]) is None
    assert extend_ref(git, OWN, head(repo), one, "test", drop=[keep]) is None
    assert repo.git("for-each-ref") == before
    second = extend_ref(git, OWN, first, one, "test", drop=[keep, "refs/expmgr/keep/none"])
    assert second is not None
    assert git.chain(second) == [first, second]
    assert (git.refs(keep), git.refs(OWN)) == ({}, {OWN: second})
    git.set_ref(keep, first, "a pin")
    assert extend_ref(git, OWN, second, [], "test", drop=[keep]) == second  # only to drop
    assert (git.refs(keep), git.refs(OWN)) == ({}, {OWN: second})


def test_who_has_no_name_is_called_unknown_in_the_log(repo: Repo, git: GitRepo, home: Path) -> None:
    (home / ".gitconfig").write_text("[user]\n\tuseConfigOnly = true\n")
    assert extend_ref(git, OWN, None, [NewCommit({"e": b"1"}, "one\n")], "test")
    assert repo.git("log", "-1", "--format=%an <%ae>", OWN) == "unknown <unknown>\n"
    with pytest.raises(GitFailed, match="git does not know who you are"):
        write_commit(git, head(repo), {"e": b"1"}, "one")


def test_a_merge_is_made_in_memory(repo: Repo, git: GitRepo) -> None:
    for name, branch, text in (
        ("a", "side", "side\n"),
        ("b", "main", "main\n"),
        ("both", "side", "1\n"),
        ("both", "main", "2\n"),
    ):
        repo.git("switch", "--quiet", *(["-c"] if name == "a" else []), branch)
        repo.write(name, text)
        repo.commit()
    snapshot = repo.snapshot()
    assert merged_tree(git, "main", "side") == (None, ["both"])
    tree, conflicts = merged_tree(git, "main~1", "side~1")
    assert conflicts == []
    assert tree is not None
    assert [one.path for one in git.tree(tree)] == ["a", "b"]
    merge = write_merge(git, tree, [head(repo, "main~1"), head(repo, "side~1")], {"c/d": b"3"}, "a merge")
    assert [one.path for one in git.tree(merge)] == ["a", "b", "c/d"]
    assert repo.git("log", "-1", "--format=%P", merge).split() == [head(repo, "main~1"), head(repo, "side~1")]
    assert repo.snapshot() == snapshot
    with pytest.raises(GitFailed, match="git could not merge"):
        merged_tree(git, "main", "f" * 40)


# Checkouts.


def test_what_is_not_committed_is_told(repo: Repo, git: GitRepo) -> None:
    repo.write("a/kept", "1")
    repo.write("b", "1")
    repo.write(".gitignore", "*.log\n")
    repo.commit()
    assert uncommitted(repo.path, ["."]) == changed_in(repo.path) == []
    repo.write("a/kept", "2")
    repo.write("a/new", "1")
    repo.write("a/x.log", "1")
    (repo.path / "b").unlink()
    assert uncommitted(repo.path, ["."]) == ["a/kept", "a/new", "b"]
    assert uncommitted(repo.path, ["a"]) == ["a/kept", "a/new"]
    assert uncommitted(repo.path, ["a/*"]) == []  # a path and no pattern
    assert changed_in(repo.path) == ["a/kept", "b"]


def test_a_snapshot_takes_all_but_data_and_environments(repo: Repo, git: GitRepo) -> None:
    assert take_snapshot(git, "m") == (head(repo), [])
    repo.write("staged", "staged")
    repo.git("add", "staged")
    repo.write("new", "new")
    repo.write("most", b"x" * 10_000_000)
    repo.write("data", b"x" * 10_000_001)
    repo.write("venv/pyvenv.cfg", "home = /usr\n")
    repo.write("venv/lib/x.py", "1")
    before = repo.snapshot()
    commit, changed = take_snapshot(git, "a snapshot")
    assert repo.snapshot() == before
    assert changed == ["most", "new", "staged"]
    assert [one.path for one in git.tree(commit)] == ["most", "new", "staged"]
    assert repo.git("log", "-1", "--format=%P|%s", commit) == f"{head(repo)}|a snapshot\n"


def test_paths_alone_are_committed(repo: Repo) -> None:
    repo.write("a", "1")
    repo.write("b", "1")
    repo.write(".gitignore", "*.log\n")
    repo.commit()
    for name in ("a", "b", "c", "x.log", "y.log"):
        repo.write(name, "2")
    repo.git("add", "b")
    commit_paths(repo.path, ["a", "c"], "some")
    assert repo.git("show", "--name-only", "--format=%s", "HEAD").split() == ["some", "a", "c"]
    assert repo.git("diff", "--cached", "--name-only") == "b\n"
    commit_paths(repo.path, ["x.log"], "ignored", also_ignored=True)
    assert repo.git("show", "--name-only", "--format=%s", "HEAD").split() == ["ignored", "x.log"]
    repo.write("d", "1")
    repo.write(".git/hooks/x", "")
    before = repo.snapshot()
    repo.git("config", "user.useConfigOnly", "true")
    repo.git("config", "user.email", "")
    repo.git("config", "commit.gpgSign", "true")
    repo.git("config", "gpg.program", "/nonexistent")
    with pytest.raises(GitFailed):
        commit_paths(repo.path, ["d"], "not to be")
    after = repo.snapshot()
    assert {**after, "config": None, "index": None} == {**before, "config": None, "index": None}
    assert repo.git("diff", "--cached", "--name-only") == "b\n"
    assert "?? d\n" in repo.git("status", "--porcelain")


def test_in_the_middle_of_a_merge_nothing_is_committed(repo: Repo) -> None:
    repo.git("switch", "--quiet", "-c", "side")
    repo.write("a", "1\n")
    repo.commit()
    repo.git("switch", "--quiet", "main")
    repo.write("a", "2\n")
    repo.commit()
    with pytest.raises(AssertionError):
        repo.git("merge", "side")
    before = repo.snapshot()
    with pytest.raises(
        GitFailed, match="is in the middle of a merge, so git cannot commit these files alone"
    ) as caught:
        commit_paths(repo.path, [f"f{number}" for number in range(7)], "x")
    assert caught.value.details[-1] == "and 2 more"
    assert len(caught.value.details) == 6
    assert repo.snapshot() == before
    (repo.path / ".git/MERGE_HEAD").unlink()  # as a stash leaves it whose files conflict
    with pytest.raises(GitFailed, match="is in the middle of a merge with conflicts, so git"):
        commit_paths(repo.path, ["a"], "x")
    repo.git("reset", "--quiet", "--hard")
    repo.git("update-ref", "CHERRY_PICK_HEAD", "side")
    with pytest.raises(GitFailed, match="is in the middle of a cherry-pick or a rebase, so git"):
        commit_paths(repo.path, ["a"], "x")


def test_a_checked_out_branch_goes_forward_alone(repo: Repo) -> None:
    first = head(repo)
    second = repo.commit("second")
    repo.git("reset", "--quiet", "--hard", first)
    with pytest.raises(GitFailed, match="has another branch checked out by now") as caught:
        fast_forward(repo.path, "refs/heads/other", second)
    assert list(caught.value.details) == [MAIN]
    assert head(repo) == first
    fast_forward(repo.path, MAIN, second)
    assert head(repo) == second
    repo.git("reset", "--quiet", "--hard", first)
    third = repo.commit("another way")
    with pytest.raises(GitFailed, match="git merge failed"):
        fast_forward(repo.path, MAIN, second)
    assert head(repo) == third


# Remotes.


def test_a_remote_is_followed_by_its_name(repo: Repo, tmp_path: Path) -> None:
    hub = new_repo(tmp_path / "hub")
    hub.git("config", "receive.denyCurrentBranch", "ignore")
    hub.commit("of the hub")
    git = GitRepo.discover(repo.path)
    assert (remote_names(git), upstream_remote(git), default_branch(git, "origin")) == ([], None, None)
    repo.git("remote", "add", "origin", str(hub.path))
    repo.git("remote", "add", "fork", str(tmp_path / "nowhere"))
    repo.git("fetch", "--quiet", "origin")
    repo.git("remote", "set-head", "origin", "main")
    assert (sorted(remote_names(git)), default_branch(git, "origin")) == (["fork", "origin"], "main")
    repo.git("branch", "follows", "--track", "origin/main")
    repo.git("branch", "local", "--track", "main")
    assert [remote_followed(git, name) for name in ("follows", "local", "main")] == ["origin", None, None]
    assert upstream_remote(git) is None
    repo.git("switch", "--quiet", "follows")
    assert upstream_remote(git) == "origin"
    assert refs_at(git, "origin", "refs/heads/*") == {MAIN: head(hub)}
    answer = refs_at(git, "fork", "refs/heads/*")
    assert not isinstance(answer, dict)
    assert answer.status != 0
    repo.git("branch", "new", "main")
    flags, answer = push_refs(git, "origin", ["refs/heads/new:refs/heads/new", "refs/heads/main:refs/heads/main"])
    assert (flags, answer.status != 0) == ({"refs/heads/new": "*", MAIN: "!"}, True)
    flags, _ = push_refs(git, "origin", ["refs/heads/new:refs/heads/new"])
    assert flags == {"refs/heads/new": "="}
    repo.git("branch", "--force", "new", repo.git("commit-tree", "-p", "new", "-m", "x", "new^{tree}").strip())
    assert push_refs(git, "origin", ["refs/heads/new"])[0] == {"refs/heads/new": " "}
