"""`expmgr.save` and `expmgr.restore`, as a notebook calls them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import expmgr
from expmgr.errors import CheckpointRefused
from train.runs import Site, WorkerProcess, spec_of

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
keras = pytest.importorskip("keras")

pytestmark = pytest.mark.tf

ROWS = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
TRAIN = (ROWS[:30], (ROWS[:30, 0] > 0).astype("int32"))
EVAL = (ROWS[30:], (ROWS[30:, 0] > 0).astype("int32"))
DATA = {"train": TRAIN, "evaluated": EVAL, "features": "abcd", "labels": ["no", "yes"]}


def model(activation: str = "relu", units: int = 8, rate: float = 0.01, compiled: bool = True) -> Any:
    keras.backend.clear_session()
    keras.utils.set_random_seed(1)
    made = keras.Sequential(
        [
            keras.Input((4,), name="rows"),
            keras.layers.Dense(units, activation, name="hidden"),
            keras.layers.Dense(2, name="logits"),
        ],
        name="model",
    )
    if compiled:
        made.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return made


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    trained = model()
    trained.fit(*TRAIN, epochs=2, verbose=0)
    expmgr.save(trained, tmp_path / "model.ckpt-2", step=2, **DATA)
    np.save(tmp_path / "outputs.npy", trained(EVAL[0]).numpy())
    return tmp_path / "model.ckpt-2"


def outputs(checkpoint: Path) -> Any:
    return np.load(checkpoint.with_name("outputs.npy"))


def test_a_round_trip(checkpoint: Path) -> None:
    again = model()
    judgement = expmgr.restore(again, checkpoint, **DATA)
    assert (judgement.verdict.value, judgement.differences) == ("same", ())
    assert np.array_equal(again(EVAL[0]).numpy(), outputs(checkpoint))
    assert int(again.optimizer.iterations.numpy()) == 2


def test_a_model_that_is_only_asked_needs_no_data_and_no_optimizer(checkpoint: Path) -> None:
    asked = model(compiled=False)
    judgement = expmgr.restore(asked, checkpoint)
    assert judgement.verdict.value == "same"
    assert judgement.notes == ("no data was given: what the model is asked has to be what it was trained on",)
    assert np.array_equal(asked(EVAL[0]).numpy(), outputs(checkpoint))
    other = model(rate=0.5)
    assert expmgr.restore(other, checkpoint).verdict.value == "same"
    assert int(other.optimizer.iterations.numpy()) == 0


@pytest.mark.parametrize(
    ("changed", "data", "told"),
    [
        ({"activation": "tanh"}, DATA, "model/hidden.activation   saved relu   wanted tanh   (rule activation)"),
        ({"activation": "tanh"}, {}, "model/hidden.activation   saved relu   wanted tanh   (rule activation)"),
        ({"units": 9}, DATA, "hidden/kernel   saved float32 (4, 8)   wanted float32 (4, 9)   (rule variables)"),
        ({}, {**DATA, "labels": ["yes", "no"]}, "labels   saved ['no', 'yes']   wanted ['yes', 'no']   (rule labels)"),
        ({}, {**DATA, "evaluated": (EVAL[0] * 2, EVAL[1]), "train": TRAIN}, None),
        ({}, {**DATA, "train": (TRAIN[0] * 2, TRAIN[1])}, "(rule data)"),
    ],
)
def test_what_does_not_fit_changes_no_weight(checkpoint: Path, changed: Any, data: Any, told: str | None) -> None:
    made = model(**changed)
    before = [value.copy() for value in made.get_weights()]
    if told is None:
        assert expmgr.restore(made, checkpoint, **data).verdict.value == "resume"
        return
    with pytest.raises(CheckpointRefused) as caught:
        expmgr.restore(made, checkpoint, **data)
    assert any(told in line for line in caught.value.details), caught.value.details
    assert all(np.array_equal(one, two) for one, two in zip(before, made.get_weights(), strict=True))
    rules = [one for one in ("activation", "labels", "data") if f"rule {one})" in str(caught.value.details)]
    if rules:
        assert expmgr.restore(made, checkpoint, allow=rules, **data).verdict.value == "resume"


def test_a_missing_signature_is_no_yes(checkpoint: Path) -> None:
    checkpoint.with_name("model.ckpt-2.json").unlink()
    with pytest.raises(CheckpointRefused, match=r"its signature model\.ckpt-2\.json is missing"):
        expmgr.restore(model(), checkpoint, **DATA)


def test_a_checkpoint_of_a_run(worker: WorkerProcess, site: Site) -> None:
    """The model that a notebook builds in the way of the spec is the one that was trained."""
    from expmgr.train.building import build

    worker.run(site.ask(spec_of()))
    built = build(site.ask(spec_of()))
    assert expmgr.restore(built.model, site.model_dir()).verdict.value == "same"
    other = build(site.ask(spec_of(model__activation="tanh")))
    with pytest.raises(CheckpointRefused):
        expmgr.restore(other.model, site.model_dir())


def test_the_package_itself_imports_no_tensorflow() -> None:
    code = (
        "import expmgr, sys; assert 'tensorflow' not in sys.modules; expmgr.restore; assert 'tensorflow' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


UNTRACEABLE = """
import keras

class Gate(keras.layers.Layer):
    \"\"\"Looks at values, which no graph can.\"\"\"
    def build(self, shape):
        self.gain = self.add_weight(shape=(), initializer="ones", name="gain")

    def call(self, rows):
        # by hand
        if float(keras.ops.sum(rows)) > 0:
            return rows * self.gain
        return rows * 2
