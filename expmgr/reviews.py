"""Reviews: a fold of what all logs say of one, and where it stands by the rules of the target branch.

The newest approval, veto or lifting of a person is their verdict. It holds while the digests and the result set are those
that it was given for; a veto holds whatever they are. Nothing here is stored: all of it follows from the events.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from expmgr.comparability import Check
from expmgr.errors import ReviewProblem, UnknownReview
from expmgr.escape import one_line
from expmgr.events import (
    Checked,
    Commented,
    Decided,
    Event,
    Merged,
    OfReview,
    Resolved,
    ReviewOpened,
    VariantMade,
    Waived,
)  # fmt: skip
from expmgr.evidence import Evidence, target_name
from expmgr.log import Told
from expmgr.project import Project
from expmgr.settings import ReviewRules, shared_settings
from expmgr.signing import signed, target_of
from expmgr.statistics import FEWEST_SEEDS

#: Why a review ends without a merge.
REASONS = ("no gain", "worse", "not comparable", "superseded", "abandoned")
_KINDS = ("review.open", "comment", "resolve", "check", "waive", "verdict", "merge")


@dataclass(frozen=True)
class Person:
    """Who said something: by the address that git knows them by; None for somebody who is not named."""

    mail: str | None
    name: str

    @classmethod
    def of(cls, event: Event) -> Person:
        if event.actor is None:
            return cls(None, event.writer)
        return cls(event.actor.email.casefold(), event.actor.name)

    @property
    def key(self) -> str:
        return self.mail or self.name


@dataclass(frozen=True)
class Review:
    """One review, as all logs tell of it."""

    id: str
    told: tuple[Told, ...]
    """Its events that stand, in their order; the first one opened it."""
    claims: frozenset[str] = frozenset()
    """Those that the person whom they name has not signed, where signatures are asked for."""

    @property
    def short(self) -> str:
        return self.id[:12]

    @cached_property
    def opened(self) -> ReviewOpened:
        event = self.told[0].event
        assert isinstance(event, ReviewOpened)
        return event

    @property
    def author(self) -> Person:
        return Person.of(self.opened)

    @cached_property
    def events(self) -> list[Event]:
        return [one.event for one in self.told]

    @property
    def comments(self) -> list[Commented]:
        return [one for one in self.events if isinstance(one, Commented)]

    @property
    def resolved(self) -> dict[str, Resolved]:
        """Id of a comment to what settled it."""
        return {one.event: one for one in self.events if isinstance(one, Resolved)}

    @property
    def waivers(self) -> list[Waived]:
        return [one for one in self.events if isinstance(one, Waived)]

    @property
    def verdicts(self) -> list[Decided]:
        """Each person's newest approval or veto, unless they took it back."""
        newest: dict[str, Decided] = {}
        for one in self.events:
            if isinstance(one, Decided) and one.verdict != "close":
                newest.pop(Person.of(one).key, None)
                newest[Person.of(one).key] = one
        return [one for one in newest.values() if one.verdict != "lift"]

    @property
    def checked(self) -> Checked | None:
        """What the checks said when they were looked at last."""
        return next((one for one in reversed(self.events) if isinstance(one, Checked)), None)

    @property
    def merged(self) -> Merged | None:
        return next((one for one in self.events if isinstance(one, Merged)), None)

    @property
    def closed(self) -> Decided | None:
        """What ended it without a merge."""
        found = (one for one in self.events if isinstance(one, Decided) and one.verdict == "close")
        return None if self.merged else next(found, None)

    @property
    def end(self) -> Told | None:
        """What ended it."""
        event = self.merged or self.closed
        return next((one for one in self.told if event is not None and one.id == event.id), None)


def all_reviews(project: Project) -> list[Review]:
    """Every review, the oldest first. Where `signing` is `require`, what was not signed by whom it names does not count."""
    told = project.logs.events(*_KINDS)
    gone = project.logs.retracted(told)
    told = [one for one in told if one.id not in gone]
    claims: set[str] = set()
    signing = _signing(project) if told else "off"
    if signing != "off":
        claims = {one.id for one in told} - signed(project, told)
    if signing == "require":  # one's own too: a name is quickly changed
        told = [one for one in told if one.id not in claims]
    by_review: dict[str, list[Told]] = {one.id: [one] for one in told if one.kind == "review.open"}
    for one in told:
        event = one.event
        if isinstance(event, OfReview) and event.review in by_review:
            by_review[event.review].append(one)
    return [Review(key, tuple(events), frozenset(claims & {e.id for e in events})) for key, events in by_review.items()]


def _signing(project: Project) -> str:
    """The stricter one of what the settings here say, and what the target branch says: a variant's branch cannot do with
    less."""
    commit = project.repo.commit_of(target_of(project))
    shared = shared_settings(lambda path: project.repo.read(commit, path), "the target branch") if commit else None
    order = ("off", "warn", "require")
    return max((project.settings.signing, shared.signing if shared else "off"), key=order.index)


