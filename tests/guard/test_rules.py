"""What each rule of the guard is told apart by, and what follows from it, rule by rule. No TensorFlow."""

from __future__ import annotations

import re
from typing import Any

import pytest

from expmgr.checkpoints.signature import Fingerprint, Signature, Variable
from expmgr.errors import BadArgument
from expmgr.guard.allowing import allowed_rules
from expmgr.guard.difference import both_sides, pairs_of
from expmgr.guard.judge import Judgement, judge
from expmgr.guard.layers import TRAINING_ONLY, layer_differences
from expmgr.guard.refusal import refusal
from expmgr.guard.rules import RULES, Verdict, told
from guard.test_guard import (
    BASE,
    CASES,
    LAYERS,
    MOVED,
    OTHER_STEP,
    signature,
    variables,
    with_data,
    with_model,
    with_optimizer,
    with_training,
)
from world import ROOT


def ids(found: Judgement) -> list[str]:
    return [one.rule.id for one in found.differences]


# Layers.


@pytest.mark.parametrize(
    ("layer", "key", "rule"),
    [
        ("Dense", "activation", "activation"),
        ("Activation", "activation", "activation"),
        ("ReLU", "max_value", "activation"),
        ("LeakyReLU", "negative_slope", "activation"),
        ("ELU", "alpha", "activation"),
        ("Softmax", "axis", "activation"),
        ("GRU", "recurrent_activation", None),
        ("Mine", "activations", None),
        ("GRU", "stateful", "stateful"),
        ("Activation", "stateful", "stateful"),
        ("Dense", "kernel_initializer", "initializer"),
        ("Dense", "bias_regularizer", "regularizer"),
        ("Dense", "kernel_constraint", "regularizer"),
        ("Normalization", "state", "normalisation"),
        ("StringLookup", "state", "vocabulary"),
        ("IntegerLookup", "state", "vocabulary"),
        ("StringLookup", "vocabulary", "vocabulary"),
        ("Hashing", "salt", "vocabulary"),
        ("Dense", "dtype", "precision"),
        ("LayerNormalization", "epsilon", "epsilon"),
        ("BatchNormalization", "epsilon", "epsilon"),
        ("Mine", "epsilon", None),
        ("BatchNormalization", "momentum", "momentum"),
        ("Mine", "momentum", None),
        ("LSTM", "dropout", "dropout"),
        ("LSTM", "recurrent_dropout", "dropout"),
        ("MultiHeadAttention", "dropout", "dropout"),
        ("Mine", "dropout_of_mine", None),
        ("Conv2D", "strides", None),
        ("Dense", "units", None),
    ],
)  # fmt: skip
def test_which_setting_of_a_layer_is_which_rule(layer: str, key: str, rule: str | None) -> None:
    one, two = ({"a": {"class": layer, key: value, "same": 1}} for value in ("x", "y"))
    assert list(layer_differences(one, two)) == [(f"a.{key}", "x", "y", rule)]
    assert list(layer_differences(one, {"a": {"class": layer, "same": 1}})) == [(f"a.{key}", "x", "nothing", rule)]
    assert list(layer_differences(one, one)) == []


def test_layers_that_only_training_uses() -> None:
    """By Keras' own description; a layer that is missing here is refused, one too many lets weights pass."""
    assert {
        "Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout", "GaussianNoise",
        "GaussianDropout", "ActivityRegularization", "RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation",
        "RandomContrast", "RandomBrightness", "RandomCrop",
    } == TRAINING_ONLY  # fmt: skip
    for layer in TRAINING_ONLY:
        one, two = ({"a": {"class": layer, "rate": rate}} for rate in (0.1, 0.2))
        assert list(layer_differences(one, two)) == [("a.rate", 0.1, 0.2, "dropout")]
        assert list(layer_differences({}, one)) == [("a", "nothing", layer, "dropout")]
        assert list(layer_differences(one, {})) == [("a", layer, "nothing", "dropout")]


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("Dropout", "GaussianNoise", "dropout"),
        ("Dropout", "Dense", None),
        ("ReLU", "LeakyReLU", "activation"),
        ("Activation", "Softmax", "activation"),
        ("ReLU", "Dense", None),
        ("ReLU", None, None),  # a nonlinearity less is no other one
        ("MaxPooling2D", "AveragePooling2D", "pooling"),
        ("GlobalMaxPooling1D", "GlobalAveragePooling1D", "pooling"),
        ("MaxPooling2D", None, None),
        ("MaxPooling2D", "ReLU", None),
        ("MaxPooling2D", "Dropout", None),
    ],
)
def test_one_layer_in_the_place_of_another(old: str, new: str | None, rule: str | None) -> None:
    sides = [{"a": {"class": one}} if one else {} for one in (old, new)]
    assert list(layer_differences(*sides)) == [("a", old, new or "nothing", rule)]
    assert list(layer_differences(*reversed(sides))) == [("a", new or "nothing", old, rule)]


