"""Working trees and worktrees: uncommitted changes, snapshots, switching, fast-forwarding, committing."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from expmgr.disk import durable
from expmgr.errors import CheckoutNotPutBack, ExpmgrError, GitFailed
from expmgr.git.commits import commit_tree
from expmgr.git.process import GitResult, call_git, git_failed, git_folders, run_git, words_of
from expmgr.git.repo import CommitId, GitRepo

#: Larger files are data, not code.
_SNAPSHOT_BYTES = 10_000_000
#: What git writes in its own folder before it moves a ref.
_GIT_FILES = ("index", "HEAD", "ORIG_HEAD", "COMMIT_EDITMSG")
#: How long another git is waited for that changes the index, before it is put back.
_STAGING_S = 1
_TRIES = 5


@dataclass(frozen=True)
class Worktree:
    """A checkout of the repository; `ref` is the branch that is checked out in it, None where HEAD is detached."""

    path: Path
    ref: str | None


def _check_can_commit(root: Path, paths: Sequence[str]) -> None:
    """Raise `GitFailed` where git would refuse to commit `paths` alone, before anything is staged."""
    states = {"MERGE_HEAD": "a merge", "CHERRY_PICK_HEAD": "a cherry-pick or a rebase"}
    found = [what for ref, what in states.items() if call_git(root, ["rev-parse", "-q", "--verify", ref]).status == 0]
    if not found and run_git(root, ["ls-files", "--unmerged", "-z"]).stdout:
        found = ["a merge with conflicts"]
    if found:
        raise GitFailed(
            f"{root} is in the middle of {found[0]}, so git cannot commit these files alone",
            details=[*paths[:5], *([f"and {len(paths) - 5} more"] if len(paths) > 5 else [])],
            left_alone="Nothing was changed.",
            hint="end it first: git status says how",
        )


def _is_left_out(root: Path, path: str) -> bool:
    """Whether an untracked file is too large for a snapshot, or part of a virtual environment."""
    parts = path.split("/")
    if any((root / "/".join(parts[:count]) / "pyvenv.cfg").is_file() for count in range(1, len(parts))):
        return True
    with contextlib.suppress(OSError):
        return (root / path).stat().st_size > _SNAPSHOT_BYTES
    return False


def _nul(paths: Iterable[str]) -> bytes:
    return "".join(f"{path}\0" for path in paths).encode("utf-8", "surrogateescape")


def worktrees(repo: GitRepo) -> list[Worktree]:
    """All checkouts, the main one first."""
    found: list[Worktree] = []
    answer = repo.call("worktree", "list", "--porcelain", "-z")
    if answer.status:
        repo.require_version()
    for number, block in enumerate(repo.run("worktree", "list", "--porcelain", "-z").text.split("\0\0")):
        fields = dict(line.partition(" ")[::2] for line in block.split("\0") if line)
        if "worktree" in fields and "bare" not in fields:
            path = repo.main_root if number == 0 else Path(fields["worktree"])
            found.append(Worktree(path, fields.get("branch")))
    return found


def uncommitted(root: Path, paths: Iterable[str]) -> list[str]:
    """The files at or below `paths` in the checkout `root` that are not as they are in its HEAD, untracked too."""
    options = ("--porcelain=v1", "-z", "--untracked-files=all", "--no-renames", "--ignore-submodules=none")
    answer = run_git(root, ["status", *options, "--", *paths])
    return sorted(entry[3:] for entry in answer.text.split("\0") if entry)


def changed_in(root: Path) -> list[str]:
    """The tracked files in the checkout `root` that are not as they are in its HEAD."""
    lines = run_git(root, ["status", "--porcelain", "-z", "--untracked-files=no", "--no-renames"]).text.split("\0")
    return [line[3:] for line in lines if line]


@contextlib.contextmanager
def put_back_on_failure(root: Path, commit: str | None, added: Sequence[str] = ()) -> Iterator[None]:
    """Put the checkout `root` back exactly as it is now where what happens inside fails: git writes files and its index before
    it moves a ref, and stops in the middle where a disk is full.

    Saved are the files by which HEAD differs from `commit` (None: no files), and git's index, as further names of what is
    there, which needs no room. Only what git writes for `commit`, and the paths `added` to the index, are taken back: what
    somebody saves or stages meanwhile stays. Raises `CheckoutNotPutBack` where that fails.
    """
    folders = git_folders(root)
    if folders is None:
        raise GitFailed(f"{root} is no checkout of git")
    common, git_dir = folders
    changes = {} if commit is None else _changes_between(root, commit)
    paths = list(changes)
    durable.make_folder(common / "expmgr")
    with tempfile.TemporaryDirectory(prefix=".put-back.", dir=common / "expmgr", ignore_cleanup_errors=True) as beside:
        places = [*(root / path for path in paths), *(git_dir / name for name in _GIT_FILES)]
        with durable.disk_errors(f"a copy of what git changes in {root}"):
            saved = [_save(place, Path(beside, str(number))) for number, place in enumerate(places)]
        written = _Written(root, commit, changes, added)
        (index,) = (one for one in saved if one.place == git_dir / "index")
        folders_before = _folders_above(root, paths)
        branch = call_git(root, ["symbolic-ref", "--quiet", "HEAD"]).text.strip()
        head = call_git(root, ["rev-parse", "--quiet", "--verify", "HEAD"]).text.strip()
        logs = [git_dir / "logs" / "HEAD", *([common / "logs" / branch] if branch else [])]
        sizes = {path: path.stat().st_size for path in logs if path.is_file()}
        try:
            yield
        except BaseException as failure:
            if _met_locked_index(failure):  # git had not begun; and what the other git writes there is not ours to undo
                raise
            try:
                _put_back([one for one in saved if one is not index and written.has(one)], folders_before)
                _put_index_back(index, written)
                now = call_git(root, ["rev-parse", "--quiet", "--verify", "HEAD"]).text.strip()
                if head and now not in (head, "") and (commit is None or now == written.commit_id):
                    call_git(root, ["update-ref", "-m", "expmgr: put back", "HEAD", head, now])
                    now = head
                for path, size in sizes.items():  # git writes there before it moves a ref
                    if now in (head, "") and path.stat().st_size > size:
                        os.truncate(path, size)
            except OSError as error:
                shutil.copytree(beside, f"{beside}-kept", symlinks=True, dirs_exist_ok=True)
                raise CheckoutNotPutBack(
                    f"{root} could not be put back as it was: {error.strerror}: {error.filename}",
                    details=str(failure).splitlines()[:5],
                    left_alone="Files that git had changed are changed.",
                    hint=f"git -C {shlex.quote(str(root))} status shows them; what they held before is in {beside}-kept",
                ) from failure
            raise


def _met_locked_index(failure: BaseException) -> bool:
    """Whether git could not take the lock of its index, before which it changes nothing."""
    return any("index.lock" in line and os.strerror(errno.EEXIST) in line for line in str(failure).splitlines())


@dataclass(frozen=True)
class _Saved:
    """A file before it is changed: `copy` holds it, None where there was none."""

    place: Path
    copy: Path | None
    status: os.stat_result | None


class _Written:
    """What git writes into the checkout `root` and its index to get from HEAD to `commit`, and for the paths `added`."""

    def __init__(self, root: Path, commit: str | None, changes: Mapping[str, list[str]], added: Sequence[str]) -> None:
        self.root = root
        self.commit_id = "" if commit is None else run_git(root, ["rev-parse", "--verify", commit]).text.strip()
        self._paths = {root / path: path for path in changes}
        self.entries = changes
        self._added = frozenset(added)
        self._empty = _empty_blob(root) if added else ""

    def has_lines(self, path: str, lines: Sequence[str]) -> bool:
        """Whether `lines` are those of git for a file in the index."""
        if path in self._added:  # the mode depends on the file system
            return len(lines) == 1 and lines[0].endswith(f" {self._empty} 0")
        return path in self.entries and lines == self.entries[path]

    def has(self, one: _Saved) -> bool:
        """Whether what is in the place of a file now is of git: the file in the commit, or its beginning, or nothing."""
        path = self._paths.get(one.place)
        if path is None or not os.path.lexists(one.place) or one.place.is_dir() or (one.status and _is_same(one)):
            return True
        if not self.entries[path] or not (one.place.is_symlink() or one.place.is_file()):
            return False  # git only deletes it, or makes no such thing
        now = os.fsencode(os.readlink(one.place)) if one.place.is_symlink() else one.place.read_bytes()
        content = call_git(self.root, ["cat-file", "blob", f"{self.commit_id}:{path}"]).stdout
        if content.startswith(now):
            return True
        return call_git(self.root, ["cat-file", "--filters", f"{self.commit_id}:{path}"]).stdout.startswith(now)


def _index_lines(root: Path, index: Path | None) -> dict[str, list[str]]:
    """Path to its lines in an index, without the path; empty where there is none."""
    if index is None:
        return {}
    found: dict[str, list[str]] = {}
    answer = run_git(root, ["ls-files", "--stage", "-z"], env={"GIT_INDEX_FILE": str(index)})
    for line in answer.text.split("\0")[:-1]:
        about, _, path = line.partition("\t")
        found.setdefault(path, []).append(about)
    return found


def _put_index_back(one: _Saved, written: _Written) -> None:
    """Put git's index back: the whole file, or the lines that git wrote where somebody staged something else meanwhile."""
    until = time.monotonic() + _STAGING_S
    while time.monotonic() < until and one.place.with_name("index.lock").exists():
        time.sleep(0.02)
    for _ in range(_TRIES):
        before = _stamp(one.place)
        if one.status is not None and _is_same(one):
            return
        try:
            now = _index_lines(written.root, one.place if before is not None else None)
            old = _index_lines(written.root, one.copy)
        except ExpmgrError:  # it cannot be read
            now = old = {}
        changed = [path for path in {**old, **now} if old.get(path) != now.get(path)]
        ours = [path for path in changed if written.has_lines(path, now.get(path, []))]
        if len(ours) != len(changed):
            _restore_lines(one.place, written.root, {path: old.get(path, []) for path in ours})
            return
        if _stamp(one.place) != before:
            continue
        if one.copy is not None:
            os.replace(one.copy, one.place)
        elif before is not None:
            one.place.unlink()
        return


