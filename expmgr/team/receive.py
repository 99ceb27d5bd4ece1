"""Takes over records of runs from the logs of other clones."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from expmgr.disk import durable
from expmgr.errors import EventProblem
from expmgr.log.events import RunTold
from expmgr.log.logs import MOST_BESIDE_BYTES, RECORD_FILE, Told, writer_of
from expmgr.log.refs import OWN
from expmgr.project import Project
from expmgr.runs.origin import ORIGIN, read_origin
from expmgr.runs.record import RunRecord
from expmgr.team.validate_record import foreign_record
from expmgr.team.verify_signatures import trusted


@dataclass(frozen=True)
class TakenOver:
    """What `take_over` found: runs that are new here or gained an attempt, and what it passed over with the reason."""

    runs: tuple[RunRecord, ...]
    passed_over: dict[str, str]


def take_over(project: Project) -> TakenOver:
    """Have the records of all logs here. Of several people who tell of one run, the one who was first here counts; where
    none was, nobody does. One's own record is never replaced, and what is not the record that its event names is passed
    over."""
    passed: dict[str, str] = {}
    told = project.logs.events("run")
    by_run: dict[str, list[Told]] = {}
    counted = {one.id for one in trusted(project, told)}
    for one in told:
        if one.id in counted:
            by_run.setdefault(_run(one).run_id, []).append(one)
        else:
            who = f"{one.event.actor.name} ({one.event.writer})" if one.event.actor is not None else one.event.writer
            passed[_run(one).run_id] = f"{who} tells of it without a signature that the target's allowed signers know"
    wanted = [one for run_id, events in by_run.items() for one in _newest(project, run_id, events, passed)]
    known = project.logs.rejected() if wanted else {}
    passed |= {_run(one).run_id: known[one.commit] for one in wanted if one.commit in known}
    wanted = [one for one in wanted if one.commit not in known]
    rejected: dict[str, str] = {}
    runs = []
    try:
        for one, content in zip(wanted, project.logs.beside_each(wanted, RECORD_FILE), strict=True):
            try:
                runs.append(_take(project, one, content))
            except EventProblem as problem:
                passed[_run(one).run_id] = rejected[one.commit] = problem.message
    finally:
        project.logs.reject(rejected)
    return TakenOver(tuple(runs), passed)


def _run(told: Told) -> RunTold:
    assert isinstance(told.event, RunTold)
    return told.event


def by_teller(events: Iterable[Told]) -> list[list[Told]]:
    """Events by who tells: a person, with all clones, and a clone, with all addresses."""
    groups: list[tuple[set[str], list[Told]]] = []
    for one in events:
        names = {one.event.writer, *([one.mail] if one.mail else [])}
        same = [group for group in groups if group[0] & names]
        groups = [group for group in groups if not group[0] & names]
        joined = [each for _, some in same for each in some]
        groups.append((names.union(*(group[0] for group in same)), [*joined, one]))
    return [some for _, some in groups]


def _newest(project: Project, run_id: str, events: list[Told], passed: dict[str, str]) -> list[Told]:
    """The event with the newest attempt of a run, where that is not here and is to be had."""
    folder = project.records.run_dir(run_id)
    tellers = by_teller(events)
    origin: dict[str, Any] | None = None
    if folder.record.exists():
        origin = read_origin(folder)
        if origin is None:  # a run of this clone
            others = [one.event.writer for one in events if not one.ref.startswith(OWN)]
            if others:
                passed[run_id] = f"{others[0]} tells of it, and it is a run of this clone"
            return []
        first = origin.get("event"), origin.get("writer")
        theirs = [some for some in tellers if any(first[0] == one.id or first[1] == one.event.writer for one in some)]
        others = [some[0].event.writer for some in tellers if some not in theirs]
        if others:
            passed[run_id] = f"{others[0]} tells of it, and so does {origin.get('writer')}, whose it is here"
        events = [one for some in theirs for one in some]
    elif len(tellers) > 1:
        writers = sorted(some[0].event.writer for some in tellers)
        passed[run_id] = f"{' and '.join(writers)} tell of it: nobody can say whose it is"
        return []
    newest = max(events, key=lambda one: _run(one).attempt, default=None)
    known = origin.get("attempt") if origin is not None else None
    if newest is None or (isinstance(known, int) and known >= _run(newest).attempt):
        return []
    return [newest]


def _take(project: Project, told: Told, content: bytes | int | None) -> RunRecord:
    record, content = validated(told, content)
    _place(project, told, record, content)
    return record


def validated(told: Told, content: bytes | int | None) -> tuple[RunRecord, bytes]:
    """The record beside an event that tells of a run; `EventProblem` if it is not the one that the event names, or, from
    another clone, one that a command could stumble over."""
    event = told.event
    assert isinstance(event, RunTold)
    if content is None:
        raise EventProblem(f"{event.writer} tells of it without its record")
    if isinstance(content, int):
        raise EventProblem(
            f"the record of {event.writer} has {content:,} bytes; a record has {MOST_BESIDE_BYTES:,} at most"
        )
    if hashlib.sha256(content).hexdigest() != event.record:
        raise EventProblem(f"what lies beside the event of {event.writer} is not the record that it names")
    record = foreign_record(content, event.writer)
    about = (record.run_id, record.variant, record.seed, record.commit, record.status, len(record.attempts))
    if about != (event.run_id, event.variant, event.seed, event.commit, event.status, event.attempt):
        raise EventProblem(f"the record of {event.writer} is of another run than its event says")
    return record, content


def origin_told(told: Told) -> bytes:
    """The content of `origin.json` of a run that another clone told of."""
    by = told.event.actor.name if told.event.actor is not None else None
    about = {"event": told.id, "attempt": _run(told).attempt, "by": by}
    return json.dumps({"format": 1, "writer": writer_of(told.ref), **about}).encode() + b"\n"


def _place(project: Project, told: Told, record: RunRecord, content: bytes) -> None:
    """The folder of a run appears whole. It can be made again from the log, so it need not be on the disk at once."""
    folder = project.records.run_dir(record.run_id)
    beside = project.layout.own / f".{record.run_id}.{os.urandom(4).hex()}"
    beside.mkdir(parents=True)
    folder.path.parent.mkdir(exist_ok=True)
    try:
        with durable.naming(folder.record, len(content)):
            (beside / folder.record.name).write_bytes(content)
        if not told.ref.startswith(OWN):
            told_by = origin_told(told)
            with durable.naming(folder.path / ORIGIN, len(told_by)):
                (beside / ORIGIN).write_bytes(told_by)
        if folder.path.exists():  # it gained an attempt
            for name in (folder.record.name, ORIGIN):
                os.replace(beside / name, folder.path / name)
        else:
            with contextlib.suppress(OSError):  # another pull was quicker
                os.rename(beside, folder.path)
            if not folder.record.exists():
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(folder.path))
    finally:
        shutil.rmtree(beside, ignore_errors=True)
