"""A repository from Python: what the commands do, for scripts and notebooks. TensorFlow runs in its own process."""

from __future__ import annotations

import html
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expmgr.errors import ExpmgrError
from expmgr.launch.local import Watcher, run_tasks
from expmgr.project import Project

if TYPE_CHECKING:
    from expmgr.comparison.comparison import Comparison
    from expmgr.comparison.differences import Differences
    from expmgr.comparison.sides import Check
    from expmgr.launch.plan import Outcome
    from expmgr.launch.prepare import Prepared
    from expmgr.runs.record import RunRecord

_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2")


def open(path: str | Path = ".") -> Repository:
    """The repository that `path` lies in. Raises `ExpmgrError` where it is none."""
    return Repository(Project.open(Path(path)))


def compare(
    variants: Sequence[str],
    *,
    baseline: str | None = None,
    metric: str | None = None,
    seeds: Sequence[int] | None = None,
    path: str | Path = ".",
) -> ComparisonTable:
    """`open(path).compare(...)`, for a notebook that does nothing else."""
    names = [variants] if isinstance(variants, str) else variants
    return open(path).compare(*names, baseline=baseline, metric=metric, seeds=seeds)


class Repository:
    """Variants of one repository: made, trained and compared as by the commands of the same names."""

    def __init__(self, project: Project) -> None:
        self._project = project

    @property
    def variants(self) -> list[str]:
        """Their names."""
        from expmgr.variants.variants import all_variants

        return [str(one.name) for one in all_variants(self._project.repo)]

    def new(
        self, variant: str, *, base: str | None = None, set: Mapping[str, Any] | None = None, why: str | None = None
    ) -> str:
        """Make a variant; its name. `set` maps dotted keys of the spec to values, None to unset one.

        Raises `SpecProblem`, `BranchExists` and the like, and nothing has changed.
        """
        from expmgr.team.publish import new_variant
        from expmgr.variants.variants import plan_variant

        assignments = [f"{key}={json.dumps(value)}" for key, value in (set or {}).items()]
        plan = plan_variant(self._project.repo, variant, base, assignments, why)
        new_variant(self._project, plan)
        return str(plan.name)

    def run(
        self,
        *variants: str,
        seeds: Sequence[int] | None = None,
        max_steps: int | None = None,
        jobs: int = 1,
        fresh: bool = False,
        allow: Sequence[str] = (),
        quiet: bool = False,
    ) -> Runs:
        """Train `variants`, with each of `seeds`; their runs when all have ended.

        Progress goes to stderr unless `quiet`. Raises the first error where one was not trained to its end, after all
        others have ended; `Runs` of those are in `runs(variant)`.
        """
        from expmgr.launch.plan import How, plan_tasks

        how = How(max_steps, fresh, None, tuple(allow))
        tasks = plan_tasks(self._project, variants, seeds, how)
        outcomes = run_tasks(self._project, tasks, jobs=jobs, watcher=Watcher() if quiet else _Lines())
        for one in outcomes:
            if one.error is not None:
                raise one.error
        return Runs([one.record for one in outcomes if one.record is not None])

    def runs(self, variant: str) -> Runs:
        """Every run of a variant that is recorded here."""
        from expmgr.variants.variants import find_variant

        return Runs(self._project.records.of_variant(find_variant(self._project.repo, variant).name))

    def compare(
        self, *variants: str, baseline: str | None = None, metric: str | None = None, seeds: Sequence[int] | None = None
    ) -> ComparisonTable:
        """As `expmgr compare`; the first is the baseline, unless said. A notebook shows numbers, verdicts and a picture."""
        from expmgr.comparison.comparison import compare as compared
        from expmgr.comparison.used_runs import chosen

        if not variants:
            raise ExpmgrError(
                "compare() takes the names of variants", hint='repository.compare("iris/baseline", "iris/wide")'
            )
        seeds = list(seeds) if seeds is not None else None
        if seeds is not None and not all(isinstance(one, int) for one in seeds):
            raise ExpmgrError("seeds are numbers: seeds=range(5), or [0, 3, 5]")
        found = chosen(self._project, variants, baseline)
        comparison = compared(found.subjects, baseline=found.baseline, metric=metric, tried=found.tried, seeds=seeds)
        return ComparisonTable(comparison, lambda run_id: self._project.records.load(run_id).curves)

    def diff(self, *variants: str) -> Changes:
        """As `expmgr diff`: what differs, held against the first, and whether nothing else does."""
        from expmgr.comparison.differences import differences
        from expmgr.comparison.used_runs import chosen

        return Changes(differences(self._project, chosen(self._project, variants, variants[0]).subjects))


class _Lines(Watcher):
    """A line where a run begins and where it ends."""

    def started(self, prepared: Prepared) -> None:
        task = prepared.task
        print(f"{task.name} seed {task.seed}: to step {task.max_steps}", file=sys.stderr)

    def ended(self, outcome: Outcome) -> None:
        task, record = outcome.task, outcome.record
        if record is not None:
            print(f"{task.name} seed {task.seed}: {record.status} at step {record.step}", file=sys.stderr)


@dataclass(frozen=True)
class Runs:
    """Some runs; in a notebook a table, and the curves of their losses."""

    records: Sequence[RunRecord]

    def __iter__(self) -> Iterator[RunRecord]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, number: int) -> RunRecord:
        return self.records[number]

    def __repr__(self) -> str:
        return "\n".join("  ".join(row) for row in self._rows()) or "no run"

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for one in self.records:
            values = one.metrics.get("selected", {}).get("eval", {})
            told = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
            yield one.run_id, one.variant, str(one.seed), one.status, str(one.step), told

    def _repr_html_(self) -> str:
        head = ("run", "variant", "seed", "status", "step", "eval")
        return _html_table(head, self._rows()) + _curves(self.records)


