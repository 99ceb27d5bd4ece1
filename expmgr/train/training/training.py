"""One training of a Keras model, from `ready` to its end: restore, loop, save, evaluate."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

from google.protobuf import text_format

from expmgr.checkpoints.model_dir import Whole
from expmgr.checkpoints.signature import ProbeValues
from expmgr.disk import durable
from expmgr.disk.locks import Lock
from expmgr.errors import DiskFull, Stopped
from expmgr.train.building import Built
from expmgr.train.environment import moved_bits
from expmgr.train.loop.loop import Loop
from expmgr.train.loop.stopping import StopFlag
from expmgr.train.model import adopting, checkpoints
from expmgr.train.model.step import NotFinite
from expmgr.train.signature import probe
from expmgr.train.training.base import BaseTraining, ForeignStart, Start, TrainingResult
from expmgr.train.training.curves import Curves
from expmgr.train.training.evaluations import Evaluations, Metrics
from expmgr.train.training.reporting import Teller
from expmgr.train.training.saving import Saver

#: Seconds after which a checkpoint has the probe's values again, besides the first, the last and the best.
_PROBE_SECS = 30.0


class Training(BaseTraining):
    """Trains from `newest` (None: from step 0) to the request's `max_steps`. The lock is held all along."""

    def __init__(
        self,
        built: Built,
        newest: Whole | None,
        *,
        lock: Lock,
        teller: Teller,
        stop: StopFlag,
        renames: Mapping[str, str] | None = None,
        warm: Start | None = None,
        foreign: ForeignStart | None = None,
    ) -> None:
        super().__init__(built, lock=lock, teller=teller, stop=stop, newest=newest)
        self.built, self.model = built, built.model
        self._renames = renames or {}
        self._warm = warm
        self._foreign = foreign
        self._batch: probe.Batch | None = None
        self._probed_at = time.monotonic()
        self._moved_data: list[str] = []
        self._saver = Saver(self.model, self.folder, lambda: built.inner.feed.state())
        self._callbacks = built.callbacks
        self.start_step = newest.saved.step if newest else foreign.step if foreign else 0
        self.max_steps = foreign.step if foreign else self.request.max_steps
        self.loop = self._loop()
        resumed_at = newest.saved.step if newest else None
        self._curves: Curves = Curves(built, teller, self.loop.schedule, self.start_step, resumed_at)
        self._evaluations = Evaluations(built, self._curves, stop, self._restore, is_told=bool(self._callbacks))

    @property
    def step(self) -> int:
        return self.loop.step

    @property
    def examples_seen(self) -> int:
        """Rows trained on, over all attempts."""
        return self.loop.position

    def restore(self, may_move: Collection[str]) -> None:
        """The state to start from, in memory alone, and the probe's look at it; raises where the probe says no."""
        self.loop.inner.trace()
        wanted = self.built.signature(0).training.optimizer
        if self.newest is not None:
            self._restore(self.newest)
            checkpoints.apply_settings(self.model, wanted, self.newest.signature.training.optimizer)
            self._look(self.newest, may_move)
            self._go_on(self.newest.saved.carried)
            told = self.loop.inner.feed.go_to(self.start_step, checkpoints.pipeline_of(self.newest.prefix))
            self._moved_data = [told] if told else []
        elif self._warm is not None:
            source = self._warm.source
            checkpoints.take(self.model, source.prefix, self._warm.plan, shown=source.shown, signature=source.signature)
        elif self._foreign is not None:
            adopting.take(self.model, self._foreign.prefix, self._foreign.adoption)
            checkpoints.apply_settings(self.model, wanted, {})

    def not_exact(self) -> list[str]:
        """Why the run, taken up again, may not end bit for bit as one that was left alone; a line each."""
        if self.newest is None or self.start_step == 0:
            return []
        lines = [*moved_bits(self.newest.signature.provenance, self.built.provenance)]
        lines += [*self._moved_data, *self.built.inner.draws()]
        lines += [
            f"callback {name} keeps nothing over a stop: what it counts, and weights that it holds, begin anew"
            for name in self._callbacks.not_kept()
        ]
        if self._patience is not None and self.spec.eval.every_secs is not None:
            lines.append("early stopping looks at evaluations whose steps hang on the clock (eval.every_secs)")
        return lines

    def _look(self, newest: Whole, may_move: Collection[str]) -> None:
        saved = newest.signature.probe
        batch = probe.read_batch(self.folder.path, saved.batch, self.built.data.first()) if saved else None
        if saved is None or batch is None:
            self.probed = "not stored" if saved is None else "its rows are missing"
            return
        self._batch = batch
        probe.require_unmoved(self.model, batch, saved, may_move, newest.shown)
        self.probed = "as saved"

    def run(self) -> TrainingResult:
        """Train, save, evaluate. Raises whatever stops it, but for a signal."""
        try:
            self._prepare_folder()
            if self.spec.run_config.checkpoint_save_graph_def and not self.built.inner.is_eager:
                self._write_graph(self.loop.inner.trace())
            self._callbacks.call("on_train_begin", {})
            if self.newest is not None:  # behind it: Keras' own begin anew there
                self._callbacks.go_on(
                    self.newest.saved.carried.get("callbacks", {}), is_sent_back=self.request.from_step is not None
                )
            is_complete = self._train()
            self._say_the_end()
            return self._finished(self.max_steps) if is_complete else TrainingResult("preempted")
        except NotFinite as error:
            raise self._failed(error) from None
        except DiskFull as error:
            error.left_alone, error.hint = self._kept(), self._room_hint
            raise
        finally:
            self._curves.close()

    def _say_the_end(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._callbacks.call("on_train_end", self._logs())

    _has_ended = False

    def _restore(self, whole: Whole) -> None:
        # What was saved in this run has the model's own names, and no old one is among them.
        checkpoints.restore(
            self.model, whole.prefix, shown=whole.shown, signature=whole.signature, renames=self._renames_of(whole)
        )

    def _renames_of(self, whole: Whole) -> Mapping[str, str]:
        paths = {one.path for one in whole.signature.variables}
        return {old: new for old, new in self._renames.items() if old in paths}

    def _write_graph(self, traced: Any) -> None:
        graph = text_format.MessageToString(traced.graph.as_graph_def()).encode()
        with durable.disk_errors(f"{self.folder.shown}/graph.pbtxt"):
            durable.write_bytes(self.folder.path / "graph.pbtxt", graph)

    def _train(self) -> bool:
        try:
            self._catch_up(self.start_step)
            is_complete = self.loop.run()
        except Stopped:
            is_complete = False
        finally:
            self._saver.settle()  # what was saved before an error counts
        if not is_complete and self.folder.manifest.at(self.loop.step) is None:
            # Not evaluated: which checkpoint is the best must not hang on when a signal came.
            self._save(self.loop.step, self.loop.position, metrics={})
            self._saver.settle()
        return is_complete

    # What the loop tells.

    def _over(self) -> str | None:
        return super()._over() or self._callbacks.asks_to_stop

    def epoch_begins(self, epoch: int) -> None:
        self._callbacks.call("on_epoch_begin", epoch, {})

    def epoch_ended(self, epoch: int) -> None:
        self._callbacks.call("on_epoch_end", epoch, self._logs())

    def _logs(self) -> dict[str, float]:
        """What `fit` gives its callbacks: the running metrics, and those of an evaluation at this step."""
        if not self._callbacks:
            return {}
        evaluated = self._evaluations.at(self.loop.step)
        return {**self.built.inner.values(), **{f"val_{name}": value for name, value in evaluated.items()}}

    def block_begins(self, step: int) -> None:
        if self._callbacks.looks_at_batches:
            self._callbacks.call("on_train_batch_begin", step % self._callbacks.steps_per_epoch, {})

    def block_ended(self, step: int, block_steps: int, took_s: float) -> None:
        if self._callbacks.looks_at_batches:
            self._callbacks.call("on_train_batch_end", (step - 1) % self._callbacks.steps_per_epoch, self._logs())
        self._saver.look()
        self._curves.block_ended(step, block_steps, took_s)

    def summary_is_due(self, step: int, values: Mapping[str, float]) -> None:
        self._curves.trained(step, values)

    def log_is_due(self, step: int) -> None:
        self._curves.log(step)

    def _evaluated(self, step: int) -> Mapping[str, float]:
        self._callbacks.call("on_test_begin", {})
        values = super()._evaluated(step)
        self._callbacks.call("on_test_end", values)
        return values

    def _evaluate_again(self, step: int) -> None:
        self.loop.evaluate()
        self.loop.end_epoch()

    def checkpoint_is_due(self, step: int, position: int) -> None:
        if self._callbacks and (step >= self.max_steps or self.is_over()):
            self._say_the_end()  # first: what it makes of the weights (the best ones again) is what is saved
        self._save(step, position, self._checkpoint_metrics(step))

    def _save(self, step: int, position: int, metrics: Metrics) -> None:
        self._curves.progress("saving", step)
        self._saver.settle()
        if not checkpoints.is_finite(self.model):
            raise NotFinite("a weight", "NaN or infinite", step)
        self._check_lock()
        signature = self.built.signature(step).model_copy(update={"probe": self._probed(step, metrics)})
        about = self._about(position, metrics)
        self._saver.begin(step, lambda aside: self._take_in(aside, signature, about))

    def _carried(self) -> dict[str, Any]:
        carried = {**super()._carried(), "callbacks": self._callbacks.state()}
        return {key: value for key, value in carried.items() if value}

    def _probed(self, step: int, metrics: Metrics) -> ProbeValues | None:
        """The probe's values at the first, the last and the best checkpoint, its rows stored before them."""
        now = time.monotonic()
        is_end = step >= self.max_steps or self.stop.is_set() or self.is_over()
        is_due = now - self._probed_at >= _PROBE_SECS  # a run that is killed has it with one of its last checkpoints
        if self.spec.probe == "off" or not (
            step == self.start_step or is_end or is_due or self._evaluations.is_best(metrics)
        ):
            return None
        self._probed_at = now
        self._batch = self._batch or probe.Batch.of(self.built.data.first())
        if self._batch is None:
            return None
        self._batch.write(self.folder.path)
        return probe.values_of(self.model, self._batch)

    # Making the parts.

    def _loop(self) -> Loop:
        newest = self.newest
        schedule = self._schedule(
            epoch_steps=self._callbacks.steps_per_epoch if self._callbacks else None,
            most_steps=1 if self._callbacks.looks_at_batches else None,
        )
        return Loop(
            model=self.model,
            inner=self.built.inner,
            schedule=schedule,
            listener=self,
            is_stopped=self.stop.is_set,
            clock=time.monotonic,
            step=self.start_step,
            position=newest.saved.examples_seen
            if newest
            else self.start_step * (self.built.inner.feed.batch_size or 0),
        )
