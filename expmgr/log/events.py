"""The kinds of events in the log, as canonical JSON whose digest is the event's id.

Nothing in an event depends on the commit that carries it, so a rebase, a squash and a deleted branch change no id. Kinds
that this version does not know are kept and passed over.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from expmgr.disk.json_text import parse_foreign_json
from expmgr.errors import BadName, EventProblem
from expmgr.paths import parse_variant

FORMAT = 1
#: An event is a page of text at most; what is large (a record) lies beside it.
MOST_BYTES = 1_000_000
MOST_WORDS = 65_536
#: Lamport times end here, so that one hostile event cannot keep all others from being written.
LATEST = 2**48

_WRITER = re.compile(r"[a-z0-9][a-z0-9-]{0,39}-[0-9a-f]{8}\Z")
_RUN_ID = re.compile(r"\d{8}-\d{9}-[0-9a-f]{6}\Z")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_BRANCH = re.compile(
    r"(?!-)(?!.*(?:\.\.|//|@\{|\.lock\Z|/\Z))[^\s~^:?*\[\\\x00-\x1f\x7f/.][^\s~^:?*\[\\\x00-\x1f\x7f]*\Z"
)
_OID = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")


def _matching(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.match(text):
            raise ValueError(f"is not {what}")
        return text

    return AfterValidator(check)


def _variant(text: str) -> str:
    try:
        return str(parse_variant(text))
    except BadName as error:
        raise ValueError(error.message) from None


WriterId = Annotated[str, _matching(_WRITER, "a writer's id")]
RunName = Annotated[str, _matching(_RUN_ID, "a run's id")]
Digest = Annotated[str, _matching(_DIGEST, "a sha256")]
ObjectId = Annotated[str, _matching(_OID, "the id of a commit")]
Variant = Annotated[str, AfterValidator(_variant)]
Moment = Annotated[float, Field(ge=0, le=250_000_000_000)]  # a date of the calendar
Branch = Annotated[str, _matching(_BRANCH, "the name of a branch"), Field(max_length=250)]
Words = Annotated[str, Field(min_length=1, max_length=MOST_WORDS)]
Text = Annotated[str, Field(max_length=MOST_WORDS)]
Name = Annotated[str, Field(min_length=1, max_length=1000)]


#: What no name holds; all else that a terminal would act on is taken out when it is shown.
_BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def _plain(text: str) -> str:
    if _BREAKS.search(text):
        raise ValueError("holds a control character")
    return text


Plain = Annotated[str, AfterValidator(_plain)]


class Actor(BaseModel):
    """Who says it, by git's identity."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Annotated[Plain, Field(max_length=1000)]
    email: Annotated[Plain, Field(max_length=1000)]

    def __str__(self) -> str:
        return f"{self.name} <{self.email}>"


class Event(BaseModel):
    """What all events have in common; by itself, one of a kind that this version does not know."""

    model_config = ConfigDict(extra="allow", frozen=True)

    format: Literal[1] = 1
    kind: str
    writer: WriterId
    """Whose log it stands in: a user's clone on a machine."""
    time: Annotated[int, Field(ge=1, le=LATEST)]
    """Lamport time: later than that of every event which the writer knew. With the id it gives the order."""
    at: Moment
    """Seconds since 1970, UTC, by the writer's clock; shown, never ordered by."""
    actor: Actor | None = None
    """None where the settings say that users are not recorded."""

    _content: bytes = PrivateAttr(b"")

    @cached_property
    def id(self) -> str:
        """sha256 of its canonical JSON."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def content(self) -> bytes:
        """Its canonical JSON: what was written, never what this version would write, so that a field which a later
        version adds changes no id."""
        return self._content or canonical(self.model_dump(mode="json", exclude_none=True))

    @property
    def commits(self) -> tuple[str, ...]:
        """The commits that it speaks of, which the log keeps from `git gc`."""
        return ()

    @property
    def title(self) -> str:
        """It in a line."""
        return self.kind


class VariantMade(Event):
    """A variant was made."""

    kind: Literal["variant"] = "variant"
    variant: Variant
    commit: ObjectId
    base: str
    """What it was made from, as it was called: a variant, a branch, a commit."""
    why: str = ""

    @property
    def commits(self) -> tuple[str, ...]:
        return (self.commit,)

    @property
    def title(self) -> str:
        return f"variant {self.variant} from {self.base}" + (f": {self.why}" if self.why else "")


class RunTold(Event):
    """An attempt at a run has ended. The whole record lies beside the event, as `record.json`."""

    kind: Literal["run"] = "run"
    run_id: RunName
    variant: Variant
    seed: int
    commit: ObjectId
    attempt: Annotated[int, Field(ge=1)]
    status: Literal["finished", "failed", "preempted", "killed"]
    step: int
    record: Digest
    """sha256 of `record.json`."""
    metric: str | None = None
    split: str | None = None
    value: float | None = None
    """What its spec is compared by, at the selected checkpoint."""

    @property
    def commits(self) -> tuple[str, ...]:
        return (self.commit,)

    @property
    def title(self) -> str:
        told = "" if self.value is None else f", {self.metric} {self.value:.4f} ({self.split})"
        return f"run {self.variant} seed {self.seed}: {self.status} at step {self.step}{told}"


class Evaluated(Event):
    """A checkpoint was evaluated, beside what its run's record says of it."""

    kind: Literal["evaluation"] = "evaluation"
    variant: Variant
    seed: int
    step: int
    split: str
    metrics: dict[str, float]
    run_id: RunName | None = None
    commit: ObjectId

    @property
    def commits(self) -> tuple[str, ...]:
        return (self.commit,)

    @property
    def title(self) -> str:
        told = ", ".join(f"{name} {value:.4f}" for name, value in self.metrics.items())
        return f"evaluation of {self.variant} seed {self.seed} @{self.step} ({self.split}): {told}"


