"""The fingerprint: a hash of what a model computes, taken from its traced graph.

Left out: names, devices, source lines, seeds, batch size, and the order of tracing. Followed: functions that are called
(as if they were written in place), loops and branches, constants by their content, and which variable is read where.

A variable has no name in the graph but a *role*: its number in the order in which a walk from the outputs meets it. So
a renamed layer moves nothing, and the roles of two graphs with one digest say which old variable is which new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from expmgr.train.model.checkpoints import live_variables
from expmgr.train.signature.graph import CannotTrace, Graph
from expmgr.train.signature.leaves import Leaf, captures, inputs_of
from expmgr.train.signature.operations import WRITING


@dataclass(frozen=True)
class Traced:
    """The fingerprint of one function of a model."""

    digest: str
    blind: str
    """The digest of the same graph, blind to the width of floating-point numbers and to casts between them."""
    roles: Mapping[int, int]
    """`id` of a variable to its number; a variable that the function does not use has none."""
    blind_roles: Mapping[int, int]
    named: str = ""
    """The digest of the same graph in which a variable is known by its name: where names stay, whether each still plays
    its part."""
    neutral: str = ""
    """The digest of the same graph in which every single number is like any other: rates, coefficients, bounds."""


def trace_inference(model: Any, inputs: Any, order: Sequence[str] = ()) -> Traced:
    """The fingerprint of `model(inputs, training=False)`.

    `inputs` are `tf.TensorSpec` in the structure that the model takes. `order` gives the keys of a dict of inputs in the
    order that counts; a key that it has not counts by its name. Raises `CannotTrace`.
    """
    return _traced(lambda given: model(given, training=False), inputs, model, order, tuple, counts_seeds=True)


def trace_training(model: Any, data: Any, order: Sequence[str] = ()) -> Traced:
    """The fingerprint of what `model.train_step(data)` does to weights and optimizer: the loss and the update rule.

    `data` are type specs, (inputs, targets) or (inputs, targets, weights). What metrics remember does not count.
    """

    def step(given: Any) -> list[Any]:
        model.train_step(given)
        return []

    return _traced(step, data, model, order, lambda: model.metrics_variables)


def _traced(
    function: Callable[[Any], Any],
    type_specs: Any,
    model: Any,
    order: Sequence[str],
    ignored: Callable[[], Iterable[Any]],
    *,
    counts_seeds: bool = False,
) -> Traced:
    try:
        concrete = tf.function(function, autograph=False).get_concrete_function(type_specs)
    except Exception as error:  # whatever user code raises at a tensor without a value
        first = next(iter(str(error).splitlines()), "")
        raise CannotTrace(f"{type(error).__name__}: {first[:200]}") from error
    # The trace built the variables of metrics, so what is ignored is known only now.
    leaves = [*inputs_of(type_specs, order), *captures(concrete, model, {id(one) for one in ignored()})]
    library = concrete.graph.as_graph_def().library.function
    live = live_variables(model)
    names = {id(one): path for group in (live.weights, live.optimizer) for path, one in group.items()}
    return fingerprint(concrete.function_def, library, leaves, names, counts_seeds=counts_seeds)


def fingerprint(
    function: Any,
    library: Iterable[Any],
    leaves: Sequence[Leaf],
    names: Mapping[int, str],
    *,
    counts_seeds: bool = False,
) -> Traced:
    """The fingerprint of `function` (a `FunctionDef`, or what looks like one), which calls those of `library`; `leaves`
    say what each of its arguments is, `names` what a variable is called, by its `id`.

    `counts_seeds`: a seed that is a constant counts, since the function gives the same for it each time. One that a
    variable holds goes on by itself. Raises `CannotTrace`.
    """
    functions = {one.signature.name: one for one in library}
    if not function.signature.output_arg and not any(_writes(node) for node in _all_nodes(function, functions)):
        raise CannotTrace("it changes nothing that a graph shows")
    graph = Graph(function, functions, leaves, is_blind=False, counts_seeds=counts_seeds)
    digest, roles = graph.canonical()
    blind, blind_roles = Graph(function, functions, leaves, is_blind=True, counts_seeds=counts_seeds).canonical()
    return Traced(digest, blind, roles, blind_roles, graph.by_names(names), graph.neutral())


def _all_nodes(function: Any, library: Mapping[str, Any]) -> Iterator[Any]:
    yield from function.node_def
    for one in library.values():
        yield from one.node_def


def _writes(node: Any) -> bool:
    return bool(node.op.startswith(WRITING))
