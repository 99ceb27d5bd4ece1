"""The training loop: each call to the device runs as many steps as fit before the next due action.

The numbers are the same bit for bit however long a call is: what is due by steps is due at fixed steps, and nothing
that a clock or a signal decides touches the model.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from expmgr.train.data.feed import Feed
from expmgr.train.loop.schedule import BlockLength, Clock, Schedule
from expmgr.train.model.checkpoints import live_variables
from expmgr.train.model.step import Errors, NotFinite, StepFunction, flat, is_loss, no_errors, only_finite, zeros
from expmgr.train.model.structure import rows_of
from expmgr.train.signature.operations import draws_of


class InnerLoop:
    """`model.train_step` over a stretch of batches, on the device. Stops at the first loss that is not finite.

    `trial()` is a context that gives a batch to try a model on that runs eagerly, and puts its state back.
    """

    def __init__(
        self, model: Any, feed: Feed, errors: Errors = no_errors, trial: Callable[[], Any] | None = None
    ) -> None:
        self._model = model
        self._feed = feed
        self._trial = trial
        self._errors = errors
        self._function = tf.function(self._steps, autograph=False)
        self._step = StepFunction(model, "train_step")
        self._traced: Any = None
        self._logs: dict[str, Any] = {}
        self._is_tried = False
        self._warming: threading.Thread | None = None
        self.is_eager = self._step.is_eager

    @property
    def feed(self) -> Feed:
        return self._feed

    def trace(self) -> Any:
        """Trace it now, which builds the metrics' variables; the concrete function, None where the model runs eagerly."""
        if self.is_eager:
            self._try()
        elif self._traced is None:
            with self._errors("a training step failed"):
                if self._feed.in_graph:
                    scalar = tf.TensorSpec((), tf.int64)
                    self._traced = self._function.get_concrete_function(scalar, scalar)
                else:
                    self._traced = self._step.traced(self._feed.type_spec)
        return self._traced

    def warm_up(self) -> None:
        """Let TensorFlow optimize the traced loop now, in a thread beside whatever Python does next: of no step, so that
        nothing is computed. What is wrong with it, the first real call says."""
        if self.is_eager or not self._feed.in_graph:
            return
        traced, zero = self.trace(), tf.constant(0, tf.int64)

        def call() -> None:
            with contextlib.suppress(Exception):
                traced(zero, zero)

        self._warming = threading.Thread(target=call, daemon=True)
        self._warming.start()

    def _try(self) -> None:
        """Take one step for its variables alone, where no trace can build them."""
        if not self._is_tried and self._trial is not None:
            with self._errors("a training step failed"), self._trial() as batch:
                self._step.call(batch)
            self._model.reset_metrics()
        self._is_tried = True

    def draws(self) -> list[str]:
        """Why a step draws numbers that no checkpoint keeps, a line each; none where it does not."""
        if self.is_eager:
            return ["the model runs eagerly: what its Python keeps to itself, no checkpoint holds"]
        traced = self.trace()
        graph = traced.graph.as_graph_def()
        nodes = itertools.chain(graph.node, *(one.node_def for one in graph.library.function))
        found = draws_of(nodes)
        lines = []
        if found:
            lines.append(f"a training step draws from tf.random, whose state no checkpoint keeps ({', '.join(found)})")
        known = {
            one.value.handle._id for group in live_variables(self._model).groups.values() for one in group.values()
        }
        others = sorted({one.name.partition(":")[0] for one in traced.graph.variables if one.handle._id not in known})
        if others:
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""
            lines.append(
                f"a training step uses variables that the model does not know as its own: {', '.join(others[:3])}{more}"
            )
        return lines

    def run(self, step: int, position: int, count: int) -> tuple[int, int, bool]:
        """Train `count` steps from `step`, which begins at row `position`: how many were done, on how many rows, and
        whether the last loss was finite."""
        if self._warming is not None:
            self._warming.join()
            self._warming = None
        with self._errors("a training step failed"):
            if self.is_eager or not self._feed.in_graph:
                return self._one_by_one(step, position, count)
            done, rows, finite, logs = self.trace()(tf.constant(position, tf.int64), tf.constant(count, tf.int64))
            self._logs = logs
            return int(done), int(rows), bool(finite)

    def values(self) -> dict[str, float]:
        """The loss and metrics of training as they stand."""
        return self._step.values(self._logs)

    @property
    def loss_word(self) -> str:
        """What a loss that is not finite is."""
        found = self._logs if self._step.is_own and self._logs else self._model.get_metrics_result()
        return "NaN" if any(math.isnan(value) for name, value in flat(found).items() if is_loss(name)) else "infinite"

    def _one_by_one(self, step: int, position: int, count: int) -> tuple[int, int, bool]:
        rows = 0
        for done in range(count):
            batch = self._feed.at(tf.constant(position + rows, tf.int64), step + done)
            result = self._step.call(batch)
            self._logs = self._step.logs(result)
            rows += int(rows_of(batch))
            if not bool(only_finite(result)):
                return done + 1, rows, False
        return count, rows, True

    def _steps(self, position: Any, count: Any) -> Any:
        def one(done: Any, rows: Any, _finite_before: Any, logs: dict[str, Any]) -> tuple[Any, ...]:
            batch = self._feed.at(position + rows)
            result = self._step.call(batch)
            found = self._step.logs(result)
            # The running mean of the loss: it is NaN or infinite from the first such step on.
            return done + 1, rows + rows_of(batch), only_finite(result), {name: found[name] for name in logs}

        zero = tf.constant(0, tf.int64)
        start = (zero, zero, tf.constant(True), zeros(self._step, lambda: self._feed.type_spec))
        return tf.while_loop(
            lambda done, _rows, finite, _logs: (done < count) & finite, one, start, parallel_iterations=1
        )


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
        done, rows, finite = self.inner.run(self.step, self.position, count)
        took_s = self.clock() - began
        self.step += done
        self.position += rows
        if not finite:
            raise NotFinite("the loss", self.inner.loss_word, self.step)
        self.block.learn(done, took_s)
        self.listener.block_ended(self.step, done, took_s)
        if self.schedule.log_is_due(self.step):
            self.listener.log_is_due(self.step)
        if self.schedule.summary_is_due(self.step):
            self._summary()
        if self.schedule.evaluation_is_due(self.step):
            self.evaluate()
        self.end_epoch()

    def evaluate(self) -> None:
        """The evaluation that is due at this step; raises `Stopped` where a signal cuts it short."""
        self.listener.evaluation_is_due(self.step)
        self.schedule.evaluation_was_done()

    def end_epoch(self) -> None:
        """Tell that an epoch has ended, where one does at this step."""
        epoch = self.schedule.epoch(self.step)
        if epoch is not None:
            self.listener.epoch_ended(epoch - 1)

    def _summary(self) -> None:
        """A point: the mean since the one before. The extra one at the last step leaves the metrics running, so that
        a run that goes on later has the curve of one that went on at once."""
        self.listener.summary_is_due(self.step, self.inner.values())
        if self.schedule.summary_is_regular(self.step):
            self.model.reset_metrics()

    def _look(self) -> None:
        if self.schedule.checkpoint_is_due(self.step, is_last=self.listener.is_over()):
            self.listener.checkpoint_is_due(self.step, self.position)
            self.schedule.checkpoint_was_saved(self.step)
