"""Reads and extends event logs: `refs/expmgr/log/<writer>`, a chain with one commit per event.

The tree of a commit holds `event.json`, and what the event is about where that is large (`record.json`); its first parent
is the event before, further parents are the commits that the event speaks of, so that neither `git gc` nor a deleted branch
loses the code of a result. Other people's logs lie in `refs/expmgr/remotes/<remote>/log/`, where `pull` fetched them.
What all know together is the events of all logs, in the order of Lamport time, place in their log, and id.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from expmgr.disk import durable
from expmgr.disk.index import Index, LogRow
from expmgr.disk.json_text import parse_foreign_json
from expmgr.errors import Busy, EventProblem
from expmgr.git.commits import extend_ref
from expmgr.git.objects import NewCommit
from expmgr.git.repo import GitRepo
from expmgr.log.events import (
    LATEST,
    MOST_BYTES,
    TAKEN_BACK,
    Actor,
    Event,
    Retracted,
    canonical,
    invalid,
    is_writer,
    parse_event,
)
from expmgr.log.refs import OWN, REMOTES

EVENT_FILE = "event.json"
#: In the first commit of a log, which has no parent, so that first parents never lead into the history of code.
LOG_FILE = "log.json"
#: Beside the event that tells of a run.
RECORD_FILE = "record.json"
#: Beside the event that ended a review: what was decided, and on what.
REVIEW_FILE = "review.json"
#: A record with curves of many metrics is some hundred kB; Python's objects take ten times the memory of their JSON.
MOST_BESIDE_BYTES = 16_000_000
#: Nobody writes for long: the lock is held for a few git processes.
_TRIES = 20
#: No log is so far ahead of all others that it was honestly written: its time is not gone on from.
_JUMP = 2**32


@dataclass(frozen=True)
class Draft:
    """An event that is to be written: `values` of its kind without writer and Lamport time, and what lies beside it. Who
    says it and when is known by whoever writes it, unless `values` say so."""

    kind: type[Event]
    values: Mapping[str, object]
    files: Mapping[str, bytes] = field(default_factory=dict)
    was: str = ""
    """The id that it had in another log: what comes after it and refers to it by that is told of the new one."""


@dataclass(frozen=True)
class Told:
    """An event, the commit that carries it, and the ref of the log in which it stands."""

    id: str
    time: int
    kind: str
    commit: str
    ref: str
    place: int
    """How many commits of the log come before it."""
    content: str = field(repr=False)

    @cached_property
    def event(self) -> Event:
        return parse_event(self.content.encode(), writer_of(self.ref) or "")

    @property
    def mail(self) -> str | None:
        """The address of the person whom it names."""
        return self.event.actor.email if self.event.actor is not None else None


class Logs:
    """All logs of a repository. `own` is `.git/expmgr/`."""

    def __init__(self, repo: GitRepo, index: Index, own: Path) -> None:
        self._repo, self._index, self._own = repo, index, own
        self.unreadable: dict[str, str] = {}
        """Commit to reason: what stands in a log and is no event, passed over by the last reading."""
        self._known_logs: dict[tuple[str, str], list[Told]] = {}

    # Reading.

    def refs(self) -> dict[str, str]:
        """The refs of all logs and their newest commits."""
        found = self._repo.refs(OWN, REMOTES)
        return {ref: tip for ref, tip in found.items() if writer_of(ref) is not None}

    def events(self, *kinds: str) -> list[Told]:
        """All events of all logs, those of `kinds` where some are given, in their order."""
        found: dict[str, Told] = {}
        self.unreadable = {}
        for ref, tip, rows in self._rows(self.refs()):
            self.unreadable |= {row[0]: row[4] for row in rows if row[1] is None and row[4]}
            for one in self._told(ref, tip, rows):
                if not kinds or one.kind in kinds:
                    found.setdefault(one.id, one)
        return sorted(found.values(), key=lambda one: (one.time, one.place, one.id))

    def whole(self, ref: str) -> list[Told]:
        """All events of one log, the oldest first."""
        tip = self.refs().get(ref)
        if tip is None:
            return []
        known = self._known_logs.get((ref, tip))
        return known if known is not None else self._told(ref, tip, self._of(ref, tip, self._index.log_tips().get(ref)))

    def _told(self, ref: str, tip: str, rows: Sequence[LogRow]) -> list[Told]:
        """The events of a log up to `tip`, made once, so that each is parsed once."""
        if (ref, tip) not in self._known_logs:
            self._known_logs[ref, tip] = list(_told(ref, rows))
        return self._known_logs[ref, tip]

    def beside(self, told: Sequence[Told], file: str) -> list[bytes | None]:
        """What lies beside each event as `file`; None where nothing does, or more than any has."""
        found = self._repo.objects_within([f"{one.commit}:{file}" for one in told], MOST_BESIDE_BYTES)
        return [one if isinstance(one, bytes) else None for one in found]

    def beside_each(self, told: Sequence[Told], file: str) -> Iterator[bytes | int | None]:
        """As `beside`, a few at a time, so that the memory does not hold all; the size of what is too large."""
        yield from self._repo.each_within([f"{one.commit}:{file}" for one in told], MOST_BESIDE_BYTES)

    def rejected(self) -> dict[str, str]:
        """Commits of events whose records were looked at before and cannot be taken over, and why."""
        return self._index.rejected()

    def reject(self, commits: Mapping[str, str]) -> None:
        """Remember that for the next time: what a commit holds never changes."""
        self._index.keep_rejected(commits)

    def retracted(self, told: Sequence[Told]) -> dict[str, Told]:
        """Those of `told` that were taken back, each with what took it back: words, by the same person, later in the same
        log."""
        known = {one.id: one for one in told if one.kind in TAKEN_BACK}
        found: dict[str, Told] = {}
        for one in self.events("retract"):
            assert isinstance(one.event, Retracted)
            meant = known.get(one.event.event)
            same = meant is not None and (meant.event.writer, meant.mail) == (one.event.writer, one.mail)
            if meant is not None and same and meant.time < one.time:
                found[meant.id] = one
        return found

    def _rows(self, refs: Mapping[str, str]) -> Iterator[tuple[str, str, list[LogRow]]]:
        """The rows of each log, read from git where they are not cached; a log that is part of another one once."""
        tips = self._index.log_tips()
        seen: dict[str, set[str]] = {}
        for ref in sorted(refs, key=lambda ref: (not ref.startswith(OWN), ref)):
            tip, writer = refs[ref], writer_of(ref) or ""
            if tip in seen.setdefault(writer, set()):
                continue
            rows = self._of(ref, tip, tips.get(ref))
            seen[writer].update(row[0] for row in rows)
            yield ref, tip, rows

    def _of(self, ref: str, tip: str, cached: str | None) -> list[LogRow]:
        rows = self._index.log_rows(ref) if cached is not None else []
        if rows and cached != rows[-1][0]:
            rows = []  # somebody wrote the cache between our two questions
        if rows and cached == tip:
            return rows
        if rows and not self._repo.is_ancestor(rows[-1][0], tip):
            rows = []
        if not rows and self._repo.commit_of(tip) != tip:
            return [(tip, None, None, None, "it is no commit")]
        commits = self._repo.chain(tip, rows[-1][0] if rows else None)
        writer = writer_of(ref) or ""
        begins: LogRow = rows[0] if rows else self._beginning(commits[0], writer)
        fresh: list[LogRow]
        if begins[4]:  # never kept: a shallow clone may be made whole
            return [(commit, None, None, None, begins[4]) for commit in commits]
        behind = commits if rows else commits[1:]
        contents = self._repo.each_within([f"{commit}:{EVENT_FILE}" for commit in behind], MOST_BYTES)
        fresh = [] if rows else [begins]
        latest = max((row[2] or 0 for row in rows), default=0)
        for commit, content in zip(behind, contents, strict=True):
            fresh.append(_row(commit, content, writer, latest))
            latest = fresh[-1][2] or latest
        self._index.keep_log(ref, tip, fresh, after=len(rows))
        return [*rows, *fresh]

    def _beginning(self, commit: str, writer: str) -> LogRow:
        """The row of a log's first commit; where that does not say whose log it is, nothing of it is an event."""
        (content,) = self._repo.objects_within([f"{commit}:{LOG_FILE}"], MOST_BYTES)
        try:
            values = parse_foreign_json(content if isinstance(content, bytes) else b"")
            is_right = isinstance(values, dict) and values.get("writer") == writer
        except ValueError:
            is_right = False
        shallow = " (this clone is shallow: git fetch --unshallow)" if (self._own.parent / "shallow").exists() else ""
        return commit, None, None, None, "" if is_right else f"its log does not begin as that of {writer}{shallow}"

    # Writing.

    def append(
        self,
        writer: str,
        drafts: Iterable[Draft],
        *,
        now: float,
        actor: Actor | None,
        sign: bool = False,
        drop: Sequence[str] = (),
        choose: Callable[[list[Draft]], list[Draft]] = lambda drafts: drafts,
    ) -> list[Event]:
        """Add events to the log of `writer`, all or none of them, and drop the refs `drop` with it; the events. `choose` is
        asked which are still to be said, when nobody else of this clone can write.

        Several processes write one log, one after the other, and none loses what another wrote. `Busy` where that takes
        forever, `EventProblem` for what is no event.
        """
        given = list(drafts)
        ref = f"{OWN}{writer}"
        if not given and not drop:
            return []
        for _ in range(_TRIES):
            with self._turn():
                drafts = choose(given)
                refs = self.refs()
                time = self._latest(refs, ref) + 1
                events, ids = _made(drafts, writer, time, now, actor)
                commits = [
                    NewCommit(
                        {EVENT_FILE: event.content, **_renamed(one.files, ids)},
                        event.title.splitlines()[0][:200] + "\n",
                        known,
                    )
                    for one, event, known in zip(drafts, events, self._known(events), strict=True)
                ]
                if ref not in refs and commits:
                    commits.insert(
                        0, NewCommit({LOG_FILE: canonical({"format": 1, "writer": writer})}, f"log of {writer}\n")
                    )
                if extend_ref(self._repo, ref, refs.get(ref), commits, "expmgr: log", sign=sign, drop=drop) is not None:
                    return events
        raise Busy(f"{ref} is being moved by something else, again and again", left_alone="Nothing was written.")

    def _known(self, events: Sequence[Event]) -> list[list[str]]:
        """The commits that each event speaks of, as far as they are here (a shallow clone has not all)."""
        asked = sorted({commit for event in events for commit in event.commits})
        there = {commit for commit, is_there in zip(asked, self._repo.has(asked), strict=True) if is_there}
        return [[commit for commit in dict.fromkeys(event.commits) if commit in there] for event in events]

    def _latest(self, refs: Mapping[str, str], own: str) -> int:
        """The latest Lamport time: a log's newest event has its latest. What is absurdly far ahead is not gone on from, or
        one event would keep all that come after it from having an order; one's own time is, whatever it is."""
        tips = sorted(set(refs.items()))
        contents = self._repo.objects_within([f"{tip}:{EVENT_FILE}" for _, tip in tips], MOST_BYTES)
        times = {0}
        least = 0
        for (ref, _), content in zip(tips, contents, strict=True):
            try:
                time = parse_event(content if isinstance(content, bytes) else b"", writer_of(ref) or "").time
            except EventProblem:
                time = max((one.time for one in self.whole(ref)), default=0) if ref == own else 0
            times.add(time)
            least = time if ref == own else least
        latest = 0
        for time in sorted(times):
            latest = time if time - latest <= _JUMP else latest
        return max(latest, least)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """One writer at a time in this clone: what counts is git's own compare-and-swap, this keeps others from trying."""
        durable.make_folder(self._own)
        with open(self._own / "log.lock", "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def writer_of(ref: str) -> str | None:
    """The writer whose log `ref` is; None for another ref."""
    name = ref.rpartition("/")[2]
    is_log = ref.startswith(OWN) or (ref.startswith(REMOTES) and ref.split("/")[-2] == "log")
    return name if is_log and is_writer(name) else None


def _told(ref: str, rows: Iterable[LogRow]) -> Iterator[Told]:
    for place, (commit, event, time, kind, content) in enumerate(rows):
        if event is not None and time is not None and kind is not None:
            yield Told(event, time, kind, commit, ref, place, content)


def _row(commit: str, content: bytes | int | None, writer: str, latest: int) -> LogRow:
    if content is None:
        return commit, None, None, None, f"it holds no {EVENT_FILE}"
    if isinstance(content, int):
        return commit, None, None, None, f"it has {content:,} bytes; an event has {MOST_BYTES:,} at most"
    try:
        event = parse_event(content, writer)
    except EventProblem as problem:
        return commit, None, None, None, problem.message
    if event.time < latest or (event.time == latest and latest != LATEST):
        return commit, None, None, None, f"its time, {event.time}, is not later than that of the event before it"
    return commit, event.id, event.time, event.kind, event.content.decode()


def _made(
    drafts: Sequence[Draft], writer: str, time: int, now: float, actor: Actor | None
) -> tuple[list[Event], dict[object, str]]:
    """The events, and of those that stood in another log: former id to new one."""
    events: list[Event] = []
    ids: dict[object, str] = {}
    for number, one in enumerate(drafts):
        about = {"writer": writer, "time": min(time + number, LATEST)}
        values = {"at": now, "actor": actor, **one.values, **about}
        named = ((key, values.get(key)) for key in ("review", "event"))
        values |= {key: ids[id_] for key, id_ in named if isinstance(id_, str) and id_ in ids}
        try:
            events.append(parse_event(one.kind.model_validate(values).content, writer))
        except ValidationError as error:
            raise invalid(error) from None
        if one.was:
            ids[one.was] = events[-1].id
    return events, ids


def _renamed(files: Mapping[str, bytes], ids: Mapping[object, str]) -> dict[str, bytes]:
    """What lies beside an event, with the ids by which it names others as they are now."""
    found = dict(files)
    for old, new in ids.items() if REVIEW_FILE in found else ():
        found[REVIEW_FILE] = found[REVIEW_FILE].replace(str(old).encode(), new.encode())
    return found
