"""Nested structures of tensors and arrays: dicts in their own order, tuples, lists and None."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf


def leaves(structure: Any) -> Iterator[Any]:
    """The parts of `structure` in the order in which they stand in it, a dict's in its own; None is no part.

    `tf.nest.flatten` sorts the keys of a dict, so that a renamed column would change places.
    """
    if isinstance(structure, Mapping):
        for one in structure.values():
            yield from leaves(one)
    elif isinstance(structure, (list, tuple)):
        for one in structure:
            yield from leaves(one)
    elif structure is not None:
        yield structure


def packed(like: Any, parts: Iterator[Any]) -> Any:
    """`parts`, which are as many as `leaves(like)`, in the structure of `like`."""
    if isinstance(like, Mapping):
        return {key: packed(one, parts) for key, one in like.items()}
    if isinstance(like, (list, tuple)):
        return tuple(packed(one, parts) for one in like)
    return None if like is None else next(parts)


def rows_of(batch: Any) -> Any:
    """How many examples `batch` has, an int64 scalar in a graph or not."""
    first = next(leaves(batch))
    if isinstance(first, tf.RaggedTensor):
        return tf.cast(first.nrows(), tf.int64)
    if isinstance(first, tf.SparseTensor):
        return tf.cast(first.dense_shape[0], tf.int64)
    return tf.shape(first, out_type=tf.int64)[0]


def parts_of(batch: Any) -> tuple[Any, Any, Any]:
    """Inputs, targets and weights of a batch as `train_step` takes it; what it has not is None."""
    if isinstance(batch, list):
        batch = tuple(batch)
    if not isinstance(batch, tuple):
        return batch, None, None
    inputs, targets, weights = (*batch, None, None)[:3]
    return inputs, targets, weights


def any_rows(structure: Any) -> Any:
    """The type specs of `structure` with any number of rows."""
    return tf.nest.map_structure(_any_rows, structure)


def _any_rows(one: Any) -> Any:
    found = type_spec_of(one)
    return tf.TensorSpec([None, *found.shape[1:]], found.dtype) if isinstance(found, tf.TensorSpec) else found


def type_spec_of(one: Any) -> Any:
    """The type spec of a tensor; of a type spec, itself."""
    if isinstance(one, tf.TypeSpec):
        return one
    if isinstance(one, (tf.RaggedTensor, tf.SparseTensor)):
        return tf.type_spec_from_value(one)
    return tf.TensorSpec(one.shape, one.dtype)
