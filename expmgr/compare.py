"""Variants side by side: numbers over seeds, the difference to a baseline, and what the spec changes.

Reads records and specs alone. It claims nothing beyond its numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from expmgr.errors import UnknownMetric, UnknownVariant
from expmgr.paths import VariantName, nearest
from expmgr.records import ABOUT, RunRecord, counted_runs, is_outdated
from expmgr.spec import CLASSIFIER_METRICS, REGRESSOR_METRICS, ExperimentSpec, changes, flat
from expmgr.statistics import mean_and_std

if TYPE_CHECKING:
    from expmgr.project import Project


@dataclass(frozen=True)
class Subject:
    """A variant as it goes into a comparison: its spec and code now, and all its runs."""

    name: VariantName
    spec: ExperimentSpec
    code_digest: str
    runs: Sequence[RunRecord]

    @property
    def newest_params(self) -> dict[str, Any]:
        """What its code was given in the newest run that counts, defaults included."""
        counted = runs_that_count(self)
        return max(counted, key=lambda one: one.run_id).params if counted else {}


@dataclass(frozen=True)
class Row:
    """One variant's numbers. `values` holds the metric of each seed's newest finished run, at its selected checkpoint."""

    variant: str
    is_baseline: bool
    values: dict[int, float]
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
    runs: list[str]
    left_aside: dict[int, str]
    """Seed to its newest finished run, where that was made with another spec or other code than the branch has now."""
    waiting: dict[int, str]
    """Seed to the status of its newest run, where none finished."""
    without_metric: list[int]
    """Seeds whose run was not evaluated by the metric."""
    data: dict[str, list[str]]
    """Split to the sha256 of the rows that the counted runs were given, each once."""
    changed_on_the_way: bool
    """Whether a counted run, or one that it continues, was resumed with another setting."""
    steps: dict[int, int]
    """Steps that the counted run of each seed was trained for."""
    max_steps: int
    """Steps that the spec asks for."""
    fixed_seed: bool
    """Whether the spec fixes the seed (`run_config.tf_random_seed`)."""
    allowed: list[str]
    """Rules of the guard whose refusal was let pass in a run counted here."""
    other_code: bool = False
    """Whether files of the experiment, or modules that it reaches, are others than the baseline's; the spec apart."""
    same_weights: tuple[tuple[int, ...], ...] = ()
    """Seeds whose runs ended with the same weights to the last bit: one result, not several."""


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

    def as_dict(self) -> dict[str, Any]:
        return {
            "format": 1,
            "metric": self.metric,
            "mode": self.mode,
            "split": self.split,
            "baseline": self.baseline,
            "minimum_effect": self.minimum_effect,
            "variants": [
                {
                    "variant": row.variant,
                    "is_baseline": row.is_baseline,
                    "seeds": sorted(row.values),
                    "values": {str(seed): value for seed, value in sorted(row.values.items())},
                    "mean": row.mean,
                    "std": row.std,
                    "difference": row.difference,
                    "changes": {key: {"baseline": old, "variant": new} for key, (old, new) in row.changes.items()},
                    "parameters": row.parameters,
                    "train_s": row.train_s,
                    "runs": row.runs,
                    "left_aside": {str(seed): run for seed, run in sorted(row.left_aside.items())},
                    "waiting": {str(seed): status for seed, status in sorted(row.waiting.items())},
                    "without_metric": row.without_metric,
                    "data": row.data,
                    "changed_on_the_way": row.changed_on_the_way,
                    "steps": {str(seed): step for seed, step in sorted(row.steps.items())},
                    "max_steps": row.max_steps,
                    "allowed": row.allowed,
                    "other_code": row.other_code,
                    "same_weights": [list(seeds) for seeds in row.same_weights],
                }
                for row in self.rows
            ],
        }


