"""Input functions that feed an Estimator inside its own graph."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from expmgr.checkpoints.signature import DataContract
from expmgr.errors import DataProblem
from expmgr.spec.data import PythonData
from expmgr.train.data.datasets import Batches, Rows
from expmgr.train.data.sources import Source
from expmgr.train.model.structure import leaves, packed, parts_of
from expmgr.train.user.data import Functions

_ASKED_ROWS = 1024
#: More steps than any training has.
_ENDLESS = 2**62


@dataclass(frozen=True)
class Fed:
    """An `input_fn`, and how many rows it gives where that is known."""

    input_fn: Callable[[], Any]
    count: int | None


class Inputs:
    """The splits of `source` as an Estimator takes them. `seed` is the run's."""

    def __init__(self, source: Source, data: Any, seed: int) -> None:
        self._source, self._data, self._seed = source, data, seed
        self.labels = source.labels
        _require_known(source.first(), data)

    @property
    def order(self) -> Sequence[str]:
        """Names of features whose places count, and not their names."""
        return self._source.order

    @property
    def splits(self) -> list[str]:
        """The splits that there are."""
        return self._source.splits

    def sha256(self, split: str) -> str:
        """Digest of a split that is evaluated."""
        return self._source.sha256(split)

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """What a record holds of the splits."""
        return self._source.as_dict()

    def contract(self) -> DataContract:
        """What a checkpoint that learns from this data requires of data."""
        return self._source.contract()

    @property
    def batch_size(self) -> int | None:
        """Rows of a batch of training; None where a Dataset decides."""
        return None if self._is_stream("train") else self._data.batch_size

    def type_specs(self, split: str) -> Any:
        """The type specs of (features, labels), with any number of rows."""
        found = self._source.train_type_spec if split == "train" else self._source.rows(split).type_spec
        features, labels, _ = parts_of(found)
        return features, labels

    def _is_stream(self, split: str) -> bool:
        return isinstance(self._source, Functions) and not isinstance(self._source.given(split), Rows)

    def train(self, start_step: int, position: int) -> Fed:
        """The training split from `start_step` on, where `position` rows were trained on: rows without end, in the order
        that models of Keras are given them; a Dataset from its beginning, freshly drawn."""
        if self._is_stream("train"):
            return Fed(self._called("train", (self._seed * 1_000_003 + start_step) % 2**31), None)
        rows: Any = self._source.rows("train")
        size = self._data.batch_size
        batches = Batches(rows, batch_size=size, seed=self._seed, shuffle=self._data.shuffle)
        look_up = _look_up(rows)

        def input_fn() -> Any:
            steps = tf.data.Dataset.range(_ENDLESS)
            return steps.map(lambda step: look_up(batches.indices(position + step * size))).prefetch(2)

        return Fed(input_fn, rows.count)

    def is_exact(self) -> bool:
        """Whether a training that was stopped is given the rows that it would have been given."""
        return not self._is_stream("train")

    def rows(self, split: str) -> Fed:
        """A split to be evaluated: once, in its order."""
        rows: Any = self._source.rows(split)
        if isinstance(rows, Rows):
            return _once(rows, self._data.batch_size)
        return Fed(self._called(split, self._seed), rows.count)

    def read(self, path: Path) -> Fed:
        """A file with labels, which somebody wants evaluated."""
        rows = self._source.read(path)
        if isinstance(rows, Rows):
            return _once(rows, self._data.batch_size)
        return Fed(self._called("eval", self._seed, path), rows.count)

    def read_inputs(self, path: Path) -> Fed:
        """A file without labels, of which somebody wants predictions."""
        rows = self._source.read_inputs(path)
        if isinstance(rows, Rows):
            return _once(rows, _ASKED_ROWS)
        return Fed(self._called("predict", self._seed, path), rows.count)

    def _called(self, what: str, seed: int, path: Path | None = None) -> Callable[[], Any]:
        assert isinstance(self._source, Functions)
        functions: Functions = self._source

        def input_fn() -> Any:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            return functions.call_again(what, seed, path)

        return input_fn


def _require_known(batch: Any, data: Any) -> None:
    """`DataProblem` where an Estimator does not take what the functions of the data give."""
    _, targets, weights = parts_of(batch)
    if weights is not None:
        raise DataProblem(
            "the data gives weights of its rows beside features and labels, which an Estimator does not take",
            left_alone="Nothing was changed.",
            hint="make them a feature, and name it as the head's weight_column",
        )
    if targets is None and isinstance(data, PythonData):
        raise DataProblem(
            f"data.eval: {data.eval} gives features without labels",
            left_alone="Nothing was changed.",
            hint="an Estimator is given (features, labels)",
        )


def _once(rows: Rows, batch_size: int) -> Fed:
    """Rows that are there, once, in their order."""
    look_up = _look_up(rows)
    return Fed(lambda: tf.data.Dataset.range(rows.count).batch(batch_size).map(look_up).prefetch(2), rows.count)


def _look_up(rows: Rows) -> Callable[[Any], Any]:
    """A function in a graph that gives the batch of the rows at its indices; the rows are no part of the graph."""
    parts = [np.asarray(one) for one in leaves(rows.batch)]
    dtypes = [tf.string if one.dtype.kind in "OUS" else tf.as_dtype(one.dtype) for one in parts]

    def look_up(indices: Any) -> Any:
        found = tf.numpy_function(lambda at: [part[at] for part in parts], [indices], dtypes)
        for one, part in zip(found, parts, strict=True):
            one.set_shape([None, *part.shape[1:]])
        return packed(rows.batch, iter(found))

    return look_up
