"""What is taken of a checkpoint, piece by piece: warm starts, adoption, and how differences are found and shown."""

from __future__ import annotations

from typing import Any

import pytest

from expmgr.checkpoints.signature import (
    DataContract,
    Feature,
    Fingerprint,
    Signature,
    SplitContent,
    TrainingSetup,
    Variable,
)
from expmgr.errors import BadArgument, CheckpointRefused, WarmStartProblem
from expmgr.guard.adoption import Match, NamedTensor, plan_adoption
from expmgr.guard.allowing import allowed_rules
from expmgr.guard.data import data_differences
from expmgr.guard.difference import Difference, both_sides, pairs_of
from expmgr.guard.judge import Judgement, judge
from expmgr.guard.layers import layer_differences
from expmgr.guard.refusal import refusal
from expmgr.guard.rules import RULES, Verdict, told
from expmgr.guard.training import training_differences
from expmgr.guard.warm_start import Taken, Wish, plan_warm_start


def variable(path: str, *shape: int, **values: Any) -> Variable:
    return Variable(path=path, shape=list(shape), dtype="float32", **values)


def made(*variables: Variable, **values: Any) -> Signature:
    parts: dict[str, Any] = {
        "step": 1, "variables": list(variables), "optimizer_variables": [], "state": [], "layers": {}, "provenance": {},
        "inference": Fingerprint(by="graph", digest="i", blind="i"),
        "training_step": Fingerprint(by="graph", digest="t", blind="t"),
        "data": DataContract(features=[]), "training": TrainingSetup(optimizer={"kind": "adam"}),
    }  # fmt: skip
    return Signature(**{**parts, **values})


KERNEL, BIAS, OUT = variable("hidden_0/kernel", 4, 10), variable("hidden_0/bias", 10), variable("out/kernel", 10, 3)
SLOTS = [
    variable("adam/iteration"),
    variable("adam/learning_rate"),
    variable("adam/hidden_0_kernel_momentum", 4, 10),
    variable("adam/out_kernel_momentum", 10, 3),
]

# Rules: what follows from each is a promise of its own.


def test_what_each_rule_explains_and_allows() -> None:
    def of(name: str, value: object = True) -> set[str]:
        return {rule.id for rule in RULES.values() if getattr(rule, name) == value}

    outputs = {"activation", "architecture", "epsilon", "features", "pooling", "stateful", "variables", "vocabulary"}
    assert of("explains_inference") == outputs
    assert of("explains_step") == {
        *outputs, "code", "computation", "dropout", "dtype", "frozen", "gradient-accumulation", "learning-rate-schedule",
        "loss", "momentum", "normalisation", "optimizer", "optimizer-setting", "optimizer-start", "optimizer-variables",
        "precision", "regularizer", "role", "weight-average", "wider-dtype",
    }  # fmt: skip
    assert of("sets_layers") == {"dropout", "momentum", "regularizer"}
    assert of("only_training") == {
        "batch-size", "data", "data-order", "dropout", "evaluation-data", "frozen", "gradient-accumulation", "initializer",
        "learning-rate-schedule", "loss", "momentum", "optimizer", "optimizer-setting", "optimizer-start",
        "optimizer-variables", "regularizer", "seed", "training-code", "weight-average",
    }  # fmt: skip
    assert of("changes_meaning") == {
        "code", "computation", "features", "labels", "preprocessing", "role", "vocabulary",
    }  # fmt: skip
    assert of("may_be_allowed", False) == {"variables"}
    assert of("effect", "evaluation") == {"evaluation-data"}
    assert of("effect", "none") == {"feature-renamed", "normalisation", "renamed", "setting", "wider-dtype"}


def test_what_each_rule_may_move_of_the_probe() -> None:
    def moving(*values: str) -> set[str]:
        return {rule.id for rule in RULES.values() if rule.moves == frozenset(values)}

    assert moving("outputs", "loss", "step", "metrics") == {
        "activation", "epsilon", "pooling", "stateful", "dtype", "wider-dtype", "precision", "normalisation",
    }  # fmt: skip
    assert moving("loss", "step") == {"regularizer", "loss"}
    assert moving("metrics") == {"evaluation-data"}
    assert moving("step") == {
        "frozen", "dropout", "momentum", "optimizer", "optimizer-variables", "optimizer-setting",
        "learning-rate-schedule", "gradient-accumulation", "weight-average", "batch-size",
    }  # fmt: skip


def test_the_heaviest_verdict_decides() -> None:
    assert [one.weight for one in Verdict] == [0, 1, 2, 3]
    assert [one.may_restore for one in Verdict] == [True, True, False, False]


def test_which_rules_a_person_may_allow() -> None:
    assert allowed_rules(["data", "seed", "data"], "iris/wide") == ["data", "seed"]
    with pytest.raises(BadArgument, match=r"^variables is never allowed: the weights do not fit$"):
        allowed_rules(["data", "variables"], "iris/wide")
    with pytest.raises(BadArgument, match="there is no rule 'dta': "):
        allowed_rules(["dta"], "iris/wide")


# Differences.


def test_pairs_are_named_down_to_what_differs() -> None:
    old = {"a": 1, "b": {"class": "L2", "l2": 1, "x": 0}, "c": None, "d": {"class": "A"}, "e": 5}
    new = {"a": 1, "b": {"class": "L2", "l2": 2, "x": 0}, "d": {"class": "B"}, "e": 5, "f": 6}
    assert list(pairs_of(old, new)) == [
        ("b.l2", "1", "2"), ("c", "None", "nothing"), ("d", "{'class': 'A'}", "{'class': 'B'}"), ("f", "nothing", "6"),
    ]  # fmt: skip
    assert list(pairs_of({"a": "nothing"}, {})) == [("a", "nothing", "nothing")]  # said, and not said