"""


def gated(folder: Path, source: str) -> Any:
    """A model with a layer of that source, in a module of its own."""
    import importlib.util

    path = folder / "gate.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("gate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gate"] = module
    spec.loader.exec_module(module)
    keras.backend.clear_session()

    class Model(keras.Model):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.gate = module.Gate(name="gate")

        def call(self, rows: Any) -> Any:
            return self.gate(rows)

    made = Model(name="model")
    made(ROWS[:2])
    made.compile("sgd", "mse", run_eagerly=True)
    return made


def test_code_that_cannot_be_traced_is_known_by_its_syntax(tmp_path: Path) -> None:
    data = {"train": (ROWS, ROWS)}
    expmgr.save(gated(tmp_path, UNTRACEABLE), tmp_path / "model.ckpt-0", **data)
    other_words = (
        UNTRACEABLE.replace("# by hand", "# why not").replace("Looks at", "Sees").replace("rows * 2", "(rows  *  2)")
    )
    found = expmgr.restore(gated(tmp_path, other_words), tmp_path / "model.ckpt-0", **data)
    assert found.verdict.value == "same"
    assert any("cannot be traced" in note and "its code decides" in note for note in found.notes), found.notes
    with pytest.raises(CheckpointRefused) as caught:
        expmgr.restore(gated(tmp_path, UNTRACEABLE.replace("rows * 2", "rows * 3")), tmp_path / "model.ckpt-0", **data)
    assert any("(rule code)" in line for line in caught.value.details), caught.value.details


def test_a_signature_that_speaks_of_another_checkpoint_is_no_yes(checkpoint: Path, tmp_path: Path) -> None:
    """The index is read before TensorFlow reads it: the weights of ten units under the signature of eight."""
    wider = model(units=10)
    expmgr.save(wider, tmp_path / "wider", train=TRAIN)
    checkpoint.with_name("wider.json").write_bytes(checkpoint.with_name("model.ckpt-2.json").read_bytes())
    again = model()
    before = [value.copy() for value in again.get_weights()]
    with pytest.raises(CheckpointRefused) as caught:
        expmgr.restore(again, tmp_path / "wider", **DATA)
    assert caught.value.message.endswith("was not restored: its signature is not that of its files")
    assert [line.partition(": ")[2] for line in caught.value.details[:1]] == [
        "float32 (10) in the checkpoint, float32 (8) in its signature"
    ]
    assert all(np.array_equal(one, two) for one, two in zip(before, again.get_weights(), strict=True))


class Lookup(keras.layers.Layer):  # type: ignore[misc]
    """A table of one's own: its content stands in no variable, no configuration and no graph."""

    def __init__(self, values: list[float]) -> None:
        super().__init__(name="lookup")
        import tensorflow as tf

        start = tf.lookup.KeyValueTensorInitializer([0, 1], values, tf.int64, tf.float32)
        self.table = tf.lookup.StaticHashTable(start, 0.0)

    def call(self, inputs: Any) -> Any:
        import tensorflow as tf

        return inputs * self.table.lookup(tf.cast(inputs[:, :1] > 0, tf.int64))

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


class BesideTheGraph(keras.layers.Layer):  # type: ignore[misc]
    def call(self, inputs: Any) -> Any:
        import tensorflow as tf

        found = tf.numpy_function(lambda array: array * 2, [inputs], tf.float32)
        found.set_shape(inputs.shape)
        return found

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


def with_layer(layer: Any) -> Any:
    inputs = keras.Input((4,), name="rows")
    outputs = keras.layers.Dense(2, name="logits")(layer(keras.layers.Dense(4, name="hidden")(inputs)))
    made = keras.Model(inputs, outputs)
    made.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return made


def test_the_content_of_a_table_counts(tmp_path: Path) -> None:
    expmgr.save(with_layer(Lookup([1.0, 2.0])), tmp_path / "model", **DATA)
    assert expmgr.restore(with_layer(Lookup([1.0, 2.0])), tmp_path / "model", **DATA).verdict.value == "same"
    with pytest.raises(CheckpointRefused, match="was not restored"):
        expmgr.restore(with_layer(Lookup([2.0, 1.0])), tmp_path / "model", **DATA)


def test_python_beside_the_graph_is_known_by_its_code(tmp_path: Path) -> None:
    expmgr.save(with_layer(BesideTheGraph()), tmp_path / "model", **DATA)
    judgement = expmgr.restore(with_layer(BesideTheGraph()), tmp_path / "model", **DATA)
    assert judgement.verdict.value == "same"
    assert "its code decides" in judgement.notes[0]


def test_a_model_that_a_notebook_builds_twice_is_the_same(tmp_path: Path) -> None:
    """Keras numbers what has no name: dense_1, adam_1."""

    def plain() -> Any:
        made = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)])
        made.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return made

    first = plain()
    first.fit(*TRAIN, verbose=0)
    expmgr.save(first, tmp_path / "model", **DATA)
    again = plain()
    assert expmgr.restore(again, tmp_path / "model", **DATA).verdict.value == "same"
    assert int(again.optimizer.iterations.numpy()) == int(first.optimizer.iterations.numpy()) > 0
    assert all(np.array_equal(*pair) for pair in zip(first.get_weights(), again.get_weights(), strict=True))
    slots = [[one.numpy() for one in model.optimizer.variables] for model in (first, again)]
    assert all(np.array_equal(*pair) for pair in zip(*slots, strict=True))
