"""What a stop must not lose, and what may hide behind a change that is let through: cases that a review found."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from train.runs import Site, Trained, WorkerProcess, spec_of, weights

pytestmark = pytest.mark.tf

HEAD = """
import keras, tensorflow as tf, numpy as np
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
"""
DATA = """
import numpy as np
def _rows(count, start=0):
    x = np.random.default_rng(7).normal(size=(200, 4)).astype("float32")
    y = (x.sum(axis=1) > 0).astype("int32") + (x[:, 0] > 1)
    return x[start:start + count], y[start:start + count]
def train(): return _rows(90)
def evaluation(path=None): return _rows(40, 100)
"""
PLAIN = """
def build(params):
    m = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])
    m.compile(keras.optimizers.Adam(0.01), loss=LOSS, metrics=["accuracy"])
    return m
"""
OWN_STEP = """
class M(keras.Model):
    def __init__(self, rate):
        super().__init__()
        self.d, self.o = keras.layers.Dense(8, "relu"), keras.layers.Dense(3)
        self.drop = keras.layers.Dropout(rate)
    def call(self, x, training=None):
        return self.o(self.drop(self.d(x), training=training))
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = SIGN * LOSS(y, self(x, training=True))
        found = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, found), found))
        return {"loss": loss}
    def test_step(self, data):
        return {"loss": LOSS(data[1], self(data[0], training=False))}
def build(params):
    m = M(RATE)
    m.compile(keras.optimizers.Adam(SPEED), loss=LOSS)
    return m
"""
TWO_HEADS = """
class M(keras.Model):
    def __init__(self):
        super().__init__()
        self.d, self.o = keras.layers.Dense(8, "relu"), keras.layers.Dense(3)
        self.one, self.two = keras.layers.Dense(1, name="one"), keras.layers.Dense(1, name="two")
        self.one.build((None, 8))
        self.two.build((None, 8))
    def call(self, x, training=None):
        return self.o(self.d(x))
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            f = self.d(x)
            loss = LOSS(y, self.o(f)) + tf.reduce_mean((self.FIRST(f) - x[:, :1])**2)
            loss += tf.reduce_mean((self.SECOND(f) - 10.0)**2)
        found = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, found), found))
        return {"loss": loss}
    def test_step(self, data):
        return {"loss": LOSS(data[1], self(data[0], training=False))}
def build(params):
    m = M()
    m.compile(keras.optimizers.Adam(0.01), loss=LOSS)
    return m
"""
RANDOM_FEATURES = """
class Features(keras.layers.Layer):
    def call(self, x):
        return tf.cos(x @ keras.random.normal((4, 32), seed=SEED))
def build(params):
    m = keras.Sequential([keras.Input((4,)), Features(), keras.layers.Dense(3)])
    m.compile(keras.optimizers.Adam(0.01), loss=LOSS, metrics=["accuracy"])
    return m
"""
MASKED = """
class Mask(keras.layers.Layer):
    def call(self, x):
        return tf.concat([x, tf.fill([tf.shape(x)[0], 1], float("-inf"))], 1)
def build(params):
    m = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3), Mask()])
    m.compile(keras.optimizers.Adam(0.01), loss=LOSS, metrics=["accuracy"])
    return m
"""
DROPOUT = """
def build(params):
    layers = [keras.layers.Dense(8, "relu"), keras.layers.Dropout(0.3, name="NAME"), keras.layers.Dense(3)]
    m = keras.Sequential([keras.Input((4,)), *layers])
    m.compile(keras.optimizers.Adam(0.01), loss=LOSS, metrics=["accuracy"])
    return m
"""
OWN_SCHEDULE = """
class Warm(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.01 * tf.minimum(1.0, tf.cast(step, tf.float32) / 10.0)
def build(params):
    m = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])
    m.compile(keras.optimizers.Adam(Warm()), loss=LOSS, metrics=["accuracy"])
    return m