def test_long_sides_are_cut_where_they_differ() -> None:
    assert both_sides("x" * 40, "y") == ("x" * 40, "y")
    assert both_sides("x" * 41, "y") == ("x" * 37 + "...", "y")
    one, two = "x" * 37 + "ab" + "z" * 10, "x" * 37 + "ac" + "z" * 10
    assert both_sides(one, two) == ("..." + "x" * 7 + "ab" + "z" * 10, "..." + "x" * 7 + "ac" + "z" * 10)
    one, two = "x" * 36 + "a" + "z" * 10, "x" * 36 + "b" + "z" * 10  # seen before the cut
    assert both_sides(one, two) == (one[:37] + "...", two[:37] + "...")
    assert both_sides("x" * 40, "x" * 39 + "y") == ("x" * 40, "x" * 39 + "y")
    assert both_sides("x" * 50, "x" * 50 + "y") == ("..." + "x" * 8, "..." + "x" * 8 + "y")
    assert both_sides("x" * 50, "x" * 50) == ("..." + "x" * 34 + "...",) * 2
    long = "x" * 60 + "a" + "y" * 60
    assert both_sides(long, "x" * 60 + "b")[0] == "..." + "x" * 8 + "a" + "y" * 25 + "..."


def test_layers_are_paired_by_name_and_then_by_class() -> None:
    dense, drop, pool = {"class": "Dense", "units": 1}, {"class": "Dropout", "rate": 0.1}, {"class": "MaxPooling1D"}
    assert list(layer_differences({"a": dense}, {"a": {**dense, "units": 2}})) == [("a.units", 1, 2, None)]
    assert list(layer_differences({"a": dense}, {"b": dense})) == []
    assert list(
        layer_differences({"a": dense, "b": {**dense, "units": 2}}, {"c": dense, "d": {**dense, "units": 3}})
    ) == [("b.units", 2, 3, None)]
    assert list(layer_differences({"a": dense}, {"a": drop})) == [("a", "Dense", "Dropout", None)]
    assert list(layer_differences({}, {"a": drop})) == [("a", "nothing", "Dropout", "dropout")]
    assert list(layer_differences({"a": pool}, {"a": {"class": "GlobalAveragePooling2D"}})) == [
        ("a", "MaxPooling1D", "GlobalAveragePooling2D", "pooling")
    ]
    assert list(layer_differences({"a": pool}, {})) == [("a", "MaxPooling1D", "nothing", None)]
    assert list(layer_differences({"a": {"class": "ReLU"}}, {"a": {"class": "ELU"}})) == [
        ("a", "ReLU", "ELU", "activation")
    ]
    assert list(layer_differences({"a": {"class": "ReLU"}}, {})) == [("a", "ReLU", "nothing", None)]
    assert list(layer_differences({"a": {**dense, "x": 1}}, {"a": dense})) == [("a.x", 1, "nothing", None)]


@pytest.mark.parametrize(
    ("layer", "key", "rule"),
    [
        ("Dense", "kernel_initializer", "initializer"), ("Dense", "bias_regularizer", "regularizer"),
        ("Dense", "kernel_constraint", "regularizer"), ("Normalization", "state", "normalisation"),
        ("StringLookup", "state", "vocabulary"), ("StringLookup", "vocabulary", "vocabulary"),
        ("Hashing", "salt", "vocabulary"), ("Dense", "dtype", "precision"), ("LayerNormalization", "epsilon", "epsilon"),
        ("Mine", "epsilon", None), ("BatchNormalization", "momentum", "momentum"), ("Mine", "momentum", None),
        ("Dropout", "rate", "dropout"), ("GRU", "recurrent_dropout", "dropout"), ("LSTM", "dropout", "dropout"),
        ("LeakyReLU", "negative_slope", "activation"), ("Dense", "activation", "activation"),
        ("GRU", "stateful", "stateful"), ("Dense", "units", None),
    ],
)  # fmt: skip
def test_the_rule_of_a_setting(layer: str, key: str, rule: str | None) -> None:
    found = layer_differences({"a": {"class": layer, key: 1}}, {"a": {"class": layer, key: 2}})
    assert list(found) == [(f"a.{key}", 1, 2, rule)]


def data(*features: Feature, **values: Any) -> DataContract:
    return DataContract(features=list(features), **values)


def feature(name: str, **values: Any) -> Feature:
    return Feature(**{"name": name, "kind": "numeric", "sha256": name, **values})


def seen(saved: DataContract, wanted: DataContract) -> list[tuple[str, str, str, str]]:
    return [(one.rule.id, one.what, one.saved, one.wanted) for one in data_differences(saved, wanted)]


def test_features_are_compared_by_name_and_content() -> None:
    one, two = feature("a"), feature("b")
    assert seen(data(one, two), data(one, two)) == []
    assert seen(data(one, two), data(two, one)) == [("features", "features", "['a', 'b']", "['b', 'a']")]
    renamed = feature("c", sha256="a")
    assert seen(data(one), data(renamed))[0][0] == "feature-renamed"
    for unlike in ({"sha256": None}, {"spec": "x"}, {"kind": "tensor"}, {"scale": [1.0]}, {"vocabulary": ["x"]}):
        assert seen(data(one), data(renamed.model_copy(update=unlike)))[0][0] == "features"
    assert seen(data(feature("a", sha256=None)), data(feature("c", sha256=None)))[0][0] == "features"
    assert seen(data(one), data(feature("a", sha256="other"))) == []  # its rows are the split's affair
    assert seen(data(one), data(feature("a", kind="tensor"))) == [("features", "a", "numeric", "tensor")]
    assert seen(data(one), data(feature("a", spec="f32"))) == [("features", "a", "numeric", "f32")]
    assert seen(data(one), data(feature("a", vocabulary=["x"]))) == [("vocabulary", "vocabulary of a", "None", "['x']")]
    assert seen(data(one), data(feature("a", scale=[1.0]))) == [("features", "normalisation of a", "None", "[1.0]")]