def _empty_blob(root: Path) -> str:
    return run_git(root, ["hash-object", "-t", "blob", "--stdin"], stdin=b"").text.strip()


def _restore_lines(index: Path, root: Path, lines: Mapping[str, Sequence[str]]) -> None:
    removed = "0" * len(_empty_blob(root))
    said = [f"0 {removed}\t{path}\0" for path in lines]
    said += [f"{about}\t{path}\0" for path, some in lines.items() for about in some]
    stdin = "".join(said).encode("utf-8", "surrogateescape")
    if lines and call_git(root, ["update-index", "-z", "--index-info"], stdin=stdin).status:
        raise OSError(errno.EIO, "git update-index failed", str(index))


def _stamp(place: Path) -> tuple[int, ...] | None:
    with contextlib.suppress(FileNotFoundError):
        status = place.lstat()
        return status.st_ino, status.st_dev, status.st_mtime_ns, status.st_size
    return None


def _changes_between(root: Path, commit: str) -> dict[str, list[str]]:
    """The files by which HEAD and `commit` differ; path to its lines in the index of `commit`, without the path."""
    head = call_git(root, ["rev-parse", "--quiet", "--verify", "HEAD^{tree}"]).text.strip()
    old = head or run_git(root, ["hash-object", "-t", "tree", "--stdin"], stdin=b"").text.strip()  # an unborn branch
    answer = run_git(root, ["diff-tree", "-r", "-z", "--raw", "--no-abbrev", "--no-renames", old, commit])
    fields = answer.text.split("\0")[:-1]
    found: dict[str, list[str]] = {}
    for about, path in zip(fields[::2], fields[1::2], strict=True):
        _, mode, _, oid, _ = about.split(" ")
        found[path] = [f"{mode} {oid} 0"] if mode != "000000" else []
    return found