def find_review(project: Project, text: str) -> Review:
    """The review whose id begins with `text`, or the one open review of the variant called so."""
    reviews = all_reviews(project)
    found = [one for one in reviews if len(text) >= 4 and one.id.startswith(text)]
    if not found:
        named = [one for one in reviews if text in (one.opened.candidate, one.opened.candidate.partition("/")[2])]
        found = [one for one in named if one.end is None] or named[-1:]
    if len(found) == 1:
        return found[0]
    what = f"{text} may mean {', '.join(one.short for one in found)}" if found else f"there is no review {text}"
    raise UnknownReview(what, left_alone="Nothing was changed.", hint="expmgr review list --all")


def rules_of(project: Project, target_commit: str) -> ReviewRules:
    """What a merge needs, as the target branch says: never as the variant's own branch does."""
    return shared_settings(lambda path: project.repo.read(target_commit, path), "the target branch").review


def authors_of(project: Project, review: Review, evidence: Evidence) -> set[str]:
    """The addresses of those whose own work it is: who opened the review, made the variant, or wrote its commits."""
    found = {review.author.key}
    for one in project.logs.events("variant"):
        if isinstance(one.event, VariantMade) and one.event.variant == review.opened.candidate:
            found.add(Person.of(one.event).key)
    written = project.repo.authors(evidence.target_commit, evidence.question.candidate.commit)
    return found | {mail.casefold() for mail in written}


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
            return [self.review.closed.reason] if self.review.closed else []
        evidence, said = self.evidence, []
        if evidence.without_results:
            said.append("no results for what would be merged")
        if evidence.moved:
            said.append("the target changes what it is made of")
        if evidence.conflicts:
            said.append("conflicts with the target")
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
    def missing(self) -> list[tuple[str, str | None]]:
        """What keeps it from being merged, each with the command that mends it."""
        if self.evidence is None:
            return [(f"it is {self.state}", None)]
        return [*self._of_evidence(self.evidence), *self._of_people()]

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
        for side in evidence.without_results:
            changed = (
                f", with {', '.join(evidence.moved[:3])} as {evidence.question.target} has it" if evidence.moved else ""
            )
            command = side.command(sorted(side.seeds or range(FEWEST_SEEDS)))
            yield f"{side.name} has no result for what would be merged{changed}", command
        for check in self.blocks:
            yield f"{check.id}: {check.told}", check.mend

    def _of_people(self) -> Iterable[tuple[str, str | None]]:
        for one in self.vetoes:
            yield f"{one.person.name} vetoes it, until they lift that: {one_line(one.event.text)}", None
        lacking = self.rules.approvals - len(self.approvals)
        if lacking > 0:
            whose = " by somebody whose work it is not" if self.rules.by_others else ""
            many = "an approval" if lacking == 1 else f"{lacking} approvals"
            told = [f"{one.person.name}'s {one.because}" for one in self.opinions if one.because is not None]
            yield (
                f"{many}{whose}" + (f" ({'; '.join(told)})" if told else ""),
                f"expmgr review approve {self.review.short}",
            )


EXPIRED = "was given for other code or other results"


def standing(project: Project, review: Review, evidence: Evidence | None) -> Standing:
    """Where `review` stands, with what is known now; `evidence` is None for one that has ended."""
    if evidence is None:
        return Standing(review, None, ReviewRules(), [Opinion(one, Person.of(one)) for one in review.verdicts])
    rules = rules_of(project, evidence.target_commit)
    authors = authors_of(project, review, evidence)

    def against(event: Decided | Waived) -> str | None:
        person = Person.of(event)
        if rules.by_others and (person.mail is None or person.key in authors):
            return "is not somebody else's" if person.mail is not None else "names nobody"
        if (event.digests, event.result_set) != (evidence.digests, evidence.result_set):
            return EXPIRED
        return None

    opinions = [
        Opinion(one, Person.of(one), against(one) if one.verdict == "approve" else None) for one in review.verdicts
    ]
    waived = {one.check: one for one in review.waivers if against(one) is None}
    blocking = {one.id for one in evidence.blocks}
    excused = {key: one for key, one in waived.items() if key in blocking}
    return Standing(review, evidence, rules, opinions, target_name(project), excused)


def require_open(review: Review) -> None:
    """`ReviewProblem` where it has ended."""
    if review.end is not None:
        how = "merged" if review.merged else "closed"
        raise ReviewProblem(
            f"review {review.short} of {review.opened.candidate} is {how}",
            left_alone="Nothing was changed.",
            hint=f"expmgr review open {review.opened.candidate} --against {review.opened.baseline}",
        )
