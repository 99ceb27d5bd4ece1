"""Finds a run by its id, by the start of its id, or by VARIANT:SEED."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expmgr.errors import UnknownRun

if TYPE_CHECKING:
    from expmgr.project import Project
    from expmgr.runs.record import RunRecord


def run_named(project: Project, text: str) -> RunRecord | None:
    """The run that `text` names: by its id or the beginning of it, or VARIANT:SEED; None where it names none."""
    name, colon, seed = text.rpartition(":")
    if not colon:
        return project.records.find(text)
    from expmgr.errors import BadName
    from expmgr.paths import parse_variant, seeds_text
    from expmgr.variants.variants import find_variant

    try:
        variant = parse_variant(name)  # also one whose branch is gone
    except BadName:
        variant = find_variant(project.repo, name).name
    record = None
    if seed.isdigit():
        newest = project.records.newest
        record = newest(variant, int(seed)) or newest(variant, int(seed), foreign=True)
    if record is None and seed.isdigit():
        for skipped in reversed(project.records.skipped_of(variant, int(seed))):
            return project.records.load(skipped.run_id)  # raises why it is not used
    if record is None:
        seeds = {one.seed for one in project.records.heads() if one.variant == str(variant)}
        there = f"; it has seed{'' if len(seeds) == 1 else 's'} {seeds_text(seeds)}" if seeds else ""
        raise UnknownRun(f"{name} has no run with seed {seed}{there}", hint=f"expmgr show {name}")
    return record
