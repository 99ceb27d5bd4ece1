"""Steps a second of our training loop, beside `keras.Model.fit` of the same model in the same process, beside
TensorFlow 2.15's Estimator (`EXPMGR_ESTIMATOR_PYTHON` names an interpreter that has it), and beside a bare loop."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from expmgr.data import csvdata
from expmgr.spec.yaml_file import read_spec
from expmgr.train.data.datasets import Batches, Rows, csv_rows
from expmgr.train.loop.loop import InnerLoop, Listener, Loop
from expmgr.train.loop.schedule import Interval, Schedule
from expmgr.train.model.premade import build_model

ROOT = Path(__file__).parents[1]
REPEAT = 7
IRIS_STEPS, CONVOLUTION_STEPS, SLOW_STEPS = 2000, 120, 15
Train = Callable[[], float]


def timed(steps: int, train: Callable[[], Any]) -> float:
    """Steps a second."""
    began = time.perf_counter()
    train()
    return steps / (time.perf_counter() - began)


def loop_of(model: Any, rows: Any, batch_size: int, steps: int) -> Train:
    """Our loop with its defaults: a point and a line of the log every 100 steps."""
    inner = InnerLoop(model, Batches(rows, batch_size=batch_size, seed=0, shuffle=True))
    inner.trace()

    def train() -> None:
        schedule = Schedule(
            saved_step=0,
            max_steps=steps,
            checkpoints=Interval(None, 600),
            summaries=Interval(100),
            logs=Interval(100),
            clock=time.monotonic,
        )
        Loop(
            model=model,
            inner=inner,
            schedule=schedule,
            listener=Listener(),
            is_stopped=lambda: False,
            clock=time.monotonic,
            step=0,
            position=0,
        ).run()

    return lambda: timed(steps, train)


def fit_of(model: Any, data: Any, batch_size: int, rows: int, steps: int) -> Train:
    """`fit` as its guide writes it: shuffled, batched, prefetched."""
    batches = tf.data.Dataset.from_tensor_slices(data).shuffle(rows, seed=0).repeat().batch(batch_size)
    batches = batches.prefetch(tf.data.AUTOTUNE)
    return lambda: timed(steps, lambda: model.fit(batches, steps_per_epoch=steps, epochs=1, verbose=0))


def first_step(make: Callable[[], Train]) -> float:
    """Seconds from the import on until one step is trained: the model is built, the loop traced."""
    began = time.perf_counter()
    make()()
    return time.perf_counter() - began


def iris_once() -> Train:
    folder = ROOT / "experiments" / "iris"
    spec = read_spec((folder / "spec.yaml").read_bytes(), "spec.yaml", "iris")
    data = csvdata.load(spec.data, is_classifier=True, experiment_dir=folder, root=ROOT)
    rows = csv_rows(data.splits["train"], data.features, data.labels)
    return loop_of(build_model(spec, data.features, data.labels, 0), rows, spec.data.batch_size, 1)


def medians(trains: Mapping[str, Train], repeat: int = REPEAT) -> dict[str, float]:
    """Each in turn, the first time not counted: it traces."""
    taken: dict[str, list[float]] = {name: [] for name in trains}
    for number in range(repeat + 1):
        for name, train in trains.items():
            found = train()
            if number:
                taken[name].append(found)
    return {name: statistics.median(values) for name, values in taken.items()}


def iris() -> dict[str, Train]:
    folder = ROOT / "experiments" / "iris"
    spec = read_spec((folder / "spec.yaml").read_bytes(), "spec.yaml", "iris")
    data = csvdata.load(spec.data, is_classifier=True, experiment_dir=folder, root=ROOT)
    ours, plain = (build_model(spec, data.features, data.labels, 0) for _ in range(2))
    rows = csv_rows(data.splits["train"], data.features, data.labels)
    split = data.splits["train"]
    columns = {name: np.asarray(values, "float32") for name, values in split.columns.items()}
    found = {
        "expmgr": loop_of(ours, rows, spec.data.batch_size, IRIS_STEPS),
        "fit": fit_of(plain, (columns, np.asarray(split.targets)), spec.data.batch_size, 120, IRIS_STEPS),
    }
    interpreter = os.environ.get("EXPMGR_ESTIMATOR_PYTHON")
    if interpreter:
        process = subprocess.Popen(
            [interpreter, str(Path(__file__).with_name("estimator.py")), str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

        def estimator() -> float:
            assert process.stdin
            assert process.stdout
            process.stdin.write("\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        found["Estimator"] = estimator
    return found


def convolution(batch_size: int) -> dict[str, Train]:
    """The usual one for 28 x 28 pictures, on as many random ones as a tenth of MNIST."""
    draw = np.random.default_rng(0)
    inputs = draw.random((6000, 28, 28, 1), dtype="float32")
    targets = draw.integers(0, 10, 6000).astype("int32")

    def model() -> Any:
        made = keras.Sequential(
            [
                keras.Input((28, 28, 1)),
                keras.layers.Conv2D(32, 3, activation="relu"),
                keras.layers.MaxPooling2D(),
                keras.layers.Conv2D(64, 3, activation="relu"),
                keras.layers.MaxPooling2D(),
                keras.layers.Flatten(),
                keras.layers.Dense(10),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        made.compile("adam", loss, metrics=["accuracy"], jit_compile=False)
        made.optimizer.build(made.trainable_variables)
        return made

    bare, batch = model(), (tf.constant(inputs[:batch_size]), tf.constant(targets[:batch_size]))

    @tf.function
    def same_batch(steps: Any) -> None:
        """The step alone, of one batch again and again, in a loop on the device: no loop can be faster."""
        for _ in tf.range(steps):
            bare.train_step(batch)

    return {
        "expmgr": loop_of(model(), Rows((tf.constant(inputs), tf.constant(targets))), batch_size, CONVOLUTION_STEPS),
        "fit": fit_of(model(), (inputs, targets), batch_size, 6000, CONVOLUTION_STEPS),
        "the step alone": lambda: timed(CONVOLUTION_STEPS, lambda: same_batch(tf.constant(CONVOLUTION_STEPS))),
    }


def slow() -> dict[str, Train]:
    """A step of about 100 ms on two cores, in our loop and in the barest one that there is."""
    draw = np.random.default_rng(0)
    inputs, targets = draw.random((512, 1024), dtype="float32"), draw.random((512, 1), dtype="float32")

    def model() -> Any:
        layers = [keras.layers.Dense(1024, activation="relu") for _ in range(12)]
        made = keras.Sequential([keras.Input((1024,)), *layers, keras.layers.Dense(1)])
        made.compile("sgd", "mse", jit_compile=False)
        made.optimizer.build(made.trainable_variables)
        return made

    plain, batch = model(), (tf.constant(inputs[:256]), tf.constant(targets[:256]))
    step = tf.function(lambda: plain.train_step(batch))

    def bare() -> None:
        for _ in range(SLOW_STEPS):
            step()["loss"].numpy()

    return {
        "expmgr": loop_of(model(), Rows((tf.constant(inputs), tf.constant(targets))), 256, SLOW_STEPS),
        "bare loop": lambda: timed(SLOW_STEPS, bare),
    }


def main() -> None:
    versions = f"TensorFlow {tf.__version__}, Keras {keras.__version__}, Python {sys.version.split()[0]}"
    print(f"first step of iris, after TensorFlow is imported: {first_step(iris_once):.2f} s")
    print(f"steps a second, median of {REPEAT} interleaved, {os.cpu_count()} cores, {versions}")
    for what, make in (
        (f"iris [10, 10], batch 100, {IRIS_STEPS} steps", iris),
        (f"convolution, 28 x 28, batch 32 (fit's own), {CONVOLUTION_STEPS} steps", lambda: convolution(32)),
        (f"convolution, 28 x 28, batch 64, {CONVOLUTION_STEPS} steps", lambda: convolution(64)),
        (f"a slow step, {SLOW_STEPS} of them", slow),
    ):
        print(f"\n{what}")
        found = medians(make())
        for name, value in found.items():
            ratio = "" if name == "expmgr" else f"   expmgr {found['expmgr'] / value:5.2f} x"
            print(f"  {name:14} {value:9,.1f}{ratio}")


if __name__ == "__main__":
    main()
