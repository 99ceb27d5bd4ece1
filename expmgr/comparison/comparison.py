"""Variants side by side: whether they can be compared, numbers over seeds, the verdict, and what the spec changes.

Reads records, specs and manifests alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from expmgr.checkpoints.model_dir import ModelDir
from expmgr.comparison.checks import OF_ONE, checks_of
from expmgr.comparison.results import Result, results_of
from expmgr.comparison.sides import Answer, Case, Check, Side, Subject, Tried, chain, trained_s
from expmgr.comparison.statistics import mean_and_std
from expmgr.errors import ExpmgrError, UnknownMetric, UnknownVariant
from expmgr.paths import VariantName, nearest
from expmgr.runs.origin import is_foreign, teller_of
from expmgr.runs.record import ABOUT, RunRecord
from expmgr.spec.changes import changes, flat
from expmgr.spec.experiment import ExperimentSpec
from expmgr.spec.metrics import CLASSIFIER_METRICS, REGRESSOR_METRICS
from expmgr.store.fetch import InTheStore, fetched_run, selected_step
from expmgr.variants.code import code_digest
from expmgr.variants.variants import Variant, all_variants, find_variant, origins, spec_of

if TYPE_CHECKING:
    from expmgr.disk.index import Head
    from expmgr.project import Project


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


@dataclass(frozen=True)
class Chosen:
    """What is compared."""

    subjects: list[Subject]
    baseline: VariantName | None
    """None: the first."""
    tried: Tried


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
        near = nearest(metric, names)
        raise UnknownMetric(
            f"no run was evaluated by {metric} on {split}",
            hint=f"did you mean {near}?" if near else f"one of {', '.join(names)}",
        )


def chosen(project: Project, names: Sequence[str], baseline: str | None = None) -> Chosen:
    """What is compared, and the baseline.

    Where `--baseline` says nothing, it is the one that the specs declare (`compare.baseline`) if it is among `names`,
    or if a single variant is named, which is then compared with it; otherwise the first (None).
    """
    known, runs = all_variants(project.repo), _Runs(project)

    def found(*texts: str) -> list[Variant]:
        return [find_variant(project.repo, text, known) for text in texts]

    variants = found(*([baseline] if baseline is not None else []), *names)
    first = _spec_of(project, variants[0], runs)
    base = variants[0].name if baseline is not None else None
    declared = first.compared.baseline
    if baseline is None and declared is not None:
        if len(variants) == 1 and declared != str(variants[0].name):
            variants = [*found(declared), *variants]
        base = next((one.name for one in variants if str(one.name) == declared), None)
    subjects = _with_lost(project, [_subject(project, one, runs) for one in dict.fromkeys(variants)])
    return Chosen(subjects, base, _tried(project, base or subjects[0].name, runs, known))


def pair(
    project: Project,
    base: Variant,
    other: Variant,
    is_old: Callable[[RunRecord], bool] = lambda _: False,
    counts: Callable[[RunRecord], bool] = lambda _: True,
) -> Chosen:
    """`other` against `base`, at the commits (or trees) that they name; runs of `other` that are `is_old` are so, and what
    does not count is as if it were not there."""
    runs = _Runs(project)
    one, two = (
        replace(side, runs=[run for run in side.runs if counts(run)])
        for side in (_subject(project, base, runs), _subject(project, other, runs))
    )
    aged = [run.model_copy(update={"code_digest": ""}) if is_old(run) else run for run in two.runs]
    subjects = _with_lost(project, [one, replace(two, runs=aged)])
    return Chosen(subjects, base.name, _tried(project, base.name, runs, all_variants(project.repo)))


class _Runs:
    """The heads of all runs, by variant."""

    def __init__(self, project: Project) -> None:
        self.by_variant: dict[str, list[Head]] = {}
        for head in project.records.heads():
            self.by_variant.setdefault(head.variant, []).append(head)

    def of(self, name: VariantName) -> list[Head]:
        return self.by_variant.get(str(name), [])


def code_digest_of(project: Project, variant: Variant) -> str:
    """The code digest of a variant at its newest commit, made once a commit."""

    def made() -> str:
        return code_digest(project.repo, variant.commit, variant.name)

    return project.records.code_digest(variant.commit, variant.name, made)


def _spec_of(project: Project, variant: Variant, runs: _Runs) -> ExperimentSpec:
    """The spec at the variant's newest commit: as a run of that commit in this clone recorded it, which is quicker to read
    than YAML."""
    for head in reversed(runs.of(variant.name)):
        if head.commit == variant.commit and not is_foreign(project.records.run_dir(head.run_id)):
            with contextlib.suppress(ValidationError):  # of an older version
                return ExperimentSpec.model_validate(head.spec)
            break
    return spec_of(project.repo, variant)


def _subject(project: Project, variant: Variant, runs: _Runs) -> Subject:
    return Subject(
        variant.name,
        _spec_of(project, variant, runs),
        code_digest_of(project, variant),
        project.records.whole(runs.of(variant.name)),
        variant.commit,
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


def fresh_seeds(project: Project, experiment: str, count: int) -> list[int]:
    """Seeds that no run of the experiment has had, whatever became of it."""
    used = {head.seed for head in project.records.heads() if head.variant.startswith(f"{experiment}/")}
    first = max(used, default=-1) + 1
    return list(range(first, first + count))


def _with_lost(project: Project, subjects: Sequence[Subject]) -> list[Subject]:
    """`subjects`, with what is wrong with the code or the selected checkpoint of the runs that count."""
    commits = sorted({record.commit for one in subjects for record in one.counted})
    are_there = dict(zip(commits, project.repo.has(commits), strict=True))
    store = InTheStore(project)
    return [replace(one, lost=_lost(project, one, are_there, store)) for one in subjects]


def _lost(
    project: Project, subject: Subject, are_there: Mapping[str, bool], store: InTheStore
) -> dict[str, tuple[Answer, str]]:
    lost: dict[str, tuple[Answer, str]] = {}
    for record in subject.counted:
        path = project.layout.model_dir(subject.name, record.seed)
        folder = ModelDir(path, shown=project.shown(path), variant=record.variant, seed=record.seed)
        if is_foreign(project.records.run_dir(record.run_id)):
            wrong = _foreign_lost(project, folder, record, store)
        else:
            wrong = _checkpoint_lost(folder, record, subject.runs) if record.step else None
        if not are_there[record.commit]:
            lost[record.run_id] = Answer.BLOCK, f"its commit {record.commit[:12]} is gone, and its code with it"
        elif wrong is not None:
            lost[record.run_id] = wrong
    return lost


def _foreign_lost(
    project: Project, folder: ModelDir, record: RunRecord, store: InTheStore
) -> tuple[Answer, str] | None:
    """Why the checkpoint of another clone's run is not looked at; None where it was fetched, and is as it was recorded."""
    if fetched_run(folder.path) == record.run_id and _checkpoint_lost(folder, record, [record]) is None:
        return None
    if store.has(record, selected_step(record)):
        return None  # it is verified when it is fetched
    return Answer.UNKNOWN, (
        f"its checkpoint is in the clone of {teller_of(project.records.run_dir(record.run_id), record)}, and in no store"
    )


