"""`adopt`: a model_dir that was made elsewhere becomes a variant's, and somebody stands for what it does not say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from world import ROOT, Repo

pytestmark = pytest.mark.tf

ESTIMATOR = ROOT / "tests/data/estimator_iris"


@pytest.fixture
def old(iris: Repo) -> Repo:
    assert iris.expmgr("new", "iris/old").code == 0
    return iris


def left(repo: Repo) -> dict[str, object]:
    """All that a refusal has to leave alone; empty folders for runs to come are none of it."""
    files = {path: what for path, what in repo.digest(".git/expmgr").items() if what[0] != "folder"}
    return {**repo.snapshot(), "expmgr": files}


@pytest.mark.slow
def test_an_estimator_s_checkpoint_evaluates_to_the_same(old: Repo) -> None:
    """TF 2.15's DNNClassifier, Adagrad's accumulators included; its columns are sorted, and ours are not."""
    import numpy as np
    import tensorflow as tf

    before = {path.name: path.read_bytes() for path in ESTIMATOR.iterdir() if path.is_file()}
    result = old.expmgr("adopt", str(ESTIMATOR), "--as", "iris/old", "--vouch", "Ann Lee")
    assert result.code == 0, result.stderr
    assert "dnn/hiddenlayer_0/kernel" in result.stdout
    assert "rows put in the order of the columns" in result.stdout
    assert "  - the outputs stood for setosa, versicolor, virginica, in this order\n" in result.stdout
    assert {path.name: path.read_bytes() for path in ESTIMATOR.iterdir() if path.is_file()} == before
    record = json.loads(old.expmgr("show", "iris/old:0", "--json").stdout)
    wanted = json.loads((ESTIMATOR / "eval.json").read_text())
    found = record["metrics"]["selected"]["eval"]
    assert found["accuracy"] == pytest.approx(wanted["accuracy"], abs=1e-6)
    assert found["loss"] == pytest.approx(wanted["average_loss"], abs=1e-5)
    adopted = record["adopted"]
    assert (adopted["vouched_by"], adopted["step"], adopted["fresh"]) == ("Ann Lee", 200, [])
    assert set(adopted["files"]) == {"model.ckpt-200.index", "model.ckpt-200.data-00000-of-00001"}
    signature = json.loads((old.path / "models/iris/old/seed-0/model.ckpt-200.json").read_text())
    assert signature["provenance"]["adopted"]["vouched_by"] == "Ann Lee"

    ours = tf.train.load_checkpoint(str(old.path / "models/iris/old/seed-0/model.ckpt-200"))
    theirs = tf.train.load_checkpoint(str(ESTIMATOR / "model.ckpt-200"))
    value = "/.ATTRIBUTES/VARIABLE_VALUE"
    rows = [2, 3, 0, 1]  # petal_length, petal_width, sepal_length, sepal_width
    for group, mine, other in (
        ("variables", "hidden_0/kernel", "dnn/hiddenlayer_0/kernel"),
        ("optimizer", "adagrad/hidden_0_kernel_accumulator", "training/Adagrad/dnn/hiddenlayer_0/kernel/accumulator"),
    ):
        assert np.array_equal(ours.get_tensor(f"{group}/{mine}{value}"), theirs.get_tensor(other)[rows])
    assert int(ours.get_tensor(f"optimizer/adagrad/iteration{value}")) == 200

    longer = old.expmgr("run", "iris/old", "--max-steps", "250")
    assert (longer.code, "resumes at step 200, to step 250" in longer.stderr) == (0, True), longer.stderr
    again = old.expmgr("adopt", str(ESTIMATOR), "--as", "iris/old", "--vouch", "Ann Lee")
    assert (again.code, "has checkpoints already" in again.stderr) == (1, True)


@pytest.mark.slow
def test_nobody_vouches(old: Repo) -> None:
    before = left(old)
    result = old.expmgr("adopt", str(ESTIMATOR), "--as", "iris/old")
    assert result.code == 1
    assert "What the checkpoint does not say, and somebody has to vouch for:\n" in result.stdout
    assert result.stderr == (
        "Error: a checkpoint made elsewhere needs somebody who stands for what it does not say\n"
        "Nothing was changed.\n"
        'Hint: the same command with --vouch "Your Name"; the name is recorded\n'
    )
    assert left(old) == before


@pytest.mark.wide
def test_what_does_not_fit_is_refused_with_both_sides(old: Repo) -> None:
    old.expmgr("new", "iris/wide", "--set", "model.hidden_units=[20, 20]")
    before = left(old)
    result = old.expmgr("adopt", str(ESTIMATOR), "--as", "iris/wide", "--vouch", "Ann Lee")
    assert result.code == 3
    assert "  hidden_0/kernel   saved (4, 10)   wanted float32 (4, 20)\n" in result.stderr
    assert left(old) == before


@pytest.mark.slow
def test_a_checkpoint_of_tensorflow_1_s_kind(old: Repo) -> None:
    """Variables of a partitioner, and Adagrad's slots under other names."""
    folder = ROOT / "tests/data/estimator_v1_iris"
    result = old.expmgr("adopt", str(folder), "--as", "iris/old", "--vouch", "Ann Lee", "--json")
    assert result.code == 0, result.stderr
    record = json.loads(old.expmgr("show", "iris/old:0", "--json").stdout)
    wanted = json.loads((folder / "eval.json").read_text())
    found = record["metrics"]["selected"]["eval"]
    assert found["accuracy"] == pytest.approx(wanted["accuracy"], abs=1e-6)
    assert found["loss"] == pytest.approx(wanted["average_loss"], abs=1e-6)
    assert (record["adopted"]["fresh"], record["adopted"]["step"]) == ([], 300)


