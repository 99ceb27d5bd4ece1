"""Pushes and pulls logs and variants through the team's git remote.

A writer moves its own log alone, so pushes meet no conflict, and nothing is forced: what is not a continuation is refused
and said. Other people's logs are fetched by an explicit refspec into a place of their own; the user's fetch configuration
is neither used nor changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import shlex
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from expmgr.disk import durable
from expmgr.errors import BadName, ExpmgrError, GitFailed, LogRewritten, RemoteProblem
from expmgr.git.checkouts import worktrees
from expmgr.git.process import GitResult, git_failed, words_of
from expmgr.git.remotes import fetch_refs, push_refs, reasons_in, refs_at, remote_names, upstream_remote
from expmgr.log.events import OfReview, is_writer
from expmgr.log.logs import Told, writer_of
from expmgr.log.refs import OWN, REMOTES
from expmgr.log.writers import new_writer, writer_id
from expmgr.paths import BRANCH_PREFIX, parse_variant
from expmgr.project import Project
from expmgr.team.publish import catch_up, retold, tell
from expmgr.team.receive import TakenOver, take_over
from expmgr.team.target_branch import target_of, team_remote

_VARIANTS = f"refs/heads/{BRANCH_PREFIX}"
#: Somebody may push while we look.
_TRIES = 5
#: How long another push or pull of this clone is waited for without a word.
_PATIENCE_S = 5


@dataclass
class Pushed:
    """What went to a remote. Branches by name, logs by writer."""

    remote: str
    events: int = 0
    """Events that the remote did not have."""
    branches: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """Branches that the remote did not take: they are no continuation of what it has, or `declined` has the reason."""
    declined: dict[str, str] = field(default_factory=dict)
    """Of these, the ones that the remote has no other commits of, and git's reason."""
    words: list[str] = field(default_factory=list)
    """What the remote said when it declined branches."""
    new_writer: str | None = None
    """The writer that this clone goes on as, where the log that it had was moved by another."""


@dataclass
class Pulled:
    """What came from a remote."""

    remote: str
    taken: TakenOver
    events: int = 0
    """Events that were not here."""
    said: list[Told] = field(default_factory=list)
    """Those of them that are words, or of reviews, in their order."""
    made: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    """Branches that stay where they are, and why."""
    not_variants: list[str] = field(default_factory=list)
    """Branches of the remote below exp/ whose names are no variants: no branch is made of them."""
    rewritten: list[str] = field(default_factory=list)
    """Writers whose log at the remote is no continuation of what is here."""


def remote_of(project: Project, name: str | None) -> str:
    """The remote that is meant: the one named, that of the branch which is checked out, `origin`, or the only one there is."""
    known = remote_names(project.repo)
    if name is not None:
        if name not in known:
            raise RemoteProblem(
                f"there is no remote {name}",
                left_alone="Nothing was changed.",
                hint=f"git remote add {name} URL" + (f"; there is {', '.join(known)}" if known else ""),
            )
        return name
    upstream = upstream_remote(project.repo)
    for one in (upstream, "origin", *(known if len(known) == 1 else ())):
        if one in known:
            return str(one)
    raise RemoteProblem(
        f"several remotes, and none is called origin: {', '.join(known)}" if known else "this repository has no remote",
        left_alone="Nothing was changed.",
        hint=f"name the remote: expmgr push --remote {known[0]}, or expmgr pull --remote {known[0]}"
        if known
        else "git remote add origin URL",
    )


def push(project: Project, remote: str) -> Pushed:
    """Say what is not said yet, and push this clone's logs and all variants. Nothing at the remote is overwritten."""
    with _turn(project):
        catch_up(project)
        return _push(project, remote)


@contextlib.contextmanager
def _turn(project: Project) -> Iterator[None]:
    """One push or pull of this clone at a time: both move what this clone knows of a remote, and of two pushes of one log the
    remote refuses the slower one."""
    durable.make_folder(project.layout.own)
    with open(project.layout.own / "transfer.lock", "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            quiet = threading.Timer(
                _PATIENCE_S, project.repo.on_note, ["waiting for another push or pull of this clone"]
            )
            quiet.daemon = True
            quiet.start()
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            finally:
                quiet.cancel()
        yield


