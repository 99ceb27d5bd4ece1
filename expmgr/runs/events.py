"""The kinds of events that a run writes to `events.jsonl`, each typed once.

The run's process appends events, the command that started it follows them, and `folding` makes the record of them. A line
of a kind that is not known here comes from a newer expmgr, and is skipped.

Dataclasses, which validate nothing: an event is written in the middle of a training, and was written by us.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from expmgr.disk import durable
from expmgr.errors import ExitCode, ExpmgrError
from expmgr.paths import RunDir

if TYPE_CHECKING:
    from expmgr.checkpoints.model_dir import Whole
    from expmgr.guard.judge import Judgement
    from expmgr.runs.record import Status
    from expmgr.runs.request import CheckpointRef

EVENT = TypeVar("EVENT", bound="RunEvent")


@dataclass(frozen=True, kw_only=True)
class RunEvent:
    """One thing that happened in a run."""

    KIND: ClassVar[str]
    """What the line calls it."""
    at: float = field(default_factory=time.time)
    """Seconds since 1970, UTC."""

    def body(self) -> dict[str, Any]:
        """What it says, by the keys of its line."""
        return {key: getattr(self, name) for key, name in _KEYS[type(self)]}

    def as_line(self) -> dict[str, Any]:
        return {"kind": self.KIND, "at": self.at, **self.body()}

    @classmethod
    def of_line(cls: type[EVENT], line: Mapping[str, Any]) -> EVENT:
        """The event of a line of this kind. Keys that a newer expmgr wrote are left out; what an older one did not write
        has its default."""
        return cls(at=line["at"], **{name: line[key] for key, name in _KEYS[cls] if key in line})


@dataclass(frozen=True, kw_only=True)
class Ready(RunEvent):
    """Everything is built and restored: training begins. A run that tells it has begun, and gets a record."""

    KIND = "ready"
    worker: dict[str, Any]
    """The process that trains (`Process.as_dict`)."""
    from_step: int
    changes: list[dict[str, Any]]
    """What the guard accepted, each with its rule."""
    data: dict[str, dict[str, Any]]
    """Split to where its rows are from, how many they are and their digest."""
    parameters: int
    environment: dict[str, Any]
    params: dict[str, Any] = field(default_factory=dict)
    """What the user's code was given, defaults included."""
    measures: dict[str, str] = field(default_factory=dict)
    """By what the model is evaluated, as digests."""
    unread: list[str] = field(default_factory=list)
    """Params of the spec that no code asked for."""
    probe: str | None = None
    not_exact: list[str] = field(default_factory=list)
    """Why a resumed training is not the same bit for bit."""
    warm_start: dict[str, Any] | None = None
    adopted: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class CurvePoint(RunEvent):
    """One point of the curves of a split; `logged` is the split of `log_metrics`."""

    KIND = "point"
    split: str
    step: int
    values: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved(RunEvent):
    """A checkpoint is complete, and on the disk."""

    KIND = "checkpoint"
    step: int
    files: dict[str, str]
    """Name to sha256."""
    examples_seen: int | None = None
    train_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Ended(RunEvent):
    """How a run that was ready ended."""

    KIND = "ended"
    status: Status
    step: int
    examples_seen: int
    train_s: float
    selected_step: int | None
    metrics: dict[str, dict[str, dict[str, float]]]
    """`selected` and `last`, the checkpoints, to split to metric to value."""
    error: dict[str, Any] | None
    ended_early: str | None = None
    """Why training ended before the last step, where it did."""


@dataclass(frozen=True, kw_only=True)
class Withdrawn(RunEvent):
    """The run never began: nothing of it is kept."""

    KIND = "withdrawn"
    error: dict[str, Any]
    """The error as a story (`ExpmgrError.as_dict`)."""


@dataclass(frozen=True, kw_only=True)
class JudgedEvent(RunEvent):
    """The answer to a request that trains nothing. Each kind of request has its own form."""

    KIND = "judged"


