"""The training loop: as many steps as fit on the device in one call, until the next thing that is due.

The numbers are the same bit for bit however long a call is: what is due by steps is due at fixed steps, and nothing
that a clock or a signal decides touches the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from expmgr.train.datasets import Batches, Rows
from expmgr.train.optimizers import averaged
from expmgr.train.schedule import BlockLength, Clock, Schedule


class InnerLoop:
    """`model.train_step` over a stretch of batches, on the device. Stops at the first loss that is not finite."""

    def __init__(self, model: Any, batches: Batches) -> None:
        self._model = model
        self._batches = batches
        self._function = tf.function(self._steps, autograph=False)
        self._step = tf.function(model.train_step)
        self._traced: Any = None

    def trace(self) -> Any:
        """Trace it now, which builds the metrics' variables; the concrete function."""
        if self._traced is None:
            scalar = tf.TensorSpec((), tf.int64)
            self._traced = self._function.get_concrete_function(scalar, scalar)
        return self._traced

    def run(self, position: int, count: int) -> tuple[int, bool]:
        """Train `count` steps from `position` in the data: how many were done, and whether the last loss was finite."""
        done, finite = self.trace()(tf.constant(position, tf.int64), tf.constant(count, tf.int64))
        return int(done), bool(finite)

    def _steps(self, position: Any, count: Any) -> Any:
        batch_size = self._batches.batch_size

        def one(done: Any, _finite: Any) -> tuple[Any, Any]:
            logs = self._step(self._batches.at(position + done * batch_size))
            # The running mean of the loss: it is NaN or infinite from the first such step on.
            return done + 1, tf.math.is_finite(tf.cast(logs["loss"], tf.float32))

        start = (tf.constant(0, tf.int64), tf.constant(True))
        return tf.while_loop(lambda done, finite: (done < count) & finite, one, start, parallel_iterations=1)


