"""The guard's rules: what each knows, and laws that hold for all of them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expmgr.checkpoints.signature import (
    DataContract,
    Feature,
    Fingerprint,
    Signature,
    SplitContent,
    TrainingSetup,
    Variable,
)
from expmgr.guard.judge import judge
from expmgr.guard.refusal import refusal
from expmgr.guard.rules import RULES, Verdict


def variables(*widths: int) -> list[Variable]:
    sizes = [4, *widths]
    found = []
    for number, (rows, columns) in enumerate(pairwise(sizes)):
        for name, shape in (("kernel", [rows, columns]), ("bias", [columns])):
            found.append(Variable(path=f"hidden_{number}/{name}", shape=shape, dtype="float32", role=len(found)))
    return found


def signature(**changes: Any) -> Signature:
    parts: dict[str, Any] = {
        "step": 200,
        "variables": variables(10, 10),
        "optimizer_variables": [Variable(path="adagrad/x", shape=[4, 10], dtype="float32")],
        "state": [],
        "inference": Fingerprint(by="graph", digest="i", blind="bi"),
        "training_step": Fingerprint(by="graph", digest="t", blind="bt"),
        "architecture": {"kind": "dnn_classifier", "hidden_units": [10, 10], "activation": "relu", "dropout": 0.0},
        "layers": LAYERS,
        "data": DataContract(
            features=[
                Feature(name="a", kind="numeric", sha256="a"),
                Feature(name="b", kind="categorical", vocabulary=["x", "y"], sha256="b"),
            ],
            label="kind", labels=["cat", "dog"], targets="t",
            splits={"train": SplitContent(rows=9, sha256="1" * 64), "eval": SplitContent(rows=3, sha256="2" * 64)},
            first_batch={"inputs": "3" * 64, "targets": "4" * 64}, declared={"tokenizer": "5" * 64},
        ),
        "training": TrainingSetup(
            loss={"loss": "cross"}, batch_size=100, shuffle=True, seed=0,
            optimizer={"kind": "adagrad", "learning_rate": 0.1, "initial_accumulator_value": 0.1},
        ),
        "provenance": {"tensorflow": "2.21.0", "keras": "3.15.1"},
    }  # fmt: skip
    return Signature(**{**parts, **changes})


#: One layer of each kind that a rule knows.
LAYERS: dict[str, dict[str, Any]] = {
    "hidden": {"class": "Dense", "activation": "relu", "kernel_initializer": {"class": "Zeros"}, "dtype": "float32"},
    "norm": {"class": "BatchNormalization", "epsilon": 0.001, "momentum": 0.99},
    "pool": {"class": "MaxPooling2D", "strides": [2, 2]},
    "drop": {"class": "Dropout", "rate": 0.1},
    "cell": {"class": "GRU", "stateful": False, "recurrent_activation": "sigmoid"},
    "scale": {"class": "Normalization", "state": "s"},
    "words": {"class": "StringLookup", "state": "w"},
    "mine": {"class": "Mine", "level": 3},
}
BASE = signature()
OTHER_GRAPH = Fingerprint(by="graph", digest="other", blind="other")
OTHER_STEP = {"training_step": OTHER_GRAPH}
MOVED = {"inference": OTHER_GRAPH, "training_step": OTHER_GRAPH}


def with_layer(name: str, extra: dict[str, Any] | None = None, **values: Any) -> Signature:
    """A layer with another setting, and what else moves with it."""
    return signature(layers={**LAYERS, name: {**LAYERS[name], **values}}, **(extra or {}))


def with_model(extra: dict[str, Any] | None = None, **values: Any) -> Signature:
    return signature(architecture={**(BASE.architecture or {}), **values}, **(extra or {}))


def with_data(**values: Any) -> Signature:
    return signature(data=BASE.data.model_copy(update=values))


def with_split(name: str) -> Signature:
    return with_data(splits={**BASE.data.splits, name: SplitContent(rows=9, sha256="9" * 64)})


def with_training(**values: Any) -> Signature:
    return signature(training=BASE.training.model_copy(update=values))


def with_optimizer(**values: Any) -> Signature:
    return with_training(optimizer={**BASE.training.optimizer, **values})


def with_dtype(dtype: str) -> Signature:
    """Weights of another dtype: the strict digests move, the blind ones do not."""
    return signature(
        variables=[one.model_copy(update={"dtype": dtype}) for one in BASE.variables],
        inference=Fingerprint(by="graph", digest="other", blind="bi"),
        training_step=Fingerprint(by="graph", digest="other", blind="bt"),
    )


FROZEN = [one.model_copy(update={"trainable": False}) for one in BASE.variables[:2]] + BASE.variables[2:]
RENAMED = [one.model_copy(update={"path": one.path.replace("hidden_0", "first")}) for one in BASE.variables]
DEEP = variables(10, 10, 10)
SWAPPED = [
    one.model_copy(update={"path": one.path.translate(str.maketrans("12", "21"))})
    if one.path.startswith(("hidden_1", "hidden_2")) else one
    for one in DEEP
]  # fmt: skip
PLAIN = {"inference": Fingerprint(by="code", digest="c"), "training_step": Fingerprint(by="code", digest="c")}

CASES: dict[str, tuple[Signature, Verdict]] = {
    "variables": (signature(variables=variables(20, 20), **OTHER_STEP), Verdict.REFUSE),
    "renamed": (signature(variables=RENAMED), Verdict.SAME),
    "architecture": (with_model(MOVED, batch_norm=True), Verdict.REFUSE),
    "computation": (signature(**MOVED), Verdict.REFUSE),
    "activation": (with_model(MOVED, activation="tanh"), Verdict.WARM_START),
    "epsilon": (with_layer("norm", MOVED, epsilon=1.0), Verdict.WARM_START),
    "pooling": (with_layer("pool", MOVED, **{"class": "AveragePooling2D"}), Verdict.WARM_START),
    "stateful": (with_layer("cell", MOVED, stateful=True), Verdict.WARM_START),
    "dtype": (with_dtype("bfloat16"), Verdict.WARM_START),
    "wider-dtype": (with_dtype("float64"), Verdict.RESUME),
    "precision": (
        with_layer("hidden", {"inference": Fingerprint(by="graph", digest="other", blind="bi")}, dtype="mixed_float16"),
        Verdict.RESUME,
    ),
    "frozen": (signature(variables=FROZEN, **OTHER_STEP), Verdict.WARM_START),
    "initializer": (with_layer("hidden", kernel_initializer={"class": "Ones"}), Verdict.REFUSE),
    "dropout": (with_model(OTHER_STEP, dropout=0.5), Verdict.RESUME),
    "momentum": (with_layer("norm", OTHER_STEP, momentum=0.5), Verdict.RESUME),
    "regularizer": (with_layer("hidden", OTHER_STEP, kernel_regularizer={"class": "L2"}), Verdict.RESUME),
    "setting": (with_layer("mine", level=4), Verdict.SAME),
    "features": (with_data(features=list(reversed(BASE.data.features))), Verdict.REFUSE),
    "feature-renamed": (
        with_data(features=[BASE.data.features[0].model_copy(update={"name": "c"}), BASE.data.features[1]]),
        Verdict.RESUME,
    ),
    "vocabulary": (with_layer("words", MOVED, state="other"), Verdict.REFUSE),
    "normalisation": (with_layer("scale", state="other"), Verdict.RESUME),
    "preprocessing": (with_data(declared={"tokenizer": "6" * 64}), Verdict.REFUSE),
    "label": (with_data(label="colour"), Verdict.REFUSE),
    "labels": (with_data(labels=["dog", "cat"]), Verdict.REFUSE),
    "data": (with_split("train"), Verdict.REFUSE),
    "first-batch": (with_data(first_batch={**BASE.data.first_batch, "inputs": "9" * 64}), Verdict.REFUSE),
    "evaluation-data": (with_split("eval"), Verdict.RESUME),
    "loss": (with_training(loss={"loss": "mse"}), Verdict.WARM_START),
    "optimizer": (with_optimizer(kind="sgd"), Verdict.WARM_START),
    "optimizer-variables": (signature(optimizer_variables=[], **OTHER_STEP), Verdict.WARM_START),
    "optimizer-start": (with_optimizer(initial_accumulator_value=0.5), Verdict.REFUSE),
    "optimizer-setting": (with_optimizer(learning_rate=0.01), Verdict.RESUME),
    "learning-rate-schedule": (with_optimizer(learning_rate={"class": "CosineDecay"}), Verdict.RESUME),
    "gradient-accumulation": (with_optimizer(gradient_accumulation_steps=4), Verdict.RESUME),
    "weight-average": (with_optimizer(use_ema=True, ema_momentum=0.9), Verdict.RESUME),
    "batch-size": (with_training(batch_size=50), Verdict.RESUME),
    "data-order": (with_training(shuffle=False), Verdict.RESUME),
    "seed": (with_training(seed=1), Verdict.REFUSE),
    "training-code": (signature(**OTHER_STEP), Verdict.REFUSE),
    "unknown": (with_data(targets="other"), Verdict.REFUSE),
}


def test_a_name_that_plays_another_part_is_refused() -> None:
    found = judge(signature(variables=DEEP), signature(variables=SWAPPED))
    assert {one.rule.id for one in found.differences} == {"role"}
    assert found.verdict is Verdict.REFUSE


def test_code_decides_where_the_graph_cannot() -> None:
    one, two = (signature(code=code, **PLAIN) for code in ("c", "d"))
    assert judge(one, one).verdict is Verdict.SAME
    found = judge(one, two)
    assert [(difference.rule.id, difference.verdict) for difference in found.differences] == [("code", Verdict.REFUSE)]
    unknown = signature(inference=Fingerprint(by="none"), training_step=Fingerprint(by="none"))
    assert [difference.rule.id for difference in judge(unknown, unknown).differences] == ["code"]


def test_the_configuration_decides_between_versions() -> None:
    newer = {"provenance": {"tensorflow": "2.22.0", "keras": "3.15.1"}}
    found = judge(BASE, signature(**newer, **MOVED))
    assert (found.verdict, found.differences) == (Verdict.SAME, ())
    assert found.notes == (
        "it was saved with tensorflow 2.21.0, this is 2.22.0: the graphs cannot be compared, the configuration decides",
    )
    assert judge(BASE, with_layer("mine", newer, level=4)).verdict is Verdict.REFUSE


def test_what_is_allowed_is_still_told_and_weights_that_do_not_fit_never_are() -> None:
    other = with_model(MOVED, activation="tanh")
    found = judge(BASE, other, ["activation"])
    assert (found.verdict, [one.is_allowed for one in found.differences]) == (Verdict.RESUME, [True])
    wide = signature(variables=variables(20, 20), **OTHER_STEP)
    assert judge(BASE, wide, ["variables"]).verdict is Verdict.REFUSE


def test_a_harmless_change_does_not_hide_another() -> None:
    assert judge(BASE, with_layer("scale", MOVED, state="other")).verdict is Verdict.REFUSE
    assert judge(BASE, with_layer("drop", MOVED, rate=0.5)).verdict is Verdict.REFUSE


def test_renamed_layers_take_their_slots_along() -> None:
    slots = [Variable(path=f"adam/{one.path.replace('/', '_')}_momentum", shape=one.shape, dtype=one.dtype)
             for one in BASE.variables]  # fmt: skip
    new = [one.model_copy(update={"path": one.path.replace("hidden_0", "first")}) for one in slots]
    found = judge(signature(optimizer_variables=slots), signature(variables=RENAMED, optimizer_variables=new))
    assert found.verdict is Verdict.SAME
    assert found.renames == {"hidden_0/kernel": "first/kernel", "hidden_0/bias": "first/bias"}


@pytest.mark.parametrize("rule", CASES)
def test_each_rule(rule: str) -> None:
    other, verdict = CASES[rule]
    found = judge(BASE, other)
    assert found.verdict is verdict
    assert {one.rule.id for one in found.differences} == {rule}
    assert found.verdict.may_restore is (verdict in (Verdict.SAME, Verdict.RESUME))


@pytest.mark.parametrize(
    "kind", ["GaussianNoise", "RandomFlip", "RandomCrop", "ActivityRegularization", "AlphaDropout"]
)
def test_a_layer_that_only_training_uses_comes_and_goes(kind: str) -> None:
    more = signature(layers={**LAYERS, "new": {"class": kind}}, training_step=OTHER_GRAPH)
    for found in (judge(BASE, more), judge(more, BASE)):
        assert [one.rule.id for one in found.differences] == ["dropout"]
        assert found.verdict is Verdict.RESUME


def test_every_rule_has_its_case() -> None:
    assert {rule for rule in RULES if rule not in CASES} == {"code", "role"}


@pytest.mark.parametrize(
    "features",
    [
        [Feature(name="a", kind="numeric"), Feature(name="b", kind="categorical", vocabulary=["y", "x"])],
        [Feature(name="a", kind="numeric", scale=[1.0, 2.0]), BASE.data.features[1]],
        [Feature(name="c", kind="numeric"), BASE.data.features[1]],
        [Feature(name="a", kind="categorical", vocabulary=["1"]), BASE.data.features[1]],
    ],
)
def test_what_a_feature_may_not_change(features: list[Feature]) -> None:
    assert judge(BASE, with_data(features=features)).verdict is Verdict.REFUSE


def test_what_a_checkpoint_does_not_depend_on() -> None:
    added = with_data(splits={**BASE.data.splits, "test": SplitContent(rows=3, sha256="4" * 64)})
    assert judge(BASE, added).verdict is Verdict.SAME
    seed = Variable(path="seed_generator", shape=[2], dtype="int64")
    other = signature(step=999, state=[seed], variables=[*BASE.variables[2:], *BASE.variables[:2]])
    assert judge(BASE, other).verdict is Verdict.SAME


SIGNATURES = st.sampled_from([BASE, *(other for other, _ in CASES.values())])


@given(SIGNATURES)
def test_a_signature_fits_itself(one: Signature) -> None:
    assert judge(one, one).verdict is Verdict.SAME
    assert judge(one, Signature.model_validate_json(one.model_dump_json())).verdict is Verdict.SAME


@given(SIGNATURES, SIGNATURES)
def test_both_sides_name_the_same_differences(one: Signature, two: Signature) -> None:
    there, back = judge(one, two), judge(two, one)
    named = [{one.what for one in side.differences if one.rule.id != "renamed"} for side in (there, back)]
    if not there.renames:
        assert named[0] == named[1]
    wide = {"wider-dtype", "dtype"}
    if not wide & {difference.rule.id for difference in (*there.differences, *back.differences)}:
        assert there.verdict is back.verdict


def _optimizer_differs(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    base = signature().training
    sides = [signature(training=base.model_copy(update={"optimizer": {**base.optimizer, **one}})) for one in (old, new)]
    return [(one.rule.id, one.what, one.saved, one.wanted) for one in judge(*sides).differences]


def test_what_differs_inside_of_a_long_configuration_is_shown() -> None:
    loss = {"class": "SparseCategoricalCrossentropy", "reduction": "sum_over_batch_size", "from_logits": False}
    base = signature().training
    sides = [base.model_copy(update={"loss": {"loss": {**loss, "from_logits": one}}}) for one in (False, True)]
    (one,) = judge(signature(training=sides[0]), signature(training=sides[1])).differences
    assert (one.what, one.saved, one.wanted) == ("loss.from_logits", "False", "True")
    long = "a" * 60
    (told,) = _optimizer_differs({"name_of_it": f"{long}b"}, {"name_of_it": f"{long}c"})
    assert told[2:] == ("...aaaaaaaab", "...aaaaaaaac")


def test_the_rate_of_a_second_optimizer_is_a_setting_and_its_start_is_not() -> None:
    second = {"class": "Adam", "learning_rate": 0.1, "beta_1": 0.9}
    assert _optimizer_differs({"d": second}, {"d": {**second, "learning_rate": 0.2}}) == [
        ("optimizer-setting", "optimizer.d.learning_rate", "0.1", "0.2")
    ]
    schedule = {"class": "CosineDecay", "decay_steps": 10}
    assert _optimizer_differs({"learning_rate": schedule}, {"learning_rate": {**schedule, "decay_steps": 20}}) == [
        ("learning-rate-schedule", "optimizer.learning_rate.decay_steps", "10", "20")
    ]


def test_the_words_of_a_refusal() -> None:
    other = signature(
        variables=variables(20, 20),
        architecture={**(BASE.architecture or {}), "hidden_units": [20, 20]},
        data=BASE.data.model_copy(update={"labels": ["a"]}),
    )
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


@pytest.mark.parametrize("kind", ["python", "script", "estimator"])
def test_params_of_own_code_count_by_what_the_graph_makes_of_them(kind: str) -> None:
    """A log level that a function is given is no other model; one that changes the inference graph is."""
    old, new = ({"kind": kind, "params": {"level": level}} for level in (1, 2))
    saved = signature(architecture=old)
    assert judge(saved, signature(architecture=new)).verdict is Verdict.SAME
    assert judge(saved, signature(architecture=new, **MOVED)).verdict is Verdict.REFUSE


def _own(params: dict[str, Any], optimizer: dict[str, Any], step: str) -> Signature:
    """A model of one's own whose training step has its numbers from `params`; only numbers move in its graph."""
    setup = BASE.training.model_copy(update={"optimizer": {"kind": "sgd", **optimizer}})
    traced = Fingerprint(by="graph", digest=step, blind=step, neutral="numbers apart")
    return signature(architecture={"kind": "python", "params": params}, training=setup, training_step=traced)


