"""A run's private clone of the repository at one commit, which the user's edits cannot reach.

Not `git worktree add`: sixteen at once fail in 6 to 30 % of the calls, a killed one stays locked for ever, and git allows
a branch in one worktree only.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from expmgr.disk.durable import disk_errors, free_bytes, nearest_folder
from expmgr.errors import CheckoutFailed, DiskFull, GitFailed
from expmgr.git.objects import TreeEntry
from expmgr.git.process import GitResult, call_git, git_failed, read_config, run_git
from expmgr.git.repo import SUBMODULE, GitRepo

_POINTER = b"version https://git-lfs.github.com/spec/v1"
_POINTER_BYTES = 1024  # at most, says git-lfs
#: What a checkout does not take from the user's configuration. git-lfs is not called: the files are taken from the
#: repository's own store (`_fill_lfs`). A checkout that is thrown away need not be on the disk.
_CHECKOUT_CONFIG = (
    "core.fsync=none",
    "core.sparseCheckout=false",
    "filter.lfs.smudge=",
    "filter.lfs.process=",
    "filter.lfs.required=false",
)
#: The user's settings that decide which bytes a checkout holds. They run in a run, and nowhere else.
_CONTENT_SETTINGS = (
    r"^(filter\..*|core\.(attributesfile|autocrlf|eol|safecrlf|symlinks|ignorecase|precomposeunicode|longpaths))$"
)
_NOT_STARTED = "No run was started."


@dataclass(frozen=True)
class _Source:
    """A repository that files are taken from: the user's, or the user's clone of a submodule.

    `store` is its common git dir; `checkouts` are the user's checkouts of it, and `modules` the folders that may hold
    the git dirs of its submodules; `path` leads to it from the outermost repository, with a slash at its end.
    """

    git_dir: Path
    store: Path
    checkouts: Sequence[Path]
    modules: Sequence[Path]
    path: str = ""

    @property
    def env(self) -> dict[str, str]:
        # GIT_WORK_TREE, because git does not start where core.worktree names a folder that is not there, as it does
        # in the git dir of a submodule whose folder the branch at hand does not have.
        return {"GIT_DIR": str(self.git_dir), "GIT_WORK_TREE": str(self.git_dir)}

    def call(self, *args: str, stdin: bytes | None = None, config: Sequence[str] = ()) -> GitResult:
        return call_git(self.git_dir, args, stdin=stdin, env=self.env, config=config)

    def settings(self, pattern: str) -> list[tuple[str, str]]:
        return read_config(self.git_dir, pattern, env=self.env)


def make_checkout(repo: GitRepo, commit: str, target: Path) -> None:
    """Fill the folder `target` with all the files of `commit`; what a killed call left in it goes first.

    Objects are shared with the repository (alternates), submodules and LFS files are taken from its own stores, and
    what a partial clone lacks from its remote. Raises `CheckoutFailed`, with `target` removed, where a file cannot be
    had.
    """
    store = repo.git_common_dir
    modules = [repo.git_dir / "modules", store / "modules", *sorted(store.glob("worktrees/*/modules"))]
    checkouts = [repo.main_root] if repo.root is None else [repo.root, repo.main_root]
    source = _Source(repo.git_dir, store, checkouts, modules)
    remove_checkout(target)
    try:
        with disk_errors(f"the checkout of commit {commit[:12]} in {target}"):
            _fill(source, commit, target)
    except (GitFailed, DiskFull) as error:
        remove_checkout(target)
        needed, free = _size(source, commit), free_bytes(target) or 0
        if isinstance(error, DiskFull) or needed > free:
            raise DiskFull(
                f"commit {commit[:12]} could not be checked out in {target}: no space left",
                details=[f"it needs {needed:,} bytes, and {free:,} are free", *error.details],
                left_alone=_NOT_STARTED,
                hint=f"make room: df -h {shlex.quote(str(nearest_folder(target.parent)))}",
            ) from error
        raise CheckoutFailed(
            f"commit {commit[:12]} could not be checked out", details=error.details, left_alone=_NOT_STARTED
        ) from error
    except BaseException:
        remove_checkout(target)
        raise


def _size(source: _Source, commit: str) -> int:
    """The bytes of all files of `commit`; 0 where git does not say."""
    lines = source.call("ls-tree", "-r", "-l", "-z", "--full-tree", commit).text.split("\0")[:-1]
    sizes = (line.partition("\t")[0].split()[-1] for line in lines)
    return sum(int(one) for one in sizes if one.isdigit())


def remove_checkout(target: Path) -> None:
    """Remove a checkout, whole or not."""
    shutil.rmtree(target, ignore_errors=True)


def _fill(source: _Source, commit: str, target: Path) -> None:
    """`target` as a checkout of `commit`, with its LFS files and its submodules."""
    _fetch_missing(source, commit)
    clone = _private_clone(source, commit, target)
    entries = clone.tree(commit)
    _fill_lfs(source, clone, entries)
    submodules = [entry for entry in entries if entry.mode == SUBMODULE]
    names = _submodule_names(target) if submodules else {}
    for entry in submodules:
        inner = _submodule(source, entry, names.get(entry.path, entry.path))
        (target / entry.path).rmdir()
        _fill(inner, entry.oid, target / entry.path)


def _private_clone(source: _Source, commit: str, target: Path) -> GitRepo:
    """`target` as a repository of its own that shares the objects of `source`, checked out at `commit`."""
    target.mkdir(parents=True)
    object_format = "sha1" if len(commit) == 40 else "sha256"
    run_git(target, ["init", "--quiet", "--template=", f"--object-format={object_format}", "--initial-branch=unused"])
    git_dir = target / ".git"
    (git_dir / "objects" / "info").mkdir(parents=True, exist_ok=True)
    (git_dir / "objects" / "info" / "alternates").write_bytes(_alternate(source.store / "objects"))
    if (source.store / "shallow").exists():
        shutil.copyfile(source.store / "shallow", git_dir / "shallow")
    if (source.store / "info" / "attributes").exists():
        (git_dir / "info").mkdir(exist_ok=True)
        shutil.copyfile(source.store / "info" / "attributes", git_dir / "info" / "attributes")
    for key, value in source.settings(_CONTENT_SETTINGS):
        run_git(target, ["config", "--add", key, value])
    # Without --force git 2.39 says yes where an object cannot be read, with its file missing.
    run_git(
        target,
        ["checkout", "--quiet", "--detach", "--force", "--no-recurse-submodules", commit],
        config=_CHECKOUT_CONFIG,
    )
    return GitRepo(git_dir, git_dir, target, object_format)


def _alternate(path: Path) -> bytes:
    """The line for objects/info/alternates."""
    text = str(path)
    if "\n" in text:
        text = '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    return f"{text}\n".encode("utf-8", "surrogateescape")


def _fetch_missing(source: _Source, commit: str) -> None:
    """In a partial clone, bring what `commit` needs: git's checkout of an alternate does not fetch."""
    settings = source.settings(r"^remote\..*\.promisor$")
    remotes = [key.removeprefix("remote.").removesuffix(".promisor") for key, value in settings if value != "false"]
    words = ""
    missing = _missing(source, commit) if remotes else []
    for remote in remotes:
        while missing:  # a tree that comes may name others that are missing
            before = missing
            words = _fetch(source, remote, missing)
            missing = _missing(source, commit)
            if missing == before:
                break
    if missing:
        raise CheckoutFailed(
            f"{source.path or 'this repository'} is a partial clone, and {len(missing)} of the files and folders of "
            f"commit {commit[:12]} are not in it",
            details=words.strip().splitlines()[:5],
            left_alone=_NOT_STARTED,
            hint=f"make the remote {remotes[0]} reachable, or bring everything: "
            f"git fetch --refetch --no-filter {shlex.quote(remotes[0])}",
        )


