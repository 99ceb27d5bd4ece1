"""Working trees and worktrees: uncommitted changes, snapshots, switching, fast-forwarding, committing."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from expmgr.errors import GitFailed
from expmgr.git.commits import commit_tree
from expmgr.git.process import call_git, run_git
from expmgr.git.repo import CommitId, GitRepo

#: Larger files are data, not code.
_SNAPSHOT_BYTES = 10_000_000


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


def fast_forward(root: Path, ref: str, commit: str) -> None:
    """Move `ref`, the branch that is checked out in `root`, on to `commit`, as the user's own `git merge --ff-only`
    would.

    `GitFailed` with git's words where files would be overwritten, or another branch is checked out by now; the checkout
    is then as it was.
    """
    head = call_git(root, ["symbolic-ref", "--quiet", "HEAD"]).text.strip()
    if head != ref:
        raise GitFailed(f"{root} has another branch checked out by now", details=[head or "none"])
    run_git(root, ["merge", "--quiet", "--ff-only", commit])


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
    run_git(root, ["switch", "--quiet", "--no-guess", branch])


def commit_paths(
    root: Path,
    paths: Sequence[str],
    message: str,
    *,
    also_ignored: bool = False,
) -> CommitId:
    """Commit `paths` as they lie in the checkout `root`, on the branch checked out there, and nothing else.

    What else is staged stays staged; where git refuses, the index is as it was. `GitFailed` in the middle of a
    merge, for a part of it cannot be committed. New files that git ignores come along on `also_ignored` alone.
    """
    _check_can_commit(root, paths)
    rules = [] if also_ignored else ["--exclude-standard"]
    new = run_git(root, ["ls-files", "--others", *rules, "-z", "--", *paths]).text.split("\0")[:-1]
    if new:  # `commit --only` takes the paths that the index knows
        force = ["--force"] if also_ignored else []
        options = [*force, "--intent-to-add", "--pathspec-from-file=-", "--pathspec-file-nul"]
        run_git(root, ["add", *options], stdin=_nul(new))
    try:
        run_git(root, ["commit", "--quiet", "--only", "--message", message, "--", *paths])
    except BaseException:
        if new:
            forget = ("rm", "--cached", "--force", "--quiet", "--pathspec-from-file=-", "--pathspec-file-nul")
            call_git(root, forget, stdin=_nul(new))
        raise
    return CommitId(run_git(root, ["rev-parse", "--verify", "HEAD"]).text.strip())