class Vouched(Event):
    """Somebody vouched for what an adopted checkpoint does not say."""

    kind: Literal["vouch"] = "vouch"
    run_id: RunName
    variant: Variant
    seed: int
    step: int
    by: str
    source: str
    """The folder that the checkpoint came from, as its record names it."""

    @property
    def title(self) -> str:
        return f"vouch for {self.variant} seed {self.seed} @{self.step}, adopted from {self.source}, by {self.by}"


class Stored(Event):
    """A checkpoint of a run lies in the store."""

    kind: Literal["stored"] = "stored"
    run_id: RunName
    variant: Variant
    seed: int
    step: int
    contents: Digest
    """The piece in the store that lists its files."""
    size_bytes: int

    @property
    def title(self) -> str:
        return f"stored {self.variant} seed {self.seed} @{self.step} ({self.size_bytes:,} bytes)"


class Noted(Event):
    """Words on a variant or a run."""

    kind: Literal["note"] = "note"
    variant: Variant
    run_id: RunName | None = None
    text: Words

    @property
    def title(self) -> str:
        return f"note on {self.run_id or self.variant}: {self.text}"


class Retracted(Event):
    """The writer takes back what it said before."""

    kind: Literal["retract"] = "retract"
    event: Digest
    reason: Words

    @property
    def title(self) -> str:
        return f"retract {self.event[:12]}: {self.reason}"


# Reviews. A review's id is that of the event that opened it.


class ReviewOpened(Event):
    """Somebody asks whether a candidate is to be merged, instead of a baseline."""

    kind: Literal["review.open"] = "review.open"
    candidate: Variant
    baseline: Variant
    commit: ObjectId
    """The candidate's newest commit."""
    base_commit: ObjectId
    target: Branch
    """The branch that it is to be merged into."""
    metric: Name
    split: Name
    digests: Digest
    """Of spec and code on both sides, as they would be merged."""
    result_set: Digest
    """Of the runs that it is decided by."""
    seeds: list[int] | None = None
    """The seeds that count; None: all."""
    is_confirmed: bool = False
    """Whether these were chosen before any of them had a result."""
    text: Text = ""

    @model_validator(mode="after")
    def _asks_something(self) -> ReviewOpened:
        if self.candidate == self.baseline:
            raise ValueError("holds a variant against itself")
        return self

    @property
    def commits(self) -> tuple[str, ...]:
        return (self.commit, self.base_commit)

    @property
    def title(self) -> str:
        return f"review of {self.candidate} against {self.baseline}" + (f": {self.text}" if self.text else "")


class OfReview(Event):
    """Something that is said in a review."""

    review: Digest


class Commented(OfReview):
    """Words in a review."""

    kind: Literal["comment"] = "comment"
    text: Words
    on: Name | None = None
    """What they are on: `check:ID`, `run:ID`, or `FILE:LINE` at `commit`."""
    commit: ObjectId | None = None

    @property
    def commits(self) -> tuple[str, ...]:
        return (self.commit,) if self.commit else ()

    @property
    def title(self) -> str:
        return f"comment in review {self.review[:12]}{f' on {self.on}' if self.on else ''}: {self.text}"