class Evaluation:
    """`model.test_step` over one split in its order, the last short batch included.

    Where the optimizer keeps a moving average of the weights, it is what is evaluated.
    """

    def __init__(self, model: Any, rows: Rows, batch_size: int) -> None:
        self._model = model
        self._rows = rows
        self._batch_size = batch_size
        self._function = tf.function(self._batches, autograph=False)
        self._step = tf.function(model.test_step, reduce_retracing=True)

    def run(
        self, is_stopped: Callable[[], bool], clock: Clock, *, most_batches: int | None = None
    ) -> dict[str, float] | None:
        """The metrics, None where `is_stopped` said so; the state of the training metrics is put back after it.

        `most_batches` are looked at, all where it is None.
        """
        with averaged(self._model):
            return self._run(is_stopped, clock, most_batches)

    def _run(self, is_stopped: Callable[[], bool], clock: Clock, most_batches: int | None) -> dict[str, float] | None:
        variables = self._model.metrics_variables
        before = [tf.identity(variable.value) for variable in variables]
        self._model.reset_metrics()
        try:
            if not self._all(is_stopped, clock, most_batches):
                return None
            return metric_values(self._model)
        finally:
            for variable, value in zip(variables, before, strict=True):
                variable.value.assign(value)

    def _all(self, is_stopped: Callable[[], bool], clock: Clock, most_batches: int | None) -> bool:
        block, batch = BlockLength(), 0
        total = -(-self._rows.count // self._batch_size)
        total = min(total, most_batches or total)
        while batch < total:
            if is_stopped():
                return False
            count, began = min(block.steps, total - batch), clock()
            self._function(tf.constant(batch, tf.int64), tf.constant(count, tf.int64)).numpy()
            block.learn(count, clock() - began)
            batch += count
        return True

    def _batches(self, first: Any, count: Any) -> Any:
        def one(batch: Any) -> Any:
            begin = batch * self._batch_size
            end = tf.minimum(begin + self._batch_size, self._rows.count)
            self._step(self._rows.take(tf.range(begin, end)))
            return (batch + 1,)

        return tf.while_loop(lambda batch: batch < first + count, one, (first,), parallel_iterations=1)[0]


def metric_values(model: Any) -> dict[str, float]:
    """The model's loss and metrics as they stand, those that are finite, the loss first."""
    results = model.get_metrics_result()
    values = {name: float(results[name]) for name in sorted(results, key=lambda name: name != "loss")}
    return {name: value for name, value in values.items() if math.isfinite(value)}


class Listener:
    """Who is told what happens in the loop. Every method may be left as it is."""

    def block_ended(self, step: int, block_steps: int, took_s: float) -> None:
        """Some steps were trained."""

    def summary_is_due(self, step: int, values: Mapping[str, float]) -> None:
        """A point of the training curves."""

    def log_is_due(self, step: int) -> None:
        """A line of the log."""

    def epoch_begins(self, epoch: int) -> None:
        """An epoch is about to begin: only told where the schedule knows epochs."""

    def epoch_ended(self, epoch: int) -> None:
        """An epoch has ended."""

    def block_begins(self, step: int) -> None:
        """Some steps are about to be trained."""

    def evaluation_is_due(self, step: int) -> None:
        """Evaluate; may raise."""

    def checkpoint_is_due(self, step: int, position: int) -> None:
        """Save; may raise."""

    def is_over(self) -> bool:
        """Whether training is to end here, before its last step."""
        return False


@dataclass
class Loop:
    """Training from `step`, at `position` in the data, to the schedule's `max_steps`."""

    model: Any
    inner: InnerLoop
    schedule: Schedule
    listener: Listener
    is_stopped: Callable[[], bool]
    clock: Clock
    step: int
    position: int
    batch_size: int
    block: BlockLength = field(default_factory=BlockLength)

    def run(self) -> bool:
        """Train; True at the end, False where `is_stopped` said so before. Both leave everything up to date."""
        self._look()
        while self.step < self.schedule.max_steps and not self.listener.is_over():
            if self.is_stopped():
                return False
            self._block()
            self._look()
        return True

    def _block(self) -> None:
        epoch = self.schedule.epoch(self.step)
        if epoch is not None:
            self.listener.epoch_begins(epoch)
        self.listener.block_begins(self.step)
        count, began = self.schedule.steps_to_go(self.step, self.block.steps), self.clock()
        done, finite = self.inner.run(self.position, count)
        took_s = self.clock() - began
        self.step += done
        self.position += done * self.batch_size
        if not finite:
            raise NotFinite("the loss", _loss_word(self.model), self.step)
        self.block.learn(done, took_s)
        self.listener.block_ended(self.step, done, took_s)
        if self.schedule.log_is_due(self.step):
            self.listener.log_is_due(self.step)
        if self.schedule.summary_is_due(self.step):
            self._summary()
        if self.schedule.evaluation_is_due(self.step):
            self.listener.evaluation_is_due(self.step)
            self.schedule.evaluation_was_done()
        epoch = self.schedule.epoch(self.step)
        if epoch is not None:
            self.listener.epoch_ended(epoch - 1)

    def _summary(self) -> None:
        """A point: the mean since the one before. The extra one at the last step leaves the metrics running, so that
        a run that goes on later has the curve of one that went on at once."""
        self.listener.summary_is_due(self.step, metric_values(self.model))
        if self.schedule.summary_is_regular(self.step):
            self.model.reset_metrics()

    def _look(self) -> None:
        if self.schedule.checkpoint_is_due(self.step, is_last=self.listener.is_over()):
            self.listener.checkpoint_is_due(self.step, self.position)
            self.schedule.checkpoint_was_saved(self.step)


class NotFinite(Exception):
    """The loss, or a weight, became NaN or infinite at `step`."""

    def __init__(self, what: str, word: str, step: int) -> None:
        super().__init__(f"{what} is {word} at step {step}")
        self.what = what
        self.word = word
        self.step = step


def _loss_word(model: Any) -> str:
    value = float(model.get_metrics_result()["loss"])
    return "NaN" if math.isnan(value) else "infinite"
