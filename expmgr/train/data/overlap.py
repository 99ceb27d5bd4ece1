"""Finds rows that are in the training split and in an evaluated split."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from expmgr.train.data.datasets import Rows
from expmgr.train.data.pipelines import Stream
from expmgr.train.model.structure import leaves, parts_of

_ODD = np.uint64(1)


def also_in(train: Any, other: Rows | Stream) -> int | None:
    """How many rows of `other` have the inputs of a row of `train`, whatever their targets; None where that is not known:
    `train` is a pipeline that nobody went through, or the rows are of different forms."""
    if not isinstance(train, Rows):
        return None
    known = _hashes(train.batch)
    if known is None:
        return None
    batches = [other.batch] if isinstance(other, Rows) else other
    count = 0
    for batch in batches:
        found = _hashes(batch)
        if found is None:
            return None
        count += int(np.isin(found, known).sum())
    return count


def _hashes(batch: Any) -> Any:
    """A number of 64 bits a row of inputs, equal for equal rows: a multilinear hash with fixed odd factors (Lemire and
    Kaser 2014), whose collisions are too rare to count. None where a part is ragged or sparse."""
    total: Any = None
    for place, part in enumerate(leaves(parts_of(batch)[0])):
        if not isinstance(part, tf.Tensor):
            return None
        words = _words(part)
        factors = np.random.default_rng(place).integers(2**63, size=words.shape[1], dtype=np.uint64) * 2 + _ODD
        found = (words * factors).sum(axis=1, dtype=np.uint64)
        total = found if total is None else total * np.uint64(0x9E3779B97F4A7C15) + found
    return total


def _words(part: Any) -> Any:
    """The values of each row as whole numbers of 64 bits, shape (rows, words)."""
    values = (tf.strings.to_hash_bucket_fast(part, 2**63 - 1) if part.dtype == tf.string else part).numpy()
    rows = np.ascontiguousarray(values.reshape(len(values), -1))
    raw = rows.view(np.uint8).reshape(len(rows), -1)
    spare = -raw.shape[1] % 8
    return np.ascontiguousarray(np.pad(raw, ((0, 0), (0, spare)))).view(np.uint64)
