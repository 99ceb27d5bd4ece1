"""A review, folded from the events of all logs: its author, comments, votes and rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from expmgr.errors import ReviewProblem, UnknownReview
from expmgr.git.repo import CommitId
from expmgr.log.events import (  # fmt: skip
    Actor,
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
)
from expmgr.log.logs import Told
from expmgr.project import Project
from expmgr.reviews.evidence import Evidence, target_commit
from expmgr.settings import ReviewRules, shared_settings
from expmgr.team.verify_signatures import Policy, is_among, policy_at, policy_of, signed

#: Why a review ends without a merge.
REASONS = ("no gain", "worse", "not comparable", "superseded", "abandoned")
_KINDS = ("review.open", "comment", "resolve", "check", "waive", "verdict", "merge")


@dataclass(frozen=True)
class Person:
    """Who said something: by the address that git knows them by; None for somebody who is not named."""

    mail: str | None
    name: str
    key: str
    """What tells them from others: where a key signs under several addresses, these are one person."""


def address(event: Event) -> str | None:
    """The address of whom an event names; None where it names nobody."""
    return (event.actor.email.strip().casefold() or None) if event.actor is not None else None


@dataclass(frozen=True)
class Review:
    """One review, as all logs tell of it."""

    id: str
    told: tuple[Told, ...]
    """Its events that count, in their order; the first one opened it."""
    policy: Policy
    """What signatures are worth on its target."""
    claims: tuple[Told, ...] = ()
    """The events that the person whom they name has not signed, where signatures are asked for; where they are required,
    these do not count."""
    signed: Mapping[str, str] = field(default_factory=dict)
    """Id of an event to those who may sign with the key that it was signed with."""
    same: Mapping[str, str] = field(default_factory=dict)
    """Address to the one that stands for the person, where one has several."""
    overall: Mapping[str, Decided] = field(default_factory=dict)
    """Each person's newest verdict in any review of the candidate for the target."""

    def person(self, event: Event) -> Person:
        """Whom an event names."""
        mail = address(event)
        name = event.actor.name if event.actor is not None else event.writer
        return Person(mail, name, self.key_of(mail) if mail else event.writer)

    def key_of(self, mail: str) -> str:
        """What tells the person with this address from others."""
        return self.same.get(mail, mail)

    @property
    def short(self) -> str:
        return self.id[:12]

    @property
    def page(self) -> str:
        """The file in which a merge freezes what was decided."""
        return f"experiments/{self.opened.candidate.partition('/')[0]}/reviews/{self.short}.json"

    @cached_property
    def opened(self) -> ReviewOpened:
        event = self.told[0].event
        assert isinstance(event, ReviewOpened)
        return event

    @property
    def author(self) -> Person:
        return self.person(self.opened)

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
                newest.pop(self.person(one).key, None)
                newest[self.person(one).key] = one
        for key, one in self.overall.items():
            if one.verdict == "veto":
                newest[key] = one
            elif key in newest and newest[key].verdict == "veto":
                del newest[key]  # lifted, or approved, in another one
        return [one for one in newest.values() if one.verdict != "lift"]

    @property
    def checked(self) -> Checked | None:
        """What the checks said when they were looked at last."""
        return next((one for one in reversed(self.events) if isinstance(one, Checked)), None)

    @property
    def merged(self) -> Merged | None:
        """The newest word that it was merged: one that the target lost may be made again."""
        return next((one for one in reversed(self.events) if isinstance(one, Merged)), None)

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


def all_reviews(project: Project, base: CommitId | None = None) -> list[Review]:
    """Every review, the oldest first, by the rules of its target branch, or of `base`. Where signatures are required, what
    was not signed by whom it names does not count."""
    told = project.logs.events(*_KINDS)
    gone = project.logs.retracted(told)
    by_review: dict[str, list[Told]] = {one.id: [one] for one in told if one.kind == "review.open"}
    for one in told:
        event = one.event
        if isinstance(event, OfReview) and event.review in by_review:
            by_review[event.review].append(one)
    by_target: dict[str, list[list[Told]]] = {}
    for events in by_review.values():
        by_target.setdefault(_opening(events[0]).target, []).append(events)
    found = {one.id: one for target, some in by_target.items() for one in _of_target(project, base, target, some, gone)}
    return _with_overall([found[key] for key in by_review if key in found])


