"""The guard's laws: a signature fits itself, refactoring never refuses, and what changes outputs never passes."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import subprocess
import sys
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from expmgr.checkpoints.signature import Signature
from expmgr.guard.judge import judge
from world import ROOT

pytestmark = pytest.mark.tf


def signed(model: Any, rows: Any) -> Signature:
    from expmgr.train.signature.live import contract_of_arrays, setup_of, signature_of

    return signature_of(model, rows, contract_of_arrays(rows, rows), setup_of(model))


def outputs(model: Any) -> Any:
    """On rows that the model was not made with, all weights moved away from where layers cannot be told apart."""
    import numpy as np

    return model(np.random.default_rng(11).normal(size=(32, 4)).astype("float32"), training=False).numpy()


def moved(model: Any) -> list[Any]:
    import numpy as np

    draw = np.random.default_rng(7)
    return [value + draw.uniform(0.1, 0.5, value.shape).astype(value.dtype) for value in model.get_weights()]


def _laws(data: st.DataObject) -> None:
    """One drawn model against itself and against every single change of a setting."""
    import numpy as np

    from guard.generated import build, mutations, plans, rows

    plan = data.draw(plans())
    base = build(plan)
    signature = signed(base, rows())
    weights = moved(base)
    base.set_weights(weights)
    before = outputs(base)
    again = build(plan)
    assert judge(signature, signed(again, rows())).differences == ()
    changes = list(mutations(plan))
    if not changes:
        return
    what, changed = data.draw(st.sampled_from(changes))
    try:
        other = build(changed)
    except ValueError:  # a change that Keras does not build
        return
    found = judge(signature, signed(other, rows()))
    told = (what, found.verdict, [(one.rule.id, one.what) for one in found.differences])
    if [value.shape for value in other.get_weights()] != [value.shape for value in weights]:
        assert found.verdict.value == "refuse", told
        return
    other.set_weights(weights)
    if not np.allclose(outputs(other), before, rtol=1e-4, atol=1e-5):
        assert not found.verdict.may_restore, told


@pytest.mark.slow
@settings(suppress_health_check=list(HealthCheck))
@given(st.data())
def test_what_changes_outputs_is_never_restored(data: st.DataObject) -> None:
    _laws(data)


@pytest.mark.slow
@pytest.mark.parametrize("name", [
    "dense", "activation", "leaky", "elu", "softmax", "layer_norm", "batch_norm", "unit_norm", "group_norm", "rescaling",
    "scale", "rnn", "lstm", "gru", "bidirectional", "conv1d", "separable1d", "transposed1d", "pool1d", "average1d",
    "attention", "distributed", "permute", "conv2d", "depthwise", "transposed2d", "pool2d", "dropout", "noise",
])  # fmt: skip
def test_every_setting_of_every_layer(name: str) -> None:
    """Not drawn: each kind of layer in a model of its own, each of its settings changed alone."""
    import numpy as np

    from guard.generated import KINDS, build, mutations, rows

    kind = KINDS[name]
    start = {2: [], 3: [("split", {"target_shape": (4, 1)})], 4: [("image", {"target_shape": (2, 2, 1)})]}[kind.rank]
    end = {2: [], 3: [("flatten", {})], 4: [("flat_image", {})]}[kind.gives or kind.rank]
    plan = [*start, (name, dict(kind.settings)), *end]
    base = build(plan)
    signature, weights = signed(base, rows()), moved(base)
    base.set_weights(weights)
    for what, changed in mutations(plan):
        other = build(changed)
        found = judge(signature, signed(other, rows()))
        told = (what, found.verdict.value, [(one.rule.id, one.what) for one in found.differences])
        if [value.shape for value in other.get_weights()] != [value.shape for value in weights]:
            assert found.verdict.value == "refuse", told
            continue
        other.set_weights(weights)
        if np.allclose(outputs(other), outputs(base), rtol=1e-4, atol=1e-5):
            assert found.verdict.may_restore, told  # dropout and noise: nothing that is asked changed
        else:
            assert not found.verdict.may_restore, told


# The same model written down in another way.

PLAIN = '''
import keras
from keras import layers, ops

class Model(keras.Model):
    """A model."""
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(6, activation="relu", name="first")
        self.second = layers.Dense(4, name="second")

    def call(self, rows, training=False):
        hidden = self.first(rows)
        gate = ops.sigmoid(hidden)
        return self.second(hidden * gate + 1.0)
'''

REFACTORED = {
    "a local renamed": PLAIN.replace("hidden", "h"),
    "imports in another order, a comment": "# why\n" + PLAIN.replace(
        "import keras\nfrom keras import layers, ops", "from keras import ops\nfrom keras import layers\nimport keras"
    ),
    "keyword arguments in another order": PLAIN.replace('6, activation="relu", name="first"',
                                                         'name="first", activation="relu", units=6'),
    "a helper extracted": PLAIN.replace("        gate = ops.sigmoid(hidden)\n", "").replace(
        "hidden * gate + 1.0", "self.gated(hidden)"
    ) + "\n    def gated(self, x):\n        return x * ops.sigmoid(x) + 1.0\n",
    "a helper that is a tf.function": PLAIN.replace("        gate = ops.sigmoid(hidden)\n", "").replace(
        "hidden * gate + 1.0", "gated(hidden)"
    ) + "\nimport tensorflow as tf\n@tf.function\ndef gated(x):\n    return x * ops.sigmoid(x) + 1.0\n",
    "factors exchanged": PLAIN.replace("hidden * gate + 1.0", "1.0 + gate * hidden"),
    "layers made in another order": PLAIN.replace(
        '        self.first = layers.Dense(6, activation="relu", name="first")\n', ""
    ).replace('name="second")\n', 'name="second")\n        self.first = layers.Dense(6, activation="relu", name="first")\n'),
    "attributes renamed": PLAIN.replace("self.first", "self.one").replace("self.second", "self.two"),
    "the layers subclassed": PLAIN.replace("class Model", "class Mine(layers.Dense):\n    pass\n\nclass Model")
                                  .replace("layers.Dense(6", "Mine(6"),
    "layers renamed": PLAIN.replace('name="first"', 'name="alpha"').replace('name="second"', 'name="beta"'),
    "a docstring changed": PLAIN.replace("A model.", "Another word for it."),
}  # fmt: skip

CHANGED = {
    "another factor": PLAIN.replace("+ 1.0", "+ 2.0"),
    "a subtraction turned": PLAIN.replace("hidden * gate + 1.0", "1.0 - gate * hidden"),
    "another activation in the code": PLAIN.replace("ops.sigmoid", "ops.tanh"),
    "a step left out": PLAIN.replace("hidden * gate + 1.0", "hidden + 1.0"),
}


@lru_cache
def of_source(source: str) -> Signature:
    import keras

    from guard.generated import rows

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    names: dict[str, Any] = {}
    exec(source, names)
    model = names["Model"](name="model")
    data = rows()
    targets = data[1][:, [0, 1, 0, 1]]
    model(data[0])
    model.compile("adam", "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return signed(model, (data[0], targets))


@pytest.mark.parametrize("how", REFACTORED)
def test_a_refactoring_is_never_refused(how: str) -> None:
    found = judge(of_source(PLAIN), of_source(REFACTORED[how]))
    assert found.verdict.value == "same", [(one.rule.id, one.what, one.saved, one.wanted) for one in found.differences]


@pytest.mark.parametrize("how", CHANGED)
def test_changed_code_is_refused(how: str) -> None:
    found = judge(of_source(PLAIN), of_source(CHANGED[how]))
    assert (found.verdict.value, [one.rule.id for one in found.differences]) == ("refuse", ["computation"])


SIGN = """
import json, sys
sys.path[:0] = {paths!r}
from guard.generated import KINDS, build, rows
from guard.test_properties import signed
plan = [("dense", dict(KINDS["dense"].settings)), ("split", dict(KINDS["split"].settings)),
        ("lstm", dict(KINDS["lstm"].settings)), ("batch_norm", {{}}), ("dropout", {{"rate": 0.3}})]
