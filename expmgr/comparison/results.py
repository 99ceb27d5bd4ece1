"""The result of a comparison: difference, interval, verdict, and the sentence that states it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from expmgr.comparison.checks.table import checks_of, worst
from expmgr.comparison.sides import Answer, Case, Check
from expmgr.comparison.statistics import (
    FEW_SEEDS,
    FEWEST_SEEDS,
    ComparisonVerdict,
    ConfidenceInterval,
    MeanDifference,
    holm,
    is_share,
    noise_of,
)

_LEVEL = 0.95


@dataclass(frozen=True)
class Result:
    """What the numbers say of a variant and the baseline."""

    case: Case
    checks: Sequence[Check]
    interval: ConfidenceInterval | None
    """Of the difference, turned so that more is better, at 95 %; None for fewer than three seeds on a side."""
    family: ConfidenceInterval | None
    """The same, wide enough that all of several candidates' hold together; it decides."""
    candidates: int
    """How many were compared with the baseline."""
    holm_p: float | None
    """Of the same test, adjusted for the number of candidates."""

    @property
    def difference(self) -> MeanDifference | None:
        return self.case.difference

    @property
    def is_blocked(self) -> bool:
        """Whether the question makes no sense."""
        return worst(self.checks) is Answer.BLOCK

    @property
    def verdict(self) -> ComparisonVerdict | None:
        """None where the comparison is blocked, or a side has fewer than three seeds."""
        if self.family is None or self.is_blocked:
            return None
        return self.family.verdict(self.case.effect or None)

    @property
    def seeds_needed(self) -> int | None:
        """Seeds on each side that would settle what is open now, with a power of 0.8; None where nothing is open, or no
        number does."""
        if self.verdict is not ComparisonVerdict.INCONCLUSIVE or self.difference is None or self.family is None:
            return None
        found = self.difference.seeds_needed(self.case.effect or None, self.family.level)
        return None if found is None or found <= min(self.difference.seeds) else found

    @property
    def sentence(self) -> str:
        """What can be said, in words."""
        if self.is_blocked:
            ids = ", ".join(check.id for check in self.checks if check.answer is Answer.BLOCK)
            return f"not comparable ({ids})"
        return _with_seeds(self) if self.verdict is not None else _too_few(self.case)

    @property
    def notes(self) -> list[str]:
        """What belongs beside the sentence."""
        return [*_notes(self)]

    def as_dict(self) -> dict[str, Any]:
        found = self.difference
        return {
            "verdict": self.verdict.value if self.verdict else None,
            "sentence": self.sentence,
            "notes": self.notes,
            "is_blocked": self.is_blocked,
            "method": found.method if found else None,
            "mean": found.mean if found else None,
            "interval": _as_list(self.interval),
            "family": _as_list(self.family),
            "level": self.family.level if self.family else None,
            "candidates": self.candidates,
            "p": found.p if found else None,
            "holm_p": self.holm_p,
            "signs_p": found.signs_p if found else None,
            "p_better": found.p_better if found else None,
            "seeds_needed": self.seeds_needed,
            "checks": [check.as_dict() for check in self.checks],
        }


def results_of(cases: Sequence[Case]) -> list[Result]:
    """The results of some variants against one baseline."""
    found = [case.difference for case in cases]
    # A candidate without a number was a candidate all the same.
    adjusted = holm([one.p if one is not None else 1.0 for one in found])
    many = max(len(found), 1)
    return [
        Result(
            case=case,
            checks=checks_of(case),
            interval=one.interval(_LEVEL) if one else None,
            family=one.interval(1 - (1 - _LEVEL) / many) if one else None,
            candidates=len(cases),
            holm_p=holm_p if one else None,
        )
        for case, one, holm_p in zip(cases, found, adjusted, strict=True)
    ]


def _as_list(interval: ConfidenceInterval | None) -> list[float] | None:
    return [interval.low, interval.high] if interval else None


# Sentences for a result. One that names a better side also says by how much, and over how many seeds.