def test_splits_are_compared_where_both_have_them() -> None:
    one, two = SplitContent(rows=3, sha256="1" * 64), SplitContent(rows=4, sha256="2" * 64)
    sides = ("3 rows, sha256 111111111111", "4 rows, sha256 222222222222")
    assert seen(data(splits={"train": one}), data(splits={"train": two})) == [("data", "data.train", *sides)]
    assert seen(data(splits={"eval": one}), data(splits={"eval": two})) == [("evaluation-data", "data.eval", *sides)]
    assert seen(data(splits={"eval": one}), data(splits={"test": two})) == []
    batch, other = {"inputs": "a" * 64}, {"inputs": "b" * 64}
    first = ("first-batch", "first batch, inputs", "a" * 12, "b" * 12)
    same = {"train": one, "eval": one}
    assert seen(data(splits=same, first_batch=batch), data(splits=same, first_batch=other)) == [first]
    moved = seen(data(splits=same, first_batch=batch), data(splits={**same, "eval": two}, first_batch=other))
    assert [rule for rule, *_ in moved] == ["evaluation-data"]  # other rows have another first batch
    moved = seen(data(splits={"eval": one}, first_batch=batch), data(splits={"eval": two}, first_batch=other))
    assert [rule for rule, *_ in moved] == ["evaluation-data", "first-batch"]
    assert seen(data(splits=same, first_batch=batch), data(splits=same)) == []
    assert seen(data(label="a", labels=["x"]), data(label=None, labels=None)) == [
        ("label", "data.label", "a", "None"), ("labels", "labels", "['x']", "None"),
    ]  # fmt: skip


def test_what_differs_in_how_training_goes_on() -> None:
    def told(one: dict[str, Any], two: dict[str, Any]) -> list[tuple[str, str, str, str]]:
        setups = (TrainingSetup(**{"optimizer": {"kind": "sgd"}, **side}) for side in (one, two))
        return [(d.rule.id, d.what, d.saved, d.wanted) for d in training_differences(*setups)]

    assert told({}, {}) == []
    assert told({"loss": "mse"}, {"loss": {"a": 1}}) == [("loss", "loss", "mse", "{'a': 1}")]
    assert told({"loss": {"a": 1, "b": 2}}, {"loss": {"a": 1, "b": 3}}) == [("loss", "b", "2", "3")]
    assert told({"loss_scale": None}, {"loss_scale": {"class": "x"}})[0][:2] == ("precision", "loss scale")
    other = {"optimizer": {"kind": "adam", "rate": 1}}
    assert told({}, other) == [("optimizer", "optimizer", "sgd", "adam")]

    def optimizer(one: dict[str, Any], two: dict[str, Any]) -> list[tuple[str, str]]:
        return [one[:2] for one in told({"optimizer": one}, {"optimizer": two})]

    ema = {"use_ema": True, "ema_momentum": 0.9}
    assert optimizer({"use_ema": False, "ema_momentum": 0.5}, ema) == [("weight-average", "optimizer.use_ema")]
    assert optimizer({"use_ema": True, "ema_momentum": 0.5}, ema) == [("optimizer-setting", "optimizer.ema_momentum")]
    schedule = {"class": "Cosine", "rate": 0.1}
    assert optimizer({"learning_rate": 0.1}, {"learning_rate": schedule})[0][0] == "learning-rate-schedule"
    assert optimizer({"learning_rate": schedule}, {"learning_rate": 0.1})[0][0] == "learning-rate-schedule"
    assert optimizer({"learning_rate": schedule}, {"learning_rate": {**schedule, "rate": 0.2}}) == [
        ("learning-rate-schedule", "optimizer.learning_rate.rate")
    ]
    assert optimizer({"learning_rate": 0.1}, {"learning_rate": 0.2}) == [
        ("optimizer-setting", "optimizer.learning_rate")
    ]
    for key, rule in (
        ("gradient_accumulation_steps", "gradient-accumulation"), ("amsgrad", "optimizer-variables"),
        ("centered", "optimizer-variables"), ("nesterov", "optimizer-setting"), ("x/beta_1", "optimizer-setting"),
        ("initial_accumulator_value", "optimizer-start"),
    ):  # fmt: skip
        assert optimizer({key: 1}, {key: 2}) == [(rule, f"optimizer.{key}")]
    inner = {"class": "LossScale", "inner": {"class": "SGD"}}
    assert optimizer({"further": {**inner, "rho": 1}}, {"further": {**inner, "rho": 2}}) == [
        ("optimizer-setting", "optimizer.further.rho")
    ]
    assert optimizer(
        {"further": {**inner, "learning_rate": 0.1}}, {"further": {**inner, "learning_rate": schedule}}
    ) == [("learning-rate-schedule", "optimizer.further.learning_rate")]


def test_a_judgement_comes_back_from_another_process() -> None:
    one = Difference(RULES["data"], "data.train", "a", "b", is_allowed=True)
    told = Judgement(Verdict.RESUME, (one,), {"a": "b"}, ("a note",))
    assert Judgement.from_dict(told.as_dict()) == told
    assert (one.verdict, one.rule.verdict) == (Verdict.RESUME, Verdict.REFUSE)