def compare(
    subjects: Sequence[Subject],
    *,
    baseline: VariantName | None = None,
    metric: str | None = None,
    split: str | None = None,
    everything: bool = False,
) -> Comparison:
    """Compare `subjects`; the first is the baseline unless `baseline` names another of them.

    `metric` and `split` come from the baseline's spec where they are not given. With `everything`, `changes` holds all
    keys of the spec. Raises `UnknownVariant` for a baseline that is not among the subjects.
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
    base_mean, _ = mean_and_std([*_values(base, name, where).values()])
    rows = [_row(one, base, name, where, base_mean, everything) for one in subjects]
    if base.spec.known_metrics is None and metric and not any(row.values for row in rows):
        _require_recorded(metric, where, subjects)
    rows.sort(key=lambda row: not row.is_baseline)
    effect = compared.minimum_effect if name == compared.metric else None
    return Comparison(name, mode, where, str(base.name), rows, effect)


def _require_recorded(metric: str, split: str, subjects: Sequence[Subject]) -> None:
    """`UnknownMetric` where runs were evaluated, by other metrics alone: code decides which there are."""
    runs = [record for one in subjects for record in runs_that_count(one)]
    names = sorted({name for one in runs for name in one.metrics.get("selected", {}).get(split, {})})
    if names:
        near = nearest(metric, names)
        raise UnknownMetric(
            f"no run was evaluated by {metric} on {split}",
            hint=f"did you mean {near}?" if near else f"one of {', '.join(names)}",
        )


def chosen(project: Project, names: Sequence[str], baseline: str | None) -> tuple[list[Subject], VariantName | None]:
    """What is compared, and the baseline.

    Where `--baseline` says nothing, it is the one that the specs declare (`compare.baseline`) if it is among `names`,
    or if a single variant is named, which is then compared with it; otherwise the first (None).
    """
    from expmgr.variants import find_variant

    if baseline is not None:
        return _subjects(project, [baseline, *names]), find_variant(project.repo, baseline).name
    subjects = _subjects(project, names)
    declared = subjects[0].spec.compared.baseline
    if declared is None:
        return subjects, None
    if len(subjects) == 1 and declared != str(subjects[0].name):
        subjects = _subjects(project, [declared, *names])
    return subjects, next((one.name for one in subjects if str(one.name) == declared), None)


def _subjects(project: Project, names: Sequence[str]) -> list[Subject]:
    from expmgr.code import code_digest
    from expmgr.variants import find_variant, spec_of

    found = list(dict.fromkeys(find_variant(project.repo, name) for name in names))
    runs = list(project.records.all())
    return [
        Subject(
            one.name,
            spec_of(project.repo, one),
            code_digest(project.repo, one.commit, one.name),
            [record for record in runs if record.variant == str(one.name)],
        )
        for one in found
    ]


def check_metric(metric: str, spec: ExperimentSpec) -> Literal["max", "min"]:
    """The direction in which `metric` is better; `UnknownMetric`, with those that there are, for another one."""
    known = spec.known_metrics
    if known is None:  # code decides which there are
        return spec.direction(metric)
    if metric not in known:
        near = nearest(metric, known)
        others = {**CLASSIFIER_METRICS, **REGRESSOR_METRICS}
        reason = " for this model" if metric in others else ""
        raise UnknownMetric(
            f"there is no metric {metric}{reason}",
            hint=f"did you mean {near}?" if near else f"one of {', '.join(known)}",
        )
    return "max" if known[metric] == "max" else "min"


def runs_that_count(subject: Subject) -> list[RunRecord]:
    """The newest finished run of each seed, of those that were made with the spec and the code that the branch has."""
    return counted_runs(one for one in subject.runs if not is_outdated(one, subject.spec, subject.code_digest))


def _digest(record: RunRecord, split: str) -> str | None:
    return record.data[split].sha256 if split in record.data else None


def _values(subject: Subject, metric: str, split: str) -> dict[int, float]:
    values = {record.seed: record.metric(metric, split) for record in runs_that_count(subject)}
    return {seed: value for seed, value in values.items() if value is not None}


def _row(subject: Subject, base: Subject, metric: str, split: str, base_mean: float | None, everything: bool) -> Row:
    values = _values(subject, metric, split)
    counted = runs_that_count(subject)
    runs = [record for record in counted if record.seed in values]
    aside = {
        one.seed: one.run_id for one in counted_runs(subject.runs) if one.seed not in {run.seed for run in counted}
    }
    newest = {record.seed: record for record in sorted(subject.runs, key=lambda record: record.run_id)}
    chains = [_chain(record, subject.runs) for record in runs]
    mean, std = mean_and_std([*values.values()])
    is_baseline = subject.name == base.name
    return Row(
        variant=str(subject.name),
        is_baseline=is_baseline,
        values=values,
        mean=mean,
        std=std,
        difference=None if is_baseline or mean is None or base_mean is None else mean - base_mean,
        changes=_with_defaults(_changes(base.spec, subject.spec, everything), base, subject),
        parameters=counted[-1].parameters if counted else None,
        train_s=mean_and_std([sum(one.train_s for one in chain) for chain in chains])[0],
        runs=[record.run_id for record in runs],
        steps={record.seed: record.step for record in runs},
        max_steps=subject.spec.train.max_steps,
        fixed_seed=subject.spec.run_config.tf_random_seed is not None,
        allowed=sorted({rule for record in runs for rule in record.allowed}),
        left_aside=aside,
        waiting={
            seed: record.status
            for seed, record in sorted(newest.items())
            if seed not in aside and seed not in {one.seed for one in counted}
        },
        without_metric=[record.seed for record in counted if record.seed not in values],
        data={
            name: list(dict.fromkeys(digest for one in runs if (digest := _digest(one, name)) is not None))
            for name in ("train", split)
        },
        same_weights=_same_weights(runs),
        other_code=subject.name.experiment == base.name.experiment and subject.code_digest != base.code_digest,
        changed_on_the_way=any(attempt.changes for chain in chains for one in chain for attempt in one.attempts),
    )


def _same_weights(runs: Sequence[RunRecord]) -> tuple[tuple[int, ...], ...]:
    ended: dict[tuple[str, ...], list[int]] = {}
    for record in runs:
        files = record.checkpoints[-1].files if record.checkpoints and record.step else {}
        if digests := tuple(sorted(digest for name, digest in files.items() if ".data-" in name)):
            ended.setdefault(digests, []).append(record.seed)
    return tuple(tuple(seeds) for seeds in ended.values() if len(seeds) > 1)


def _chain(record: RunRecord, runs: Sequence[RunRecord]) -> list[RunRecord]:
    """The run, and those whose training it continues, at other commits."""
    known = {one.run_id: one for one in runs}
    found = [record]
    while found[-1].attempts[0].from_step and (parent := known.get(found[-1].parent_run or "")) is not None:
        found.append(parent)
    return found


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
