"""Where reviews stand now: one review, all open reviews, or those of a merge request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from expmgr.errors import ExitCode, ExpmgrError, ReviewProblem, UnknownVariant
from expmgr.git.repo import CommitId
from expmgr.log.events import Checked
from expmgr.log.logs import REVIEW_FILE, Draft
from expmgr.project import Project
from expmgr.reviews.evidence import Evidence, changed_experiments, gather, question_of
from expmgr.reviews.report import ended, kept, report
from expmgr.reviews.review import Review, all_reviews, find_review
from expmgr.reviews.standing import Standing, is_landed, reopened, require_open, standing
from expmgr.team.publish import tell
from expmgr.variants.variants import all_variants

#: The exit codes of a check, the gravest last.
_GRAVITY = (ExitCode.DONE, ExitCode.NOT_COMPARABLE, ExitCode.MISTAKE)


def standing_now(project: Project, review: Review) -> Standing:
    """Where a review stands now. Raises `ExpmgrError` if what it asks cannot be judged: a branch is missing, a spec is bad."""
    if review.end is not None:
        return standing(project, review, None)
    evidence = gather(project, question_of(project, review.opened), policy=review.policy)
    return standing(project, review, evidence)


def report_of(project: Project, found: Standing) -> dict[str, Any]:
    """Everything that is known of a review; of one that has ended, what was kept."""
    end = found.review.end
    if end is None:
        return report(found)
    (content,) = project.logs.beside([end], REVIEW_FILE)
    return ended(kept(content, found.review.id), found)


def report_named(project: Project, text: str) -> dict[str, Any]:
    """The report of the review that `text` names: an id or its beginning, or the variant under review."""
    return report_of(project, standing_now(project, find_review(project, text)))


def reports(
    project: Project, *, everything: bool = False, on_problem: Callable[[str], None] = lambda _: None
) -> list[dict[str, Any]]:
    """The reports of the open reviews, and of those whose merge the target does not have; with `everything` of all.

    A review that cannot be judged (a spec that cannot be read, a commit that is not here) is left out, and `on_problem` is
    told why.
    """
    found = []
    for review in all_reviews(project):
        if not everything and review.end is not None and is_landed(project, review):
            continue
        try:
            found.append(report_of(project, standing_now(project, review)))
        except ExpmgrError as error:
            on_problem(f"review {review.short} of {review.opened.candidate} was skipped: {error.message}")
    return found


def require_current(project: Project, text: str) -> Review:
    """A review that is open, or was merged and the target does not have it: a push that was refused, and a rebase."""
    review = find_review(project, text)
    if not is_landed(project, review):
        review = reopened(review)
    require_open(review)
    return review


def judged_now(project: Project, text: str) -> tuple[Standing, Evidence]:
    """A review that is open, and what is known of it now."""
    found = standing_now(project, require_current(project, text))
    assert found.evidence is not None
    return found, found.evidence


def judged_or_not(project: Project, text: str, on_problem: Callable[[str], None]) -> Standing:
    """As `judged_now`, also if what the review asks cannot be looked at any more: then nothing is known but what people said,
    and `on_problem` is told why."""
    review = require_current(project, text)
    try:
        return standing_now(project, review)
    except ExpmgrError as error:
        on_problem(f"what it asks cannot be judged: {error.message}")
        return standing(project, review, None)


def between(project: Project, base: str, head: str) -> list[Standing]:
    """The open reviews of what HEAD is, as it would be merged into BASE; none where no experiment changes between them."""
    onto, tip = (_commit(project, text) for text in (base, head))
    found = []
    for one in all_reviews(project, onto):
        asked = question_of(project, one.opened)
        if one.end is None and tip in (asked.candidate.commit, one.opened.commit):
            exactly = replace(asked, candidate=replace(asked.candidate, commit=tip))
            try:
                found.append(standing(project, one, gather(project, exactly, base=onto, policy=one.policy)))
            except ExpmgrError as error:
                raise ReviewProblem(
                    f"review {one.short} of {one.opened.candidate} cannot be judged: {error.message}",
                    details=error.details,
                    hint=f"expmgr review close {one.short} --reason abandoned, if nobody wants it any more",
                ) from None
    reviewed = {one.review.opened.candidate.partition("/")[0] for one in found}
    changed = [one for one in changed_experiments(project, onto, tip) if one not in reviewed]
    if changed:
        here = (str(one.name) for one in all_variants(project.repo) if one.commit == tip)
        candidate = next((one for one in here if one.partition("/")[0] in changed), f"{changed[0]}/VARIANT")
        raise ReviewProblem(
            f"{', '.join(changed)} would change, and no open review is of {tip[:12]}"
            + (f" and {'it' if len(changed) == 1 else 'them'}" if found else ""),
            hint=f"expmgr review open {candidate} --against BASELINE; expmgr push; and here expmgr pull before this",
        )
    return found


def _commit(project: Project, text: str) -> CommitId:
    commit = project.repo.commit_of(text)
    if commit is None:
        raise UnknownVariant(f"there is no commit {text}", hint="git fetch; a shallow clone has not all of them")
    return commit


def gravest(found: Sequence[Standing]) -> ExitCode:
    """The exit code of a check of these reviews."""
    return max(map(_code_of, found), key=_GRAVITY.index, default=ExitCode.DONE)


def _code_of(found: Standing) -> ExitCode:
    evidence = found.evidence
    if evidence is not None and evidence.without_results:
        return ExitCode.MISTAKE
    is_blocked = bool(found.blocks) or bool(evidence and (evidence.conflicts or evidence.is_lost))
    return ExitCode.NOT_COMPARABLE if is_blocked else ExitCode.DONE


def checked(project: Project, text: str, *, log: bool = True) -> Standing:
    """Where the review that `text` names stands now; with `log` the log keeps what the checks said."""
    found = standing_now(project, find_review(project, text))
    if log and found.evidence is not None:
        _log_check(project, found, found.evidence)
    return found


def _log_check(project: Project, found: Standing, evidence: Evidence) -> None:
    """Keep what the checks said, unless that stands in the log."""
    before = found.review.checked
    answers = {one.id: one.answer.value for one in evidence.checks}
    told = (evidence.digests, evidence.result_set, answers, evidence.result.sentence)
    if before is not None and (before.digests, before.result_set, before.answers, before.sentence) == told:
        return
    values: dict[str, object] = {
        "review": found.review.id,
        "commit": evidence.question.candidate.commit,
        "digests": evidence.digests,
        "result_set": evidence.result_set,
        "answers": answers,
        "sentence": evidence.result.sentence,
    }
    tell(project, [Draft(Checked, values)])