def test_a_refusal_shows_five_differences() -> None:
    for count in (5, 6, 7):
        old = made(*(variable(f"v{number}/kernel", 1) for number in range(count)))
        new = made(*(variable(f"v{number}/kernel", 12) for number in range(count)))
        lines = refusal(judge(old, new), "it", "iris/wide", 3).lines()
        assert lines[1] == "  v0/kernel   saved float32 (1)   wanted float32 (12)"
        assert len(lines) == 1 + min(count, 6) + 2
        if count > 5:
            assert lines[6] == f"  and {count - 5} more (expmgr check iris/wide --seeds 3 --all)"
    found = refusal(
        judge(made(KERNEL, variable("b", 1)), made(variable("hidden_0/kernel", 4, 100), variable("b", 2))), "it", "x/y"
    )
    assert found.lines()[1:3] == [
        "  hidden_0/kernel   saved float32 (4, 10)   wanted float32 (4, 100)",
        "  b                 saved float32 (1)       wanted float32 (2)",
    ]


# Warm starts.


def test_a_warm_start_takes_what_fits() -> None:
    saved = made(KERNEL, BIAS, OUT)
    plan = plan_warm_start(saved, made(KERNEL, BIAS, variable("out/kernel", 10, 5)), Wish(), "it")
    assert plan.taken == (
        Taken("hidden_0/kernel", "hidden_0/kernel", (4, 10)),
        Taken("hidden_0/bias", "hidden_0/bias", (10,)),
    )
    assert ([one.path for one in plan.left], [one.path for one in plan.fresh]) == (["out/kernel"], ["out/kernel"])
    assert plan.as_dict()["parameters"] == {"taken": 50, "left": 30, "fresh": 50}
    assert (plan.slots, plan.changes) == ((), ())


def test_a_warm_start_with_a_wish() -> None:
    saved, wider = (
        made(KERNEL, BIAS, OUT),
        made(variable("hidden_0/kernel", 4, 20), BIAS, variable("out/kernel", 10, 2)),
    )
    plan = plan_warm_start(saved, wider, Wish(grow=True), "it")
    assert [(one.new, one.shape, one.grown) for one in plan.taken] == [
        ("hidden_0/kernel", (4, 10), True), ("hidden_0/bias", (10,), False),
    ]  # fmt: skip
    assert [one["grown"] for one in plan.as_dict()["taken"]] == [True, False]
    flat = made(variable("hidden_0/kernel", 40), BIAS, OUT)
    assert [one.new for one in plan_warm_start(saved, flat, Wish(grow=True), "it").taken] == [
        "hidden_0/bias",
        "out/kernel",
    ]
    plan = plan_warm_start(saved, saved, Wish(only=["hidden_*"]), "it")
    assert [one.new for one in plan.taken] == ["hidden_0/kernel", "hidden_0/bias"]
    renamed = made(variable("first/kernel", 4, 10), variable("first/bias", 10), OUT)
    plan = plan_warm_start(saved, renamed, Wish(maps=[("hidden_0/*", "first/*")]), "it")
    assert [(one.old, one.new) for one in plan.taken] == [
        ("hidden_0/kernel", "first/kernel"), ("hidden_0/bias", "first/bias"), ("out/kernel", "out/kernel"),
    ]  # fmt: skip
    plan = plan_warm_start(saved, renamed, Wish(maps=[("hidden_0/bias", "first/bias")], only=["first/*"]), "it")
    assert [(one.old, one.new) for one in plan.taken] == [("hidden_0/bias", "first/bias")]


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        (Wish(maps=[("x", "hidden_0/bias")]), "--map x=hidden_0/bias: the checkpoint has no variable x"),
        (Wish(maps=[("hidden_0/*", "bias")]), "--map hidden_0/*=bias: the checkpoint has no variable hidden_0/*"),
        (Wish(maps=[("hidden_0/bias", "x")]), "--map hidden_0/bias=x: the model has no variable x"),
        (Wish(only=["hidden_*", "x*"]), "--only x*: no variable of the model is called so"),
    ],
)
def test_a_wish_for_what_is_not_there(wish: Wish, told: str) -> None:
    with pytest.raises(WarmStartProblem) as caught:
        plan_warm_start(made(KERNEL, BIAS), made(KERNEL, BIAS), wish, "it")
    assert caught.value.lines() == [f"Error: {told}", "Hint: there are hidden_0/bias, hidden_0/kernel"]


def test_eight_variables_are_listed() -> None:
    for count in (8, 9):
        many = made(*(variable(f"v{number}", 1) for number in range(count)))
        with pytest.raises(WarmStartProblem) as caught:
            plan_warm_start(many, many, Wish(only=["x"]), "it")
        names = ", ".join(f"v{number}" for number in range(8))
        assert caught.value.lines()[1] == f"Hint: there are {names}{' and more' if count > 8 else ''}"


def no_start(saved: Signature, wanted: Signature, wish: Wish = Wish()) -> list[str]:  # noqa: B008
    with pytest.raises(CheckpointRefused) as caught:
        plan_warm_start(saved, wanted, wish, "it")
    return caught.value.lines()[:-2]


