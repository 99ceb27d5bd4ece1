"""Steps a second of our training loop on iris, beside plain `keras.Model.fit` of the same model in the same process."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from expmgr import csvdata
from expmgr.specfile import read_spec
from expmgr.train.datasets import Batches, Rows
from expmgr.train.loop import InnerLoop, Loop
from expmgr.train.models import build_model
from expmgr.train.schedule import Interval, Schedule

ROOT = Path(__file__).parents[1]
STEPS, REPEAT = 2000, 7


class Nobody:
    """Who is told of points, log lines and checkpoints, and does nothing with them."""

    def block_ended(self, step: int, block_steps: int, took_s: float) -> None: ...

    def summary_is_due(self, step: int, values: Mapping[str, float]) -> None: ...

    def log_is_due(self, step: int) -> None: ...

    def checkpoint_is_due(self, step: int, position: int) -> None: ...


def main() -> None:
    folder = ROOT / "experiments" / "iris"
    spec = read_spec((folder / "spec.yaml").read_bytes(), "spec.yaml", "iris")
    data = csvdata.load(spec.data, is_classifier=True, experiment_dir=folder, root=ROOT)

    ours = build_model(spec, data.features, data.labels, 0)
    rows = Rows(data.splits["train"], data.features, data.labels)
    inner = InnerLoop(ours, Batches(rows, batch_size=spec.data.batch_size, seed=0, shuffle=True))
    inner.trace()

    def loop() -> None:
        config = spec.run_config
        schedule = Schedule(
            saved_step=0,
            max_steps=STEPS,
            checkpoints=Interval(None, config.save_checkpoints_secs),
            summaries=Interval(config.save_summary_steps),
            logs=Interval(config.log_step_count_steps),
            clock=time.monotonic,
        )
        Loop(
            model=ours,
            inner=inner,
            schedule=schedule,
            listener=Nobody(),
            is_stopped=lambda: False,
            clock=time.monotonic,
            step=0,
            position=0,
            batch_size=spec.data.batch_size,
        ).run()

    split = data.splits["train"]
    columns = {name: np.asarray(values, "float32") for name, values in split.columns.items()}
    plain = build_model(spec, data.features, data.labels, 0)
    batches = tf.data.Dataset.from_tensor_slices((columns, np.asarray(split.targets))).shuffle(120, seed=0).repeat()
    batches = batches.batch(spec.data.batch_size).prefetch(tf.data.AUTOTUNE)

    def fit() -> None:
        plain.fit(batches, steps_per_epoch=STEPS, epochs=1, verbose=0)

    taken: dict[str, list[float]] = {"expmgr": [], "fit": []}
    for number in range(REPEAT + 1):
        for what, train in (("expmgr", loop), ("fit", fit)):
            start = time.perf_counter()
            train()
            if number:  # the first time traces
                taken[what].append(STEPS / (time.perf_counter() - start))
    one, two = (statistics.median(taken[what]) for what in ("expmgr", "fit"))
    versions = f"TensorFlow {tf.__version__}, Keras {keras.__version__}, Python {sys.version.split()[0]}"
    print(
        f"iris, hidden_units [10, 10], batch 100, {STEPS} steps, median of {REPEAT}, {os.cpu_count()} cores, {versions}"
    )
    print(f"expmgr's loop, a point every 100 steps {one:8,.0f} steps/s")
    print(f"keras.Model.fit                        {two:8,.0f} steps/s")
    print(f"ratio                                  {one / two:8.2f}")


if __name__ == "__main__":
    main()
