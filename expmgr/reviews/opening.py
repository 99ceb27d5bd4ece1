"""Opens a review: candidate, baseline, metric, and the seeds to use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from expmgr.comparison.used_runs import Chosen, chosen
from expmgr.errors import ReviewProblem
from expmgr.log.events import ReviewOpened
from expmgr.log.logs import Draft
from expmgr.paths import seeds_text
from expmgr.project import Project
from expmgr.reviews.evidence import Question, gather, target_name
from expmgr.reviews.review import all_reviews, find_review
from expmgr.reviews.standing import Standing, standing
from expmgr.team.publish import tell
from expmgr.variants.variants import Variant, find_variant, spec_of

_UNTOUCHED = "Nothing was changed."


@dataclass(frozen=True)
class Opening:
    """A question that may be asked: no open review asks it."""

    candidate: Variant
    baseline: Variant
    target: str

    @property
    def names(self) -> tuple[str, str]:
        """The candidate and its baseline."""
        return str(self.candidate.name), str(self.baseline.name)


def plan_opening(project: Project, variant: str, against: str | None) -> Opening:
    """The question whether `variant` is to be merged, against `against` or the baseline that its spec declares. Raises
    `ReviewProblem` where it cannot be asked; nothing is written."""
    candidate = find_variant(project.repo, variant)
    declared = against or spec_of(project.repo, candidate).compared.baseline
    if declared is None:
        raise ReviewProblem(
            f"nothing says what {candidate.name} is held against",
            left_alone=_UNTOUCHED,
            hint=f"expmgr review open {candidate.name} --against VARIANT",
        )
    baseline = find_variant(project.repo, declared)
    if baseline.name == candidate.name:
        raise ReviewProblem(f"{candidate.name} cannot be held against itself", left_alone=_UNTOUCHED)
    names = (str(candidate.name), str(baseline.name))
    for one in all_reviews(project):
        if one.end is None and (one.opened.candidate, one.opened.baseline) == names:
            otherwise = f"; to ask otherwise: expmgr review close {one.short} --reason superseded"
            raise ReviewProblem(
                f"review {one.short} of {names[0]} against {names[1]} is open",
                left_alone=_UNTOUCHED,
                hint=f"expmgr review show {one.short}{otherwise}",
            )
    return Opening(candidate, baseline, target_name(project))


def to_confirm(project: Project, asked: Opening, seeds: Sequence[int] | None) -> Chosen:
    """Both sides as they are before fresh seeds are run. Raises `ReviewProblem` where `seeds` have results already."""
    names = asked.names
    found = chosen(project, list(names), names[1])
    done = [{one.seed for one in side.counted} for side in found.subjects]
    if seeds is not None and all(set(seeds) <= one for one in done):
        raise ReviewProblem(
            f"seeds {seeds_text(seeds)} have results on both sides, so they confirm nothing",
            left_alone=_UNTOUCHED,
            hint=f"expmgr review open {names[0]} --against {names[1]} --confirm takes fresh ones; "
            "without --confirm these are judged as what they are",
        )
    return found


def open_review(
    project: Project, asked: Opening, *, seeds: Sequence[int] | None, is_confirmed: bool, text: str
) -> Standing:
    """Ask it, in the log; where it stands. `seeds`: these alone count; `is_confirmed`: they were run for this question."""
    taken = tuple(seeds) if seeds is not None else None
    evidence = gather(
        project, Question(asked.candidate, asked.baseline, asked.target, seeds=taken, is_confirmed=is_confirmed)
    )
    comparison = evidence.comparison
    values: dict[str, object] = {
        "candidate": asked.names[0],
        "baseline": asked.names[1],
        "commit": asked.candidate.commit,
        "base_commit": asked.baseline.commit,
        "target": asked.target,
        "metric": comparison.metric,
        "split": comparison.split,
        "digests": evidence.digests,
        "result_set": evidence.result_set,
        "seeds": list(taken) if taken is not None else None,
        "is_confirmed": is_confirmed,
        "text": text.strip(),
    }
    (event,) = tell(project, [Draft(ReviewOpened, values)])
    return standing(project, find_review(project, event.id), evidence)