def _fetch(source: _Source, remote: str, oids: Sequence[str]) -> str:
    """Bring the objects `oids` as git itself does (promisor-remote.c); what git said to it."""
    return source.call(
        "fetch",
        "--quiet",
        "--no-tags",
        "--no-write-fetch-head",
        "--recurse-submodules=no",
        "--refmap=",
        "--filter=blob:none",
        "--stdin",
        "--end-of-options",
        remote,
        stdin="".join(f"{oid}\n" for oid in oids).encode(),
        config=("fetch.negotiationAlgorithm=noop", "fetch.writeCommitGraph=false", "maintenance.auto=false"),
    ).stderr


def _missing(source: _Source, commit: str) -> list[str]:
    answer = source.call("rev-list", "--objects", "--no-walk", "--missing=print", commit)
    if answer.status:
        raise git_failed(f"git rev-list failed in {source.store}", answer, source.store)
    return sorted(line[1:] for line in answer.text.splitlines() if line.startswith("?"))


def _fill_lfs(source: _Source, clone: GitRepo, entries: Sequence[TreeEntry]) -> None:
    """Put the content of LFS files in the place of their pointers, from the repository's own LFS store."""
    target = clone.folder
    attributes = [target / entry.path for entry in entries if entry.path.rpartition("/")[2] == ".gitattributes"]
    attributes.append(source.store / "info" / "attributes")
    if not any(b"filter=lfs" in path.read_bytes() for path in attributes if path.is_file()):
        return
    storage = source.call("config", "--type=path", "--get", "lfs.storage").text.removesuffix("\n") or "lfs"
    absent = []
    for path in _lfs_paths(clone, entries):
        fields = _pointer(target / path)
        if fields is None:
            continue
        oid = fields.get("oid", "").removeprefix("sha256:")
        content = source.store / storage / "objects" / oid[:2] / oid[2:4] / oid
        if oid and content.is_file() and str(content.stat().st_size) == fields.get("size"):
            shutil.copyfile(content, target / path)
        else:
            absent.append(source.path + path)
    if absent:
        raise CheckoutFailed(
            f"{len(absent)} LFS {'file is' if len(absent) == 1 else 'files are'} not in this clone",
            details=[*absent[:5], *([f"and {len(absent) - 5} more"] if len(absent) > 5 else [])],
            left_alone=_NOT_STARTED,
            hint=f"{_in(source)}git lfs fetch origin {clone.head()}",
        )


