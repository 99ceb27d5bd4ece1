"""What a model computes, as a hash of the graph that TensorFlow traces: the same however the code is written down.

Left out: names, devices, source lines, seeds, batch size, and the order of tracing. Followed: functions that are called
(as if they were written in place), loops and branches, constants by their content, and which variable is read where.

A variable has no name in the graph but a *role*: its number in the order in which a walk from the outputs meets it. So
a renamed layer moves nothing, and the roles of two graphs with one digest say which old variable is which new one.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from expmgr.train.model.checkpoints import live_variables

#: Operations whose inputs may be exchanged.
_COMMUTING = frozenset(
    {"Add", "AddN", "AddV2", "BitwiseAnd", "BitwiseOr", "Equal", "LogicalAnd", "LogicalOr", "Maximum", "Minimum", "Mul"}
    | {"NotEqual", "SquaredDifference", "effects"}
)
#: Operations that hand on what they are given.
_PASSING = frozenset({"Identity", "IdentityN", "StopGradient", "PreventGradient", "EnsureShape", "CheckNumerics"})
_WRITING = ("Assign", "ResourceScatter", "ResourceApply", "ResourceSparseApply", "Apply", "SparseApply", "Scatter")
#: Attributes that say nothing of what is computed: how, where, in which shape of a batch, from which seed.
_SILENT = frozenset(
    {"container", "shared_name", "seed", "seed2", "parallel_iterations", "output_shapes", "config_proto", "config"}
    | {"executor_type", "validate_shape", "Tout", "Tin", "swap_memory", "message", "is_stateless", "f", "body", "cond"}
    | {"then_branch", "else_branch", "branches"}
)
#: Where an operation takes its seed: places among its inputs.
_SEEDS = {
    "StatelessMultinomial": {2},
    "StatelessParameterizedTruncatedNormal": {1},
    "StatelessRandomGetKeyCounter": {0},
    "StatelessRandomGetKeyCounterAlg": {0},
}
_FLOAT_TYPES = frozenset({tf.float16.as_datatype_enum, tf.bfloat16.as_datatype_enum, tf.float32.as_datatype_enum})
_FLOAT_TYPES |= {tf.float64.as_datatype_enum}


class CannotTrace(Exception):
    """The model's Python cannot be traced: it looks at values."""


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

    `data` are specs, (inputs, targets) or (inputs, targets, weights). What metrics remember does not count.
    """

    def step(given: Any) -> list[Any]:
        model.train_step(given)
        return []

    return _traced(step, data, model, order, lambda: model.metrics_variables)


def _traced(
    function: Callable[[Any], Any],
    specs: Any,
    model: Any,
    order: Sequence[str],
    ignored: Callable[[], Iterable[Any]],
    *,
    counts_seeds: bool = False,
) -> Traced:
    try:
        concrete = tf.function(function, autograph=False).get_concrete_function(specs)
    except Exception as error:  # whatever user code raises at a tensor without a value
        first = next(iter(str(error).splitlines()), "")
        raise CannotTrace(f"{type(error).__name__}: {first[:200]}") from error
    # The trace built the variables of metrics, so what is ignored is known only now.
    leaves = [*inputs_of(specs, order), *_captures(concrete, model, {id(one) for one in ignored()})]
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
    graph = _Graph(function, functions, leaves, is_blind=False, counts_seeds=counts_seeds)
    digest, roles = graph.canonical()
    blind, blind_roles = _Graph(function, functions, leaves, is_blind=True, counts_seeds=counts_seeds).canonical()
    return Traced(digest, blind, roles, blind_roles, graph.by_names(names), graph.neutral())


def _all_nodes(function: Any, library: Mapping[str, Any]) -> Iterator[Any]:
    yield from function.node_def
    for one in library.values():
        yield from one.node_def


def _writes(node: Any) -> bool:
    return bool(node.op.startswith(_WRITING))


def digest_of(parts: Iterable[str]) -> str:
    """A short digest of a list of texts."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        content = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(content))
        digest.update(content)
    return digest.hexdigest()


# What a graph is given.


#: Operations that call back into Python: what that computes, its code alone can say.
PYTHON_OPERATIONS = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc"})
#: Operations that draw from a generator of tf.random's, whose state is a variable.
_GENERATORS = frozenset(
    {"RngReadAndSkip", "StatefulUniform", "StatefulUniformInt", "StatefulUniformFullInt", "StatefulStandardNormal"}
    | {"StatefulStandardNormalV2", "StatefulTruncatedNormal", "StatefulRandomBinomial", "NonDeterministicInts"}
)


