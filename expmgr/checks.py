"""Whether a comparison makes sense: checks over records and git alone, before any number is believed.

Each check looks at some inputs and answers `ok`, `warn`, `block` or `unknown`; what was not recorded is never `ok`. A `block`
takes the verdict away, not the numbers. `CHECKS` is the table of docs/reference/comparability.md.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from expmgr.comparability import Answer, Case, Check, Side, chain, equal_weights, trained_s
from expmgr.paths import seeds_text
from expmgr.records import RunRecord, is_outdated
from expmgr.spec import BestCheckpoint, ExperimentSpec, direction_of
from expmgr.statistics import FEWEST_SEEDS, difference, noise_of

#: By how much budgets may differ.
_SHARE = 0.10
#: Seconds below which nobody waits for a difference, and in which a machine's own noise is large.
_SHORT_S = 5.0
#: Shares of evaluated rows that stand in training: below, chance; above, it is no evaluation any more.
_FEW_ROWS, _MOST_ROWS = 0.01, 0.5
#: Metrics that are shares of the rows: their noise follows from how many rows there are.
_SHARES = ("accuracy", "acc")


@dataclass(frozen=True)
class _Found:
    """What a check found wrong, or has to say."""

    answer: Answer
    told: str
    mend: str | None = None


@dataclass(frozen=True)
class About:
    """A check: its stable id, what it asks, and what it may answer."""

    id: str
    asks: str
    severity: str
    look: Callable[[Case], Iterator[_Found | str]]
    """Gives what it found, and as plain words what is right."""
    inputs: Callable[[Case], list[str]]


def checks_of(case: Case) -> list[Check]:
    """What every check says, in the order of the table."""
    return [_check(about, case) for about in CHECKS.values()]


def _check(about: About, case: Case) -> Check:
    found = list(about.look(case))
    problems = sorted((one for one in found if isinstance(one, _Found)), key=lambda one: -one.answer.weight)
    words = [one.told for one in problems] or [one for one in found if isinstance(one, str)]
    return Check(
        id=about.id,
        answer=problems[0].answer if problems else Answer.OK,
        told="; ".join(dict.fromkeys(words)),
        inputs=tuple(dict.fromkeys(about.inputs(case))),
        mend=next((one.mend for one in problems if one.mend), None),
        variants=(case.base.name, case.other.name),
    )


def worst(checks: Sequence[Check]) -> Answer:
    """The heaviest answer of several."""
    return max((one.answer for one in checks), key=lambda answer: answer.weight, default=Answer.OK)


def _fields(what: str) -> Callable[[Case], list[str]]:
    return lambda case: [one for side in case.sides for one in side.of(what)]


def _keys(*keys: str) -> Callable[[Case], list[str]]:
    return lambda case: [f"exp/{side.name}:{key}" for side in case.sides for key in keys]


# Results.


def _results(case: Case) -> Iterator[_Found | str]:
    for side in case.sides:
        if side.values:
            yield f"{side.name} seeds {seeds_text(side.values)}"
        elif side.counted:
            told = f"{side.name} was not evaluated by {side.metric} on {side.split}"
            yield _Found(Answer.UNKNOWN, told, side.command(side.without_metric))
        elif not side.left_aside and not side.waiting:
            seeds = next((one.values for one in case.sides if one.values), None) or (0, 1, 2)
            yield _Found(Answer.UNKNOWN, f"{side.name} has no run", side.command([*seeds]))
        elif not side.left_aside:
            yield _Found(Answer.UNKNOWN, f"{side.name} has no finished run", side.command([*side.waiting]))


def _stale(case: Case) -> Iterator[_Found | str]:
    for side in case.sides:
        if side.left_aside:
            seeds = [*side.left_aside]
            told = f"{side.name} has changed since seeds {seeds_text(seeds)} were run, which are left aside"
            yield _Found(Answer.WARN if side.values else Answer.BLOCK, told, side.command(seeds))
    yield "every run that counts was made with the spec and the code that its branch has"


def _by_hand(case: Case) -> Iterator[_Found | str]:
    for side in case.sides:
        runs = [one for one in side.subject.runs if one.by_hand is not None and one.by_hand.get("changed")]
        if runs:
            told = f"{side.name} was run by hand from a tree with changes ({runs[-1].run_id}), which does not count"
            yield _Found(Answer.WARN, told, f"expmgr show {runs[-1].run_id}")
    yield "no run from a tree with changes"


def _few_seeds(case: Case) -> Iterator[_Found | str]:
    for side in case.sides:
        if side.spec.run_config.tf_random_seed is not None and side.values:
            told = f"{side.name} fixes its seed (run_config.tf_random_seed), so one run is all it has"
            yield _Found(
                Answer.WARN,
                told,
                f"expmgr new {side.name}-seeds --from {side.name} --set run_config.tf_random_seed=null",
            )
        elif 0 < len(side.values) < FEWEST_SEEDS:
            count = "1 seed" if len(side.values) == 1 else f"{len(side.values)} seeds"
            told = f"{side.name} has {count}; a verdict wants {FEWEST_SEEDS}"
            yield _Found(Answer.WARN, told, side.command(range(FEWEST_SEEDS)))
        elif not side.values:
            yield _Found(Answer.UNKNOWN, f"{side.name} has no value", None)
    yield f"{FEWEST_SEEDS} seeds or more on both sides"


def _left_out(case: Case) -> Iterator[_Found | str]:
    for side in case.sides:
        for seed, status in side.waiting.items():
            yield _Found(Answer.WARN, f"{side.name} seed {seed} {_status(status)}", _way_on(side, seed, status))
        if side.values and side.without_metric:
            told = f"{side.name} seeds {seeds_text(side.without_metric)} were not evaluated by {side.metric} on {side.split}"
            yield _Found(Answer.WARN, told, side.command(side.without_metric))
        if side.unasked and not case.is_confirmed:
            told = f"{side.name} seeds {seeds_text(side.unasked)} have results that were not asked for"
            yield _Found(Answer.WARN, told, f"expmgr compare {case.base.name} {case.other.name}")
        for seed, count in _run_again(side).items():
            told = f"{side.name} seed {seed} was trained {count} times from its first step; the newest counts"
            yield _Found(Answer.WARN, told, f"expmgr show {side.name}:{seed}")
    yield "every seed that was run counts, once"


def _status(status: str) -> str:
    words = {"running": "is being trained", "starting": "is being started", "failed": "failed"}
    return words.get(status, f"was stopped before its end ({status})")


def _way_on(side: Side, seed: int, status: str) -> str:
    if status == "failed":
        return f"expmgr show {side.name}:{seed}"
    return "expmgr status" if status in ("running", "starting") else side.command([seed])


def _run_again(side: Side) -> dict[int, int]:
    """Seeds that were trained more than once from the start with the same spec and code, and how often."""
    counts: dict[int, int] = {}
    for one in side.subject.runs:
        is_same = one.by_hand is None and not is_outdated(one, side.spec, side.subject.code_digest)
        if (
            is_same
            and one.status in ("finished", "failed")
            and not one.attempts[0].from_step
            and one.seed in side.values
        ):
            counts[one.seed] = counts.get(one.seed, 0) + 1
    return {seed: count for seed, count in sorted(counts.items()) if count > 1}


def _same_weights(case: Case) -> Iterator[_Found | str]:
    for side in case.sides:
        for same in equal_weights(side.runs):
            told = (
                f"{side.name} seeds {seeds_text(same)} ended with the same weights, bit for bit: they are one result; "
                "does the code fix its seed?"
            )
            yield _Found(Answer.BLOCK, told, "keras.utils.set_random_seed(expmgr.seed())")
    yield "every seed ended with weights of its own"


# What they were given, and by what they are measured.


def _evaluated_rows(case: Case) -> Iterator[_Found | str]:
    split = case.base.split
    digests = [{one.seed: _digest(one, split) for one in side.runs} for side in case.sides]
    if any(digest is None for side in digests for digest in side.values()) or not all(digests):
        yield _Found(Answer.UNKNOWN, f"on which rows of {split} they were evaluated is not recorded")
        return
    common = digests[0].keys() & digests[1].keys()
    is_seedwise = digests[0].keys() == digests[1].keys() and all(
        digests[0][seed] == digests[1][seed] for seed in common
    )
    if is_seedwise or len({*digests[0].values(), *digests[1].values()}) == 1:
        yield f"evaluated on the same rows ({_rows(case.base, split)})"
        return
    told = f"evaluated on other rows ({split}): {_rows(case.base, split)} and {_rows(case.other, split)}"
    yield _Found(Answer.BLOCK, told, f"expmgr diff {case.base.name} {case.other.name}")


def _digest(record: RunRecord, split: str) -> str | None:
    return record.data[split].sha256 if split in record.data else None


def _rows(side: Side, split: str) -> str:
    """How many rows, and which, as far as the records say."""
    found = dict.fromkeys(
        (one.data[split].rows, (one.data[split].sha256 or "")[:8]) for one in side.runs if split in one.data
    )
    return f"{side.name}: " + ", ".join(
        f"{'?' if rows is None else f'{rows:,}'} rows, {digest}" for rows, digest in found
    )


def _training_rows(case: Case) -> Iterator[_Found | str]:
    digests = [{_digest(one, "train") for one in side.runs} for side in case.sides]
    if not all(digests) or None in digests[0] | digests[1]:
        yield _Found(
            Answer.UNKNOWN, "training rows were a stream or are not recorded, so nobody knows whether they are the same"
        )
    elif digests[0] != digests[1]:
        told = f"trained on other rows: {_rows(case.base, 'train')} and {_rows(case.other, 'train')}"
        is_meant = (
            case.base.spec.data != case.other.spec.data
            or case.base.subject.code_digest != case.other.subject.code_digest
        )
        reason = ", as spec or code say" if is_meant else ", though spec and code are the same"
        yield _Found(
            Answer.WARN if is_meant else Answer.BLOCK, told + reason, f"expmgr diff {case.base.name} {case.other.name}"
        )
    yield f"trained on the same rows ({_rows(case.base, 'train')})"


def _overlap(case: Case) -> Iterator[_Found | str]:
    split = case.base.split
    for side in case.sides:
        for record in side.runs:
            about = record.data.get(split)
            if about is None or about.also_in_train is None or not about.rows:
                yield _Found(Answer.UNKNOWN, f"whether rows of {split} stand in training is not known of {side.name}")
                continue
            share = about.also_in_train / about.rows
            told = f"{about.also_in_train} of {about.rows:,} rows of {split} stand in the training rows of {side.name}"
            if share > _FEW_ROWS:
                mend = f"take them out of training: data.train in experiments/{side.subject.name.experiment}/spec.yaml"
                yield _Found(Answer.BLOCK if share >= _MOST_ROWS else Answer.WARN, told, mend)
            else:
                yield told


def _measured(case: Case) -> Iterator[_Found | str]:
    keys = ("loss", "steps") if case.base.metric == "loss" else ("metrics", "steps")
    measures = [{key: value for one in side.runs for key, value in one.measures.items()} for side in case.sides]
    if any(not one.measures for side in case.sides for one in side.runs) or not all(measures):
        yield _Found(Answer.UNKNOWN, "by what they were evaluated is not recorded", _again(case))
        return
    if "code" in measures[0] or "code" in measures[1]:
        if measures[0] != measures[1]:
            yield _Found(
                Answer.UNKNOWN,
                "other code makes the model and its metrics: whether they are evaluated alike is not known",
            )
        yield "the same code evaluates them"
        return
    found = {key: {one.measures[key] for side in case.sides for one in side.runs} for key in keys}
    words = {
        "loss": "the loss (its kind, its weights or its penalties)",
        "metrics": "the metrics",
        "steps": "the code of the evaluation",
    }
    for key in keys:
        if len(found[key]) > 1:
            yield _Found(Answer.BLOCK, f"evaluated by other means: {words[key]} differs", _again(case))
    yield f"evaluated alike ({' and '.join(words[key] for key in keys)})"


def _again(case: Case) -> str:
    """Checkpoints that are there are evaluated by the code that the branches have now, without training."""
    return f"expmgr run {case.base.name} {case.other.name}"


def _same_question(case: Case) -> Iterator[_Found | str]:
    one, two = ((said.metric, said.mode, said.split) for said in (side.spec.compared for side in case.sides))
    if one != two:
        told = f"by its own spec {case.base.name} is compared by {' '.join(one)}, {case.other.name} by {' '.join(two)}"
        yield _Found(Answer.WARN, told, f"expmgr diff {case.base.name} {case.other.name}")
    yield f"both specs are compared by {one[0]} on {one[2]}"


def _selection(case: Case) -> Iterator[_Found | str]:
    one, two = (side.spec.selection.model_dump() for side in case.sides)
    if one != two:
        told = f"another rule selects the checkpoint: {_rule(one)} and {_rule(two)}"
        value = "{" + ", ".join(f"{key}: {value}" for key, value in one.items() if value is not None) + "}"
        yield _Found(
            Answer.BLOCK, told, f"expmgr new {case.other.name}-2 --from {case.other.name} --set 'selection={value}'"
        )
    yield f"the same rule selects the checkpoint: {_rule(one)}"


def _rule(selection: Mapping[str, Any]) -> str:
    return f"the best {selection['metric']}" if selection.get("metric") else "the last"


def _selected_on_reported(case: Case) -> Iterator[_Found | str]:
    for side in case.sides:
        chooses = [
            word
            for word, is_so in (
                ("the checkpoint was selected", isinstance(side.spec.selection, BestCheckpoint)),
                ("training was stopped", side.spec.train.early_stopping is not None),
            )
            if is_so
        ]
        if not chooses:
            yield f"{side.name} selects by no evaluation"
            continue
        rows = {(_digest(one, "eval"), _digest(one, side.split)) for one in side.runs}
        if not rows or any(None in pair for pair in rows):
            yield _Found(Answer.UNKNOWN, f"of {side.name} it is not recorded on which rows {chooses[0]}")
        elif any(one == two for one, two in rows):
            told = f"of {side.name} {' and '.join(chooses)} on the rows that are reported ({side.split}): its number is flattered"
            mend = "name a third split: data.test, and compare: {split: test}"
            yield _Found(Answer.WARN if side.split == "eval" else Answer.BLOCK, told, mend)
        else:
            yield f"{side.name} selects on other rows than are reported"


# How they were trained.


def _budget(case: Case) -> Iterator[_Found | str]:
    for side in case.sides:
        steps = sorted({one.step for one in side.runs if one.step != side.spec.train.max_steps})
        if steps:
            told = " and ".join(f"{step:,}" for step in steps)
            yield _Found(
                Answer.WARN,
                f"{side.name} was trained for {told} steps, its spec says {side.spec.train.max_steps:,}",
                side.command([one.seed for one in side.runs if one.step != side.spec.train.max_steps]),
            )
        if any(one.warm_start for one in side.runs):
            yield _Found(Answer.WARN, f"{side.name} began with weights that were trained before (warm start)")
    if not all(side.runs for side in case.sides):
        yield _Found(Answer.UNKNOWN, "a side has no run")
        return
    is_meant = _training(case.base.spec) != _training(case.other.spec)
    for what, values in (
        ("steps", [[float(one.step) for one in side.runs] for side in case.sides]),
        ("examples", [[float(one.examples_seen) for one in side.runs] for side in case.sides]),
    ):
        one, two = map(statistics.fmean, values)
        if _differ(one, two):
            told = f"{what}: {one:,.0f} and {two:,.0f}{', as the specs say' if is_meant else ''}"
            yield _Found(Answer.WARN if is_meant else Answer.BLOCK, f"another budget of {told}", _again(case))
    one, two = (statistics.fmean(trained_s(run, side.subject.runs) for run in side.runs) for side in case.sides)
    if _differ(one, two) and max(one, two) >= _SHORT_S:
        yield _Found(Answer.WARN, f"another time of training: {one:.0f} s and {two:.0f} s")
    yield "steps, examples and time are alike"


def _training(spec: ExperimentSpec) -> tuple[Any, ...]:
    """What a spec says of the budget."""
    return spec.train.max_steps, getattr(spec.data, "batch_size", None), spec.train.early_stopping, spec.model.kind


def _differ(one: float, two: float) -> bool:
    return abs(one - two) > _SHARE * min(one, two)


def _guarded(case: Case) -> Iterator[_Found | str]:
    for side in case.sides:
        allowed = sorted({rule for one in side.runs for rule in one.allowed})
        chains = [chain(one, side.subject.runs) for one in side.runs]
        if allowed:
            told = f"{side.name} has runs that the guard refused, let pass by --allow {' '.join(allowed)}"
            yield _Found(Answer.WARN, told, f"{side.command([one.seed for one in side.runs])} --fresh")
        elif any(attempt.changes for one in chains for run in one for attempt in run.attempts):
            told = f"{side.name} has runs that went on with another setting than they began with"
            yield _Found(Answer.WARN, told, f"expmgr show {side.name}")
    yield "no run went on with another setting, or past a refusal of the guard"


def _checkpoint(case: Case) -> Iterator[_Found | str]:
    for side in case.sides:
        seeds: dict[tuple[Answer, str], list[int]] = {}
        for record in side.runs:
            if record.run_id in side.subject.lost:
                seeds.setdefault(side.subject.lost[record.run_id], []).append(record.seed)
        for (answer, told), of in seeds.items():
            yield _Found(answer, f"{side.name} seeds {seeds_text(of)}: {told}", f"{side.command(of)} --fresh")
    yield "code and selected checkpoint of every run are there, as recorded"


#: What of the environment decides what is computed, and how it is called.
_ENVIRONMENT = {
    "tensorflow": "TensorFlow", "keras": "Keras", "gpus": "GPUs", "machine": "machine",
    "precision_policy": "precision", "op_determinism": "determinism", "onednn": "TF_ENABLE_ONEDNN_OPTS", "name": "environment",
}  # fmt: skip


def _environment(case: Case) -> Iterator[_Found | str]:
    if any(not one.environment for side in case.sides for one in side.runs) or not all(
        side.runs for side in case.sides
    ):
        yield _Found(Answer.UNKNOWN, "the environment of a run is not recorded")
        return
    for key, word in _ENVIRONMENT.items():
        sides = [sorted({_shown(one.environment.get(key)) for one in side.runs}) for side in case.sides]
        if len({*sides[0], *sides[1]}) > 1:
            told = f"{word}: {', '.join(sides[0])} and {', '.join(sides[1])}"
            yield _Found(
                Answer.WARN, f"another environment, {told}", f"{case.base.command([*case.base.values])} --fresh"
            )
    yield "TensorFlow, Keras, device, precision and determinism are the same"


def _shown(value: Any) -> str:
    return (
        (", ".join(map(str, value)) or "none") if isinstance(value, list) else "none" if value is None else str(value)
    )


def _library_defaults(case: Case) -> Iterator[_Found | str]:
    versions = {
        tuple(str(one.environment.get(key)) for key in ("tensorflow", "keras"))
        for side in case.sides
        for one in side.runs
    }
    if not versions or any("None" in one for one in versions):
        yield _Found(Answer.UNKNOWN, "the versions of TensorFlow and Keras are not recorded")
    elif len(versions) > 1:
        left = [*dict.fromkeys(key for side in case.sides for key in _open_keys(side.spec))]
        if left:
            told = f"other versions of TensorFlow or Keras, and {', '.join(left)} left to their defaults"
            yield _Found(Answer.WARN, told, f"{case.base.command([*case.base.values])} --fresh")
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


# What was found.


def _evaluation_noise(case: Case) -> Iterator[_Found | str]:
    rows = {one.data[case.base.split].rows for side in case.sides for one in side.runs if case.base.split in one.data}
    if not all(side.values for side in case.sides) or len(rows) != 1 or None in rows:
        yield _Found(Answer.UNKNOWN, "how many rows were evaluated is not recorded, or differs")
        return
    if not is_share(case.base.metric):
        told = (
            f"how far {case.base.metric} moves with the choice of rows is not known: their own values are not recorded"
        )
        yield _Found(Answer.UNKNOWN, told)
        return
    (count,) = rows
    one, two = (statistics.fmean(side.values.values()) for side in case.sides)
    noise = 1.96 * (noise_of(one, count or 1) ** 2 + noise_of(two, count or 1) ** 2) ** 0.5
    told = f"a difference of {100 * abs(two - one):.1f} points, on {count:,} rows that are good for {100 * noise:.1f}"
    if abs(two - one) < noise:
        yield _Found(Answer.WARN, f"{told}: another choice of rows may turn it round", "evaluate on more rows")
    yield told


def is_share(metric: str) -> bool:
    """Whether a metric is a share of rows."""
    return metric.endswith(_SHARES) or metric.startswith(_SHARES)


def _baseline(case: Case) -> Iterator[_Found | str]:
    base, other = case.sides
    if base.left_aside:
        yield _Found(
            Answer.WARN,
            f"{base.name}, the baseline, has results that are older than its branch",
            base.command([*base.left_aside]),
        )
    if len(base.values) < len(other.values):
        missing = sorted(other.values.keys() - base.values.keys())
        told = f"{base.name}, the baseline, has {len(base.values)} seeds, {other.name} has {len(other.values)}"
        yield _Found(Answer.WARN, told, base.command(missing))
    elif base.values.keys() != other.values.keys() and other.values:
        told = f"the seeds differ: {base.name} {seeds_text(base.values)}, {other.name} {seeds_text(other.values)}"
        missing = sorted(base.values.keys() - other.values.keys())
        yield _Found(Answer.WARN, told, other.command(missing))
    yield "the baseline has the same seeds"


def _got_worse(case: Case) -> Iterator[_Found | str]:
    if not all(side.runs for side in case.sides):
        yield _Found(Answer.UNKNOWN, "a side has no run")
        return
    for metric, words in _worse_metrics(case):
        yield _Found(
            Answer.WARN,
            f"{metric} got worse: {words}",
            f"expmgr compare {case.base.name} {case.other.name} --metric {metric}",
        )
    sizes = [side.runs[-1].parameters for side in case.sides]
    if sizes[0] and sizes[1] and sizes[1] > (1 + _SHARE) * sizes[0]:
        yield _Found(Answer.WARN, f"{sizes[1]:,} parameters instead of {sizes[0]:,}")
    times = [_step_s(side) for side in case.sides]
    if times[0] and times[1] and times[1] > (1 + _SHARE) * times[0] and _is_long(case):
        yield _Found(Answer.WARN, f"a step takes {1000 * times[1]:.3g} ms instead of {1000 * times[0]:.3g}")
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
    return all(statistics.median(one.train_s for one in side.runs) >= _SHORT_S for side in case.sides)


# What was tried before.


def _many_tried(case: Case) -> Iterator[_Found | str]:
    names = case.tried.seeds.keys() | {case.other.name}
    if len(names) > 1 and not case.is_confirmed:
        told = f"{len(names)} variants were tried against {case.base.name}: the best of many is flattered"
        yield _Found(Answer.WARN, told, f"expmgr compare {case.base.name} {case.other.name} --confirm")
    yield "confirmed on fresh seeds" if case.is_confirmed else "no other variant was tried against the baseline"


def _screening(case: Case) -> Iterator[_Found | str]:
    others = {name: seeds for name, seeds in case.tried.seeds.items() if name != case.other.name}
    used = sorted(set(case.other.values) & {seed for seeds in others.values() for seed in seeds})
    if used and not case.is_confirmed:
        told = f"seeds {seeds_text(used)} of {case.other.name} are those on which it was picked among {len(others) + 1}"
        yield _Found(Answer.WARN, told, f"expmgr compare {case.base.name} {case.other.name} --confirm")
    yield "no seed served to pick it"


def _declared_late(case: Case) -> Iterator[_Found | str]:
    runs = [one for side in case.sides for one in side.subject.runs if one.status == "finished" and not one.by_hand]
    if not runs:
        yield _Found(Answer.UNKNOWN, "there is no result yet")
        return
    first = min(runs, key=lambda one: (one.created_at, one.run_id))
    try:
        said = ExperimentSpec.model_validate(first.spec).compared
    except ValidationError:
        yield _Found(Answer.UNKNOWN, f"what the spec of the first result said ({first.run_id}) cannot be read any more")
        return
    if case.base.metric != said.metric:
        told = f"the metric {case.base.metric} was declared after the first result ({first.run_id}), which said {said.metric}"
        yield _Found(Answer.WARN, told, f"expmgr compare {case.base.name} {case.other.name} --metric {said.metric}")
    elif case.effect != said.minimum_effect:
        old = "none" if said.minimum_effect is None else f"{said.minimum_effect:g}"
        told = f"the minimum effect was declared after the first result ({first.run_id}), which said {old}"
        yield _Found(Answer.WARN, told, f"expmgr show {first.run_id}")
    yield "metric and minimum effect are those of the first result's spec"


def _tried_inputs(case: Case) -> list[str]:
    return [f"exp/{name}" for name in sorted(case.tried.seeds)] or [f"exp/{case.other.name}"]


def _all_runs(what: str) -> Callable[[Case], list[str]]:
    return lambda case: [f"{one.run_id}:{what}" for side in case.sides for one in side.subject.runs]


CHECKS: dict[str, About] = {
    one.id: one
    for one in (
        About("results", "Has each side a result by this metric?", "unknown", _results, _all_runs("metrics")),
        About(
            "stale",
            "Is a result older than its branch, by spec and code digest? A change of docs is none.",
            "warn; block where no other result is left",
            _stale,
            lambda case: [*_keys("spec", "code digest")(case), *_all_runs("code_digest")(case)],
        ),
        About("by-hand", "Was a script run by hand from a tree with changes?", "warn", _by_hand, _all_runs("by_hand")),
        About(
            "few-seeds",
            "Are there fewer than three seeds?",
            "warn, and no verdict; block in a review",
            _few_seeds,
            _fields("seed"),
        ),
        About(
            "left-out",
            "Are seeds or failed runs left out, or was one seed trained several times?",
            "warn",
            _left_out,
            _all_runs("status"),
        ),
        About(
            "same-weights", "Did two seeds end with the same weights?", "block", _same_weights, _fields("checkpoints")
        ),
        About(
            "evaluated-rows",
            "Were they evaluated on the same rows, by digest and number?",
            "block",
            _evaluated_rows,
            lambda case: _fields(f"data.{case.base.split}.sha256")(case),
        ),
        About(
            "training-rows",
            "Were they trained on the same rows?",
            "warn where spec or code differ on it; else block",
            _training_rows,
            _fields("data.train.sha256"),
        ),
        About(
            "overlap",
            "Do evaluated rows stand in the training rows, by their inputs?",
            "warn over 1 %; block from 50 %",
            _overlap,
            lambda case: _fields(f"data.{case.base.split}.also_in_train")(case),
        ),
        About(
            "measures",
            "Are metric, loss and the code of the evaluation the same?",
            "block",
            _measured,
            _fields("measures"),
        ),
        About(
            "question",
            "Is the other variant's own spec compared by the same metric?",
            "warn",
            _same_question,
            _keys("compare"),
        ),
        About("selection", "Does the same rule select the checkpoint?", "block", _selection, _keys("selection")),
        About(
            "selected-on-reported",
            "Was the checkpoint selected, or training stopped, on the rows that are reported, by their digests?",
            "warn on eval; block on test",
            _selected_on_reported,
            lambda case: [
                *_keys("selection", "train.early_stopping")(case),
                *_fields("data.eval.sha256")(case),
                *_fields(f"data.{case.base.split}.sha256")(case),
            ],
        ),
        About(
            "budget",
            "Do steps, examples or time of training differ by over 10 %?",
            "warn where the specs say so, and for time from 5 s on; else block",
            _budget,
            lambda case: [*_fields("step")(case), *_fields("examples_seen")(case), *_fields("train_s")(case)],
        ),
        About(
            "guard",
            "Did a run go on with another setting, or past a refusal of the guard?",
            "warn",
            _guarded,
            _fields("attempts"),
        ),
        About(
            "checkpoint",
            "Are the code and the selected checkpoint of each run there, and the ones that were recorded?",
            "block without the code; warn without the checkpoint",
            _checkpoint,
            lambda case: [*_fields("commit")(case), *_fields("checkpoints")(case)],
        ),
        About(
            "environment",
            "Do TensorFlow, Keras, device, precision or determinism differ?",
            "warn",
            _environment,
            _fields("environment"),
        ),
        About(
            "library-defaults",
            "Are hyperparameters left to a library's defaults, and the versions differ?",
            "warn",
            _library_defaults,
            lambda case: [*_fields("environment")(case), *_keys("optimizer")(case)],
        ),
        About(
            "evaluation-noise",
            "Is the difference smaller than what so many rows can tell?",
            "warn; unknown where the metric is no share of rows",
            _evaluation_noise,
            lambda case: _fields(f"data.{case.base.split}.rows")(case),
        ),
        About(
            "baseline",
            "Has the baseline fewer seeds, other ones, or stale results?",
            "warn",
            _baseline,
            _fields("seed"),
        ),
        About(
            "got-worse",
            "Did another metric, the parameters (10 %) or the time of a step (10 %, from 5 s on) get worse?",
            "warn",
            _got_worse,
            lambda case: [*_fields("metrics")(case), *_fields("parameters")(case)],
        ),
        About(
            "many-tried",
            "How many variants were tried against the baseline, deleted ones too?",
            "warn",
            _many_tried,
            _tried_inputs,
        ),
        About(
            "screening-seeds",
            "Are the seeds those on which the variant was picked among others?",
            "warn",
            _screening,
            lambda case: [*_tried_inputs(case), *_fields("seed")(case)],
        ),
        About(
            "declared-late",
            "Were metric or minimum effect declared after the first result?",
            "warn",
            _declared_late,
            lambda case: [*_keys("compare")(case), *_all_runs("spec.compare")(case)],
        ),
    )
}

#: Checks that say something of a variant alone.
OF_ONE = ("results", "stale", "by-hand", "left-out", "same-weights", "overlap", "guard", "checkpoint")