print(signed(build(plan), rows()).model_dump_json())
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_a_signature_is_the_same_in_every_process(seed: str) -> None:
    from guard.generated import KINDS, build, rows

    plan = [("dense", dict(KINDS["dense"].settings)), ("split", dict(KINDS["split"].settings)),
            ("lstm", dict(KINDS["lstm"].settings)), ("batch_norm", {}), ("dropout", {"rate": 0.3})]  # fmt: skip
    build([("noise", {"stddev": 0.1})])  # whatever was built before
    here = signed(build(plan), rows())
    code = SIGN.format(paths=[str(ROOT), str(ROOT / "tests")])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONHASHSEED": seed, "TF_CPP_MIN_LOG_LEVEL": "3"})  # fmt: skip
    there = Signature.model_validate_json(done.stdout.splitlines()[-1])
    assert there == here


@pytest.mark.slow
def test_a_thousand_variables_stay_under_100_kb() -> None:
    import keras
    import numpy as np

    keras.backend.clear_session()
    inputs = keras.Input((4,), name="rows")
    outputs = inputs
    for number in range(500):
        outputs = keras.layers.Dense(4, name=f"block_{number // 10}_dense_{number}")(outputs)
    model = keras.Model(inputs, outputs, name="model")
    model.compile("adam", "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    rows = (np.zeros((4, 4), "float32"), np.zeros((4, 4), "float32"))
    signature = signed(model, rows)
    assert len(signature.variables) == 1000
    content = signature.model_dump_json()
    assert len(content) < 100_000
    assert Signature.model_validate_json(content) == signature
    assert isinstance(json.loads(content)["variables"], str)


def test_digests_are_the_same_on_every_machine_and_python() -> None:
    """Found with Python 3.11 and 3.13."""
    from expmgr.train.signature.sourcecode import tree_digest

    assert tree_digest(PLAIN) == "42ecbf1d234e0cad95624a4c1bfae4dc"


def _installed(*names: str) -> str | None:
    """The version of whichever of these distributions is installed."""
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return None


@pytest.mark.skipif(
    (_installed("tensorflow", "tensorflow-cpu"), _installed("keras")) != ("2.21.0", "3.15.1"),
    reason="another version traces another graph",
)
def test_the_graph_s_digests_are_those_of_one_version() -> None:
    found = of_source(PLAIN)
    assert found.inference.digest == "a468b8b4f56f113e0e31b793300232c7"
    assert found.training_step.digest == "16270b9197ff2f9b44b9b1f6979581a6"


def test_a_setting_that_is_not_finite_comes_back_from_the_file() -> None:
    import keras
    import numpy as np

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), keras.layers.ReLU(max_value=float("inf"))])
    model.compile(optimizer="sgd", loss="mse")
    signature = signed(model, np.zeros((2, 4), "float32"))
    read = Signature.model_validate_json(signature.model_dump_json(), strict=True)
    assert [one["max_value"] for one in read.layers.values() if "max_value" in one] == ["inf"]
    assert read.layers == signature.layers
