"""What people say in a review: comments, waivers, votes; who may say it.

Each function adds one event to the log, or raises and changes nothing: `BadArgument` for an empty message where one is
needed, and for a reason that is none of `REASONS`.
"""

from __future__ import annotations

from collections.abc import Callable

from expmgr.errors import BadArgument, ReviewProblem, UnknownEvent, UnknownRun, did_you_mean
from expmgr.log.events import Commented, Decided, Event, Resolved, Waived
from expmgr.log.logs import Draft
from expmgr.log.writers import writer_id
from expmgr.project import Project
from expmgr.reviews.current import judged_now, judged_or_not
from expmgr.reviews.evidence import Evidence, question_of
from expmgr.reviews.merging import end_with
from expmgr.reviews.review import REASONS, Review, authors_of, find_review, is_actors_own
from expmgr.reviews.standing import Standing
from expmgr.team.publish import actor_of, tell
from expmgr.variants.named_run import run_named

_UNTOUCHED = "Nothing was changed."
_Noted = Callable[[str], None]


def comment(project: Project, review: str, text: str, on: str | None = None) -> Event:
    """Say something of all of a review, or of what `on` names: `check:ID`, `run:ID`, `run:VARIANT:SEED`, `FILE:LINE`."""
    text = _not_empty(text)
    found = find_review(project, review)
    values: dict[str, object] = {"review": found.id, "text": text}
    if on is not None:
        values |= {"on": on, **_place(project, found, on)}
    return _told(project, Commented, values)


def _not_empty(message: str) -> str:
    """The message as it is recorded. Raises `BadArgument` for one without a word."""
    if not message.strip():
        raise BadArgument("the message is empty", left_alone=_UNTOUCHED)
    return message.strip()


def _told(project: Project, kind: type[Event], values: dict[str, object]) -> Event:
    (event,) = tell(project, [Draft(kind, values)])
    return event


def _place(project: Project, review: Review, on: str) -> dict[str, object]:
    """What a comment is on has to be there: the id of a run, the commit of a line of code."""
    from expmgr.comparison.checks.table import CHECKS

    kind, _, name = on.partition(":")
    if kind == "check" and name:
        if name not in CHECKS:
            raise ReviewProblem(f"there is no check {name}", left_alone=_UNTOUCHED, hint=did_you_mean(name, CHECKS))
        return {}
    if kind == "run" and name:
        record = run_named(project, name)
        if record is None:
            raise UnknownRun(
                f"there is no run {name}",
                left_alone=_UNTOUCHED,
                hint=f"expmgr show {review.opened.candidate} has their ids",
            )
        return {"on": f"run:{record.run_id}"}
    path, _, line = on.rpartition(":")
    commit = question_of(project, review.opened).candidate.commit
    content = project.repo.read(commit, path) if path and line.isdigit() else None
    if content is None or not 0 < int(line) <= content.count(b"\n") + 1:
        raise ReviewProblem(
            f"{on} is no check, no run, and no line of {review.opened.candidate}",
            left_alone=_UNTOUCHED,
            hint="--on check:few-seeds, --on run:20260102-030405678-abcdef, --on experiments/iris/spec.yaml:5",
        )
    return {"commit": commit}


def resolve(project: Project, review: str, comment: str) -> Event:
    """Say that what a comment asked for is settled; `comment` is its id or the beginning of it."""
    found = find_review(project, review)
    meant = [one for one in found.comments if comment and one.id.startswith(comment)]
    if len(meant) != 1:
        what = f"{len(meant)} comments begin with {comment}" if meant else f"there is no comment {comment} in it"
        raise UnknownEvent(what, left_alone=_UNTOUCHED, hint=f"expmgr review show {found.short}")
    before = found.resolved.get(meant[0].id)
    if before is not None:
        raise ReviewProblem(f"{found.person(before).name} has settled {meant[0].id[:12]} before", left_alone=_UNTOUCHED)
    return _told(project, Resolved, {"review": found.id, "event": meant[0].id})


