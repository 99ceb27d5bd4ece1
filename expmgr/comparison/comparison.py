"""Compares variants: collects runs, means over seeds, checks, verdicts and changes of the spec.

Reads records, specs and manifests alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from expmgr.comparison.checks.table import OF_ONE, checks_of
from expmgr.comparison.results import Result, results_of
from expmgr.comparison.sides import Case, Check, Side, Subject, Tried, trained_s
from expmgr.comparison.statistics import mean_and_std
from expmgr.comparison.used_runs import Chosen
from expmgr.errors import UnknownMetric, UnknownVariant, did_you_mean
from expmgr.paths import VariantName
from expmgr.runs.counting import ABOUT
from expmgr.spec.changes import changes, flat
from expmgr.spec.experiment import ExperimentSpec
from expmgr.spec.metrics import CLASSIFIER_METRICS, REGRESSOR_METRICS


@dataclass(frozen=True)
class Row:
    """One variant's numbers. `values` holds the metric of each seed's newest finished run, at its selected checkpoint."""

    side: Side
    is_baseline: bool
    mean: float | None
    std: float | None
    """Sample standard deviation over the seeds; None for fewer than two."""
    difference: float | None
    """Mean less the baseline's mean, in the metric's own unit."""
    changes: dict[str, tuple[Any, Any]]
    """Spec keys that are otherwise than the baseline's: both values, the baseline's first."""
    parameters: int | None
    train_s: float | None
    """Mean seconds of training a run."""
    other_code: bool = False
    """Whether files of the experiment, or modules that it reaches, are others than the baseline's; the spec apart."""
    result: Result | None = None
    """What the numbers say of it and the baseline; None for the baseline."""

    @property
    def variant(self) -> str:
        return self.side.name

    @property
    def values(self) -> dict[int, float]:
        return self.side.values

    def as_dict(self) -> dict[str, Any]:
        side = self.side
        return {
            "variant": self.variant,
            "is_baseline": self.is_baseline,
            "seeds": sorted(self.values),
            "values": {str(seed): value for seed, value in sorted(self.values.items())},
            "mean": self.mean,
            "std": self.std,
            "difference": self.difference,
            "changes": {key: {"baseline": old, "variant": new} for key, (old, new) in self.changes.items()},
            "other_code": self.other_code,
            "parameters": self.parameters,
            "train_s": self.train_s,
            "runs": [record.run_id for record in side.runs],
            "left_aside": {str(seed): run for seed, run in sorted(side.left_aside.items())},
            "waiting": {str(seed): status for seed, status in sorted(side.waiting.items())},
            "without_metric": side.without_metric,
            "steps": {str(record.seed): record.step for record in side.runs},
            "max_steps": side.spec.train.max_steps,
            "result": self.result.as_dict() if self.result else None,
        }


@dataclass(frozen=True)
class Comparison:
    """Several variants by one metric. The baseline comes first unless the rows were sorted."""

    metric: str
    mode: str
    split: str
    baseline: str
    rows: list[Row]
    minimum_effect: float | None = None
    """The smallest difference that matters, as the baseline's spec says."""
    tried: int = 0
    """Variants that were tried against the baseline, deleted ones too."""
    is_confirmed: bool = False

    @property
    def checks(self) -> list[Check]:
        """What every check says, variant by variant; of a single variant what can be said of it alone."""
        if len(self.rows) == 1:
            side = self.rows[0].side
            return [one for one in checks_of(Case(side, side, self.mode, None, Tried())) if one.id in OF_ONE]
        return [check for row in self.rows if row.result for check in row.result.checks]

    @property
    def is_blocked(self) -> bool:
        """Whether a question makes no sense."""
        return any(row.result.is_blocked for row in self.rows if row.result)

    @property
    def verdict(self) -> str | None:
        """The verdict on a single variant, or on the best of several; None where there is none."""
        found = [row.result for row in self.rows if row.result and row.result.verdict]
        best = max(found, key=lambda one: one.difference.mean if one.difference else 0.0, default=None)
        return best.verdict.value if best and best.verdict else None

    def as_dict(self) -> dict[str, Any]:
        return {
            "format": 1,
            "metric": self.metric,
            "mode": self.mode,
            "split": self.split,
            "baseline": self.baseline,
            "minimum_effect": self.minimum_effect,
            "tried": self.tried,
            "is_confirmed": self.is_confirmed,
            "is_blocked": self.is_blocked,
            "variants": [row.as_dict() for row in self.rows],
        }


