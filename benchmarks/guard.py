"""What the guard costs, against restoring the checkpoint in the same run: for iris, a ResNet-50 and 1 GB of weights.

    python benchmarks/guard.py [--large]

`check, unchanged` is what `expmgr check` does where nothing moved: manifest, signature, index; no TensorFlow, no weight.
`--large` adds the model of 1 GB (3 GB of memory, 1 GB of disk).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from expmgr.checkpoints.manifest import CheckpointMetadata
from expmgr.checkpoints.model_dir import ModelDir
from expmgr.guard.judge import judge
from expmgr.train.model import checkpoints
from expmgr.train.signature.live import contract_of_arrays, setup_of, signature_of


def iris() -> Any:
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(10, "relu")(keras.layers.Dense(10, "relu")(inputs))
    return keras.Model(inputs, keras.layers.Dense(3)(hidden))


def resnet() -> Any:
    return keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3))


def large() -> Any:
    inputs = keras.Input((1024,))
    outputs = inputs
    for _ in range(16):
        outputs = keras.layers.Dense(4096)(keras.layers.Dense(4096, use_bias=False)(outputs))
        outputs = keras.layers.Dense(1024, use_bias=False)(outputs)
    return keras.Model(inputs, outputs)


def took(what: Callable[[], Any], repeat: int = 3) -> float:
    """The best of some runs, in seconds."""
    best = float("inf")
    for _ in range(repeat):
        began = time.perf_counter()
        what()
        best = min(best, time.perf_counter() - began)
    return best


def measure(name: str, build: Callable[[], Any]) -> None:
    began = time.perf_counter()
    model = build()
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    built_s = time.perf_counter() - began
    shapes = (model.input_shape[1:], model.output_shape[1:])
    rows = tuple(np.zeros((2, *shape), "float32") for shape in shapes)
    contract = contract_of_arrays(rows, rows)
    began = time.perf_counter()
    signature = signature_of(model, rows, contract, setup_of(model))
    traced_s = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as root:
        folder = ModelDir(Path(root) / "v" / "seed-0", shown="m", variant="e/v", seed=0)
        folder.prepare(0.0)
        began = time.perf_counter()
        folder.save(0, lambda prefix: checkpoints.write(model, 0, prefix), signature, CheckpointMetadata(0.0, 0))
        saved_s = time.perf_counter() - began
        copied_s = took(lambda: (checkpoints.is_finite(model), checkpoints.copies(model)), 1)
        prefix = folder.path / "model.ckpt-0"
        size = sum(path.stat().st_size for path in folder.path.glob("model.ckpt-0.data*"))
        reader = tf.train.Checkpoint(model=model)
        other = str(Path(root) / "native")
        reader.write(other)
        restore_s = took(lambda: reader.read(other).expect_partial())
        check_s = took(lambda: folder.inspect(thorough=False))
        judge_s = took(lambda: judge(signature, signature))
        ours_s = took(lambda: checkpoints.restore(model, prefix, shown="it", signature=signature), 1)
        kilobytes = (prefix.with_name("model.ckpt-0.json")).stat().st_size / 1000
    print(
        f"| {name} | {len(model.weights)} | {size / 1e6:,.0f} MB | {kilobytes:.0f} KB | {built_s:.2f} s | {traced_s:.2f} s "
        f"| {restore_s * 1000:,.0f} ms | {check_s * 1000:.1f} ms | {check_s / restore_s:.3f} | {judge_s * 1000:.1f} ms "
        f"| {ours_s / restore_s:.1f} | {saved_s:.2f} s | {copied_s:.2f} s |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--large", action="store_true")
    asked = parser.parse_args()
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}, {os.cpu_count()} cores\n")
    print(
        "| model | variables | weights | signature | build | two traces | TF restores | check, unchanged | check / restore "
        "| judge | our restore / TF's | save | of that training waits |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    )
    iris().predict(np.zeros((1, 4), "float32"), verbose=0)  # what the first model pays for all
    measure("iris", iris)
    measure("ResNet-50", resnet)
    if asked.large:
        measure("1 GB", large)


if __name__ == "__main__":
    main()
