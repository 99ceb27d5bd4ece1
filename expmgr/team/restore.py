"""Restores records from the event log: those that were edited, damaged or deleted."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from expmgr.disk import durable
from expmgr.errors import Busy, ExpmgrError, RecordDamaged, UnknownRun
from expmgr.log.events import RunTold
from expmgr.log.logs import RECORD_FILE, Told
from expmgr.log.refs import OWN
from expmgr.project import Project
from expmgr.runs.origin import ORIGIN, origin_of
from expmgr.runs.record import RunRecord, is_gone
from expmgr.team.receive import by_teller, origin_told, validated
from expmgr.team.verify_signatures import trusted


@dataclass(frozen=True)
class RestoredRun:
    """A run whose record is again the one that the event log names. `as_dict()` is a line of `expmgr restore --json`."""

    record: RunRecord
    was_damaged: bool
    """False if the record was whole: nothing was changed."""
    kept: Sequence[str]
    """The files with what was there before, relative to the repository: the record, and events that are in no record."""

    def as_dict(self) -> dict[str, Any]:
        record = self.record
        about = {"run_id": record.run_id, "variant": record.variant, "seed": record.seed}
        return {**about, "status": record.status, "was_damaged": self.was_damaged, "kept": list(self.kept)}


def restore(
    project: Project, names: Sequence[str] = (), on_problem: Callable[[ExpmgrError], object] = lambda _: None
) -> list[RestoredRun]:
    """Restore the records of the runs `names` (ids, or the beginnings of ids): every run is looked at before any record is
    written. Without names, of all runs whose records are damaged or deleted; `on_problem` is told which cannot be restored.

    Raises `UnknownRun` for a run that neither this clone nor any log has, `RecordDamaged` if no log has the record, and
    `Busy` if the run has not ended.
    """
    told: dict[str, list[Told]] = {}
    for one in trusted(project, project.logs.events("run")):
        told.setdefault(_event(one).run_id, []).append(one)
    ids = [_run_id(project, name, told) for name in names]
    found = [_found(project, run_id, told) for run_id in dict.fromkeys(ids)]
    for run_id in () if names else project.records.damaged_or_deleted():
        try:
            found.append(_found(project, run_id, told))
        except ExpmgrError as problem:
            on_problem(problem)
    # Not beside a command that ends what a crash left.
    with open(project.layout.own / "sweep.lock", "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return [_put_back(project, *one) for one in found]


def _event(told: Told) -> RunTold:
    assert isinstance(told.event, RunTold)
    return told.event


def _is_of(told: Told, variant: str, seed: str) -> bool:
    event = _event(told)
    return variant in (event.variant, event.variant.partition("/")[2]) and seed == str(event.seed)


def _run_id(project: Project, name: str, told: dict[str, list[Told]]) -> str:
    variant, colon, seed = name.rpartition(":")
    of_seed = {run_id for run_id, some in told.items() if any(_is_of(one, variant, seed) for one in some)}
    if colon and of_seed:  # VARIANT:SEED, its newest run
        return max(of_seed)
    here = {path.name for path in project.layout.runs.iterdir()} if project.layout.runs.is_dir() else set()
    found = sorted(one for one in {*here, *told} if one.startswith(name)) if name else []
    if len(found) != 1:
        many = f"{len(found)} runs begin with {name}" if found else f"there is no run {name}, here or in an event log"
        raise UnknownRun(many, details=found[:5], left_alone="Nothing was changed.")
    return found[0]


def _found(project: Project, run_id: str, told: dict[str, list[Told]]) -> tuple[Told, RunRecord, bytes]:
    """The event that tells of a run's newest attempt, and the record beside it."""
    folder = project.records.run_dir(run_id)
    marker = project.layout.active / run_id
    if marker.exists() and not is_gone(marker):
        raise Busy(f"run {run_id} has not ended", left_alone="Nothing was changed.", hint="expmgr status")
    events = told.get(run_id, [])
    writer = origin_of(folder)
    own = [one for one in events if one.ref.startswith(OWN)]
    events = [one for one in events if _event(one).writer == writer] or own or events
    if len(by_teller(events)) != 1:
        some = ", ".join(sorted({_event(one).writer for one in events}))
        raise RecordDamaged(
            run_id,
            f"is in the logs of several people: {some}" if events else "is in no event log here",
            hint=None if events else "fetch the logs of other clones: expmgr pull",
        )
    newest = max(events, key=lambda one: _event(one).attempt)
    (content,) = project.logs.beside([newest], RECORD_FILE)
    return (newest, *validated(newest, content))


def _put_back(project: Project, told: Told, record: RunRecord, content: bytes) -> RestoredRun:
    folder = project.records.run_dir(record.run_id)
    with contextlib.suppress(FileNotFoundError, RecordDamaged):
        return RestoredRun(project.records.load(record.run_id), was_damaged=False, kept=())
    kept = project.records.put_back(record.run_id, content)
    if not told.ref.startswith(OWN):
        durable.write_bytes(folder.path / ORIGIN, origin_told(told))
    return RestoredRun(record, was_damaged=True, kept=[project.shown(folder.path / name) for name in kept])
