"""People's own code: models and data of every usual kind go through training, a stop, and the doors, as premade do."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from train.runs import Site, Trained, WorkerProcess, spec_of, tree, weights

np = pytest.importorskip("numpy")

pytestmark = pytest.mark.tf

ARRAYS = """
import numpy as np

def _rows(count, start=0):
    x = np.random.default_rng(7).normal(size=(200, 4)).astype("float32")
    y = (x.sum(axis=1) > 0).astype("int32") + (x[:, 0] > 1)
    return x[start:start + count], y[start:start + count]

def train(params):
    return _rows(params.get("rows", 90))

def evaluation(path=None):
    return _rows(40, 100) if path is None else _rows(int(open(path).read()), 100)

def unlabelled(path):
    return _rows(int(open(path).read()), 100)[0]
"""

DATASET = (
    ARRAYS
    + """
import tensorflow as tf

def _stream(rows):
    return tf.data.Dataset.from_tensor_slices(rows)

def train_stream(batch_size, seed):
    noisy = lambda x, y: (x + 0.01 * tf.random.stateless_normal(tf.shape(x), (1, 2)), y)
    return _stream(_rows(90)).shuffle(50, seed=seed).map(noisy, num_parallel_calls=2).batch(batch_size).prefetch(2)

def eval_stream(batch_size):
    return _stream(_rows(40, 100)).batch(batch_size)

def generated(batch_size):
    def rows():
        yield from zip(*_rows(90))
    spec = (tf.TensorSpec((4,), tf.float32), tf.TensorSpec((), tf.int64))
    return tf.data.Dataset.from_generator(rows, output_signature=spec).batch(batch_size)

def endless(batch_size):
    return _stream(_rows(90)).repeat().batch(batch_size)
"""
)

PYDATASET = (
    ARRAYS
    + """
import keras

class Rows(keras.utils.PyDataset):
    def __init__(self, rows, batch_size):
        super().__init__()
        self.rows, self.batch_size = rows, batch_size

    def __len__(self):
        return -(-len(self.rows[0]) // self.batch_size)

    def __getitem__(self, number):
        part = slice(number * self.batch_size, (number + 1) * self.batch_size)
        return self.rows[0][part], self.rows[1][part]

def train_batches(batch_size):
    return Rows(_rows(90), batch_size)

def eval_batches(batch_size):
    return Rows(_rows(40, 100), batch_size)
"""
)

MODEL = """
import keras

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

def plain(params):
    layers = [keras.Input((4,)), keras.layers.Dense(params.get("units", 8), params.get("activation", "relu")),
              keras.layers.Dropout(0.2), keras.layers.BatchNormalization(), keras.layers.Dense(3)]
    return keras.Sequential(layers)

def compiled(params):
    model = plain(params)
    model.compile(keras.optimizers.Adam(0.01), loss=LOSS, metrics=["accuracy"])
    return model

def eager(params):
    model = plain(params)
    model.compile("adam", loss=LOSS, metrics=["accuracy"], run_eagerly=True)
    return model
"""

VAE = """
import keras
import tensorflow as tf

class Vae(keras.Model):
    def __init__(self):
        super().__init__()
        self.encoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(4)])
        self.decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(4)])
        self.seeds = keras.random.SeedGenerator(3)
        self.total = keras.metrics.Mean(name="loss")

    @property
    def metrics(self):
        return [self.total]

    def call(self, x, training=None):
        mean, logvar = tf.split(self.encoder(x), 2, axis=1)
        z = mean
        if training:
            z = mean + tf.exp(0.5 * logvar) * keras.random.normal(tf.shape(mean), seed=self.seeds)
        return self.decoder(z)

    def _loss(self, x, training):
        return tf.reduce_mean(tf.square(x - self(x, training=training)))

    def train_step(self, data):
        x = data[0]
        with tf.GradientTape() as tape:
            loss = self._loss(x, True)
        self.optimizer.apply_gradients(zip(tape.gradient(loss, self.trainable_variables), self.trainable_variables))
        self.total.update_state(loss)
        return {"loss": self.total.result(), "last": loss}

    def test_step(self, data):
        self.total.update_state(self._loss(data[0], False))
        return {"loss": self.total.result()}

def build(params):
    model = Vae()
    model.compile(keras.optimizers.Adam(0.01))
    return model
"""

TWO_OPTIMIZERS = """
import keras
import tensorflow as tf