class Resolved(OfReview):
    """What a comment asked for is settled."""

    kind: Literal["resolve"] = "resolve"
    event: Digest

    @property
    def title(self) -> str:
        return f"resolve {self.event[:12]} in review {self.review[:12]}"


class Checked(OfReview):
    """The checks of a review were looked at, and said this."""

    kind: Literal["check"] = "check"
    commit: ObjectId
    digests: Digest
    result_set: Digest
    answers: dict[str, str]
    """Id of each check to its answer."""
    sentence: Text

    @property
    def commits(self) -> tuple[str, ...]:
        return (self.commit,)

    @property
    def title(self) -> str:
        return f"check in review {self.review[:12]}: {self.sentence}"


class Waived(OfReview):
    """A check's block is excused, for what is judged now."""

    kind: Literal["waive"] = "waive"
    check: Name
    told: Text
    """What the check said."""
    reason: Words
    digests: Digest
    result_set: Digest

    @property
    def title(self) -> str:
        return f"waive {self.check} in review {self.review[:12]}: {self.reason}"


class Decided(OfReview):
    """A person's verdict, on exactly this code and these results; or the end of a review without a merge."""

    kind: Literal["verdict"] = "verdict"
    verdict: Literal["approve", "veto", "lift", "close"]
    """`lift` takes back the approval or veto that the same person gave."""
    commit: ObjectId
    digests: Digest
    result_set: Digest
    text: Text = ""
    reason: Text = ""
    """Of `close`: why."""

    @property
    def commits(self) -> tuple[str, ...]:
        return (self.commit,)

    @property
    def title(self) -> str:
        words = f" ({self.reason})" if self.reason else ""
        return f"{self.verdict} review {self.review[:12]}{words}" + (f": {self.text}" if self.text else "")


class Merged(OfReview):
    """The candidate was merged. What was decided, and on what, lies beside the event as `review.json`."""

    kind: Literal["merge"] = "merge"
    commit: ObjectId
    """The merge."""
    target: Branch
    digests: Digest
    result_set: Digest
    approved_by: list[Text]

    @property
    def commits(self) -> tuple[str, ...]:
        return (self.commit,)

    @property
    def title(self) -> str:
        return f"merge review {self.review[:12]} into {self.target}"


KINDS: Mapping[str, type[Event]] = {
    "variant": VariantMade,
    "run": RunTold,
    "evaluation": Evaluated,
    "vouch": Vouched,
    "stored": Stored,
    "note": Noted,
    "retract": Retracted,
    "review.open": ReviewOpened,
    "comment": Commented,
    "resolve": Resolved,
    "check": Checked,
    "waive": Waived,
    "verdict": Decided,
    "merge": Merged,
}

#: What people say can be taken back; all else happened.
TAKEN_BACK = ("note", "vouch", "comment", "waive")


def canonical(value: Any) -> bytes:
    """`value` as JSON in one form: keys sorted, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def is_writer(text: str) -> bool:
    """Whether `text` is a writer's id, which names a ref."""
    return _WRITER.match(text) is not None


def invalid(error: ValidationError) -> EventProblem:
    """The first thing that is wrong with an event."""
    first = error.errors()[0]
    return EventProblem(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", left_alone="Nothing was written.")


def parse_event(content: bytes, writer: str) -> Event:
    """The event in `content`, which stands in the log of `writer`; `EventProblem` where it is none, or is of a later format."""
    if len(content) > MOST_BYTES:
        raise EventProblem(f"it has {len(content):,} bytes; an event has {MOST_BYTES:,} at most")
    try:
        values = parse_foreign_json(content)
        text = canonical(values)
    except ValueError:
        raise EventProblem("it is not JSON") from None
    if not isinstance(values, dict):
        raise EventProblem("it is not an object")
    if values.get("format") != FORMAT:
        raise EventProblem(f"it has format {values.get('format')!r}, this expmgr reads format {FORMAT}")
    kind = values.get("kind")
    try:
        event = (KINDS.get(kind, Event) if isinstance(kind, str) else Event).model_validate(values)
    except ValidationError as error:
        raise invalid(error) from None
    if event.writer != writer:
        raise EventProblem(f"it says that {event.writer} wrote it, and stands in the log of {writer}")
    event._content = text
    return event
