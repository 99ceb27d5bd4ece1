"""The checks of a comparison: each fires, and each keeps still."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from expmgr.comparison.checks.table import CHECKS, checks_of
from expmgr.comparison.comparison import compare
from expmgr.comparison.sides import Answer, Case, Lost, Side, Subject, Tried
from expmgr.paths import VariantName
from expmgr.runs.record import Attempt, Checkpoint, DataSplit, RunRecord
from expmgr.spec.experiment import ExperimentSpec
from expmgr.spec.yaml_file import read_spec
from world import ROOT

SPEC = read_spec((ROOT / "experiments/iris/spec.yaml").read_bytes(), "spec.yaml")
ENVIRONMENT = {
    "tensorflow": "2.21.0", "keras": "3.15.0", "gpus": [], "machine": "x86_64", "precision_policy": "float32",
    "op_determinism": False, "onednn": None, "name": None,
}  # fmt: skip


def spec(**parts: Any) -> ExperimentSpec:
    """`spec(train={"max_steps": 9})`: the spec of iris with some keys changed."""
    values = SPEC.resolved()
    for key, value in parts.items():
        is_part = isinstance(value, dict) and isinstance(values[key], dict) and key != "selection"
        values[key] = {**values[key], **value} if is_part else value
    return ExperimentSpec.model_validate(values)


def run(variant: str, seed: int, value: float, *, of: ExperimentSpec = SPEC, **values: Any) -> RunRecord:
    """A run that nothing is wrong with, but for `values`."""
    parts: dict[str, Any] = {
        "run_id": f"2026-{variant}-{seed}", "variant": variant, "seed": seed, "commit": "c", "tree": "t",
        "code_digest": "d", "spec": of.resolved(), "created_at": 1.0 + seed, "model_dir": "m", "status": "finished",
        "attempts": [Attempt(number=1, started_at=1.0, max_steps=1000, launcher={}, from_step=0)],
        "parameters": 193, "train_s": 20.0, "step": 1000, "examples_seen": 100_000, "environment": ENVIRONMENT,
        "data": {
            "train": DataSplit(path="train.csv", rows=2000, sha256="rows of training"),
            "eval": DataSplit(path="eval.csv", rows=5000, sha256="rows of evaluation", also_in_train=0),
            "test": DataSplit(path="test.csv", rows=5000, sha256="rows of test", also_in_train=0),
        },
        "measures": {"metrics": "m", "loss": "l", "steps": ""},
        "checkpoints": [Checkpoint(step=1000, saved_at=1.0, files={"x.data-00000-of-00001": f"{variant} {seed}"})],
        "metrics": {"selected": {split: {"accuracy": value, "loss": 1 - value} for split in ("eval", "test")}},
    }  # fmt: skip
    return RunRecord(**{**parts, **values})


def runs(name: str, *, of: ExperimentSpec = SPEC, seeds: int = 5, gain: float = 0.0, **values: Any) -> list[RunRecord]:
    return [run(f"iris/{name}", seed, 0.70 + 0.01 * seed + gain, of=of, **values) for seed in range(seeds)]


def subject(name: str, found: list[RunRecord], *, of: ExperimentSpec = SPEC, **about: Any) -> Subject:
    return Subject(VariantName("iris", name), of, about.pop("code", "d"), found, **about)


def case(base: Subject | None = None, other: Subject | None = None, **about: Any) -> Case:
    metric, split = about.pop("metric", "accuracy"), about.pop("split", "eval")
    seeds = about.pop("seeds", None)
    sides = [
        Side(one or subject(name, runs(name, gain=gain)), metric, split, seeds)
        for one, name, gain in ((base, "base", 0.0), (other, "wide", 0.1))
    ]
    mode = "min" if metric == "loss" else "max"
    return Case(*sides, **{"mode": mode, "effect": 0.005, "tried": Tried(), **about})


def other(*, of: ExperimentSpec = SPEC, **values: Any) -> Subject:
    """The variant that is held against the baseline, with something about its runs or spec."""
    return subject("wide", runs("wide", of=of, gain=0.1, **values), of=of)


def split(name: str, **values: Any) -> dict[str, DataSplit]:
    about = run("iris/x", 0, 0.5).data
    return {**about, name: about[name].model_copy(update=values)}


def stale(name: str, count: int) -> Subject:
    """Of five runs, `count` were made with other code."""
    found = runs(name, gain=0.1)
    return subject(name, [one.model_copy(update={"code_digest": "old"}) for one in found[:count]] + found[count:])


def uneven(name: str, steps: list[int]) -> Subject:
    """Each run of another length."""
    return subject(
        name,
        [run(f"iris/{name}", seed, 0.7, step=step, examples_seen=100 * step) for seed, step in enumerate(steps)],
    )


BEST = spec(selection={"metric": "accuracy"})
LONG = spec(train={"max_steps": 2000})
ATTEMPT = Attempt(number=1, started_at=1.0, max_steps=1000, launcher={}, from_step=0)
ALLOWED = ATTEMPT.model_copy(update={"changes": [{"rule": "activation", "allowed": True}]})
MOVED = ATTEMPT.model_copy(update={"changes": [{"rule": "learning-rate", "allowed": False}]})
BY_HAND = {"script": "train.py", "head": "h", "changed": ["train.py"]}
SAME = [Checkpoint(step=1000, saved_at=1.0, files={"x.data-00000-of-00001": "one and the same"})]

#: Check, what it answers, and a case in which it does.
FIRES: list[tuple[str, Answer, Callable[[], Case]]] = [
    ("results", Answer.UNKNOWN, lambda: case(other=subject("wide", []))),
    ("results", Answer.UNKNOWN, lambda: case(other=other(metrics={}))),
    ("results", Answer.UNKNOWN, lambda: case(other=other(status="failed"))),
    ("stale", Answer.WARN, lambda: case(other=stale("wide", 2))),
    ("stale", Answer.BLOCK, lambda: case(other=stale("wide", 5))),
    ("stale", Answer.BLOCK, lambda: case(base=stale("base", 5))),
    (
        "by-hand",
        Answer.WARN,
        lambda: case(other=subject("wide", [*runs("wide"), run("iris/wide", 9, 0.9, by_hand=BY_HAND)])),
    ),
    ("few-seeds", Answer.WARN, lambda: case(other=other(seeds=2))),
    ("few-seeds", Answer.WARN, lambda: case(base=subject("base", runs("base", seeds=1)))),
    ("few-seeds", Answer.WARN, lambda: case(other=other(of=spec(run_config={"tf_random_seed": 7}), seeds=1))),
    (
        "left-out",
        Answer.WARN,
        lambda: case(other=subject("wide", [*runs("wide"), run("iris/wide", 9, 0.9, status="failed")])),
    ),
    ("left-out", Answer.WARN, lambda: case(seeds=frozenset({0, 1, 2}))),
    # A confirmation whose seeds were picked: others were run beside them, or never had a part in the choice.
    ("left-out", Answer.WARN, lambda: case(seeds=frozenset({0, 1, 2}), is_confirmed=True)),
    (
        "left-out",
        Answer.WARN,
        lambda: case(seeds=frozenset({2, 3, 4}), is_confirmed=True, tried=Tried({"iris/x": frozenset({0})})),
    ),
    (
        "left-out",
        Answer.WARN,
        lambda: case(other=subject("wide", [*runs("wide"), run("iris/wide", 0, 0.9, run_id="2027")])),
    ),
    (
        "left-out",
        Answer.WARN,
        lambda: case(other=subject("wide", [*runs("wide"), run("iris/wide", 9, 0.9, metrics={})])),
    ),
    ("same-weights", Answer.BLOCK, lambda: case(other=other(checkpoints=SAME))),
    ("same-weights", Answer.UNKNOWN, lambda: case(other=other(checkpoints=[]))),
    ("same-weights", Answer.BLOCK, lambda: case(other=ended_with(lambda _: "alike", lambda seed: f"index {seed}"))),
    (
        "budget",
        Answer.UNKNOWN,
        lambda: case(other=other(examples_seen=0), base=subject("base", runs("base", examples_seen=0))),
    ),
    ("got-worse", Answer.UNKNOWN, lambda: case(other=other(parameters=None))),
    (
        "checkpoint",
        Answer.UNKNOWN,
        lambda: case(other=replace(other(), lost={"2026-iris/wide-1": Lost(Answer.UNKNOWN, "not recorded")})),
    ),
    ("evaluated-rows", Answer.BLOCK, lambda: case(other=other(data=split("eval", sha256="others")))),
    ("evaluated-rows", Answer.UNKNOWN, lambda: case(other=other(data=split("eval", sha256=None)))),
    ("evaluated-rows", Answer.UNKNOWN, lambda: case(other=other(data={}))),
    ("training-rows", Answer.BLOCK, lambda: case(other=other(data=split("train", sha256="others")))),
    (
        "training-rows",
        Answer.WARN,
        lambda: case(other=other(of=spec(data={"train": "more.csv"}), data=split("train", sha256="others"))),
    ),
    ("training-rows", Answer.UNKNOWN, lambda: case(other=other(data=split("train", sha256=None)))),
    ("overlap", Answer.WARN, lambda: case(other=other(data=split("eval", also_in_train=100)))),
    ("overlap", Answer.BLOCK, lambda: case(other=other(data=split("eval", also_in_train=2500)))),
    ("overlap", Answer.UNKNOWN, lambda: case(other=other(data=split("eval", also_in_train=None)))),
    ("measures", Answer.BLOCK, lambda: case(other=other(measures={"metrics": "n", "loss": "l", "steps": ""}))),
    ("measures", Answer.BLOCK, lambda: case(other=other(measures={"metrics": "m", "loss": "l", "steps": "own"}))),
    (
        "measures",
        Answer.BLOCK,
        lambda: case(metric="loss", other=other(measures={"metrics": "m", "loss": "k", "steps": ""})),
    ),
    ("measures", Answer.UNKNOWN, lambda: case(other=other(measures={}))),
    ("measures", Answer.UNKNOWN, lambda: case(other=other(measures={"code": "e"}))),
    ("question", Answer.WARN, lambda: case(other=other(of=spec(compare={"metric": "loss", "mode": "min"})))),
    ("selection", Answer.BLOCK, lambda: case(other=other(of=BEST))),
    ("selected-on-reported", Answer.WARN, lambda: case(other=other(of=BEST))),
    (
        "selected-on-reported",
        Answer.WARN,
        lambda: case(
            other=other(of=spec(train={"early_stopping": {"metric": "loss", "patience": 2}}, eval={"every_steps": 9}))
        ),
    ),
    (
        "selected-on-reported",
        Answer.BLOCK,
        lambda: case(split="test", other=other(of=BEST, data=split("test", sha256="rows of evaluation"))),
    ),
    ("selected-on-reported", Answer.UNKNOWN, lambda: case(other=other(of=BEST, data={}))),
    ("budget", Answer.BLOCK, lambda: case(other=other(step=1200))),
    ("budget", Answer.BLOCK, lambda: case(other=other(examples_seen=150_000))),
    # Seed by seed, though the means are the same.
    ("budget", Answer.BLOCK, lambda: case(base=uneven("base", [500, 1500]), other=uneven("wide", [1500, 500]))),
    ("budget", Answer.BLOCK, lambda: case(base=uneven("base", [1000] * 4), other=uneven("wide", [500, 1000, 1500]))),
    ("budget", Answer.WARN, lambda: case(other=other(of=LONG, step=2000, examples_seen=200_000))),
    ("budget", Answer.WARN, lambda: case(other=other(train_s=30.0))),
    ("budget", Answer.WARN, lambda: case(base=subject("base", runs("base", step=990)), other=other(step=990))),
    ("budget", Answer.WARN, lambda: case(other=other(warm_start={"variant": "iris/old"}))),
    ("budget", Answer.UNKNOWN, lambda: case(other=subject("wide", []))),
    ("guard", Answer.WARN, lambda: case(other=other(attempts=[ALLOWED]))),
    ("guard", Answer.WARN, lambda: case(other=other(attempts=[MOVED]))),
    (
        "checkpoint",
        Answer.BLOCK,
        lambda: case(other=replace(other(), lost={"2026-iris/wide-1": Lost(Answer.BLOCK, "its commit is gone")})),
    ),
    (
        "checkpoint",
        Answer.WARN,
        lambda: case(other=replace(other(), lost={"2026-iris/wide-1": Lost(Answer.WARN, "its checkpoint is gone")})),
    ),
    ("environment", Answer.WARN, lambda: case(other=other(environment={**ENVIRONMENT, "gpus": ["A100"]}))),
    ("environment", Answer.WARN, lambda: case(other=other(environment={**ENVIRONMENT, "tensorflow": "2.16.1"}))),
    (
        "environment",
        Answer.WARN,
        lambda: case(other=other(environment={**ENVIRONMENT, "precision_policy": "mixed_float16"})),
    ),
    ("environment", Answer.UNKNOWN, lambda: case(other=other(environment={}))),
    ("library-defaults", Answer.WARN, lambda: case(other=other(environment={**ENVIRONMENT, "keras": "3.0.0"}))),
    ("library-defaults", Answer.UNKNOWN, lambda: case(other=other(environment={}))),
    ("evaluation-noise", Answer.WARN, lambda: case(other=subject("wide", runs("wide", gain=0.01)))),
    ("evaluation-noise", Answer.UNKNOWN, lambda: case(metric="loss")),
    ("evaluation-noise", Answer.UNKNOWN, lambda: case(other=other(data=split("eval", rows=None)))),
    ("baseline", Answer.WARN, lambda: case(base=subject("base", runs("base", seeds=3)))),
    ("baseline", Answer.WARN, lambda: case(base=stale("base", 2))),
    ("baseline", Answer.WARN, lambda: case(other=other(seeds=4))),
    ("got-worse", Answer.WARN, lambda: case(other=other(parameters=300))),
    ("got-worse", Answer.WARN, lambda: case(other=other(train_s=40.0))),
    ("got-worse", Answer.WARN, lambda: case(metric="loss", other=subject("wide", runs("wide", gain=-0.1)))),
    ("got-worse", Answer.UNKNOWN, lambda: case(other=subject("wide", []))),
    ("many-tried", Answer.WARN, lambda: case(tried=Tried({"iris/wide": frozenset({0}), "iris/gone": frozenset({7})}))),
    ("screening-seeds", Answer.WARN, lambda: case(tried=Tried({"iris/gone": frozenset({4})}))),
    # Whoever names the seeds to confirm by cannot make them fresh.
    ("screening-seeds", Answer.WARN, lambda: case(tried=Tried({"iris/gone": frozenset({4})}), is_confirmed=True)),
    ("many-tried", Answer.WARN, lambda: case(tried=Tried({"iris/gone": frozenset({4})}), is_confirmed=True)),
    ("declared-late", Answer.WARN, lambda: case(effect=0.001)),
    ("declared-late", Answer.WARN, lambda: case(metric="loss")),
    ("declared-late", Answer.UNKNOWN, lambda: case(subject("base", []), subject("wide", []))),
    # The first result decides, on whichever side it is and whatever came after it.
    ("declared-late", Answer.WARN, lambda: case(declared([(1.0, 0.001), (2.0, 0.005)]))),
    ("declared-late", Answer.WARN, lambda: case(other=declared([(0.5, 0.001), (2.0, 0.005)], "wide"))),
    ("declared-late", Answer.WARN, lambda: case(declared([(1.0, None)]))),
    ("declared-late", Answer.UNKNOWN, lambda: case(declared([(0.5, "large")]))),
    # Of seeds that differ the least and the most count, whichever end is apart.
    ("budget", Answer.BLOCK, lambda: case(uneven("base", [1000] * 4), uneven("wide", [1000, 1000, 1500]))),
    ("budget", Answer.BLOCK, lambda: case(uneven("base", [1000] * 4), uneven("wide", [500, 1000, 1000]))),
    # A spec that says another budget excuses no run that was trained for a third one.
    ("budget", Answer.BLOCK, lambda: case(other=other(of=LONG, step=1500, examples_seen=150_000))),
    ("budget", Answer.BLOCK, lambda: case(other=other(of=LONG, step=1000, examples_seen=200_000))),
    ("budget", Answer.WARN, lambda: case(*timed(4.0, 6.0))),
    ("guard", Answer.WARN, lambda: case(base=subject("base", runs("base", attempts=[MOVED])))),
    ("guard", Answer.WARN, lambda: case(other=subject("wide", [*runs("wide", seeds=4), moved_once("wide", 4)]))),
    ("guard", Answer.WARN, lambda: case(other=subject("wide", [*runs("wide", seeds=4), *after_a_move("wide", 4)]))),
    ("got-worse", Answer.WARN, lambda: case(split="test", other=worse_on("test"))),
    ("evaluation-noise", Answer.WARN, lambda: case(other=subject("wide", runs("wide", gain=-0.01)))),
    # Folds, of which one side lacks some.
    ("evaluated-rows", Answer.BLOCK, lambda: case(folds("base", 5), folds("wide", 3))),
    ("training-rows", Answer.WARN, lambda: case(other=of_other_code(data=split("train", sha256="others")))),
    (
        "measures",
        Answer.BLOCK,
        lambda: case(metric="loss", other=other(measures={"metrics": "m", "loss": "l", "steps": "own"})),
    ),
    # One run among several is enough.
    (
        "selected-on-reported",
        Answer.BLOCK,
        lambda: case(split="test", other=one_of(BEST, data=split("test", sha256="rows of evaluation"))),
    ),
    ("selected-on-reported", Answer.UNKNOWN, lambda: case(other=one_of(BEST, data=split("eval", sha256=None)))),
    ("environment", Answer.UNKNOWN, lambda: case(other=one_of(SPEC, environment={}))),
    ("library-defaults", Answer.UNKNOWN, lambda: case(other=one_of(SPEC, environment={}))),
    ("measures", Answer.UNKNOWN, lambda: case(other=one_of(SPEC, measures={}))),
    ("evaluated-rows", Answer.UNKNOWN, lambda: case(other=one_of(SPEC, data=split("eval", sha256=None)))),
    # A review is no place for too few seeds.
    ("few-seeds", Answer.BLOCK, lambda: case(other=other(seeds=2), in_review=True)),
    ("few-seeds", Answer.BLOCK, lambda: case(other=other(of=spec(run_config={"tf_random_seed": 7})), in_review=True)),
    # One that failed was an attempt at the same seed, too.
    ("left-out", Answer.WARN, lambda: case(other=again(status="failed"))),
    ("left-out", Answer.WARN, lambda: case(other=again())),
]


def by_hand_that_failed() -> Subject:
    failed = run("iris/wide", 9, 0.9, status="failed", by_hand={**BY_HAND, "changed": []})
    return subject("wide", [*runs("wide", gain=0.1), failed])


def ended_with(weights: Callable[[int], str], index: Callable[[int], str]) -> Subject:
    """Runs that began alike, with these digests in the end."""
    first = Checkpoint(step=0, saved_at=1.0, files={"x.data-00000-of-00001": "the start"})
    found = []
    for one in runs("wide", gain=0.1):
        files = {"x.data-00000-of-00001": weights(one.seed), "x.index": index(one.seed), "x.json": f"of {one.seed}"}
        last = Checkpoint(step=1000, saved_at=2.0, files=files)
        found.append(one.model_copy(update={"checkpoints": [first, last]}))
    return subject("wide", found)


def folds(name: str, seeds: int) -> Subject:
    """Each seed was evaluated on rows of its own."""
    found = [run(f"iris/{name}", seed, 0.7, data=split("eval", sha256=f"fold {seed}")) for seed in range(seeds)]
    return subject(name, found)


def of_other_code(**values: Any) -> Subject:
    return subject("wide", runs("wide", gain=0.1, code_digest="e", **values), code="e")


def one_of(of: ExperimentSpec, **values: Any) -> Subject:
    """Five runs, of which the third is otherwise."""
    found = runs("wide", of=of, gain=0.1)
    return subject("wide", [*found[:2], found[2].model_copy(update=values), *found[3:]], of=of)


def again(**about: Any) -> Subject:
    """Seed 0 was run before."""
    return subject("wide", [run("iris/wide", 0, 0.5, **{"run_id": "2025", **about}), *runs("wide", gain=0.1)])


def declared(firsts: list[tuple[float, Any]], name: str = "base") -> Subject:
    """Runs at these times, whose specs declared these minimum effects; then those that `run` makes, all later."""
    found = [one.model_copy(update={"created_at": 10.0 + one.seed}) for one in runs(name)]
    for number, (at, effect) in enumerate(firsts):
        values = {**SPEC.resolved(), "compare": {**SPEC.resolved()["compare"], "minimum_effect": effect}}
        about = {"created_at": at, "spec": values, "code_digest": "old", "run_id": f"2025-{name}-{number}"}
        found.insert(0, run(f"iris/{name}", number, 0.5, **about))
    return subject(name, found)


def timed(base_s: float, other_s: float) -> tuple[Subject, Subject]:
    return subject("base", runs("base", train_s=base_s)), subject("wide", runs("wide", gain=0.1, train_s=other_s))


def moved_once(name: str, seed: int) -> RunRecord:
    """A run of which one attempt, not the last one, went on with another setting."""
    return run(f"iris/{name}", seed, 0.8, attempts=[ATTEMPT, MOVED, ATTEMPT.model_copy(update={"number": 3})])


def after_a_move(name: str, seed: int) -> list[RunRecord]:
    """A run, and one at another commit that goes on from it; the setting had moved before that."""
    first = run(f"iris/{name}", seed, 0.8, attempts=[ATTEMPT, MOVED], run_id="2025-first", code_digest="old")
    attempt = ATTEMPT.model_copy(update={"from_step": 500})
    return [first, run(f"iris/{name}", seed, 0.8, attempts=[attempt], parent_run="2025-first")]


def worse_on(where: str) -> Subject:
    """Another metric got worse in this split alone."""
    found = runs("wide", gain=0.1)
    for one in found:
        one.metrics["selected"][where]["loss"] += 1
    return subject("wide", found)


def answers(found: Case) -> dict[str, Answer]:
    return {one.id: one.answer for one in checks_of(found)}


@pytest.mark.parametrize("number", range(len(FIRES)), ids=[f"{one[0]}-{one[1].value}" for one in FIRES])
def test_it_fires(number: int) -> None:
    name, answer, made = FIRES[number]
    (found,) = [one for one in checks_of(made()) if one.id == name]
    assert (found.answer, found.variants) == (answer, ("iris/base", "iris/wide"))
    assert found.told
    assert found.inputs or answer is Answer.UNKNOWN


def test_it_keeps_still() -> None:
    """A case that nothing is wrong with: every check says `ok`, with what it found and what it looked at."""
    found = checks_of(case())
    assert [(one.id, one.answer) for one in found if one.answer is not Answer.OK] == []
    assert [one.id for one in found if not one.told or not one.inputs] == []


LOOK_AT_RESULTS = set(CHECKS) - {
    "results", "stale", "by-hand", "left-out", "question", "selection", "many-tried", "declared-late"
}  # fmt: skip


@pytest.mark.parametrize("side", ["base", "other"])
def test_what_was_not_recorded_is_never_ok(side: str) -> None:
    found = answers(case(**{side: subject("base" if side == "base" else "wide", [])}))
    assert {name for name in LOOK_AT_RESULTS if found[name] is not Answer.UNKNOWN} == set()
    assert found["results"] is Answer.UNKNOWN


def test_every_answer_of_every_check_has_a_case() -> None:
    tried = {(name, answer.value) for name, answer, _ in FIRES}
    said = {
        (one.id, word)
        for one in CHECKS.values()
        for word in re.findall(r"warn|block|unknown", one.severity.replace("block in a review", ""))
    }
    assert sorted(said - tried) == []
    assert {name for name, _ in tried} == set(CHECKS)


AUC = (0.90, 0.88, 0.92, 0.86, 0.87)


def with_metric(name: str, metric: str, *values: float) -> list[RunRecord]:
    """Another metric beside the accuracy: a value for each seed, or one for all."""
    found = runs(name, gain=0.1 if name == "wide" else 0.0)
    for one, value in zip(found, values * 5, strict=False):
        one.metrics["selected"]["eval"] = {"accuracy": one.metrics["selected"]["eval"]["accuracy"], metric: value}
    return found


def declared_by(status: str, **about: Any) -> Subject:
    """Before the first result there was a run without one, whose spec declared something else."""
    first, *rest = declared([(0.5, 0.001)]).runs
    return subject("base", [first.model_copy(update={"status": status, **about}), *rest])


STILL: list[tuple[str, Callable[[], Case]]] = [
    # Folds: other rows for each seed, the same on both sides.
    (
        "evaluated-rows",
        lambda: case(
            *(
                subject(
                    name,
                    [
                        run(f"iris/{name}", seed, 0.7 + 0.01 * seed, data=split("eval", sha256=f"fold {seed}"))
                        for seed in range(5)
                    ],
                )
                for name in ("base", "wide")
            )
        ),
    ),
    ("stale", lambda: case(other=subject("wide", runs("wide"), of=spec(question="In other words?")))),
    ("overlap", lambda: case(other=other(data=split("eval", also_in_train=50)))),  # one in a hundred: chance
    ("measures", lambda: case(other=other(measures={"metrics": "m", "loss": "another", "steps": ""}))),  # by accuracy
    ("measures", lambda: case(*(subject(n, runs(n, measures={"code": "c"})) for n in ("base", "wide")))),
    (
        "selected-on-reported",
        lambda: case(subject("base", runs("base", of=BEST), of=BEST), other(of=BEST), split="test"),
    ),
    ("budget", lambda: case(other=other(step=1050, examples_seen=105_000, of=spec(train={"max_steps": 1050})))),
    ("budget", lambda: case(*(subject(n, runs(n, train_s=s)) for n, s in (("base", 0.4), ("wide", 0.6))))),  # too short
    ("library-defaults", lambda: case()),
    ("many-tried", lambda: case(tried=Tried({"iris/wide": frozenset({0})}))),
    (
        "many-tried",
        lambda: case(tried=Tried({"iris/wide": frozenset({0}), "iris/x": frozenset({17})}), is_confirmed=True),
    ),
    ("screening-seeds", lambda: case(tried=Tried({"iris/x": frozenset({17})}))),
    # A confirmation leaves out the seeds by which the best was picked: they were run before.
    ("left-out", lambda: case(seeds=frozenset({2, 3, 4}), is_confirmed=True)),
    (
        "left-out",
        lambda: case(seeds=frozenset({2, 3, 4}), is_confirmed=True, tried=Tried({"iris/x": frozenset({0, 1})})),
    ),
    ("got-worse", lambda: case(other=other(parameters=200))),
    (
        "by-hand",
        lambda: case(
            other=subject("wide", [*runs("wide"), run("iris/wide", 9, 0.9, by_hand={**BY_HAND, "changed": []})])
        ),
    ),
    ("got-worse", lambda: case(other=worse_on("test"))),  # which is not the split that is compared
    # Of a metric without a direction nobody knows whether less of it is worse.
    ("got-worse", lambda: case(*(subject(n, with_metric(n, "temperature", t)) for n, t in (("base", 1), ("wide", 9))))),
    ("got-worse", lambda: case(*(subject(n, with_metric(n, "temperature", t)) for n, t in (("base", 9), ("wide", 1))))),
    ("got-worse", lambda: case(*(subject(n, with_metric(n, "auc", t)) for n, t in (("base", 0.1), ("wide", 0.9))))),
    # Somewhat less, and well within what seeds make of it.
    (
        "got-worse",
        lambda: case(*(subject(n, with_metric(n, "auc", *t)) for n, t in (("base", AUC), ("wide", AUC[::-1])))),
    ),
    ("evaluation-noise", lambda: case(other=subject("wide", runs("wide", gain=-0.1)))),
    ("left-out", lambda: case(other=again(code_digest="old"))),
    ("left-out", lambda: case(other=again(by_hand=BY_HAND))),
    ("left-out", lambda: case(other=again(status="killed"))),
    ("left-out", lambda: case(other=again(attempts=[ATTEMPT.model_copy(update={"from_step": 500})]))),  # it went on
    ("left-out", lambda: case(other=by_hand_that_failed())),
    ("stale", lambda: case(other=stale("wide", 2), seeds=frozenset({2, 3, 4}))),  # those were not asked for
    # The same start, other weights in the end; and an index that is another says nothing of weights.
    ("same-weights", lambda: case(other=ended_with(lambda seed: f"weights of {seed}", lambda _: "one index"))),
    # What another check says is not said twice.
    ("left-out", lambda: case(other=other(metrics={}))),
    ("results", lambda: case(other=stale("wide", 5))),
    ("same-weights", lambda: case(other=other(step=0, checkpoints=[]))),  # nothing was trained
    ("got-worse", lambda: case(*timed(4.0, 40.0))),  # a side that is too short to tell
    ("got-worse", lambda: case(*timed(40.0, 20.0))),
    ("got-worse", lambda: case(subject("base", runs("base", parameters=300)))),
    ("declared-late", lambda: case(declared([(20.0, 0.001)]))),  # later than the first result
    ("declared-late", lambda: case(declared_by("failed"))),
    ("declared-late", lambda: case(declared_by("finished", by_hand=BY_HAND))),
    ("budget", lambda: case(*timed(3.0, 4.5))),
    (
        "guard",
        lambda: case(other=subject("wide", [*runs("wide"), moved_once("wide", 4).model_copy(update={"run_id": "1"})])),
    ),
]


@pytest.mark.parametrize("number", range(len(STILL)), ids=[one[0] for one in STILL])
def test_it_keeps_still_where_nothing_is_wrong(number: int) -> None:
    name, made = STILL[number]
    assert answers(made())[name] is Answer.OK


def test_the_way_out_names_each_variant_that_needs_it() -> None:
    both = [replace(subject(name, runs(name)), lost={f"2026-iris/{name}-1": Lost(Answer.UNKNOWN, "not recorded")})
            for name in ("base", "wide")]  # fmt: skip
    found = {one.id: one for one in checks_of(case(base=both[0], other=both[1]))}["checkpoint"]
    assert found.mend == "expmgr run iris/base --seeds 1 --fresh; expmgr run iris/wide --seeds 1 --fresh"
    none = {one.id: one for one in checks_of(case(base=subject("base", []), other=subject("wide", [])))}["results"]
    assert none.mend == "expmgr run iris/base --seeds 0-2; expmgr run iris/wide --seeds 0-2"


def test_a_budget_that_the_specs_mean_has_nothing_to_mend() -> None:
    (found,) = [
        one for one in checks_of(case(other=other(of=LONG, step=2000, examples_seen=200_000))) if one.id == "budget"
    ]
    assert (found.answer, found.mend) == (Answer.WARN, None)
    assert "steps: 1,000 and 2,000, as the specs say" in found.told
    (found,) = [one for one in checks_of(case(other=uneven("wide", [500, 1000, 1500]))) if one.id == "budget"]
    assert "steps: 1,000 and 500 to 1,500" in found.told


def test_every_candidate_counts_among_many_though_it_has_no_result() -> None:
    """Three were tried: the interval and Holm's p are for three, also where one has no number to show."""
    base = subject("base", runs("base"))
    pair = [base, subject("wide", runs("wide", gain=0.02)), subject("deep", runs("deep", gain=0.01))]
    two, three = compare(pair), compare([*pair, subject("none", [])])
    results = [one.rows[1].result for one in (two, three)]
    assert results[0] is not None
    assert results[1] is not None
    assert [one.candidates for one in results if one] == [2, 3]
    assert results[0].family is not None
    assert results[1].family is not None
    assert results[1].family.level == pytest.approx(1 - 0.05 / 3)
    assert results[0].family.level == pytest.approx(1 - 0.05 / 2)


