"""Which checkpoints are kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expmgr.checkpoints.retention import Saved, retention

HOUR = 3600.0


def kept(saved: list[Saved], **rule: object) -> tuple[tuple[int, ...], tuple[int, ...]]:
    parts = {"keep_max": 5, "every_n_hours": 10_000.0, "last_preserved_at": 0.0, **rule}
    decided = retention(saved, **parts)  # type: ignore[arg-type]
    return decided.delete, decided.preserve


def test_the_newest_five_are_kept() -> None:
    saved = [Saved(step, step) for step in range(0, 800, 100)]
    assert kept(saved) == ((0, 100, 200), ())
    assert kept(saved[:5]) == ((), ())


@pytest.mark.parametrize("keep_max", [None, 0])
def test_none_and_0_keep_all(keep_max: int | None) -> None:
    assert kept([Saved(step, step) for step in range(50)], keep_max=keep_max) == ((), ())


def test_the_best_one_and_the_newest_stay_beside_the_newest_five() -> None:
    saved = [Saved(step, step) for step in range(8)]
    assert kept(saved, protected=[1]) == ((0, 2), ())
    assert kept(saved, keep_max=1) == ((0, 1, 2, 3, 4, 5, 6), ())


def test_one_every_n_hours_is_preserved_as_tensorflow_does_it() -> None:
    """One save every half hour, two hours between the preserved ones, the newest one kept."""
    saved: list[Saved] = []
    last_preserved_at, preserved = 0.0, []
    for number in range(20):
        saved.append(Saved(number, number * HOUR / 2))
        decided = retention(saved, keep_max=1, every_n_hours=2.0, last_preserved_at=last_preserved_at)
        last_preserved_at = decided.last_preserved_at
        preserved += decided.preserve
        saved = [
            Saved(one.step, one.saved_at, one.preserved or one.step in decided.preserve)
            for one in saved
            if one.step not in decided.delete
        ]
    assert preserved == [4, 8, 12, 16]
    assert [one.step for one in saved] == [4, 8, 12, 16, 19]


@given(
    steps=st.lists(st.integers(0, 10_000), unique=True, min_size=1, max_size=30),
    keep_max=st.one_of(st.none(), st.integers(0, 10)),
    best=st.integers(0, 29),
)
def test_the_newest_and_the_protected_never_go(steps: list[int], keep_max: int | None, best: int) -> None:
    steps.sort()
    protected = steps[best % len(steps)]
    deleted, preserved = kept([Saved(step, step) for step in steps], keep_max=keep_max, protected=[protected])
    assert not {steps[-1], protected} & set(deleted)
    assert not set(deleted) & set(preserved)
    assert not keep_max or not set(steps[-keep_max:]) & set(deleted)
