"""The run's own checkout: a private clone at one commit, which the user's edits cannot reach.

Not `git worktree add`: sixteen at once fail in 6 to 30 % of the calls, a killed one stays locked for ever, and git allows
a branch in one worktree only.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from expmgr.errors import CheckoutFailed, GitFailed
from expmgr.gitrepo import REPOSITORY_VARIABLES, GitRepo, TreeEntry, call_git, run_git

_POINTER = b"version https://git-lfs.github.com/spec/v1\n"
_SUBMODULE = "160000"
#: git-lfs itself is not called: the files are taken from the repository's own store (`_fill_lfs`).
_NO_LFS = ("filter.lfs.smudge=", "filter.lfs.process=", "filter.lfs.required=false")
#: The user's settings that decide which bytes a checkout holds. They run in a run, and nowhere else.
_CONTENT_SETTINGS = r"^(filter\..*|core\.(autocrlf|eol|safecrlf|symlinks|ignorecase|precomposeunicode|longpaths))$"


def make_checkout(repo: GitRepo, commit: str, target: Path) -> None:
    """Fill the folder `target`, which must not exist, with all the files of `commit`.

    Objects are shared with the repository (alternates), submodules and LFS files are taken from its own stores.
    Raises `CheckoutFailed`, with `target` removed, where a file cannot be had without the network.
    """
    try:
        _fetch_missing(repo, commit)
        _private_clone(repo.git_common_dir, repo.object_format, commit, target, repo.settings(_CONTENT_SETTINGS))
        entries = repo.tree(commit)
        _fill_lfs(repo, target, entries)
        modules = [repo.git_common_dir / "modules"]
        _fill_submodules(repo.main_root, target, entries, modules)
    except GitFailed as error:
        remove_checkout(target)
        raise CheckoutFailed(f"commit {commit[:12]} could not be checked out", details=error.details) from error
    except BaseException:
        remove_checkout(target)
        raise


def remove_checkout(target: Path) -> None:
    """Remove a checkout, whole or not."""
    shutil.rmtree(target, ignore_errors=True)


def worker_environment(environ: dict[str, str]) -> dict[str, str]:
    """`environ` without what would point a git call of the user's code to another repository than its folder."""
    return {name: value for name, value in environ.items() if name not in REPOSITORY_VARIABLES}


def _private_clone(
    store: Path, object_format: str, commit: str, target: Path, settings: Iterable[tuple[str, str]]
) -> None:
    """`target` as a repository of its own that shares the objects of `store` (a git dir), checked out at `commit`."""
    target.mkdir(parents=True)
    run_git(target, ["init", "--quiet", "--template=", f"--object-format={object_format}"])
    git_dir = target / ".git"
    (git_dir / "objects" / "info").mkdir(parents=True, exist_ok=True)
    (git_dir / "objects" / "info" / "alternates").write_text(f"{_alternate(store / 'objects')}\n", encoding="utf-8")
    if (store / "shallow").exists():
        shutil.copyfile(store / "shallow", git_dir / "shallow")
    for key, value in settings:
        run_git(target, ["config", "--add", key, value])
    # A checkout that is thrown away need not be on the disk.
    run_git(
        target, ["checkout", "--quiet", "--detach", "--force", commit], config=("core.fsync=none", *_NO_LFS)
    )


def _alternate(path: Path) -> str:
    text = str(path)
    if text.startswith('"') or "\n" in text:
        text = '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    return text


def _fetch_missing(repo: GitRepo, commit: str) -> None:
    """In a partial clone, bring the files of `commit`: git's checkout of an alternate says yes with files missing."""
    remotes = [key.split(".", 1)[1].rsplit(".", 1)[0] for key, value in repo.settings(r"^remote\..*\.promisor$") if value]
    if not remotes:
        return
    missing = _missing(repo, commit)
    if missing:
        repo.call(
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-prune",
            "--no-write-fetch-head",
            "--recurse-submodules=no",
            "--refmap=",
            "--filter=blob:none",
            "--stdin",
            remotes[0],
            stdin="".join(f"{oid}\n" for oid in missing).encode(),
        )
        missing = _missing(repo, commit)
    if missing:
        raise CheckoutFailed(
            f"this is a partial clone, and {len(missing)} files of commit {commit[:12]} are not in it",
            left_alone="No run was started.",
            hint=f"make the remote {remotes[0]} reachable, or git fetch --refetch --no-filter {remotes[0]}",
        )


