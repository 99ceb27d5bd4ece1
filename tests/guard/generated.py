"""Models drawn by hypothesis from many kinds of layers, and every single change of a layer's setting.

A model is a list of (kind, settings); the same list builds the same model, with the same names and starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from hypothesis import strategies as st
from keras import layers


@dataclass(frozen=True)
class Kind:
    """A kind of layer: its settings, and other values that each may have. `rank` is that of what it takes."""

    make: Callable[..., Any]
    rank: int
    settings: dict[str, Any] = field(default_factory=dict)
    others: dict[str, list[Any]] = field(default_factory=dict)
    gives: int | None = None
    """Rank of what it gives, where that is another."""


class Scale(layers.Layer):
    """A layer of one's own: what it computes follows from `by` and `power`."""

    def __init__(self, by: float = 2.0, power: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.by, self.power = by, power

    def build(self, shape: Any) -> None:
        self.gain = self.add_weight(shape=(shape[-1],), initializer="ones", name="gain")

    def call(self, inputs: Any) -> Any:
        return self.by * inputs**self.power * self.gain

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "by": self.by, "power": self.power}


ACTIVATIONS = ["relu", "tanh", "sigmoid", "linear"]

KINDS = {
    "dense": Kind(layers.Dense, 2, {"units": 4, "activation": "relu"}, {"activation": ACTIVATIONS, "use_bias": [False]}),
    "activation": Kind(layers.Activation, 2, {"activation": "tanh"}, {"activation": ACTIVATIONS}),
    "leaky": Kind(layers.LeakyReLU, 2, {"negative_slope": 0.2}, {"negative_slope": [0.5]}),
    "elu": Kind(layers.ELU, 2, {"alpha": 1.0}, {"alpha": [0.5]}),
    "softmax": Kind(layers.Softmax, 2),
    "layer_norm": Kind(layers.LayerNormalization, 2, {"epsilon": 1e-3}, {"epsilon": [0.5], "center": [False]}),
    "batch_norm": Kind(layers.BatchNormalization, 2, {"epsilon": 1e-3}, {"epsilon": [0.5], "scale": [False]}),
    "unit_norm": Kind(layers.UnitNormalization, 2),
    "group_norm": Kind(layers.GroupNormalization, 2, {"groups": 2}, {"groups": [1, 4], "epsilon": [0.5]}),
    "rescaling": Kind(layers.Rescaling, 2, {"scale": 0.5}, {"scale": [0.25], "offset": [1.0]}),
    "scale": Kind(Scale, 2, {"by": 2.0, "power": 1}, {"by": [3.0], "power": [2]}),
    "split": Kind(layers.Reshape, 2, {"target_shape": (4, 1)}, {}, gives=3),
    "rnn": Kind(layers.SimpleRNN, 3, {"units": 4}, {"activation": ["relu"], "go_backwards": [True]}, gives=2),
    "lstm": Kind(layers.LSTM, 3, {"units": 4},
                 {"activation": ["relu"], "recurrent_activation": ["tanh"], "go_backwards": [True]}, gives=2),
    "gru": Kind(layers.GRU, 3, {"units": 4}, {"recurrent_activation": ["tanh"], "go_backwards": [True]}, gives=2),
    "bidirectional": Kind(lambda **kwargs: layers.Bidirectional(layers.LSTM(2, name="cell"), **kwargs), 3,
                          {"merge_mode": "concat"}, {"merge_mode": ["sum", "mul"]}, gives=2),
    "conv1d": Kind(layers.Conv1D, 3, {"filters": 4, "kernel_size": 3, "padding": "same"},
                   {"padding": ["valid", "causal"], "strides": [2], "dilation_rate": [2], "activation": ["relu"]}),
    "separable1d": Kind(layers.SeparableConv1D, 3, {"filters": 4, "kernel_size": 2, "padding": "same"},
                        {"padding": ["valid"], "activation": ["tanh"]}),
    "transposed1d": Kind(layers.Conv1DTranspose, 3, {"filters": 4, "kernel_size": 2, "padding": "same"},
                         {"padding": ["valid"], "activation": ["tanh"]}),
    "pool1d": Kind(layers.MaxPooling1D, 3, {"pool_size": 2, "padding": "same"}, {"strides": [1]}),
    "average1d": Kind(layers.AveragePooling1D, 3, {"pool_size": 2, "padding": "same"}, {"strides": [1]}),
    "attention": Kind(lambda **kwargs: _SelfAttention(**kwargs), 3, {"num_heads": 2, "key_dim": 2},
                      {"use_bias": [False]}),
    "distributed": Kind(lambda activation="relu", **kwargs: layers.TimeDistributed(
        layers.Dense(4, activation=activation, name="each"), **kwargs), 3, {}, {"activation": ["tanh"]}),
    "global_average": Kind(layers.GlobalAveragePooling1D, 3, gives=2),
    "global_max": Kind(layers.GlobalMaxPooling1D, 3, gives=2),
    "flatten": Kind(layers.Flatten, 3, gives=2),
    "permute": Kind(layers.Permute, 3, {"dims": (2, 1)}, {}),
    "image": Kind(layers.Reshape, 2, {"target_shape": (2, 2, 1)}, {}, gives=4),
    "conv2d": Kind(layers.Conv2D, 4, {"filters": 3, "kernel_size": 2, "padding": "same"},
                   {"padding": ["valid"], "dilation_rate": [2], "activation": ["relu"]}),
    "depthwise": Kind(layers.DepthwiseConv2D, 4, {"kernel_size": 2, "padding": "same"},
                      {"padding": ["valid"], "activation": ["tanh"]}),
    "transposed2d": Kind(layers.Conv2DTranspose, 4, {"filters": 2, "kernel_size": 2, "padding": "same"},
                         {"activation": ["tanh"]}),
    "pool2d": Kind(layers.MaxPooling2D, 4, {"pool_size": 2, "padding": "same"}, {"strides": [1]}),
    "flat_image": Kind(layers.GlobalAveragePooling2D, 4, gives=2),
    "dropout": Kind(layers.Dropout, 2, {"rate": 0.3}, {"rate": [0.5]}),
    "noise": Kind(layers.GaussianNoise, 2, {"stddev": 0.1}, {"stddev": [0.5]}),
}  # fmt: skip


