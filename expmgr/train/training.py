"""One training from `ready` to its end: the loop, what it saves and writes, and the evaluation."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from google.protobuf import text_format

from expmgr import durable
from expmgr.adoption import Adoption
from expmgr.errors import Busy, DiskFull, Stopped, TrainingFailed
from expmgr.locks import Lock
from expmgr.model_dir import About, Aside, ModelDir, Whole
from expmgr.signature import ProbeValues, Signature
from expmgr.spec import BestCheckpoint, ExperimentSpec
from expmgr.train import adopting, checkpoints, probe
from expmgr.train.building import Built
from expmgr.train.curves import Curves, Look
from expmgr.train.environment import moved_bits
from expmgr.train.evaluations import Evaluations, Metrics
from expmgr.train.events import Teller
from expmgr.train.loop import Listener, Loop, NotFinite
from expmgr.train.patience import Patience
from expmgr.train.request import Request
from expmgr.train.saving import Saver
from expmgr.train.schedule import Interval, Schedule
from expmgr.train.stopping import StopFlag
from expmgr.warmstart import Plan

#: Seconds after which a checkpoint has the probe's values again, besides the first, the last and the best.
_PROBE_SECS = 30.0
_EVALUATION, _CHECKPOINT = "evaluation", "checkpoint"


class ForeignStart(Protocol):
    """A checkpoint that was made elsewhere."""

    @property
    def prefix(self) -> Path: ...

    @property
    def adoption(self) -> Adoption: ...

    @property
    def step(self) -> int: ...


class Start(Protocol):
    """A warm start: from which checkpoint, and what of it."""

    @property
    def source(self) -> Whole: ...

    @property
    def plan(self) -> Plan: ...


class Subject(Protocol):
    """What a training is of, as far as every trainer knows it."""

    @property
    def request(self) -> Request: ...

    @property
    def spec(self) -> ExperimentSpec: ...

    @property
    def folder(self) -> ModelDir: ...


@dataclass
class Outcome:
    """How a training ended: what the event `ended` says of it."""

    status: str
    ended_early: str | None = None
    """Why training ended before the last step, where it did."""
    selected_step: int | None = None
    metrics: dict[str, Metrics] = field(default_factory=dict)


class Course(Listener):
    """What every training does, whoever computes its steps: what it saves, when it is over, how it ends."""

    def __init__(self, built: Subject, *, lock: Lock, teller: Teller, stop: StopFlag, newest: Whole | None) -> None:
        self.request, self.spec, self.folder = built.request, built.spec, built.folder
        self.newest, self.lock, self.teller, self.stop = newest, lock, teller, stop
        self.probed: str | None = None
        """What the probe said of the restored model; None where nothing was restored."""
        self._patience = self._made_patience()
        self._pending: list[str] = []
        """What a stop cut short at the step that is saved: done first when the run goes on."""
        self.folder.may_write = self._check_lock
        self._curves: Look
        self._evaluations: Evaluations
        self._began = time.monotonic()

    @property
    def step(self) -> int:
        """The last step that was trained."""
        raise NotImplementedError

    _evaluates_saved = False
    """Whether an evaluation is of a checkpoint that is saved for it, and may be selected."""

    def _made_patience(self) -> Patience | None:
        rule = self.spec.train.early_stopping
        return Patience(rule, rule.mode or self.spec.direction(rule.metric)) if rule else None

    def _prepare_folder(self) -> None:
        now = time.time()
        if self.request.fresh:
            self.folder.set_aside(now)
        self.folder.prepare(now)
        if self.request.from_step is not None:
            self.folder.rewind(self.request.from_step, now)
        self._curves.cut_back()

    def _finished(self, max_steps: int) -> Outcome:
        selected_step, metrics = self._evaluations.at_the_end(self.step)
        return Outcome("finished", self._over() if self.step < max_steps else None, selected_step, metrics)

    def _failed(self, error: NotFinite) -> TrainingFailed:
        return TrainingFailed(
            f"{error.what} of {self.request.variant} (seed {self.request.seed}) is {error.word} at step {error.step}",
            left_alone=self._kept(),
            hint=self._remedy,
        )

    _remedy = "look at the data, lower optimizer.learning_rate, or bound the gradients by optimizer.clipnorm"

    def _kept(self) -> str | None:
        saved = self.folder.manifest.checkpoints
        return f"The newest checkpoint before it is kept: {self.folder.shown}/{saved[-1].name}" if saved else None

    @property
    def train_s(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    def is_over(self) -> bool:
        return self._over() is not None

    def _over(self) -> str | None:
        """Why training is to end before its last step."""
        return self._patience.story if self._patience is not None and self._patience.is_over else None

    def _check_lock(self) -> None:
        if not self.lock.is_held():
            raise Busy(
                f"{self.folder.shown} was taken over by another process, so nothing more was written to it",
                hint="expmgr list shows what runs",
            )

    def _about(self, position: int, metrics: Metrics) -> About:
        """What the manifest says of a checkpoint that is saved now."""
        return About(time.time(), position, metrics, self._evaluations.digests(metrics), self._carried())

    def _carried(self) -> dict[str, Any]:
        """What goes on over a stop beside the tensors."""
        carried = {"early_stopping": self._patience.state if self._patience else None, "pending": self._pending}
        return {key: value for key, value in carried.items() if value}

    def _go_on(self, carried: Mapping[str, Any]) -> None:
        state = carried.get("early_stopping")
        if self._patience is not None and state:
            # Somebody who goes back to a step wants it to train on from there.
            self._patience.go_on({**state, "waited": 0} if self.request.from_step is not None else state)

    def _catch_up(self, step: int) -> None:
        """Do what a stop cut short at the checkpoint that was restored."""
        left = self.newest.saved.carried.get("pending", []) if self.newest is not None else []
        if _EVALUATION in left:
            self._evaluate_again(step)
        if _CHECKPOINT in left:
            metrics = self._evaluations.for_checkpoint(step)
            self.folder.note_metrics(step, metrics, self._evaluations.digests(metrics))
            self.folder.select(self._evaluations.best_step())

    def _evaluate_again(self, step: int) -> None:
        self.evaluation_is_due(step)

    def evaluation_is_due(self, step: int) -> None:
        values = self._evaluated(step)
        if self._patience is not None:
            self._patience.look(step, values)

    def _evaluated(self, step: int) -> Mapping[str, float]:
        """The evaluation that is due at `step`. Where a signal cuts it short, so that the run can save itself in time, it
        is done first when the run goes on."""
        try:
            return self._evaluations.in_training(step)
        except Stopped:
            is_selected = isinstance(self.spec.selection, BestCheckpoint)
            is_chosen_from = is_selected and (self._evaluates_saved or self._is_saved_at(step))
            self._pending = [_EVALUATION, *([_CHECKPOINT] if is_chosen_from else [])]
            raise

    def _is_saved_at(self, step: int) -> bool:
        """Whether a checkpoint is due at `step` whatever the clock says."""
        steps = self.spec.run_config.save_checkpoints_steps
        return step >= self.request.max_steps or (steps is not None and step % steps == 0)

    def _checkpoint_metrics(self, step: int) -> Metrics:
        """What a selection wants to know of the checkpoint at `step`."""
        try:
            return self._evaluations.for_checkpoint(step)
        except Stopped:
            self._pending = [_CHECKPOINT]
            raise

    def _take_in(self, aside: Aside, signature: Signature, about: About) -> None:
        """What was written counts from now on."""
        self._check_lock()
        saved = self.folder.take_in(aside, signature, about)
        best = self._evaluations.best_step()
        if best is not None and best != self.folder.manifest.selected_step:
            self.folder.select(best)
        config = self.spec.run_config
        self.folder.retain(config.keep_checkpoint_max, config.keep_checkpoint_every_n_hours)
        self.teller.tell(
            "checkpoint",
            step=saved.step,
            files={name: file.sha256 for name, file in saved.files.items()},
            examples_seen=saved.examples_seen,
            train_s=self.train_s,
        )


class Training(Course):
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
        lines += [f"callback {name} keeps nothing over a stop" for name in self._callbacks.not_kept()]
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

    def run(self) -> Outcome:
        """Train, save, evaluate. Raises whatever stops it, but for a signal."""
        self._prepare_folder()
        if self.spec.run_config.checkpoint_save_graph_def and not self.built.inner.is_eager:
            self._write_graph(self.loop.inner.trace())
        try:
            self._callbacks.call("on_train_begin", {})
            if self.newest is not None:  # behind it: Keras' own begin anew there
                self._callbacks.go_on(
                    self.newest.saved.carried.get("callbacks", {}), is_sent_back=self.request.from_step is not None
                )
            is_complete = self._train()
            self._say_the_end()
            return self._finished(self.max_steps) if is_complete else Outcome("preempted")
        except NotFinite as error:
            raise self._failed(error) from None
        except DiskFull as error:
            error.left_alone, error.hint = self._kept(), "make room, then run again: it goes on from there"
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
        config, newest = self.spec.run_config, self.newest
        schedule = Schedule(
            saved_step=newest.saved.step if newest else None,
            max_steps=self.max_steps,
            checkpoints=Interval(config.save_checkpoints_steps, config.save_checkpoints_secs),
            summaries=Interval(config.save_summary_steps),
            logs=Interval(config.log_step_count_steps),
            evaluations=Interval(self.spec.eval.every_steps, self.spec.eval.every_secs),
            epoch_steps=self._callbacks.steps_per_epoch if self._callbacks else None,
            most_steps=1 if self._callbacks.looks_at_batches else None,
            clock=time.monotonic,
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
