"""`GitRepo`: reads objects, refs, settings and signatures of a repository, and moves refs.

GitPython's own index, head and object API is not used: its index writing loses a user's staged work on a kill, its
`create_head` silently moves a packed branch, and it cannot read sha256 or reftable repositories.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NewType

from expmgr.errors import BranchExists, FileTooLarge, GitFailed, NoCommitYet, NotARepository
from expmgr.git.objects import TreeEntry, folders_of
from expmgr.git.process import (
    OLDEST_GIT,
    GitResult,
    TooMuchOutput,
    call_git,
    git_failed,
    local_words,
    read_config,
    run_git,
    words_of,
)

#: What is read from git at once, of files that others may have made large.
_PORTION_BYTES = 16_000_000
#: No spec, no code, no settings and no page has more: data is not read from git.
MOST_FILE_BYTES = 8_000_000
#: The header of a commit lies in front of its message, so it is read whole or not at all.
_MOST_COMMIT_BYTES = 1_000_000
#: The commit of a branch whose subject is shown.
_MOST_SUBJECT_BYTES = 100_000
#: Of a list of branches, commits or files more is not read: a million files are some 100 MB.
_MOST_LIST_BYTES = 128_000_000
#: How long a lock on one of our own refs is waited for: what is older is dead, or known to be in use.
_PATIENCE_S = 12
#: How long a moment is waited for in which no git works here, where one does beside an old lock.
_QUIET_S = 4


CommitId = NewType("CommitId", str)

#: The mode of a submodule in a tree.
SUBMODULE = "160000"


@dataclass(frozen=True)
class Branch:
    """A local branch and its newest commit. `committed_at` is in seconds since 1970, UTC."""

    ref: str
    commit: CommitId
    committed_at: int
    subject: str


class GitRepo:
    """A git repository, seen from one folder of it.

    `git_common_dir` is shared by all worktrees; `root` is the checkout that the call came from, None in a bare
    repository; `main_root` is the main worktree's root, or the repository itself where it is bare.
    """

    def __init__(self, git_common_dir: Path, git_dir: Path, root: Path | None, object_format: str) -> None:
        self.git_common_dir = git_common_dir
        self.git_dir = git_dir
        self.root = root
        self.object_format = object_format
        self._main_root: Path | None = None
        self.on_note: Callable[[str], None] = lambda _: None
        """Is told what a person should know: that a dead lock was deleted."""

    @classmethod
    def discover(cls, folder: Path) -> GitRepo:
        """The repository that `folder` is in; `NotARepository` where there is none."""
        # The format stands between the paths, because a path may hold a newline.
        form = "--show-object-format"
        question = ("rev-parse", "--path-format=absolute", form, "--git-common-dir", form, "--git-dir", form)
        answer = call_git(folder, (*question, "--show-toplevel")) if folder.is_dir() else None
        if answer is not None and answer.status:  # a bare repository has no top level, nor has a folder inside .git
            answer = call_git(folder, (*question, "--is-bare-repository"))
        if answer is None or answer.status:
            words = words_of(answer) if answer else []
            plain = not words or "not a git repository (or any" in words[0]
            raise NotARepository(
                f"{folder} is not in a git repository" if plain else f"git does not open the repository of {folder}",
                details=() if plain else words,
                hint="git init, then expmgr init --example iris --commit" if plain else None,
            )
        object_format, _, rest = answer.text.removesuffix("\n").partition("\n")
        common, git_dir, last = rest.split(f"\n{object_format}\n")
        repo = cls(Path(common), Path(git_dir), None, object_format)
        if last == "false":
            repo.root = repo._checkout_of_git_dir()
        elif last != "true":
            repo.root = Path(last)
        return repo

    def _checkout_of_git_dir(self) -> Path | None:
        """The checkout whose git dir the call came from, None where git does not know it."""
        if self.git_dir != self.git_common_dir:
            with contextlib.suppress(FileNotFoundError):
                pointer = (self.git_dir / "gitdir").read_text(encoding="utf-8", errors="surrogateescape")
                return Path(self.git_dir, pointer.removesuffix("\n")).parent.resolve()
            return None
        return self.main_root if self.main_root != self.git_common_dir else None

    @property
    def folder(self) -> Path:
        """Where git is called."""
        return self.root or self.git_common_dir

    @property
    def main_root(self) -> Path:
        if self._main_root is None:
            if self.root is not None and self.git_dir == self.git_common_dir:
                self._main_root = self.root
            else:
                self._main_root = self._find_main_root()
        return self._main_root

    def _find_main_root(self) -> Path:
        # Not from `git worktree list`: of a submodule it names the git dir.
        answer = call_git(self.git_common_dir, ("rev-parse", "--show-toplevel"))  # answers where core.worktree is set
        if answer.status == 0:
            return Path(answer.text.removesuffix("\n"))
        bare = call_git(self.git_common_dir, ("rev-parse", "--is-bare-repository")).text.strip() != "false"
        return self.git_common_dir if bare or self.git_common_dir.name != ".git" else self.git_common_dir.parent

    def call(
        self, *args: str, stdin: bytes | None = None, env: Mapping[str, str] | None = None, hooks: bool = False
    ) -> GitResult:
        """`call_git`, again where a lock of our own refs was in the way that is dead, or goes soon."""
        return self.until_unlocked(lambda: call_git(self.folder, args, stdin=stdin, env=env, hooks=hooks))

    def until_unlocked(self, act: Callable[[], GitResult]) -> GitResult:
        """What git said in `act`, which is done again where a lock of our own refs was in the way that is dead, or goes soon."""
        until = time.monotonic() + _PATIENCE_S
        while True:
            answer = act()
            if answer.status == 0 or "lock" not in answer.stderr.lower() or not self._is_unlocked(answer, until):
                return answer

    def run(self, *args: str, stdin: bytes | None = None, env: Mapping[str, str] | None = None) -> GitResult:
        answer = self.call(*args, stdin=stdin, env=env)
        if answer.status:
            raise git_failed(f"git {args[0]} failed in {self.folder} (exit {answer.status})", answer, self.folder)
        return answer

    def _is_unlocked(self, answer: GitResult, until: float) -> bool:
        """Whether the lock files of our own refs that git met are gone. A dead one is deleted, another one waited for."""
        from expmgr.git.locks import find_locks, named_in, take_away

        words = local_words(answer)
        if os.strerror(errno.EEXIST) not in words:  # no lock is there: none can be made, or git means something else
            return False
        quiet_until = time.monotonic() + _QUIET_S
        while time.monotonic() < until:
            locks = named_in(find_locks(self.git_common_dir, self.git_dir), self.git_common_dir, words)
            if not locks:  # whoever had it is done
                time.sleep(0.1)
                return True
            if not all(lock.is_ours for lock in locks):
                return False
            for lock in locks:
                if not lock.doubt and take_away(lock, self.git_common_dir):
                    self.on_note(f"removed {lock.path}, {lock.remains}")
            if not any(lock.doubt for lock in locks):
                return True
            if not all(lock.is_young for lock in locks) and time.monotonic() > quiet_until:
                return False
            time.sleep(0.05)
        return False

    # Reading. None of these runs anything that a branch holds.

    def commit_of(self, revision: str) -> CommitId | None:
        """The full id of the commit that `revision` names, None where it names none."""
        answer = self.call("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        known = answer.status == 0 and not answer.stdout.startswith(b"^")  # `^main` means: not what main holds
        return CommitId(answer.text.strip()) if known else None

    def head(self) -> CommitId:
        """The commit that is checked out; `NoCommitYet` where the branch is unborn."""
        commit = self.commit_of("HEAD")
        if commit is None:
            raise NoCommitYet(
                f"{self.folder} has no commit yet",
                left_alone="Nothing was changed.",
                hint="commit what you have; or, where that is nothing, expmgr init --example iris --commit",
            )
        return commit

    def head_ref(self) -> str | None:
        """The branch that is checked out, None where HEAD is detached."""
        answer = self.call("symbolic-ref", "--quiet", "HEAD")
        return answer.text.strip() if answer.status == 0 else None

    def branches(self, prefix: str) -> list[Branch]:
        """The branches below `prefix` (a folder of refs, such as `refs/heads/exp/`), by name."""
        fields = "%(refname)%00%(objectname)%00%(committerdate:unix)%00"
        try:
            answer = call_git(
                self.folder,
                ("for-each-ref", f"--format={fields}%(contents:subject)", prefix),
                most_bytes=_MOST_COMMIT_BYTES * 8,
            )
        except TooMuchOutput:  # a message of megabytes
            return self._branches_of_any_size(prefix, fields)
        return self._as_branches(answer)

    def _branches_of_any_size(self, prefix: str, fields: str) -> list[Branch]:
        """As `branches`, without the subject of a commit whose message is not read."""
        found = self._as_branches(call_git(self.folder, ("for-each-ref", f"--format={fields}", prefix)))
        sizes = self.sizes([one.commit for one in found])
        small = [one.ref for one, size in zip(found, sizes, strict=True) if size <= _MOST_SUBJECT_BYTES]
        subjects: dict[str, str] = {}
        for at in range(0, len(small), 50):
            asked = ("for-each-ref", f"--format={fields}%(contents:subject)", *small[at : at + 50])
            subjects |= {one.ref: one.subject for one in self._as_branches(call_git(self.folder, asked))}
        return [replace(one, subject=subjects.get(one.ref, "")) for one in found]

    def _as_branches(self, answer: GitResult) -> list[Branch]:
        if answer.status:
            raise git_failed(f"git for-each-ref failed in {self.folder}", answer, self.folder)
        branches = []
        for line in answer.text.split("\n")[:-1]:  # not splitlines: a subject may hold U+2028 or a lone \r
            ref, commit, time, subject = line.split("\0")
            branches.append(Branch(ref, CommitId(commit), int(time), subject))
        return branches

    def refs_with(self, commit: str, prefix: str) -> list[str]:
        """The refs at or below `prefix` whose history has `commit`."""
        return self.run("for-each-ref", "--format=%(refname)", f"--contains={commit}", prefix).text.split("\n")[:-1]

    def sizes(self, commits: Sequence[str]) -> list[int]:
        """How many bytes each commit object has, its message included; 0 where it is not there."""
        return [size for _, size in self._sizes(commits, "commit")]

    def refs(self, *prefixes: str) -> dict[str, str]:
        """The refs at or below `prefixes`, and what they point to."""
        lines = self.run("for-each-ref", "--format=%(refname)%00%(objectname)", *prefixes).text.split("\n")[:-1]
        return dict(line.split("\0") for line in lines)

    def objects(self, names: Sequence[str]) -> list[bytes | None]:
        """The content of each file in `names` (ids, or `<commit>:<path>`), None for those that are not there."""
        return [content if kind == "blob" else None for kind, content in self.contents(names)]

    def objects_within(self, names: Sequence[str], most: int) -> list[bytes | int | None]:
        """As `objects`, of which nothing is read that has more than `most` bytes: its size is given. Files that are the same
        are read once, some at a time."""
        found: dict[str, bytes | int] = {}
        sizes = self._sizes(names, "blob")
        for oid, content in self._each_within({oid: size for oid, size in sizes if oid}, most, "blob"):
            found[oid] = content
        return [found[oid] if oid else None for oid, _ in sizes]

    def each_within(self, names: Sequence[str], most: int) -> Iterator[bytes | int | None]:
        """As `objects_within`, a few megabytes at a time, so that the memory does not hold all of them."""
        sizes = self._sizes(names, "blob")
        at = 0
        while at < len(sizes):
            portion = [sizes[at]]
            room = _PORTION_BYTES - portion[0][1]
            while at + len(portion) < len(sizes) and (room := room - sizes[at + len(portion)][1]) > 0:
                portion.append(sizes[at + len(portion)])
            found = dict(self._each_within({oid: size for oid, size in portion if oid}, most, "blob"))
            yield from (found[oid] if oid else None for oid, _ in portion)
            at += len(portion)

    def _sizes(self, names: Sequence[str], wanted: str) -> list[tuple[str, int]]:
        """Id and size of each object; an empty id for what is not there, or of another kind."""
        asked = "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape")
        form = "--batch-check=%(objectname) %(objecttype) %(objectsize)"
        lines = self.run("cat-file", form, stdin=asked).text.split("\n")[:-1] if names else []
        about = [fields if len(fields := line.split(" ")) == 3 and fields[1] == wanted else None for line in lines]
        return [("", 0) if one is None else (one[0], int(one[2])) for one in about]

    def _each_within(self, sizes: Mapping[str, int], most: int, wanted: str) -> Iterator[tuple[str, bytes | int]]:
        """Id and content of each object, its size where that is more than `most`."""
        left = [oid for oid, size in sizes.items() if size <= most]
        yield from ((oid, size) for oid, size in sizes.items() if size > most)
        while left:
            portion, room = [left.pop()], _PORTION_BYTES
            while left and (room := room - sizes[left[-1]]) > 0:
                portion.append(left.pop())
            for oid, (kind, content) in zip(portion, self.contents(portion), strict=True):
                yield oid, content if kind == wanted else b""

    def has(self, ids: Sequence[str]) -> list[bool]:
        """Whether each object is there."""
        return [kind != "missing" for kind, _ in self.contents(ids)]

    def ids(self, names: Sequence[str]) -> list[str | None]:
        """The id of each object in `names` (`<commit>:<path>`, a folder too), None for those that are not there."""
        if any("\n" in name for name in names):
            answers = [self.call("rev-parse", "--quiet", "--verify", "--end-of-options", name) for name in names]
            return [one.text.strip() if one.status == 0 else None for one in answers]
        asked = "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape")
        lines = self.run("cat-file", "--batch-check=%(objectname) %(objecttype)", stdin=asked).text.split("\n")[:-1]
        return [None if line.endswith(" missing") else line.partition(" ")[0] for line in lines]

    def contents(self, names: Sequence[str], most: int | None = None) -> list[tuple[str, bytes]]:
        """Kind and content of each, `missing` and nothing where it is not there. `TooMuchOutput` where all of them have more
        than `most` bytes."""
        if any("\n" in name for name in names):  # `cat-file --batch -z` is of git 2.38
            return [found for name in names for found in self._one_object(name)]
        asked = "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape")
        answer = call_git(self.folder, ("cat-file", "--batch"), stdin=asked, most_bytes=most) if names else None
        if answer is not None and answer.status:
            raise git_failed(f"git cat-file failed in {self.folder}", answer, self.folder)
        output = answer.stdout if answer is not None else b""
        found: list[tuple[str, bytes]] = []
        at = 0
        for _ in names:
            line_end = output.index(b"\n", at)
            header = output[at:line_end].rsplit(b" ", 2)
            at = line_end + 1
            if len(header) == 3 and header[2].isdigit():
                size = int(header[2])
                found.append((header[1].decode(), output[at : at + size]))
                at += size + 1
            else:
                found.append(("missing", b""))
        return found

    def _one_object(self, name: str) -> Iterator[tuple[str, bytes]]:
        kind = self.call("cat-file", "-t", name)
        if kind.status:
            yield "missing", b""
        else:
            yield kind.text.strip(), self.run("cat-file", kind.text.strip(), name).stdout

    def read_with_folders(self, commit: str, path: str) -> tuple[bytes | None, dict[str, bytes]]:
        """`read`, and with the same process what `write_commit` needs to replace that file."""
        folders = folders_of([path])
        try:
            kinds = self.contents([f"{commit}:{path}", *(f"{commit}:{folder}" for folder in folders)], _MOST_LIST_BYTES)
        except TooMuchOutput:
            raise _too_large(commit, path, _MOST_LIST_BYTES) from None
        trees = {folder: tree for folder, (kind, tree) in zip(folders, kinds[1:], strict=True) if kind == "tree"}
        return kinds[0][1] if kinds[0][0] == "blob" else None, trees

    def trees(self, commit: str, folders: Sequence[str]) -> dict[str, bytes]:
        found = self.contents([f"{commit}:{folder}" for folder in folders])
        return {folder: tree for folder, (kind, tree) in zip(folders, found, strict=True) if kind == "tree"}

    def read(self, commit: str, path: str, most: int = MOST_FILE_BYTES) -> bytes | None:
        """The content of the file `path` at `commit`, None where there is none. `FileTooLarge` where it has more than `most`
        bytes, which are not read: anybody may have pushed it."""
        try:
            kind, content = self.contents([f"{commit}:{path}"], most + 200)[0]
        except TooMuchOutput:
            if self._sizes([f"{commit}:{path}"], "blob")[0][0]:
                raise _too_large(commit, path, most) from None
            return None  # a folder
        return content if kind == "blob" else None

    def tree(self, commit: str, folder: str = "") -> list[TreeEntry]:
        """Every file, link and submodule below `folder` at `commit`; paths are relative to the repository's root."""
        scope = ["--", f"{folder}/"] if folder else []
        try:
            answer = call_git(
                self.folder, ("ls-tree", "-r", "-z", "--full-tree", commit, *scope), most_bytes=_MOST_LIST_BYTES
            )
        except TooMuchOutput:
            raise FileTooLarge(f"commit {commit[:12]} has more files than expmgr reads") from None
        if answer.status:
            raise git_failed(f"git ls-tree failed in {self.folder}", answer, self.folder)
        return list(_tree_entries(answer.stdout))

    def changed_lines(self, old: str, new: str) -> dict[str, tuple[int, int] | None]:
        """Path to the lines that came and that went from commit `old` to `new`; None for what is not text."""
        output = self.run(
            "diff-tree", "-r", "-z", "--numstat", "--no-renames", "--no-ext-diff", "--no-textconv", old, new
        )
        found: dict[str, tuple[int, int] | None] = {}
        for line in output.text.split("\0")[:-1]:
            added, removed, path = line.split("\t", 2)
            found[path] = (int(added), int(removed)) if added.isdigit() else None
        return found

    def tree_id(self, commit: str) -> str:
        return self.run("rev-parse", "--verify", "--end-of-options", f"{commit}^{{tree}}").text.strip()

    def is_ancestor(self, older: str, newer: str) -> bool:
        return self.call("merge-base", "--is-ancestor", older, newer).status == 0

    def require_version(self, oldest: tuple[int, int] = OLDEST_GIT) -> None:
        """`GitFailed` where git is too old for what was asked of it."""
        text = self.run("version").text.strip()
        found = re.search(r"(\d+)\.(\d+)", text)
        if found and (int(found[1]), int(found[2])) < oldest:
            wanted = ".".join(map(str, oldest))
            raise GitFailed(f"{text} is too old: this needs git {wanted} or newer", left_alone="Nothing was changed.")

    def settings(self, pattern: str) -> list[tuple[str, str]]:
        """The keys and values of git's configuration whose key matches `pattern`, of this repository alone."""
        return read_config(self.folder, pattern)

    def identity(self) -> str:
        """`Name <address>` of who is at work; `GitFailed` where git does not know."""
        answer = self.call("var", "GIT_COMMITTER_IDENT")
        if answer.status or self.call("var", "GIT_AUTHOR_IDENT").status:
            raise GitFailed(
                "git does not know who you are, so it cannot make a commit",
                left_alone="Nothing was changed.",
                hint='git config --global user.name "Your Name"; git config --global user.email you@example.com',
            )
        return answer.text.rsplit(" ", 2)[0]

    def has_signing_key(self) -> bool:
        """Whether git was told with which key to sign."""
        return self.call("config", "--get", "user.signingKey").status == 0

    def are_signed(self, commits: Sequence[str]) -> list[bool]:
        """Whether each commit carries a signature, good or bad."""
        sizes = self._sizes(commits, "commit")
        found = dict(self._each_within({oid: size for oid, size in sizes if oid}, _MOST_COMMIT_BYTES, "commit"))
        contents = (found[oid] if oid else b"" for oid, _ in sizes)
        return [isinstance(one, bytes) and b"\ngpgsig" in one.partition(b"\n\n")[0] for one in contents]

    def signature(self, commit: str, ssh_signers: Path) -> tuple[str, str, str, str]:
        """What git says of the signature of `commit`: its state (`G` good, `U` good by a key of unknown standing, `N` none
        ...), who signed, the fingerprint of the key and that of its primary key. `ssh_signers`: whose SSH keys are whose."""
        question = ["log", "-1", "--no-show-signature", "--format=%G?%x00%GS%x00%GF%x00%GP", "--end-of-options", commit]
        settings = (f"gpg.ssh.allowedSignersFile={ssh_signers}",)
        parts = run_git(self.folder, question, config=settings).text.rstrip("\n").split("\0")
        return (parts[0], parts[1], parts[2], parts[3]) if len(parts) == 4 else ("N", "", "", "")

    def authors(self, after: str, tip: str) -> set[str]:
        """The addresses of those who wrote the commits of `tip` that `after` does not have."""
        question = ("log", "--no-show-signature", "--format=%ae", "--end-of-options", tip, f"^{after}")
        return {line for line in self.run(*question).text.split("\n") if line}

    def author(self, commit: str) -> str:
        """The address of whoever wrote a commit."""
        question = ("log", "-1", "--no-show-signature", "--format=%ae", "--end-of-options", commit)
        return self.run(*question).text.removesuffix("\n")

    def merges_with_trailer(self, tip: str, key: str, value: str) -> list[tuple[CommitId, list[str]]]:
        """The merges into the branch `tip` (those along first parents) whose message has the line `key: value`, the newest
        first, each with its parents."""
        options = ("--first-parent", "--merges", "--no-show-signature", "--format=%H %P", "--extended-regexp")
        wanted = f"^{key}: {re.escape(value)}$"
        lines = self.run("log", *options, f"--grep={wanted}", "--end-of-options", tip).text.splitlines()
        return [(CommitId(commit), parents) for commit, *parents in map(str.split, lines)]

    def changed(self, old: str, new: str) -> list[TreeEntry]:
        """The files that are otherwise in the tree of `new` than in that of `old`, as `new` has them; of one that is gone
        there, mode and id are zeros."""
        options = ("-r", "-z", "--no-renames", "--no-ext-diff", "--no-textconv")
        fields = self.run("diff-tree", *options, old, new).text.split("\0")[:-1]
        abouts = (about.split(" ") for about in fields[::2])
        return [TreeEntry(about[1], about[3], path) for about, path in zip(abouts, fields[1::2], strict=True)]

    # Writing refs.

    def create_branch(self, ref: str, commit: CommitId, why: str) -> None:
        """Make `ref` at `commit`; `BranchExists` where it, or one that git cannot hold beside it, is there."""
        answer = self.call("update-ref", "-m", why, "--create-reflog", ref, commit, "0" * len(commit))
        if answer.status:
            clash = self.clash(ref)
            if clash is None:
                raise git_failed(f"git could not make {ref}", answer, self.folder)
            raise branch_exists(ref, clash)

    def clash(self, ref: str) -> str | None:
        """The existing ref that keeps git from making `ref`: itself, one above it or one below it."""
        parts = ref.split("/")
        above = {"/".join(parts[:count]) for count in range(3, len(parts))}
        found = self.refs(ref, *above)
        return next((name for name in found if name == ref or name in above or name.startswith(f"{ref}/")), None)

    def set_ref(self, ref: str, commit: str, why: str) -> None:
        """Point `ref`, one of our own, to `commit`."""
        self.run("update-ref", "-m", why, ref, commit)

    def delete_ref(self, ref: str, old: str | None = None) -> None:
        """Delete `ref`, one of our own, if it is there; with `old`, if it still points there."""
        self.run("update-ref", "-d", ref, *([old] if old else []))

    def chain(self, tip: str, after: str | None = None) -> list[str]:
        """The commits from `tip` along first parents, the oldest first; those after `after` alone, where it is one of them."""
        known = [f"^{after}"] if after else []
        return self.run("rev-list", "--first-parent", "--reverse", tip, *known, "--").text.split()

    def move_branch(self, ref: str, old: str | None, new: str, why: str) -> bool:
        """Point the branch `ref` from `old` (None: it is not there) to `new`; whether nobody had moved it. Raises
        `git_failed` where git has another reason."""
        answer = self.call("update-ref", "-m", why, "--create-reflog", ref, new, old or "0" * len(new))
        if answer.status == 0:
            return True
        if self.refs(ref).get(ref) != old or (old is None and self.clash(ref) is not None):
            return False
        raise git_failed(f"git could not move {ref}", answer, self.folder)