def waive(project: Project, review: str, check: str, reason: str) -> Event:
    """Excuse a check that blocks, for the results that there are now."""
    reason = _not_empty(reason)
    now, evidence = judged_now(project, review)
    blocking = {one.id: one for one in evidence.blocks}
    if check not in blocking:
        raise ReviewProblem(
            f"{check} does not block review {now.review.short}",
            left_alone=_UNTOUCHED,
            hint=f"{', '.join(blocking)} {'does' if len(blocking) == 1 else 'do'}" if blocking else "nothing does",
        )
    _require_other(project, now, evidence, "waives a check of")
    values: dict[str, object] = {
        "review": now.review.id,
        "check": check,
        "told": blocking[check].told,
        "reason": reason,
        "digests": evidence.digests,
        "result_set": evidence.result_set,
    }
    return _told(project, Waived, values)


def _require_other(project: Project, now: Standing, evidence: Evidence, what: str) -> None:
    """The rule of the target branch: nobody decides on their own work."""
    if not now.rules.by_others:
        return
    actor = actor_of(project)
    if actor is None or not actor.email:
        raise ReviewProblem(
            f"nobody {what} a review without a name",
            left_alone=_UNTOUCHED,
            hint='git config user.name "..."; git config user.email ...; record_user = true',
        )
    if is_actors_own(now.review, actor, authors_of(project, now.review, evidence)):
        raise ReviewProblem(
            f"{actor.name} {what} their own work: it takes somebody else",
            details=["authors are who opened the review, made the variant, or wrote one of its commits"],
            left_alone=_UNTOUCHED,
            hint="by_others = false in [tool.expmgr.review] on the target branch, for who works alone",
        )


def approve(project: Project, review: str, message: str = "") -> Event:
    """Approve what would be merged, with the results that there are now."""
    now, evidence = judged_now(project, review)
    if evidence.without_results or evidence.tree is None or evidence.is_lost:
        raise ReviewProblem(
            f"there is nothing to approve in review {now.review.short} yet",
            details=[told + (f": {mend}" if mend else "") for told, mend in now.missing_results][:5],
            left_alone=_UNTOUCHED,
            hint=f"expmgr review show {now.review.short}",
        )
    _require_other(project, now, evidence, "approves")
    return _told(project, Decided, _decision(now, "approve", message))


def veto(project: Project, review: str, message: str, on_problem: _Noted) -> Event:
    """Keep a review from being merged. `on_problem` is told where what it asks cannot be judged any more."""
    message = _not_empty(message)
    return _told(project, Decided, _decision(judged_or_not(project, review, on_problem), "veto", message))


def lift(project: Project, review: str, message: str, on_problem: _Noted) -> Event:
    """Take back one's own verdict."""
    now = judged_or_not(project, review, on_problem)
    actor = actor_of(project)
    mail = actor.email.casefold() if actor is not None else ""
    key = now.review.key_of(mail) if mail else writer_id(project.layout.own)
    if key not in {one.person.key for one in now.opinions}:
        raise ReviewProblem(
            f"no verdict in review {now.review.short} is yours",
            left_alone=_UNTOUCHED,
            hint=f"expmgr review show {now.review.short}",
        )
    return _told(project, Decided, _decision(now, "lift", message))


def close(project: Project, review: str, reason: str, message: str, on_problem: _Noted) -> Event:
    """End a review without a merge, for one of `REASONS`; the numbers that it rests on are kept."""
    if reason not in REASONS:
        what = f"{reason!r} is not a reason to close a review: {', '.join(REASONS)}"
        raise BadArgument(what, left_alone=_UNTOUCHED)
    now = judged_or_not(project, review, on_problem)
    return end_with(project, now, Draft(Decided, _decision(now, "close", message, reason)))


def _decision(now: Standing, verdict: str, message: str, reason: str = "") -> dict[str, object]:
    known, opened = now.evidence, now.review.opened
    return {
        "review": now.review.id,
        "verdict": verdict,
        "commit": known.question.candidate.commit if known else opened.commit,
        "digests": known.digests if known else opened.digests,
        "result_set": known.result_set if known else opened.result_set,
        "text": message.strip(),
        "reason": reason,
    }