#: It is given the seed of a sampler, and draws nothing.
_DRAWS_NOT = frozenset({"ComputeAccidentalHits"})


def draws_of(nodes: Iterable[Any]) -> list[str]:
    """The operations among `nodes` that draw random numbers and keep their state to themselves: those that are given a
    seed and are not stateless (tf.random's, samplers of candidates, random crops, fractional pools)."""
    found = {
        node.op for node in nodes if node.op in _GENERATORS or ("seed2" in node.attr and "Stateless" not in node.op)
    }
    return sorted(found - _DRAWS_NOT)


@dataclass(frozen=True)
class Leaf:
    """Something that a graph is given: a variable, which has a role, or what its label says."""

    label: str
    variable: Any = None
    is_ignored: bool = False


def inputs_of(specs: Any, order: Sequence[str]) -> Iterator[Leaf]:
    """A leaf for each tensor of `specs`: its place, where a key of a dict counts by its number in `order`."""
    numbers = {name: number for number, name in enumerate(order)}
    for path in _paths(specs):
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


def _captures(concrete: Any, model: Any, ignored: set[int]) -> Iterator[Leaf]:
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


# The graph.


@dataclass(frozen=True)
class _Node:
    operation: str
    detail: str
    inputs: tuple[int, ...]
    neutral: str | None = None
    """What stands for `detail` where single numbers do not count; None: itself."""


@dataclass(frozen=True)
class _Values:
    """What a function gives back, and what it does besides (nodes)."""

    outputs: list[int]
    effects: list[int]