"""
GLOBAL_SEED = """
class Noisy(keras.layers.Layer):
    def call(self, x, training=None):
        return x + 0.1 * keras.random.normal(tf.shape(x)) if training else x
def build(params):
    m = keras.Sequential([keras.Input((4,)), Noisy(), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])
    m.compile(keras.optimizers.Adam(0.01), loss=LOSS, metrics=["accuracy"])
    return m
"""
OPTIMIZERS = """
class M(keras.Model):
    def __init__(self):
        super().__init__()
        self.d, self.o = keras.layers.Dense(8, "relu"), keras.layers.Dense(3)
        self.by_name = {"d": keras.optimizers.Adam(0.01), "o": keras.optimizers.Adam(0.02)}
    def call(self, x, training=None):
        return self.o(self.d(x))
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = LOSS(y, self(x, training=True))
        d, o = self.d.trainable_variables, self.o.trainable_variables
        gd, go = tape.gradient(loss, [d, o])
        self.by_name["d"].apply_gradients(zip(gd, d))
        self.by_name["o"].apply_gradients(zip(go, o))
        return {"loss": loss}
def build(params):
    m = M()
    m.compile(keras.optimizers.SGD(0.01), loss=LOSS)
    m(np.zeros((1, 4), "float32"))
    m.by_name["d"].build(m.d.trainable_variables)
    m.by_name["o"].build(m.o.trainable_variables)
    return m
"""
EAGER = PLAIN.replace('metrics=["accuracy"]', 'metrics=["accuracy"], run_eagerly=True')
AUGMENTED = (
    DATA
    + """