@pytest.mark.slow
def test_a_lost_state_file_is_no_guess(old: Repo, tmp_path: Path) -> None:
    copied = tmp_path / "elsewhere"
    shutil.copytree(ESTIMATOR, copied)
    (copied / "checkpoint").unlink()
    for end in ("index", "data-00000-of-00001"):
        shutil.copyfile(copied / f"model.ckpt-200.{end}", copied / f"model.ckpt-100.{end}")
    refused = old.expmgr("adopt", str(copied), "--as", "iris/old", "--vouch", "Ann Lee")
    assert (refused.code, "does not say which of its checkpoints is the newest" in refused.stderr) == (3, True)
    nothing = old.expmgr("adopt", str(tmp_path), "--as", "iris/old", "--vouch", "Ann Lee")
    assert (nothing.code, "holds no checkpoint of TensorFlow" in nothing.stderr) == (1, True)
    chosen = old.expmgr("adopt", str(copied), "--step", "200", "--as", "iris/old", "--vouch", "Ann Lee", "--json")
    assert chosen.code == 0, chosen.stderr
    assert json.loads(chosen.stdout)["adopted"]["step"] == 200


@pytest.mark.slow
def test_a_keras_model_s_checkpoint(old: Repo, tmp_path: Path) -> None:
    """Object-based: the names that its object graph gives to variables, or the user's own word."""
    import keras
    import numpy as np
    import tensorflow as tf

    keras.backend.clear_session()
    keras.utils.set_random_seed(7)
    layers = [keras.layers.Dense(10, "relu", name=f"hidden_{number}") for number in range(2)]
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(3, name="out")])
    tf.train.Checkpoint(model=model).write(str(tmp_path / "ckpt-40"))
    refused = old.expmgr("adopt", str(tmp_path), "--as", "iris/old", "--vouch", "Ann Lee")
    assert (refused.code, "logits/kernel   saved nothing" in refused.stderr) == (3, True), refused.stderr
    assert "it holds sequential/hidden_0/kernel" in refused.stderr
    maps = [part for end in ("kernel", "bias") for part in ("--map", f"sequential/out/{end}=logits/{end}")]
    result = old.expmgr("adopt", str(tmp_path), "--as", "iris/old", "--vouch", "Ann Lee", *maps, "--json")
    assert result.code == 0, result.stderr
    reader = tf.train.load_checkpoint(str(old.path / "models/iris/old/seed-0/model.ckpt-40"))
    for path, variable in (("hidden_1/kernel", layers[1].kernel), ("logits/kernel", model.layers[-1].kernel)):
        found = reader.get_tensor(f"variables/{path}/.ATTRIBUTES/VARIABLE_VALUE")
        assert np.array_equal(found, variable.numpy())
