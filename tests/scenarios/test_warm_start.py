"""`run --warm-start-from`: which weights are taken, from the prints to the bits, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from world import Repo

pytestmark = pytest.mark.tf


def weights(repo: Repo, variant: str, step: int, group: str = "variables") -> dict[str, Any]:
    """The weights of a checkpoint, as TensorFlow reads them."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(repo.path / f"models/iris/{variant}/seed-0/model.ckpt-{step}"))
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    return {
        key.removeprefix(f"{group}/").removesuffix(suffix): reader.get_tensor(key)
        for key in reader.get_variable_to_shape_map()
        if key.startswith(f"{group}/")
    }


def made(repo: Repo, name: str, *settings: str, base: str = "iris/wide") -> None:
    changes = [part for setting in settings for part in ("--set", setting)]
    result = repo.expmgr("new", f"iris/{name}", "--from", base, *changes)
    assert result.code == 0, result.stderr


@pytest.mark.wide
def test_the_weights_of_another_variant(copied: Repo) -> None:
    import numpy as np

    made(copied, "tanh", "model.activation=tanh")
    result = copied.expmgr("run", "iris/tanh", "--warm-start-from", "iris/wide", "--max-steps", "20")
    assert result.code == 0, result.stderr
    assert (
        "  weights of iris/wide seed 0 at step 200:\n"
        "    taken: 583 parameters in 6 variables: hidden_0/kernel, hidden_0/bias, hidden_1/kernel, hidden_1/bias, "
        "logits/kernel, logits/bias\n"
        "    left: 0 parameters in 0 variables\n"
        "    fresh: 0 parameters in 0 variables\n"
    ) in result.stderr
    old, new = weights(copied, "wide", 200), weights(copied, "tanh", 0)
    assert old.keys() == new.keys()
    assert all(np.array_equal(old[key], new[key]) for key in old)
    slots = weights(copied, "tanh", 0, "optimizer")
    assert int(slots["adagrad/iteration"]) == 0
    assert np.all(slots["adagrad/hidden_0_kernel_accumulator"] == np.float32(0.1))
    record = json.loads(copied.expmgr("show", "iris/tanh:0", "--json").stdout)
    source = json.loads(copied.expmgr("show", "iris/wide:0", "--json").stdout)
    assert {key: record["warm_start"][key] for key in ("variant", "seed", "step", "run_id", "commit")} == {
        "variant": "iris/wide", "seed": 0, "step": 200, "run_id": source["run_id"], "commit": source["commit"],
    }  # fmt: skip
    assert record["warm_start"]["parameters"] == {"taken": 583, "left": 0, "fresh": 0}
    assert "iris/wide, weights of iris/wide@200" in copied.expmgr("list").stdout
    again = copied.expmgr("run", "iris/tanh", "--warm-start-from", "iris/wide", "--max-steps", "30")
    assert (again.code, "resumes at step 20" in again.stderr) == (0, True), again.stderr


@pytest.mark.slow
def test_a_part_by_another_name_and_the_optimizer(copied: Repo) -> None:
    import numpy as np

    made(copied, "part")
    options = ("--only", "hidden_1/*", "--with-optimizer", "--max-steps", "5")
    result = copied.expmgr("run", "iris/part", "--warm-start-from", "iris/wide", *options)
    assert result.code == 0, result.stderr
    old, new = weights(copied, "wide", 200), weights(copied, "part", 0)
    same = {key for key in old if np.array_equal(old[key], new[key])}
    assert same == {"hidden_1/kernel", "hidden_1/bias"}
    slots = [weights(copied, variant, step, "optimizer") for variant, step in (("wide", 200), ("part", 0))]
    key = "adagrad/hidden_1_kernel_accumulator"
    assert np.array_equal(slots[0][key], slots[1][key])
    assert int(slots[1]["adagrad/iteration"]) == 200


@pytest.mark.slow
def test_a_wider_layer_takes_the_slice_that_it_overlaps_with(copied: Repo) -> None:
    import numpy as np

    made(copied, "grown", "model.hidden_units=[20, 20]", base="iris/baseline")
    command = ("run", "iris/grown", "--warm-start-from", "iris/baseline", "--max-steps", "5")
    result = copied.expmgr(*command, "--grow")
    assert result.code == 0, result.stderr
    assert "hidden_0/kernel (grown from (4, 10))" in result.stderr
    old, new = weights(copied, "baseline", 200), weights(copied, "grown", 0)
    assert np.array_equal(new["hidden_1/kernel"][:10, :10], old["hidden_1/kernel"])
    assert not np.any(new["hidden_1/kernel"][10:, :] == 0)
    assert np.array_equal(new["logits/bias"], old["logits/bias"])


@pytest.mark.slow
def test_what_is_refused_changes_nothing(copied: Repo) -> None:
    made(copied, "turned", "data.labels=[virginica, versicolor, setosa]")
    made(copied, "other", "optimizer={kind: sgd, learning_rate: 0.1}")
    made(copied, "fits")
    made(copied, "begun", "train.max_steps=3")
    start = ("--warm-start-from", "iris/wide")
    assert copied.expmgr("run", "iris/begun", *start).code == 0
    before = copied.snapshot()
    cases = [
        (("iris/turned", *start), 3, "would mean something else in the model\n  labels   saved "),
        (("iris/other", *start, "--with-optimizer"), 3, "it has the slots of adagrad, the model trains with sgd"),
        (("iris/fits", *start, "--only", "hiden*"), 1, "--only hiden*: no variable of the model is called so"),
        (("iris/fits", *start, "--map", "a/*=hidden_0/*"), 1, "the checkpoint has no variable a/*"),
        (("iris/fits", *start, "--map", "hidden_0/bias=b"), 1, "the model has no variable b"),
        (("iris/fits", "--warm-start-from", "iris/wide@7"), 1, "has no checkpoint of step 7"),
        (("iris/fits", "--warm-start-from", "iris/other"), 1, "iris/other has no checkpoint to start from"),
        (("iris/baseline", *start), 1, "has checkpoints already, to step 200: a warm start begins at step 0"),
        (("iris/begun", "--warm-start-from", "iris/baseline@0"), 1, "--warm-start-from iris/baseline:0@0"),
        (("iris/begun", "--warm-start-from", "iris/wide@100"), 1, "a warm start begins at step 0"),  # it began at 200
        (("iris/fits", "--grow"), 2, "need a checkpoint to warm-start from"),
    ]
    for arguments, code, told in cases:
        result = copied.expmgr("run", *arguments)
        assert (result.code, told in " ".join(result.stderr.split(" "))) == (code, True), result.stderr
    assert copied.snapshot() == before
    allowed = copied.expmgr("run", "iris/turned", *start, "--allow", "labels", "--max-steps", "2")
    assert allowed.code == 0, allowed.stderr
    assert "allowed by --allow labels" in allowed.stderr
