"""The list of variants that `expmgr list` prints, as data: one row per variant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from expmgr.api.variant_row import VariantRow
from expmgr.errors import ExpmgrError, UnknownVariant
from expmgr.launch.arguments import whole_number

if TYPE_CHECKING:
    from expmgr.disk.index import Head
    from expmgr.project import Project
    from expmgr.runs.records import SkippedRun
    from expmgr.variants.variants import Origin, Variant


@dataclass(frozen=True)
class Listing:
    """Some variants, in the order that was asked for. `as_dict()` is what `expmgr list --json` prints."""

    variants: Sequence[VariantRow]
    without_branch: Mapping[str, int]
    """Variants with runs whose branch is gone, to the number of these runs."""
    by_hand: Sequence[str]
    """Ids of the runs of scripts that were called by hand, the oldest first."""
    skipped: Sequence[SkippedRun] = ()
    """The runs whose records are damaged or cannot be read."""
    left_out: int = 0
    """How many variants the conditions and the limit left out."""

    def as_dict(self) -> dict[str, Any]:
        rows = [row.as_dict() for row in self.variants]
        about = {"without_branch": sorted(self.without_branch), "by_hand": list(self.by_hand)}
        skipped = [one.as_dict() for one in self.skipped]
        return {"format": 1, "variants": rows, **about, "skipped": skipped}

    def __iter__(self) -> Iterator[VariantRow]:
        return iter(self.variants)

    def __len__(self) -> int:
        return len(self.variants)

    def __getitem__(self, number: int) -> VariantRow:
        return self.variants[number]

    def to_pandas(self) -> Any:
        """A row per variant, as a `pandas.DataFrame` with the keys of `as_dict()`. Raises `ImportError` where pandas is not
        installed."""
        import pandas

        return pandas.DataFrame([row.as_dict() for row in self.variants])

    def _rows(self) -> Iterator[tuple[str, ...]]:
        return ((row.variant, row.made_from, row.counts, row.result, row.why) for row in self.variants)

    def __repr__(self) -> str:
        return "\n".join("  ".join(row) for row in self._rows()) or "no variant"

    def _repr_html_(self) -> str:
        from expmgr.render.notebook import html_table

        return html_table(("variant", "from", "runs", "result", "why"), self._rows())


def list_variants(
    project: Project,
    experiment: str | None = None,
    *,
    where: Sequence[str] = (),
    sort: str | None = None,
    limit: int | None = None,
) -> Listing:
    """The variants, all or of one experiment: those that every condition of `where` holds of (`KEY=VALUE`, or != > >= < <= ~;
    a key of the spec, a metric or a column), sorted by the key `sort` (`-KEY` falls), the first `limit`.

    Raises `UnknownVariant` for an experiment that nothing is of, `NoSuchKey` and `BadArgument`.
    """
    from expmgr.variants.variants import all_variants, origins

    if limit is not None:
        limit = whole_number("limit", limit, 1)
    by_variant, by_hand = _heads(project)
    known = all_variants(project.repo)
    made = origins(project.repo, variants=known)
    variants = [one for one in known if experiment in (None, one.name.experiment)]
    if experiment is not None:
        _require_known(experiment, {one.name.experiment for one in known}, by_variant)
        by_variant = {name: runs for name, runs in by_variant.items() if name.startswith(f"{experiment}/")}
    runs_of = {str(one.name): by_variant.pop(str(one.name), []) for one in variants}
    rows = [row_of(project, one, made.get(one.name), runs_of[str(one.name)]) for one in variants]
    if where or sort or limit is not None:
        from expmgr.api.filters import chosen

        by_name = {str(one.name): one for one in variants}

        def flat_spec(name: str) -> dict[str, Any]:
            return _flat_spec(project, by_name[name], runs_of[name])

        rows = chosen(rows, flat_spec, where=where, sort=sort, limit=limit)
    skipped = [one for _, one in sorted(project.records.skipped.items())]
    gone = {name: len(runs) for name, runs in sorted(by_variant.items())}
    return Listing(rows, gone, [one.run_id for one in by_hand], skipped, len(variants) - len(rows))


def _heads(project: Project) -> tuple[dict[str, list[Head]], list[Head]]:
    """The heads of all runs by variant, and those of scripts that were called by hand."""
    by_variant: dict[str, list[Head]] = {}
    by_hand: list[Head] = []
    for head in project.records.heads():
        if head.by_hand is not None:
            by_hand.append(head)
        else:
            by_variant.setdefault(head.variant, []).append(head)
    return by_variant, by_hand


def _require_known(experiment: str, known: set[str], by_variant: Mapping[str, Sequence[Head]]) -> None:
    experiments = sorted(known | {name.partition("/")[0] for name in by_variant})
    if experiments and experiment not in experiments:
        raise UnknownVariant(
            f"there is no variant of an experiment {experiment}", hint=f"there is {', '.join(experiments)}"
        )


def _flat_spec(project: Project, variant: Variant, runs: Sequence[Head]) -> dict[str, Any]:
    """The variant's spec at its newest commit, by dotted key; empty if it cannot be read, which a note says."""
    from expmgr.spec.changes import flat
    from expmgr.variants.variants import spec_of

    if runs and runs[-1].commit == variant.commit:
        return flat(runs[-1].spec)
    try:
        return flat(spec_of(project.repo, variant).resolved())
    except ExpmgrError as problem:
        project.records.on_note(f"conditions and order know no spec of {variant.name}: {problem.message}")
        return {}


def _current(project: Project, variant: Variant, runs: Sequence[Head]) -> list[Head]:
    """The runs that were made with the spec and the code that the branch has now."""
    if all(record.commit == variant.commit for record in runs):
        return list(runs)
    from expmgr.comparison.used_runs import code_digest_of
    from expmgr.runs.counting import is_outdated
    from expmgr.variants.variants import spec_of

    try:
        spec = spec_of(project.repo, variant)
        digest = code_digest_of(project, variant)
    except ExpmgrError:  # `run` and `compare` say what is wrong with it
        return [record for record in runs if record.commit == variant.commit]
    return [record for record in runs if record.commit == variant.commit or not is_outdated(record, spec, digest)]


def row_of(project: Project, variant: Variant, origin: Origin | None, runs: Sequence[Head]) -> VariantRow:
    """A variant with its result, from the heads of its runs."""
    from expmgr.comparison.statistics import mean_and_std
    from expmgr.runs.counting import counted_runs

    metric, split = (runs[-1].metric_name, runs[-1].split) if runs else (None, None)
    values = []
    skipped = [one for one in project.records.skipped.values() if one.variant == str(variant.name)]
    current = _current(project, variant, runs)
    if metric is not None and split is not None:
        found = [record.metric(metric, split) for record in counted_runs(current)]
        values = [value for value in found if value is not None]
    mean, std = mean_and_std(values)
    return VariantRow(
        variant=str(variant.name),
        branch=variant.name.branch,
        commit=variant.commit,
        base=origin.base if origin else None,
        why=origin.why if origin else variant.subject,
        warm_start=warm_started(next((one.warm_start for one in reversed(runs) if one.warm_start), None)),
        runs=dict(Counter([*(record.status for record in runs), *(one.status for one in skipped)])),
        seeds=sorted({record.seed for record in runs}),
        metric=metric,
        split=split,
        current=[record.run_id for record in current],
        mean=mean,
        std=std,
        last_run_at=max((record.started_at for record in runs), default=None),
    )


def warm_started(told: Mapping[str, Any] | None) -> str | None:
    """The checkpoint that a run started from, as VARIANT@STEP."""
    return f"{told['variant']}@{told['step']}" if told else None
