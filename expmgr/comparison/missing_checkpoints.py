"""Finds compared runs whose checkpoint or commit no longer exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from expmgr.checkpoints.model_dir import ModelDir
from expmgr.comparison.sides import Answer, Lost, Subject, chain
from expmgr.errors import ExpmgrError, ManifestDamaged
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


def _lost(project: Project, subject: Subject, are_there: Mapping[str, bool], store: InTheStore) -> dict[str, Lost]:
    lost: dict[str, Lost] = {}
    for record in subject.counted:
        folder = project.model_dir(subject.name, record.seed)
        if is_foreign(project.records.run_dir(record.run_id)):
            wrong = _foreign_lost(project, folder, record, store)
        else:
            wrong = _checkpoint_lost(folder, record, subject.runs, store) if record.step else None
        if not are_there[record.commit]:
            lost[record.run_id] = Lost(Answer.BLOCK, f"its commit {record.commit[:12]} is gone, and its code with it")
        elif wrong is not None:
            lost[record.run_id] = wrong
    return lost


def _foreign_lost(project: Project, folder: ModelDir, record: RunRecord, store: InTheStore) -> Lost | None:
    """Why the checkpoint of another clone's run is not looked at; None where it was fetched, and is as it was recorded."""
    if fetched_run(folder.path) == record.run_id and _checkpoint_lost(folder, record, [record], store) is None:
        return None
    if store.has(record, selected_step(record)):
        return None  # it is verified when it is fetched
    teller = teller_of(project.records.run_dir(record.run_id), record)
    return Lost(Answer.UNKNOWN, f"its checkpoint is in the clone of {teller}, and in no store")


def _checkpoint_lost(folder: ModelDir, record: RunRecord, runs: Sequence[RunRecord], store: InTheStore) -> Lost | None:
    """Why the selected checkpoint of a run is not there as it was recorded; None where it is. Of its weights only that their
    file is there and its size are looked at."""
    step = selected_step(record)
    fetch = store.command(record, step)
    try:
        manifest = folder.read_manifest()
    except ManifestDamaged as error:
        return Lost(Answer.WARN, error.message, folder.rebuild_command if folder.may_be_rebuilt() else fetch)
    except ExpmgrError as error:
        return Lost(Answer.WARN, error.message)
    saved = manifest.at(step) if manifest is not None else None
    if manifest is None or saved is None:
        return Lost(Answer.WARN, f"its selected checkpoint, of step {step:,}, is not in its model_dir any more", fetch)
    # A run that only evaluated saved none: the one that it goes on from did.
    known = [one.files for run in chain(record, runs) for one in reversed(run.checkpoints) if one.step == step]
    if not known:
        return Lost(Answer.UNKNOWN, f"which files the checkpoint of step {step:,} had is not recorded")
    if {name: file.sha256 for name, file in saved.files.items()} != known[0]:
        return Lost(Answer.WARN, f"the checkpoint of step {step:,} in its model_dir is another one than was recorded")
    damage = folder.damage(saved, thorough=False)
    if damage:
        told = f"its selected checkpoint, of step {step:,}, is damaged: {'; '.join(damage)}"
        return Lost(Answer.WARN, told, fetch or folder.back_command(manifest, step))
    return None