def _push(project: Project, remote: str) -> Pushed:
    done = Pushed(remote)
    for number in range(_TRIES):
        before = _known_tips(project, remote)
        logs = {ref: tip for ref, tip in project.repo.refs(OWN).items() if writer_of(ref)}
        variants = {
            ref: oid for ref, oid in project.repo.refs(_VARIANTS).items() if _is_variant(ref.removeprefix(_VARIANTS))
        }
        refspecs = [f"{ref}:{_at_remote(project, ref)}" for ref in logs] + [f"{ref}:{ref}" for ref in variants]
        if not refspecs:
            return done
        flags, answer = push_refs(project.repo, remote, refspecs)
        reasons = reasons_in(answer)
        if not flags:
            raise _failed(project, "push to", remote, answer)
        done.branches += [_branch(ref) for ref in variants if flags.get(ref) in (" ", "*")]
        refused_branches = [ref for ref in variants if flags.get(ref) == "!"]
        for ref, tip in logs.items():
            if flags.get(_at_remote(project, ref)) in (" ", "*", "="):
                done.events += _note_pushed(project, remote, ref, tip, before.get(writer_of(ref) or ""))
        refused = [ref for ref in logs if flags.get(_at_remote(project, ref)) == "!"]
        if refused or refused_branches:
            _fetch(project, remote)
        # Another clone may have pushed the same commit meanwhile.
        tracked = project.repo.refs(_tracked(remote, "")) if refused_branches else {}
        known = {ref: tracked.get(_tracked(remote, ref.removeprefix(_VARIANTS))) for ref in refused_branches}
        refused_branches = [ref for ref in refused_branches if known[ref] != variants[ref]]
        done.refused = [_branch(ref) for ref in refused_branches]
        done.declined = {
            _branch(ref): reasons[ref] for ref in refused_branches if _goes_on(project, known[ref], variants[ref])
        }
        done.words = [line for line in words_of(answer) if line.startswith("remote:")] if done.declined else []
        if not refused:
            return done
        settled = [_go_on(project, remote, ref, done) for ref in refused]
        if not all(settled):
            now = _known_tips(project, remote)
            was_moved = any(now.get(writer_of(ref) or "") != before.get(writer_of(ref) or "") for ref in refused)
            is_locked = any("lock" in line for line in words_of(answer) if line.startswith("remote:"))
            if number + 1 < _TRIES and (was_moved or is_locked):
                time.sleep(0.1 * 2**number)  # somebody else moved it, or was about to
                continue
            words = [line for line in words_of(answer) if "log" in line or "remote:" in line] or words_of(answer)
            why = dict.fromkeys(reasons[_at_remote(project, ref)] for ref in refused)
            raise RemoteProblem(
                f"{remote} refuses the log of this clone",
                details=[*why, *words],
                left_alone="Nothing at the remote was overwritten; what this clone says is kept in it.",
                hint=f"remove what is in the way at {remote}, then expmgr push"
                if any("lock" in line.lower() for line in words)
                else 'where a host takes only branches: log_prefix = "refs/heads/expmgr/log" in [tool.expmgr]',
            )
    return done


def _goes_on(project: Project, theirs: str | None, ours: str) -> bool:
    """Whether a branch here has all commits that the remote is known to have of it."""
    return theirs is None or project.repo.is_ancestor(theirs, ours)


def _note_pushed(project: Project, remote: str, ref: str, tip: str, before: str | None) -> int:
    """Know that the remote has the log up to `tip`; how many events are new to it."""
    if before == tip:
        return 0
    known = before is not None and project.repo.is_ancestor(before, tip)
    count = len(project.repo.chain(tip, before if known else None)) - (not known)  # the first commit holds no event
    project.repo.set_ref(_here(remote, writer_of(ref) or ""), tip, "expmgr: push")
    return count


def _go_on(project: Project, remote: str, ref: str, done: Pushed) -> bool:
    """The remote has another continuation of a log of ours: whether that could be mended.

    Where the remote has all of ours, there was nothing to push: the clone is a copy of another one. Else this clone was
    copied or brought back from a backup without notice, and goes on as another writer.
    """
    writer = writer_of(ref) or ""
    theirs = project.repo.refs(_here(remote, writer)).get(_here(remote, writer))
    ours = project.repo.refs(ref).get(ref)  # asked last: it only grows
    if ours is None or theirs is None or ours == theirs:
        return ours is None or ours == theirs  # another process pushed the same
    if project.repo.is_ancestor(theirs, ours):
        return False  # it was no conflict: the remote does not want it
    if project.repo.is_ancestor(ours, theirs):
        project.repo.delete_ref(ref, ours)  # all of it lies in what was fetched
        return True
    known = set(project.repo.chain(theirs))
    mine: list[Told] = [one for one in project.logs.events() if one.ref == ref and one.commit not in known]
    if writer == writer_id(project.layout.own):
        done.new_writer = new_writer(project.layout.own)
    tell(project, retold(project, mine), drop=[ref])
    return True