def test_renamed_layers_are_compared_with_those_of_their_class_in_their_order() -> None:
    old = {"one": {"class": "Dense", "units": 1}, "drop": {"class": "Dropout"}, "two": {"class": "Dense", "units": 2}}
    new = {
        "first": {"class": "Dense", "units": 1},
        "second": {"class": "Dense", "units": 2},
        "out": {"class": "Dropout"},
    }
    assert list(layer_differences(old, new)) == []
    new["second"] = {"class": "Dense", "units": 3}
    assert list(layer_differences(old, new)) == [("two.units", 2, 3, None)]
    del new["first"]  # one is left over
    assert list(layer_differences(old, new)) == [
        ("one.units", 1, 3, None),
        ("two", "Dense", "nothing", None),
    ]


# What follows from a rule.

#: What a model that is only asked (`evaluate`, `predict`, `export`) does not depend on: how it was trained.
NOT_ASKED = {
    "frozen", "initializer", "dropout", "momentum", "regularizer", "data", "evaluation-data", "loss", "optimizer",
    "optimizer-variables", "optimizer-start", "optimizer-setting", "learning-rate-schedule", "gradient-accumulation",
    "weight-average", "batch-size", "data-order", "seed", "training-code",
}  # fmt: skip


@pytest.mark.parametrize("rule", CASES)
def test_what_a_model_that_is_only_asked_leaves_out(rule: str) -> None:
    other, verdict = CASES[rule]
    asked, trained = judge(BASE, other, purpose="ask"), judge(BASE, other)
    if rule in NOT_ASKED:
        assert (asked.verdict, ids(asked)) == (Verdict.SAME, [])
    else:
        assert (asked.verdict, {*ids(asked)}) == (verdict, {rule})
    assert (trained.verdict, {*ids(trained)}) == (verdict, {rule})


def test_every_rule_that_is_not_asked_is_one() -> None:
    assert set(RULES) >= NOT_ASKED
    assert {"role", "code", "unknown"} & NOT_ASKED == set()


@pytest.mark.parametrize("purpose", ["train", "ask"])
def test_what_is_left_out_hides_nothing_that_counts(purpose: Any) -> None:
    """Another optimizer and another activation: asked, the activation is said; trained, the graver first."""
    training = BASE.training.model_copy(update={"optimizer": {"kind": "sgd"}})
    other = with_model(
        {"training": training, "inference": CASES["activation"][0].inference, **OTHER_STEP}, activation="tanh"
    )
    found = judge(BASE, other, purpose=purpose)
    assert ids(found) == (["activation"] if purpose == "ask" else ["activation", "optimizer"])
    data = with_data(label="colour").data
    both = judge(BASE, signature(data=data, training=training), purpose=purpose)
    assert ids(both) == (["label"] if purpose == "ask" else ["label", "optimizer"])


OUT, LOSS, STEP, NONE = {"outputs", "loss", "step", "metrics"}, {"loss", "step"}, {"step"}, set[str]()

