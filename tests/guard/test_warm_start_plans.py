"""Which weights a warm start and an adoption take, by names and shapes alone. No TensorFlow."""

from __future__ import annotations

from typing import Any

import pytest

from expmgr.checkpoints.signature import Feature, Variable
from expmgr.errors import CheckpointRefused, WarmStartProblem
from expmgr.guard.adoption import NamedTensor, plan_adoption
from expmgr.guard.warm_start import Plan, Wish, plan_warm_start
from guard.test_guard import BASE, LAYERS, MOVED, signature, variables, with_data

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
SLOTS = [
    Variable(path="adagrad/iteration", shape=[], dtype="int64"),
    Variable(path="adagrad/learning_rate", shape=[], dtype="float32"),
    *(
        Variable(path=f"adagrad/{one.path.replace('/', '_')}_accumulator", shape=one.shape, dtype="float32")
        for one in variables(10, 10)
    ),
]
SAVED = signature(optimizer_variables=SLOTS)


def plan(wanted: Any, saved: Any = SAVED, **wish: Any) -> Plan:
    return plan_warm_start(saved, wanted, Wish(**wish), "model.ckpt-200")


def moved(found: Plan) -> list[tuple[str, str]]:
    return [(one.old, one.new) for one in found.taken]


def refusal(*args: Any, **wish: Any) -> str:
    with pytest.raises(CheckpointRefused) as caught:
        plan(*args, **wish)
    assert caught.value.message.startswith("model.ckpt-200 gives no warm start: ")
    assert caught.value.left_alone == "Nothing was changed on disk."
    return caught.value.message.removeprefix("model.ckpt-200 gives no warm start: ")


# Warm starts.


def test_what_has_its_path_and_shape_is_taken_and_the_rest_starts_anew() -> None:
    found = plan(signature(variables=variables(10, 20)))
    assert moved(found) == [(path, path) for path in ("hidden_0/kernel", "hidden_0/bias")]
    assert [one.path for one in found.left] == [one.path for one in found.fresh] == ["hidden_1/kernel", "hidden_1/bias"]
    assert found.slots == ()
    assert found.as_dict() == {
        "taken": [
            {"from": "hidden_0/kernel", "to": "hidden_0/kernel", "shape": [4, 10], "grown": False},
            {"from": "hidden_0/bias", "to": "hidden_0/bias", "shape": [10], "grown": False},
        ],
        "left": ["hidden_1/kernel", "hidden_1/bias"],
        "fresh": ["hidden_1/kernel", "hidden_1/bias"],
        "optimizer": [],
        "parameters": {"taken": 50, "left": 110, "fresh": 220},
    }
    assert refusal(signature(variables=variables(7, 7))) == "no variable of it fits the model by path and shape"


def test_a_larger_variable_takes_what_it_overlaps_with_where_that_is_wished() -> None:
    found = plan(signature(variables=variables(10, 20)), grow=True)
    assert [(one.new, one.shape, one.grown) for one in found.taken[2:]] == [
        ("hidden_1/kernel", (10, 10), True), ("hidden_1/bias", (10,), True)
    ]  # fmt: skip
    assert (found.left, found.fresh) == ((), ())
    smaller = plan(signature(variables=variables(10, 5)), grow=True)
    assert [one.path for one in smaller.fresh] == ["hidden_1/kernel", "hidden_1/bias"]
    other_rank = [*BASE.variables[:1], Variable(path="hidden_0/bias", shape=[10, 1], dtype="float32", role=1)]
    assert [one.path for one in plan(signature(variables=other_rank), grow=True).fresh] == ["hidden_0/bias"]
    assert refusal(
        signature(variables=variables(10, 20), optimizer_variables=SLOTS), grow=True, with_optimizer=True
    ) == "--with-optimizer: slots do not grow with --grow"  # fmt: skip