class _SelfAttention(layers.Layer):
    def __init__(self, num_heads: int, key_dim: int, use_bias: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = layers.MultiHeadAttention(num_heads, key_dim, use_bias=use_bias, name="inner")

    def call(self, rows: Any) -> Any:
        return self.inner(rows, rows)


Plan = list[tuple[str, dict[str, Any]]]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Two to five layers that fit one another; the last gives a vector."""
    plan: Plan = []
    rank = 2
    for _ in range(draw(st.integers(2, 5))):
        name = draw(st.sampled_from([name for name, kind in KINDS.items() if kind.rank == rank]))
        plan.append((name, dict(KINDS[name].settings)))
        rank = KINDS[name].gives or rank
    if rank != 2:
        plan.append(("flatten" if rank == 3 else "flat_image", {}))
    return plan


def build(plan: Plan) -> Any:
    """A compiled model on four numbers a row, every start drawn anew from one seed."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    inputs = keras.Input((4,), name="rows")
    # Groups, reshapes and pools need the width that the kinds are written for.
    outputs = inputs
    for number, (name, settings) in enumerate(plan):
        if KINDS[name].rank == 2 and outputs.shape[-1] != 4:
            outputs = layers.Dense(4, name=f"fit_{number}")(outputs)
        outputs = KINDS[name].make(name=f"{name}_{number}", **settings)(outputs)
    model = keras.Model(inputs, layers.Dense(2, name="out")(outputs), name="model")
    model.compile("adam", "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


def mutations(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """Every plan that differs from `plan` in one setting, and what was changed."""
    for number, (name, settings) in enumerate(plan):
        for key, values in KINDS[name].others.items():
            for value in values:
                if settings.get(key) != value:
                    changed = [*plan]
                    changed[number] = (name, {**settings, key: value})
                    yield f"{name}_{number}.{key}={value}", changed


def rows() -> tuple[Any, Any]:
    draw = np.random.default_rng(5)
    return draw.normal(size=(16, 4)).astype("float32"), draw.normal(size=(16, 2)).astype("float32")