class _Graph:
    """All that a traced function computes, every function in it written out in place; equal nodes are one."""

    def __init__(
        self,
        function: Any,
        library: Mapping[str, Any],
        leaves: Sequence[Leaf],
        *,
        is_blind: bool,
        counts_seeds: bool = False,
    ) -> None:
        self.is_blind = is_blind
        self.counts_seeds = counts_seeds
        self.library = library
        self.nodes: list[_Node] = []
        self._known: dict[_Node, int] = {}
        self._leaves: dict[int, Leaf] = {}
        self.ignored: set[int] = set()
        self._depth = 0
        arguments = [self._leaf(number, leaf) for number, leaf in enumerate(leaves)]
        self._values = self.call(function, arguments)

    def _leaf(self, number: int, leaf: Leaf) -> int:
        if leaf.variable is None:
            return self.node("leaf", leaf.label)
        node = self.node("variable", str(number))
        self._leaves[node] = leaf
        if leaf.is_ignored:
            self.ignored.add(node)
        return node

    def node(self, operation: str, detail: str, inputs: Iterable[int] = (), neutral: str | None = None) -> int:
        """The number of that node, made where it is new."""
        made = _Node(operation, detail, tuple(inputs), neutral)
        if made not in self._known:
            self._known[made] = len(self.nodes)
            self.nodes.append(made)
        return self._known[made]

    def call(self, function: Any, arguments: Sequence[int]) -> _Values:
        return _Body(self, function, arguments).values()

    def fresh(self, count: int) -> list[int]:
        """Leaves for the variables of a loop: told apart by the depth of the loop and their number."""
        return [self.node("leaf", f"loop {self._depth} {number}") for number in range(count)]

    def loop(self, cond: Any, body: Any, start: Sequence[int]) -> _Values:
        self._depth += 1
        try:
            carried = self.fresh(len(start))
            once = self.call(body, carried).outputs
            moves = [number for number, (one, two) in enumerate(zip(carried, once, strict=True)) if one != two]
            # What the body hands on unchanged is no variable of the loop: which place it has is the tracing's affair.
            fresh = dict(zip(moves, self.fresh(len(moves)), strict=True))
            arguments = [fresh.get(number, node) for number, node in enumerate(start)]
            test = self.call(cond, arguments)
            done = self.call(body, arguments)
        finally:
            self._depth -= 1
        parts = [*(start[number] for number in moves), *test.outputs, *(done.outputs[number] for number in moves)]
        whole = self.node("loop", "", parts)
        places = {number: self.node("output", str(place), [whole]) for place, number in enumerate(moves)}
        effects = [self.node("effects", "loop", [whole, *done.effects])] if done.effects else []
        return _Values([places.get(number, node) for number, node in enumerate(start)], effects)

    def branch(self, branches: Sequence[Any], choice: int, arguments: Sequence[int]) -> _Values:
        taken = [self.call(one, arguments) for one in branches]
        outputs = [
            self.node("branch", "", [choice, *(one.outputs[place] for one in taken)])
            for place in range(len(taken[0].outputs))
        ]
        effects = [
            self.node("branch effects", str(number), [choice, self.node("effects", "", one.effects)])
            for number, one in enumerate(taken)
            if one.effects
        ]
        return _Values(outputs, effects)

    # Hashes.

    def canonical(self) -> tuple[str, dict[int, int]]:
        """The digest, and the role of each variable."""
        roles = self._roles(self._hashes({}))
        digest = self._digest(self._hashes(roles))
        return digest, {id(self._leaves[node].variable): role for node, role in roles.items()}

    def by_names(self, names: Mapping[int, str]) -> str:
        """The digest, a variable known by its name."""
        return self._digest(self._hashes({node: names.get(id(one.variable), "") for node, one in self._leaves.items()}))

    def neutral(self) -> str:
        """The digest, every single number like any other."""
        return self._digest(self._hashes(self._roles(self._hashes({}, neutral=True)), neutral=True))

    def _digest(self, hashes: Sequence[str]) -> str:
        parts = [hashes[node] for node in self._values.outputs]
        return digest_of([*parts, "effects", *sorted({hashes[node] for node in self._values.effects})])

    def is_constant(self, number: int) -> bool:
        """Whether nothing that a node is made of is a variable, or an input."""
        seen, stack = set(), [number]
        while stack:
            one = stack.pop()
            node = self.nodes[one]
            if one in self._leaves or (node.operation == "leaf" and not node.detail.startswith("constant")):
                return False
            if one not in seen:
                seen.add(one)
                stack.extend(node.inputs)
        return True

    def _hashes(self, roles: Mapping[int, Any], *, neutral: bool = False) -> list[str]:
        """The hash of every node, its inputs' before its own; without roles all variables of a kind are alike."""
        hashes: list[str] = []
        for number, node in enumerate(self.nodes):
            inputs = [hashes[one] for one in node.inputs]
            detail = node.neutral if neutral and node.neutral is not None else node.detail
            if leaf := self._leaves.get(number):
                shape, _, dtype = leaf.label.rpartition(" ")
                detail = shape if self.is_blind and "float" in dtype else leaf.label
                detail += f" #{roles[number]}" if number in roles else ""
            if node.operation in _COMMUTING:
                inputs.sort()
            hashes.append(digest_of([node.operation, detail, *inputs]))
        return hashes

    def _roles(self, plain: Sequence[str]) -> dict[int, int]:
        """Number the variables as a walk meets them: from the outputs in their order, then from the effects."""
        roles: dict[int, int] = {}
        seen: set[int] = set()
        stack = [*self._values.outputs, *sorted(self._values.effects, key=plain.__getitem__)][::-1]
        while stack:
            number = stack.pop()
            if number in seen:
                continue
            seen.add(number)
            if number in self._leaves:
                roles[number] = len(roles)
            inputs = list(self.nodes[number].inputs)
            if self.nodes[number].operation in _COMMUTING:
                inputs.sort(key=plain.__getitem__)
            stack.extend(reversed(inputs))
        return roles


