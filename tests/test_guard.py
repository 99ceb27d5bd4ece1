"""The guard's rules: what each knows, and laws that hold for all of them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expmgr.guard import RULES, Verdict, judge, refusal
from expmgr.signature import Feature, Signature, Variable


def variables(*widths: int) -> list[Variable]:
    sizes = [4, *widths]
    found = []
    for number, (rows, columns) in enumerate(pairwise(sizes)):
        found.append(Variable(path=f"hidden_{number}/kernel", shape=[rows, columns], dtype="float32"))
        found.append(Variable(path=f"hidden_{number}/bias", shape=[columns], dtype="float32"))
    return found


def signature(**changes: Any) -> Signature:
    parts: dict[str, Any] = {
        "step": 200,
        "variables": variables(10, 10),
        "optimizer_variables": [Variable(path="adagrad/x", shape=[4, 10], dtype="float32")],
        "state": [],
        "model": {"kind": "dnn_classifier", "hidden_units": [10, 10], "activation": "relu", "dropout": 0.0},
        "features": [Feature(name="a", kind="numeric"), Feature(name="b", kind="categorical", vocabulary=["x", "y"])],
        "label": "kind",
        "labels": ["cat", "dog"],
        "data": {"train": "1" * 64, "eval": "2" * 64},
        "training": {"batch_size": 100, "shuffle": True, "loss": "sparse_categorical_crossentropy"},
        "optimizer": {"kind": "adagrad", "learning_rate": 0.1, "initial_accumulator_value": 0.1},
        "provenance": {},
    }
    return Signature(**{**parts, **changes})


BASE = signature()


def with_key(part: str, **values: Any) -> Signature:
    return BASE.model_copy(update={part: {**getattr(BASE, part), **values}})


CASES: dict[str, tuple[Signature, Verdict]] = {
    "variables": (signature(variables=variables(20, 20)), Verdict.REFUSE),
    "architecture": (with_key("model", activation="tanh"), Verdict.REFUSE),
    "dropout": (with_key("model", dropout=0.5), Verdict.RESUME),
    "features": (signature(features=list(reversed(BASE.features))), Verdict.REFUSE),
    "label": (signature(label="colour"), Verdict.REFUSE),
    "labels": (signature(labels=["dog", "cat"]), Verdict.REFUSE),
    "data": (with_key("data", train="3" * 64), Verdict.REFUSE),
    "evaluation-data": (with_key("data", eval="3" * 64), Verdict.RESUME),
    "loss": (with_key("training", loss="mse"), Verdict.WARM_START),
    "batch-size": (with_key("training", batch_size=50), Verdict.RESUME),
    "data-order": (with_key("training", shuffle=False), Verdict.RESUME),
    "optimizer": (with_key("optimizer", kind="sgd"), Verdict.WARM_START),
    "optimizer-start": (with_key("optimizer", initial_accumulator_value=0.5), Verdict.REFUSE),
    "optimizer-setting": (with_key("optimizer", learning_rate=0.01), Verdict.RESUME),
    "optimizer-variables": (signature(optimizer_variables=[]), Verdict.WARM_START),
}


@pytest.mark.parametrize("rule", CASES)
def test_each_rule(rule: str) -> None:
    other, verdict = CASES[rule]
    found = judge(BASE, other)
    assert found.verdict is verdict
    assert {one.rule.id for one in found.differences} == {rule}
    assert found.verdict.may_restore is (verdict is Verdict.RESUME)


def test_every_rule_has_its_case() -> None:
    assert {rule for rule in RULES if rule not in CASES} == set()


@pytest.mark.parametrize(
    "features",
    [
        [Feature(name="a", kind="numeric"), Feature(name="b", kind="categorical", vocabulary=["y", "x"])],
        [Feature(name="a", kind="numeric", scale=[1.0, 2.0]), BASE.features[1]],
        [Feature(name="c", kind="numeric"), BASE.features[1]],
        [Feature(name="a", kind="categorical", vocabulary=["1"]), BASE.features[1]],
    ],
)
def test_what_a_feature_may_not_change(features: list[Feature]) -> None:
    assert judge(BASE, signature(features=features)).verdict is Verdict.REFUSE


def test_the_order_and_the_training_of_layers_count() -> None:
    swapped = [*BASE.variables[2:], *BASE.variables[:2]]
    assert judge(BASE, signature(variables=swapped)).verdict is Verdict.REFUSE
    frozen = [one.model_copy(update={"trainable": False}) for one in BASE.variables]
    assert judge(BASE, signature(variables=frozen)).verdict is Verdict.REFUSE


def test_what_a_checkpoint_does_not_depend_on() -> None:
    assert judge(BASE, with_key("data", test="4" * 64)).verdict is Verdict.SAME
    seed = Variable(path="seed_generator", shape=[2], dtype="int64")
    other = signature(step=999, provenance={"commit": "other"}, state=[seed])
    assert judge(BASE, other).verdict is Verdict.SAME


SIGNATURES = st.sampled_from([BASE, *(other for other, _ in CASES.values())])


@given(SIGNATURES)
def test_a_signature_fits_itself(one: Signature) -> None:
    assert judge(one, one).verdict is Verdict.SAME
    assert judge(one, Signature.model_validate_json(one.model_dump_json())).verdict is Verdict.SAME


@given(SIGNATURES, SIGNATURES)
def test_both_sides_name_the_same_differences(one: Signature, two: Signature) -> None:
    there, back = judge(one, two), judge(two, one)
    assert there.verdict is back.verdict
    assert {difference.what for difference in there.differences} == {difference.what for difference in back.differences}
    assert (there.verdict is Verdict.SAME) == (not there.differences)


def test_the_words_of_a_refusal() -> None:
    other = signature(variables=variables(20, 20), model={**BASE.model, "hidden_units": [20, 20]}, labels=["a"])
    told = refusal(judge(BASE, other), "models/iris/wide/seed-0/model.ckpt-200", "iris/wide")
    assert told.lines() == [
        "Error: models/iris/wide/seed-0/model.ckpt-200 was not restored: it does not fit variant iris/wide",
        "  hidden_0/kernel      saved float32 (4, 10)    wanted float32 (4, 20)",
        "  hidden_0/bias        saved float32 (10)       wanted float32 (20)",
        "  hidden_1/kernel      saved float32 (10, 10)   wanted float32 (20, 20)",
        "  hidden_1/bias        saved float32 (10)       wanted float32 (20)",
        "  model.hidden_units   saved [10, 10]           wanted [20, 20]",
        "  and 1 more (expmgr check iris/wide --all)",
        "Nothing was changed on disk.",
        "Hint: give the change a variant of its own: expmgr new iris/wide-2 --from iris/wide; "
        "or start anew, with the old model_dir kept aside: expmgr run iris/wide --fresh",
    ]
    assert told.exit_code == 3
