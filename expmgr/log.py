"""Logs: `refs/expmgr/log/<writer>`, a chain of commits, one event each, that its writer alone extends.

The tree of a commit holds `event.json`, and what the event is about where that is large (`record.json`); its first parent
is the event before, further parents are the commits that the event speaks of, so that neither `git gc` nor a deleted branch
loses the code of a result. Other people's logs lie in `refs/expmgr/remotes/<remote>/log/`, where `pull` fetched them.
What all know together is the events of all logs, in the order of Lamport time and then id.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from expmgr import durable
from expmgr.errors import Busy, EventProblem
from expmgr.events import LATEST, Actor, Event, Retracted, canonical, invalid, is_writer, parse_event
from expmgr.gitrepo import GitRepo, NewCommit
from expmgr.index import Index, LogRow

OWN = "refs/expmgr/log/"
REMOTES = "refs/expmgr/remotes/"
EVENT_FILE = "event.json"
#: In the first commit of a log, which has no parent, so that first parents never lead into the history of code.
LOG_FILE = "log.json"
#: Nobody writes for long: the lock is held for a few git processes.
_TRIES = 20


@dataclass(frozen=True)
class Draft:
    """An event that is to be written: `values` of its kind without writer, times and actor, and what lies beside it."""

    kind: type[Event]
    values: Mapping[str, object]
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Told:
    """An event, the commit that carries it, and the ref of the log in which it stands."""

    id: str
    time: int
    kind: str
    commit: str
    ref: str
    content: str = field(repr=False)

    @cached_property
    def event(self) -> Event:
        return parse_event(self.content.encode(), writer_of(self.ref) or "")


class Logs:
    """All logs of a repository. `own` is `.git/expmgr/`."""

    def __init__(self, repo: GitRepo, index: Index, own: Path) -> None:
        self._repo, self._index, self._own = repo, index, own
        self.unreadable: dict[str, str] = {}
        """Commit to reason: what stands in a log and is no event, passed over by the last reading."""

    # Reading.

    def refs(self) -> dict[str, str]:
        """The refs of all logs and their newest commits."""
        found = self._repo.refs(OWN, REMOTES)
        return {ref: tip for ref, tip in found.items() if writer_of(ref) is not None}

    def events(self, *kinds: str) -> list[Told]:
        """All events of all logs, those of `kinds` where some are given, in their order."""
        found: dict[str, Told] = {}
        self.unreadable = {}
        for ref, rows in self._rows(self.refs()):
            for commit, event, time, kind, content in rows:
                if event is None or time is None or kind is None:
                    if content:
                        self.unreadable[commit] = content
                elif (not kinds or kind in kinds) and event not in found:
                    found[event] = Told(event, time, kind, commit, ref, content)
        return sorted(found.values(), key=lambda one: (one.time, one.id))

    def beside(self, told: Sequence[Told], file: str) -> list[bytes | None]:
        """What lies beside each event as `file`."""
        return self._repo.objects([f"{one.commit}:{file}" for one in told])

    def retracted(self, told: Sequence[Told]) -> set[str]:
        """The ids of those of `told` that their writers took back."""
        writers = {one.id: writer_of(one.ref) for one in told}
        events = (one.event for one in self.events("retract"))
        return {one.event for one in events if isinstance(one, Retracted) and writers.get(one.event) == one.writer}

    def _rows(self, refs: Mapping[str, str]) -> Iterator[tuple[str, list[LogRow]]]:
        """The rows of each log, read from git where they are not cached; a log that is part of another one once."""
        tips = self._index.log_tips()
        seen: dict[str, set[str]] = {}
        for ref in sorted(refs, key=lambda ref: (not ref.startswith(OWN), ref)):
            tip, writer = refs[ref], writer_of(ref) or ""
            if tip in seen.setdefault(writer, set()):
                continue
            rows = self._of(ref, tip, tips.get(ref))
            seen[writer].update(row[0] for row in rows)
            yield ref, rows

    def _of(self, ref: str, tip: str, cached: str | None) -> list[LogRow]:
        rows = self._index.log_rows(ref) if cached is not None else []
        if rows and cached != rows[-1][0]:
            rows = []  # somebody wrote the cache between our two questions
        if rows and cached == tip:
            return rows
        if rows and not self._repo.is_ancestor(rows[-1][0], tip):
            rows = []
        commits = self._repo.chain(tip, rows[-1][0] if rows else None)
        contents = self._repo.objects([f"{commit}:{EVENT_FILE}" for commit in commits])
        writer = writer_of(ref) or ""
        fresh = [_row(commit, content, writer) for commit, content in zip(commits, contents, strict=True)]
        if not rows and contents and contents[0] is None:
            fresh[0] = (commits[0], None, None, None, "")
        self._index.keep_log(ref, tip, fresh, after=len(rows))
        return [*rows, *fresh]

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
    ) -> list[Event]:
        """Add events to the log of `writer`, all or none of them, and drop the refs `drop` with it; the events.

        Several processes write one log, one after the other, and none loses what another wrote. `Busy` where that takes
        forever, `EventProblem` for what is no event.
        """
        drafts = list(drafts)
        ref = f"{OWN}{writer}"
        if not drafts and not drop:
            return []
        for _ in range(_TRIES):
            with self._turn():
                refs = self.refs()
                time = self._latest(refs) + 1
                times = (min(time + number, LATEST) for number in range(len(drafts)))
                events = [_made(one, writer, at, now, actor) for one, at in zip(drafts, times, strict=True)]
                commits = [
                    NewCommit({EVENT_FILE: event.content, **one.files}, event.title.splitlines()[0][:200] + "\n", known)
                    for one, event, known in zip(drafts, events, self._known(events), strict=True)
                ]
                if ref not in refs and commits:
                    commits.insert(
                        0, NewCommit({LOG_FILE: canonical({"format": 1, "writer": writer})}, f"log of {writer}\n")
                    )
                if self._repo.extend(ref, refs.get(ref), commits, "expmgr: log", sign=sign, drop=drop) is not None:
                    return events
        raise Busy(f"{ref} is being moved by something else, again and again", left_alone="Nothing was written.")

    def _known(self, events: Sequence[Event]) -> list[list[str]]:
        """The commits that each event speaks of, as far as they are here (a shallow clone has not all)."""
        asked = sorted({commit for event in events for commit in event.commits})
        there = {commit for commit, is_there in zip(asked, self._repo.has(asked), strict=True) if is_there}
        return [[commit for commit in dict.fromkeys(event.commits) if commit in there] for event in events]

    def _latest(self, refs: Mapping[str, str]) -> int:
        """The latest Lamport time: a log's newest event has its latest."""
        tips = sorted(set(refs.items()))
        contents = self._repo.objects([f"{tip}:{EVENT_FILE}" for _, tip in tips])
        latest = 0
        for (ref, _), content in zip(tips, contents, strict=True):
            with contextlib.suppress(EventProblem):
                latest = max(latest, parse_event(content or b"", writer_of(ref) or "").time)
        return latest

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


def _row(commit: str, content: bytes | None, writer: str) -> LogRow:
    if content is None:
        return commit, None, None, None, f"it holds no {EVENT_FILE}"
    try:
        event = parse_event(content, writer)
    except EventProblem as problem:
        return commit, None, None, None, problem.message
    return commit, event.id, event.time, event.kind, event.content.decode()


def _made(draft: Draft, writer: str, time: int, now: float, actor: Actor | None) -> Event:
    values = {**draft.values, "writer": writer, "time": time, "at": now, "actor": actor}
    try:
        return parse_event(draft.kind.model_validate(values).content, writer)
    except ValidationError as error:
        raise invalid(error) from None