def test_no_warm_start_without_a_variable_or_with_another_meaning() -> None:
    assert no_start(made(KERNEL), made(BIAS)) == [
        "Error: it gives no warm start: no variable of it fits the model by path and shape"
    ]
    first, second = data(feature("a"), labels=["x", "y"]), data(feature("b"), labels=["y", "x"])
    assert no_start(made(KERNEL, data=first), made(KERNEL, data=second)) == [
        "Error: it gives no warm start: its weights would mean something else in the model",
        "  features   saved ['a']   wanted ['b']   (rule features)",
        "  labels   saved ['x', 'y']   wanted ['y', 'x']   (rule labels)",
    ]
    plan = plan_warm_start(
        made(KERNEL, data=first), made(KERNEL, data=second), Wish(allow=["features", "labels", "seed"]), "it"
    )
    assert [(one.rule.id, one.what, one.saved, one.wanted, one.is_allowed) for one in plan.changes] == [
        ("features", "features", "['a']", "['b']", True), ("labels", "labels", "['x', 'y']", "['y', 'x']", True),
    ]  # fmt: skip
    # Labels matter where the outputs are taken as they are.
    labels = data(feature("a"), labels=["x", "y", "z"])
    assert plan_warm_start(made(KERNEL, data=first), made(KERNEL, data=labels), Wish(), "it").changes == ()
    turned = data(feature("a"), labels=["y", "x"])
    assert plan_warm_start(made(KERNEL, data=first), made(KERNEL, data=turned), Wish(only=["*"]), "it").taken
    assert "rule labels" in no_start(made(KERNEL, data=first), made(KERNEL, data=turned))[1]


def test_five_reasons_against_a_warm_start_are_told() -> None:
    one, two = ({f"hidden_{n}": {"class": "Mine", "level": level} for n in range(7)} for level in (1, 2))
    weights = [variable(f"hidden_{n}/kernel", 1) for n in range(7)]
    lines = no_start(made(*weights, layers=one), made(*weights, layers=two))
    assert lines[1:] == [f"  hidden_{n}.level   saved 1   wanted 2   (rule architecture)" for n in range(5)]


def test_a_setting_that_no_shape_shows_keeps_a_layers_weights() -> None:
    one = {"a/hidden_0": {"class": "Mine", "units": 3, "level": 1}, "out": {"class": "Mine", "level": 1}}
    two = {"a/hidden_0": {"class": "Mine", "units": 4, "level": 1}, "out": {"class": "Mine", "level": 2}}
    assert plan_warm_start(made(KERNEL, layers=one), made(KERNEL, layers=two), Wish(), "it").taken
    three = {**one, "a/hidden_0": {"class": "Mine", "units": 3, "level": 2}}
    assert no_start(made(KERNEL, layers=one), made(KERNEL, layers=three))[1] == (
        "  a/hidden_0.level   saved 1   wanted 2   (rule architecture)"
    )
    other = {"hidden_0": {"class": "Other"}}
    assert no_start(made(KERNEL, layers={"hidden_0": {"class": "Mine"}}), made(KERNEL, layers=other))[1] == (
        "  hidden_0   saved Mine   wanted Other   (rule architecture)"
    )


def test_the_slots_of_what_is_taken_come_along_on_request() -> None:
    one = made(KERNEL, OUT, optimizer_variables=SLOTS)
    plan = plan_warm_start(one, one, Wish(with_optimizer=True, only=["hidden_*"]), "it")
    assert [(slot.old, slot.new, slot.shape) for slot in plan.slots] == [
        ("adam/iteration", "adam/iteration", ()),
        ("adam/hidden_0_kernel_momentum", "adam/hidden_0_kernel_momentum", (4, 10)),
    ]
    assert plan.as_dict()["optimizer"] == ["adam/iteration", "adam/hidden_0_kernel_momentum"]
    every = plan_warm_start(one, one, Wish(with_optimizer=True), "it")
    assert [slot.new for slot in every.slots] == [slot.path for slot in SLOTS if "learning_rate" not in slot.path]
    moved = [variable("adam/first_kernel_momentum", 4, 10)]
    renamed = made(variable("first/kernel", 4, 10), optimizer_variables=moved)
    plan = plan_warm_start(one, renamed, Wish(with_optimizer=True, maps=[("hidden_0/kernel", "first/kernel")]), "it")
    assert [(slot.old, slot.new) for slot in plan.slots] == [
        ("adam/hidden_0_kernel_momentum", "adam/first_kernel_momentum")
    ]
    begin = "Error: it gives no warm start: --with-optimizer: "
    asked = Wish(with_optimizer=True)
    assert no_start(one, made(KERNEL, optimizer_variables=[variable("adam/hidden_0_kernel_m", 4, 10)]), asked) == [
        f"{begin}adam/hidden_0_kernel_m does not fit"
    ]
    assert no_start(one, made(KERNEL, optimizer_variables=[variable("adam/hidden_0_kernel_momentum", 4)]), asked) == [
        f"{begin}adam/hidden_0_kernel_momentum does not fit"
    ]
    sgd = made(KERNEL, training=TrainingSetup(optimizer={"kind": "sgd"}))
    assert no_start(one, sgd, asked) == [f"{begin}it has the slots of adam, the model trains with sgd"]
    wider = made(variable("hidden_0/kernel", 4, 20), OUT)
    assert no_start(one, wider, Wish(with_optimizer=True, grow=True)) == [f"{begin}slots do not grow with --grow"]


# Adoption.


def tensor(key: str, *shape: int, full_name: str | None = None) -> NamedTensor:
    return NamedTensor(key, shape, full_name)


def adopted(tensors: list[NamedTensor], wanted: Signature, *maps: tuple[str, str]) -> Any:
    return plan_adoption(tensors, wanted, "it", "iris/wide", maps)


WEIGHTS = [tensor("dnn/hiddenlayer_0/kernel", 4, 10), tensor("dnn/hiddenlayer_0/bias", 10), tensor("global_step")]


