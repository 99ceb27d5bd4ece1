"""Builds the graph of an Estimator in one mode: its variables, optimizer settings and fingerprint.

It is built as the Estimator itself builds it, on placeholders in the place of data, and nothing of it is run but the
initial values of a few scalars.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf

from expmgr.checkpoints.signature import Fingerprint, Variable
from expmgr.errors import UserCodeFailed
from expmgr.train.signature.fingerprint import Traced, fingerprint
from expmgr.train.signature.graph import CannotTrace
from expmgr.train.signature.leaves import Leaf, array_digest, digest_of, inputs_of
from expmgr.train.signature.live import fingerprint_of
from expmgr.train.signature.operations import PYTHON_OPERATIONS, draws_of

_INFER, _TRAIN = "infer", "train"
_VARIABLES = frozenset({"VarHandleOp", "VariableV2", "Variable"})
_TABLES = frozenset({"HashTable", "HashTableV2", "MutableHashTable", "MutableHashTableV2"})
_FILLING = ("LookupTableImport", "InitializeTable")
#: Loops and branches as TensorFlow 1 wrote them: a graph with cycles.
_OLD_CONTROL_FLOW = frozenset({"Merge", "NextIteration", "RefMerge", "RefNextIteration"})
#: What an operation that applies a gradient is given beside it, and what Keras calls it.
_SETTINGS = {
    "lr": "learning_rate", "alpha": "learning_rate", "beta1": "beta_1", "beta2": "beta_2", "epsilon": "epsilon",
    "momentum": "momentum", "rho": "rho", "l1": "l1_regularization_strength", "l2": "l2_regularization_strength",
    "l2_shrinkage": "l2_shrinkage_regularization_strength", "lr_power": "learning_rate_power",
}  # fmt: skip


@dataclass(frozen=True)
class Mode:
    """What an Estimator makes in one mode."""

    variables: list[Variable]
    """Those that a checkpoint holds, as it names them, in the order in which they were made."""
    inference: Fingerprint
    roles: dict[str, tuple[int | None, int | None]]
    """Name to its role, and its role in the graph that is blind to precision."""
    kinds: list[str]
    """Operations that apply gradients."""
    settings: dict[str, Any]
    """What these are given as constants, or hold as scalars that no step changes; by Keras' names."""
    hyper: dict[str, str]
    """Setting to the name of the variable that holds it: a checkpoint would bring the old value back."""
    draws: list[str]
    """Operations that give what no checkpoint keeps: random numbers, and what Python says."""
    unkept: list[str]
    """What else goes into a step and into no checkpoint, in words: variables that are not saved, hooks that count."""


def look(estimator: Any, mode: str, type_specs: Any, order: Sequence[str], code: str | None) -> Mode:
    """Build the graph of `mode` (`infer`, `eval`, `train`) for (features, labels) of `type_specs`."""
    with tf.Graph().as_default() as graph:
        tf.compat.v1.set_random_seed(estimator.config.tf_random_seed or 0)
        given = tf.nest.map_structure(_placeholder, type_specs)
        features, labels = given
        step = estimator._create_and_assert_global_step(graph)  # what train, evaluate and predict do first
        made = estimator._call_model_fn(features, None if mode == _INFER else labels, mode, estimator.config)
        if mode == _TRAIN:
            fetches, outputs = [made.train_op], []
        else:
            outputs = _outputs(made.predictions)
            fetches = outputs
        saved = [one for one in _saved() if one is not step]
        if mode == _TRAIN:
            _refuse_savers(made)
            _refuse_other_keys(graph, made.scaffold, saved)
        program = _Program(graph, saved)
        step_of_loss = [made.loss] if mode == _TRAIN else []  # a step gives it, too: what it moves counts
        inference, roles = _fingerprint(program, fetches, outputs, type_specs, given, order, code, mode != _TRAIN)
        return Mode(
            list({one.path: one for one in map(_described, saved)}.values()),  # a partitioned one once
            inference,
            {_key_of(one): roles.get(id(one), (None, None)) for one in saved},
            *program.settings(fetches),
            program.draws([*fetches, *step_of_loss]),
            [*program.unsaved([*fetches, *step_of_loss], step), *_own_hooks(made)] if mode == _TRAIN else [],
        )


def _own_hooks(made: Any) -> list[str]:
    """Hooks of the repository's own, which may keep something to themselves."""
    hooks = [*made.training_hooks, *made.training_chief_hooks]
    own = [type(one).__name__ for one in hooks if not type(one).__module__.startswith("tensorflow")]
    return [f"hook {name} of the model_fn: what it counts begins anew" for name in dict.fromkeys(own)]


