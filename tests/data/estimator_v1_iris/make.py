"""The guide's model, trained by an Estimator of TensorFlow 1's kind: how the files beside this one were made, with
TensorFlow 2.15.1's `tf.compat.v1.estimator`.

`python make.py iris_training.csv iris_test.csv MODEL_DIR`; kept of it are the newest checkpoint and `eval.json`.
"""

import csv
import json
import sys

import tensorflow as tf

SPECIES = ["setosa", "versicolor", "virginica"]


def read(path):
    with open(path) as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name != "species"]
    return {name: [float(row[name]) for row in rows] for name in names}, [SPECIES.index(row["species"]) for row in rows]


def batches(data, training):
    dataset = tf.data.Dataset.from_tensor_slices((dict(data[0]), data[1]))
    if training:
        dataset = dataset.shuffle(200, seed=1).repeat()
    return dataset.batch(100)


train, evaluated = read(sys.argv[1]), read(sys.argv[2])
estimator = tf.compat.v1.estimator.DNNClassifier(
    hidden_units=[10, 10],
    feature_columns=[tf.feature_column.numeric_column(name) for name in train[0]],
    n_classes=3,
    model_dir=sys.argv[3],
    config=tf.estimator.RunConfig(tf_random_seed=1, save_summary_steps=None),
)
estimator.train(lambda: batches(train, True), steps=300)
result = estimator.evaluate(lambda: batches(evaluated, False))
with open(f"{sys.argv[3]}/eval.json", "w") as file:
    json.dump({name: float(value) for name, value in result.items()}, file, indent=1)
