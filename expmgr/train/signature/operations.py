"""Which TensorFlow operations commute, pass on, write, draw random numbers, or call Python."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

#: Operations whose inputs may be exchanged.
COMMUTING = frozenset(
    {"Add", "AddN", "AddV2", "BitwiseAnd", "BitwiseOr", "Equal", "LogicalAnd", "LogicalOr", "Maximum", "Minimum", "Mul"}
    | {"NotEqual", "SquaredDifference", "effects"}
)
#: Operations that hand on what they are given.
PASSING = frozenset({"Identity", "IdentityN", "StopGradient", "PreventGradient", "EnsureShape", "CheckNumerics"})
WRITING = ("Assign", "ResourceScatter", "ResourceApply", "ResourceSparseApply", "Apply", "SparseApply", "Scatter")
#: Attributes that say nothing of what is computed: how, where, in which shape of a batch, from which seed.
SILENT = frozenset(
    {"container", "shared_name", "seed", "seed2", "parallel_iterations", "output_shapes", "config_proto", "config"}
    | {"executor_type", "validate_shape", "Tout", "Tin", "swap_memory", "message", "is_stateless", "f", "body", "cond"}
    | {"then_branch", "else_branch", "branches"}
)
#: Where an operation takes its seed: places among its inputs.
SEEDS = {
    "StatelessMultinomial": {2},
    "StatelessParameterizedTruncatedNormal": {1},
    "StatelessRandomGetKeyCounter": {0},
    "StatelessRandomGetKeyCounterAlg": {0},
}
FLOAT_TYPES = frozenset(one.as_datatype_enum for one in (tf.float16, tf.bfloat16, tf.float32, tf.float64))

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