#: What of the stored rows' values may be another after a change of this rule; every other movement stops the run.
MOVES = {
    **dict.fromkeys(("activation", "epsilon", "pooling", "stateful", "dtype", "wider-dtype", "precision", "normalisation"), OUT),
    **dict.fromkeys(("regularizer", "loss"), LOSS),
    **dict.fromkeys(
        ("frozen", "dropout", "momentum", "optimizer", "optimizer-variables", "optimizer-setting",
         "learning-rate-schedule", "gradient-accumulation", "weight-average", "batch-size"), STEP),
    "evaluation-data": {"metrics"},
}  # fmt: skip


def test_what_may_move_with_which_rule() -> None:
    assert {rule.id: set(rule.moves) for rule in RULES.values() if rule.moves} == MOVES
    assert {rule.id for rule in RULES.values() if "outputs" in rule.moves and rule.verdict is Verdict.RESUME} == {
        "wider-dtype", "precision", "normalisation"
    }  # fmt: skip


#: Rules that are no reason for another training step: one that comes with them is refused by itself.
UNEXPLAINED = {
    "renamed", "initializer", "setting", "feature-renamed", "preprocessing", "label", "labels", "data", "first-batch",
    "evaluation-data", "batch-size", "data-order", "seed", "training-code", "unknown",
}  # fmt: skip


@pytest.mark.parametrize("rule", [rule for rule in CASES if rule not in ("dtype", "wider-dtype", "precision")])
def test_what_explains_another_training_step(rule: str) -> None:
    """With the code as it was; the precisions have a digest of their own."""
    other = CASES[rule][0].model_copy(update=OTHER_STEP)
    # A plain learning rate is the value of a variable, and moves no graph.
    is_explained = rule not in UNEXPLAINED | {"optimizer-setting"}
    found = set(ids(judge(BASE, other)))
    assert ("training-code" in found) is not is_explained or rule == "training-code"
    # 'unknown' is said where nothing else was found.
    assert rule in found or rule == "unknown"


#: Rules that say by themselves that the model computes something else.
INFERENCE = {"variables", "architecture", "activation", "epsilon", "pooling", "stateful", "features", "vocabulary"}


@pytest.mark.parametrize("rule", [rule for rule in CASES if rule not in ("dtype", "wider-dtype", "precision")])
def test_what_explains_another_graph_of_inference(rule: str) -> None:
    """Nothing that training goes on with, and no renaming, hides that the model computes something else."""
    found = set(ids(judge(BASE, CASES[rule][0].model_copy(update=MOVED))))
    if rule in ("renamed", "setting"):  # by the same graph alone
        assert found & {"variables", "architecture"}
    else:
        assert ("computation" in found) is (rule not in INFERENCE)


@pytest.mark.parametrize("name", ["tensorflow", "keras"])
def test_another_version_of_either_leaves_it_to_the_configuration(name: str) -> None:
    newer = signature(provenance={**BASE.provenance, name: "9.9"}, **MOVED)
    found = judge(BASE, newer)
    assert (found.verdict, found.differences) == (Verdict.SAME, ())
    assert Judgement.from_dict(found.as_dict()) == found
    assert [one.split(",")[0] for one in found.notes] == [f"it was saved with {name} {BASE.provenance[name]}"]


def test_a_step_that_only_one_side_could_trace_is_another_one() -> None:
    untraced = signature(training_step=Fingerprint(by="code", digest="t"))
    for sides in ((BASE, untraced), (untraced, BASE)):
        assert ids(judge(*sides)) == ["training-code"]
    assert judge(untraced, untraced).verdict is Verdict.SAME


def test_names_that_play_another_part_in_a_step_alone_are_refused() -> None:
    """The graphs are the same without names: two weights that only training uses were exchanged."""
    sides = [signature(training_step=Fingerprint(by="graph", digest="t", named=named)) for named in ("n", "m", "")]
    assert ids(judge(sides[0], sides[1])) == ["role"]
    assert ids(judge(sides[0], sides[0])) == ids(judge(sides[0], sides[2])) == []