def _tree_entries(output: bytes) -> Iterator[TreeEntry]:
    """The entries that `ls-tree -z` printed, one at a time: a large tree is in the memory once."""
    at, oid = 0, ""
    while at < len(output):
        end = output.index(b"\0", at)
        meta, _, path = output[at:end].decode("utf-8", "surrogateescape").partition("\t")
        mode, _, one = meta.split(" ")
        oid = oid if one == oid else one
        yield TreeEntry(sys.intern(mode), oid, path)
        at = end + 1


def _too_large(commit: str, path: str, most: int) -> FileTooLarge:
    return FileTooLarge(f"{path} at commit {commit[:12]} has more than {most:,} bytes, which expmgr does not read")


def branch_exists(ref: str, clash: str) -> BranchExists:
    """The error for a branch that cannot be made because `clash` is there."""
    name, other = ref.removeprefix("refs/heads/"), clash.removeprefix("refs/heads/")
    if name == other:
        return BranchExists(
            f"branch {name} exists already",
            left_alone="Nothing was changed.",
            hint=f"choose another name, or look at it: expmgr show {name.removeprefix('exp/')}",
        )
    return BranchExists(
        f"git cannot hold branch {name} beside branch {other}",
        left_alone="Nothing was changed.",
        hint=f"choose another name, or rename the other: git branch -m {other} NEW-NAME",
    )
