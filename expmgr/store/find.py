"""Finds which checkpoints are in the store, from the events of all logs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

from expmgr.errors import ExpmgrError, StoreProblem, UnknownCheckpoint
from expmgr.log.events import Stored
from expmgr.log.logs import writer_of
from expmgr.log.refs import OWN
from expmgr.log.writers import all_writers
from expmgr.paths import VariantName
from expmgr.project import Project
from expmgr.runs.counting import counted_runs, is_outdated
from expmgr.runs.origin import origin_of, teller_of
from expmgr.runs.record import RunRecord, selected_step
from expmgr.store.backends import Store, open_store
from expmgr.team.verify_signatures import trusted


def store_of(project: Project) -> Store:
    """The store that the settings name; `StoreProblem` where they name none."""
    if project.settings.store is None:
        raise StoreProblem(
            "no store is set up",
            left_alone="Nothing was changed.",
            hint='store = "s3://bucket/prefix", or a folder that the team shares, in [tool.expmgr]',
        )
    return open_store(project.settings.store, project.repo.main_root)


def stored_events(project: Project) -> list[Stored]:
    told = trusted(project, project.logs.events("stored"))
    return [one.event for one in told if isinstance(one.event, Stored)]


def runs_of(project: Project, name: VariantName, seed: int | None = None) -> list[RunRecord]:
    """The runs whose checkpoints stand for the variant: of each seed the newest finished one that is not outdated, or
    else the newest that ended; before others those of which the store has a checkpoint."""
    from expmgr.variants.code_digest import code_digest
    from expmgr.variants.variants import find_variant, spec_of

    runs = [one for one in project.records.of_variant(name) if one.has_ended and one.by_hand is None]
    runs = [one for one in runs if seed is None or one.seed == seed]
    there = _in_the_store(project, runs)
    found = {one.seed: one for one in (*runs, *(one for one in runs if one.run_id in there))}
    with contextlib.suppress(ExpmgrError):
        variant = find_variant(project.repo, str(name))
        spec, digest = spec_of(project.repo, variant), code_digest(project.repo, variant.commit, name)
        fresh = [one for one in runs if not is_outdated(one, spec, digest)]
        for some in (fresh, [one for one in fresh if one.run_id in there]):
            found |= {one.seed: one for one in counted_runs(some)}
    return [found[seed] for seed in sorted(found)]


def own_writers(project: Project) -> set[str]:
    logs = (writer_of(ref) for ref in project.logs.refs() if ref.startswith(OWN))
    return {one for one in logs if one} | all_writers(project.layout.own)


def writers_of(project: Project, run_id: str) -> set[str]:
    """Whose word on a run is that of who trained it: the log that its record came from, or those of this clone."""
    origin = origin_of(project.records.run_dir(run_id))
    return own_writers(project) if origin is None else {origin}


def _in_the_store(project: Project, runs: Iterable[RunRecord]) -> set[str]:
    """The ids of those of `runs` of which the store has a checkpoint, by the word of who trained them."""
    told: dict[str, set[str]] = {}
    for one in stored_events(project):
        told.setdefault(one.run_id, set()).add(one.writer)
    ids = [one.run_id for one in runs if one.run_id in told]
    return {run_id for run_id in ids if told[run_id] & writers_of(project, run_id)}


def find_stored(project: Project, record: RunRecord, step: int | None) -> list[Stored]:
    """Where the checkpoint of `step` (None: the selected one) of a run is in the store, in the order to look there: what
    who trained it said, the newest first, then the newest word of each other writer.

    `UnknownCheckpoint` where nobody said that it is there.
    """
    events = [one for one in stored_events(project) if one.run_id == record.run_id]
    wanted = selected_step(record) if step is None else step
    found = places([one for one in events if one.step == wanted], writers_of(project, record.run_id))
    if not found:
        there = ", ".join(str(one) for one in sorted({one.step for one in events}))
        by = teller_of(project.records.run_dir(record.run_id), record)
        raise UnknownCheckpoint(
            f"the store has no checkpoint of step {wanted} of run {record.run_id} ({record.variant}, seed {record.seed})",
            details=[f"it has {there}"] if there else [],
            left_alone="Nothing was changed.",
            hint=f"expmgr push, in the clone of {by}; --checkpoints all for those that were not selected",
        )
    return found


def whereabouts(project: Project, record: RunRecord) -> list[str]:
    """Of a run of another clone: what is here, what is there, and what the store has."""
    by = teller_of(project.records.run_dir(record.run_id), record)
    about = f"{by}{f' on {record.host}' if record.host else ''}"
    steps = sorted({one.step for one in stored_events(project) if one.run_id == record.run_id})
    told = [
        f"run {record.run_id} ({record.variant} seed {record.seed}) was trained by {about}",
        "here: its record, with metrics and curves",
        f"there: its log, and its model_dir {record.model_dir}/" if record.model_dir else "there: its log",
    ]
    if steps:
        shown = ", ".join(map(str, steps))
        told.append(
            f"in the store: the checkpoint{'' if len(steps) == 1 else 's'} of step {shown}: expmgr pull {record.run_id}"
        )
    else:
        told.append(f"in the store: nothing; ask {by} to type: expmgr push --checkpoints all")
    return told


def places(events: Sequence[Stored], trainers: set[str]) -> list[Stored]:
    """`events`, the oldest first, in the order to believe them; a list that was told of twice once."""
    theirs = [one for one in reversed(events) if one.writer in trainers]
    others: dict[str, Stored] = {}
    for one in reversed(events):
        if one.writer not in trainers:
            others.setdefault(one.writer, one)
    found: dict[str, Stored] = {}
    for one in (*theirs, *others.values()):
        found.setdefault(one.contents, one)
    return list(found.values())
