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
    """The training batches: `at(position)` holds the `batch_size` rows from that position on, counted over all epochs."""

    def __init__(self, rows: Rows, *, batch_size: int, seed: int, shuffle: bool) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self._seed = seed % 2**31
        self._shuffle = shuffle

    def at(self, position: Any) -> tuple[dict[str, Any], Any]:
        """The batch at `position`, an int64 scalar; made in the graph."""
        return self.rows.take(self.indices(position))

    def indices(self, position: Any) -> Any:
        """Which rows they are, int64 (batch_size,)."""
        count = tf.constant(self.rows.count, tf.int64)
        positions = tf.cast(position, tf.int64) + tf.range(self.batch_size, dtype=tf.int64)
        epochs, within = positions // count, positions % count
        if not self._shuffle:
            return within
        words = [tf.fill([self.batch_size], tf.constant(word, tf.int64)) for word in (_SALT, self._seed)]
        # The raw op, one seed a row: tf.random.experimental.index_shuffle pads a batch of seeds along the wrong axis.
        return tf.raw_ops.RandomIndexShuffle(
            index=within, seed=tf.stack([*words, epochs], axis=1), max_index=tf.fill([self.batch_size], count - 1), rounds=4
        )