def test_tensors_are_found_by_the_names_that_they_may_have() -> None:
    wanted = made(KERNEL, BIAS)
    found = adopted(WEIGHTS, wanted)
    assert [(one.key, one.group, one.path, one.shape) for one in found.matches] == [
        ("dnn/hiddenlayer_0/kernel", "variables", "hidden_0/kernel", (4, 10)),
        ("dnn/hiddenlayer_0/bias", "variables", "hidden_0/bias", (10,)),
    ]
    assert (found.step_key, found.fresh, found.left) == ("global_step", (), ())
    end = "/.ATTRIBUTES/VARIABLE_VALUE"
    for names in (
        ["hidden_0/kernel", "hidden_0/bias"],
        [f"variables/hidden_0/kernel{end}", f"variables/hidden_0/bias{end}"],
        ["dnn/hidden_0/kernel", "dnn/hidden_0/bias"],
    ):
        tensors = [tensor(names[0], 4, 10), tensor(names[1], 10), tensor("other", 1)]
        assert [one.key for one in adopted(tensors, wanted).matches] == names
        assert (adopted(tensors, wanted).step_key, adopted(tensors, wanted).left) == (None, ("other",))
    named = [
        tensor("a", 4, 10, full_name="hidden_0/kernel"),
        tensor("b", 10, full_name="model/hidden_0/bias"),
        tensor("c/.OPTIMIZER_SLOT/m", 10, full_name="m/hidden_0/bias"),
        tensor("the_optimizer/v", 10, full_name="v/hidden_0/bias"),
    ]
    assert [one.key for one in adopted(named, wanted).matches] == ["a", "b"]
    with pytest.raises(CheckpointRefused):  # which of two is meant, nobody says
        adopted([*named, tensor("d", 10, full_name="other/hidden_0/bias")], wanted)
    mapped = adopted([tensor("x", 4, 10), tensor("y", 10, full_name="z")], wanted, ("x", KERNEL.path), ("z", BIAS.path))
    assert [(one.key, one.path) for one in mapped.matches] == [("x", "hidden_0/kernel"), ("y", "hidden_0/bias")]


def test_a_wrong_map_is_told_with_its_side() -> None:
    with pytest.raises(WarmStartProblem, match=r"^--map q=hidden_0/bias: the checkpoint has no tensor q$"):
        adopted(WEIGHTS, made(KERNEL, BIAS), ("q", BIAS.path))
    with pytest.raises(WarmStartProblem, match=r"^--map global_step=q: the model has no variable q$"):
        adopted(WEIGHTS, made(KERNEL, BIAS), ("global_step", "q"))


def test_what_does_not_fit_is_told_with_what_there_is() -> None:
    with pytest.raises(CheckpointRefused) as caught:
        adopted(WEIGHTS, made(KERNEL, variable("hidden_0/bias", 20), OUT))
    assert caught.value.lines()[1:4] == [
        "  hidden_0/bias   saved (10)   wanted float32 (20)",
        "  out/kernel   saved nothing   wanted float32 (10, 3)",
        "  it holds dnn/hiddenlayer_0/kernel, dnn/hiddenlayer_0/bias, global_step",
    ]
    for count in (5, 6, 7):
        tensors = [tensor(f"t{number}", full_name=f"n{number}") for number in range(count)]
        with pytest.raises(CheckpointRefused) as caught:
            adopted(tensors, made(*(variable(f"v{number}", 1) for number in range(count))))
        details = caught.value.lines()[1:-2]
        assert details[5:-1] == ([f"  and {count - 5} more"] if count > 5 else [])
        names = ", ".join(f"n{number}" for number in range(min(count, 6)))
        assert details[-1] == f"  it holds {names}{' and more' if count > 6 else ''}"


def test_slots_are_found_by_what_their_optimizers_called_them() -> None:
    def slots(tensors: list[NamedTensor], *wanted: Variable, kind: str = "adam", **values: Any) -> Any:
        training = TrainingSetup(optimizer={"kind": kind})
        one = made(KERNEL, optimizer_variables=list(wanted), training=training, **values)
        found = adopted([tensor("hidden_0/kernel", 4, 10), *tensors], one)
        return [one.key for one in found.matches if one.group == "optimizer"], list(found.fresh)

    momentum = variable("adam/hidden_0_kernel_momentum", 4, 10)
    for key in ("training/Adam/hidden_0/kernel/m", "hidden_0/kernel/Adam"):
        assert slots([tensor(key, 4, 10)], momentum) == ([key], [])
    assert slots([tensor("hidden_0/kernel/Adam", 4, 1)], momentum) == ([], [momentum.path])
    assert slots([tensor("hidden_0/kernel/Adam_1", 4, 10)], momentum) == ([], [momentum.path])
    velocity = variable("adam/hidden_0_kernel_velocity", 4, 10)
    assert slots([tensor("hidden_0/kernel/Adam_1", 4, 10)], velocity) == (["hidden_0/kernel/Adam_1"], [])
    accumulator = variable("adagrad/hidden_0_kernel_accumulator", 4, 10)
    assert slots([tensor("hidden_0/kernel/t_0/Adagrad", 4, 10)], accumulator, kind="adagrad") == (
        ["hidden_0/kernel/t_0/Adagrad"], [],
    )  # fmt: skip
    assert slots([tensor("hidden_0/kernel/Adagrad", 4, 10)], accumulator, kind="adam") == ([], [accumulator.path])
    iteration, rate = variable("adam/iteration"), variable("adam/learning_rate")
    for key in ("training/Adam/iter", "global_step", "global_step/.ATTRIBUTES/VARIABLE_VALUE"):
        assert slots([tensor(key)], iteration, rate) == ([key], [])
    # `save_counter` counts saves, not steps.
    assert slots([tensor("save_counter/.ATTRIBUTES/VARIABLE_VALUE")], iteration) == ([], ["adam/iteration"])
    other = variable("adam/beta_power")
    assert slots([tensor("adam/beta_power/.ATTRIBUTES/VARIABLE_VALUE")], other) == (
        ["adam/beta_power/.ATTRIBUTES/VARIABLE_VALUE"], [],
    )  # fmt: skip
    named = variable("hidden_0/kernel/Adam", 4, 10)
    assert slots([tensor(named.path, 4, 10)], named, keys="names") == ([named.path], [])