def compare(
    subjects: Sequence[Subject],
    *,
    baseline: VariantName | None = None,
    metric: str | None = None,
    split: str | None = None,
    everything: bool = False,
    tried: Tried | None = None,
    seeds: Iterable[int] | None = None,
    is_confirmed: bool = False,
    in_review: bool = False,
) -> Comparison:
    """Compare `subjects`; the first is the baseline unless `baseline` names another of them.

    `metric` and `split` come from the baseline's spec where they are not given. With `everything`, `changes` holds all
    keys of the spec. `seeds` leaves others out; `is_confirmed` says that they were chosen before any had a result,
    `in_review` that a decision hangs on it. Raises `UnknownVariant` for a baseline that is not among the subjects.
    """
    base = next((one for one in subjects if one.name == (baseline or subjects[0].name)), None)
    if base is None:
        raise UnknownVariant(
            f"{baseline} is the baseline, but it is not among the variants that are compared",
            hint=f"expmgr compare {baseline} {' '.join(str(one.name) for one in subjects)}",
        )
    compared = base.spec.compared
    name = metric or compared.metric
    mode = check_metric(name, base.spec) if metric else compared.mode
    where = split or compared.split
    taken = frozenset(seeds) if seeds is not None else None
    sides = {one.name: Side(one, name, where, taken) for one in subjects}
    if base.spec.known_metrics is None and metric and not any(side.values for side in sides.values()):
        _require_recorded(metric, where, subjects)
    effect = compared.minimum_effect if name == compared.metric else None
    known = tried or Tried()
    others = [side for key, side in sides.items() if key != base.name]
    cases = [Case(sides[base.name], side, mode, effect, known, is_confirmed, in_review) for side in others]
    results = dict(zip((side.name for side in others), results_of(cases), strict=True))
    rows = [_row(side, sides[base.name], everything, results.get(side.name)) for side in sides.values()]
    rows.sort(key=lambda row: not row.is_baseline)
    count = len(known.seeds.keys() | results.keys())
    return Comparison(name, mode, where, str(base.name), rows, effect, count, is_confirmed)


def _require_recorded(metric: str, split: str, subjects: Sequence[Subject]) -> None:
    """`UnknownMetric` where runs were evaluated, by other metrics alone: code decides which there are."""
    runs = [record for one in subjects for record in one.counted]
    names = sorted({name for one in runs for name in one.metrics.get("selected", {}).get(split, {})})
    if names:
        raise UnknownMetric(
            f"no run was evaluated by {metric} on {split}",
            hint=did_you_mean(metric, names, f"one of {', '.join(names)}"),
        )


def best_of(found: Chosen, metric: str | None) -> tuple[VariantName, VariantName]:
    """The variant with the best mean, and the baseline. Raises `UnknownVariant` where none has a result."""
    comparison = compare(found.subjects, baseline=found.baseline, metric=metric, tried=found.tried)
    rows = [row for row in comparison.rows if row.mean is not None and not row.is_baseline]
    if not rows:
        name = comparison.baseline
        raise UnknownVariant(f"no variant beside {name} has a result", hint="expmgr list shows what there is")
    sign = 1.0 if comparison.mode == "max" else -1.0
    best = max(rows, key=lambda row: sign * (row.mean or 0.0))
    return best.side.subject.name, next(row.side.subject.name for row in comparison.rows if row.is_baseline)


def check_metric(metric: str, spec: ExperimentSpec) -> Literal["max", "min"]:
    """The direction in which `metric` is better; `UnknownMetric`, with those that there are, for another one."""
    known = spec.known_metrics
    if known is None:  # code decides which there are
        return spec.direction(metric)
    if metric not in known:
        others = {**CLASSIFIER_METRICS, **REGRESSOR_METRICS}
        reason = " for this model" if metric in others else ""
        raise UnknownMetric(
            f"there is no metric {metric}{reason}",
            hint=did_you_mean(metric, known, f"one of {', '.join(known)}"),
        )
    return "max" if known[metric] == "max" else "min"


def _row(side: Side, base: Side, everything: bool, result: Result | None) -> Row:
    mean, std = mean_and_std([*side.values.values()])
    base_mean, _ = mean_and_std([*base.values.values()])
    subject = side.subject
    is_baseline = side is base
    return Row(
        side=side,
        is_baseline=is_baseline,
        mean=mean,
        std=std,
        difference=None if is_baseline or mean is None or base_mean is None else mean - base_mean,
        changes=_with_defaults(_changes(base.spec, side.spec, everything), base.subject, subject),
        parameters=side.counted[-1].parameters if side.counted else None,
        train_s=mean_and_std([trained_s(record, subject.runs) for record in side.runs])[0],
        other_code=subject.name.experiment == base.subject.name.experiment
        and subject.code_digest != base.subject.code_digest,
        result=result,
    )


def _with_defaults(changes: dict[str, tuple[Any, Any]], base: Subject, subject: Subject) -> dict[str, tuple[Any, Any]]:
    """`changes`, with the default that the code has for a param that one of the specs does not name."""
    known = [one.newest_params for one in (base, subject)]
    filled = {
        key: (known[0].get(key) if old is None else old, known[1].get(key) if new is None else new)
        for key, (old, new) in changes.items()
    }
    return {key: pair for key, pair in filled.items() if pair[0] != pair[1] or pair == changes[key]}


def _changes(base: ExperimentSpec, other: ExperimentSpec, everything: bool) -> dict[str, tuple[Any, Any]]:
    one, two = base.resolved(), other.resolved()
    if everything:
        old, new = flat(one), flat(two)
        return {key: (old.get(key), new.get(key)) for key in {**old, **new}}
    return {key: pair for key, pair in changes(one, two).items() if not key.startswith(ABOUT)}