def _with_seeds(result: Result) -> str:
    interval, verdict, effect = result.family, result.verdict, result.case.effect
    assert interval is not None
    assert verdict is not None
    low, high, unit = _unit(result.case, interval.low, interval.high)
    basis = f"({100 * interval.level:.3g} %, {_seeds(result)})"
    if verdict in (ComparisonVerdict.BETTER, ComparisonVerdict.BETTER_SIZE_NOT_JUDGED):
        return f"better by {low} to {high}{unit} {basis}"
    if verdict in (ComparisonVerdict.WORSE, ComparisonVerdict.WORSE_SIZE_NOT_JUDGED):
        low, high, _ = _unit(result.case, -interval.high, -interval.low)
        return f"worse by {low} to {high}{unit} {basis}"
    if verdict is ComparisonVerdict.BETTER_SIZE_UNSURE:
        return f"better, size unsure: by {low} to {high}{unit} {basis}"
    if verdict is ComparisonVerdict.WORSE_SIZE_UNSURE:
        low, high, _ = _unit(result.case, -interval.high, -interval.low)
        return f"worse, size unsure: by {low} to {high}{unit} {basis}"
    where = f"{low} to {high}{unit} {basis}"
    if verdict is ComparisonVerdict.EQUIVALENT:
        small = "" if interval.holds_zero else "; a difference, smaller than the minimum effect"
        return f"equivalent: {where}, less than {_number(result.case, effect or 0.0)}{unit}{small}"
    needed = result.seeds_needed
    more = f"; {needed} seeds would settle it" if needed else ""
    return f"inconclusive: {where}{more}"


def _too_few(case: Case) -> str:
    counts = [len(side.values) for side in case.sides]
    if not all(counts):
        return "no claim: a side has no result"
    if min(counts) == 1:
        noise = _own_noise(case)
        return f"no claim: one seed{f'; the rows that are evaluated are themselves good for {noise}' if noise else ''}"
    return f"no claim: two seeds, {FEWEST_SEEDS} are wanted"


def _own_noise(case: Case) -> str | None:
    """How far the number of one run may move with the choice of the rows that are evaluated."""
    rows = {one.data[side.split].rows for side in case.sides for one in side.runs if side.split in one.data}
    if len(rows) != 1 or None in rows or not is_share(case.base.metric):
        return None
    (count,) = rows
    value = next(iter(case.other.values.values()))
    return f"{100 * 1.96 * noise_of(value, count or 1):.1f} points either way ({count:,} rows)"


def _notes(result: Result) -> Iterator[str]:
    found, interval = result.difference, result.family
    if result.is_blocked or found is None or interval is None or result.verdict is None:
        return
    if result.verdict in (ComparisonVerdict.BETTER_SIZE_NOT_JUDGED, ComparisonVerdict.WORSE_SIZE_NOT_JUDGED):
        said = result.case.base.spec.compared
        other = said.minimum_effect is not None and said.metric != result.case.base.metric
        yield "size not judged: " + (
            f"compare.minimum_effect is declared for {said.metric}"
            if other
            else "the baseline's spec declares no compare.minimum_effect"
        )
    elif result.case.effect and result.verdict is not ComparisonVerdict.EQUIVALENT:
        yield f"{_number(result.case, result.case.effect)}{_unit(result.case, 0, 0)[2]} is the smallest that matters"
    if not found.error:
        moves = len(set(result.case.base.values.values())) > 1 or len(set(result.case.other.values.values())) > 1
        why = "the difference is the same on every seed" if moves else "no value moves with the seed"
        yield f"{why}, so the interval has no width"
    if result.case.mode == "min" and result.verdict in (ComparisonVerdict.EQUIVALENT, ComparisonVerdict.INCONCLUSIVE):
        yield "turned round, since less is better: above 0 is better"
    if min(found.seeds) < FEW_SEEDS:
        yield "few seeds"
    if found.method == "welch":
        yield "the seeds differ, so they are not paired"
    yield f"P(better) {found.p_better:.2f}"
    if result.candidates > 1:
        yield f"of {result.candidates} candidates, Holm's p {result.holm_p:.2g}"
    if found.signs_p is not None:
        yield f"p by signs {found.signs_p:.2g}"
        if found.signs_disagree(interval.level):
            yield "warning: the signs of the pairs say otherwise than the interval"


def _seeds(result: Result) -> str:
    assert result.difference is not None
    one, two = result.difference.seeds
    return f"{one} seeds" if one == two else f"{one} and {two} seeds"


def _unit(case: Case, low: float, high: float) -> tuple[str, str, str]:
    """Both ends as they are said, and the unit: points where the metric is a share of rows."""
    return _number(case, low), _number(case, high), " points" if is_share(case.base.metric) else ""


def _number(case: Case, value: float) -> str:
    if is_share(case.base.metric):
        return f"{100 * value:.1f}".replace("-0.0", "0.0")
    return f"{value:.3g}"
