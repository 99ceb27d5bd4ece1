"""`CHECKS`, the table of all comparability checks, and how it is applied to two variants.

Each check looks at some inputs and answers `ok`, `warn`, `block` or `unknown`; what was not recorded is never `ok`. A `block`
takes the verdict away, not the numbers. `CHECKS` is the table of docs/reference/comparability.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from expmgr.comparison.checks import outcome, rows, runs, training
from expmgr.comparison.checks.finding import NO_RESULT, Found
from expmgr.comparison.sides import Answer, Case, Check


@dataclass(frozen=True)
class CheckKind:
    """A check: its stable id, what it asks, and what it may answer."""

    id: str
    asks: str
    severity: str
    look: Callable[[Case], Iterator[Found | str]]
    """Gives what it found, and as plain words what is right."""
    inputs: Callable[[Case], list[str]]


def checks_of(case: Case) -> list[Check]:
    """What every check says, in the order of the table."""
    return [_check(about, case) for about in CHECKS.values()]


#: Checks that can be answered of specs, of git or of the runs that are left out; the others look at results.
_WITHOUT_RESULTS = frozenset(
    {"results", "stale", "by-hand", "left-out", "question", "selection", "many-tried", "declared-late"}
)


def _check(about: CheckKind, case: Case) -> Check:
    is_blind = about.id not in _WITHOUT_RESULTS and not all(side.runs for side in case.sides)
    found: list[Found | str] = [NO_RESULT] if is_blind else list(about.look(case))
    problems = sorted((one for one in found if isinstance(one, Found)), key=lambda one: -one.answer.weight)
    if not problems and not all(side.subject.runs for side in case.sides):  # nothing was run, so nothing is right
        problems = [NO_RESULT]
    words = [one.told for one in problems] or [one for one in found if isinstance(one, str)]
    return Check(
        id=about.id,
        answer=problems[0].answer if problems else Answer.OK,
        told="; ".join(dict.fromkeys(words)),
        inputs=tuple(dict.fromkeys(about.inputs(case))),
        mend="; ".join(dict.fromkeys(one.mend for one in problems if one.mend)) or None,
        variants=(case.base.name, case.other.name),
    )


def worst(checks: Sequence[Check]) -> Answer:
    """The heaviest answer of several."""
    return max((one.answer for one in checks), key=lambda answer: answer.weight, default=Answer.OK)


def _fields(what: str) -> Callable[[Case], list[str]]:
    return lambda case: [one for side in case.sides for one in side.of(what)]


def _keys(*keys: str) -> Callable[[Case], list[str]]:
    return lambda case: [f"exp/{side.name}:{key}" for side in case.sides for key in keys]


def _tried_inputs(case: Case) -> list[str]:
    return [f"exp/{name}" for name in sorted(case.tried.seeds)] or [f"exp/{case.other.name}"]


def _all_runs(what: str) -> Callable[[Case], list[str]]:
    return lambda case: [f"{one.run_id}:{what}" for side in case.sides for one in side.subject.runs]


CHECKS: dict[str, CheckKind] = {
    one.id: one
    for one in (
        CheckKind("results", "Has each side a result by this metric?", "unknown", runs.results, _all_runs("metrics")),
        CheckKind(
            "stale",
            "Is a result older than its branch, by spec and code digest? A change of docs is none.",
            "warn; block where no other result is left",
            runs.stale,
            lambda case: [*_keys("spec", "code digest")(case), *_all_runs("code_digest")(case)],
        ),
        CheckKind(
            "by-hand", "Was a script run by hand from a tree with changes?", "warn", runs.by_hand, _all_runs("by_hand")
        ),
        CheckKind(
            "few-seeds",
            "Are there fewer than three seeds?",
            "warn, and no verdict; block in a review",
            runs.few_seeds,
            _fields("seed"),
        ),
        CheckKind(
            "left-out",
            "Are seeds or failed runs left out, or was one seed trained several times?",
            "warn",
            runs.left_out,
            _all_runs("status"),
        ),
        CheckKind(
            "same-weights",
            "Did two seeds end with the same weights?",
            "block",
            runs.same_weights,
            _fields("checkpoints"),
        ),
        CheckKind(
            "evaluated-rows",
            "Were they evaluated on the same rows, by digest and number?",
            "block",
            rows.evaluated_rows,
            lambda case: _fields(f"data.{case.base.split}.sha256")(case),
        ),
        CheckKind(
            "training-rows",
            "Were they trained on the same rows?",
            "warn where spec or code differ on it; else block",
            rows.training_rows,
            _fields("data.train.sha256"),
        ),
        CheckKind(
            "overlap",
            "Do evaluated rows stand in the training rows, by their inputs?",
            "warn over 1 %; block from 50 %",
            rows.overlap,
            lambda case: _fields(f"data.{case.base.split}.also_in_train")(case),
        ),
        CheckKind(
            "measures",
            "Are metric, loss and the code of the evaluation the same?",
            "block",
            rows.measured,
            _fields("measures"),
        ),
        CheckKind(
            "question",
            "Is the other variant's own spec compared by the same metric?",
            "warn",
            rows.same_question,
            _keys("compare"),
        ),
        CheckKind(
            "selection", "Does the same rule select the checkpoint?", "block", rows.selection, _keys("selection")
        ),
        CheckKind(
            "selected-on-reported",
            "Was the checkpoint selected, or training stopped, on the rows that are reported, by their digests?",
            "warn on eval; block on test",
            rows.selected_on_reported,
            lambda case: [
                *_keys("selection", "train.early_stopping")(case),
                *_fields("data.eval.sha256")(case),
                *_fields(f"data.{case.base.split}.sha256")(case),
            ],
        ),
        CheckKind(
            "budget",
            "Do steps, examples or time of training differ by over 10 %?",
            "warn where the specs say so, and for time from 5 s on; else block",
            training.budget,
            lambda case: [*_fields("step")(case), *_fields("examples_seen")(case), *_fields("train_s")(case)],
        ),
        CheckKind(
            "guard",
            "Did a run go on with another setting, or past a refusal of the guard?",
            "warn",
            training.guarded,
            _fields("attempts"),
        ),
        CheckKind(
            "checkpoint",
            "Are the code and the selected checkpoint of each run there, and the ones that were recorded?",
            "block without the code; warn without the checkpoint",
            training.checkpoint,
            lambda case: [*_fields("commit")(case), *_fields("checkpoints")(case)],
        ),
        CheckKind(
            "environment",
            "Do TensorFlow, Keras, device, precision or determinism differ?",
            "warn",
            training.environment,
            _fields("environment"),
        ),
        CheckKind(
            "library-defaults",
            "Are hyperparameters left to a library's defaults, and the versions differ?",
            "warn",
            training.library_defaults,
            lambda case: [*_fields("environment")(case), *_keys("optimizer")(case)],
        ),
        CheckKind(
            "evaluation-noise",
            "Is the difference smaller than what so many rows can tell?",
            "warn; unknown where the metric is no share of rows",
            outcome.evaluation_noise,
            lambda case: _fields(f"data.{case.base.split}.rows")(case),
        ),
        CheckKind(
            "baseline",
            "Has the baseline fewer seeds, other ones, or stale results?",
            "warn",
            runs.baseline,
            _fields("seed"),
        ),
        CheckKind(
            "got-worse",
            "Did another metric, the parameters (10 %) or the time of a step (10 %, from 5 s on) get worse?",
            "warn",
            outcome.got_worse,
            lambda case: [*_fields("metrics")(case), *_fields("parameters")(case)],
        ),
        CheckKind(
            "many-tried",
            "How many variants were tried against the baseline, deleted ones too?",
            "warn",
            outcome.many_tried,
            _tried_inputs,
        ),
        CheckKind(
            "screening-seeds",
            "Are the seeds those on which the variant was picked among others?",
            "warn",
            outcome.screening,
            lambda case: [*_tried_inputs(case), *_fields("seed")(case)],
        ),
        CheckKind(
            "declared-late",
            "Were metric or minimum effect declared after the first result?",
            "warn",
            outcome.declared_late,
            lambda case: [*_keys("compare")(case), *_all_runs("spec.compare")(case)],
        ),
    )
}

#: Checks that say something of a variant alone.
OF_ONE = ("results", "stale", "by-hand", "left-out", "same-weights", "overlap", "guard", "checkpoint")
