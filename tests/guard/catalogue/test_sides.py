"""The two sides of a row differ in what the row says, and in nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from guard.catalogue.sides import Side

pytestmark = pytest.mark.tf

#: Every row of the table, written out: a row that goes missing from both `rows.py` and `sides.py` is noticed here.
IDS = (
    "00 01 02 03 04 06 07 08 09 10 11 13 14 16 18 19 21 23 25 26 27 30 32 34 36 37 38 39 40 42 44 45 46 48 49 50 52 53 "
    "54 55 56 57 58 59 61 62 64 65 66 67 68 70 71 72 73 74 75 76 77 78 79 80 82 83"
)


def both(row: str) -> tuple[Side, Side]:
    from guard.catalogue.sides import CASES

    return CASES[row].base(), CASES[row].changed()


def shapes(variables: Any) -> list[tuple[tuple[int, ...], str]]:
    return [(tuple(one.shape), str(one.dtype)) for one in variables]


def compiling(side: Side) -> dict[str, Any]:
    """What the model was compiled with, as plain JSON."""
    return json.loads(json.dumps(side.model.get_compile_config(), sort_keys=True))


def arrays(side: Side) -> list[bytes]:
    import keras

    return [array.tobytes() for array in keras.tree.flatten((side.train, side.eval))]


def test_every_row_is_there() -> None:
    from guard.catalogue.rows import ROWS
    from guard.catalogue.sides import CASES

    assert " ".join(ROWS) == IDS
    assert " ".join(CASES) == IDS


@pytest.mark.parametrize("row", ["13", "14", "18", "23", "25", "26", "27", "34", "39", "40", "64"])
def test_nothing_in_the_shapes_tells_a_silent_row(row: str) -> None:
    base, changed = both(row)
    assert shapes(base.model.variables) == shapes(changed.model.variables)
    assert shapes(base.model.optimizer.variables) == shapes(changed.model.optimizer.variables)


@pytest.mark.parametrize("row", ["36", "37", "39", "44", "48"])
def test_a_change_of_data_leaves_the_model_alone(row: str) -> None:
    base, changed = both(row)
    assert changed.model.get_config() == base.model.get_config()
    assert compiling(changed) == compiling(base)
    assert arrays(changed) != arrays(base)


@pytest.mark.parametrize("row", ["38", "45", "71"])
def test_the_rows_stay_the_same(row: str) -> None:
    base, changed = both(row)
    assert arrays(changed) == arrays(base)


@pytest.mark.parametrize(
    ("row", "differs"),
    [("00", []), ("77", ["metrics"]), ("78", []), ("79", []), ("83", ["steps_per_execution"])],
)
def test_a_control_changes_nothing_that_a_checkpoint_holds(row: str, differs: list[str]) -> None:
    import numpy as np

    base, changed = both(row)
    assert changed.model.get_config() == base.model.get_config()
    saved, wanted = compiling(base), compiling(changed)
    assert [key for key in saved if saved[key] != wanted[key]] == differs
    assert arrays(changed) == arrays(base)
    for one, two in zip(base.model.get_weights(), changed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
