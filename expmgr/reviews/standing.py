"""Where a review stands: which votes are valid, and what is missing before it may be merged.

The newest approval, veto or lifting of a person is their verdict. It holds while the digests and the result set are those
that it was given for; a veto holds whatever they are, in every review of the same candidate for the same target, until its
person says otherwise in one of them. Nothing here is stored: all of it follows from the events.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from expmgr.comparison.sides import Check
from expmgr.comparison.statistics import FEWEST_SEEDS
from expmgr.errors import ReviewProblem
from expmgr.escape import one_line
from expmgr.log.events import (  # fmt: skip
    Commented,
    Decided,
    Merged,
    Waived,
)
from expmgr.project import Project
from expmgr.reviews.evidence import Evidence, target_commit, target_name
from expmgr.reviews.review import Person, Review, authors_of, is_actors_own, is_own_work, rules_of
from expmgr.settings import ReviewRules
from expmgr.team.publish import actor_of


@dataclass(frozen=True)
class Opinion:
    """A person's verdict, and what keeps it from counting (None: it counts)."""

    event: Decided
    person: Person
    because: str | None = None


@dataclass(frozen=True)
class Standing:
    """Where a review stands now."""

    review: Review
    evidence: Evidence | None
    """None where it has ended: what it was decided on lies in the log."""
    rules: ReviewRules
    opinions: Sequence[Opinion] = ()
    target: str = ""
    """The branch that variants are merged into here."""
    waived: dict[str, Waived] = field(default_factory=dict)
    """Id of a blocking check to what excuses it."""
    is_readers_own: bool = False
    """Whether whoever looks may not approve: it is their own work."""
    is_landed: bool = True
    """Of one that was merged: whether the target, as this clone knows it, has the merge."""

    @property
    def approvals(self) -> list[Opinion]:
        """Those that count."""
        return [one for one in self.opinions if one.event.verdict == "approve" and one.because is None]

    @property
    def vetoes(self) -> list[Opinion]:
        return [one for one in self.opinions if one.event.verdict == "veto"]

    @property
    def blocks(self) -> list[Check]:
        """The checks that keep it from being merged."""
        found = self.evidence.blocks if self.evidence else []
        return [one for one in found if one.id not in self.waived]

    @property
    def open_comments(self) -> list[Commented]:
        return [one for one in self.review.comments if one.id not in self.review.resolved]

    @property
    def state(self) -> str:
        """`open`, `approved`, `merged` or `closed`."""
        if self.review.merged:
            return "merged"
        if self.review.closed:
            return "closed"
        is_enough = len(self.approvals) >= self.rules.approvals and not self.vetoes
        return "approved" if is_enough else "open"

    @property
    def remarks(self) -> list[str]:
        """What follows from the events and the results as they are now."""
        if self.evidence is None:
            lost = [] if self.is_landed else [f"{self.review.opened.target} here does not have it"]
            return [self.review.closed.reason] if self.review.closed else lost
        evidence, said = self.evidence, []
        if evidence.without_results:
            said.append("no results for what would be merged")
        if evidence.moved:
            said.append("the target changes what it is made of")
        if evidence.conflicts:
            said.append("conflicts with the target")
        if evidence.is_lost:
            said.append("nothing to judge")
        ids = {one.id for one in self.blocks}
        said += ["stale"] if "stale" in ids else []
        said += ["too few seeds"] if "few-seeds" in ids else []
        said += ["not comparable"] if ids - {"stale", "few-seeds"} else []
        said += ["approval expired"] if any(one.because == EXPIRED for one in self.opinions) else []
        said += ["verdicts contradict each other"] if self.approvals and self.vetoes else []
        said += [f"{len(self.open_comments)} open comments"] if len(self.open_comments) > 1 else []
        said += ["1 open comment"] if len(self.open_comments) == 1 else []
        return said

    @property
    def failures(self) -> list[tuple[str, str | None]]:
        """What of `missing` keeps it from being judged, or merged."""
        return [*self._of_evidence(self.evidence)] if self.evidence is not None else []

    @property
    def missing_results(self) -> list[tuple[str, str | None]]:
        """What of `missing` no person can give."""
        return [*self.failures, *((f"{one.id}: {one.told}", one.mend) for one in self.blocks)]

    @property
    def missing(self) -> list[tuple[str, str | None]]:
        """What keeps it from being merged, each with the command that mends it."""
        if self.evidence is None and not self.is_landed:
            told = f"{self.review.opened.target} here does not have the merge {str(self.review.merged.commit)[:12]}"  # type: ignore[union-attr]
            return [(told, f"git pull, if it was pushed; else expmgr review merge {self.review.short} again")]
        if self.evidence is None:
            return [(f"it is {self.state}", None)]
        return [*self.missing_results, *self._of_people()]

    def _of_evidence(self, evidence: Evidence) -> Iterable[tuple[str, str | None]]:
        review = self.review
        if evidence.question.target != self.target:
            yield f"it was opened for {evidence.question.target}, and variants are merged into {self.target}", None
        for name in evidence.question.gone:
            yield f"the branch exp/{name} is not here", "expmgr pull"
        if evidence.conflicts:
            yield (
                f"it conflicts with {evidence.question.target} in {', '.join(evidence.conflicts[:5])}",
                f"git switch exp/{review.opened.candidate}; git merge {evidence.question.target}",
            )
        if evidence.is_lost:
            spec = evidence.question.candidate.name.spec_path
            yield (
                f"there is nothing to judge: {evidence.question.target} has deleted {spec}, and a merge would too",
                None,
            )
            return
        for side in evidence.without_results:
            changed = (
                f", with {', '.join(evidence.moved[:3])} as {evidence.question.target} has it" if evidence.moved else ""
            )
            command = evidence.with_merge(side.name, side.command(sorted(side.seeds or range(FEWEST_SEEDS))))
            yield f"{side.name} has no result for what would be merged{changed}", command

    def _of_people(self) -> Iterable[tuple[str, str | None]]:
        for one in self.vetoes:
            where = "" if one.event.review == self.review.id else f" in review {one.event.review[:12]}"
            yield f"{one.person.name} vetoes it{where}, until they lift that: {one_line(one.event.text)}", None
        lacking = self.rules.approvals - len(self.approvals)
        if lacking > 0:
            whose = " by somebody whose work it is not" if self.rules.by_others else ""
            many = "an approval" if lacking == 1 else f"{lacking} approvals"
            told = [f"{one.person.name}'s {one.because}" for one in self.opinions if one.because is not None]
            what = f"{many}{whose}" + (f" ({'; '.join(told)})" if told else "")
            if self.is_readers_own:
                alone = f"by_others = false in [tool.expmgr.review] on {self.target}"
                yield what, f"ask somebody else, for it is your own work; or, if you work alone, set {alone}"
            else:
                yield what, f"expmgr review approve {self.review.short}"


