"""Checks of how both sides were trained: budget, settings, checkpoints and environment."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from expmgr.comparison.checks.finding import SHORT_S, Found, again, differ
from expmgr.comparison.sides import Answer, Case, Lost, chain, trained_s
from expmgr.guard.rules import allowed_by
from expmgr.paths import seeds_text
from expmgr.spec.experiment import ExperimentSpec


def budget(case: Case) -> Iterator[Found | str]:
    for side in case.sides:
        steps = sorted({one.step for one in side.runs if one.step != side.spec.train.max_steps})
        if steps:
            told = " and ".join(f"{step:,}" for step in steps)
            yield Found(
                Answer.WARN,
                f"{side.name} was trained for {told} steps, its spec says {side.spec.train.max_steps:,}",
                again(case),
            )
        if any(one.warm_start for one in side.runs):
            yield Found(Answer.WARN, f"{side.name} began with weights that were trained before (warm start)")
    if any(one.step and not one.examples_seen for side in case.sides for one in side.runs):
        yield Found(Answer.UNKNOWN, "how many examples a run was trained on is not recorded")
    as_said = all(one.step == side.spec.train.max_steps for side in case.sides for one in side.runs)
    other_steps = case.base.spec.train.max_steps != case.other.spec.train.max_steps
    other_training = _training(case.base.spec) != _training(case.other.spec)
    for what, is_meant, values in (
        ("steps", as_said and other_steps, [{one.seed: float(one.step) for one in side.runs} for side in case.sides]),
        (
            "examples",
            as_said and other_training,
            [{one.seed: float(one.examples_seen) for one in side.runs} for side in case.sides],
        ),
    ):
        found = _apart(*values)
        if found is not None:
            told = f"{what}: {_span(found[0])} and {_span(found[1])}{', as the specs say' if is_meant else ''}"
            yield Found(
                Answer.WARN if is_meant else Answer.BLOCK,
                f"another budget of {told}",
                None if is_meant else again(case),
            )
    one, two = (statistics.fmean(trained_s(run, side.subject.runs) for run in side.runs) for side in case.sides)
    if differ(one, two) and max(one, two) >= SHORT_S:
        yield Found(Answer.WARN, f"another time of training: {one:.0f} s and {two:.0f} s")
    yield "steps, examples and time are alike"


def _apart(base: Mapping[int, float], other: Mapping[int, float]) -> tuple[list[float], list[float]] | None:
    """The budgets of both sides, where they differ: seed by seed where the seeds are the same, else the least and the most."""
    if base.keys() == other.keys():
        seeds = [seed for seed in base if differ(base[seed], other[seed])]
        return ([base[seed] for seed in seeds], [other[seed] for seed in seeds]) if seeds else None
    sides = (sorted(base.values()), sorted(other.values()))
    is_apart = any(differ(sides[0][end], sides[1][end]) for end in (0, -1))
    return sides if is_apart else None


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"


def _training(spec: ExperimentSpec) -> tuple[Any, ...]:
    """What a spec says of the budget."""
    return spec.train.max_steps, getattr(spec.data, "batch_size", None), spec.train.early_stopping, spec.model.kind


def guarded(case: Case) -> Iterator[Found | str]:
    for side in case.sides:
        allowed = sorted({rule for one in side.runs for rule in one.allowed})
        chains = [chain(one, side.subject.runs) for one in side.runs]
        if allowed:
            told = f"{side.name} has runs that the guard refused, {allowed_by(*allowed)}"
            yield Found(Answer.WARN, told, f"{side.command([one.seed for one in side.runs])} --fresh")
        elif any(attempt.changes for one in chains for run in one for attempt in run.attempts):
            told = f"{side.name} has runs that went on with another setting than they began with"
            yield Found(Answer.WARN, told, f"expmgr show {side.name}")
    yield "no run went on with another setting, or past a refusal of the guard"


def checkpoint(case: Case) -> Iterator[Found | str]:
    for side in case.sides:
        seeds: dict[Lost, list[int]] = {}
        for record in side.runs:
            if record.run_id in side.subject.lost:
                seeds.setdefault(side.subject.lost[record.run_id], []).append(record.seed)
        for lost, of in seeds.items():
            fix = lost.fix or f"{side.command(of)} --fresh"
            yield Found(lost.answer, f"{side.name} seeds {seeds_text(of)}: {lost.message}", fix)
    yield "code and selected checkpoint of every run are there, as recorded"


#: What of the environment decides what is computed, and how it is called.
_ENVIRONMENT = {
    "tensorflow": "TensorFlow", "keras": "Keras", "gpus": "GPUs", "machine": "machine",
    "precision_policy": "precision", "op_determinism": "determinism", "onednn": "TF_ENABLE_ONEDNN_OPTS", "name": "environment",
}  # fmt: skip


def environment(case: Case) -> Iterator[Found | str]:
    if any(key not in one.environment for side in case.sides for one in side.runs for key in _ENVIRONMENT):
        yield Found(Answer.UNKNOWN, "the environment of a run is not recorded, or not all of it")
        return
    for key, word in _ENVIRONMENT.items():
        sides = [sorted({_shown(one.environment.get(key)) for one in side.runs}) for side in case.sides]
        if len({*sides[0], *sides[1]}) > 1:
            told = f"{word}: {', '.join(sides[0])} and {', '.join(sides[1])}"
            yield Found(
                Answer.WARN, f"another environment, {told}", f"{case.base.command([*case.base.values])} --fresh"
            )
    yield "TensorFlow, Keras, device, precision and determinism are the same"


def _shown(value: Any) -> str:
    return (
        (", ".join(map(str, value)) or "none") if isinstance(value, list) else "none" if value is None else str(value)
    )


def library_defaults(case: Case) -> Iterator[Found | str]:
    versions = {
        tuple(str(one.environment.get(key)) for key in ("tensorflow", "keras"))
        for side in case.sides
        for one in side.runs
    }
    if not versions or any("None" in one for one in versions):
        yield Found(Answer.UNKNOWN, "the versions of TensorFlow and Keras are not recorded")
    elif len(versions) > 1:
        left = [*dict.fromkeys(key for side in case.sides for key in _open_keys(side.spec))]
        if left:
            told = f"other versions of TensorFlow or Keras, and {', '.join(left)} left to their defaults"
            yield Found(Answer.WARN, told, f"{case.base.command([*case.base.values])} --fresh")
    yield "the same versions, or nothing left to their defaults"


def _open_keys(spec: ExperimentSpec) -> Iterator[str]:
    """What a spec leaves to a library."""
    if spec.is_own:
        yield "what code does not say"
    if spec.optimizer is None:
        yield "optimizer"
    else:
        values = spec.optimizer.model_dump()
        yield from (f"optimizer.{key}" for key, value in values.items() if value is None)