class Pair(keras.Model):
    def __init__(self):
        super().__init__()
        self.first = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
        self.second = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
        self.first_optimizer = keras.optimizers.Adam(0.01)
        self.second_optimizer = keras.optimizers.Adam(0.02)

    def call(self, x):
        return self.second(self.first(x))

    def train_step(self, data):
        for part, optimizer in ((self.first, self.first_optimizer), (self.second, self.second_optimizer)):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(data[0] - self(data[0])))
            optimizer.apply_gradients(zip(tape.gradient(loss, part.trainable_variables), part.trainable_variables))
        return {"loss": loss}

    def test_step(self, data):
        return {"loss": tf.reduce_mean(tf.square(data[0] - self(data[0])))}

def build(params):
    model = Pair()
    model.compile()
    return model
"""

SEVERAL = """
import keras
import numpy as np
import tensorflow as tf

def _rows(count):
    draw = np.random.default_rng(1)
    words = np.array(["red fish", "blue", "red", "one fish"])[draw.integers(0, 4, count)]
    numbers = draw.normal(size=(count, 2)).astype("float32")
    targets = {"kind": draw.integers(0, 2, count), "size": draw.normal(size=(count, 1)).astype("float32")}
    return {"words": words, "numbers": numbers}, targets

def train(batch_size):
    return tf.data.Dataset.from_tensor_slices(_rows(60)).shuffle(60).batch(batch_size, drop_remainder=True)

def evaluation():
    return _rows(20)

def build(params):
    words = keras.Input((), dtype="string", name="words")
    numbers = keras.Input((2,), name="numbers")
    lookup = keras.layers.TextVectorization(output_mode="multi_hot", vocabulary=params["words"])
    both = keras.layers.Concatenate()([lookup(words), numbers])
    outputs = {"kind": keras.layers.Dense(2, "softmax", name="kind")(both), "size": keras.layers.Dense(1, name="size")(both)}
    return keras.Model({"words": words, "numbers": numbers}, outputs)