EXPIRED = "was given for other code or other results"


def standing(project: Project, review: Review, evidence: Evidence | None) -> Standing:
    """Where `review` stands, with what is known now; `evidence` is None for one that has ended."""
    if evidence is None:
        opinions = [Opinion(one, review.person(one)) for one in review.verdicts]
        return Standing(review, None, ReviewRules(), opinions, is_landed=is_landed(project, review))
    rules = rules_of(project, evidence.target_commit)
    authors = authors_of(project, review, evidence)

    def against(event: Decided | Waived) -> str | None:
        if rules.by_others and review.person(event).mail is None:
            return "names nobody"
        if rules.by_others and is_own_work(review, event, authors):
            return "is not somebody else's"
        if (event.digests, event.result_set) != (evidence.digests, evidence.result_set):
            return EXPIRED
        return None

    opinions = [
        Opinion(one, review.person(one), against(one) if one.verdict == "approve" else None) for one in review.verdicts
    ]
    blocking = {one.id: one.told for one in evidence.blocks}
    excused = {one.check: one for one in review.waivers if blocking.get(one.check) == one.told and against(one) is None}
    return Standing(
        review,
        evidence,
        rules,
        opinions,
        target_name(project),
        excused,
        is_readers_own=_is_readers_own(project, review, rules, authors),
    )


def _is_readers_own(project: Project, review: Review, rules: ReviewRules, authors: set[str]) -> bool:
    actor = actor_of(project)
    return rules.by_others and actor is not None and is_actors_own(review, actor, authors)


def is_landed(project: Project, review: Review) -> bool:
    """Whether the target, as this clone knows it, has what a review decided: its merge, or the page that it froze (a merge may
    have been squashed). True of one that was not merged."""
    if review.merged is None:
        return True
    repo = project.repo
    with contextlib.suppress(ReviewProblem):
        target = target_commit(project, review.opened.target)
        page = repo.read(target, review.page)
        return page is not None or (
            repo.has([review.merged.commit])[0] and repo.is_ancestor(review.merged.commit, target)
        )
    return False


def reopened(review: Review) -> Review:
    """One whose merge the target does not have, as it was before that was said."""
    return replace(review, told=tuple(one for one in review.told if not isinstance(one.event, Merged)))


def require_open(review: Review) -> None:
    """`ReviewProblem` where it has ended."""
    if review.end is not None:
        how = "merged" if review.merged else "closed"
        raise ReviewProblem(
            f"review {review.short} of {review.opened.candidate} is {how}",
            left_alone="Nothing was changed.",
            hint=f"expmgr review open {review.opened.candidate} --against {review.opened.baseline}",
        )