@dataclass(frozen=True, kw_only=True)
class CandidateJudged(JudgedEvent):
    """What the guard says of one checkpoint that `check` asks about."""

    variant: str = field(metadata={"key": "from"})
    seed: int
    checkpoint: str | None
    """The path as it is shown; None: there is no checkpoint."""
    step: int | None
    judgement: dict[str, Any] | None
    error: dict[str, Any] | None
    exit_code: int

    @classmethod
    def of(
        cls,
        candidate: CheckpointRef,
        whole: Whole | None = None,
        judgement: Judgement | None = None,
        error: ExpmgrError | None = None,
    ) -> CandidateJudged:
        """`whole` is the checkpoint that was found, with its `judgement`; `error`, why none could be read."""
        code = error.exit_code if error is not None else ExitCode.DONE
        if judgement is not None and not judgement.verdict.may_restore:
            code = ExitCode.REFUSED
        return cls(
            variant=candidate.variant,
            seed=candidate.seed,
            checkpoint=whole.shown if whole is not None else None,
            step=whole.saved.step if whole is not None else candidate.step,
            judgement=judgement.as_dict() if judgement is not None else None,
            error=error.as_dict() if error is not None else None,
            exit_code=int(code),
        )


@dataclass(frozen=True, kw_only=True)
class AdoptionPlanned(JudgedEvent):
    """What `adopt` would take of a checkpoint that was made elsewhere."""

    adoption: dict[str, Any]
    exit_code: int


@dataclass(frozen=True, kw_only=True)
class Answered(JudgedEvent):
    """What `evaluate`, `predict` or `export` did, with which checkpoint."""

    checkpoint: str
    step: int
    judgement: dict[str, Any]
    selected_step: int | None
    done: dict[str, Any]
    """What came of it: `data`, `rows`, `metrics`, `output` and so on, keys of the line as the others are."""

    def body(self) -> dict[str, Any]:
        found = super().body()
        done = found.pop("done")
        return {**found, **done}

    @classmethod
    def of_line(cls, line: Mapping[str, Any]) -> Answered:
        own = {"kind", "at", *(key for key, _ in _KEYS[cls])}
        return super().of_line({**line, "done": {key: value for key, value in line.items() if key not in own}})


_FORMS: tuple[type[JudgedEvent], ...] = (CandidateJudged, AdoptionPlanned, Answered)
_OTHERS: tuple[type[RunEvent], ...] = (Ready, CurvePoint, CheckpointSaved, Ended, Withdrawn)
#: Of each class: key in the line, and name of the field.
_KEYS = {
    kind: tuple((one.metadata.get("key", one.name), one.name) for one in fields(kind) if one.name != "at")
    for kind in (*_FORMS, *_OTHERS)
}
#: What a line calls a kind, and its class.
_KINDS: dict[str, type[RunEvent]] = {**{one.KIND: one for one in _OTHERS}, JudgedEvent.KIND: JudgedEvent}


def event_of(line: Mapping[str, Any]) -> RunEvent | None:
    """The event of a line; None for a kind that is not known here, and for what is no event."""
    try:
        kind = _KINDS.get(line.get("kind", ""))
        if kind is JudgedEvent:
            kind = AdoptionPlanned if "adoption" in line else CandidateJudged if "from" in line else Answered
        return kind.of_line(line) if kind is not None else None
    except (AttributeError, KeyError, TypeError):  # whole, and still not what an expmgr writes
        return None


def read_events(folder: RunDir, start: int = 0, damaged: list[bytes] | None = None) -> tuple[list[RunEvent], int]:
    """The events of the run in `folder` from byte `start` of their file, and the byte after the last whole line. Lines that
    cannot be read are added to `damaged`."""
    lines, end = durable.read_lines(folder.events, start, damaged)
    return [event for event in map(event_of, lines) if event is not None], end


def append_event(folder: RunDir, event: RunEvent) -> None:
    """Tell `event` of the run in `folder`."""
    durable.append_line(folder.events, event.as_line())


def last_of(kind: type[EVENT], events: Sequence[RunEvent]) -> EVENT | None:
    """The last event of that kind."""
    return next((one for one in reversed(events) if isinstance(one, kind)), None)
