"""Writes commits and merges directly as objects, without a checkout, an index or hooks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from expmgr.errors import GitFailed
from expmgr.git.objects import NewCommit, NewObjects, folders_of
from expmgr.git.process import call_git, git_failed, is_disk_full, words_of
from expmgr.git.repo import CommitId, GitRepo

#: `transfer.unpackLimit` is 100.
_UNPACK_LIMIT = 100


def write_commit(
    repo: GitRepo,
    parent: CommitId,
    files: Mapping[str, bytes],
    message: str,
    folders: Mapping[str, bytes] | None = None,
) -> CommitId:
    """A new commit on `parent` with `files` (path to content) replaced; no ref points to it yet.

    `folders` are the trees on the way to `files`, where they are known already (`read_with_folders`). Nothing else
    is read or written, so it costs the same in a repository of any size. Not by fast-import: that writes a pack,
    has it unpacked by another process, needs to be told who is at work, and leaves a crash report in `.git`.
    """
    if folders is None:
        folders = repo.trees(parent, folders_of(files))
    new = NewObjects(repo.object_format)
    tree = new.tree(folders, files).hex()
    _take_in(repo, new)
    return commit_tree(repo, tree, [parent], message)


def merged_tree(repo: GitRepo, ours: str, theirs: str) -> tuple[str | None, list[str]]:
    """What a merge of `theirs` into `ours` would be: its tree, or None and the files in conflict. No ref moves.

    The same for everybody: neither attributes of a checkout nor settings of a user decide it.
    """
    options = ("--write-tree", "--name-only", "--no-messages", "-z")
    config = ("merge.renames=true", "merge.directoryRenames=conflict", "core.attributesFile=/dev/null")
    answer = call_git(repo.git_common_dir, ["merge-tree", *options, ours, theirs], config=config)
    tree, *files = answer.text.split("\0")
    if answer.status == 0:
        return tree.strip(), []
    if answer.status == 1 and tree:  # git also exits with 1 if it has no such commit, and then prints no tree
        return None, [file for file in files if file]
    repo.require_version((2, 38))
    raise git_failed("git could not merge", answer, repo.git_common_dir)


def write_merge(repo: GitRepo, tree: str, parents: Sequence[str], files: Mapping[str, bytes], message: str) -> CommitId:
    """A commit of `tree`, with `files` added, on `parents`; no ref points to it yet."""
    new = NewObjects(repo.object_format)
    whole = new.tree(repo.trees(tree, folders_of(files)), files).hex()
    _take_in(repo, new)
    return commit_tree(repo, whole, parents, message)


def check_can_sign(repo: GitRepo) -> None:
    """`GitFailed` with git's own words where it cannot sign with the user's key. Leaves a commit that nothing points to."""
    new = NewObjects(repo.object_format)
    tree = new.tree({}, {}).hex()
    _take_in(repo, new)
    _signed_commit(repo, tree, [], "expmgr: whether this can be signed\n")


def commit_tree(repo: GitRepo, tree: str, parents: Sequence[str], message: str) -> CommitId:
    text = message.encode("utf-8", "surrogateescape")
    options = [part for parent in parents for part in ("-p", parent)]
    answer = call_git(repo.folder, ["commit-tree", tree, *options], stdin=text, config=("i18n.commitEncoding=UTF-8",))
    if answer.status:
        repo.identity()  # the usual reason, and the better words
        raise git_failed(f"git could not make a commit in {repo.folder}", answer, repo.folder)
    return CommitId(answer.text.strip())


def extend_ref(
    repo: GitRepo,
    ref: str,
    old: str | None,
    commits: Sequence[NewCommit],
    why: str,
    *,
    sign: bool = False,
    drop: Sequence[str] = (),
) -> CommitId | None:
    """Move `ref`, one of our own, from `old` (None: it is not there) over a chain of new commits, the first on `old`;
    with it the refs in `drop` go. The last commit; None where `ref` has been moved by somebody else meanwhile.

    `GitFailed` where git cannot sign what has to be signed.
    """
    new, tip = NewObjects(repo.object_format), old
    if sign:
        trees = [new.tree({}, commit.files).hex() for commit in commits]
        _take_in(repo, new)
        for commit, tree in zip(commits, trees, strict=True):
            tip = _signed_commit(repo, tree, [*([tip] if tip else []), *commit.parents], commit.message)
    else:
        author, committer = _ident(repo, "GIT_AUTHOR_IDENT"), _ident(repo, "GIT_COMMITTER_IDENT")
        for commit in commits:
            parents = "".join(f"parent {one}\n" for one in [*([tip] if tip else []), *commit.parents])
            tree = new.tree({}, commit.files).hex()
            head = f"tree {tree}\n{parents}author {author}\ncommitter {committer}\n\n"
            text = f"{head}{commit.message}".encode("utf-8", "surrogateescape")
            tip = new.add("commit", text).hex()
        _take_in(repo, new)
    there = repo.refs(*drop) if drop else {}
    moved = [f"update {ref} {tip} {old or '0' * len(tip)}"] if tip and tip != old else []
    steps = [*moved, *(f"delete {one} {oid}" for one, oid in there.items())]
    answer = repo.call("update-ref", "-m", why, "--stdin", stdin="".join(f"{one}\n" for one in steps).encode())
    if answer.status == 0:
        return CommitId(tip or "")
    if repo.refs(ref).get(ref) != old:
        return None
    raise git_failed(f"git could not move {ref}", answer, repo.folder, left_alone="Nothing was written.")


def _take_in(repo: GitRepo, new: NewObjects) -> None:
    """Few objects as files of their own, many as a pack, as git does with what it receives."""
    how = ("unpack-objects", "-q") if len(new) < _UNPACK_LIMIT else ("index-pack", "--stdin")
    repo.run(*how, stdin=new.pack())


def _ident(repo: GitRepo, variable: str) -> str:
    """Name, address and time as a commit has them; where git does not know who is at work, a name that says so."""
    answer = repo.call("var", variable)
    return answer.text.strip() if answer.status == 0 else f"unknown <unknown> {int(time.time())} +0000"


def _signed_commit(repo: GitRepo, tree: str, parents: Sequence[str], message: str) -> str:
    options = [part for parent in parents for part in ("-p", parent)]
    text = message.encode("utf-8", "surrogateescape")
    answer = repo.call("commit-tree", "-S", tree, *options, stdin=text)
    if answer.status:
        repo.identity()
        if is_disk_full(answer, repo.folder):
            raise git_failed("git could not sign with your key", answer, repo.folder)
        raise GitFailed(
            "git could not sign with your key",
            details=words_of(answer),
            left_alone="Nothing was changed.",
            hint="git config --global gpg.format ssh; git config --global user.signingKey ~/.ssh/id_ed25519.pub",
        )
    return answer.text.strip()