def _schedule(rate: float) -> dict[str, Any]:
    return {
        "learning_rate": {"class": "PolynomialDecay", "initial_learning_rate": rate, "end_learning_rate": rate / 100}
    }


@pytest.mark.parametrize(
    ("optimizer", "rate"),
    [
        (_schedule, 0.05),  # two fields of one schedule
        (lambda rate: {"momentum": rate, "weight_decay": rate}, 0.05),  # two settings by one param
        (
            lambda rate: {"learning_rate": 0.1, "d": {"learning_rate": rate, "momentum": rate}},
            0.05,
        ),  # a second optimizer
    ],
)
def test_a_param_of_the_step_hides_behind_no_other_one(optimizer: Any, rate: float) -> None:
    saved = _own({"lr": 0.1, "w": 0.25}, optimizer(0.1), "one")
    both = judge(saved, _own({"lr": rate, "w": 3.0}, optimizer(rate), "other"))
    assert both.verdict is Verdict.REFUSE
    assert "training-code" in {one.rule.id for one in both.differences}
    alone = judge(saved, _own({"lr": rate, "w": 0.25}, optimizer(rate), "other"))
    assert "training-code" not in {one.rule.id for one in alone.differences}


def test_a_setting_that_follows_from_a_param_is_explained_by_it() -> None:
    """A momentum of a tenth of the param: none has its value, and none else accounts for it."""
    saved = _own({"strength": 5.0}, {"learning_rate": 0.1, "momentum": 0.5}, "one")
    wanted = _own({"strength": 8.0}, {"learning_rate": 0.1, "momentum": 0.8}, "other")
    assert "training-code" not in {one.rule.id for one in judge(saved, wanted).differences}


@pytest.mark.parametrize("turned", [False, True])
def test_rows_to_be_evaluated_that_one_side_has_alone_were_compared_with_nothing(turned: bool) -> None:
    splits = {"train": BASE.data.splits["train"]}
    without = with_data(splits=splits, first_batch={})
    with_rows = with_data(splits={**splits, "eval": SplitContent(rows=3, sha256="2" * 64)})
    sides = (with_rows, without) if turned else (without, with_rows)
    assert judge(*sides).verdict is Verdict.SAME
