"""Finds compared runs whose checkpoint or commit no longer exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from expmgr.checkpoints.model_dir import ModelDir
from expmgr.comparison.sides import Answer, Subject, chain
from expmgr.errors import ExpmgrError
from expmgr.runs.origin import is_foreign, teller_of
from expmgr.runs.record import RunRecord, selected_step
from expmgr.store.fetch import InTheStore
from expmgr.store.fetched import fetched_run

if TYPE_CHECKING:
    from expmgr.project import Project


def with_lost(project: Project, subjects: Sequence[Subject]) -> list[Subject]:
    """`subjects`, with what is wrong with the code or the selected checkpoint of the runs that count."""
    commits = sorted({record.commit for one in subjects for record in one.counted})
    are_there = dict(zip(commits, project.repo.has(commits), strict=True))
    store = InTheStore(project)
    return [replace(one, lost=_lost(project, one, are_there, store)) for one in subjects]


def _lost(
    project: Project, subject: Subject, are_there: Mapping[str, bool], store: InTheStore
) -> dict[str, tuple[Answer, str]]:
    lost: dict[str, tuple[Answer, str]] = {}
    for record in subject.counted:
        folder = project.model_dir(subject.name, record.seed)
        if is_foreign(project.records.run_dir(record.run_id)):
            wrong = _foreign_lost(project, folder, record, store)
        else:
            wrong = _checkpoint_lost(folder, record, subject.runs) if record.step else None
        if not are_there[record.commit]:
            lost[record.run_id] = Answer.BLOCK, f"its commit {record.commit[:12]} is gone, and its code with it"
        elif wrong is not None:
            lost[record.run_id] = wrong
    return lost


def _foreign_lost(
    project: Project, folder: ModelDir, record: RunRecord, store: InTheStore
) -> tuple[Answer, str] | None:
    """Why the checkpoint of another clone's run is not looked at; None where it was fetched, and is as it was recorded."""
    if fetched_run(folder.path) == record.run_id and _checkpoint_lost(folder, record, [record]) is None:
        return None
    if store.has(record, selected_step(record)):
        return None  # it is verified when it is fetched
    return Answer.UNKNOWN, (
        f"its checkpoint is in the clone of {teller_of(project.records.run_dir(record.run_id), record)}, and in no store"
    )


def _checkpoint_lost(folder: ModelDir, record: RunRecord, runs: Sequence[RunRecord]) -> tuple[Answer, str] | None:
    """Why the selected checkpoint of a run is not there as it was recorded; None where it is."""
    try:
        manifest = folder.read_manifest()
    except ExpmgrError as error:
        return Answer.WARN, error.message
    step = record.step if record.selected_step is None else record.selected_step
    saved = manifest.at(step) if manifest is not None else None
    if saved is None:
        return Answer.WARN, f"its selected checkpoint, of step {step:,}, is not in its model_dir any more"
    # A run that only evaluated saved none: the one that it goes on from did.
    known = [one.files for run in chain(record, runs) for one in reversed(run.checkpoints) if one.step == step]
    if not known:
        return Answer.UNKNOWN, f"which files the checkpoint of step {step:,} had is not recorded"
    if {name: file.sha256 for name, file in saved.files.items()} != known[0]:
        return Answer.WARN, f"the checkpoint of step {step:,} in its model_dir is another one than was recorded"
    return None
