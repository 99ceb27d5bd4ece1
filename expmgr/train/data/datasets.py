"""Rows as tensors on the device; each batch depends only on the seed and its position.

Which row stands at a position follows from the seed and the epoch alone, so a run resumes in mid-epoch with the same
rows and nothing about the data has to be saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from expmgr.checkpoints.signature import Feature
from expmgr.data.csvdata import Split
from expmgr.errors import DataProblem
from expmgr.train.model.premade import input_names
from expmgr.train.model.structure import any_rows, leaves, parts_of

#: First word of the shuffle's seed: keeps the data's order apart from every other use of the run's seed.
_SALT = 498247692

#: Up to so many rows an epoch's order is sorted, beyond that it is computed place by place. Measured on TF 2.21, a
#: batch of 100: RandomIndexShuffle takes 480 us at 120 rows, where it walks long, and 27 us at 60,000; sorting takes
#: 11 us and 5.4 ms.
_SORTED_ROWS = 1024
_SORTED_EPOCHS = 8


class Rows:
    """Examples on the device: `batch` holds all of them, in the structure that Keras' train_step takes."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch
        self.count = int(next(leaves(batch)).shape[0])

    @property
    def type_spec(self) -> Any:
        """Their type specs, with any number of rows."""
        return any_rows(self.batch)

    def take(self, indices: Any) -> Any:
        """The rows at `indices`."""
        return tf.nest.map_structure(lambda column: tf.gather(column, indices), self.batch)

    def first(self, count: int) -> Any:
        """The first rows, `count` of them where there are so many."""
        return self.take(tf.range(min(count, self.count)))


def csv_rows(split: Split, features: Sequence[Feature], labels: Sequence[str] | None) -> Rows:
    """A split of CSV data: inputs by name, shape (rows,); targets (rows,) int32 of classes or (rows, 1) float32."""
    names = input_names(features)
    inputs = {
        names[one.name]: tf.constant(split.columns[one.name], tf.float32 if one.kind == "numeric" else tf.string)
        for one in features
    }
    if labels is not None:
        return Rows((inputs, tf.constant(split.targets, tf.int32)))
    return Rows((inputs, tf.reshape(tf.constant(split.targets, tf.float32), (-1, 1))))


class Weighted:
    """Lets the examples of each class count as `class_weight` says, by the index of the class; None: all alike."""

    def __init__(self, class_weight: Sequence[float] | None) -> None:
        self._weights = None if class_weight is None else tf.constant(class_weight, tf.float32)

    def type_spec(self, type_spec: Any) -> Any:
        """The type specs of a batch with what each row counts."""
        if self._weights is None:
            return type_spec
        given = tf.function(self.__call__, autograph=False).get_concrete_function(type_spec).structured_outputs
        return any_rows(given)

    def __call__(self, batch: Any) -> Any:
        """`batch` with what each row counts."""
        if self._weights is None:
            return batch
        inputs, targets, weights = parts_of(batch)
        if isinstance(targets, tf.Tensor) and targets.dtype.is_floating:  # one-hot, or 0 and 1, as Keras takes them
            is_one_hot = targets.shape.rank is not None and targets.shape.rank > 1 and targets.shape[-1] != 1
            targets_as_classes = tf.argmax(targets, axis=-1) if is_one_hot else tf.cast(tf.round(targets), tf.int32)
        else:
            targets_as_classes = targets
        if not isinstance(targets, tf.Tensor) or not targets_as_classes.dtype.is_integer:
            raise DataProblem(
                "train.class_weight counts classes, but the targets are no tensor of integers",
                left_alone="Nothing was changed.",
                hint="give each class as its number, or weights a row as the third part of a batch",
            )
        of_class = tf.gather(self._weights, tf.reshape(targets_as_classes, [-1]))
        return inputs, targets, of_class if weights is None else of_class * tf.cast(weights, tf.float32)


class Batches:
    """The training batches of rows on the device: the `batch_size` rows from a position on, counted over all epochs."""

    in_graph = True

    def __init__(
        self, rows: Rows, *, batch_size: int, seed: int, shuffle: bool, class_weight: Sequence[float] | None = None
    ) -> None:
        self.rows = rows
        self._weighted = Weighted(class_weight)
        self.batch_size = batch_size
        self._seed = seed % 2**31
        self._shuffle = shuffle

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch, rounded up."""
        return -(-self.rows.count // self.batch_size)

    @property
    def type_spec(self) -> Any:
        """The type specs of a batch, with any number of rows."""
        return self._weighted.type_spec(self.rows.type_spec)

    def at(self, position: Any, step: Any = None) -> Any:
        """The batch at `position`, an int64 scalar, as Keras' train_step takes it, and what each row counts where
        classes have weights; made in the graph."""
        return self._weighted(self.rows.take(self.indices(position)))

    def go_to(self, step: int, state: bytes | None) -> str | None:
        """Nothing to be done: a batch follows from its position."""
        return None

    def state(self) -> bytes | None:
        """What has to be kept over a stop: nothing."""
        return None

    def indices(self, position: Any) -> Any:
        """Which rows they are, int64 (batch_size,)."""
        count = tf.constant(self.rows.count, tf.int64)
        positions = tf.cast(position, tf.int64) + tf.range(self.batch_size, dtype=tf.int64)
        epochs, within = positions // count, positions % count
        if not self._shuffle:
            return within
        if self.rows.count <= _SORTED_ROWS and self._most_epochs <= _SORTED_EPOCHS:
            return self._by_sorting(epochs, within)
        return self._by_index(epochs, within)

    @property
    def _most_epochs(self) -> int:
        """How many epochs a batch may touch."""
        return (self.batch_size - 1) // self.rows.count + 2 if self.rows.count > 1 else self.batch_size

    def _by_sorting(self, epochs: Any, within: Any) -> Any:
        """Few rows: the order of every epoch that the batch touches, by sorting random keys."""
        first = epochs[0]
        orders = [tf.argsort(self._keys(first + number), stable=True) for number in range(self._most_epochs)]
        return tf.cast(tf.gather(tf.concat(orders, axis=0), (epochs - first) * self.rows.count + within), tf.int64)

    def _keys(self, epoch: Any) -> Any:
        seed = tf.stack([tf.constant(_SALT + self._seed, tf.int64), epoch])
        # The algorithm is named: left to choose, TensorFlow takes another one on another device.
        return tf.random.stateless_uniform(
            [self.rows.count], seed, minval=None, maxval=None, dtype=tf.int32, alg="philox"
        )

    def _by_index(self, epochs: Any, within: Any) -> Any:
        """Many rows: each place by itself, without the whole order."""
        words = [tf.fill([self.batch_size], tf.constant(word, tf.int64)) for word in (_SALT, self._seed)]
        largest = tf.fill([self.batch_size], tf.constant(self.rows.count - 1, tf.int64))
        # The raw op, one seed a row: tf.random.experimental.index_shuffle pads a batch of seeds along the wrong axis.
        return tf.raw_ops.RandomIndexShuffle(
            index=within, seed=tf.stack([*words, epochs], axis=1), max_index=largest, rounds=4
        )
