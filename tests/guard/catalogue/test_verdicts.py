"""Every row of the catalogue through the guard: the right verdict, and a restore that does what the verdict says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from guard.catalogue.rows import ROWS

if TYPE_CHECKING:
    from guard.catalogue.sides import Side

pytestmark = pytest.mark.tf

STEPS = 3
#: How far outputs may lie apart, by the precision of the side that was restored into.
TOLERANCE = {"72": 2e-3, "73": 2e-2}


@dataclass
class Trained:
    """A base that was trained for a few steps and saved."""

    side: Side
    signature: Any
    prefix: Path
    outputs: list[Any]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[], Side]], Trained]:
    """`trained(base)`: the side that `base` builds, trained, once for all rows that begin with it."""
    from expmgr.train.model import checkpoints

    done: dict[Callable[[], Side], Trained] = {}

    def do(base: Callable[[], Side]) -> Trained:
        if base not in done:
            side = base()
            signature = signed(side).model_copy(update={"step": STEPS})
            for _ in range(STEPS):
                side.model.train_on_batch(*batch(side))
            prefix = tmp_path_factory.mktemp("base") / f"model.ckpt-{STEPS}"
            checkpoints.write(side.model, STEPS, prefix)
            done[base] = Trained(side, signature, prefix, outputs(side, side))
        return done[base]

    return do


def signed(side: Side) -> Any:
    from expmgr.train.signature.live import contract_of_arrays, setup_of, signature_of

    contract = contract_of_arrays(side.train, side.eval, features=side.features, labels=side.labels)
    setup = setup_of(side.model, batch_size=side.batch_size, seed=side.seed)
    return signature_of(side.model, batch(side), contract, setup)


def batch(side: Side) -> Any:
    import tensorflow as tf

    return tf.nest.map_structure(lambda array: tf.constant(array[:32]), side.train)


def outputs(side: Side, given: Side) -> list[Any]:
    import numpy as np
    import tensorflow as tf

    inputs = tf.nest.map_structure(lambda array: tf.constant(array[:32]), given.eval[0])
    return [np.asarray(tf.cast(one, tf.float64)) for one in tf.nest.flatten(side.model(inputs, training=False))]


#: The everyday suite takes every fifth row, all others are wide tests.
_ROWS = [pytest.param(row, marks=[pytest.mark.wide] if number % 5 else []) for number, row in enumerate(ROWS)]


@pytest.mark.parametrize("row", _ROWS)
def test_the_right_verdict(row: str, trained: Callable[[Callable[[], Side]], Trained]) -> None:
    import numpy as np

    from expmgr.guard.judge import judge
    from expmgr.train.model import checkpoints
    from guard.catalogue.sides import CASES

    case = CASES[row]
    base = trained(case.base)
    side = case.changed()
    found = judge(base.signature, signed(side))
    told = [(one.rule.id, one.what, one.saved, one.wanted) for one in found.differences]
    assert found.verdict.value == ROWS[row].right, told
    assert (found.verdict.value == "same") == all(rule in ("setting", "renamed") for rule, *_ in told)
    if not found.verdict.may_restore:
        return
    checkpoints.restore(side.model, base.prefix, shown="it", signature=base.signature, renames=found.renames)
    for one, two in zip(outputs(side, base.side), base.outputs, strict=True):
        np.testing.assert_allclose(one, two, atol=TOLERANCE.get(row, 1e-6))
    assert int(np.asarray(side.model.optimizer.iterations)) == STEPS
    side.model.train_on_batch(*batch(side))


def test_every_row_has_its_sides() -> None:
    from guard.catalogue.sides import CASES

    assert CASES.keys() == ROWS.keys()
