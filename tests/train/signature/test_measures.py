"""By what a model is evaluated, as digests."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from expmgr.train.signature.measures import measures_of


def closeness(targets: Any, outputs: Any) -> Any:
    return tf.reduce_mean(tf.abs(targets - outputs))


class Own(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.layer = keras.layers.Dense(1)

    def call(self, inputs: Any) -> Any:
        return self.layer(inputs)

    def test_step(self, data: Any) -> Any:
        return {"loss": tf.reduce_mean(self(data[0]))}


def model(units: int = 4, penalty: Any = None, **compiled: Any) -> Any:
    made = keras.Sequential([keras.Input((3,)), keras.layers.Dense(units, kernel_regularizer=penalty)])
    made.compile(**{"optimizer": "sgd", "loss": "mse", "metrics": ["mae"], **compiled})
    return made


def moved(one: Any, two: Any) -> set[str]:
    old, new = measures_of(one), measures_of(two)
    return {key for key in old if old[key] != new[key]}


def test_another_model_is_measured_the_same() -> None:
    assert moved(model(), model(8)) == set()
    assert moved(model(), model(optimizer="adam")) == set()
    first, second = (model(metrics=[keras.metrics.BinaryAccuracy()]) for _ in range(2))  # the second has another name
    assert moved(first, second) == set()
    assert measures_of(model())["steps"] == ""


def test_what_moves() -> None:
    half, most = (model(metrics=[keras.metrics.BinaryAccuracy(threshold=at)]) for at in (0.5, 0.7))
    assert moved(half, most) == {"metrics"}
    assert moved(model(), model(loss="mae")) == {"loss"}
    assert moved(model(), model(penalty="l2")) == {"loss"}
    assert moved(model(metrics=[closeness]), model(metrics=["mae"])) == {"metrics"}
    own = Own()
    own.compile("sgd", loss="mse", metrics=["mae"])
    assert moved(model(), own) == {"steps"}
