"""Rows as tensors on the device, and batches of them as a pure function of the position.

Which row stands at a position follows from the seed and the epoch alone, so a run resumes in mid-epoch with the same
rows and nothing about the data has to be saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from expmgr.csvdata import Split
from expmgr.signature import Feature
from expmgr.train.models import input_names

#: First word of the shuffle's seed: keeps the data's order apart from every other use of the run's seed.
_SALT = 498247692

#: Up to so many rows an epoch's order is sorted, beyond that it is computed place by place. Measured on TF 2.21, a
#: batch of 100: RandomIndexShuffle takes 480 us at 120 rows, where it walks long, and 27 us at 60,000; sorting takes
#: 11 us and 5.4 ms.
_SORTED_ROWS = 1024
_SORTED_EPOCHS = 8


class Rows:
    """One split on the device: `columns` by input name, shape (rows,); `targets` (rows,) int32 or (rows, 1) float32."""

    def __init__(self, split: Split, features: Sequence[Feature], labels: Sequence[str] | None) -> None:
        names = input_names(features)
        self.count = split.rows
        self.columns = {
            names[one.name]: tf.constant(split.columns[one.name], tf.float32 if one.kind == "numeric" else tf.string)
            for one in features
        }
        if labels is not None:
            self.targets = tf.constant(split.targets, tf.int32)
        else:
            self.targets = tf.reshape(tf.constant(split.targets, tf.float32), (-1, 1))

    def take(self, indices: Any) -> tuple[dict[str, Any], Any]:
        """The rows at `indices`, as Keras' train_step takes them."""
        return {name: tf.gather(column, indices) for name, column in self.columns.items()}, tf.gather(
            self.targets, indices
        )


class Batches:
    """The training batches: `at(position)` holds the `batch_size` rows from there on, counted over all epochs."""

    def __init__(
        self, rows: Rows, *, batch_size: int, seed: int, shuffle: bool, class_weight: Sequence[float] | None = None
    ) -> None:
        self.rows = rows
        self._class_weight = None if class_weight is None else tf.constant(class_weight, tf.float32)
        self.batch_size = batch_size
        self._seed = seed % 2**31
        self._shuffle = shuffle

    def at(self, position: Any) -> tuple[Any, ...]:
        """The batch at `position`, an int64 scalar, as Keras' train_step takes it: inputs, targets, and what each row
        counts where classes have weights; made in the graph."""
        inputs, targets = self.rows.take(self.indices(position))
        if self._class_weight is None:
            return inputs, targets
        return inputs, targets, tf.gather(self._class_weight, targets)

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
