"""Batches of a `tf.data.Dataset` or `keras.utils.PyDataset`, and their position in a checkpoint.

A Dataset's place is saved with each checkpoint, so that a run goes on with the very batch that would have come next.
Where TensorFlow cannot save it, the run says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from expmgr.errors import DataProblem
from expmgr.train.data.datasets import Weighted
from expmgr.train.model.structure import any_rows, leaves, rows_of
from expmgr.train.signature.operations import PYTHON_OPERATIONS

#: A split that is evaluated is read once and held up to this size; beyond, it is read for every evaluation anew.
HELD_BYTES = 256_000_000
#: Fail where a pipeline has state that is outside of it (`tf.data.experimental.ExternalStatePolicy.FAIL`).
_FAIL = 2
_GENERATOR = "GeneratorDataset"


class Pipeline:
    """The training batches of `dataset`. `make` makes another from a seed; `key` is its place in the spec, for errors."""

    in_graph = True
    batch_size = None

    def __init__(
        self,
        dataset: Any,
        make: Callable[[int], Any],
        *,
        key: str,
        seed: int,
        class_weight: Sequence[float] | None = None,
        steps_per_epoch: int | None = None,
    ) -> None:
        self._make, self._key, self._seed = make, key, seed
        self._weighted = Weighted(class_weight)
        cardinality = int(dataset.cardinality())
        if cardinality == 0:
            raise empty(key)
        self.steps_per_epoch = steps_per_epoch or (cardinality if cardinality > 0 else None)
        self.type_spec = self._weighted.type_spec(any_rows(dataset.element_spec))
        self._calls_python = _calls_python(dataset)
        self._keeps = not self._calls_python
        self._iterator = iter(_endless(dataset))

    def at(self, position: Any, step: Any = None) -> Any:
        """The next batch; in a graph or not."""
        return self._weighted(self._iterator.get_next())

    def state(self) -> bytes | None:
        """Where it stands; None where that cannot be saved."""
        if not self._keeps:
            return None
        try:
            place = tf.raw_ops.SerializeIterator(
                resource_handle=self._iterator._iterator_resource, external_state_policy=_FAIL
            )
            return bytes(tf.io.serialize_tensor(place).numpy())
        except tf.errors.OpError:
            self._keeps = False
            return None

    def go_to(self, step: int, state: bytes | None) -> str | None:
        """Go on at `step`; why that is not exactly where it stood, None where it is."""
        if step == 0:
            return None
        if state is not None:
            with contextlib.suppress(tf.errors.OpError):  # the pipeline is another one now
                place = tf.io.parse_tensor(state, tf.variant)
                tf.raw_ops.DeserializeIterator(resource_handle=self._iterator._iterator_resource, serialized=place)
                return None
        dataset = self._make(self._seed + step)
        steps = self.steps_per_epoch
        dataset = _endless(dataset).skip(step % steps if steps else 0)
        tf.raw_ops.MakeIterator(dataset=dataset._variant_tensor, iterator=self._iterator._iterator_resource)
        where = "goes on in the same place of its epoch, drawn anew" if steps else "begins its data anew"
        return f"{self._key}: {self._why(state)}, so it {where}"

    def _why(self, state: bytes | None) -> str:
        if self._calls_python:
            return "the pipeline calls Python, whose place cannot be saved"
        return "the pipeline is another one now" if state is not None else "the pipeline's state cannot be saved"


class Generated:
    """The training batches of a `keras.utils.PyDataset`, one after the other in an order that follows from the seed."""

    in_graph = False
    batch_size = None

    def __init__(
        self,
        dataset: Any,
        *,
        key: str,
        seed: int,
        shuffle: bool,
        class_weight: Sequence[float] | None = None,
    ) -> None:
        self._dataset, self._key, self._seed, self._shuffle = dataset, key, seed % 2**32, shuffle
        self._weighted = Weighted(class_weight)
        self._order: tuple[int, Any] = (-1, None)
        if not len(dataset):
            raise empty(key)
        self.type_spec = self._weighted.type_spec(any_rows(tensors(dataset[0])))

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return len(self._dataset)

    def at(self, position: Any, step: Any = None) -> Any:
        """The batch of `step`."""
        epoch, place = divmod(int(step), len(self._dataset))
        if self._order[0] != epoch:
            if self._order[0] == epoch - 1 and epoch > 0:
                self._dataset.on_epoch_end()
            draw = np.random.default_rng([self._seed, epoch])
            number = len(self._dataset)
            self._order = (epoch, draw.permutation(number) if self._shuffle else np.arange(number))
        # What `__getitem__` draws (augmentation) follows from the step, so that a run that was stopped draws it again.
        draw_from = int(np.random.SeedSequence([self._seed, int(step)]).generate_state(1)[0])
        random.seed(draw_from)
        np.random.seed(draw_from)
        return self._weighted(tensors(self._dataset[int(self._order[1][place])]))

    def state(self) -> bytes | None:
        """Nothing of it is kept: a batch follows from its number."""
        return None

    def go_to(self, step: int, state: bytes | None) -> str | None:
        """What a stop forgets."""
        if step and type(self._dataset).on_epoch_end is not keras.utils.PyDataset.on_epoch_end:
            return f"{self._key}: what on_epoch_end of {type(self._dataset).__name__} does is not kept over a stop"
        return None


class Stream:
    """A split that is evaluated batch by batch. `make` gives its batches from the first; `most` bounds them."""

    def __init__(self, make: Callable[[], Iterator[Any]], *, key: str, most: int | None = None) -> None:
        self._make, self._key, self._most = make, key, most
        self._held: list[Any] = []
        self._is_whole = True
        self.count: int | None = 0
        """Rows; None where they are more than are held."""
        digest, size = hashlib.sha256(), 0
        for batch in self._batches():
            size += sum(_size_of(one) for one in leaves(batch))
            if size > HELD_BYTES and self._held:
                self._is_whole = False
                break
            for one in leaves(batch):
                _add(digest, one)
            self._held.append(batch)
            self.count += int(rows_of(batch))
        if not self._held:
            raise empty(key)
        if not self._is_whole:
            self._held, self.count = self._held[:1], None
        self.sha256 = digest.hexdigest()

    def _batches(self) -> Iterator[Any]:
        for number, batch in enumerate(self._make()):
            if self._most is not None and number >= self._most:
                return
            yield batch

    def __iter__(self) -> Iterator[Any]:
        """Its batches, as tensors."""
        yield from self._held if self._is_whole else self._batches()

    @property
    def type_spec(self) -> Any:
        """The type specs of a batch, with any number of rows."""
        return any_rows(self._held[0])

    def first(self, count: int) -> Any:
        """The first rows of the first batch, `count` of them where it has so many."""
        return tf.nest.map_structure(lambda one: _cut(one, count), self._held[0])


def _cut(one: Any, count: int) -> Any:
    if isinstance(one, tf.SparseTensor):
        size = tf.concat([[tf.minimum(one.dense_shape[0], count)], one.dense_shape[1:]], axis=0)
        return tf.sparse.slice(one, tf.zeros_like(one.dense_shape), size)
    return one[:count] if len(one.shape) else one


def empty(key: str) -> DataProblem:
    return DataProblem(f"{key} gives no batch", left_alone="Nothing was changed.")


def tensors(structure: Any) -> Any:
    """Arrays as tensors, numbers of 64 bits behind the point as of 32, as `fit` takes them."""
    if isinstance(structure, list):
        structure = tuple(structure)
    return tf.nest.map_structure(_tensor, structure)


def _tensor(one: Any) -> Any:
    if isinstance(one, (tf.Tensor, tf.RaggedTensor, tf.SparseTensor)):
        return tf.cast(one, tf.float32) if one.dtype == tf.float64 else one
    array = np.asarray(one.to_numpy() if hasattr(one, "to_numpy") else one)
    return tf.constant(array.astype(keras.config.floatx()) if array.dtype == np.float64 else array)


def _endless(dataset: Any) -> Any:
    return dataset if int(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY else dataset.repeat()


def _calls_python(dataset: Any) -> bool:
    """Whether a part of the pipeline is Python, of which TensorFlow saves nothing and says nothing."""
    graph = tf.compat.v1.GraphDef.FromString(dataset._as_serialized_graph().numpy())
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return any(node.op in PYTHON_OPERATIONS or node.op == _GENERATOR for node in nodes)


def _size_of(one: Any) -> int:
    if isinstance(one, tf.RaggedTensor):
        one = one.flat_values
    elif isinstance(one, tf.SparseTensor):
        one = one.values
    if one.dtype == tf.string:
        return sum(map(len, np.ravel(one.numpy())))
    return int(np.prod(one.shape)) * int(one.dtype.size)


def _add(digest: Any, one: Any) -> None:
    """Add the content of a tensor to a digest."""
    parts = tf.nest.flatten(one, expand_composites=True)
    for part in parts:
        array = part.numpy()
        digest.update(f"{part.dtype.name} {tuple(part.shape)}".encode())
        if array.dtype == object:
            for word in np.ravel(array):
                digest.update(b"%d:%b" % (len(word), word))
        else:
            digest.update(np.ascontiguousarray(array).tobytes())
