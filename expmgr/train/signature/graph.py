"""A traced graph in canonical form, without names of tensors and without the order of tracing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from expmgr.train.signature.leaves import Leaf, array_digest, digest_of
from expmgr.train.signature.operations import COMMUTING, FLOAT_TYPES, PASSING, PYTHON_OPERATIONS, SEEDS, SILENT, WRITING


class CannotTrace(Exception):
    """The model's Python cannot be traced: it looks at values."""


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


class Graph:
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
            if node.operation in COMMUTING:
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
            if self.nodes[number].operation in COMMUTING:
                inputs.sort(key=plain.__getitem__)
            stack.extend(reversed(inputs))
        return roles


class _Body:
    """One call of one function."""

    def __init__(self, graph: Graph, function: Any, arguments: Sequence[int]) -> None:
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
        if operation in PASSING:
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
        seeds = SEEDS.get(operation, ())
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
        if operation.startswith(WRITING) and inputs[0] not in graph.ignored:
            self._wrote[node.name] = (inputs[0], made)
            self._effects.append(made)
        return made

    def _is_float_cast(self, node: Any) -> bool:
        return node.attr["SrcT"].type in FLOAT_TYPES and node.attr["DstT"].type in FLOAT_TYPES

    def _detail(self, node: Any) -> str:
        """The attributes that count."""
        parts: list[str] = []
        for name in sorted(node.attr):
            if not name.startswith("_") and name not in SILENT:
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
        if kind == "type" and self._graph.is_blind and value.type in FLOAT_TYPES:
            return "float"
        return str(value.SerializeToString(deterministic=True).hex())


def _is_number(node: Any) -> bool:
    """Whether a node is a single floating-point number."""
    if node.op != "Const" or node.attr["dtype"].type not in FLOAT_TYPES:
        return False
    return all(dimension.size == 1 for dimension in node.attr["value"].tensor.tensor_shape.dim)
