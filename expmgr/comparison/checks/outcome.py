"""Checks of the result: evaluation noise, metrics that got worse, and how the variant was chosen."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from pydantic import ValidationError

from expmgr.comparison.checks.finding import SHARE, SHORT_S, Found
from expmgr.comparison.sides import Answer, Case, Side, trained_s
from expmgr.comparison.statistics import difference, is_share, noise_of
from expmgr.paths import seeds_text
from expmgr.spec.experiment import ExperimentSpec
from expmgr.spec.metrics import direction_of


def evaluation_noise(case: Case) -> Iterator[Found | str]:
    rows = {one.data[case.base.split].rows for side in case.sides for one in side.runs if case.base.split in one.data}
    if not all(side.values for side in case.sides) or len(rows) != 1 or None in rows:
        yield Found(Answer.UNKNOWN, "how many rows were evaluated is not recorded, or differs")
        return
    if not is_share(case.base.metric):
        told = (
            f"how far {case.base.metric} moves with the choice of rows is not known: their own values are not recorded"
        )
        yield Found(Answer.UNKNOWN, told)
        return
    (count,) = rows
    one, two = (statistics.fmean(side.values.values()) for side in case.sides)
    noise = 1.96 * (noise_of(one, count or 1) ** 2 + noise_of(two, count or 1) ** 2) ** 0.5
    told = f"a difference of {100 * abs(two - one):.1f} points, on {count:,} rows that are good for {100 * noise:.1f}"
    if abs(two - one) < noise:
        yield Found(Answer.WARN, f"{told}: another choice of rows may turn it round", "evaluate on more rows")
    yield told


def got_worse(case: Case) -> Iterator[Found | str]:
    for metric, words in _worse_metrics(case):
        yield Found(
            Answer.WARN,
            f"{metric} got worse: {words}",
            f"expmgr compare {case.base.name} {case.other.name} --metric {metric}",
        )
    sizes = [side.runs[-1].parameters for side in case.sides]
    if None in sizes:
        yield Found(Answer.UNKNOWN, "how many parameters a model has is not recorded")
    if sizes[0] and sizes[1] and sizes[1] > (1 + SHARE) * sizes[0]:
        yield Found(Answer.WARN, f"{sizes[1]:,} parameters instead of {sizes[0]:,}")
    times = [_step_s(side) for side in case.sides]
    if times[0] and times[1] and times[1] > (1 + SHARE) * times[0] and _is_long(case):
        yield Found(Answer.WARN, f"a step takes {1000 * times[1]:.3g} ms instead of {1000 * times[0]:.3g}")
    yield "no other metric, nor parameters, nor time a step got worse"


def _worse_metrics(case: Case) -> Iterator[tuple[str, str]]:
    split = case.base.split
    names = dict.fromkeys(name for one in case.other.runs for name in one.metrics.get("selected", {}).get(split, {}))
    for name in names:
        mode = direction_of(name)
        if name == case.base.metric or mode is None:
            continue
        values = [
            {one.seed: value for one in side.runs if (value := one.metric(name, split)) is not None}
            for side in case.sides
        ]
        found = difference(values[0], values[1], is_more_better=mode == "max")
        if found is not None and found.interval().high < 0:
            one, two = (statistics.fmean(side.values()) for side in values)
            yield name, f"{one:.4g} to {two:.4g}"


def _step_s(side: Side) -> float | None:
    found = [trained_s(one, side.subject.runs) / one.step for one in side.runs if one.step]
    return statistics.median(found) if found else None


def _is_long(case: Case) -> bool:
    return all(statistics.median(one.train_s for one in side.runs) >= SHORT_S for side in case.sides)


def _confirm(case: Case) -> str:
    """What judges both by fresh seeds: in a review, another one."""
    if case.in_review:
        again = f"expmgr review open {case.other.name} --against {case.base.name} --confirm"
        return f"expmgr review close {case.other.name} --reason superseded; {again}"
    return f"expmgr compare {case.base.name} {case.other.name} --confirm"


def many_tried(case: Case) -> Iterator[Found | str]:
    names = case.tried.seeds.keys() | {case.other.name}
    if len(names) > 1 and not case.is_fresh:
        told = f"{len(names)} variants were tried against {case.base.name}: the best of many is flattered"
        yield Found(Answer.WARN, told, _confirm(case))
    yield "confirmed on fresh seeds" if case.is_fresh else "no other variant was tried against the baseline"


def screening(case: Case) -> Iterator[Found | str]:
    if case.screened:
        count = len(case.tried.seeds.keys() | {case.other.name})
        told = f"seeds {seeds_text(case.screened)} of {case.other.name} are those on which it was picked among {count}"
        yield Found(Answer.WARN, told, _confirm(case))
    yield "no seed served to pick it"


def declared_late(case: Case) -> Iterator[Found | str]:
    runs = [one for side in case.sides for one in side.subject.runs if one.status == "finished" and not one.by_hand]
    if not runs:
        yield Found(Answer.UNKNOWN, "there is no result yet")
        return
    first = min(runs, key=lambda one: (one.created_at, one.run_id))
    try:
        said = ExperimentSpec.model_validate(first.spec).compared
    except ValidationError:
        yield Found(Answer.UNKNOWN, f"what the spec of the first result said ({first.run_id}) cannot be read any more")
        return
    if case.base.metric != said.metric:
        told = f"the metric {case.base.metric} was declared after the first result ({first.run_id}), which said {said.metric}"
        yield Found(Answer.WARN, told, f"expmgr compare {case.base.name} {case.other.name} --metric {said.metric}")
    elif case.effect != said.minimum_effect:
        old = "none" if said.minimum_effect is None else f"{said.minimum_effect:g}"
        told = f"the minimum effect was declared after the first result ({first.run_id}), which said {old}"
        yield Found(Answer.WARN, told, f"expmgr show {first.run_id}")
    yield "metric and minimum effect are those of the first result's spec"