def test_an_estimators_columns_are_sorted_by_name() -> None:
    def rows(
        *names: str, key: str = "dnn/hiddenlayer_0/kernel", count: int = 4, **values: Any
    ) -> tuple[int, ...] | None:
        contract = data(*(feature(name, **values) for name in names))
        found = adopted(
            [tensor(key, count, 10), tensor("dnn/hiddenlayer_0/bias", 10)],
            made(variable("hidden_0/kernel", count, 10), BIAS, data=contract),
        )
        match = found.matches[0]
        assert isinstance(match, Match)
        assert found.as_dict()["taken"][0]["rows_reordered"] is (match.rows is not None)
        assert found.matches[1].rows is None
        return match.rows

    assert rows("d", "a", "c", "b") == (3, 0, 2, 1)
    assert rows("a", "b", "c", "d") is None
    assert rows("d", "a", "c", "b", kind="categorical") is None
    assert rows("d", "a", "c") is None
    assert rows("d", "a", "c", "b", key="hidden_0/kernel") is None


def test_what_nobody_can_read_from_a_checkpoint_is_named() -> None:
    plain = adopted(WEIGHTS, made(KERNEL, BIAS, data=data(feature("a"), feature("b"))))
    assert plain.unknown == (
        "the columns were a, b, and nothing else was done to them before they entered the model",
        "it was trained on the rows of the training split, with adam and this loss",
    )
    more = made(KERNEL, BIAS, architecture={"activation": "relu"}, data=data(labels=["x", "y"]))
    assert adopted(WEIGHTS, more).unknown[::2] == (
        "the activation was relu", "the outputs stood for x, y, in this order",
    )  # fmt: skip


# The judgement.


def rules(saved: Signature, wanted: Signature) -> list[tuple[str, str, str, str]]:
    return [(one.rule.id, one.what, one.saved, one.wanted) for one in judge(saved, wanted).differences]


def trained(*slots: Variable, scale: dict[str, Any] | None = None, **optimizer: Any) -> Signature:
    training = TrainingSetup(optimizer={"kind": "adam", **optimizer}, loss_scale=scale)
    return made(KERNEL, optimizer_variables=list(slots), training=training)


@pytest.mark.parametrize(
    ("path", "setting", "value", "rule"),
    [
        ("adam/hidden_0_kernel_gradient_accumulator", "gradient_accumulation_steps", 4, "gradient-accumulation"),
        ("adam/learning_rate", "learning_rate", {"class": "Cosine"}, "learning-rate-schedule"),
        ("adam/hidden_0_kernel_average", "use_ema", True, "weight-average"),
    ],
)
def test_variables_of_an_optimizer_that_come_and_go_with_a_setting(
    path: str, setting: str, value: Any, rule: str
) -> None:
    slot = variable(path, 4, 10)
    with_it, without = trained(slot, **{setting: value}), trained(**{setting: None})
    for one, two in ((with_it, without), (without, with_it)):
        assert [found[0] for found in rules(one, two)] == [rule]
    # On both sides they are compared as all others are.
    other = trained(variable(path, 5, 10), **{setting: value})
    assert rules(with_it, other) == [("optimizer-variables", path, "float32 (4, 10)", "float32 (5, 10)")]
    unlike = trained(variable("adam/other", 1), **{setting: value})
    assert {found[0] for found in rules(with_it, unlike)} == {"optimizer-variables"}


def test_a_variable_that_comes_without_its_setting_is_told() -> None:
    rate, average = variable("adam/learning_rate"), variable("adam/hidden_0_kernel_average", 4, 10)
    for slot in (rate, average):
        shown = str(slot)
        assert rules(trained(slot), trained()) == [("optimizer-variables", slot.path, shown, "nothing")]
        assert rules(trained(), trained(slot)) == [("optimizer-variables", slot.path, "nothing", shown)]
    schedule = {"class": "Cosine", "rate": 1}
    both = (trained(rate, learning_rate=schedule), trained(learning_rate={**schedule, "rate": 2}))
    assert [one[:2] for one in rules(*both)] == [
        ("optimizer-variables", rate.path), ("learning-rate-schedule", "optimizer.learning_rate.rate"),
    ]  # fmt: skip
    factor = variable("loss_scale/factor")
    assert [one[0] for one in rules(trained(factor, scale={"class": "x"}), trained())] == ["precision"]
    assert [one[0] for one in rules(trained(factor), trained())] == ["optimizer-variables"]
    assert [one[0] for one in rules(trained(factor, scale={"a": 1}), trained(scale={"a": 2}))] == [
        "optimizer-variables", "precision",
    ]  # fmt: skip


def test_the_slots_of_what_is_frozen_come_and_go() -> None:
    slot = variable("adam/hidden_0_kernel_momentum", 4, 10)
    frozen = KERNEL.model_copy(update={"trainable": False})
    one, two = made(KERNEL, OUT, optimizer_variables=[slot]), made(frozen, OUT)
    assert rules(one, two) == [("frozen", "hidden_0/kernel", "trained", "frozen")]
    assert rules(two, one) == [("frozen", "hidden_0/kernel", "frozen", "trained")]
    assert [found[0] for found in rules(one, made(KERNEL, OUT))] == ["optimizer-variables"]
    both = made(frozen, OUT, optimizer_variables=[slot])
    assert [found[0] for found in rules(both, two)] == ["optimizer-variables"]  # frozen on both sides


