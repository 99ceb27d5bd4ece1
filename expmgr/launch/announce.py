"""Says whose code is about to run, if another author's code runs for the first time in this clone."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from expmgr.disk import durable
from expmgr.errors import ExpmgrError
from expmgr.git.repo import SUBMODULE
from expmgr.launch.plan import Task
from expmgr.paths import BRANCH_PREFIX
from expmgr.project import Project
from expmgr.team.target_branch import newest, target_of
from expmgr.variants.code_digest import counted_files
from expmgr.variants.variants import find_variant, origins

_COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


def announce(project: Project, task: Task) -> None:
    """Note whose code `task` runs, unless this code ran here before, or is one's own or the team's.

    Another author's code: commits to it since one's own newest commit, since what ran here, and since the target branch. The
    digest of code that ran is kept in `.git/expmgr/known_code/`.
    """
    known = project.repo.git_common_dir / "expmgr" / "known_code"
    if (known / task.code_digest).exists():
        return
    files = counted_files(project.repo, task.commit, task.name)
    if not any(path.endswith(".py") or entry.mode == SUBMODULE for path, entry in files.items()):
        return  # a premade model: nobody's code runs
    if authors := _other_authors(project, task.commit, files, _commits_in(known)):
        where = f"exp/{task.name} at {task.commit[:12]}"
        project.records.on_note(
            f"running code of {' and '.join(authors)} for the first time here: {where} ({_how_to_see(project, task)} shows "
            "what it changes)"
        )
    with contextlib.suppress(OSError):  # a read-only disk: it is said again
        known.mkdir(parents=True, exist_ok=True)
        durable.write_bytes(known / task.code_digest, f"{task.commit}\n".encode())


def _commits_in(known: Path) -> list[str]:
    """The commits whose code ran here."""
    found = []
    for path in known.glob("*") if known.is_dir() else ():
        with contextlib.suppress(OSError):
            found.append(path.read_text(encoding="ascii", errors="replace").strip())
    return [one for one in found if _COMMIT.fullmatch(one)]


def _other_authors(project: Project, commit: str, files: Iterable[str], ran: Sequence[str]) -> list[str]:
    """Who wrote `files` at `commit` besides oneself, the newest first; not what the commits that `ran` here have."""
    team = _team_commit(project)
    revisions = [commit, *(f"^{one}" for one in (*ran, team) if one is not None)]
    asked = [*revisions, "--", *(path for path in files if "\n" not in path)]
    options = ("--encoding=UTF-8", "--no-show-signature", "--no-mailmap", "--ignore-missing", "--stdin")
    listed = project.repo.run(
        *("log", "-z", "--format=%ae%x00%an <%ae>", *options),
        stdin="".join(f"{one}\n" for one in asked).encode("utf-8", "surrogateescape"),
    )
    fields = listed.text.split("\0")
    mine = _own_address(project)
    found: list[str] = []
    for address, who in zip(fields[::2], fields[1::2], strict=False):
        if mine is not None and address.strip().lower() == mine:
            break
        found.append(who.strip())
    return list(dict.fromkeys(found))


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


def _how_to_see(project: Project, task: Task) -> str:
    """The command that shows what the variant changes."""
    origin = origins(project.repo).get(task.name)
    if origin is not None:
        with contextlib.suppress(ExpmgrError):
            return f"expmgr diff {find_variant(project.repo, origin.base).name} {task.name}"
    return f"git diff {(_team_commit(project) or 'HEAD')[:12]}...exp/{task.name}"
