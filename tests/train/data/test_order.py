"""What the worker has TensorFlow compute comes out the same each time, to the last bit."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from world import ROOT

pytestmark = pytest.mark.tf

#: The example's own model evaluated twenty times over, on the device as the loop does it: its test step adds three terms.
EVALUATED = """
import sys
from expmgr.train import worker
worker.import_tensorflow()
import keras, numpy as np, tensorflow as tf
sys.path.insert(0, "experiments/bars-vae")
import data, model
keras.utils.set_random_seed(1)
vae = model.build_model({"latent": 4, "hidden": 64})
rows = tf.constant(data.evaluation())
vae(rows[:2])
draw = np.random.default_rng(0)
for variable in vae.trainable_variables:
    variable.assign(draw.normal(size=variable.shape).astype("float32") * 0.3)

def batch(number):
    vae.test_step(rows[number * 64 : tf.minimum(number * 64 + 64, len(rows))])
    return number + 1

evaluate = tf.function(
    lambda: tf.while_loop(lambda number: number < 7, batch, (tf.constant(0),), parallel_iterations=1), autograph=False
)
found = set()
for _ in range(20):
    for metric in vae.metrics:
        metric.reset_state()
    evaluate()
    found.add(tuple(float(metric.total.numpy()).hex() for metric in vae.metrics))
print(len(found))
"""


@pytest.mark.wide
def test_a_sum_of_three_terms_is_the_same_in_every_evaluation() -> None:
    # Where its inputs race, twenty evaluations find two or three values in most processes.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", EVALUATED], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "1"