@dataclass(frozen=True)
class Changes:
    """What differs between variants; `as_dict()` is what `expmgr diff --json` prints."""

    differences: Differences

    def as_dict(self) -> dict[str, Any]:
        return self.differences.as_dict()

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for part in self.differences.parts:
            for row in part.changed:
                yield part.name, row.what, *(str(value) for value in row.values)

    def __repr__(self) -> str:
        return "\n".join(["  ".join(row) for row in self._rows()] + [self.differences.sentence])

    def _repr_html_(self) -> str:
        table = _html_table(("part", "what", *self.differences.variants), self._rows())
        return f"{table}<p>{html.escape(self.differences.sentence)}</p>"


@dataclass(frozen=True)
class ComparisonTable:
    """A comparison; `as_dict()` is what `expmgr compare --json` prints."""

    comparison: Comparison
    _curves_of: Callable[[str], Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]]

    def as_dict(self) -> dict[str, Any]:
        return self.comparison.as_dict()

    @property
    def verdict(self) -> str | None:
        """The verdict on the variant, or on the best of several: "better", "worse", "equivalent", "inconclusive" and so
        on; None where they cannot be compared, or have too few seeds."""
        return self.comparison.verdict

    @property
    def checks(self) -> Sequence[Check]:
        """What each check says."""
        return self.comparison.checks

    def to_pandas(self) -> Any:
        """A row a variant and seed, as a `pandas.DataFrame`: variant, seed, run, value, and every other metric of the
        split. Raises `ImportError` where pandas is not installed."""
        import pandas

        comparison = self.comparison
        return pandas.DataFrame(
            [
                {
                    "variant": row.variant,
                    "seed": record.seed,
                    "run": record.run_id,
                    "value": row.values[record.seed],
                    **record.metrics.get("selected", {}).get(comparison.split, {}),
                }
                for row in comparison.rows
                for record in row.side.runs
            ]
        )

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for row in self.comparison.rows:
            numbers = (row.mean, row.std, row.difference)
            shown = ["-" if one is None else f"{one:.4f}" for one in numbers]
            words = row.result.sentence if row.result else ""
            yield (
                row.variant,
                str(len(row.values)),
                shown[0],
                shown[1],
                "baseline" if row.is_baseline else shown[2],
                words,
            )

    def _head(self) -> tuple[str, ...]:
        measured = f"{self.comparison.metric} ({self.comparison.split})"
        return "variant", "seeds", measured, "std", "difference", "verdict"

    def _warnings(self) -> Iterator[str]:
        seen = dict.fromkeys((one.answer.value, one.id, one.told) for one in self.checks if one.answer.value != "ok")
        yield from (f"{answer} ({name}): {told}" for answer, name, told in seen)

    def __repr__(self) -> str:
        lines = ["  ".join(row).rstrip() for row in (self._head(), *self._rows())]
        return "\n".join([*lines, *self._warnings()])

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{html.escape(line)}</li>" for line in self._warnings())
        return f"{_html_table(self._head(), self._rows())}{self._picture()}<ul>{notes}</ul>"

    def _picture(self) -> str:
        """The picture of `expmgr compare --plot`, where matplotlib is installed."""
        from expmgr.render.plots import inline

        try:
            return inline(self.comparison, self._curves_of)
        except ImportError:
            return ""


def _html_table(head: Sequence[str], rows: Iterator[tuple[str, ...]]) -> str:
    def line(cells: Sequence[str], kind: str) -> str:
        return "<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in cells) + "</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _curves(records: Sequence[RunRecord]) -> str:
    """The loss of training of each run over its steps, as a picture; empty where there is none."""
    curves = {f"{one.variant}:{one.seed}": one.curves.get("train", {}).get("loss", []) for one in records}
    curves = {name: points for name, points in curves.items() if len(points) > 1}
    if not curves:
        return ""
    steps = [step for points in curves.values() for step, _ in points]
    values = [value for points in curves.values() for _, value in points]
    low, high, first, last = min(values), max(values), min(steps), max(steps)
    width, height, left, top = 560, 200, 60, 10

    def place(step: int, value: float) -> str:
        x = left + width * (step - first) / max(last - first, 1)
        y = top + height * (high - value) / ((high - low) or 1.0)
        return f"{x:.1f},{y:.1f}"

    lines, names = [], []
    for number, (name, points) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(place(step, value) for step, value in points)
        lines.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{path}"/>')
        names.append(
            f'<text x="{left + width + 10}" y="{top + 12 + 16 * number}" fill="{colour}">{html.escape(name)}</text>'
        )
    bottom = top + height
    axes = (
        f'<path d="M{left},{top}V{bottom}H{left + width}" fill="none" stroke="#888"/>'
        f'<text x="{left - 6}" y="{top + 10}" text-anchor="end">{high:.3g}</text>'
        f'<text x="{left - 6}" y="{bottom}" text-anchor="end">{low:.3g}</text>'
        f'<text x="{left}" y="{bottom + 16}">{first}</text>'
        f'<text x="{left + width}" y="{bottom + 16}" text-anchor="end">step {last}</text>'
        f'<text x="{left + width / 2}" y="{bottom + 16}" text-anchor="middle">loss of training</text>'
    )
    size = f'width="{left + width + 180}" height="{max(bottom + 24, 30 + 16 * len(curves))}"'
    style = 'font-family="sans-serif" font-size="12"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{axes}{"".join(lines)}{"".join(names)}</svg>'


__all__ = ["ComparisonTable", "ExpmgrError", "Repository", "Runs", "open"]