def _refuse_savers(made: Any) -> None:
    """A hook of the model_fn's own that saves would write over the checkpoints that count."""
    for hook in (*made.training_hooks, *made.training_chief_hooks):
        if isinstance(hook, tf.estimator.CheckpointSaverHook):
            raise UserCodeFailed(
                f"model.build: the model_fn brings a {type(hook).__name__} of its own, which would write into the model_dir",
                left_alone="Nothing was changed.",
                hint="leave it out of training_hooks: run_config says when checkpoints are saved",
            )


def _refuse_other_keys(graph: Any, scaffold: Any, saved: Sequence[Any]) -> None:
    """A saver of the model_fn's own has to keep every variable by its name: that is how the guard knows it."""
    saver = scaffold.saver if scaffold is not None else None
    names = [tf.get_static_value(one.inputs[1]) for one in graph.get_operations() if one.type == "SaveV2"]
    if saver is None or not names or any(one is None for one in names):
        return
    kept = {name.decode() for one in names for name in one}
    missing = sorted({key for key in map(_key_of, saved) if key not in kept})
    if not missing:
        return
    by_objects = hasattr(saver, "_object_restore_saver")
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    raise UserCodeFailed(
        f"model.build: the Estimator's own saver does not keep {', '.join(missing[:3])}{more} by that name",
        left_alone="Nothing was changed.",
        hint='model_to_estimator(..., checkpoint_format="saver")'
        if by_objects
        else "leave scaffold.saver out, or give it all variables: tf.compat.v1.train.Saver()",
    )


def _outputs(predictions: Any) -> list[Any]:
    """The tensors that are predicted, in the order of their names."""
    return [one for one in tf.nest.flatten(predictions) if isinstance(one, tf.Tensor)]


def _placeholder(type_spec: Any) -> Any:
    if isinstance(type_spec, tf.SparseTensorSpec):
        return tf.compat.v1.sparse_placeholder(type_spec.dtype, type_spec.shape)
    if isinstance(type_spec, tf.RaggedTensorSpec):
        return tf.compat.v1.ragged.placeholder(
            type_spec.dtype, type_spec.ragged_rank, type_spec.shape[type_spec.ragged_rank + 1 :]
        )
    return tf.compat.v1.placeholder(type_spec.dtype, type_spec.shape)


def _saved() -> list[Any]:
    """The variables that Estimator's own Saver saves."""
    return list(tf.compat.v1.global_variables())


def _slice_of(variable: Any) -> Any:
    return variable._get_save_slice_info() if hasattr(variable, "_get_save_slice_info") else None


def _key_of(variable: Any) -> str:
    """What a checkpoint calls it; a part of a partitioned one, by the name of the whole."""
    info = _slice_of(variable)
    return str(info.full_name if info is not None else variable.op.name)


def _described(variable: Any) -> Variable:
    info = _slice_of(variable)
    shape = [int(size) for size in (info.full_shape if info is not None else variable.shape)]
    return Variable(
        path=_key_of(variable),
        shape=shape,
        dtype=variable.dtype.base_dtype.name,
        trainable=any(variable is one for one in tf.compat.v1.trainable_variables()),
    )


def _fingerprint(
    program: _Program,
    fetches: Sequence[Any],
    outputs: Sequence[Any],
    type_specs: Any,
    given: Any,
    order: Sequence[str],
    code: str | None,
    counts_seeds: bool,
) -> tuple[Fingerprint, dict[int, tuple[int | None, int | None]]]:
    """By the graph; where it cannot be written down, by the code that made it."""
    try:
        traced = program.traced(fetches, outputs, type_specs, given, order, counts_seeds)
    except CannotTrace as error:
        if code is None:
            return Fingerprint(by="none", reason=str(error)), {}
        return Fingerprint(by="code", digest=code, reason=str(error)), {}
    roles: dict[int, tuple[int | None, int | None]] = {
        key: (role, traced.blind_roles.get(key)) for key, role in traced.roles.items()
    }
    return fingerprint_of(traced), roles


