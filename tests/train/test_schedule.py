"""When something is due, and which checkpoints go: no TensorFlow, no waiting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expmgr.train.schedule import BlockLength, Interval, Saved, Schedule, retention


def schedule(now: list[float], saved_step: int | None = None, **changes: object) -> Schedule:
    parts = {
        "max_steps": 1000, "checkpoints": Interval(secs=600), "summaries": Interval(100), "logs": Interval(None),
        **changes
    }  # fmt: skip
    return Schedule(saved_step=saved_step, clock=lambda: now[0], **parts)  # type: ignore[arg-type]


def test_a_checkpoint_at_the_first_step_every_600_seconds_and_at_the_last() -> None:
    now = [0.0]
    due = schedule(now)
    assert due.checkpoint_is_due(0)
    due.checkpoint_was_saved(0)
    assert not due.checkpoint_is_due(0)
    now[0] = 599.9
    assert not due.checkpoint_is_due(500)
    now[0] = 600.0
    assert due.checkpoint_is_due(501)
    due.checkpoint_was_saved(501)
    now[0] = 1199.0
    assert not due.checkpoint_is_due(999)
    assert due.checkpoint_is_due(1000)


def test_by_steps_it_is_due_at_multiples_wherever_a_run_was_resumed() -> None:
    due = schedule([0.0], saved_step=37, checkpoints=Interval(steps=50))
    assert [step for step in range(37, 201) if due.checkpoint_is_due(step)] == [50, 100, 150, 200]


def test_a_restored_checkpoint_is_not_saved_again() -> None:
    assert not schedule([0.0], saved_step=0).checkpoint_is_due(0)
    assert not schedule([0.0], saved_step=1000).checkpoint_is_due(1000)


def test_a_point_every_save_summary_steps_and_at_the_last_step() -> None:
    due = schedule([0.0], max_steps=250)
    assert [step for step in range(251) if due.summary_is_due(step)] == [100, 200, 250]
    assert [step for step in range(251) if due.summary_is_regular(step)] == [100, 200]
    assert not any(schedule([0.0], summaries=Interval(None)).summary_is_due(step) for step in range(1001))


@given(
    block=st.integers(1, 5000),
    steps=st.one_of(st.none(), st.integers(1, 300)),
    summary=st.one_of(st.none(), st.integers(1, 300)),
    logs=st.one_of(st.none(), st.integers(1, 300)),
    max_steps=st.integers(1, 1000),
)
def test_no_stretch_of_steps_runs_past_what_is_due(
    block: int, steps: int | None, summary: int | None, logs: int | None, max_steps: int
) -> None:
    due = schedule(
        [0.0], checkpoints=Interval(steps), summaries=Interval(summary), logs=Interval(logs), max_steps=max_steps
    )
    seen, step = [], 0
    while step < max_steps:
        stretch = due.steps_to_go(step, block)
        assert 1 <= stretch <= block
        step += stretch
        seen.append(step)
    assert step == max_steps
    for every in (steps, summary, logs):
        assert every is None or set(range(every, max_steps + 1, every)) <= set(seen)


def test_the_block_grows_to_a_quarter_of_a_second_of_work() -> None:
    block, lengths = BlockLength(), []
    for _ in range(6):
        lengths.append(block.steps)
        block.learn(block.steps, block.steps / 4000)
    assert lengths == [1, 8, 64, 512, 1000, 1000]


def test_the_block_of_a_slow_step_is_one_step_and_a_short_stretch_does_not_shorten_it() -> None:
    slow = BlockLength()
    slow.learn(1, 0.6)
    assert slow.steps == 1
    block = BlockLength()
    for _ in range(5):
        block.learn(block.steps, block.steps / 4000)
    block.learn(100, 0.03)
    assert block.steps == 1000
    block.learn(100, 10.0)
    assert block.steps == 2


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
