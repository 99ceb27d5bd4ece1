"""What a model computes, as a hash of its graph."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf

from expmgr.train.signature.fingerprint import Traced, trace_inference


def traced(dtype: str, units: int = 4) -> Traced:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(units, activation="relu", dtype=dtype)])
    return trace_inference(model, tf.TensorSpec((None, 3), tf.float32))


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_a_model_of_another_precision_is_the_same_but_for_the_width_of_its_numbers(dtype: str) -> None:
    assert traced(dtype).digest != traced("float32").digest
    assert traced(dtype).blind == traced("float32").blind
    assert traced(dtype, units=5).blind != traced("float32").blind