def test_a_block_takes_the_verdict_away_and_not_the_numbers() -> None:
    base = subject("base", runs("base"))
    fine, blocked = compare([base, other()]), compare([base, other(data=split("eval", sha256="others"))])
    assert (fine.is_blocked, fine.verdict) == (False, "better")
    assert (blocked.is_blocked, blocked.verdict) == (True, None)
    row = blocked.rows[1]
    assert row.difference == pytest.approx(0.1)
    assert row.result is not None
    assert row.result.sentence == "not comparable (evaluated-rows)"
    told = blocked.as_dict()["variants"][1]["result"]
    assert {one["id"] for one in told["checks"]} == set(CHECKS)
    assert (told["verdict"], told["interval"][0] > 0) == (None, True)


def told_by(name: str, found: Case) -> tuple[str, str | None]:
    (check,) = [one for one in checks_of(found) if one.id == name]
    return check.told, check.mend


def test_what_got_worse_is_said_with_both_numbers() -> None:
    for metric, values, words in (
        ("auc", (0.9, 0.1), "auc got worse: 0.9 to 0.1"),
        ("mae", (1.0, 3.0), "mae got worse: 1 to 3"),
    ):
        found = case(
            *(subject(n, with_metric(n, metric, value)) for n, value in zip(("base", "wide"), values, strict=True))
        )
        assert told_by("got-worse", found) == (words, f"expmgr compare iris/base iris/wide --metric {metric}")
    assert told_by("got-worse", case(other=other(parameters=300)))[0] == "300 parameters instead of 193"
    assert told_by("got-worse", case(other=other(train_s=40.0)))[0] == "a step takes 40 ms instead of 20"


