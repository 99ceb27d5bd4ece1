"""What a traced graph reads: inputs, variables, tables and constants."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def digest_of(parts: Iterable[str]) -> str:
    """A short digest of a list of texts."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        content = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(content))
        digest.update(content)
    return digest.hexdigest()


@dataclass(frozen=True)
class Leaf:
    """Something that a graph is given: a variable, which has a role, or what its label says."""

    label: str
    variable: Any = None
    is_ignored: bool = False


def inputs_of(type_specs: Any, order: Sequence[str]) -> Iterator[Leaf]:
    """A leaf for each tensor of `type_specs`: its place, where a key of a dict counts by its number in `order`."""
    numbers = {name: number for number, name in enumerate(order)}
    for path in _paths(type_specs):
        yield Leaf("input " + "/".join(f"#{numbers[part]}" if part in numbers else str(part) for part in path))


def _paths(structure: Any) -> Iterator[tuple[Any, ...]]:
    """The path of each leaf, in the order of `tf.nest.flatten`: by number in a sequence, by sorted key in a dict."""
    if isinstance(structure, Mapping):
        for key in sorted(structure):
            yield from ((key, *rest) for rest in _paths(structure[key]))
    elif isinstance(structure, (list, tuple)):
        for number, part in enumerate(structure):
            yield from ((number, *rest) for rest in _paths(part))
    elif structure is not None:
        yield ()


def captures(concrete: Any, model: Any, ignored: set[int]) -> Iterator[Leaf]:
    optimizer = getattr(model, "optimizer", None)
    variables = itertools.chain(model.variables, optimizer.variables if optimizer else (), model.metrics_variables)
    handles = {one.value.handle._id: one for one in variables}
    known = dict(_layer_tensors(model))
    tables = _table_types(concrete)
    others = {one.handle._id: one for one in concrete.graph.variables}
    for tensor in concrete.captured_inputs:
        handle = getattr(tensor, "_id", 0)
        if handle in handles:
            variable = handles[handle]
            yield Leaf(f"{tuple(variable.shape)} {variable.dtype}", variable, id(variable) in ignored)
        elif handle in known:
            yield Leaf(known[handle])
        elif tensor.dtype == tf.resource:
            yield Leaf(_table(tensor, tables) or _other(others.get(handle)))
        elif tensor.dtype == tf.variant:
            yield Leaf("resource")
        else:
            yield Leaf(f"constant {array_digest(tensor.numpy())}")


def _table_types(concrete: Any) -> set[tuple[int, int]]:
    """The types of keys and values of all lookups in the graph and its functions."""
    graph = concrete.graph.as_graph_def()
    nodes = itertools.chain(graph.node, *(one.node_def for one in graph.library.function))
    return {(node.attr["Tin"].type, node.attr["Tout"].type) for node in nodes if node.op.startswith("LookupTable")}


def _table(handle: Any, types: Iterable[tuple[int, int]]) -> str | None:
    """The content of a lookup table of one's own, which the graph does not hold; None for what is no table."""
    for of_keys, of_values in types:
        try:
            keys, values = tf.raw_ops.LookupTableExportV2(table_handle=handle, Tkeys=of_keys, Tvalues=of_values)
        except (tf.errors.OpError, TypeError):
            continue  # of other types, or none
        pairs = zip(keys.numpy().tolist(), values.numpy().tolist(), strict=True)
        return f"table {digest_of(sorted(repr(pair) for pair in pairs))}"
    return None


def _other(variable: Any) -> str:
    """A variable that the model does not know as its own: no checkpoint holds it, so its value counts."""
    if variable is None or not variable.dtype.is_floating:
        return "resource"
    return f"constant {array_digest(tf.identity(variable).numpy())}"


def _layer_tensors(model: Any) -> Iterator[tuple[int, str]]:
    """What preprocessing layers hold that is no variable, by the id of the tensor.

    A lookup table stands for its content. Statistics stand for themselves, whatever their values: a rule of the guard
    knows these, and what it lets pass must not hide another change.
    """
    for layer in model._flatten_layers():
        handle = getattr(getattr(layer, "lookup_table", None), "resource_handle", None)
        if handle is not None and hasattr(layer, "get_vocabulary"):
            yield handle._id, f"table {digest_of(str(word) for word in layer.get_vocabulary())}"
        if isinstance(layer, keras.layers.Normalization):
            for name in ("mean", "variance"):
                tensor = getattr(layer, name, None)
                if tensor is not None and hasattr(tensor, "_id"):
                    yield tensor._id, f"normalisation {name} {tuple(tensor.shape)}"


def array_digest(value: Any, *, is_blind: bool = False) -> str:
    """The content of a constant; blind, to two significant digits, since a narrow float holds no more."""
    array = np.asarray(value)
    if array.dtype == object:
        return digest_of(repr(item) for item in array.ravel().tolist())
    if is_blind and array.dtype.kind in "fV":
        mantissa, exponent = np.frexp(array.astype(np.float32))
        return digest_of([str(array.shape), str(np.round(mantissa * 32).tolist()), str(exponent.tolist())])
    return digest_of([str(array.dtype), str(array.shape), hashlib.sha256(array.tobytes()).hexdigest()])