def test_a_variable_more_is_no_renaming() -> None:
    """The same graph, one path that is gone and two that came: nobody guesses which of them it is."""
    old = [Variable(path="a", shape=[2], dtype="float32", role=0)]
    new = [Variable(path=path, shape=[2], dtype="float32", role=role) for role, path in enumerate(("x", "y"))]
    for sides in ((old, new), (new, old)):
        found = judge(*(signature(variables=one) for one in sides))
        assert (found.renames, found.verdict) == ({}, Verdict.REFUSE)
    assert judge(signature(variables=old), signature(variables=new[:1])).renames == {"a": "x"}


def test_a_step_in_another_s_code_is_explained_by_settings_of_layers_and_by_numbers_alone() -> None:
    saved = signature(code="one", step_code="step")
    drop = {**LAYERS, "drop": {"class": "Dropout", "rate": 0.5}}
    rate = with_optimizer(learning_rate={"class": "CosineDecay"}).training
    for changes, is_explained in (
        ({"layers": drop, "code": "one"}, True),
        ({"layers": drop, "code": "two"}, True),  # settings of layers alone
        ({"layers": drop, "code": "two", "step_code": "other"}, False),
        ({"training": rate, "code": "one"}, True),
        ({"training": rate, "code": "two"}, False),
        ({"training": rate, "layers": drop, "code": "two"}, False),
    ):
        other = signature(**{"step_code": "step", **OTHER_STEP, **changes})
        assert ("training-code" not in ids(judge(saved, other))) is is_explained, changes


#: After these a weight of the same name and shape means something else, so that no warm start takes it.
MEANINGS = {"role", "computation", "code", "features", "vocabulary", "preprocessing", "labels"}


def test_what_changes_the_meaning_of_weights_is_refused() -> None:
    assert {rule.id for rule in RULES.values() if rule.changes_meaning} == MEANINGS
    assert {RULES[rule].verdict for rule in MEANINGS} == {Verdict.REFUSE}


@pytest.mark.parametrize("rule", [rule for rule, (_, verdict) in CASES.items() if not verdict.may_restore])
def test_every_refusal_but_that_of_shapes_may_be_allowed_by_its_own_rule_alone(rule: str) -> None:
    other, verdict = CASES[rule]
    allowed = judge(BASE, other, [rule])
    if rule == "variables":
        assert (allowed.verdict, allowed.differences[0].is_allowed) == (Verdict.REFUSE, False)
        with pytest.raises(BadArgument, match=r"^variables is never allowed: the weights do not fit$"):
            allowed_rules([rule], "iris/wide")
        return
    assert (allowed.verdict, {one.is_allowed for one in allowed.differences}) == (Verdict.RESUME, {True})
    assert allowed_rules([rule, rule], "iris/wide") == [rule]
    others = [one for one in RULES if one != rule]
    assert judge(BASE, other, others).verdict is verdict
    shown = allowed.differences[0].as_dict()
    assert (shown["rule"], shown["verdict"], shown["allowed"]) == (rule, "resume", True)
    assert Judgement.from_dict(allowed.as_dict()) == allowed


def test_a_rule_that_is_none_cannot_be_allowed() -> None:
    with pytest.raises(BadArgument, match=r"^there is no rule 'activaton': did you mean activation\?$"):
        allowed_rules(["dropout", "activaton"], "iris/wide")


@pytest.mark.parametrize("rule", [rule for rule, (_, verdict) in CASES.items() if verdict is Verdict.RESUME])
def test_what_resumes_needs_no_leave(rule: str) -> None:
    """`--allow` of a rule that restores anyway is no leave that was used."""
    found = judge(BASE, CASES[rule][0], [rule])
    assert [one.is_allowed for one in found.differences] == [False] * len(found.differences)


def test_the_gravest_decides_and_is_said_first() -> None:
    assert [one.weight for one in Verdict] == [0, 1, 2, 3]
    assert [one.may_restore for one in Verdict] == [True, True, False, False]
    training = BASE.training.model_copy(update={"batch_size": 50, "loss": {"loss": "mse"}, "seed": 1})
    found = judge(BASE, signature(training=training))
    assert (found.verdict, ids(found)) == (Verdict.REFUSE, ["seed", "loss", "batch-size"])