def test_old_paths_are_mapped_to_new_ones() -> None:
    renamed = [one.model_copy(update={"path": one.path.replace("hidden_0", "first/x")}) for one in BASE.variables]
    wanted = signature(variables=renamed)
    for maps in ([("hidden_0/*", "first/x/*")], [(f"hidden_0/{one}", f"first/x/{one}") for one in ("kernel", "bias")]):
        assert dict(moved(plan(wanted, maps=maps))) == {
            old.path: new.path for old, new in zip(BASE.variables, renamed, strict=True)
        }
    for maps, words in (
        ([("nope", "first/x/bias")], "--map nope=first/x/bias: the checkpoint has no variable nope"),
        ([("hidden/*", "first/*")], "--map hidden/*=first/*: the checkpoint has no variable hidden/*"),
        ([("hidden_0/bias", "nope")], "--map hidden_0/bias=nope: the model has no variable nope"),
        ([("hidden_0/*", "second/*")], "the model has no variable second/"),
    ):
        with pytest.raises(WarmStartProblem) as caught:
            plan(wanted, maps=maps)
        assert words in caught.value.message
    with pytest.raises(WarmStartProblem) as caught:
        plan(wanted, only=["nope*"])
    assert caught.value.message == "--only nope*: no variable of the model is called so"
    assert caught.value.hint == "there are first/x/bias, first/x/kernel, hidden_1/bias, hidden_1/kernel"


def test_a_part_is_taken_by_its_pattern() -> None:
    found = plan(BASE, only=["hidden_1/*", "hidden_0/bias"])
    assert [one.new for one in found.taken] == ["hidden_0/bias", "hidden_1/kernel", "hidden_1/bias"]
    assert [one.path for one in found.fresh] == [one.path for one in found.left] == ["hidden_0/kernel"]


def test_slots_come_along_with_the_weights_that_are_taken_and_no_learning_rate() -> None:
    wanted = signature(variables=BASE.variables, optimizer_variables=SLOTS)
    found = plan(wanted, with_optimizer=True)
    assert [one.new for one in found.slots] == [one.path for one in SLOTS if "learning_rate" not in one.path]
    part = plan(wanted, with_optimizer=True, only=["hidden_1/bias"])
    assert [one.new for one in part.slots] == ["adagrad/iteration", "adagrad/hidden_1_bias_accumulator"]
    assert plan(wanted).slots == ()
    renamed = [one.model_copy(update={"path": one.path.replace("hidden_0", "first")}) for one in BASE.variables]
    slots = [one.model_copy(update={"path": one.path.replace("hidden_0", "first")}) for one in SLOTS]
    other = signature(variables=renamed, optimizer_variables=slots)
    mapped = plan(other, with_optimizer=True, maps=[("hidden_0/*", "first/*")])
    assert {one.old: one.new for one in mapped.slots}[
        "adagrad/hidden_0_bias_accumulator"
    ] == "adagrad/first_bias_accumulator"


def test_slots_that_do_not_fit_are_refused() -> None:
    sgd = signature(optimizer_variables=SLOTS, training=BASE.training.model_copy(update={"optimizer": {"kind": "sgd"}}))
    assert (
        refusal(sgd, with_optimizer=True) == "--with-optimizer: it has the slots of adagrad, the model trains with sgd"
    )
    more = signature(
        optimizer_variables=[*SLOTS, Variable(path="adagrad/hidden_0_bias_other", shape=[10], dtype="float32")]
    )
    assert refusal(more, with_optimizer=True) == "--with-optimizer: adagrad/hidden_0_bias_other does not fit"
    wrong = [one.model_copy(update={"shape": [3]}) if "bias" in one.path else one for one in SLOTS]
    assert "hidden_0_bias_accumulator does not fit" in refusal(
        signature(optimizer_variables=wrong), with_optimizer=True
    )


def test_weights_that_would_mean_something_else_are_not_taken() -> None:
    meaning = "its weights would mean something else in the model"
    swapped = with_data(features=list(reversed(BASE.data.features)))
    assert refusal(swapped) == meaning
    allowed = plan(swapped, allow=["features"])
    assert [(one.rule.id, one.is_allowed) for one in allowed.changes] == [("features", True)]
    # An activation is no other meaning: that is what a warm start is for.
    assert (
        len(plan(signature(layers={**LAYERS, "hidden": {**LAYERS["hidden"], "activation": "tanh"}}, **MOVED)).taken)
        == 4
    )
    other_labels = with_data(labels=["dog", "cat"])
    assert refusal(other_labels) == meaning
    assert plan(with_data(labels=["a", "b", "c"])).taken  # other outputs, which start anew
    assert plan(other_labels, only=["hidden_0/*"]).taken


