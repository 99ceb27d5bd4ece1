"""Evaluates one split on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from expmgr.train.data.datasets import Rows
from expmgr.train.data.pipelines import Stream
from expmgr.train.loop.schedule import BlockLength, Clock
from expmgr.train.model.checkpoints import live_variables
from expmgr.train.model.optimizers import averaged
from expmgr.train.model.step import Errors, StepFunction, no_errors, zeros
from expmgr.train.model.structure import any_rows


class Evaluation:
    """`model.test_step` over one split in its order, the last short batch included.

    Where the optimizer keeps a moving average of the weights, it is what is evaluated. `batch_size` is for rows on the
    device; a stream gives its own batches.
    """

    def __init__(self, model: Any, source: Rows | Stream, batch_size: int, errors: Errors = no_errors) -> None:
        self._model = model
        self._source = source
        self._batch_size = batch_size
        self._errors = errors
        self._function = tf.function(self._batches, autograph=False)
        self._step = StepFunction(model, "test_step")
        self._logs: dict[str, Any] = {}

    def run(
        self, is_stopped: Callable[[], bool], clock: Clock, *, most_batches: int | None = None
    ) -> dict[str, float] | None:
        """The metrics, None where `is_stopped` said so; running metrics and seeds are put back after it, so that nothing
        of training hangs on when it is evaluated.

        `most_batches` are looked at, all where it is None.
        """
        with averaged(self._model), self._errors("an evaluation failed"):
            return self._run(is_stopped, clock, most_batches)

    @property
    def not_finite(self) -> dict[str, str]:
        """Metrics of the last evaluation that are NaN or infinite: `nan`, `inf`, `-inf`."""
        return self._step.not_finite

    def _run(self, is_stopped: Callable[[], bool], clock: Clock, most_batches: int | None) -> dict[str, float] | None:
        variables = [*live_variables(self._model).state.values()]
        before = [tf.identity(variable.value) for variable in variables]
        self._model.reset_metrics()
        try:
            is_stream = isinstance(self._source, Stream) or self._step.is_eager
            if not (self._each if is_stream else self._all)(is_stopped, clock, most_batches):
                return None
            return self._step.values(self._logs)
        finally:
            for variable, value in zip(variables, before, strict=True):
                variable.value.assign(value)

    def _all(self, is_stopped: Callable[[], bool], clock: Clock, most_batches: int | None) -> bool:
        assert isinstance(self._source, Rows)
        block, batch = BlockLength(), 0
        total = -(-self._source.count // self._batch_size)
        total = min(total, most_batches or total)
        while batch < total:
            if is_stopped():
                return False
            count, began = min(block.steps, total - batch), clock()
            last, self._logs = self._function(tf.constant(batch, tf.int64), tf.constant(count, tf.int64))
            last.numpy()
            block.learn(count, clock() - began)
            batch += count
        return True

    def _batches(self, first: Any, count: Any) -> Any:
        def one(batch: Any, logs: dict[str, Any]) -> Any:
            found = self._step.logs(self._step.call(self._batch(batch)))
            return batch + 1, {name: found[name] for name in logs}

        logs = zeros(self._step, lambda: any_rows(self._batch(tf.constant(0, tf.int64))))
        return tf.while_loop(lambda batch, _logs: batch < first + count, one, (first, logs), parallel_iterations=1)

    def _batch(self, number: Any) -> Any:
        assert isinstance(self._source, Rows)
        begin = number * self._batch_size
        return self._source.take(tf.range(begin, tf.minimum(begin + self._batch_size, self._source.count)))

    def _each(self, is_stopped: Callable[[], bool], _clock: Clock, most_batches: int | None) -> bool:
        for number, batch in enumerate(self._given()):
            if most_batches is not None and number >= most_batches:
                break
            if is_stopped():
                return False
            self._logs = self._step.logs(self._step.call(batch))
        return True

    def _given(self) -> Iterator[Any]:
        if isinstance(self._source, Stream):
            yield from self._source
            return
        for number in range(-(-self._source.count // self._batch_size)):
            yield self._batch(tf.constant(number, tf.int64))