def test_a_late_declaration_names_the_first_result() -> None:
    told, _ = told_by("declared-late", case(declared([(2.0, 0.002), (1.0, 0.001)])))
    assert told == "the minimum effect was declared after the first result (2025-base-1), which said 0.001"
    told, _ = told_by("declared-late", case(declared([(1.0, None)])))
    assert told.endswith(", which said none")
    told, mend = told_by("declared-late", case(metric="loss"))
    assert told == "the metric loss was declared after the first result (2026-iris/base-0), which said accuracy"
    assert mend == "expmgr compare iris/base iris/wide --metric accuracy"


def test_a_run_of_another_length_is_said_with_both_lengths() -> None:
    told, mend = told_by("budget", case(other=other(of=LONG, step=1500, examples_seen=150_000)))
    assert told == (
        "another budget of steps: 1,000 and 1,500; another budget of examples: 100,000 and 150,000; "
        "iris/wide was trained for 1,500 steps, its spec says 2,000"
    )
    assert mend == "expmgr run iris/base iris/wide --seeds 0-4"
    assert told_by("budget", case(*timed(4.0, 6.0)))[0] == "another time of training: 4 s and 6 s"


def test_noise_is_that_of_both_sides() -> None:
    """Binomial, of 5,000 rows each: 1.96 * (0.72 * 0.28 / 5000 + 0.73 * 0.27 / 5000) ** 0.5."""
    told, _ = told_by("evaluation-noise", case(other=subject("wide", runs("wide", gain=0.01))))
    assert told == (
        "a difference of 1.0 points, on 5,000 rows that are good for 1.8: another choice of rows may turn it round"
    )


