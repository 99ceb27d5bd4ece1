"""When saving, evaluating and logging are due, by steps or by seconds. Pure.

By steps, things are due at multiples of their interval counted from step 0, wherever a run was resumed, so that a run
that was stopped has the same checkpoints and the same curve as one that was not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], float]

#: Seconds of work between two looks at the clock and at signals.
BLOCK_SECS = 0.25
#: How much longer than the last block the next one may be: the first ones are timed badly.
GROWTH = 8


@dataclass(frozen=True)
class Interval:
    """Every so many steps, every so many seconds, or never."""

    steps: int | None = None
    secs: float | None = None

    def steps_left(self, step: int) -> int | None:
        """Steps from `step` to the next one that is due by steps."""
        return self.steps - step % self.steps if self.steps else None

    def is_due(self, step: int, since_s: float) -> bool:
        """Whether it is due at `step`, `since_s` seconds after the last time."""
        by_steps = bool(self.steps) and step > 0 and step % (self.steps or 1) == 0
        return by_steps or (self.secs is not None and since_s >= self.secs)


class Schedule:
    """What is due at a step, now. `clock` gives monotonic seconds; `saved_step` is the checkpoint that was restored."""

    def __init__(
        self,
        *,
        saved_step: int | None,
        max_steps: int,
        checkpoints: Interval,
        summaries: Interval,
        logs: Interval,
        clock: Clock,
        evaluations: Interval | None = None,
        epoch_steps: int | None = None,
        most_steps: int | None = None,
    ) -> None:
        self.max_steps = max_steps
        self._checkpoints = checkpoints
        self._summaries = summaries
        self._logs = logs
        self._evaluations = evaluations or Interval()
        self._epochs = Interval(epoch_steps)
        self._most_steps = most_steps
        self._clock = clock
        self._saved_at = self._evaluated_at = clock()
        self._saved_step = saved_step

    def checkpoint_is_due(self, step: int, *, is_last: bool = False) -> bool:
        """At step 0, every `save_checkpoints_steps` or `_secs`, and at the last step; never twice at one step."""
        if step == self._saved_step:
            return False
        if step == 0 or step >= self.max_steps or is_last:
            return True
        return self._checkpoints.is_due(step, self._clock() - self._saved_at)

    def checkpoint_was_saved(self, step: int) -> None:
        """Count the seconds from now on."""
        self._saved_step, self._saved_at = step, self._clock()

    def secs_to_checkpoint(self) -> float | None:
        """Seconds to the next checkpoint that is due by the clock."""
        secs = self._checkpoints.secs
        return None if secs is None else max(0.0, secs - (self._clock() - self._saved_at))

    def steps_to_checkpoint(self, step: int) -> int:
        """Steps to the next checkpoint that is due by steps, the last one included."""
        left = self._checkpoints.steps_left(step)
        return min(self.max_steps - step, left) if left is not None else self.max_steps - step

    def evaluation_is_due(self, step: int) -> bool:
        """Every `eval.every_steps` or `every_secs`; the one at the last step is no part of the loop."""
        return self._evaluations.is_due(step, self._clock() - self._evaluated_at)

    def evaluation_was_done(self) -> None:
        """Count the seconds from now on."""
        self._evaluated_at = self._clock()

    def epoch(self, step: int) -> int | None:
        """The number of the epoch that begins at `step`, where epochs are looked at and one does."""
        steps = self._epochs.steps
        return step // steps if steps and step % steps == 0 else None

    def summary_is_due(self, step: int) -> bool:
        """Every `save_summary_steps`, and at the last step, so that a short run has a curve too."""
        return self._summaries.steps is not None and (self.summary_is_regular(step) or step >= self.max_steps)

    def summary_is_regular(self, step: int) -> bool:
        """Whether a point stands at `step` whatever `max_steps` is."""
        return self._summaries.is_due(step, 0.0)

    def log_is_due(self, step: int) -> bool:
        """Every `log_step_count_steps`."""
        return self._logs.is_due(step, 0.0)

    def steps_to_go(self, step: int, block: int) -> int:
        """How many steps the inner loop may run from `step`: at most `block`, not past the next thing due."""
        intervals = (self._checkpoints, self._summaries, self._logs, self._evaluations, self._epochs)
        limits = [left for left in (interval.steps_left(step) for interval in intervals) if left is not None]
        return max(0, min([block, self.max_steps - step, self._most_steps or block, *limits]))


class BlockLength:
    """How many steps make `BLOCK_SECS` of work, learned from the blocks before."""

    def __init__(self, target_s: float = BLOCK_SECS) -> None:
        self.steps = 1
        self._target_s = target_s

    def learn(self, steps: int, took_s: float) -> None:
        """A block of `steps` took so long. Short blocks teach too little to shorten the next one by."""
        if steps <= 0:
            return
        fitting = int(self._target_s * steps / took_s) if took_s > 0 else self.steps * GROWTH
        if steps < self.steps and fitting > steps:
            return
        self.steps = max(1, min(fitting, self.steps * GROWTH))