def _opening(told: Told) -> ReviewOpened:
    assert isinstance(told.event, ReviewOpened)
    return told.event


def _of_target(
    project: Project, base: CommitId | None, target: str, reviews: Sequence[list[Told]], gone: Mapping[str, Told]
) -> Iterator[Review]:
    try:
        policy = policy_at(project, base or target_commit(project, target))
    except ReviewProblem:  # that branch is not here; `standing` says so
        policy = policy_of(project)
    asked = [one for events in reviews for one in events]
    known: dict[str, str] = {}
    if policy.signing != "off":
        known = signed(project, [*asked, *(gone[one.id] for one in asked if one.id in gone)], policy)
    for events in reviews:
        stand = [one for one in events if one.id not in gone or not policy.counts(gone[one.id], known)]
        claims = tuple(one for one in stand if policy.signing != "off" and one.id not in known)
        counted = [one for one in stand if policy.counts(one, known)]  # one's own too: a name is quickly changed
        if counted and counted[0].id == events[0].id:
            ours = {one.id: known[one.id] for one in counted if one.id in known}
            persons = policy.signers.persons if policy.signing != "off" else {}
            yield Review(events[0].id, tuple(counted), policy, claims, ours, _same(persons, counted, ours))


def _same(persons: Mapping[str, str], told: Sequence[Told], known: Mapping[str, str]) -> dict[str, str]:
    """Addresses under which one key signs belong to one person, besides those that the file of signers says are one: each
    to the one that stands for them."""
    first = dict(persons)
    by_key: dict[str, str] = {}
    for one in told:
        mail, key = address(one.event), known.get(one.id)
        if mail is not None and key is not None:
            old, new = first.setdefault(mail, mail), by_key.setdefault(key, first[mail])
            first = {each: new if stands == old else stands for each, stands in first.items()}
            by_key = {each: new if stands == old else stands for each, stands in by_key.items()}
    return first


def _with_overall(reviews: Sequence[Review]) -> list[Review]:
    """With each person's newest verdict in any review of the same candidate for the same target: closing one, or asking
    another question, takes no veto away."""
    groups: dict[tuple[str, str], list[Review]] = {}
    for one in reviews:
        groups.setdefault((one.opened.candidate, one.opened.target), []).append(one)
    found: dict[str, Review] = {}
    for some in groups.values():
        said = {told.id: told for one in some for told in one.told if told.kind == "verdict"}
        ordered = sorted(said.values(), key=lambda told: (told.time, told.place, told.id))
        for one in some:
            verdicts = (told.event for told in ordered if isinstance(told.event, Decided))
            overall = {one.person(event).key: event for event in verdicts if event.verdict != "close"}
            found[one.id] = replace(one, overall=overall)
    return [found[one.id] for one in reviews]


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
    made = [one for one in project.logs.events("variant") if _is_of(one, review.opened.candidate)]
    if review.policy.signing == "require" and made:
        known = signed(project, made, review.policy)
        made = [one for one in made if one.id in known]
    written = project.repo.authors(evidence.target_commit, evidence.question.candidate.commit)
    found = {
        address(review.opened),
        *(address(one.event) for one in made),
        *(one.strip().casefold() for one in written),
    }
    return {mail for mail in found if mail}


def _is_of(told: Told, variant: str) -> bool:
    return isinstance(told.event, VariantMade) and told.event.variant == variant


def is_actors_own(review: Review, actor: Actor, authors: set[str]) -> bool:
    """Whether `actor` is one of the authors, by the address."""
    return bool(actor.email) and review.key_of((actor.email or "").casefold()) in map(review.key_of, authors)


def is_own_work(review: Review, event: Event, authors: set[str]) -> bool:
    """Whether whoever says it is one of the authors: by the address, or by the key that signs for one of them too."""
    whose = review.signed.get(event.id, "")
    key = review.person(event).key
    return any(review.key_of(mail) == key or is_among(mail, whose) for mail in authors)