@pytest.mark.parametrize("key", ENVIRONMENT)
def test_each_part_of_the_environment_counts(key: str) -> None:
    found = case(other=one_of(SPEC, environment={**ENVIRONMENT, key: "x9"}))
    assert (answers(found)["environment"], "x9" in told_by("environment", found)[0]) == (Answer.WARN, True)
    without = {name: value for name, value in ENVIRONMENT.items() if name != key}
    assert answers(case(other=one_of(SPEC, environment=without)))["environment"] is Answer.UNKNOWN


def test_a_seed_that_the_spec_fixes_is_not_asked_for() -> None:
    fixed = spec(run_config={"tf_random_seed": 7})
    assert Side(other(of=fixed), "accuracy", "eval").command([0, 1]) == "expmgr run iris/wide"
    assert Side(other(), "accuracy", "eval").command([0, 1]) == "expmgr run iris/wide --seeds 0-1"
    assert Side(other(), "accuracy", "eval").command() == "expmgr run iris/wide"


def test_what_was_picked_among_many_is_confirmed_where_the_question_was_asked() -> None:
    tried = Tried({"iris/gone": frozenset({4})})
    told, mend = told_by("many-tried", case(tried=tried))
    assert told == "2 variants were tried against iris/base: the best of many is flattered"
    assert mend == "expmgr compare iris/base iris/wide --confirm"
    told, screened = told_by("screening-seeds", case(tried=tried))
    assert told == "seeds 4 of iris/wide are those on which it was picked among 2"
    assert screened == mend
    _, mend = told_by("many-tried", case(tried=tried, in_review=True))
    assert mend == (
        "expmgr review close iris/wide --reason superseded; expmgr review open iris/wide --against iris/base --confirm"
    )


def test_what_is_left_to_a_library_is_named() -> None:
    newer = {**ENVIRONMENT, "keras": "3.0.0"}
    told, _ = told_by("library-defaults", case(other=other(environment=newer)))
    assert told.startswith("other versions of TensorFlow or Keras, and optimizer.clipnorm, ")
    assert "learning_rate" not in told
    given = {
        "clipnorm": 1.0,
        "clipvalue": 1.0,
        "global_clipnorm": 1.0,
        "gradient_accumulation_steps": 2,
        "ema_momentum": 0.9,
    }
    optimizer = SPEC.optimizer.model_copy(update=given) if SPEC.optimizer else None
    of = SPEC.model_copy(update={"optimizer": optimizer})
    sides = [replace(one, spec=of) for one in (subject("base", runs("base", of=of)), other(of=of, environment=newer))]
    assert answers(case(*sides))["library-defaults"] is Answer.OK


def test_the_table_of_the_docs_is_that_of_the_code() -> None:
    text = (ROOT / "docs/reference/comparability.md").read_text(encoding="utf-8")
    rows = [f"| `{one.id}` | {one.asks} | {one.severity} |" for one in CHECKS.values()]
    assert [row for row in rows if row not in text] == []
    assert text.count("\n| `") == len(rows)
