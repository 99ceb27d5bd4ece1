"""Says whose code is about to run, if another author's code runs for the first time in this clone."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from expmgr.disk import durable
from expmgr.errors import ExpmgrError
from expmgr.git.objects import TreeEntry
from expmgr.launch.plan import Task
from expmgr.paths import BRANCH_PREFIX
from expmgr.project import Project
from expmgr.spec.code_packages import may_be_named
from expmgr.spec.model import ScriptModel
from expmgr.team.target_branch import newest, target_of
from expmgr.variants.code_digest import counted_files, is_code
from expmgr.variants.code_lookup import references_of

_COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


def announce(project: Project, task: Task) -> str | None:
    """Note whose code `task` runs, unless this code ran here before, or is one's own or the team's. What was noted.

    Another author's code: commits to a file of it since that file ran here, and since the target branch. The digest of such
    code that ran is kept in `.git/expmgr/known_code/` with its commit and its files (`remember`).
    """
    known = _known_code(project)
    if (known / task.code_digest).exists():
        return None
    files = counted_files(project.repo, task.commit, task.name)
    if not _runs_code(task, files.values(), project.settings.code_packages):
        return None  # a premade model: nobody's code runs
    found: list[tuple[int, str]] = []
    seen: list[frozenset[str]] = []
    for ran, paths in _by_what_ran(known, files, _team_commit(project)).items():
        if authors := _other_authors(project, task.commit, paths, ran):
            found += authors
            seen.append(ran)
    if not found:
        return None
    found.sort(key=lambda one: -one[0])
    command = _how_to_see(project, task.commit, frozenset.intersection(*seen))
    told = (
        f"running code of {' and '.join(dict.fromkeys(who for _, who in found))} for the first time here: exp/{task.name} at "
        f"{task.commit[:12]} ({command} shows what it changes)"
    )
    project.records.on_note(told)
    return told


def remember(project: Project, task: Task) -> None:
    """The code of `task`, which was announced, runs or ran: it is not announced again."""
    known = _known_code(project)
    with contextlib.suppress(OSError, ExpmgrError):  # such as a read-only disk: it is said again
        known.mkdir(parents=True, exist_ok=True)
        files = counted_files(project.repo, task.commit, task.name)
        content = "\n".join([task.commit, *(path for path in files if "\n" not in path), ""])
        durable.write_bytes(known / task.code_digest, content.encode("utf-8", "surrogateescape"))


def _known_code(project: Project) -> Path:
    return project.repo.git_common_dir / "expmgr" / "known_code"


def _runs_code(task: Task, files: Iterable[TreeEntry], packages: Collection[str]) -> bool:
    """Whether code of the repository may run: the spec names some, or there is some that an import may find."""
    if isinstance(task.spec.model, ScriptModel) or any(is_code(entry) for entry in files):
        return True
    return any(not may_be_named(reference.partition(":")[0], packages) for _, reference in references_of(task.spec))


def _by_what_ran(known: Path, files: Iterable[str], team: str | None) -> dict[frozenset[str], list[str]]:
    """The `files` by the commits at which they ran here, or are the team's: a run knows no more of a commit than it reached."""
    ran_at: dict[str, set[str]] = {}
    for path in known.glob("*") if known.is_dir() else ():
        with contextlib.suppress(OSError):
            commit, *paths = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
            if _COMMIT.fullmatch(commit):
                for one in paths:
                    ran_at.setdefault(one, set()).add(commit)
    found: dict[frozenset[str], list[str]] = {}
    for file in files:
        commits = frozenset({*ran_at.get(file, ()), *([team] if team is not None else [])})
        found.setdefault(commits, []).append(file)
    return found


def _other_authors(project: Project, commit: str, files: Iterable[str], ran: Collection[str]) -> list[tuple[int, str]]:
    """Who wrote `files` at `commit` besides oneself, and when, the newest first; not what the commits `ran` have."""
    asked = [commit, *(f"^{one}" for one in sorted(ran)), "--", *(path for path in files if "\n" not in path)]
    options = ("--encoding=UTF-8", "--no-show-signature", "--no-mailmap", "--ignore-missing", "--stdin")
    listed = project.repo.run(
        *("log", "-z", "--format=%ct%x00%ae%x00%an <%ae>", *options),
        stdin="".join(f"{one}\n" for one in asked).encode("utf-8", "surrogateescape"),
        env={"GIT_LITERAL_PATHSPECS": "1"},  # a submodule may be called `:(exclude)...`
    )
    fields = listed.text.split("\0")
    mine = _own_address(project)
    # One's own commit on top says nothing of what is below it.
    return [
        (int(time), who.strip())
        for time, address, who in zip(fields[::3], fields[1::3], fields[2::3], strict=False)
        if address.strip().lower() != mine
    ]


def _team_commit(project: Project) -> str | None:
    """The newest commit of the branch that variants are merged into; None without such a branch."""
    target = target_of(project)
    if target == "HEAD" and (project.repo.head_ref() or "").startswith(f"refs/heads/{BRANCH_PREFIX}"):
        return None
    return newest(project, target)


def _own_address(project: Project) -> str | None:
    """The address that one's own commits have; None where git has been told none."""
    answer = project.repo.call("var", "GIT_AUTHOR_IDENT")
    return answer.text.rpartition("<")[2].partition(">")[0].lower() if answer.status == 0 else None


def _how_to_see(project: Project, commit: str, ran: Collection[str]) -> str:
    """The command that shows everything that `commit` has and the commits `ran` have not."""
    asked = "".join(f"{one}\n" for one in (commit, *(f"^{one}" for one in sorted(ran))))
    options = ("--boundary", "--ignore-missing", "--stdin")
    lines = project.repo.run("rev-list", *options, stdin=asked.encode("ascii")).text.split("\n")
    base = next((line[1:] for line in lines if line.startswith("-")), None)
    if base is not None:
        return f"git diff {base[:12]}...{commit[:12]}"
    nothing = project.repo.run("hash-object", "-t", "tree", "--stdin", stdin=b"").text.strip()
    return f"git diff {nothing} {commit[:12]}"
