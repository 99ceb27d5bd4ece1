"""The checks of `expmgr doctor`, from git and locks to records, manifests and TensorFlow.

A check is a function from `Setup` to findings, and an entry in `CHECKS`. It reads only; what `--fix` may do is in the
`repair` of a finding, and has to lose nothing. An error that a check raises becomes its finding.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from expmgr.disk.durable import free_bytes, nearest_folder, unwritable
from expmgr.errors import ExpmgrError, GitFailed
from expmgr.git.process import OLDEST_GIT, call_git, run_git
from expmgr.git.repo import GitRepo
from expmgr.paths import Layout, VariantName, has_tensorflow
from expmgr.project import Project
from expmgr.redact import redacted
from expmgr.runs.records import Records
from expmgr.settings import Settings, models_root, read_settings

if TYPE_CHECKING:
    from expmgr.git.locks import GitLock

State = Literal["ok", "warn", "error"]

#: No command needs that long to have git change a checkout.
_LEFT_AFTER_S = 3600
#: What the commands of hints begin with, and what only sentences contain: `git status says how`.
_PROGRAMS = frozenset({"git", "expmgr", "rm", "mv", "ls", "df", "pip"})
_PROSE = re.compile(r", |\b(says|shows|tells|or|then|where|is|are)\b")
#: A small checkpoint and git's own files need some room; less than the first is an error.
_LEAST_BYTES, _LITTLE_BYTES = 100_000_000, 1_000_000_000


@dataclass(frozen=True)
class Finding:
    """What a check found: `state` is ok, warn or error; `fix` a command to type and `hint` other advice, empty if there is
    none."""

    check: str
    state: State
    message: str
    fix: str = ""
    hint: str = ""
    is_fixed: bool = False
    repair: Callable[[], object] | None = field(default=None, repr=False, compare=False)
    """Does what is safe, for `--fix`. The check looks again afterwards."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.check,
            "state": self.state,
            "message": redacted(self.message),
            "fix": redacted(self.fix) or None,
            "hint": redacted(self.hint) or None,
            "fixed": self.is_fixed,
        }


@dataclass(frozen=True)
class Setup:
    """What the checks look at. `asks_network`: whether the remote and the store may be asked."""

    folder: Path
    asks_network: bool = False

    @cached_property
    def repo(self) -> GitRepo:
        return GitRepo.discover(self.folder)

    @cached_property
    def settings(self) -> Settings:
        return read_settings(self.repo.root, self.repo.git_common_dir / "expmgr")

    @cached_property
    def layout(self) -> Layout:
        return Layout(self.repo.git_common_dir, models_root(self.settings, self.repo.main_root))

    @property
    def project(self) -> Project:
        """Read without the index, and as it is: nothing that a crash left is swept up."""
        records = Records(self.layout, repo=self.repo, is_diagnosis=True)
        return Project(self.repo, self.settings, self.layout, records)


Check = Callable[[Setup], Iterable[Finding]]


@dataclass(frozen=True)
class Diagnosis:
    """All findings of `doctor`, in the order of the checks."""

    findings: tuple[Finding, ...]

    @property
    def has_errors(self) -> bool:
        return any(one.state == "error" for one in self.findings)

    def as_dict(self) -> dict[str, Any]:
        return {"format": 1, "ok": not self.has_errors, "checks": [one.as_dict() for one in self.findings]}

    def __repr__(self) -> str:
        return "\n".join(f"{one.state}: {one.check}: {redacted(one.message)}" for one in self.findings)


def diagnose(setup: Setup, *, fix: bool = False) -> Diagnosis:
    """Make all checks; with `fix`, do what is safe, and look again at what was done."""
    found: list[Finding] = []
    for name, check in CHECKS.items():
        now = _made(name, check, setup)
        repairs = [one.repair for one in now if one.repair is not None and one.state != "ok"] if fix else []
        if repairs:
            problem = _repaired(name, repairs)
            left = _made(name, check, setup)
            gone = [one for one in now if one.repair is not None and one.message not in {each.message for each in left}]
            now = [
                *(replace(one, state="ok", is_fixed=True, fix="", hint="", repair=None) for one in gone),
                *left,
                *problem,
            ]
        found += now
    return Diagnosis(tuple(found))


