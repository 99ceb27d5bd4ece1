"""When something is due: no TensorFlow, no waiting."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from expmgr.train.loop.schedule import BlockLength, Interval, Schedule


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