class _Body:
    """One call of one function."""

    def __init__(self, graph: _Graph, function: Any, arguments: Sequence[int]) -> None:
        self._graph = graph
        self._function = function
        self._nodes = {node.name: node for node in function.node_def}
        self._made: dict[str, list[int] | dict[str, int] | int] = {}
        """By name: the outputs in their order, by their names, or the node of an operation that has them."""
        self._wrote: dict[str, tuple[int, int]] = {}
        """Name of a node that writes to a variable: the variable, and the node of the effect."""
        self._effects: list[int] = []
        self._arguments = {one.name: node for one, node in zip(function.signature.input_arg, arguments, strict=True)}

    def values(self) -> _Values:
        for name in self._nodes:
            self._make(name)
        outputs = [self._value(self._function.ret[one.name]) for one in self._function.signature.output_arg]
        return _Values(outputs, self._effects)

    def _value(self, text: str) -> int:
        """The node of `argument`, or of `name:output:place`."""
        if ":" not in text:
            return self._arguments[text]
        name, output, place = text.split(":")
        self._make(name)
        found = self._made[name]
        if isinstance(found, list):
            return found[int(place)]
        if isinstance(found, dict):
            return found[output]
        return self._graph.node("output", f"{output} {place}", [found])

    def _make(self, start: str) -> None:
        """Make the node `start`, those that it needs before it."""
        stack = [start]
        while stack:
            name = stack[-1]
            missing = [one for one in self._needed(self._nodes[name]) if one not in self._made]
            if name in self._made:
                stack.pop()
            elif missing:
                stack.extend(missing)
            else:
                self._made[name] = self._node(self._nodes[name])
                stack.pop()

    @staticmethod
    def _needed(node: Any) -> Iterator[str]:
        for text in node.input:
            if text.startswith("^"):
                yield text[1:]
            elif ":" in text:
                yield text.partition(":")[0]

    def _node(self, node: Any) -> list[int] | dict[str, int] | int:
        graph, operation = self._graph, node.op
        inputs = [self._value(text) for text in node.input if not text.startswith("^")]
        if operation in _PASSING:
            return inputs
        if operation in PYTHON_OPERATIONS:
            raise CannotTrace("it calls Python of which the graph says nothing (py_function, numpy_function)")
        if operation == "Cast" and graph.is_blind and self._is_float_cast(node):
            return inputs
        function = (
            node.attr["f"].func.name if operation in ("PartitionedCall", "StatefulPartitionedCall") else operation
        )
        if function in graph.library:
            return self._taken(graph.call(graph.library[function], inputs))
        if operation in ("While", "StatelessWhile"):
            cond, body = (graph.library[node.attr[key].func.name] for key in ("cond", "body"))
            return self._taken(graph.loop(cond, body, inputs))
        if operation in ("If", "StatelessIf", "Case", "StatelessCase"):
            return self._taken(graph.branch(self._branches(node), inputs[0], inputs[1:]))
        if operation == "BroadcastGradientArgs":
            # In the gradient of a + b: the axes of each side against the other. b + a has them the other way round.
            one, two = inputs
            return {"r0": graph.node(operation, "", [one, two]), "r1": graph.node(operation, "", [two, one])}
        return self._plain(node, operation, inputs)

    def _branches(self, node: Any) -> list[Any]:
        if "Case" in node.op:
            return [self._graph.library[one.name] for one in node.attr["branches"].list.func]
        return [self._graph.library[node.attr[key].func.name] for key in ("then_branch", "else_branch")]

    def _taken(self, values: _Values) -> list[int]:
        self._effects.extend(values.effects)
        return values.outputs

    def _plain(self, node: Any, operation: str, inputs: list[int]) -> int:
        graph = self._graph
        seeds = _SEEDS.get(operation, ())
        if operation.startswith(("StatelessRandom", "StatelessTruncated")) and not seeds:
            seeds = {1, 2} if operation.endswith("V2") else {1}
        kept = [
            one
            for place, one in enumerate(inputs)
            if place not in seeds or (graph.counts_seeds and graph.is_constant(one))
        ]
        if operation == "ReadVariableOp":  # what was written to it before is what it reads
            written = [self._wrote[text[1:]] for text in node.input if text.startswith("^") and text[1:] in self._wrote]
            kept.extend(sorted(effect for target, effect in written if target == inputs[0]))
        made = graph.node(operation, self._detail(node), kept, "number" if _is_number(node) else None)
        if operation.startswith(_WRITING) and inputs[0] not in graph.ignored:
            self._wrote[node.name] = (inputs[0], made)
            self._effects.append(made)
        return made

    def _is_float_cast(self, node: Any) -> bool:
        return node.attr["SrcT"].type in _FLOAT_TYPES and node.attr["DstT"].type in _FLOAT_TYPES

    def _detail(self, node: Any) -> str:
        """The attributes that count."""
        parts: list[str] = []
        for name in sorted(node.attr):
            if not name.startswith("_") and name not in _SILENT:
                parts.extend((name, self._attribute(node.attr[name])))
        return digest_of(parts)

    def _attribute(self, value: Any) -> str:
        kind = value.WhichOneof("value")
        if kind == "tensor":
            return array_digest(tf.make_ndarray(value.tensor), is_blind=self._graph.is_blind)
        if kind == "func":
            function = self._graph.library[value.func.name]
            leaves = [self._graph.node("leaf", f"argument {at}") for at in range(len(function.signature.input_arg))]
            inner = self._graph.call(function, leaves)
            return str([*inner.outputs, *inner.effects])
        if kind == "type" and self._graph.is_blind and value.type in _FLOAT_TYPES:
            return "float"
        return str(value.SerializeToString(deterministic=True).hex())


def _is_number(node: Any) -> bool:
    """Whether a node is a single floating-point number."""
    if node.op != "Const" or node.attr["dtype"].type not in _FLOAT_TYPES:
        return False
    return all(dimension.size == 1 for dimension in node.attr["value"].tensor.tensor_shape.dim)
