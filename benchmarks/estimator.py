"""Iris by TensorFlow 2.15's Estimator with its defaults: run by `steps.py` and `process.py` with another interpreter.

`--once DIR`: train 2,000 steps in DIR and end, as a script would. Without: for each line on stdin train once more, and
print the steps a second that it made once it was running.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import csv
import sys
import tempfile
import time

STEPS, WARM_UP, BATCH = 2000, 200, 100


def main(folder, once):
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    with open(os.path.join(folder, "iris_training.csv"), encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name != "species"]
    words = sorted({row["species"] for row in rows})
    columns = {name: [float(row[name]) for row in rows] for name in names}
    labels = [words.index(row["species"]) for row in rows]

    def batches():
        data = tf.data.Dataset.from_tensor_slices((columns, labels))
        return data.shuffle(1000).repeat().batch(BATCH)

    class Clock(tf.estimator.SessionRunHook):
        count, began, ended = 0, 0.0, 0.0

        def after_run(self, run_context, run_values):
            self.count += 1
            if self.count == WARM_UP:
                self.began = time.perf_counter()
            elif self.count == WARM_UP + STEPS:
                self.ended = time.perf_counter()

    def estimator(model_dir):
        numeric = [tf.feature_column.numeric_column(name) for name in names]
        return tf.estimator.DNNClassifier([10, 10], numeric, model_dir=model_dir, n_classes=3)

    if once:
        estimator(once).train(batches, max_steps=STEPS)
        return
    for _ in sys.stdin:
        clock = Clock()
        with tempfile.TemporaryDirectory() as model_dir:
            estimator(model_dir).train(batches, hooks=[clock], max_steps=WARM_UP + STEPS)
        print(STEPS / (clock.ended - clock.began), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[3] if "--once" in sys.argv else None)