def test_what_a_run_says_of_a_change() -> None:
    assert told("batch-size", "batch_size", "100", "50") == (
        "batch_size: 100 -> 50, takes effect now (only how training goes on)"
    )
    assert told("feature-renamed", "features", "a", "b") == "features: a -> b (its values are the same)"
    assert told("seed", "seed", "0", "1", allowed=True) == (
        "seed: 0 -> 1, allowed by --allow seed (a seed has a model_dir of its own)"
    )


def test_the_way_out_names_all_that_has_to_be_allowed() -> None:
    other = signature(training=BASE.training.model_copy(update={"seed": 1, "loss": {"loss": "mse"}, "batch_size": 9}))
    for given in ([], ["seed"], ["loss"]):
        hint = refusal(judge(BASE, other, given), "model.ckpt-1", "iris/wide", 3).hint or ""
        assert hint.endswith("; or, where you know better, go on with " + (
            "--allow seed --allow loss" if given != ["seed"] else "--allow loss --allow seed"
        ))  # fmt: skip
        assert "--seeds 3" in hint
    shapes = signature(variables=variables(20, 20), training=other.training, **OTHER_STEP)
    assert "--allow" not in (refusal(judge(BASE, shapes), "model.ckpt-1", "iris/wide").hint or "")


# The optimizer, and how differences are shown.


@pytest.mark.parametrize(
    ("key", "old", "new", "rule"),
    [
        ("learning_rate", 0.1, 0.2, "optimizer-setting"),
        ("learning_rate", 0.1, {"class": "CosineDecay"}, "learning-rate-schedule"),
        ("learning_rate", {"class": "CosineDecay"}, 0.1, "learning-rate-schedule"),
        ("gradient_accumulation_steps", None, 4, "gradient-accumulation"),
        ("use_ema", False, True, "weight-average"),
        ("amsgrad", False, True, "optimizer-variables"),
        ("centered", False, True, "optimizer-variables"),
        ("initial_accumulator_value", 0.1, 0.5, "optimizer-start"),
        ("something_new", 1, 2, "optimizer-start"),
        *((key, 0.1, 0.2, "optimizer-setting") for key in (
            "clipnorm", "clipvalue", "global_clipnorm", "momentum", "nesterov", "rho", "epsilon", "beta_1", "beta_2",
            "weight_decay", "learning_rate_power", "l1_regularization_strength", "beta", "l2_regularization_strength",
            "l2_shrinkage_regularization_strength", "ema_momentum", "loss_scale_factor",
        )),
    ],
)  # fmt: skip
def test_which_setting_of_an_optimizer_is_which_rule(key: str, old: Any, new: Any, rule: str) -> None:
    one, two = (with_optimizer(**{key: value}) for value in (old, new))
    assert {(found.rule.id, found.what) for found in judge(one, two).differences} == {(rule, f"optimizer.{key}")}
    assert judge(one, one).verdict is Verdict.SAME


def test_the_momentum_of_an_average_is_said_by_the_average_where_that_comes_or_goes() -> None:
    off, on, other = (
        with_optimizer(use_ema=used, ema_momentum=momentum)
        for used, momentum in ((False, None), (True, 0.9), (True, 0.5))
    )
    assert ids(judge(off, on)) == ids(judge(on, off)) == ["weight-average"]
    assert ids(judge(on, other)) == ["optimizer-setting"]