def pull(project: Project, remote: str) -> Pulled:
    """Fetch all logs and variants, take over records, make or move the branches of variants where that loses nothing.

    `LogRewritten` at the end, after all else was done, where a log is no continuation.
    """
    with _turn(project):
        return _pull(project, remote)


def _pull(project: Project, remote: str) -> Pulled:
    before = {one.id for one in project.logs.events()}
    blocked: dict[str, str] = {}
    _fetch_target(project, remote)
    rewritten = _fetch(project, remote, blocked)
    done = Pulled(remote, take_over(project), rewritten=rewritten, left=blocked)
    fresh = [one for one in project.logs.events() if one.id not in before]
    done.events = len(fresh)
    done.said = [
        one for one in fresh if one.kind == "note" or one.kind == "review.open" or isinstance(one.event, OfReview)
    ]
    _move_branches(project, remote, done)
    return done


def check_continued(done: Pulled) -> None:
    """Raise `LogRewritten` where somebody rewrote history that was here already."""
    if done.rewritten:
        raise LogRewritten(
            f"{done.remote} has another history of what {', '.join(done.rewritten)} said than was here before",
            details=["a log is only ever added to: somebody forced a push over it, or it was taken back from a backup"],
            left_alone="What was here before was kept; all else was taken over.",
            hint="ask who it was; if the new one is right: git update-ref -d "
            f"{_here(done.remote, done.rewritten[0])}, then expmgr pull",
        )


def _fetch(project: Project, remote: str, blocked: dict[str, str] | None = None) -> list[str]:
    """Fetch logs and variants; the writers whose log was rewritten, whose old one stays. `blocked` gains the variants that
    cannot be fetched, and why."""
    prefix = project.settings.log_prefix
    logs, branches = [f"{prefix}/*:{_here(remote, '*')}"], [f"+{_VARIANTS}*:{_tracked(remote, '*')}"]
    for _ in range(_TRIES):
        answer = fetch_refs(project.repo, remote, [*logs, *branches])
        if answer.status == 0:
            return []
        there = refs_at(project.repo, remote, f"{prefix}/*")
        if isinstance(there, GitResult):
            raise _failed(project, "fetch from", remote, there)
        # A ref below a log's name, or what is no log, keeps git from fetching all: the logs alone are asked for.
        writers = [ref.rpartition("/")[2] for ref in there]
        there = {
            f"{prefix}/{one}": there[f"{prefix}/{one}"]
            for one in writers
            if f"{prefix}/{one}" in there and is_writer(one)
        }
        one_by_one = [f"{ref}:{_here(remote, ref.rpartition('/')[2])}" for ref in there]
        # So do branches whose names this machine cannot hold, or not beside those that it knows: only variants are fetched.
        variants = _fetchable(project, remote, {} if blocked is None else blocked)
        is_new = (set(one_by_one), set(variants)) != (set(logs), set(branches))
        logs, branches = one_by_one, variants
        here = project.repo.refs(f"{REMOTES}{remote}/log/")
        moved = {
            ref: oid for ref, oid in there.items() if here.get(_here(remote, ref.rpartition("/")[2])) not in (None, oid)
        }
        is_there = dict(zip(moved, project.repo.has(list(moved.values())), strict=True))
        if moved and all(is_there.values()):
            rewritten = [
                ref.rpartition("/")[2]
                for ref, oid in moved.items()
                if not project.repo.is_ancestor(here[_here(remote, ref.rpartition("/")[2])], oid)
            ]
            if rewritten:
                return sorted(rewritten)
        elif not moved and not is_new:
            raise _failed(project, "fetch from", remote, answer)
    raise _failed(project, "fetch from", remote, answer)


def _fetchable(project: Project, remote: str, blocked: dict[str, str]) -> list[str]:
    """How to fetch each variant of the remote, but for those that git cannot hold beside what it knows of the remote."""
    there = refs_at(project.repo, remote, f"{_VARIANTS}*")
    if isinstance(there, GitResult):
        raise _failed(project, "fetch from", remote, there)
    known = project.repo.refs(_tracked(remote, ""))
    found = []
    for name in (ref.removeprefix(_VARIANTS) for ref in there):
        if not _is_variant(name):
            continue
        tracked = _tracked(remote, name)
        if tracked.rpartition("/")[0] in known or any(one.startswith(f"{tracked}/") for one in known):
            blocked[f"{BRANCH_PREFIX}{name}"] = f"a branch that {remote} had is in its way: git remote prune {remote}"
        else:
            found.append(f"+{_VARIANTS}{name}:{tracked}")
    return found