import keras
class Rows(keras.utils.PyDataset):
    def __init__(self, rows, b):
        super().__init__()
        self.rows, self.b = rows, b
    def __len__(self):
        return -(-len(self.rows[0]) // self.b)
    def __getitem__(self, n):
        p = slice(n * self.b, (n + 1) * self.b)
        x = self.rows[0][p]
        return x + np.random.normal(0, 0.1, x.shape).astype("float32"), self.rows[1][p]
def train(batch_size):
    return Rows(_rows(90), batch_size)
"""
)
SAMPLED = """
class M(keras.Model):
    def __init__(self):
        super().__init__()
        self.d, self.o = keras.layers.Dense(8, "relu"), keras.layers.Dense(3)
        self.noise = keras.random.SeedGenerator(3)
    def call(self, x, training=None):
        return self.o(self.d(x + 0.1 * keras.random.normal(tf.shape(x), seed=self.noise)))
def build(params):
    m = M()
    m.compile(keras.optimizers.Adam(0.01), loss=LOSS, metrics=["accuracy"])
    return m
"""


def spec(**changes: Any) -> dict[str, Any]:
    data = {"kind": "python", "train": "data:train", "eval": "data:evaluation", "batch_size": 8}
    return spec_of(**{"data": data, "model": {"kind": "python", "build": "model:build"}, "optimizer": None, **changes})


def with_values(text: str, **values: str) -> dict[str, str]:
    for name, value in values.items():
        text = text.replace(name, value)
    return {"model.py": HEAD + text}


def two(
    worker: WorkerProcess, site: Site, one: dict[str, str], other: dict[str, str], about: dict[str, Any] | None = None
) -> Trained:
    """Trained 10 steps with `one`, taken up to 20 with `other`."""
    first = worker.run(site.ask(about or spec(), code={"data.py": DATA, **one}, max_steps=10))
    assert first.status == 0, first.log
    return worker.run(site.ask(about or spec(), code={"data.py": DATA, **other}))


def refused_by(run: Trained) -> str:
    assert run.status == 3, run.log
    return str(run.one("withdrawn")["error"]["hint"])


# One change hides no other.


@pytest.mark.parametrize(
    "values",
    [
        {"RATE": "0.2", "SPEED": "0.01"},
        pytest.param({"RATE": "0.1", "SPEED": "0.005"}, marks=pytest.mark.slow),
        pytest.param({"RATE": "0.1", "SPEED": "0.01"}, marks=pytest.mark.slow),
    ],
)
def test_another_training_step_is_seen_beside_a_harmless_change(
    worker: WorkerProcess, site: Site, values: dict[str, str]
) -> None:
    """Dropout or the learning rate changed as well: neither says why the loss is negated."""
    run = two(
        worker,
        site,
        with_values(OWN_STEP, SIGN="1.0", RATE="0.1", SPEED="0.01"),
        with_values(OWN_STEP, SIGN="-1.0", **values),
    )
    assert "--allow training-code" in refused_by(run)


@pytest.mark.slow
def test_the_harmless_change_alone_is_let_through(worker: WorkerProcess, site: Site) -> None:
    about = {"SIGN": "1.0", "RATE": "0.1"}
    run = two(worker, site, with_values(OWN_STEP, SPEED="0.01", **about), with_values(OWN_STEP, SPEED="0.005", **about))
    assert run.status == 0, run.log
    assert [one["rule"] for one in run.one("ready")["changes"]] == ["optimizer-setting"]


@pytest.mark.slow
def test_heads_of_training_alone_that_change_places_are_refused(worker: WorkerProcess, site: Site) -> None:
    run = two(
        worker, site, with_values(TWO_HEADS, FIRST="one", SECOND="two"), with_values(TWO_HEADS, FIRST="two", SECOND="one"),
        spec(probe="off"),
    )  # fmt: skip
    assert "--allow role" in refused_by(run)


def test_a_constant_seed_of_the_forward_pass_counts(worker: WorkerProcess, site: Site) -> None:
    run = two(
        worker, site, with_values(RANDOM_FEATURES, SEED="1"), with_values(RANDOM_FEATURES, SEED="2"), spec(probe="off")
    )
    assert "--allow computation" in refused_by(run)


# What a checkpoint has to keep.


def legs(worker: WorkerProcess, site: Site, code: dict[str, str], about: dict[str, Any]) -> tuple[list[str], Trained]:
    """Variables that differ between a run left alone and one stopped at step 13; and the second attempt."""
    code = {"data.py": DATA, **code}
    assert worker.run(site.ask(about, variant="tiny/alone", code=code)).status == 0
    assert worker.run(site.ask(about, variant="tiny/parts", code=code, max_steps=13)).status == 0
    rest = worker.run(site.ask(about, variant="tiny/parts", code=code))
    assert rest.status == 0, rest.log
    one, other = (weights(site.model_dir(name), 20) for name in ("tiny/alone", "tiny/parts"))
    assert one.keys() == other.keys()
    return [key for key in one if not np.array_equal(one[key], other[key])], rest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "word"),
    [(GLOBAL_SEED, "variables that the model does not know"), (OPTIMIZERS, "variables that the model does not know"),
     (EAGER, "runs eagerly")],
    ids=["global seed", "optimizers in a dict", "eager"],
)  # fmt: skip
def test_what_no_checkpoint_holds_is_said(worker: WorkerProcess, site: Site, code: str, word: str) -> None:
    _, rest = legs(worker, site, {"model.py": HEAD + code}, spec())
    assert any(word in line for line in rest.one("ready")["not_exact"])


@pytest.mark.parametrize(
    "code",
    [
        pytest.param({"model.py": HEAD + MASKED}, marks=pytest.mark.slow),
        pytest.param({"model.py": HEAD + OWN_SCHEDULE}, marks=pytest.mark.slow),
        pytest.param({"model.py": HEAD + PLAIN, "data.py": AUGMENTED}, marks=pytest.mark.slow),
    ],
    ids=["infinite outputs", "a schedule without get_config", "augmentation in __getitem__"],
)
def test_it_goes_on_bit_for_bit(worker: WorkerProcess, site: Site, code: dict[str, str]) -> None:
    differ, rest = legs(worker, site, code, spec())
    assert (differ, rest.one("ready")["not_exact"]) == ([], [])


@pytest.mark.slow
def test_a_renamed_dropout_goes_on_with_its_seed(worker: WorkerProcess, site: Site) -> None:
    code = [{"data.py": DATA, **with_values(DROPOUT, NAME=name)} for name in ("dropped", "noise")]
    assert worker.run(site.ask(spec(), variant="tiny/alone", code=code[1])).status == 0
    assert worker.run(site.ask(spec(), variant="tiny/parts", code=code[0], max_steps=13)).status == 0
    rest = worker.run(site.ask(spec(), variant="tiny/parts", code=code[1]))
    assert rest.status == 0, rest.log
    one, other = (weights(site.model_dir(name), 20) for name in ("tiny/alone", "tiny/parts"))
    assert [key for key in one if key.startswith("variables/") and not np.array_equal(one[key], other[key])] == []


@pytest.mark.slow
def test_evaluations_move_no_seed(worker: WorkerProcess, site: Site) -> None:
    """A model that draws whenever it is asked: with evaluations and without, the same weights."""
    code = {"data.py": DATA, "model.py": HEAD + SAMPLED}
    for name, plan in (("often", {"every_steps": 4}), ("never", {"at_end": False})):
        run = worker.run(site.ask(spec(eval=plan), variant=f"tiny/{name}", code=code))
        assert run.status == 0, run.log
    one, other = (weights(site.model_dir(f"tiny/{name}"), 20) for name in ("often", "never"))
    assert [key for key in one if key.startswith("variables/") and not np.array_equal(one[key], other[key])] == []


CALLBACKS = """
class Plateau(keras.callbacks.ReduceLROnPlateau):
    def __init__(self):
        super().__init__(monitor="loss", patience=1, factor=0.5, min_delta=10.0)
class Ends(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            self.model.stop_training = True
    def get_state(self):
        return {}
    def set_state(self, state):
        pass
class Best(keras.callbacks.EarlyStopping):
    def __init__(self):
        super().__init__(monitor="val_loss", patience=50, restore_best_weights=True)
"""


@pytest.mark.slow
def test_keras_own_callback_goes_on_counting(worker: WorkerProcess, site: Site) -> None:
    about = spec(callbacks=[{"use": "keras.callbacks:ReduceLROnPlateau",
                             "params": {"monitor": "loss", "patience": 1, "factor": 0.5, "min_delta": 10.0}}],
                 data={"kind": "python", "train": "data:train", "eval": "data:evaluation", "batch_size": 24})  # fmt: skip
    differ, rest = legs(worker, site, {"model.py": HEAD + PLAIN}, about)
    assert (differ, rest.one("ready")["not_exact"]) == ([], [])


@pytest.mark.slow
def test_a_callback_that_asked_for_the_end_is_not_forgotten(worker: WorkerProcess, site: Site) -> None:
    """The process died between the checkpoint and its last word."""
    data = {"kind": "python", "train": "data:train", "eval": "data:evaluation", "batch_size": 24}
    about = spec(callbacks=[{"use": "model:Ends"}], data=data)
    code = {"data.py": DATA, "model.py": HEAD + PLAIN + CALLBACKS}
    first = worker.run(site.ask(about, code=code))
    assert (first.one("ended")["step"], first.one("ended")["ended_early"]) == (4, "callback model:Ends asked for it")
    again = worker.run(site.ask(about, code=code))
    assert (again.one("ended")["step"], again.one("ended")["ended_early"]) == (4, "callback model:Ends asked for it")


@pytest.mark.slow
def test_the_record_s_metrics_are_those_of_the_checkpoint(worker: WorkerProcess, site: Site) -> None:
    """Whatever a callback makes of the weights at the end."""
    about = spec(
        callbacks=[{"use": "model:Best"}], eval={"every_steps": 4},
        data={"kind": "python", "train": "data:train", "eval": "data:evaluation", "test": "data:evaluation", "batch_size": 24},
    )  # fmt: skip
    code = {"data.py": DATA, "model.py": HEAD + PLAIN.replace("0.01", "0.5") + CALLBACKS}
    run = worker.run(site.ask(about, code=code))
    assert run.status == 0, run.log
    asked = worker.run(site.ask(about, code=code, ask={"what": "evaluate", "split": "test"}, mode="check"))
    assert asked.one("judged")["metrics"] == pytest.approx(run.one("ended")["metrics"]["last"]["test"])


def test_other_switches_that_move_bits_are_said(worker: WorkerProcess, site: Site) -> None:
    first = worker.run(site.ask(spec_of(), max_steps=10))
    assert first.status == 0
    again = worker.run(site.ask(spec_of(train__determinism=True)))
    assert again.one("ready")["not_exact"] == ["train.determinism was False, and is True"]


# Stopped in an evaluation.

SLOW = DATA.replace(
    "def evaluation(path=None): return _rows(40, 100)",
    """
import time
def evaluation():
    import tensorflow as tf
    def rows():
        x, y = _rows(40, 100)
        for at in range(0, 40, 8):
            time.sleep(0.3)
            yield x[at:at + 8], y[at:at + 8]
    spec = (tf.TensorSpec((None, 4), tf.float32), tf.TensorSpec((None,), tf.int64))
    return tf.data.Dataset.from_generator(rows, output_signature=spec).map(lambda x, y: (x, tf.cast(y, tf.int32)))
""",
)


@pytest.mark.slow
def test_a_signal_in_an_evaluation_saves_at_once_and_the_evaluation_is_made_up_for(
    worker: WorkerProcess, site: Site
) -> None:
    """With early stopping and a selection, which both go by it: as if there had been no stop."""
    about = spec(
        eval={"every_steps": 5}, selection={"metric": "accuracy"},
        train={"max_steps": 20, "early_stopping": {"metric": "loss", "patience": 50}},
    )  # fmt: skip
    code = {"data.py": SLOW, "model.py": HEAD + PLAIN.replace("Dense(8", "Dense(9")}
    # Its eval split is too small to be slow once it is held: let every batch of an evaluation take its time.
    code["model.py"] = code["model.py"].replace(
        "def build(params):", "class Slow(keras.Sequential):\n    def test_step(self, data):\n"
        "        tf.py_function(lambda: __import__('time').sleep(0.2) or 0, [], tf.int32)\n"
        "        return super().test_step(data)\ndef build(params):"
    ).replace("m = keras.Sequential(", "m = Slow(")  # fmt: skip
    alone = worker.run(site.ask(about, variant="tiny/alone", code=code))
    assert alone.status == 0, alone.log
    folder = site.ask(about, variant="tiny/parts", code=code)
    worker.start(folder)
    while True:  # until it evaluates at step 5 or later
        try:
            told = json.loads(folder.progress.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if told["phase"] == "evaluating" and told["step"] >= 5:
            break
    worker.say(stop=str(folder.path))
    stopped = worker.wait(folder)
    assert stopped.status == 75, stopped.log
    step = stopped.one("ended")["step"]
    assert step >= 5
    rest = worker.run(site.ask(about, variant="tiny/parts", code=code))
    assert rest.status == 0, rest.log
    manifests = [
        json.loads((site.model_dir(name) / "manifest.json").read_text(encoding="utf-8"))
        for name in ("tiny/alone", "tiny/parts")
    ]
    kept = [
        {one["step"]: (one["metrics"], one["carried"]) for one in manifest["checkpoints"] if one["step"] in (10, 20)}
        for manifest in manifests
    ]
    assert kept[0] == kept[1]
    assert manifests[0]["selected_step"] == manifests[1]["selected_step"]
    assert rest.one("ended")["metrics"] == alone.one("ended")["metrics"]
    points = dict(stopped.curve("eval")) | dict(rest.curve("eval"))
    assert points == dict(alone.curve("eval"))