"""

ADAM = {"kind": "adam", "learning_rate": 0.01}
LOSS = {"use": "SparseCategoricalCrossentropy", "params": {"from_logits": True}}
PLAIN = {"optimizer": ADAM, "loss": LOSS, "metrics": ["accuracy"]}


@dataclass
class Kind:
    """An experiment in code."""

    code: dict[str, str]
    build: str
    train: str = "data:train"
    evaluation: str = "data:evaluation"
    parts: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    is_exact: bool = True

    def spec(self, **changes: Any) -> dict[str, Any]:
        from expmgr.spec.experiment import ExperimentSpec

        about: dict[str, Any] = {
            "experiment": "tiny",
            "data": {"kind": "python", "train": self.train, "eval": self.evaluation, "batch_size": 8, **self.data},
            "model": {"kind": "python", "build": self.build, **self.model},
            "train": {"max_steps": 20},
            "run_config": {"save_checkpoints_steps": 5, "save_summary_steps": 5, "log_step_count_steps": 5},
            **self.parts,
        }
        return ExperimentSpec.model_validate({**about, **changes}).resolved()

    def ask(self, site: Site, spec: dict[str, Any] | None = None, **how: Any) -> Any:
        return site.ask(spec or self.spec(), code=self.code, **how)


OF_ARRAYS = {"data.py": ARRAYS, "model.py": MODEL}
OF_DATASETS = {"data.py": DATASET, "model.py": MODEL}
KINDS = {
    "arrays": Kind(
        OF_ARRAYS, "model:plain", parts=PLAIN, data={"predict": "data:unlabelled", "labels": ["a", "b", "c"]}
    ),
    "compiled, Dataset": Kind(OF_DATASETS, "model:compiled", "data:train_stream", "data:eval_stream"),
    "endless Dataset": Kind(OF_DATASETS, "model:compiled", "data:endless", "data:eval_stream"),
    "generator": Kind(OF_DATASETS, "model:compiled", "data:generated", "data:eval_stream", is_exact=False),
    "PyDataset": Kind(
        {"data.py": PYDATASET, "model.py": MODEL}, "model:compiled", "data:train_batches", "data:eval_batches"
    ),
    "eager": Kind(OF_ARRAYS, "model:eager"),
    "own train_step": Kind({"data.py": ARRAYS, "model.py": VAE}, "model:build"),
    "two optimizers": Kind({"data.py": ARRAYS, "model.py": TWO_OPTIMIZERS}, "model:build"),
    "several inputs and outputs": Kind(
        {"data.py": SEVERAL, "model.py": SEVERAL},
        "model:build",
        parts={
            "optimizer": ADAM,
            "loss": {"kind": "sparse_categorical_crossentropy", "size": "mse"},
            "metrics": {"kind": ["accuracy"]},
            "loss_weights": {"kind": 1.0, "size": 0.5},
        },
        model={"params": {"words": ["red", "fish", "blue"]}},
    ),
}


#: Those that the everyday suite takes; the others are as slow as they are rare.
EVERYDAY = {"compiled, Dataset"}
SOME = [pytest.param(name, marks=[] if name in EVERYDAY else [pytest.mark.slow]) for name in KINDS]


def done(worker: WorkerProcess, folder: Any) -> Trained:
    found = worker.run(folder)
    assert found.status == 0, (found.events[-1].get("error"), found.log[-3000:])
    return found


@pytest.mark.parametrize("name", SOME)
def test_a_run_that_was_stopped_goes_on_bit_for_bit(name: str, site: Site, worker: WorkerProcess) -> None:
    kind = KINDS[name]
    whole = done(worker, kind.ask(site, variant="tiny/whole"))
    done(worker, kind.ask(site, variant="tiny/parts", max_steps=13))
    parts = done(worker, kind.ask(site, variant="tiny/parts"))
    one, two = (weights(site.model_dir(f"tiny/{side}"), 20) for side in ("whole", "parts"))
    assert one.keys() == two.keys()
    told = parts.one("ready")["not_exact"]
    assert parts.one("ready")["probe"] == "as saved"
    assert parts.one("ended")["metrics"]["last"]["eval"].keys() == whole.one("ended")["metrics"]["last"]["eval"].keys()
    if not kind.is_exact:
        assert len(told) == 1
        assert "calls Python" in told[0]
        return
    eager = ["the model runs eagerly: what its Python keeps to itself, no checkpoint holds"]
    assert told == (eager if name == "eager" else [])
    for key in one:
        if key != "pipeline":
            assert np.array_equal(one[key], two[key]), key
    assert parts.one("ended")["metrics"] == whole.one("ended")["metrics"]
    assert parts.one("ended")["examples_seen"] == whole.one("ended")["examples_seen"]
    assert parts.curve("train")[-1] == whole.curve("train")[-1]


@pytest.mark.wide
@pytest.mark.parametrize("name", SOME)
def test_it_is_asked_and_the_guard_says_same(name: str, site: Site, worker: WorkerProcess, tmp_path: Path) -> None:
    kind = KINDS[name]
    ended = done(worker, kind.ask(site, max_steps=10)).one("ended")
    judged = done(worker, kind.ask(site, mode="check", candidates=True)).one("judged")
    assert judged["judgement"]["verdict"] == "same"
    before = tree(site.path / "models")
    asked = done(worker, kind.ask(site, mode="check", ask={"what": "evaluate"})).one("judged")
    assert asked["metrics"] == pytest.approx(ended["metrics"]["last"]["eval"])
    done(worker, kind.ask(site, mode="check", ask={"what": "export", "output": str(tmp_path / "out")}))
    assert (tmp_path / "out" / "saved_model.pb").is_file()
    assert tree(site.path / "models") == before


def test_params_in_force_are_recorded_and_those_that_nobody_asked_for_named(site: Site, worker: WorkerProcess) -> None:
    kind = Kind(OF_ARRAYS, "model:compiled", model={"params": {"untis": 4, "activation": "tanh"}})
    ready = done(worker, kind.ask(site, max_steps=2)).one("ready")
    assert ready["unread"] == ["model.params.untis"]
    assert ready["params"]["model.params.units"] == 8
    assert ready["params"]["model.params.activation"] == "tanh"
    assert ready["params"]["model.params.untis"] == 4


@pytest.mark.wide
def test_a_file_is_evaluated_and_predicted_by_functions_that_name_its_path(
    site: Site, worker: WorkerProcess, tmp_path: Path
) -> None:
    kind = KINDS["arrays"]
    done(worker, kind.ask(site, max_steps=5))
    (tmp_path / "rows.txt").write_text("7")
    about = {"what": "evaluate", "data": str(tmp_path / "rows.txt")}
    assert done(worker, kind.ask(site, mode="check", ask=about)).one("judged")["rows"] == 7
    for end in ("csv", "jsonl"):
        about = {"what": "predict", "data": str(tmp_path / "rows.txt"), "output": str(tmp_path / f"out.{end}")}
        assert done(worker, kind.ask(site, mode="check", ask=about)).one("judged")["rows"] == 7
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [*lines[0]] == ["prediction", "p_a", "p_b", "p_c"]
    assert sum(lines[0][f"p_{label}"] for label in "abc") == pytest.approx(1, abs=1e-5)
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == "prediction,p_a,p_b,p_c"


REFUSED = {
    "activation": ({"model__params": {"activation": "tanh"}}, {}, "activation"),
    "width": ({"model__params": {"units": 9}}, {}, "variables"),
    "labels": ({"data__labels": ["b", "a", "c"]}, {}, "labels"),
    "training rows": ({"data__params": {"rows": 80}}, {}, "data"),
    "code": (
        {},
        {"model.py": MODEL.replace("keras.layers.Dense(3)]", "keras.layers.Dense(3), keras.layers.Softmax()]")},
        "architecture",
    ),
    "data code": ({}, {"data.py": ARRAYS.replace('astype("float32")', 'astype("float32") * 2')}, "data"),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "code" else [pytest.mark.wide]) for name in REFUSED],
)
def test_what_does_not_fit_is_refused_and_no_byte_moves(name: str, site: Site, worker: WorkerProcess) -> None:
    changes, code, rule = REFUSED[name]
    kind = KINDS["arrays"]
    done(worker, kind.ask(site, max_steps=5))
    spec = kind.spec()
    for key, value in changes.items():
        part, _, last = key.partition("__")
        spec[part][last] = value
    before = tree(site.path / "models")
    found = worker.run(site.ask(spec, code={**kind.code, **code}))
    assert found.status == 3, found.log[-2000:]
    assert tree(site.path / "models") == before
    judged = worker.run(site.ask(spec, code={**kind.code, **code}, mode="check", candidates=True)).one("judged")
    assert rule in {one["rule"] for one in judged["judgement"]["differences"]}


BROKEN = {
    "raises": (
        MODEL.replace("    return keras.Sequential(layers)", "    return keras.Sequentail(layers)"),
        "model.py:9, in plain",
    ),
    "no model": (MODEL.replace("    return keras.Sequential(layers)", "    pass"), "gives NoneType, not a keras.Model"),
    "in a step": (
        MODEL.replace("keras.Sequential(layers)", "Own(layers)")
        + "\nclass Own(keras.Sequential):\n    def train_step(self, data):\n        return missing_name\n",
        "in train_step",
    ),
    "a condition that fit does not take either": (
        MODEL.replace("keras.Sequential(layers)", "Own(layers)") + "\nclass Own(keras.Sequential):\n"
        "    def train_step(self, data):\n        if data[0][0, 0] > 0:\n            return super().train_step(data)\n",
        "in train_step",
    ),
    "wrong shape": (MODEL.replace("keras.Input((4,))", "keras.Input((5,))"), "does not take the first rows"),
    "tf.Variable": (
        MODEL.replace("keras.layers.Dropout(0.2)", "Scale()")
        + "\nimport tensorflow as tf\nclass Scale(keras.layers.Layer):\n    def __init__(self):\n        super().__init__()\n"
        "        self.scale = tf.Variable(1.0)\n    def call(self, x):\n        return x * self.scale\n",
        "Scale.scale",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_errors_in_the_user_s_code_show_its_own_lines(name: str, site: Site, worker: WorkerProcess) -> None:
    text, told = BROKEN[name]
    found = worker.run(site.ask(KINDS["arrays"].spec(), code={"data.py": ARRAYS, "model.py": text}))
    assert found.status == 1, found.log[-3000:]
    error = found.events[-1]["error"]
    story = "\n".join([error["message"], *error["details"]])
    assert told in story, story
    assert "site-packages" not in story
    assert not (site.path / "models").exists()


def test_files_that_a_function_reads_count_by_their_content(worker: WorkerProcess, site: Site) -> None:
    code = {
        "model.py": "import keras\n\n\ndef build():\n    m = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])\n"
        "    m.compile('sgd', 'mse')\n    return m\n",
        "data.py": "import numpy as np\nimport tensorflow as tf\n\n\ndef rows(files):\n    x = np.loadtxt(files['rows'])\n"
        "    return tf.data.Dataset.from_tensor_slices((x[:, :2], x[:, 2:])).batch(2)\n\n\n"
        "def evaluation():\n    return np.ones((4, 2)), np.ones((4, 1))\n",
    }
    data = {"kind": "python", "train": "data:rows", "eval": "data:evaluation", "files": {"rows": "rows.txt"}}
    about = spec_of(data=data, model={"kind": "python", "build": "model:build"}, optimizer=None)
    first = worker.run(site.ask(about, code={**code, "rows.txt": "1 2 3\n4 5 6\n"}, max_steps=5))
    assert first.status == 0, first.log
    assert first.one("ready")["data"]["files.rows"]["path"] == "rows.txt"
    other = worker.run(site.ask(about, code={**code, "rows.txt": "1 2 3\n4 5 7\n"}))
    assert other.status == 3  # batches of the same shape, which nothing else would tell apart
    assert "files.rows" in other.one("withdrawn")["error"]["details"][0]