def _missing(repo: GitRepo, commit: str) -> list[str]:
    output = repo.run("rev-list", "--objects", "--no-walk", "--missing=print", commit).text
    return [line[1:] for line in output.splitlines() if line.startswith("?")]


def _fill_lfs(repo: GitRepo, target: Path, entries: Sequence[TreeEntry]) -> None:
    """Put the content of LFS files in the place of their pointers, from the repository's own LFS store."""
    attributes = [target / entry.path for entry in entries if entry.path.rpartition("/")[2] == ".gitattributes"]
    attributes.append(repo.git_common_dir / "info" / "attributes")
    if not any(b"filter=lfs" in path.read_bytes() for path in attributes if path.is_file()):
        return
    store = Path(dict(repo.settings(r"^lfs\.storage$")).get("lfs.storage", "lfs"))
    absent = []
    for path in _lfs_paths(target, entries):
        pointer = (target / path).read_bytes()[:1024]
        if not pointer.startswith(_POINTER):
            continue
        fields = dict(line.split(" ", 1) for line in pointer.decode().splitlines() if " " in line)
        oid = fields.get("oid", "").removeprefix("sha256:")
        content = repo.git_common_dir / store / "objects" / oid[:2] / oid[2:4] / oid
        if content.is_file():
            shutil.copyfile(content, target / path)
        else:
            absent.append(path)
    if absent:
        raise CheckoutFailed(
            f"{len(absent)} LFS files are not in this clone",
            details=[*absent[:5], *([f"and {len(absent) - 5} more"] if len(absent) > 5 else [])],
            left_alone="No run was started.",
            hint="git lfs fetch",
        )


def _lfs_paths(target: Path, entries: Sequence[TreeEntry]) -> list[str]:
    paths = [entry.path for entry in entries if entry.mode.startswith("100")]
    stdin = "".join(f"{path}\0" for path in paths).encode("utf-8", "surrogateescape")
    fields = run_git(target, ["check-attr", "-z", "--stdin", "filter"], stdin=stdin).text.split("\0")
    return [path for path, value in zip(fields[::3], fields[2::3], strict=False) if value == "lfs"]


def _fill_submodules(source: Path, target: Path, entries: Sequence[TreeEntry], stores: list[Path]) -> None:
    """Check each submodule out at its commit, from the clones that the user has of them; those below it too.

    `source` is the user's checkout of the same repository, for submodules whose git dir lies in their folder; `stores`
    are the folders `modules/` that may hold the others.
    """
    wanted = [entry for entry in entries if entry.mode == _SUBMODULE]
    names = _submodule_names(target) if wanted else {}
    for entry in wanted:
        store = _submodule_store(source / entry.path, names.get(entry.path, entry.path), entry.oid, stores)
        if store is None:
            raise CheckoutFailed(
                f"submodule {entry.path} is not in this clone at commit {entry.oid[:12]}",
                left_alone="No run was started.",
                hint=f"git submodule update --init --recursive -- {entry.path}",
            )
        folder = target / entry.path
        if folder.is_dir():
            folder.rmdir()
        object_format = run_git(store, ["rev-parse", "--show-object-format"]).text.strip()
        _private_clone(store, object_format, entry.oid, folder, ())
        inner = run_git(folder, ["ls-tree", "-r", "-z", "--full-tree", entry.oid]).text
        below = [TreeEntry(*line.partition("\t")[0].split(" ")[::2], line.partition("\t")[2]) for line in inner.split("\0")[:-1]]
        _fill_submodules(source / entry.path, folder, below, [store / "modules"])


def _submodule_names(target: Path) -> dict[str, str]:
    """Path to name, from .gitmodules."""
    answer = call_git(target, ["config", "--file", ".gitmodules", "--null", "--get-regexp", r"^submodule\..*\.path$"])
    pairs = [entry.partition("\n") for entry in answer.text.split("\0") if entry]
    return {path: key.removeprefix("submodule.").removesuffix(".path") for key, _, path in pairs}


def _submodule_store(source: Path, name: str, commit: str, stores: Iterable[Path]) -> Path | None:
    """The git dir that has `commit` of the submodule, None where no clone of it has."""
    for candidate in [*(store / name for store in stores), source / ".git"]:
        if ".." in Path(name).parts or not (candidate / "objects").is_dir():
            continue
        if call_git(candidate, ["cat-file", "-e", f"{commit}^{{commit}}"], env={"GIT_DIR": os.fspath(candidate)}).status == 0:
            return candidate
    return None
