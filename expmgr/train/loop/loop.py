"""The training loop: as many steps as fit on the device in one call, until the next thing that is due.

The numbers are the same bit for bit however long a call is: what is due by steps is due at fixed steps, and nothing
that a clock or a signal decides touches the model.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from expmgr.train.data.datasets import Rows
from expmgr.train.data.pipelines import Stream
from expmgr.train.loop.schedule import BlockLength, Clock, Schedule
from expmgr.train.model.checkpoints import live_variables
from expmgr.train.model.optimizers import averaged
from expmgr.train.model.structure import any_rows, rows_of
from expmgr.train.signature.fingerprint import draws_of


class Feed(Protocol):
    """Where training batches come from."""

    in_graph: bool
    """Whether a batch can be made in a graph."""

    @property
    def batch_size(self) -> int | None:
        """Rows of every batch; None where the data decides."""

    @property
    def steps_per_epoch(self) -> int | None:
        """Steps of an epoch; None where it is not known."""

    @property
    def spec(self) -> Any:
        """The specs of a batch, with any number of rows."""

    def at(self, position: Any, step: Any = None) -> Any:
        """The batch of `step`, whose first row is at `position`, rows counted over all epochs."""

    def state(self) -> bytes | None:
        """What has to be kept over a stop."""

    def go_to(self, step: int, state: bytes | None) -> str | None:
        """Go on at `step` with what was kept; why that is not exact, None where it is."""


#: Puts what user code raises into words: `errors("a training step failed")`.
Errors = Callable[[str], contextlib.AbstractContextManager[None]]


def no_errors(_what: str) -> contextlib.AbstractContextManager[None]:
    """Nothing is put into words: no user code runs."""
    return contextlib.nullcontext()


class StepFunction:
    """`train_step` or `test_step` of a model, called as `fit` would: in a graph unless the model runs eagerly.

    What it gives counts where it is the user's own: Keras' own gives the running metrics, which the model holds.
    """

    def __init__(self, model: Any, name: str) -> None:
        self._model = model
        self.not_finite: dict[str, str] = {}
        """Metrics that were NaN or infinite when `values` was asked last."""
        self.is_eager = bool(model.run_eagerly)
        self.is_own = getattr(type(model), name) is not getattr(keras.Model, name)
        step = getattr(model, name)
        is_compiled = bool(getattr(model, "jit_compile", False)) and not self.is_eager
        # As `fit` traces it: without autograph, which takes a fifth of a second to find nothing to convert in Keras' own.
        traced = tf.function(step, autograph=False, jit_compile=is_compiled or None, reduce_retracing=True)
        self.call = step if self.is_eager else traced

    def traced(self, spec: Any) -> Any:
        """The concrete function for batches of `spec`."""
        return self.call.get_concrete_function(spec)

    def logs(self, result: Any) -> dict[str, Any]:
        """What a call gave, by name, as far as it is the user's own and numbers."""
        if not self.is_own or not isinstance(result, Mapping):
            return {}
        return {str(name): tf.convert_to_tensor(value) for name, value in result.items() if _is_number(value)}

    def values(self, logs: Mapping[str, Any]) -> dict[str, float]:
        """The loss and metrics by name, those that are finite, the loss first; a vector's by their place."""
        found = _flat(logs if self.is_own and logs else self._model.get_metrics_result())
        self.not_finite = {name: str(value) for name, value in found.items() if not math.isfinite(value)}
        return {name: value for name, value in found.items() if math.isfinite(value)}


def _is_number(value: Any) -> bool:
    return (hasattr(value, "dtype") and hasattr(value, "shape")) or isinstance(value, (int, float))


def _flat(found: Mapping[str, Any]) -> dict[str, float]:
    values: dict[str, float] = {}
    for name in sorted(found, key=lambda name: name != "loss"):
        array = np.asarray(found[name], dtype="float64")
        if array.ndim == 0:
            values[name] = float(array)
        else:
            values.update({f"{name}_{place}": float(one) for place, one in enumerate(array.ravel())})
    return values


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
                    self._traced = self._step.traced(self._feed.spec)
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
        return "NaN" if any(math.isnan(value) for name, value in _flat(found).items() if _is_loss(name)) else "infinite"

    def _one_by_one(self, step: int, position: int, count: int) -> tuple[int, int, bool]:
        rows = 0
        for done in range(count):
            batch = self._feed.at(tf.constant(position + rows, tf.int64), step + done)
            result = self._step.call(batch)
            self._logs = self._step.logs(result)
            rows += int(rows_of(batch))
            if not bool(_finite(result)):
                return done + 1, rows, False
        return count, rows, True

    def _steps(self, position: Any, count: Any) -> Any:
        def one(done: Any, rows: Any, _finite_before: Any, logs: dict[str, Any]) -> tuple[Any, ...]:
            batch = self._feed.at(position + rows)
            result = self._step.call(batch)
            found = self._step.logs(result)
            # The running mean of the loss: it is NaN or infinite from the first such step on.
            return done + 1, rows + rows_of(batch), _finite(result), {name: found[name] for name in logs}

        zero = tf.constant(0, tf.int64)
        start = (zero, zero, tf.constant(True), _zeros(self._step, lambda: self._feed.spec))
        return tf.while_loop(
            lambda done, _rows, finite, _logs: (done < count) & finite, one, start, parallel_iterations=1
        )


def _zeros(step: StepFunction, spec: Callable[[], Any]) -> dict[str, Any]:
    """What a user's own step gives, as zeros: a loop on the device has to know it beforehand."""
    if not step.is_own:
        return {}
    given = step.traced(spec()).structured_outputs
    known = {} if not isinstance(given, Mapping) else given
    return {
        str(name): tf.zeros(one.shape, one.dtype)
        for name, one in known.items()
        if isinstance(one, tf.TypeSpec | tf.Tensor) and one.shape.is_fully_defined()
    }


def _is_loss(name: str) -> bool:
    return name == "loss" or name.endswith("_loss")


def _finite(result: Any) -> Any:
    """Whether the losses that a step gave are finite."""
    if not isinstance(result, Mapping):
        return tf.constant(True)
    losses = [result["loss"]] if "loss" in result else [one for name, one in result.items() if _is_loss(str(name))]
    found = [tf.reduce_all(tf.math.is_finite(tf.cast(one, tf.float32))) for one in losses]
    return tf.reduce_all(tf.stack(found)) if found else tf.constant(True)


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

        logs = _zeros(self._step, lambda: any_rows(self._batch(tf.constant(0, tf.int64))))
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


class NotFinite(Exception):
    """The loss, or a weight, became NaN or infinite at `step`."""

    def __init__(self, what: str, word: str, step: int) -> None:
        super().__init__(f"{what} is {word} at step {step}")
        self.what = what
        self.word = word
        self.step = step