def _made(name: str, check: Check, setup: Setup) -> list[Finding]:
    """What a check finds; the error that it raises is one."""
    found: list[Finding] = []
    try:
        for one in check(setup):
            found.append(one)
    except ExpmgrError as error:
        details = f": {error.details[0].strip()}" if error.details else ""
        found.append(_of_error(name, error, details))
    except OSError as error:
        found.append(Finding(name, "error", f"{error.filename or name}: {error.strerror or error}"))
    return found


def _of_error(check: str, error: ExpmgrError, details: str = "") -> Finding:
    """An error as a finding: its hint, or the command that its hint ends with."""
    hint = error.hint or ""
    command = hint.rpartition(": ")[2]
    is_command = command.split(" ", 1)[0] in _PROGRAMS and not _PROSE.search(command)
    return Finding(check, "error", f"{error.message}{details}", *((command,) if is_command else ("", hint)))


def _repaired(name: str, repairs: Iterable[Callable[[], object]]) -> list[Finding]:
    """Do the repairs; what failed of them."""
    failed: list[Finding] = []
    for repair in repairs:
        try:
            repair()
        except (ExpmgrError, OSError) as error:
            failed.append(Finding(name, "error", f"could not be fixed: {getattr(error, 'message', error)}"))
    return failed


def _git(setup: Setup) -> Iterator[Finding]:
    """git is there, and new enough. Not asked of the repository: that may be what is broken."""
    answer = call_git(setup.folder if setup.folder.is_dir() else Path("/"), ["version"])
    version = answer.text.strip()
    numbers = tuple(int(one) for one in version.removeprefix("git version ").split(".")[:2] if one.isdigit())
    place = shutil.which("git") or "git"
    if answer.status or len(numbers) < 2:
        yield Finding("git", "error", f"{place} does not run: {answer.stderr.strip() or version}")
    elif numbers < OLDEST_GIT:
        yield Finding("git", "error", f"{version} ({place}) is too old: {_dotted(OLDEST_GIT)} or newer is needed")
    elif numbers < (2, 38):
        yield Finding("git", "warn", f"{version} ({place}) cannot merge reviews: 2.38 or newer is needed for that")
    else:
        yield Finding("git", "ok", f"{version} ({place})")


def _dotted(version: Iterable[int]) -> str:
    return ".".join(map(str, version))


def _repository(setup: Setup) -> Iterator[Finding]:
    """It opens, may be written, and what HEAD, branches and logs name is there."""
    repo = setup.repo
    common = repo.git_common_dir
    why = unwritable(common)
    if why is not None:
        yield Finding("repository", "error", f"{common} cannot be written: {why}", f"ls -ld {shlex.quote(str(common))}")
    answer = repo.call("for-each-ref", "--format=%(objecttype)")
    if answer.status:
        yield Finding("repository", "error", f"not every ref can be read: {_first(answer.stderr)}", "git fsck")
    if repo.root is not None:
        run_git(repo.root, ["ls-files", "--", ".git/index"])  # reads all of git's index
    commit = repo.commit_of("HEAD")
    if commit is None:
        yield Finding("repository", "warn", f"{repo.folder} has no commit yet", "expmgr init --example iris --commit")
    elif repo.contents([f"{commit}^{{tree}}"])[0][0] != "tree":
        yield Finding("repository", "error", f"commit {commit[:12]} cannot be read whole", "git fsck")
    elif why is None and not answer.status:
        yield Finding("repository", "ok", f"{repo.folder}, at commit {commit[:12]}")


def _first(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "git does not say why")


def _settings(setup: Setup) -> Iterator[Finding]:
    yield Finding("settings", "ok", f"model_dirs in {models_root(setup.settings, setup.repo.main_root)}")


def _identity(setup: Setup) -> Iterator[Finding]:
    yield Finding("identity", "ok", setup.repo.identity())


def _locks(setup: Setup) -> Iterator[Finding]:
    """Lock files of git. Dead ones of our own refs are deleted by whatever meets them; all others a person deletes."""
    from expmgr.git.locks import find_locks

    repo = setup.repo
    found = find_locks(repo.git_common_dir, repo.git_dir)
    for lock in found:
        if lock.is_ours and not lock.doubt:
            yield Finding("locks", "warn", lock.fact, "expmgr doctor --fix", repair=_taking_away(lock, repo))
        elif not lock.doubt:
            yield Finding("locks", "error", lock.fact, lock.command)
        else:
            yield Finding(
                "locks", "warn", f"{lock.fact}. It goes when that git ends; if it stays, delete it", lock.command
            )
    if not found:
        yield Finding("locks", "ok", "no lock of git is left")