def test_what_an_average_or_an_accumulator_adds_is_no_misfit_and_any_other_slot_is() -> None:
    slot = BASE.optimizer_variables
    average = Variable(path="adagrad/x_average", shape=[4, 10], dtype="float32")
    gathered = Variable(path="adagrad/x_gradient_accumulator", shape=[4, 10], dtype="float32")
    other = Variable(path="adagrad/y", shape=[4, 10], dtype="float32")
    on = with_optimizer(use_ema=True).training
    for more, training, expected in (
        (average, on, ["weight-average"]),
        (average, BASE.training, ["optimizer-variables"]),
        (other, on, ["optimizer-variables", "weight-average"]),
    ):
        changed = signature(optimizer_variables=[*slot, more], training=training)
        assert ids(judge(BASE, changed)) == expected
        assert ids(judge(changed, BASE)) == expected
    # A learning rate is a variable where no schedule gives it.
    rate, scale = (
        Variable(path=f"adagrad/{name}", shape=[], dtype="float32") for name in ("learning_rate", "loss_scale/x")
    )
    schedule, scaled = (
        with_optimizer(learning_rate={"class": "CosineDecay"}).training,
        with_training(loss_scale={"a": 1}).training,
    )
    for more, training, expected in (
        (rate, schedule, ["learning-rate-schedule"]),
        (rate, BASE.training, ["optimizer-variables"]),
        (scale, scaled, ["precision"]),
        (scale, BASE.training, ["optimizer-variables"]),
    ):
        changed = signature(optimizer_variables=[*slot, more], training=training)
        assert ids(judge(BASE, changed)) == ids(judge(changed, BASE)) == expected
    # Slots of weights that freeze come and go with that; not those of weights that were frozen before.
    own = Variable(path="adagrad/hidden_0_kernel_accumulator", shape=[4, 10], dtype="float32")
    frozen = [one.model_copy(update={"trainable": False}) for one in BASE.variables[:1]] + BASE.variables[1:]
    sides = signature(optimizer_variables=[*slot, own]), signature(variables=frozen, **OTHER_STEP)
    assert ids(judge(*sides)) == ids(judge(*reversed(sides))) == ["frozen"]
    both = signature(variables=frozen, optimizer_variables=[*slot, own]), signature(variables=frozen)
    assert ids(judge(*both)) == ids(judge(*reversed(both))) == ["optimizer-variables"]
    # Whether a slot counts as trained says nothing.
    assert ids(judge(BASE, signature(optimizer_variables=[slot[0].model_copy(update={"trainable": False})]))) == []
    steps = with_optimizer(gradient_accumulation_steps=4).training
    assert ids(judge(BASE, signature(optimizer_variables=[*slot, gathered], training=steps))) == [
        "gradient-accumulation"
    ]


@pytest.mark.parametrize("kind", ["trainable", "shape", "dtype"])
def test_what_of_a_variable_moved_is_said(kind: str) -> None:
    value: Any = {"trainable": False, "shape": [4, 11], "dtype": "float16"}[kind]
    first, *rest = BASE.variables
    other = signature(variables=[first.model_copy(update={kind: value}), *rest], **OTHER_STEP)
    found = [(one.rule.id, one.what, one.saved, one.wanted) for one in judge(BASE, other).differences]
    assert (
        found[0]
        == {
            "trainable": ("frozen", "hidden_0/kernel", "trained", "frozen"),
            "shape": ("variables", "hidden_0/kernel", "float32 (4, 10)", "float32 (4, 11)"),
            "dtype": ("dtype", "hidden_0/kernel", "float32 (4, 10)", "float16 (4, 10)"),
        }[kind]
    )


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("float16", "float32", "wider-dtype"),
        ("bfloat16", "float32", "wider-dtype"),
        ("float32", "float64", "wider-dtype"),
        ("float32", "float16", "dtype"),
        ("float16", "bfloat16", "dtype"),
        ("bfloat16", "float16", "dtype"),
        ("int32", "int64", "dtype"),  # nobody says that these are only wider
        ("int32", "float32", "dtype"),
    ],
)
def test_a_wider_dtype_keeps_every_value_and_no_other_does(old: str, new: str, rule: str) -> None:
    sides = [signature(variables=[Variable(path="a/b", shape=[2], dtype=dtype)]) for dtype in (old, new)]
    assert {one.rule.id for one in judge(*sides).differences if one.what == "a/b"} == {rule}


def test_both_sides_are_cut_where_they_begin_to_differ() -> None:
    assert both_sides("short", "other") == ("short", "other")
    assert both_sides("x" * 40, "y") == ("x" * 40, "y")
    assert both_sides("x" * 41, "y") == ("x" * 37 + "...", "y")
    assert both_sides("a" * 50 + "b", "a" * 50 + "c") == ("..." + "a" * 8 + "b", "..." + "a" * 8 + "c")
    assert both_sides("a" * 50, "a" * 50 + "c") == ("..." + "a" * 8, "..." + "a" * 8 + "c")