def _save(place: Path, copy: Path) -> _Saved:
    try:
        status = place.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return _Saved(place, None, None)
    if stat.S_ISDIR(status.st_mode):  # a submodule
        return _Saved(place, place, status)
    try:
        os.link(place, copy, follow_symlinks=False)
    except OSError as error:
        if error.errno in durable.DISK_ERRORS:
            raise
        shutil.copy2(place, copy, follow_symlinks=False)  # another file system, or one without links
    return _Saved(place, copy, status)


def _folders_above(root: Path, paths: Iterable[str]) -> dict[Path, int | None]:
    """The folders of `paths`, from the outermost on, and the mode of each; None where it is not there."""
    folders = sorted({"/".join(path.split("/")[:depth]) for path in paths for depth in range(1, path.count("/") + 1)})
    there = {root / one: (root / one).lstat() if os.path.lexists(root / one) else None for one in folders}
    return {
        place: stat.S_IMODE(status.st_mode) if status is not None and stat.S_ISDIR(status.st_mode) else None
        for place, status in there.items()
    }


def _put_back(saved: Sequence[_Saved], folders: Mapping[Path, int | None]) -> None:
    for one in saved:
        was_folder = one.copy == one.place
        if (one.copy is None or was_folder) and (one.place.is_symlink() or one.place.is_file()):
            one.place.unlink()
    for place, mode in sorted(folders.items(), reverse=True):
        if mode is None and place.is_dir() and not place.is_symlink():
            with contextlib.suppress(OSError):  # somebody put something there
                place.rmdir()
    for place, mode in folders.items():
        if mode is not None and not place.exists():
            place.mkdir()
            place.chmod(mode)
    for one in saved:
        if one.copy is not None and one.copy != one.place and not _is_same(one):
            os.replace(one.copy, one.place)


