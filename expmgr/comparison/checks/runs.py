"""Checks of the compared runs: missing, stale, too few seeds, run outside expmgr, or the same weights."""

from __future__ import annotations

from collections.abc import Iterator

from expmgr.comparison.checks.finding import Found
from expmgr.comparison.sides import Answer, Case, Side, equal_weights, weights_of
from expmgr.comparison.statistics import FEWEST_SEEDS
from expmgr.paths import seeds_text
from expmgr.runs.counting import is_outdated


def results(case: Case) -> Iterator[Found | str]:
    for side in case.sides:
        if side.values:
            yield f"{side.name} seeds {seeds_text(side.values)}"
        elif side.counted:
            told = f"{side.name} was not evaluated by {side.metric} on {side.split}"
            yield Found(Answer.UNKNOWN, told, side.command(side.without_metric))
        elif not side.left_aside and not side.waiting:
            seeds = side.seeds or next((one.values for one in case.sides if one.values), None) or (0, 1, 2)
            which = f" with seeds {seeds_text(side.seeds)}" if side.seeds and side.subject.runs else ""
            yield Found(Answer.UNKNOWN, f"{side.name} has no run{which}", side.command(sorted(seeds)))
        elif not side.left_aside:
            yield Found(Answer.UNKNOWN, f"{side.name} has no finished run", side.command([*side.waiting]))


def stale(case: Case) -> Iterator[Found | str]:
    for side in case.sides:
        if side.left_aside:
            seeds = [*side.left_aside]
            told = f"{side.name} has changed since seeds {seeds_text(seeds)} were run, which are left aside"
            yield Found(Answer.WARN if side.values else Answer.BLOCK, told, side.command(seeds))
    yield "every run that counts was made with the spec and the code that its branch has"


def by_hand(case: Case) -> Iterator[Found | str]:
    for side in case.sides:
        runs = [one for one in side.subject.runs if one.by_hand is not None and one.by_hand.get("changed")]
        if runs:
            told = f"{side.name} was run by hand from a tree with changes ({runs[-1].run_id}), which does not count"
            yield Found(Answer.WARN, told, f"expmgr show {runs[-1].run_id}")
    yield "no run from a tree with changes"


def _has_few(side: Side) -> bool:
    """Whether more seeds are to be had, and wanted."""
    return side.spec.run_config.tf_random_seed is None and 0 < len(side.values) < FEWEST_SEEDS


def few_seeds(case: Case) -> Iterator[Found | str]:
    short = [side for side in case.sides if _has_few(side)]
    both = "; ".join(side.command(sorted(side.seeds or range(FEWEST_SEEDS))) for side in short)
    for side in case.sides:
        if side.spec.run_config.tf_random_seed is not None and side.values:
            told = f"{side.name} fixes its seed (run_config.tf_random_seed), so one run is all it has"
            yield Found(
                Answer.BLOCK if case.in_review else Answer.WARN,
                told,
                f"expmgr new {side.name}-seeds --from {side.name} --set run_config.tf_random_seed=null",
            )
        elif _has_few(side):
            count = "1 seed" if len(side.values) == 1 else f"{len(side.values)} seeds"
            told = f"{side.name} has {count}; a verdict wants {FEWEST_SEEDS}"
            answer = Answer.BLOCK if case.in_review else Answer.WARN
            yield Found(answer, told, both)
    yield f"{FEWEST_SEEDS} seeds or more on both sides"


def left_out(case: Case) -> Iterator[Found | str]:
    for side in case.sides:
        for seed, status in side.waiting.items():
            yield Found(Answer.WARN, f"{side.name} seed {seed} {_status(status)}", _way_on(side, seed, status))
        if side.values and side.without_metric:
            told = f"{side.name} seeds {seeds_text(side.without_metric)} were not evaluated by {side.metric} on {side.split}"
            yield Found(Answer.WARN, told, side.command(side.without_metric))
        unasked = case.picked_out.get(side.name, []) if case.is_fresh else side.unasked
        if unasked:
            told = f"{side.name} seeds {seeds_text(unasked)} have results that were not asked for"
            yield Found(Answer.WARN, told, f"expmgr compare {case.base.name} {case.other.name}")
        for seed, count in _run_again(side).items():
            told = f"{side.name} seed {seed} was trained {count} times from its first step; the newest counts"
            yield Found(Answer.WARN, told, f"expmgr show {side.name}:{seed}")
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


def same_weights(case: Case) -> Iterator[Found | str]:
    for side in case.sides:
        if any(one.step and not weights_of(one, side.subject.runs) for one in side.runs):
            yield Found(Answer.UNKNOWN, f"the digests of {side.name}'s weights are not recorded")
        for same in equal_weights(side.runs, side.subject.runs):
            told = (
                f"{side.name} seeds {seeds_text(same)} ended with the same weights, bit for bit: they are one result; "
                "does the code fix its seed?"
            )
            yield Found(Answer.BLOCK, told, "keras.utils.set_random_seed(expmgr.seed())")
    yield "every seed ended with weights of its own"


def baseline(case: Case) -> Iterator[Found | str]:
    base, other = case.sides
    if base.left_aside:
        yield Found(
            Answer.WARN,
            f"{base.name}, the baseline, has results that are older than its branch",
            base.command([*base.left_aside]),
        )
    if len(base.values) < len(other.values):
        missing = sorted(other.values.keys() - base.values.keys())
        told = f"{base.name}, the baseline, has {len(base.values)} seeds, {other.name} has {len(other.values)}"
        yield Found(Answer.WARN, told, base.command(missing))
    elif base.values.keys() != other.values.keys() and other.values:
        told = f"the seeds differ: {base.name} {seeds_text(base.values)}, {other.name} {seeds_text(other.values)}"
        missing = sorted(base.values.keys() - other.values.keys())
        yield Found(Answer.WARN, told, other.command(missing))
    yield "the baseline has the same seeds"
