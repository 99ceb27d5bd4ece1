"""Changes to small models, each as two sides that differ in nothing but what its row says.

The rows are those that were tried one by one on TensorFlow's own restore; `right` is what may happen with a checkpoint
of the base in the changed model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

ROWS = 96
WORDS = 30


@dataclass
class Side:
    """A compiled model and the arrays that enter it."""

    model: Any
    train: tuple[Any, Any]
    eval: tuple[Any, Any]
    batch_size: int = 32
    seed: int = 0
    features: Sequence[str] | None = None
    labels: Sequence[str] | None = None


@dataclass(frozen=True)
class Case:
    """One row. `base` and `changed` build their side anew."""

    id: str
    title: str
    right: str
    base: Callable[[], Side]
    changed: Callable[[], Side]


# Data.


def split(inputs: Any, targets: Any, at: int = 0) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Two thirds to train on, one third to evaluate; `at` turns the rows first."""

    def cut(array: Any) -> tuple[Any, Any]:
        turned = np.roll(array, at, axis=0)
        return turned[: ROWS * 2 // 3], turned[ROWS * 2 // 3 :]

    pairs = keras.tree.map_structure(lambda array: cut(array)[0], (inputs, targets))
    rest = keras.tree.map_structure(lambda array: cut(array)[1], (inputs, targets))
    return pairs, rest


def numbers() -> tuple[Any, Any]:
    """Five columns of which four are given, and three classes that they tell apart."""
    draw = np.random.default_rng(1)
    columns = draw.normal(size=(ROWS, 5)).astype("float32") * [1, 2, 3, 4, 5] + [0, 1, 2, 3, 4]
    return columns.astype("float32"), (columns[:, 0] > 0).astype(int) + (columns[:, 1] > 1).astype(int)


def one_hot(classes: Any, count: int = 3) -> Any:
    return np.eye(count, dtype="float32")[classes]


def texts() -> tuple[list[list[str]], Any]:
    """Rows of ten words, some of them in capitals, and a class for each."""
    draw = np.random.default_rng(2)
    rows = [[f"word{number}" for number in draw.integers(0, WORDS // 2, 10)] for _ in range(ROWS)]
    rows = [[word.upper() if at % 3 == 0 else word for at, word in enumerate(row)] for row in rows]
    return rows, np.array([row[1] < "word3" for row in rows]).astype(int)


VOCABULARY = [f"word{number}" for number in range(WORDS // 2)] + [f"WORD{number}" for number in range(WORDS // 2)]


def tokens(vocabulary: Sequence[str] = VOCABULARY, *, lower: bool = False) -> tuple[Any, Any]:
    known = {word: number for number, word in enumerate(vocabulary)}
    rows, classes = texts()
    return np.array([[known[word.lower() if lower else word] for word in row] for row in rows], "int32"), classes


def images(channels: Sequence[int] = (0, 1, 2)) -> tuple[Any, Any]:
    draw = np.random.default_rng(3)
    pixels = draw.random((ROWS, 8, 8, 3)).astype("float32") * np.array([1, 2, 3], "float32")
    return pixels[..., list(channels)], (pixels[..., 0].mean(axis=(1, 2)) > 0.5).astype(int)


# Models.


def compiled(model: Any, optimizer: Any = None, loss: Any = "categorical_crossentropy", **settings: Any) -> Any:
    model.compile(optimizer or keras.optimizers.Adam(0.01), loss=loss, jit_compile=False, **settings)
    if model.built:
        model.optimizer.build(model.trainable_variables)
    return model


def started(policy: str = "float32") -> None:
    keras.backend.clear_session()
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(0)


def mlp(
    *,
    units: Sequence[int] = (10, 10),
    activation: str = "relu",
    classes: int = 3,
    between: Callable[[], Sequence[Any]] = lambda: (),
    names: str = "hidden",
    optimizer: Callable[[], Any] = lambda: keras.optimizers.Adam(0.01),
    loss: str = "categorical_crossentropy",
    policy: str = "float32",
    frozen: bool = False,
    data: tuple[Any, Any] | None = None,
    features: Sequence[str] = ("a", "b", "c", "d"),
    labels: Sequence[str] = ("x", "y", "z"),
    initializer: Any = keras.initializers.GlorotUniform,
    regularizer: Any = None,
    head: Sequence[Any] = (),
    compile_with: Mapping[str, Any] | None = None,
    at: int = 0,
    **side: Any,
) -> Callable[[], Side]:
    """Dense layers on four columns; `between` gives what follows the first hidden layer."""

    def build() -> Side:
        started(policy)
        columns, targets = data if data is not None else (numbers()[0][:, :4], one_hot(numbers()[1], max(classes, 3)))
        train, evaluated = split(columns, targets, at)
        model = keras.Sequential(name="model")
        model.add(keras.Input((4,), name="columns"))
        for layer in head:
            model.add(layer(train[0]))
        for number, width in enumerate(units):
            model.add(layers.Dense(width, activation, name=f"{names}_{number}", kernel_initializer=initializer(seed=number),
                                   kernel_regularizer=regularizer))  # fmt: skip
            if number == 0:
                for layer in between():
                    model.add(layer)
        model.add(layers.Dense(classes, "softmax", name="logits", kernel_initializer=keras.initializers.Zeros(),
                               dtype="float32" if "mixed" in policy else None))  # fmt: skip
        model.layers[-2].trainable = not frozen
        compiled(model, optimizer(), loss, **{"metrics": ["accuracy"], **(compile_with or {})})
        keras.config.set_dtype_policy("float32")
        return Side(model, train, evaluated, features=features, labels=labels, **side)

    return build


def functional(build: Callable[[Any], Any], shape: Sequence[int] = (4,), data: Any = None) -> Callable[[], Side]:
    """A model of `build(inputs)`: outputs, on numbers unless `data` is given."""

    def make() -> Side:
        started()
        inputs = keras.Input(shape, name="columns")
        outputs = build(inputs)
        columns, targets = data() if data else (numbers()[0][:, :4], one_hot(numbers()[1]))
        train, evaluated = split(columns, targets)
        loss = ["mse"] * len(outputs) if isinstance(outputs, list) else "mse"
        return Side(compiled(keras.Model(inputs, outputs, name="model"), loss=loss), train, evaluated)

    return make


def conv(
    *,
    size: int = 3,
    strides: int = 1,
    padding: str = "same",
    pooling: Any = layers.MaxPooling2D,
    channels: Sequence[int] = (0, 1, 2),
) -> Callable[[], Side]:
    def make() -> Side:
        started()
        model = keras.Sequential([
            keras.Input((8, 8, 3), name="image"), layers.Conv2D(4, size, strides, padding, name="conv", activation="relu"),
            pooling(2, name="pool"), layers.GlobalAveragePooling2D(name="mean"), layers.Dense(2, "softmax", name="logits"),
        ])  # fmt: skip
        pixels, classes = images(channels)
        train, evaluated = split(pixels, one_hot(classes, 2))
        return Side(compiled(model), train, evaluated)

    return make


def recurrent(
    kind: Any = layers.LSTM,
    *,
    units: int = 8,
    words: int = WORDS,
    data: Any = None,
    batch: int | None = None,
    **settings: Any,
) -> Callable[[], Side]:
    def make() -> Side:
        started()
        inputs = keras.Input((10,), batch_size=batch, name="words", dtype="int32")
        embedded = layers.Embedding(words, 6, name="embedding")(inputs)
        last = kind(units, name="cell", **settings)(embedded)
        model = keras.Model(inputs, layers.Dense(2, "softmax", name="logits")(last), name="model")
        found, classes = data if data is not None else tokens()
        train, evaluated = split(found, one_hot(classes, 2))
        return Side(compiled(model), train, evaluated)

    return make


def attention(heads: int) -> Callable[[], Side]:
    def build(inputs: Any) -> Any:
        rows = layers.Reshape((4, 1), name="rows")(inputs)
        mixed = layers.MultiHeadAttention(heads, 4, name="attention")(rows, rows)
        return layers.Dense(3, name="logits")(layers.Flatten(name="flat")(mixed))

    return functional(build)


class Attention(layers.Layer):
    """Attention by hand: the width is the same for any number of heads; `exchanged` lets q and v exchange roles."""

    def __init__(self, heads: int = 2, exchanged: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads, self.exchanged = heads, exchanged
        self.q, self.k, self.v = (layers.Dense(8, name=name) for name in "qkv")

    def call(self, rows: Any) -> Any:
        q, k, v = self.q(rows), self.k(rows), self.v(rows)
        if self.exchanged:
            q, v = v, q
        parts = [ops.split(one, self.heads, axis=-1) for one in (q, k, v)]
        mixed = [
            ops.matmul(ops.softmax(ops.matmul(a, ops.transpose(b, (0, 2, 1)))), c)
            for a, b, c in zip(*parts, strict=True)
        ]
        return ops.concatenate(mixed, axis=-1)


def own_attention(**settings: Any) -> Callable[[], Side]:
    def build(inputs: Any) -> Any:
        rows = layers.Reshape((4, 1), name="rows")(inputs)
        return layers.Dense(3, name="logits")(layers.Flatten(name="flat")(Attention(name="mine", **settings)(rows)))

    return functional(build)


class Block(layers.Layer):
    """Two layers of one shape, and a computation of its own between them."""

    def __init__(self, between: Callable[[Any], Any] = ops.relu, turned: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.between, self.turned = between, turned
        self.first, self.second = (layers.Dense(4, name=name) for name in ("first", "second"))

    def call(self, inputs: Any) -> Any:
        one, two = (self.second, self.first) if self.turned else (self.first, self.second)
        return two(self.between(one(inputs)))


class OtherBlock(layers.Layer):
    """What `Block` computes, with other names for its attributes."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alpha, self.beta = (layers.Dense(4, name=name) for name in ("first", "second"))

    def call(self, inputs: Any) -> Any:
        return self.beta(ops.relu(self.alpha(inputs)))


def block(make: Callable[[], Any]) -> Callable[[], Side]:
    return functional(lambda inputs: layers.Dense(3, name="logits")(make()(inputs)))


def in_order(names: str) -> Callable[[], Side]:
    """Two layers of one shape, called in the order of `names`."""

    def build(inputs: Any) -> Any:
        made = {name: layers.Dense(4, "relu", name=name) for name in "ab"}
        for name in names:
            inputs = made[name](inputs)
        return layers.Dense(3, name="logits")(inputs)

    return functional(build)


def two_heads(names: str) -> Callable[[], Side]:
    def targets() -> tuple[Any, Any]:
        columns, classes = numbers()
        both = {"a": one_hot(classes % 2, 2), "b": one_hot(classes // 2, 2)}
        return columns[:, :4], tuple(both[name] for name in names)

    def build(inputs: Any) -> Any:
        hidden = layers.Dense(6, "relu", name="hidden")(inputs)
        made = {name: layers.Dense(2, name=name)(hidden) for name in "ab"}
        return [made[name] for name in names]

    return functional(build, data=targets)


def adapted(on: int) -> Callable[[Any], Any]:
    def make(columns: Any) -> Any:
        layer = layers.Normalization(name="scale")
        layer.adapt(columns[: len(columns) // on])
        return layer

    return make


def permuted(order: Sequence[int]) -> tuple[Any, Any]:
    return numbers()[0][:, list(order)], one_hot(numbers()[1])


def scaled(kind: str) -> tuple[Any, Any]:
    columns = numbers()[0][:, :4]
    if kind == "standard":
        return (columns - columns.mean(0)) / columns.std(0), one_hot(numbers()[1])
    return (columns - columns.min(0)) / (columns.max(0) - columns.min(0)), one_hot(numbers()[1])


def adam(**settings: Any) -> Callable[[], Any]:
    return lambda: keras.optimizers.Adam(**{"learning_rate": 0.01, **settings})


def decay(rate: float) -> Callable[[], Any]:
    return lambda: keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.01, 100, rate))


def dropout(rate: float) -> Callable[[], Sequence[Any]]:
    return lambda: [layers.Dropout(rate, seed=5, name="dropout")]


def norm(kind: Any, **settings: Any) -> Callable[[], Sequence[Any]]:
    return lambda: [kind(name="norm", **settings)]


def sgd() -> Any:
    return keras.optimizers.SGD(0.01, momentum=0.9)


BASE = mlp()
BACK = VOCABULARY[::-1]
MORE = tokens([f"new{number}" for number in range(4)] + VOCABULARY)
SEQUENCE = layers.LSTM

CASES = {
    case.id: case
    for case in (
        Case("00", "no change (control)", "same", BASE, BASE),
        Case("01", "hidden width 10->20", "refuse", BASE, mlp(units=(20, 20))),
        Case("02", "depth +1 (equal width)", "refuse", BASE, mlp(units=(10, 10, 10))),
        Case("03", "depth -1", "refuse", BASE, mlp(units=(10,))),
        Case("04", "number of classes 3->4", "refuse", BASE, mlp(classes=4)),
        Case("06", "BatchNorm added", "refuse", BASE, mlp(between=norm(layers.BatchNormalization))),
        Case("07", "embedding vocab 30->34 (new words first)", "refuse", recurrent(), recurrent(words=34, data=MORE)),
        Case("08", "RNN units 8->16", "refuse", recurrent(), recurrent(units=16)),
        Case("09", "LSTM -> GRU", "refuse", recurrent(), recurrent(layers.GRU)),
        Case("10", "conv kernel 3->5", "refuse", conv(), conv(size=5)),
        Case("11", "attention heads 2->4 (Keras MHA)", "refuse", attention(2), attention(4)),
        Case("13", "two equal-shaped layers swapped (names kept)", "refuse", in_order("ab"), in_order("ba")),
        Case("14", "activation relu->tanh", "warm-start", BASE, mlp(activation="tanh")),
        Case("16", "LayerNorm epsilon 1e-3->1", "warm-start", mlp(between=norm(layers.LayerNormalization, epsilon=1e-3)),
             mlp(between=norm(layers.LayerNormalization, epsilon=1.0))),
        Case("18", "conv stride 1->2", "refuse", conv(), conv(strides=2)),
        Case("19", "conv padding same->valid", "refuse", conv(), conv(padding="valid")),
        Case("21", "pooling max->average", "warm-start", conv(), conv(pooling=layers.AveragePooling2D)),
        Case("23", "attention heads 2->4 (hand-written, equal dim)", "refuse", own_attention(), own_attention(heads=4)),
        Case("25", "q and v projections exchange roles (code)", "refuse", own_attention(), own_attention(exchanged=True)),
        Case("26", "custom call() code changed", "refuse", block(Block), block(lambda: Block(lambda x: ops.relu(x) + x))),
        Case("27", "sub-layers swapped in call()", "refuse", block(Block), block(lambda: Block(turned=True))),
        Case("30", "recurrent_activation sigmoid->tanh", "refuse", recurrent(), recurrent(recurrent_activation="tanh")),
        Case("32", "RNN stateful on", "warm-start", recurrent(batch=32), recurrent(batch=32, stateful=True)),
        Case("34", "output heads swapped (equal shape)", "refuse", two_heads("ab"), two_heads("ba")),
        Case("36", "input feature order permuted", "refuse", BASE, mlp(data=permuted((1, 0, 2, 3)), features="bacd")),
        Case("37", "a feature replaced by another (same place)", "refuse", BASE,
             mlp(data=permuted((0, 1, 2, 4)), features="abce")),
        Case("38", "a feature renamed (same data)", "resume", BASE, mlp(features="abcz")),
        Case("39", "label order permuted (equal count)", "refuse", BASE,
             mlp(data=(numbers()[0][:, :4], one_hot(2 - numbers()[1])), labels="zyx")),
        Case("40", "vocab content permuted (outside model)", "refuse", recurrent(), recurrent(data=tokens(BACK))),
        Case("42", "tokenizer lower-cases now", "refuse", recurrent(), recurrent(data=tokens(lower=True))),
        Case("44", "normalisation outside model: standard->min-max", "refuse", mlp(data=scaled("standard")),
             mlp(data=scaled("min-max"))),
        Case("45", "Normalization layer adapted on other data", "resume", mlp(head=[adapted(1)]), mlp(head=[adapted(3)])),
        Case("46", "image channels RGB->BGR", "refuse", conv(), conv(channels=(2, 1, 0))),
        Case("48", "train/test split changed", "refuse", BASE, mlp(at=20)),
        Case("49", "optimizer Adam->SGD(momentum)", "warm-start", BASE, mlp(optimizer=sgd)),
        Case("50", "optimizer Adam->RMSprop", "warm-start", BASE, mlp(optimizer=lambda: keras.optimizers.RMSprop(0.01))),
        Case("52", "optimizer Adam->Adamax (equal slots)", "warm-start", BASE,
             mlp(optimizer=lambda: keras.optimizers.Adamax(0.01))),
        Case("53", "optimizer Adam->Nadam", "warm-start", BASE, mlp(optimizer=lambda: keras.optimizers.Nadam(0.01))),
        Case("54", "optimizer Adam->amsgrad", "warm-start", BASE, mlp(optimizer=adam(amsgrad=True))),
        Case("55", "learning rate .01->.001", "resume", BASE, mlp(optimizer=adam(learning_rate=0.001))),
        Case("56", "beta_1 .9->.5", "resume", BASE, mlp(optimizer=adam(beta_1=0.5))),
        Case("57", "lr constant -> schedule", "resume", BASE, mlp(optimizer=decay(0.9))),
        Case("58", "lr schedule parameters changed", "resume", mlp(optimizer=decay(0.9)), mlp(optimizer=decay(0.5))),
        Case("59", "clipnorm added", "resume", BASE, mlp(optimizer=adam(clipnorm=0.1))),
        Case("61", "gradient accumulation on", "resume", BASE, mlp(optimizer=adam(gradient_accumulation_steps=4))),
        Case("62", "one hidden layer frozen", "warm-start", BASE, mlp(frozen=True)),
        Case("64", "loss cross-entropy -> MSE", "warm-start", BASE, mlp(loss="mse")),
        Case("65", "L2 regularizer added", "resume", BASE, mlp(regularizer=keras.regularizers.L2(0.01))),
        Case("66", "dropout rate .1->.5", "resume", mlp(between=dropout(0.1)), mlp(between=dropout(0.5))),
        Case("67", "dropout removed", "resume", mlp(between=dropout(0.1)), BASE),
        Case("68", "BatchNorm momentum .9->.5", "resume", mlp(between=norm(layers.BatchNormalization, momentum=0.9)),
             mlp(between=norm(layers.BatchNormalization, momentum=0.5))),
        Case("70", "kernel initializer", "refuse", BASE, mlp(initializer=keras.initializers.HeNormal)),
        Case("71", "seed 0->1", "refuse", BASE, mlp(seed=1)),
        Case("72", "dtype float32->mixed_float16", "resume", BASE, mlp(policy="mixed_float16")),
        Case("73", "dtype float32->mixed_bfloat16", "resume", BASE, mlp(policy="mixed_bfloat16")),
        Case("74", "dtype float32->bfloat16 (variables too)", "warm-start", BASE, mlp(policy="bfloat16")),
        Case("75", "dtype float32->float64", "resume", BASE, mlp(policy="float64")),
        Case("76", "batch size 32->64", "resume", BASE, mlp(batch_size=64)),
        Case("77", "metrics changed", "same", BASE, mlp(compile_with={"metrics": ["mae", "mse"]})),
        Case("78", "more epochs", "same", BASE, BASE),
        Case("79", "fewer epochs than done", "same", BASE, BASE),
        Case("80", "layers renamed", "same", BASE, mlp(names="layer")),
        Case("82", "attributes renamed", "same", block(lambda: Block(name="block")), block(lambda: OtherBlock(name="block"))),
        Case("83", "steps_per_execution 1->10", "same", BASE, mlp(compile_with={"steps_per_execution": 10})),
    )
}  # fmt: skip
