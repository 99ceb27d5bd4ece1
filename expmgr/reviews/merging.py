"""Merges a reviewed candidate into its target branch, also where that branch is checked out."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from expmgr.errors import DiskFull, ExitCode, ExpmgrError, GitFailed, MergeRefused, ReviewProblem
from expmgr.escape import clean, one_line
from expmgr.git.checkouts import Worktree, changed_in, fast_forward, worktrees
from expmgr.git.commits import check_can_sign, write_merge
from expmgr.git.remotes import remote_names
from expmgr.git.repo import CommitId
from expmgr.log.events import Merged, OfReview
from expmgr.log.logs import REVIEW_FILE, Draft
from expmgr.project import Project
from expmgr.render.review import as_json, frozen_files
from expmgr.reviews.report import kept, report
from expmgr.reviews.standing import Standing
from expmgr.team.publish import tell


@dataclass(frozen=True)
class Merge:
    """A candidate that was merged."""

    commit: CommitId
    files: list[str]
    checkout: str | None
    """The checkout that was moved on with the branch; None where the branch is checked out nowhere."""
    was_there: bool = False
    """Whether the merge had been made before, and only the log did not say so."""


def merge(project: Project, standing: Standing) -> Merge:
    """Merge the candidate, or raise and leave everything as it was.

    `MergeRefused` where something is missing; `ReviewProblem` where the target is checked out with changes.
    """
    review, evidence = standing.review, standing.evidence
    assert evidence is not None
    found = report(standing)
    approvers = [one_line(clean(str(one.event.actor))) for one in standing.approvals if one.event.actor is not None]
    done = _made_before(project, standing)
    if done is not None:
        commit, kept_then = done
        _tell(project, standing, commit, kept_then)
        return Merge(commit, [], None, was_there=True)
    if standing.missing or evidence.tree is None:
        refused = MergeRefused(
            f"review {review.short} of {review.opened.candidate} is not merged",
            details=[told + (f": {mend}" if mend else "") for told, mend in standing.missing],
            left_alone="Nothing was changed.",
            hint=f"expmgr review show {review.short}"
            + ("; expmgr pull, if others have said more since" if remote_names(project.repo) else ""),
        )
        if standing.blocks or evidence.conflicts or evidence.is_lost:
            refused.exit_code = ExitCode.NOT_COMPARABLE
        raise refused
    if review.policy.signing == "require":
        check_can_sign(project.repo)  # or what is merged could not be told of
    folder = f"{evidence.question.candidate.name.folder}/reviews"
    if project.repo.read(evidence.tree, folder) is not None:
        raise ReviewProblem(
            f"{folder} is a file, where what reviews decided is kept",
            left_alone="Nothing was changed.",
            hint=f"git mv {folder} ANOTHER-NAME on {evidence.question.target}",
        )
    ref = f"refs/heads/{evidence.question.target}"
    checkout = _checkout_of(project, ref, review.short)
    files = frozen_files(found)
    candidate = evidence.question.candidate.commit
    commit = write_merge(
        project.repo, evidence.tree, [evidence.target_commit, candidate], files, _message(standing, approvers)
    )
    old = project.repo.commit_of(ref)
    is_ours = old is None or project.repo.is_ancestor(old, evidence.target_commit)
    if checkout is not None and is_ours:
        try:
            fast_forward(checkout.path, ref, commit, project.repo.on_note)
        except (GitFailed, DiskFull) as error:
            target = evidence.question.target
            error.message = f"{target} is checked out in {checkout.path}, and git cannot move it on: {error.message}"
            error.left_alone = "Nothing was changed."
            error.hint = error.hint or f"expmgr review merge {review.short}, when these files are out of the way"
            raise
    elif not is_ours or not _moved(project, ref, old, commit, review.short):
        raise ReviewProblem(
            f"{evidence.question.target} was moved by something else meanwhile",
            left_alone="Nothing was changed.",
            hint=f"expmgr review merge {review.short}",
        )
    _tell(project, standing, commit, found)
    return Merge(commit, sorted(files), str(checkout.path) if checkout else None)


def _moved(project: Project, ref: str, old: CommitId | None, commit: CommitId, review: str) -> bool:
    try:
        return project.repo.move_branch(ref, old, commit, f"expmgr: review {review}")
    except (GitFailed, DiskFull) as error:
        error.left_alone = "Nothing was changed."
        error.hint = error.hint or f"expmgr review merge {review}"
        raise


def end_with(project: Project, standing: Standing, draft: Draft) -> OfReview:
    """Add the event that ends a review, with what was known then beside it."""
    kept = {REVIEW_FILE: as_json(report(standing))}
    (event,) = tell(project, [Draft(draft.kind, draft.values, {**draft.files, **kept})])
    assert isinstance(event, OfReview)
    return event


def _made_before(project: Project, standing: Standing) -> tuple[CommitId, dict[str, Any]] | None:
    """The merge on the target that this review ended in, and what it kept, where a crash or another clone kept the log from
    saying so: a merge of the candidate that names the review, and added what was decided."""
    evidence, review = standing.evidence, standing.review
    assert evidence is not None
    repo, candidate = project.repo, evidence.question.candidate.commit
    merges = repo.merges_with_trailer(evidence.target_commit, "Experiment-Review", review.id)
    for commit, parents in merges:
        if len(parents) != 2:
            continue
        onto, merged = parents
        is_ours = repo.is_ancestor(merged, candidate) or repo.is_ancestor(candidate, merged)
        is_new = repo.read(onto, review.page) is None and repo.read(merged, review.page) is None
        found = kept(repo.read(commit, review.page), review.id) if is_ours and is_new else {}
        if found.get("evidence"):
            return commit, found
    return None


def _checkout_of(project: Project, ref: str, review: str) -> Worktree | None:
    """The checkout that has the target checked out; `ReviewProblem` where that has changes."""
    checkout = next((one for one in worktrees(project.repo) if one.ref == ref and one.path.is_dir()), None)
    changed = changed_in(checkout.path) if checkout is not None else []
    if checkout is not None and changed:
        name = ref.removeprefix("refs/heads/")
        raise ReviewProblem(
            f"{name} is checked out in {checkout.path}, with changes that are not committed",
            details=changed[:5],
            left_alone="Nothing was changed.",
            hint=f"git -C {checkout.path} stash; expmgr review merge {review}; git -C {checkout.path} stash pop",
        )
    return checkout


def _message(standing: Standing, approvers: list[str]) -> str:
    review, evidence = standing.review, standing.evidence
    assert evidence is not None
    opened = review.opened
    lines = [f"Merge {opened.candidate}: {evidence.result.sentence}", ""]
    if opened.text:
        lines += [f"> {one_line(clean(opened.text))}", ""]  # whose line begins like a trailer is none
    lines += [
        f"Experiment: {opened.candidate}",
        f"Experiment-Review: {review.id}",
        f"Result-Set: {evidence.result_set}",
        *(f"Reviewed-by: {one}" for one in approvers),
    ]
    return "\n".join(lines) + "\n"


def _tell(project: Project, standing: Standing, commit: str, found: dict[str, Any]) -> None:
    """Say that it was merged, with what was kept then. Where that cannot be written, the target says it, and the next
    `review merge` says it here."""
    evidence, review = standing.evidence, standing.review
    assert evidence is not None
    approved = [one for one in found["opinions"] if one["verdict"] == "approve" and one["counts"]]
    values = {
        "review": review.id,
        "commit": commit,
        "target": evidence.question.target,
        "digests": found["evidence"]["digests"],
        "result_set": found["evidence"]["result_set"],
        "approved_by": [f"{one['by']['name']} <{one['by'].get('email')}>" for one in approved],
    }

    def unsaid(drafts: list[Draft]) -> list[Draft]:
        events = (one.event for one in project.logs.events("merge"))
        is_known = any((one.review, one.commit) == (review.id, commit) for one in events if isinstance(one, Merged))
        return [] if is_known else drafts

    with contextlib.suppress(OSError, ExpmgrError):
        tell(project, [Draft(Merged, values, {REVIEW_FILE: as_json(found)})], choose=unsaid)