class _Program:
    """A graph as one function: its placeholders, variables and tables are what it is given."""

    def __init__(self, graph: Any, saved: Sequence[Any]) -> None:
        self._graph = graph
        self._definition = graph.as_graph_def()
        self._variables = {_handle_of(one): one for one in saved}
        self._constants: dict[str, Any] = {}

    def traced(
        self,
        fetches: Sequence[Any],
        outputs: Sequence[Any],
        type_specs: Any,
        given: Any,
        order: Sequence[str],
        counts_seeds: bool,
    ) -> Traced:
        """Its fingerprint. Raises `CannotTrace`."""
        leaves: dict[str, Leaf] = {}
        labels = list(inputs_of(type_specs, order))
        for leaf, one in zip(labels, tf.nest.flatten(given), strict=True):
            for number, part in enumerate(tf.nest.flatten(one, expand_composites=True)):
                leaves[part.op.name] = leaf if not number else Leaf(f"{leaf.label} part {number}")
        nodes = []
        for node in self._reached(fetches):
            if node.op in _OLD_CONTROL_FLOW:
                raise CannotTrace("it has loops or branches as TensorFlow 1 wrote them")
            if node.op in PYTHON_OPERATIONS:
                raise CannotTrace("it calls Python of which the graph says nothing (py_function, numpy_function)")
            if node.name in leaves:
                continue
            if node.op in _VARIABLES:
                leaves[node.name] = self._variable(node)
            elif node.op in _TABLES:
                leaves[node.name] = Leaf(self._table(node))
            else:
                nodes.append(self._as_in_a_function(node, leaves))
        arguments = [SimpleNamespace(name=name) for name in leaves]
        results = [SimpleNamespace(name=f"output {place}") for place in range(len(outputs))]
        function = SimpleNamespace(
            node_def=nodes,
            ret={one.name: self._reference(tensor, leaves) for one, tensor in zip(results, outputs, strict=True)},
            signature=SimpleNamespace(input_arg=arguments, output_arg=results),
        )
        names = {id(one): _key_of(one) for one in self._variables.values()}
        library = self._definition.library.function
        return fingerprint(function, library, list(leaves.values()), names, counts_seeds=counts_seeds)

    def draws(self, fetches: Sequence[Any]) -> list[str]:
        """The operations that give what no checkpoint keeps."""
        nodes = [*self._reached(fetches), *(node for one in self._definition.library.function for node in one.node_def)]
        return sorted({*draws_of(nodes), *({node.op for node in nodes} & PYTHON_OPERATIONS)})

    def unsaved(self, fetches: Sequence[Any], step: Any) -> list[str]:
        """Variables that a step uses and no checkpoint holds."""
        known = {*self._variables, step.op.name}
        names = sorted({one.name for one in self._reached(fetches) if one.op in _VARIABLES} - known)
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return [f"a training step uses variables that are not saved: {', '.join(names[:3])}{more}"] if names else []

    def _reached(self, fetches: Sequence[Any]) -> list[Any]:
        names = [one.op.name if isinstance(one, tf.Tensor) else one.name for one in fetches]
        return list(tf.compat.v1.graph_util.extract_sub_graph(self._definition, names).node)

    def _variable(self, node: Any) -> Leaf:
        variable = self._variables.get(node.name)
        if variable is None:  # local: what a metric counts, which no checkpoint holds
            return Leaf(f"local {node.attr['dtype'].type}")
        return Leaf(f"{tuple(variable.shape)} {variable.dtype.base_dtype.name}", variable)

    def _table(self, node: Any) -> str:
        """A lookup table stands for its content: that of the operation that fills it."""
        contents = []
        for one in self._graph.get_operations():
            if one.type.startswith(_FILLING) and one.inputs[0].op.name == node.name:
                contents += [self._constant(tensor) for tensor in one.inputs[1:]]
                for key in sorted(one.node_def.attr):  # which columns of a file, how many rows
                    if not key.startswith("_"):
                        contents.append(f"{key} {one.node_def.attr[key].SerializeToString(deterministic=True).hex()}")
        return f"table {digest_of(contents)}"

    def _constant(self, tensor: Any) -> str:
        """What a table is filled with: a constant, or the content of the file that a constant names."""
        value = _value_of(tensor)
        if value is None:
            raise CannotTrace(f"what fills a table is no constant ({tensor.op.type})")
        if value.dtype == object and value.ndim == 0:
            path = Path(value.item().decode("utf-8", "surrogateescape"))
            if path.is_file():
                return array_digest(np.frombuffer(path.read_bytes(), dtype="uint8"))
        return array_digest(value)

    def _as_in_a_function(self, node: Any, leaves: dict[str, Leaf]) -> Any:
        operation = self._graph.get_operation_by_name(node.name)
        inputs = [self._reference(tensor, leaves) for tensor in operation.inputs]
        for place, name in _setting_places(operation):
            if _value_of(operation.inputs[place]) is not None:
                label = f"setting {name}"
                leaves.setdefault(label, Leaf(label))  # it is compared by its value, and takes effect whatever it is
                inputs[place] = label
        inputs += [f"^{one.name}" for one in operation.control_inputs if one.name not in leaves]
        return SimpleNamespace(name=node.name, op=node.op, attr=node.attr, input=inputs)

    @staticmethod
    def _reference(tensor: Any, leaves: dict[str, Leaf]) -> str:
        """`tensor` as a function's body calls it: an argument's name, or `node:output:place`."""
        operation = tensor.op
        if operation.name in leaves or operation.type in _VARIABLES | _TABLES:
            return str(operation.name)
        place = tensor.value_index
        for argument in operation.op_def.output_arg:
            count = _count_of(operation, argument)
            if place < count:
                return f"{operation.name}:{argument.name}:{place}"
            place -= count
        raise CannotTrace(f"{operation.type} has an output that its definition does not know")

    # What the optimizer is set to.

    def settings(self, fetches: Sequence[Any]) -> tuple[list[str], dict[str, Any], dict[str, str]]:
        """Kinds of operations that apply gradients, their settings, and the variables that hold some of these."""
        kinds: set[str] = set()
        found: dict[str, dict[str, float]] = {}
        reached = self._reached(fetches)
        for node in reached:
            operation = self._graph.get_operation_by_name(node.name)
            kind = node.op.removeprefix("Resource").replace("SparseApply", "Apply").removeprefix("Apply")
            for place, name in _setting_places(operation):
                kinds.add(kind)
                value = _value_of(operation.inputs[place])
                if value is not None and value.ndim == 0:
                    target = operation.inputs[0].op.name
                    found.setdefault(name, {})[f"{kind} {target}"] = _short(value)
        settings: dict[str, Any] = {}
        for name, values in sorted(found.items()):
            different = set(values.values())
            settings[name] = (
                min(different) if len(different) == 1 else [f"{where}: {one}" for where, one in sorted(values.items())]
            )
        held = self._held(reached)
        last = [name.rpartition("/")[2] for name in held]
        hyper = {}
        for name, value in held.items():
            short = name.rpartition("/")[2]
            key = short if last.count(short) == 1 and short not in settings else name
            settings[key], hyper[key] = value, name
        return sorted(kinds), settings, hyper

    def _held(self, reached: Sequence[Any]) -> dict[str, float]:
        """Variables that hold a setting, by name: scalars that a step reads and never writes, whatever reads them."""
        written = set()
        for node in reached:
            if node.op.startswith(("Assign", "Scatter", "ResourceScatter")):
                written.add(self._graph.get_operation_by_name(node.name).inputs[0].op.name)
        names = {node.name for node in reached if node.op in _VARIABLES}
        trained = {_handle_of(one) for one in tf.compat.v1.trainable_variables()}
        held = {}
        for handle in sorted(names - written - trained):
            variable = self._variables.get(handle)
            if variable is not None and variable.shape.rank == 0 and variable.dtype.base_dtype.is_floating:
                held[str(variable.op.name)] = _short(self._initial(variable))
        return held

    def _initial(self, variable: Any) -> float:
        with tf.compat.v1.Session(graph=self._graph) as session:
            return float(session.run(variable.initial_value))


def _short(value: Any) -> float:
    """A float32 as it was written down: 0.1, not 0.10000000149."""
    return float(f"{float(value):.7g}")


def _setting_places(operation: Any) -> Iterator[tuple[int, str]]:
    """The inputs of an operation that applies a gradient which are settings: place, and Keras' name."""
    if "Apply" not in operation.type:
        return
    for place, argument in enumerate(operation.op_def.input_arg):
        if argument.name in _SETTINGS:
            yield place, _SETTINGS[argument.name]


def _count_of(operation: Any, argument: Any) -> int:
    if argument.number_attr:
        return int(operation.get_attr(argument.number_attr))
    if argument.type_list_attr:
        return len(operation.get_attr(argument.type_list_attr))
    return 1


def _handle_of(variable: Any) -> str:
    return str(variable.handle.op.name if hasattr(variable, "handle") else variable.op.name)


def _value_of(tensor: Any) -> Any:
    """The value of a constant, also behind a cast; None for what is none."""
    value = tf.get_static_value(tensor)
    while value is None and tensor.op.type in ("Identity", "Cast") and tensor.op.inputs:
        tensor = tensor.op.inputs[0]
        value = tf.get_static_value(tensor)
    return None if value is None else np.asarray(value)