def test_a_part_that_the_graph_does_not_use() -> None:
    one = made(KERNEL.model_copy(update={"role": 0}), BIAS)
    two = made(KERNEL, BIAS.model_copy(update={"role": 0}))
    assert rules(one, two) == [
        ("role", "hidden_0/kernel", "part 0", "none"), ("role", "hidden_0/bias", "none", "part 0"),
    ]  # fmt: skip


def test_names_that_play_another_part_in_a_training_step() -> None:
    def named(name: str, digest: str = "t") -> Signature:
        return made(KERNEL, training_step=Fingerprint(by="graph", digest=digest, blind=digest, named=name * 20))

    for one, two in (("a", "b"), ("b", "a")):
        assert rules(named(one), named(two)) == [("role", "names in a training step", one * 12, two * 12)]
        assert [found[0] for found in rules(named(one), named(two, "u"))] == ["training-code"]
        assert rules(named(one), named("")) == rules(named(""), named(two)) == []
    assert rules(named("a"), named("a", "u")) == []  # the same by names


@pytest.mark.parametrize(
    ("one", "two", "rule"),
    [
        ("float32", "float64", "wider-dtype"), ("bfloat16", "float32", "wider-dtype"), ("float16", "float32", "wider-dtype"),
        ("float64", "float32", "dtype"),
        ("float16", "bfloat16", "dtype"), ("int8", "float32", "dtype"), ("float32", "int8", "dtype"),
    ],
)  # fmt: skip
def test_a_dtype_is_wider_or_not(one: str, two: str, rule: str) -> None:
    sides = [made(KERNEL.model_copy(update={"dtype": dtype})) for dtype in (one, two)]
    assert rules(*sides) == [(rule, "hidden_0/kernel", f"{one} (4, 10)", f"{two} (4, 10)")]


def test_where_graphs_cannot_be_compared_it_is_said_why() -> None:
    new = made(KERNEL, provenance={"tensorflow": "2.21.0", "keras": "3"})
    old = made(KERNEL, provenance={"tensorflow": "2.16.0", "keras": "3"})
    told = (
        "it was saved with tensorflow 2.16.0, this is 2.21.0: the graphs cannot be compared, the configuration decides"
    )
    assert judge(old, new).notes == (told,)
    other = made(KERNEL, provenance={"tensorflow": "2.21.0", "keras": "2"})
    assert judge(new, other).notes[0].startswith("it was saved with keras 3, this is 2: ")
    for reason, shown in ((None, "no reason is known"), ("py_function", "py_function")):
        untraced = made(KERNEL, inference=Fingerprint(by="code", digest="c", reason=reason), code="1" * 64)
        assert judge(untraced, untraced).notes == (f"the model cannot be traced ({shown}): its code decides",)
        assert judge(untraced, untraced).differences == ()
        changed = untraced.model_copy(update={"code": "2" * 64})
        assert rules(untraced, changed) == [("code", "code of the model", "1" * 12, "2" * 12)]
        unknown = untraced.model_copy(update={"code": None})
        assert rules(untraced, unknown) == [("code", "code of the model", "1" * 12, "not known")]
        assert rules(unknown, untraced) == [("code", "code of the model", "not known", "1" * 12)]
    none = made(KERNEL, inference=Fingerprint(by="none"))
    assert rules(none, none) == [("code", "code of the model", "not known", "not known")]
    traced = made(KERNEL, training_step=Fingerprint(by="code", digest="c"))
    assert rules(made(KERNEL), traced) == [("training-code", "training step", "by graph", "by code")]
    assert rules(traced, traced) == []


def test_what_is_only_asked_does_not_depend_on_training() -> None:
    one, two = trained(rate=1), trained(rate=2)
    assert judge(one, two).verdict is Verdict.REFUSE
    assert judge(one, two, purpose="ask").verdict is Verdict.SAME
    assert judge(one, two, ["optimizer-start"]).verdict is Verdict.RESUME
    assert judge(one, two, ["seed"]).verdict is Verdict.REFUSE
    resumed = judge(trained(momentum=1), trained(momentum=2), ["optimizer-setting"])
    assert [found.is_allowed for found in resumed.differences] == [False]  # nothing was refused
    unfit = judge(made(KERNEL), made(OUT), ["variables"])
    assert (unfit.verdict, {found.is_allowed for found in unfit.differences}) == (Verdict.REFUSE, {False})


# What is said of a change that is let through.


def test_a_change_that_is_let_through_is_told_with_its_effect() -> None:
    assert told("optimizer-setting", "lr", "0.1", "0.01") == (
        f"lr: 0.1 -> 0.01, takes effect now ({RULES['optimizer-setting'].why})"
    )
    assert told("setting", "a.level", "3", "4") == f"a.level: 3 -> 4 ({RULES['setting'].why})"
    assert told("data", "data.train", "a", "b", allowed=True) == (
        f"data.train: a -> b, allowed by --allow data ({RULES['data'].why})"
    )


def test_a_refusal_names_what_would_allow_it() -> None:
    old, new = data(feature("a"), label="x"), data(feature("b"), label="y")
    found = judge(made(KERNEL, data=old), made(KERNEL, data=new))
    hint = refusal(found, "it", "iris/wide").hint
    assert hint is not None
    assert hint.endswith("; or, where you know better, go on with --allow features --allow label")
    found = judge(made(KERNEL, data=old), made(KERNEL, data=new), ["label"])  # what is typed next names all of them
    hint = refusal(found, "it", "iris/wide").hint
    assert hint is not None
    assert hint.endswith("; or, where you know better, go on with --allow features --allow label")
    found = judge(made(KERNEL, data=old), made(OUT, data=new))
    hint = refusal(found, "it", "iris/wide", 2).hint
    assert hint is not None
    assert "--allow" not in hint
    assert "expmgr run iris/wide --seeds 2 --fresh" in hint