def test_pairs_name_what_differs_inside_of_configurations_of_one_class() -> None:
    old = {"same": 1, "a": {"class": "X", "p": 1, "q": {"class": "Y", "r": 1}}, "b": {"class": "X"}, "gone": None}
    new = {"same": 1, "a": {"class": "X", "p": 1, "q": {"class": "Y", "r": 2}}, "b": {"class": "Z"}, "come": 3}
    assert list(pairs_of(old, new)) == [
        ("a.q.r", "1", "2"),
        ("b", "{'class': 'X'}", "{'class': 'Z'}"),
        ("gone", "None", "nothing"),
        ("come", "nothing", "3"),
    ]
    assert list(pairs_of({"a": "nothing"}, {})) == [("a", "nothing", "nothing")]  # what is said is not what is missing


# The data.


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"splits": {}}, []),
        ({"first_batch": {}}, []),
        ({"declared": {}}, ["preprocessing"]),
        ({"labels": None}, ["labels"]),
    ],
)
def test_what_one_side_does_not_say(changes: dict[str, Any], expected: list[str]) -> None:
    assert ids(judge(BASE, with_data(**changes))) == ids(judge(with_data(**changes), BASE)) == expected


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({}, "feature-renamed"),
        ({"sha256": None}, "features"),  # nobody knows whether its values are the same
        ({"sha256": "other"}, "features"),
        ({"scale": [1.0, 2.0]}, "features"),
        ({"spec": "float32 (3)"}, "features"),
        ({"kind": "tensor"}, "features"),
    ],
)
def test_a_column_of_another_name_is_the_same_where_all_of_it_is(changes: dict[str, Any], rule: str) -> None:
    first, second = BASE.data.features
    other = with_data(features=[first.model_copy(update={"name": "c", **changes}), second])
    assert ids(judge(BASE, other)) == ids(judge(other, BASE)) == [rule]


@pytest.mark.parametrize(
    ("changes", "what", "rule"),
    [
        ({"spec": "float32 (3)"}, "a", "features"),
        ({"kind": "tensor"}, "a", "features"),
        ({"scale": [1.0, 2.0]}, "normalisation of a", "features"),
        ({"vocabulary": ["x"]}, "vocabulary of a", "vocabulary"),
    ],
)
def test_a_column_of_the_same_name_is_another_where_something_of_it_is(
    changes: dict[str, Any], what: str, rule: str
) -> None:
    first, second = BASE.data.features
    other = with_data(features=[first.model_copy(update=changes), second])
    assert [(one.rule.id, one.what) for one in judge(BASE, other).differences] == [(rule, what)]


def test_other_rows_of_evaluation_excuse_another_first_batch() -> None:
    """The first batch is of the eval split: where that is another one, its rows are; not where training is alone."""
    eval_rows = CASES["evaluation-data"][0].data.splits
    moved = {**BASE.data.first_batch, "inputs": "9" * 64}
    assert ids(judge(BASE, with_data(splits=eval_rows, first_batch=moved))) == ["evaluation-data"]
    train_rows = CASES["data"][0].data.splits
    assert ids(judge(BASE, with_data(splits=train_rows, first_batch=moved))) == ["data", "first-batch"]


def test_a_batch_size_that_nobody_said_is_a_change_too() -> None:
    assert ids(judge(BASE, with_training(batch_size=None))) == ["batch-size"]
    assert ids(judge(BASE, with_training(loss_scale={"initial": 1}))) == ["precision"]


def test_the_table_of_the_docs_is_that_of_the_rules() -> None:
    text = (ROOT / "docs/reference/signature.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| ((?:same|resume|warm-start|refuse)) \| (.*) \| (.*) \|$", text, re.MULTILINE)
    assert rows == [(rule.id, rule.verdict.value, rule.moved, rule.why) for rule in RULES.values()]


def test_a_signature_is_judged_whatever_its_step() -> None:
    assert judge(BASE, Signature.model_validate({**BASE.model_dump(), "step": 9})).differences == ()