def _is_same(one: _Saved) -> bool:
    """Whether a file is still the one that was saved."""
    assert one.status is not None
    with contextlib.suppress(OSError):
        now = one.place.lstat()
        return (now.st_ino, now.st_dev, now.st_mtime_ns) == (
            one.status.st_ino,
            one.status.st_dev,
            one.status.st_mtime_ns,
        )
    return False


def fast_forward(root: Path, ref: str, commit: str, on_note: Callable[[str], None] = lambda _: None) -> None:
    """Move `ref`, the branch that is checked out in `root`, on to `commit`, as the user's own `git merge --ff-only`
    would.

    `GitFailed` with git's words where files would be overwritten, or another branch is checked out by now; the checkout
    is then as it was.
    """
    head = call_git(root, ["symbolic-ref", "--quiet", "HEAD"]).text.strip()
    if head != ref:
        raise GitFailed(f"{root} has another branch checked out by now", details=[head or "none"])
    _change(root, commit, (["merge", "--quiet", "--ff-only", commit], None), on_note=on_note)


def take_snapshot(repo: GitRepo, message: str) -> tuple[CommitId, list[str]]:
    """The checkout as it lies there, untracked files included, as a commit on HEAD that no ref points to; and the
    files by which it differs. HEAD itself where nothing does.

    Index, HEAD and files stay as they are: a copy of the index takes everything in. What git ignores is left out, and
    so are virtual environments and untracked files of more than 10 MB.
    """
    assert repo.root is not None
    root = repo.root
    head = repo.head()
    changed = [path for path in uncommitted(root, ["."]) if not _is_left_out(root, path)]
    if not changed:
        return head, []
    with tempfile.TemporaryDirectory(prefix="expmgr-index-") as folder:
        index = Path(folder, "index")
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(repo.git_dir / "index", index)
        env = {"GIT_INDEX_FILE": str(index)}
        options = ["--all", "--pathspec-from-file=-", "--pathspec-file-nul"]
        run_git(repo.root, ["add", *options], stdin=_nul(changed), env=env)
        tree = run_git(repo.root, ["write-tree"], env=env).text.strip()
    return commit_tree(repo, tree, [head], message), changed