def _is_variant(name: str) -> bool:
    try:
        parse_variant(name)
    except BadName:
        return False
    return True


def _fetch_target(project: Project, remote: str) -> None:
    """Know the newest target branch of the team's: reviews and signatures are judged by it. Not every remote has it."""
    if remote == team_remote(project):
        name = target_of(project)
        answer = fetch_refs(project.repo, remote, [f"+refs/heads/{name}:refs/remotes/{remote}/{name}"])
        if answer.status and f"couldn't find remote ref refs/heads/{name}" not in answer.stderr:
            raise _failed(project, "fetch from", remote, answer)


def _move_branches(project: Project, remote: str, done: Pulled) -> None:
    there = {
        ref.removeprefix(_tracked(remote, "")): oid for ref, oid in project.repo.refs(_tracked(remote, "")).items()
    }
    here = {ref.removeprefix(_VARIANTS): oid for ref, oid in project.repo.refs(_VARIANTS).items()}
    news = {name: oid for name, oid in there.items() if here.get(name) != oid}
    checked_out = {one.ref: one.path for one in worktrees(project.repo)} if news else {}
    for name, oid in sorted(news.items()):
        ref, old, branch = f"{_VARIANTS}{name}", here.get(name), f"{BRANCH_PREFIX}{name}"
        if not _is_variant(name):
            done.not_variants.append(branch)
        elif old is None:
            clash = project.repo.clash(ref)
            if clash is not None:
                other = clash.removeprefix("refs/heads/")
                done.left[branch] = f"your branch {other} is in its way: git branch -m {shlex.quote(other)} NEW-NAME"
            elif _moved_here(project, remote, ref, None, oid, done):
                done.made.append(branch)
        elif project.repo.is_ancestor(oid, old):
            continue  # what is here goes further
        elif not project.repo.is_ancestor(old, oid):
            done.left[branch] = f"it went another way here: git switch {branch}; git merge {remote}/{branch}"
        elif ref in checked_out:
            done.left[branch] = f"it is checked out in {checked_out[ref]}: git merge --ff-only {remote}/{branch}"
        elif _moved_here(project, remote, ref, old, oid, done):
            done.moved.append(branch)


def _moved_here(project: Project, remote: str, ref: str, old: str | None, new: str, done: Pulled) -> bool:
    """Whether a branch of this clone was moved to what the remote has; if git says no, the next `pull` tries again."""
    try:
        if project.repo.move_branch(ref, old, new, f"expmgr: pull {remote}"):
            return True
        done.left[_branch(ref)] = "it was moved by something else meanwhile: expmgr pull"
    except GitFailed as error:
        done.left[_branch(ref)] = f"{error.message}: {error.hint or '; '.join(error.details[:1])}"
    return False


def _known_tips(project: Project, remote: str) -> Mapping[str, str]:
    """Writer to the newest event that the remote is known to have."""
    refs = project.repo.refs(f"{REMOTES}{remote}/log/")
    return {writer_of(ref) or "": tip for ref, tip in refs.items()}


def _here(remote: str, writer: str) -> str:
    return f"{REMOTES}{remote}/log/{writer}"


def _tracked(remote: str, name: str) -> str:
    return f"refs/remotes/{remote}/{BRANCH_PREFIX}{name}"


def _at_remote(project: Project, ref: str) -> str:
    return f"{project.settings.log_prefix}/{writer_of(ref)}"


def _branch(ref: str) -> str:
    return ref.removeprefix("refs/heads/")


def _failed(project: Project, what: str, remote: str, answer: GitResult) -> ExpmgrError:
    message, kept = f"git could not {what} {remote}", "Nothing was lost: what this clone has to say is kept in it."
    hint = (
        f"git {'fetch' if 'fetch' in what else 'push'} {remote} says the same? then it is the remote, or the way to it"
    )
    error = git_failed(message, answer, project.repo.folder, left_alone=kept, hint=hint)
    if error.hint != hint:  # it is the disk, or a lock, here
        return error
    return RemoteProblem(message, details=error.details, left_alone=kept, hint=hint)
