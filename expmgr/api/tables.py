"""Runs, differences and comparisons as a notebook shows them."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from expmgr.render.notebook import html_table, loss_curves

if TYPE_CHECKING:
    from expmgr.comparison.comparison import Comparison
    from expmgr.comparison.differences import Differences
    from expmgr.comparison.sides import Check
    from expmgr.runs.record import RunRecord


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
        return html_table(head, self._rows()) + loss_curves(self.records)


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
        table = html_table(("part", "what", *self.differences.variants), self._rows())
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
        return f"{html_table(self._head(), self._rows())}{self._picture()}<ul>{notes}</ul>"

    def _picture(self) -> str:
        """The picture of `expmgr compare --plot`, where matplotlib is installed."""
        from expmgr.render.plots import inline

        try:
            return inline(self.comparison, self._curves_of)
        except ImportError:
            return ""
