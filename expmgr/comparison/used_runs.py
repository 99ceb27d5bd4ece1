"""Selects the variants and runs that a comparison uses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pydantic import ValidationError

from expmgr.comparison.missing_checkpoints import with_lost
from expmgr.comparison.sides import Subject, Tried
from expmgr.paths import VariantName
from expmgr.runs.origin import is_foreign
from expmgr.runs.record import RunRecord
from expmgr.spec.experiment import ExperimentSpec
from expmgr.variants.code_digest import code_digest
from expmgr.variants.variants import Variant, all_variants, find_variant, origins, spec_of

if TYPE_CHECKING:
    from expmgr.disk.index import Head
    from expmgr.project import Project


@dataclass(frozen=True)
class Chosen:
    """What is compared."""

    subjects: list[Subject]
    baseline: VariantName | None
    """None: the first."""
    tried: Tried


def chosen(project: Project, names: Sequence[str], baseline: str | None = None) -> Chosen:
    """What is compared, and the baseline.

    Where `--baseline` says nothing, it is the one that the specs declare (`compare.baseline`) if it is among `names`,
    or if a single variant is named, which is then compared with it; otherwise the first (None).
    """
    known, runs = all_variants(project.repo), AllRuns(project)

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
    subjects = with_lost(project, [_subject(project, one, runs) for one in dict.fromkeys(variants)])
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
    runs = AllRuns(project)
    one, two = (
        replace(side, runs=[run for run in side.runs if counts(run)])
        for side in (_subject(project, base, runs), _subject(project, other, runs))
    )
    aged = [run.model_copy(update={"code_digest": ""}) if is_old(run) else run for run in two.runs]
    subjects = with_lost(project, [one, replace(two, runs=aged)])
    return Chosen(subjects, base.name, _tried(project, base.name, runs, all_variants(project.repo)))


class AllRuns:
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


def _spec_of(project: Project, variant: Variant, runs: AllRuns) -> ExperimentSpec:
    """The spec at the variant's newest commit: as a run of that commit in this clone recorded it, which is quicker to read
    than YAML."""
    for head in reversed(runs.of(variant.name)):
        if head.commit == variant.commit and not is_foreign(project.records.run_dir(head.run_id)):
            with contextlib.suppress(ValidationError):  # of an older version
                return ExperimentSpec.model_validate(head.spec)
            break
    return spec_of(project.repo, variant)


def _subject(project: Project, variant: Variant, runs: AllRuns) -> Subject:
    return Subject(
        variant.name,
        _spec_of(project, variant, runs),
        code_digest_of(project, variant),
        project.records.whole(runs.of(variant.name)),
        variant.commit,
    )


def fresh_seeds(project: Project, experiment: str, count: int) -> list[int]:
    """Seeds that no run of the experiment has had, whatever became of it."""
    used = {head.seed for head in project.records.heads() if head.variant.startswith(f"{experiment}/")}
    first = max(used, default=-1) + 1
    return list(range(first, first + count))


def _tried(project: Project, base: VariantName, all_runs: AllRuns, known: Sequence[Variant]) -> Tried:
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