def test_a_setting_that_no_rule_knows_counts_for_the_layers_whose_weights_are_taken() -> None:
    old, new = ({"model/hidden_0": {"class": "Mine", "level": level, "units": level}} for level in (1, 2))
    saved = signature(layers=old)
    assert refusal(signature(layers=new), saved) == "its weights would mean something else in the model"
    assert plan(signature(layers=new), saved, only=["hidden_1/*"]).taken
    assert plan(signature(layers=new), saved, allow=["architecture"]).taken
    units = signature(layers={"model/hidden_0": {"class": "Mine", "level": 1, "units": 2}})
    assert plan(units, saved).taken  # which shapes show
    relu, tanh = (
        signature(layers={"model/hidden_0": {"class": "Dense", "activation": one}}) for one in ("relu", "tanh")
    )
    assert plan(tanh, relu).taken  # a rule knows it


# Adoptions.


def tensors(form: str) -> list[NamedTensor]:
    return [NamedTensor(form.format(one.path), tuple(one.shape)) for one in BASE.variables]


@pytest.mark.parametrize("form", ["{}", f"variables/{{}}{VALUE}", "dnn/{}"])
def test_a_tensor_is_known_by_each_of_its_names(form: str) -> None:
    found = plan_adoption(tensors(form), BASE, "model.ckpt-7", "iris/wide")
    assert {one.path: one.key for one in found.matches if one.group == "variables"} == {
        one.path: form.format(one.path) for one in BASE.variables
    }
    assert (found.fresh, found.left, found.step_key) == (("adagrad/x",), (), None)
    counted = plan_adoption([*tensors(form), NamedTensor("global_step", ())], BASE, "model.ckpt-7", "iris/wide")
    assert (counted.left, counted.step_key) == ((), "global_step")


def estimator(*more: NamedTensor) -> list[NamedTensor]:
    names = {"hidden_0": "hiddenlayer_0", "hidden_1": "hiddenlayer_1"}
    found = []
    for one in BASE.variables:
        layer, _, part = one.path.partition("/")
        found.append(NamedTensor(f"dnn/{names[layer]}/{part}", tuple(one.shape)))
    return [*found, *more]


def test_an_estimator_s_columns_are_sorted_by_name() -> None:
    """Row of the tensor for each of the model's columns."""
    wanted = with_data(features=[Feature(name=name, kind="numeric") for name in ("d", "a", "c", "b")])
    found = {one.path: one.rows for one in plan_adoption(estimator(), wanted, "x", "iris/wide").matches}
    assert found == {
        "hidden_0/kernel": (3, 0, 2, 1),
        "hidden_0/bias": None,
        "hidden_1/kernel": None,
        "hidden_1/bias": None,
    }
    sorted_ = with_data(features=[Feature(name=name, kind="numeric") for name in "abcd"])
    assert {one.rows for one in plan_adoption(estimator(), sorted_, "x", "iris/wide").matches} == {None}
    fewer = with_data(features=[Feature(name=name, kind="numeric") for name in "ba"])
    assert {one.rows for one in plan_adoption(estimator(), fewer, "x", "iris/wide").matches} == {None}