def _taking_away(lock: GitLock, repo: GitRepo) -> Callable[[], object]:
    def take() -> None:
        from expmgr.git.locks import take_away

        take_away(lock, repo.git_common_dir)

    return take


def _killed(setup: Setup) -> Iterator[Finding]:
    """What a command left that was killed while git changed a checkout: further names of the files as they were before."""
    found = sorted((setup.repo.git_common_dir / "expmgr").glob(".put-back.*"))
    old = [one for one in found if time.time() - one.stat().st_mtime > _LEFT_AFTER_S]
    for one in old:
        message = (
            f"a command was killed while git changed a checkout (see git status); the files as they were are in {one}"
        )
        yield Finding("killed", "warn", message, f"rm -r {shlex.quote(str(one))}")
    if not old:
        yield Finding("killed", "ok", "no command was killed while git changed a checkout")


def _disk(setup: Setup) -> Iterator[Finding]:
    """Room where models and git's objects are written."""
    seen: set[tuple[int, str]] = set()
    for what, folder in (("git", setup.repo.git_common_dir), ("model_dirs", setup.layout.models_root)):
        place = nearest_folder(folder) or Path("/")
        free = free_bytes(place) or 0
        why = unwritable(folder)
        if why is not None:
            yield Finding("disk", "error", f"{folder} ({what}) cannot be written: {why}")
        elif free < _LITTLE_BYTES:
            state: State = "error" if free < _LEAST_BYTES else "warn"
            yield Finding(
                "disk", state, f"{free:,} bytes are free in {place} ({what})", f"df -h {shlex.quote(str(place))}"
            )
        elif (place.stat().st_dev, "") not in seen:
            yield Finding("disk", "ok", f"{free:,} bytes are free in {place} ({what})")
        seen.add((place.stat().st_dev, ""))


def _index(setup: Setup) -> Iterator[Finding]:
    """The index of records: a cache, so a broken one is deleted."""
    from expmgr.disk.index import damage_of

    path = setup.repo.git_common_dir / "expmgr" / "index.sqlite"
    damage = damage_of(path)
    if damage is None:
        yield Finding("index", "ok", f"{path} can be read" if path.exists() else "not made yet")
    else:
        yield Finding(
            "index", "warn", f"{path} cannot be read: {damage}. It is only a cache", "expmgr doctor --fix",
            repair=lambda: path.unlink(missing_ok=True),
        )  # fmt: skip


def _records(setup: Setup) -> Iterator[Finding]:
    """Records of runs are those that the event log names; no folder of a run is empty."""
    project = setup.project
    heads = project.records.heads()
    for _, run in sorted(project.records.skipped.items()):
        fix = f"expmgr restore {run.run_id}" if run.is_in_log else ""
        hint = "" if run.is_in_log else run.hint or ""
        repair = _restoring(project, run.run_id) if run.is_in_log else None
        yield Finding("records", "error", f"run {run.run_id}: {run.reason}", fix, hint, repair=repair)
    deleted = sorted(set(project.records.damaged_or_deleted()) - set(project.records.skipped))
    for run_id in deleted:
        told = f"run {run_id}: its record was deleted, and the event log has it"
        yield Finding("records", "warn", told, f"expmgr restore {run_id}", repair=_restoring(project, run_id))
    empty = project.records.empty_folders()
    for folder in empty:
        doubt = "" if folder.is_dead else "; a run may be starting there"
        held = f"; it contains {', '.join(folder.holds[:5])}" if folder.holds else ""
        told = f"{project.shown(folder.path)} has no run.json{doubt}{held}"
        if folder.is_dead and folder.is_empty:
            yield Finding("records", "warn", told, "expmgr doctor --fix", repair=Records(setup.layout).heads)
        else:
            is_useless = folder.is_dead and folder.run_id not in {*project.records.skipped, *deleted}
            hint = "look at what it contains; delete the folder if you need none of it" if is_useless else ""
            fix = f"rm -r {shlex.quote(str(folder.path))}" if is_useless else ""
            yield Finding("records", "warn", told, fix, hint)
    if not project.records.skipped and not empty and not deleted:
        yield Finding("records", "ok", f"{len(heads)} run{'' if len(heads) == 1 else 's'}, none damaged")


def _restoring(project: Project, run_id: str) -> Callable[[], object]:
    def restore() -> None:
        from expmgr.team.restore import restore

        restore(project, [run_id])

    return restore