def ignored_by_git(root: Path, paths: Sequence[str]) -> list[str]:
    """Those of `paths` in the checkout `root` that a rule of .gitignore or info/exclude keeps from `git add`."""
    options = ["--others", "--ignored", "--exclude-standard", "-z"]
    return run_git(root, ["ls-files", *options, "--", *paths]).text.split("\0")[:-1]


def switch_branch(root: Path, branch: str) -> None:
    """Check `branch` out in the checkout `root`, as the user's own `git switch` would: their hooks and filters run.

    `GitFailed` with git's words where it would overwrite changes; the checkout is then as it was.
    """
    _change(root, f"refs/heads/{branch}^{{commit}}", (["switch", "--quiet", "--no-guess", branch], None))


class _Refused(Exception):
    """git said no."""

    def __init__(self, answer: GitResult, args: Sequence[str]) -> None:
        super().__init__("\n".join(words_of(answer)))
        self.answer, self.of = answer, args


def _change(
    root: Path,
    commit: str | None,
    *commands: tuple[Sequence[str], bytes | None],
    added: Sequence[str] = (),
    on_note: Callable[[str], None] = lambda _: None,
) -> None:
    """Run commands of git (arguments, stdin) in the checkout `root`, all again where a lock on a variant's branch was in the
    way; `on_note` is told of a dead one. After each try that fails, the checkout is as it was before that try: what somebody
    does between two of them stays."""
    repo = GitRepo.discover(root)
    repo.on_note = on_note
    last: list[Sequence[str]] = []

    def act() -> GitResult:
        try:
            with put_back_on_failure(root, commit, added):
                for args, stdin in commands:
                    answer = call_git(root, args, stdin=stdin)
                    if answer.status:
                        raise _Refused(answer, args)
        except _Refused as refused:
            last[:] = [refused.of]
            return refused.answer
        return answer

    answer = repo.until_unlocked(act)
    if answer.status:
        raise git_failed(f"git {last[0][0]} failed in {root} (exit {answer.status})", answer, root)


def commit_paths(
    root: Path,
    paths: Sequence[str],
    message: str,
    *,
    also_ignored: bool = False,
    on_note: Callable[[str], None] = lambda _: None,
) -> CommitId:
    """Commit `paths` as they lie in the checkout `root`, on the branch checked out there, and nothing else.

    What else is staged stays staged; where git refuses, the index is as it was. `GitFailed` in the middle of a
    merge, for a part of it cannot be committed. New files that git ignores come along on `also_ignored` alone.
    """
    _check_can_commit(root, paths)
    rules = [] if also_ignored else ["--exclude-standard"]
    new = run_git(root, ["ls-files", "--others", *rules, "-z", "--", *paths]).text.split("\0")[:-1]
    force = ["--force"] if also_ignored else []
    options = [*force, "--intent-to-add", "--pathspec-from-file=-", "--pathspec-file-nul"]
    adds = [(["add", *options], _nul(new))] if new else []  # `commit --only` takes the paths that the index knows
    commit = ["commit", "--quiet", "--only", "--message", message, "--", *paths]
    _change(root, None, *adds, (commit, None), added=new, on_note=on_note)
    return CommitId(run_git(root, ["rev-parse", "--verify", "HEAD"]).text.strip())