def _checkpoint_lost(folder: ModelDir, record: RunRecord, runs: Sequence[RunRecord]) -> tuple[Answer, str] | None:
    """Why the selected checkpoint of a run is not there as it was recorded; None where it is."""
    try:
        manifest = folder.read_manifest()
    except ExpmgrError as error:
        return Answer.WARN, error.message
    step = record.step if record.selected_step is None else record.selected_step
    saved = manifest.at(step) if manifest is not None else None
    if saved is None:
        return Answer.WARN, f"its selected checkpoint, of step {step:,}, is not in its model_dir any more"
    # A run that only evaluated saved none: the one that it goes on from did.
    known = [one.files for run in chain(record, runs) for one in reversed(run.checkpoints) if one.step == step]
    if not known:
        return Answer.UNKNOWN, f"which files the checkpoint of step {step:,} had is not recorded"
    if {name: file.sha256 for name, file in saved.files.items()} != known[0]:
        return Answer.WARN, f"the checkpoint of step {step:,} in its model_dir is another one than was recorded"
    return None


def _tried(project: Project, base: VariantName, all_runs: _Runs, known: Sequence[Variant]) -> Tried:
    """The variants of the experiment that were made from the baseline, or from what it was made from, and have a result:
    deleted ones too, for as long as a record of them is there."""
    runs: dict[str, list[Head]] = {}
    for variant, heads in all_runs.by_variant.items():
        finished = [head for head in heads if head.status == "finished" and head.by_hand is None]
        if finished and variant.startswith(f"{base.experiment}/"):
            runs[variant] = finished
    commits = {variant: found[-1].commit for variant, found in runs.items()}
    made = {str(name): origin.base for name, origin in origins(project.repo, commits, known).items()}
    roots = {str(base), made.get(str(base), str(base))}

    def is_from(variant: str) -> bool:
        seen: set[str] = set()
        while variant in made and variant not in seen:
            seen.add(variant)
            if made[variant] in roots:
                return True
            variant = made[variant]
        return False

    found = {variant: frozenset(one.seed for one in of) for variant, of in runs.items() if variant != str(base)}
    return Tried({variant: seeds for variant, seeds in sorted(found.items()) if is_from(variant)})


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