def _model_dirs(setup: Setup) -> Iterator[Finding]:
    """The manifest of every model_dir can be read, and so can the `variant.json` beside it."""
    project = setup.project
    count = damaged = 0
    for path in sorted(setup.layout.models_root.glob("*/*/variant.json")):
        try:
            project.model_dir(VariantName(path.parent.parent.name, path.parent.name), 0).check_owner()
        except ExpmgrError as error:
            damaged += 1
            yield Finding("model_dirs", "error", error.message, error.hint or "")
    for path in sorted(setup.layout.models_root.glob("*/*/seed-*")):
        seed = path.name.removeprefix("seed-")
        if not seed.isdigit() or not path.is_dir():
            continue
        count += 1
        name = VariantName(path.parent.parent.name, path.parent.name)
        try:
            project.model_dir(name, int(seed)).read_manifest()
        except ExpmgrError as error:
            damaged += 1
            yield _of_error("model_dirs", error)
    if not damaged:
        yield Finding("model_dirs", "ok", f"{count} model_dir{'' if count == 1 else 's'}, each manifest can be read")


def _remote(setup: Setup) -> Iterator[Finding]:
    from expmgr.git.remotes import refs_at, remote_names

    names = remote_names(setup.repo)
    if not names:
        yield Finding("remote", "ok", "no git remote: push and pull need one", "git remote add origin URL")
    for name in names if setup.asks_network else ():
        found = refs_at(setup.repo, name, "HEAD")
        if isinstance(found, dict):
            yield Finding("remote", "ok", f"{name} answers")
        else:
            yield Finding("remote", "error", f"{name} does not answer: {_first(found.stderr)}", f"git ls-remote {name}")
    if names and not setup.asks_network:
        yield Finding("remote", "ok", f"{', '.join(names)} (not asked; expmgr doctor --network asks)")


def _store(setup: Setup) -> Iterator[Finding]:
    place = setup.settings.store
    if place is None:
        yield Finding("store", "ok", "no store for checkpoints: push --checkpoints needs one")
        return
    from expmgr.data.locations import is_url
    from expmgr.store.backends import open_store

    if is_url(place) and not setup.asks_network:
        yield Finding("store", "ok", f"{redacted(place)} (not asked; expmgr doctor --network asks)")
        return
    store = open_store(place, setup.repo.main_root)
    if not store.is_there():
        yield Finding("store", "error", f"the store {store.name} is not there: is it mounted?")
        return
    if is_url(place):
        store.has("0" * 64)
    yield Finding("store", "ok", store.name)


def _tensorflow(_: Setup) -> Iterator[Finding]:
    """TensorFlow in this environment, which is not imported for it."""
    import importlib.metadata

    if not has_tensorflow():
        way = f"{sys.executable} -m pip install 'expmgr[tensorflow]'"
        message = (
            f"{sys.executable} has no TensorFlow: run, evaluate, predict and export need it, all else does without"
        )
        yield Finding("tensorflow", "warn", message, way)
        return
    for name in ("tensorflow", "tensorflow-cpu", "tensorflow-macos", "tensorflow-rocm", "tf-nightly"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        yield Finding("tensorflow", "ok", f"{name} {version}")
        return
    yield Finding("tensorflow", "ok", "TensorFlow is installed")


#: All checks by id, in the order in which they are made and shown.
CHECKS: Mapping[str, Check] = {
    "git": _git,
    "repository": _repository,
    "settings": _settings,
    "identity": _identity,
    "locks": _locks,
    "killed": _killed,
    "disk": _disk,
    "index": _index,
    "records": _records,
    "model_dirs": _model_dirs,
    "remote": _remote,
    "store": _store,
    "tensorflow": _tensorflow,
}


def doctor(folder: Path, *, fix: bool = False, network: bool = False) -> Diagnosis:
    """What is wrong with the set-up of the repository that `folder` is in. Where there is none, or no git, only what can
    be looked at without is."""
    setup = Setup(folder, network)
    try:
        _ = setup.repo
    except GitFailed as error:
        return Diagnosis(
            (Finding("git", "error", error.message, error.hint or ""), *_made("tensorflow", _tensorflow, setup))
        )
    except ExpmgrError:
        found = [_made(name, CHECKS[name], setup) for name in ("git", "repository", "tensorflow")]
        return Diagnosis(tuple(one for some in found for one in some))
    return diagnose(setup, fix=fix)
