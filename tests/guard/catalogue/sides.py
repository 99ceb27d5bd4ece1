"""Changes to small models, each as two sides that differ in nothing but what its row says.

`rows.py` says what each row changes, and what may happen with a checkpoint of the base in the changed model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

ROWS = 192
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
    """Both sides of one row, each built anew by every call."""

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
    columns = draw.normal(size=(ROWS, 5)).astype("float32") * [1, 2, 1, 1, 1] + [0, 1, 2, 3, 4]
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


def pair(one: str, two: str) -> Any:
    """A class `Pair` whose two layers are held under these attributes; their own names stay."""

    class Pair(layers.Layer):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            setattr(self, one, layers.Dense(4, name="first"))
            setattr(self, two, layers.Dense(4, name="second"))

        def call(self, inputs: Any) -> Any:
            return getattr(self, two)(ops.relu(getattr(self, one)(inputs)))

    return Pair


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
    "00": Case(BASE, BASE),
    "01": Case(BASE, mlp(units=(20, 20))),
    "02": Case(BASE, mlp(units=(10, 10, 10))),
    "03": Case(BASE, mlp(units=(10,))),
    "04": Case(BASE, mlp(classes=4)),
    "06": Case(BASE, mlp(between=norm(layers.BatchNormalization))),
    "07": Case(recurrent(), recurrent(words=34, data=MORE)),
    "08": Case(recurrent(), recurrent(units=16)),
    "09": Case(recurrent(), recurrent(layers.GRU)),
    "10": Case(conv(), conv(size=5)),
    "11": Case(attention(2), attention(4)),
    "13": Case(in_order("ab"), in_order("ba")),
    "14": Case(BASE, mlp(activation="tanh")),
    "16": Case(mlp(between=norm(layers.LayerNormalization, epsilon=1e-3)),
         mlp(between=norm(layers.LayerNormalization, epsilon=1.0))),
    "18": Case(conv(), conv(strides=2)),
    "19": Case(conv(), conv(padding="valid")),
    "21": Case(conv(), conv(pooling=layers.AveragePooling2D)),
    "23": Case(own_attention(), own_attention(heads=4)),
    "25": Case(own_attention(), own_attention(exchanged=True)),
    "26": Case(block(Block), block(lambda: Block(lambda x: ops.relu(x) + x))),
    "27": Case(block(Block), block(lambda: Block(turned=True))),
    "30": Case(recurrent(), recurrent(recurrent_activation="tanh")),
    "32": Case(recurrent(batch=32), recurrent(batch=32, stateful=True)),
    "34": Case(two_heads("ab"), two_heads("ba")),
    "36": Case(BASE, mlp(data=permuted((1, 0, 2, 3)), features="bacd")),
    "37": Case(BASE,
         mlp(data=permuted((0, 1, 2, 4)), features="abce")),
    "38": Case(BASE, mlp(features="abcz")),
    "39": Case(BASE,
         mlp(data=(numbers()[0][:, :4], one_hot(2 - numbers()[1])), labels="zyx")),
    "40": Case(recurrent(), recurrent(data=tokens(BACK))),
    "42": Case(recurrent(), recurrent(data=tokens(lower=True))),
    "44": Case(mlp(data=scaled("standard")),
         mlp(data=scaled("min-max"))),
    "45": Case(mlp(head=[adapted(1)]), mlp(head=[adapted(3)])),
    "46": Case(conv(), conv(channels=(2, 1, 0))),
    "48": Case(BASE, mlp(at=20)),
    "49": Case(BASE, mlp(optimizer=sgd)),
    "50": Case(BASE, mlp(optimizer=lambda: keras.optimizers.RMSprop(0.01))),
    "52": Case(BASE,
         mlp(optimizer=lambda: keras.optimizers.Adamax(0.01))),
    "53": Case(BASE, mlp(optimizer=lambda: keras.optimizers.Nadam(0.01))),
    "54": Case(BASE, mlp(optimizer=adam(amsgrad=True))),
    "55": Case(BASE, mlp(optimizer=adam(learning_rate=0.001))),
    "56": Case(BASE, mlp(optimizer=adam(beta_1=0.5))),
    "57": Case(BASE, mlp(optimizer=decay(0.9))),
    "58": Case(mlp(optimizer=decay(0.9)), mlp(optimizer=decay(0.5))),
    "59": Case(BASE, mlp(optimizer=adam(clipnorm=0.1))),
    "61": Case(BASE, mlp(optimizer=adam(gradient_accumulation_steps=4))),
    "62": Case(BASE, mlp(frozen=True)),
    "64": Case(BASE, mlp(loss="mse")),
    "65": Case(BASE, mlp(regularizer=keras.regularizers.L2(0.01))),
    "66": Case(mlp(between=dropout(0.1)), mlp(between=dropout(0.5))),
    "67": Case(mlp(between=dropout(0.1)), BASE),
    "68": Case(mlp(between=norm(layers.BatchNormalization, momentum=0.9)),
         mlp(between=norm(layers.BatchNormalization, momentum=0.5))),
    "70": Case(BASE, mlp(initializer=keras.initializers.HeNormal)),
    "71": Case(BASE, mlp(seed=1)),
    "72": Case(BASE, mlp(policy="mixed_float16")),
    "73": Case(BASE, mlp(policy="mixed_bfloat16")),
    "74": Case(BASE, mlp(policy="bfloat16")),
    "75": Case(BASE, mlp(policy="float64")),
    "76": Case(BASE, mlp(batch_size=64)),
    "77": Case(BASE, mlp(compile_with={"metrics": ["mae", "mse"]})),
    "78": Case(BASE, BASE),
    "79": Case(BASE, BASE),
    "80": Case(BASE, mlp(names="layer")),
    "82": Case(block(lambda: pair("first", "second")(name="block")), block(lambda: pair("alpha", "beta")(name="block"))),
    "83": Case(BASE, mlp(compile_with={"steps_per_execution": 10})),
}  # fmt: skip