def _pointer(path: Path) -> dict[str, str] | None:
    """The fields of an LFS pointer, None where the file is none."""
    with open(path, "rb") as file:
        start = file.read(_POINTER_BYTES)
    if not start.startswith(_POINTER):
        return None
    lines = start.decode("utf-8", "replace").splitlines()  # autocrlf may have been at it
    return {key: value for key, _, value in (line.partition(" ") for line in lines)}


def _lfs_paths(clone: GitRepo, entries: Sequence[TreeEntry]) -> list[str]:
    paths = [entry.path for entry in entries if entry.mode.startswith("100")]
    stdin = "".join(f"{path}\0" for path in paths).encode("utf-8", "surrogateescape")
    fields = clone.run("check-attr", "-z", "--stdin", "filter", stdin=stdin).text.split("\0")
    return [path for path, value in zip(fields[::3], fields[2::3], strict=False) if value == "lfs"]


def _submodule_names(target: Path) -> dict[str, str]:
    """Path to name, from .gitmodules."""
    answer = call_git(target, ["config", "--file", ".gitmodules", "--null", "--get-regexp", r"^submodule\..*\.path$"])
    pairs = [entry.partition("\n") for entry in answer.text.split("\0") if entry]
    return {path: key.removeprefix("submodule.").removesuffix(".path") for key, _, path in pairs}


def _submodule(source: _Source, entry: TreeEntry, name: str) -> _Source:
    """The user's clone of a submodule that has the commit `entry` names; `CheckoutFailed` where none has."""
    path = f"{source.path}{entry.path}"
    for store in _submodule_stores(source, entry.path, name):
        checkouts = [checkout / entry.path for checkout in source.checkouts]
        inner = _Source(store, store, checkouts, [store / "modules"], f"{path}/")
        if inner.call("cat-file", "-e", f"{entry.oid}^{{commit}}").status == 0:
            return inner
    raise CheckoutFailed(
        f"submodule {path} is not in this clone at commit {entry.oid[:12]}",
        left_alone=_NOT_STARTED,
        hint=f"{_in(source)}git submodule update --init --recursive -- {shlex.quote(entry.path)}",
    )


def _submodule_stores(source: _Source, path: str, name: str) -> Iterator[Path]:
    """The git dirs that may be the user's clone of a submodule."""
    if ".." not in Path(name).parts and not Path(name).is_absolute():
        candidates = [modules / name for modules in source.modules]
    else:
        candidates = []
    for checkout in source.checkouts:  # the folder's own: an embedded one, or the one that it names
        own = checkout / path / ".git"
        if own.is_file():
            own = own.parent / own.read_text(encoding="utf-8", errors="surrogateescape").strip().removeprefix(
                "gitdir: "
            )
        candidates.append(own)
    yield from (candidate for candidate in candidates if (candidate / "objects").is_dir())


def _in(source: _Source) -> str:
    """The words that lead a shell to the checkout of `source`, in front of a command."""
    return f"cd {shlex.quote(source.path)} && " if source.path else ""
