"""Everything that `expmgr show` prints of one variant or one run, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from expmgr.api.listing import row_of
from expmgr.api.variant_row import VariantRow
from expmgr.errors import UnknownVariant
from expmgr.team.notes import Note, notes_on
from expmgr.variants.named_run import run_named
from expmgr.variants.variants import find_variant, origins, require_commit

if TYPE_CHECKING:
    from expmgr.project import Project
    from expmgr.runs.record import RunRecord
    from expmgr.runs.records import SkippedRun
    from expmgr.variants.variants import Variant


@dataclass(frozen=True)
class VariantDetails:
    """A variant with its spec, its runs and what was noted of it. `as_dict()` is what `expmgr show VARIANT --json` prints."""

    row: VariantRow
    committed_at: int
    """When its newest commit was made, in seconds since 1970, UTC."""
    model_dir: str
    """Relative to the repository, where it lies in it."""
    spec_path: str
    spec_text: str
    """Its text at the newest commit."""
    runs: Sequence[RunRecord]
    counted: frozenset[str]
    """Ids of the runs that its result is made of."""
    notes: Sequence[Note]
    skipped: Sequence[SkippedRun] = ()
    """Its runs whose records are damaged or cannot be read."""

    def as_dict(self) -> dict[str, Any]:
        told = [_line_of(record) for record in self.runs]
        skipped = [one.as_dict() for one in self.skipped]
        about = {"model_dir": self.model_dir, "spec": self.spec_text, "run_list": told, "skipped": skipped}
        return {"format": 1, **self.row.as_dict(), **about}

    def __repr__(self) -> str:
        return repr(self.row)


@dataclass(frozen=True)
class RunDetails:
    """A run with what was noted of it. `as_dict()` is what `expmgr show RUN --json` prints: the record."""

    record: RunRecord
    notes: Sequence[Note]
    progress: Mapping[str, Any]
    """Where a running run is (`phase`, `step`, `loss` and so on); empty if that is not known, or the run has ended."""
    log: str | None
    """The run log, with the output of the run and its code; None if there is no such file."""
    elsewhere: Sequence[str] = ()
    """Of a run of another clone: what is here, and where the rest is, in words."""

    def as_dict(self) -> dict[str, Any]:
        return self.record.as_dict()

    def __repr__(self) -> str:
        return repr(self.record)


def _line_of(record: RunRecord) -> dict[str, Any]:
    return {
        "run_id": record.run_id,
        "seed": record.seed,
        "status": record.status,
        "step": record.step,
        "commit": record.commit,
        "metrics": record.metrics,
        "train_s": record.train_s,
    }


def details(project: Project, what: str) -> VariantDetails | RunDetails:
    """The variant or the run that `what` names: a variant, the id of a run or the beginning of it, or VARIANT:SEED.

    Raises `UnknownVariant` where it names neither, `UnknownRun` for a seed that no run has.
    """
    require_commit(project.repo)
    record = run_named(project, what)
    if record is not None:
        return _of_run(project, record)
    try:
        variant = find_variant(project.repo, what)
    except UnknownVariant as error:
        raise _nothing_named(project, what, error) from None
    return _of_variant(project, variant)


def _nothing_named(project: Project, what: str, error: UnknownVariant) -> UnknownVariant:
    """Why there is nothing to show: the branch may be gone, and its runs not."""
    runs = [one for one in project.records.heads() if one.variant == what]
    by_hand = [one.run_id for one in runs if one.by_hand is not None]
    gone = sorted({one.seed for one in runs if one.by_hand is None})
    if by_hand and not gone:
        return UnknownVariant(
            f"{what} is no variant: {len(by_hand)} runs of a script were called by hand there",
            hint=", ".join(f"expmgr show {run_id}" for run_id in by_hand[-5:]),
        )
    if gone:
        named = ", ".join(f"expmgr show {what}:{seed}" for seed in gone[:5])
        return UnknownVariant(f"the branch of {what} is gone, its runs are kept", hint=named)
    if "short name" in error.message:
        return error
    return UnknownVariant(f"there is neither a variant nor a run {what}", hint=error.hint)


def _of_variant(project: Project, variant: Variant) -> VariantDetails:
    from expmgr.runs.counting import counted_runs

    heads = [head for head in project.records.heads() if head.variant == str(variant.name)]
    runs = project.records.whole(heads)
    row = row_of(project, variant, origins(project.repo).get(variant.name), heads)
    spec_text = project.repo.read(variant.commit, variant.name.spec_path) or b""
    current = set(row.current)
    return VariantDetails(
        row,
        variant.committed_at,
        project.shown(project.layout.variant_dir(variant.name)),
        variant.name.spec_path,
        spec_text.decode("utf-8", "replace"),
        runs,
        frozenset(record.run_id for record in counted_runs([one for one in runs if one.run_id in current])),
        notes_on(project, str(variant.name), None),
        project.records.skipped_of(variant.name),
    )


def _of_run(project: Project, record: RunRecord) -> RunDetails:
    from expmgr.runs.origin import is_foreign
    from expmgr.store.find import whereabouts

    log = project.records.run_dir(record.run_id).log
    return RunDetails(
        record,
        notes_on(project, record.variant, record.run_id),
        {} if record.has_ended else project.records.progress(record.run_id),
        project.shown(log) if log.exists() else None,
        whereabouts(project, record) if is_foreign(project.records.run_dir(record.run_id)) else (),
    )