@pytest.mark.parametrize(
    ("kind", "slot", "form"),
    [
        ("adagrad", "accumulator", "{}/Adagrad"),
        ("adagrad", "accumulator", "training/Adagrad/{}/accumulator"),
        ("adagrad", "accumulator", "{}/t_0/Adagrad"),
        ("adam", "momentum", "{}/Adam"),
        ("adam", "velocity", "{}/Adam_1"),
        ("ftrl", "linear", "{}/Ftrl_1"),
        ("rmsprop", "velocity", "{}/RMSProp"),
        ("sgd", "momentum", "training/SGD/{}/momentum"),
    ],
)
def test_slots_have_other_names_in_older_checkpoints(kind: str, slot: str, form: str) -> None:
    wanted = signature(
        training=BASE.training.model_copy(update={"optimizer": {"kind": kind}}),
        optimizer_variables=[
            Variable(path=f"{kind}/hidden_0_bias_{slot}", shape=[10], dtype="float32"),
            Variable(path=f"{kind}/hidden_1_bias_{slot}", shape=[10], dtype="float32"),
            Variable(path=f"{kind}/iteration", shape=[], dtype="int64"),
            Variable(path=f"{kind}/learning_rate", shape=[], dtype="float32"),
        ],
    )
    there = estimator(NamedTensor(form.format("dnn/hiddenlayer_0/bias"), (10,)), NamedTensor("global_step", ()))
    wrong = NamedTensor(form.format("dnn/hiddenlayer_1/bias"), (3,))
    found = plan_adoption([*there, wrong, NamedTensor("beta1_power", ())], wanted, "x", "iris/wide")
    slots = {one.path: one.key for one in found.matches if one.group == "optimizer"}
    assert slots == {
        f"{kind}/hidden_0_bias_{slot}": form.format("dnn/hiddenlayer_0/bias"), f"{kind}/iteration": "global_step"
    }  # fmt: skip
    assert found.fresh == (f"{kind}/hidden_1_bias_{slot}",)  # of another shape
    assert (found.step_key, found.left) == ("global_step", (wrong.key, "beta1_power"))


def test_a_weight_that_has_no_tensor_is_refused_and_can_be_mapped() -> None:
    others = [NamedTensor("a/w", (4, 10)), NamedTensor("a/b", (11,)), *tensors("{}")[2:]]
    with pytest.raises(CheckpointRefused) as caught:
        plan_adoption(others, BASE, "model.ckpt-7", "iris/wide", [("a/b", "hidden_0/bias")])
    assert caught.value.lines()[:4] == [
        "Error: model.ckpt-7 was not adopted: it does not fit variant iris/wide",
        "  hidden_0/kernel   saved nothing   wanted float32 (4, 10)",
        "  hidden_0/bias   saved (11)   wanted float32 (10)",
        "  it holds a/w, a/b, hidden_1/kernel, hidden_1/bias",
    ]
    others[1] = NamedTensor("a/b", (10,))
    maps = [("a/w", "hidden_0/kernel"), ("a/b", "hidden_0/bias")]
    found = plan_adoption(others, BASE, "x", "iris/wide", maps)
    assert [(one.key, one.path) for one in found.matches[:2]] == maps
    for wrong, words in (
        (("nope", "hidden_0/bias"), "no tensor nope"),
        (("a/b", "nope"), "the model has no variable nope"),
    ):
        with pytest.raises(WarmStartProblem, match=words):
            plan_adoption(others, BASE, "x", "iris/wide", [wrong])


def test_a_name_of_the_object_graph_is_taken_where_only_one_ends_so() -> None:
    def named(*names: str) -> list[NamedTensor]:
        first = [NamedTensor(f"k{number}", (4, 10), name) for number, name in enumerate(names)]
        return [*first, *tensors("{}")[1:]]

    def key(found: list[NamedTensor]) -> str:
        return plan_adoption(found, BASE, "x", "iris/wide").matches[0].key

    assert key(named("model/hidden_0/kernel")) == "k0"
    assert key(named("model/hidden_0/kernel", "hidden_0/kernel")) == "k1"  # the whole name
    slot = NamedTensor("x/.OPTIMIZER_SLOT/m", (4, 10), "model/hidden_0/kernel")
    assert key([slot, *named("model/hidden_0/kernel")]) == "k0"
    with pytest.raises(CheckpointRefused, match="it does not fit variant"):
        key(named("a/hidden_0/kernel", "b/hidden_0/kernel"))


def test_what_no_checkpoint_says_is_asked_of_a_person() -> None:
    assert plan_adoption(tensors("{}"), BASE, "x", "iris/wide").unknown == (
        "the activation was relu",
        "the columns were a, b, and nothing else was done to them before they entered the model",
        "the outputs stood for cat, dog, in this order",
        "it was trained on the rows of the training split, with adagrad and this loss",
    )
