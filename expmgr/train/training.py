"""One training from `ready` to its end: the loop, what it saves and writes, and the evaluation."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from google.protobuf import text_format

from expmgr import durable
from expmgr.adoption import Adoption
from expmgr.errors import Busy, DiskFull, ProbeMoved, Stopped, TrainingFailed
from expmgr.locks import Lock
from expmgr.model_dir import About, Aside, SavedCheckpoint, Whole
from expmgr.signature import ProbeValues, Signature
from expmgr.spec import BestCheckpoint, flat, learned_from
from expmgr.train import adopting, checkpoints, probe, summaries
from expmgr.train.building import Built
from expmgr.train.events import Teller
from expmgr.train.loop import Evaluation, Loop, NotFinite, metric_values
from expmgr.train.optimizers import inner_optimizer
from expmgr.train.patience import Patience
from expmgr.train.saving import Saver
from expmgr.train.schedule import Interval, Schedule
from expmgr.train.stopping import StopFlag
from expmgr.train.summaries import EventFile
from expmgr.warmstart import Plan

Metrics = dict[str, dict[str, float]]


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


@dataclass
class Outcome:
    """How a training ended: what the event `ended` says of it."""

    status: str
    ended_early: str | None = None
    """Why training ended before the last step, where it did."""
    selected_step: int | None = None
    metrics: dict[str, Metrics] = field(default_factory=dict)


class Training:
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
        self.built, self.newest, self.lock, self.teller, self.stop = built, newest, lock, teller, stop
        self.request, self.spec, self.model, self.folder = built.request, built.spec, built.model, built.folder
        self._renames = renames or {}
        self._warm = warm
        self._foreign = foreign
        self.probed: str | None = None
        """What the probe said of the restored model; None where nothing was restored."""
        self._batch: probe.Batch | None = None
        self._saver = Saver(self.model, self.folder)
        self._patience = self._made_patience()
        self._callbacks = built.callbacks
        self._evaluated: tuple[int, dict[str, float]] | None = None
        self.start_step = newest.saved.step if newest else foreign.step if foreign else 0
        self.max_steps = foreign.step if foreign else self.request.max_steps
        self.loop = self._loop()
        self._evaluations: dict[str, Evaluation] = {}
        folders = {"train": ".", "eval": "eval", "test": "eval_test"}
        self._files = {split: self._event_file(split, folder) for split, folder in folders.items()}
        self._reported = (self.start_step, time.monotonic())
        self._began = time.monotonic()
        self._rate: float | None = None

    def restore(self, may_move: Collection[str]) -> None:
        """The state to start from, in memory alone, and the probe's look at it; raises where the probe says no."""
        self.loop.inner.trace()
        if self.newest is not None:
            self._restore(self.newest)
            checkpoints.apply_settings(self.model, self.spec, self.newest.signature.training.optimizer)
            self._look(self.newest, may_move)
            self._go_on(self.newest.saved.carried)
        elif self._warm is not None:
            source = self._warm.source
            checkpoints.take(self.model, source.prefix, self._warm.plan, shown=source.shown, signature=source.signature)
        elif self._foreign is not None:
            adopting.take(self.model, self._foreign.prefix, self._foreign.adoption)
            checkpoints.apply_settings(self.model, self.spec, {})

    def _made_patience(self) -> Patience | None:
        rule = self.spec.train.early_stopping
        return Patience(rule, rule.mode or self.spec.direction(rule.metric)) if rule else None

    def _go_on(self, carried: Mapping[str, Any]) -> None:
        if self._patience is not None:
            self._patience.go_on(carried.get("early_stopping"))
        self._callbacks.go_on(carried.get("callbacks", {}))

    def not_exact(self) -> list[str]:
        """Why the run, taken up again, may not end bit for bit as one that was left alone; a line each."""
        if self.newest is None or self.start_step == 0:
            return []
        lines = [f"callback {name} keeps nothing over a stop" for name in self._callbacks.not_kept()]
        if self._patience is not None and self.spec.eval.every_secs is not None:
            lines.append("early stopping looks at evaluations whose steps hang on the clock (eval.every_secs)")
        return lines

    def _look(self, newest: Whole, may_move: Collection[str]) -> None:
        saved = newest.signature.probe
        batch = probe.read_batch(self.folder.path, saved.batch, [*self.built.first_inputs]) if saved else None
        if saved is None or batch is None:
            self.probed = "not stored" if saved is None else "its rows are missing"
            return
        self._batch = batch
        lines = probe.moved(saved, probe.values_of(self.model, batch), may_move)
        if lines:
            raise ProbeMoved(
                f"{newest.shown} was not restored: its model does not say what it said when it was saved",
                details=lines,
                left_alone="Nothing was changed on disk.",
                hint="no rule of the guard explains it, which is a fault of ours: please send the report",
            )
        self.probed = "as saved"

    def run(self) -> Outcome:
        """Train, save, evaluate. Raises whatever stops it, but for a signal."""
        self._prepare_folder()
        if self.spec.run_config.checkpoint_save_graph_def:
            self._write_graph(self.loop.inner.trace())
        try:
            self._callbacks.call("on_train_begin", {})
            is_complete = self._train()
            self._callbacks.call("on_train_end", self._logs())
            return self._finished() if is_complete else Outcome("preempted")
        except NotFinite as error:
            raise self._failed(error) from None
        except DiskFull as error:
            error.left_alone, error.hint = self._kept(), "make room, then run again: it goes on from there"
            raise
        finally:
            for file in self._files.values():
                file.close()

    def _prepare_folder(self) -> None:
        now = time.time()
        if self.request.fresh:
            self.folder.set_aside(now)
        self.folder.prepare(now)
        if self.request.from_step is not None:
            self.folder.rewind(self.request.from_step, now)
        for file in self._files.values():
            file.cut_back()

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
            is_complete = self.loop.run()
        finally:
            self._saver.settle()  # what was saved before an error counts
        if not is_complete and self.folder.manifest.at(self.loop.step) is None:
            # Not evaluated: which checkpoint is the best must not hang on when a signal came.
            self._save(self.loop.step, self.loop.position, metrics={})
            self._saver.settle()
        return is_complete

    def _failed(self, error: NotFinite) -> TrainingFailed:
        return TrainingFailed(
            f"{error.what} of {self.request.variant} (seed {self.request.seed}) is {error.word} at step {error.step}",
            left_alone=self._kept(),
            hint="look at the data, lower optimizer.learning_rate, or bound the gradients by optimizer.clipnorm",
        )

    def _kept(self) -> str | None:
        saved = self.folder.manifest.checkpoints
        return f"The newest checkpoint before it is kept: {self.folder.shown}/{saved[-1].name}" if saved else None

    @property
    def train_s(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    # What the loop tells.

    def is_over(self) -> bool:
        return self._over() is not None

    def _over(self) -> str | None:
        """Why training is to end before its last step."""
        if self._patience is not None and self._patience.is_over:
            return self._patience.story
        return self._callbacks.asks_to_stop

    def epoch_begins(self, epoch: int) -> None:
        self._callbacks.call("on_epoch_begin", epoch, {})

    def epoch_ended(self, epoch: int) -> None:
        self._callbacks.call("on_epoch_end", epoch, self._logs())

    def _logs(self) -> dict[str, float]:
        """What `fit` gives its callbacks: the running metrics, and those of an evaluation at this step."""
        if not self._callbacks:
            return {}
        step, values = self._evaluated or (None, {})
        evaluated = {f"val_{name}": value for name, value in values.items()} if step == self.loop.step else {}
        return {**metric_values(self.model), **evaluated}

    def block_begins(self, step: int) -> None:
        if self._callbacks.looks_at_batches:
            self._callbacks.call("on_train_batch_begin", step % self._callbacks.steps_per_epoch, {})

    def block_ended(self, step: int, block_steps: int, took_s: float) -> None:
        if self._callbacks.looks_at_batches:
            self._callbacks.call("on_train_batch_end", (step - 1) % self._callbacks.steps_per_epoch, self._logs())
        self._saver.look()
        self._rate = block_steps / took_s if took_s > 0 else None
        if self.teller.progress_is_due():
            self._progress("training", step)

    def summary_is_due(self, step: int, values: Mapping[str, float]) -> None:
        self.teller.point("train", step, values)
        since_step, since_s = self._reported
        now = time.monotonic()
        self._reported = (step, now)
        extra = {"global_step/sec": (step - since_step) / (now - since_s)} if now > since_s else {}
        self._files["train"].write(
            step, {**values, "learning_rate": float(inner_optimizer(self.model).learning_rate), **extra}
        )

    def log_is_due(self, step: int) -> None:
        values = ", ".join(f"{name} = {value:.6g}" for name, value in metric_values(self.model).items())
        rate = f" ({self._rate:,.0f} steps/s)" if self._rate else ""
        print(f"step {step}: {values}{rate}", flush=True)

    def evaluation_is_due(self, step: int) -> None:
        self._callbacks.call("on_test_begin", {})
        values = self._evaluate("eval", step, may_stop=False, most_batches=self.spec.eval.steps) or {}
        self._callbacks.call("on_test_end", values)
        if self._patience is not None:
            self._patience.look(step, values)

    def checkpoint_is_due(self, step: int, position: int) -> None:
        metrics: Metrics = {}
        if isinstance(self.spec.selection, BestCheckpoint):
            is_there = self._evaluated is not None and self._evaluated[0] == step and self.spec.eval.steps is None
            values = self._evaluated[1] if is_there and self._evaluated else None
            metrics = {"eval": values or self._evaluate("eval", step, may_stop=False) or {}}
        self._save(step, position, metrics)

    def _save(self, step: int, position: int, metrics: Metrics) -> None:
        self._progress("saving", step)
        self._saver.settle()
        if not checkpoints.is_finite(self.model):
            raise NotFinite("a weight", "NaN or infinite", step)
        self._check_lock()
        signature = self.built.signature(step).model_copy(update={"probe": self._probed(step, metrics)})
        about = About(time.time(), position, metrics, self._digests(metrics), self._carried())
        self._saver.begin(step, lambda aside: self._take_in(aside, signature, about))

    def _check_lock(self) -> None:
        if not self.lock.is_held():
            raise Busy(
                f"{self.folder.shown} was taken over by another process, so nothing more was written to it",
                hint="expmgr list shows what runs",
            )

    def _take_in(self, aside: Aside, signature: Signature, about: About) -> None:
        """What was written counts from now on."""
        self._check_lock()
        saved = self.folder.take_in(aside, signature, about)
        best = self._best_step()
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

    def _carried(self) -> dict[str, Any]:
        carried = {
            "early_stopping": self._patience.state if self._patience else None,
            "callbacks": self._callbacks.state(),
        }
        return {key: value for key, value in carried.items() if value}

    def _probed(self, step: int, metrics: Metrics) -> ProbeValues | None:
        """The probe's values at the first, the last and the best checkpoint, its rows stored before them."""
        is_end = step >= self.max_steps or self.stop.is_set() or self.is_over()
        if self.spec.probe == "off" or not (step == self.start_step or is_end or self._is_best(metrics)):
            return None
        self._batch = self._batch or probe.Batch.of(self.built.first_inputs, self.built.first_targets)
        if self._batch is None:
            return None
        self._batch.write(self.folder.path)
        return probe.values_of(self.model, self._batch)

    def _is_best(self, metrics: Metrics) -> bool:
        selection, best = self.spec.selection, self._best_step()
        if not isinstance(selection, BestCheckpoint) or best is None:
            return isinstance(selection, BestCheckpoint)
        saved = self.folder.manifest.at(best)
        values = [
            one.get(selection.split, {}).get(selection.metric) for one in (saved.metrics if saved else {}, metrics)
        ]
        if values[0] is None or values[1] is None:
            return False
        return values[1] > values[0] if selection.mode == "max" else values[1] < values[0]

    def _best_step(self) -> int | None:
        """The checkpoint that the selection names, among those that were evaluated; the first of equals."""
        selection = self.spec.selection
        if not isinstance(selection, BestCheckpoint):
            return None
        sign = 1 if selection.mode == "max" else -1
        found = [
            (sign * one.metrics[selection.split][selection.metric], -one.step)
            for one in self.folder.manifest.checkpoints
            if selection.metric in one.metrics.get(selection.split, {}) and self._is_current(one, selection.split)
        ]
        return -max(found)[1] if found else None

    def _is_current(self, saved: SavedCheckpoint, split: str) -> bool:
        """Whether the metrics of a checkpoint were found on the rows that the split has now."""
        return saved.evaluated_on.get(split) == self._digests((split,))[split]

    # The end.

    def _finished(self) -> Outcome:
        step = self.loop.step
        last: Metrics = {}
        for split in ("eval", "test"):
            if split in self.built.rows and (values := self._at_the_end(split, step)) is not None:
                last[split] = values
        self._evaluate_again()
        selected_step = self._best_step() if isinstance(self.spec.selection, BestCheckpoint) else step
        selected = last if selected_step in (step, None) else self._selected(selected_step or 0)
        early = self._over() if step < self.max_steps else None
        return Outcome("finished", early, selected_step, {"selected": selected, "last": last})

    def _evaluate_again(self) -> None:
        """What a selection chose from on other rows than the split has now is evaluated on these."""
        if not isinstance(self.spec.selection, BestCheckpoint):
            return
        split = self.spec.selection.split
        for saved in list(self.folder.manifest.checkpoints):
            if split in saved.metrics and not self._is_current(saved, split):
                self._restore(self.folder.at(saved.step))
                self._progress("evaluating", saved.step)
                values = self._must(self._evaluation(split).run(self.stop.is_set, time.monotonic))
                self.folder.note_metrics(saved.step, {split: values}, self._digests((split,)))
        self.folder.select(self._best_step())

    def _digests(self, splits: Iterable[str]) -> dict[str, str]:
        return {split: self.built.data.splits[split].sha256 for split in splits}

    def _at_the_end(self, split: str, step: int) -> dict[str, float] | None:
        saved = self.folder.manifest.at(step)
        if saved is not None and split in saved.metrics and self._is_current(saved, split):
            return saved.metrics[split]
        if split == "eval" and self._evaluated and self._evaluated[0] == step and self.spec.eval.steps is None:
            return self._evaluated[1]
        return self._must(self._evaluate(split, step)) if self.spec.eval.at_end else None

    def _selected(self, step: int) -> Metrics:
        """The metrics at the best checkpoint: what was found at its save, and test, for which it is read again."""
        saved = self.folder.manifest.at(step)
        assert saved is not None
        metrics = dict(saved.metrics)
        if "test" in self.built.rows:
            self._restore(self.folder.at(step))
            metrics["test"] = self._must(self._evaluation("test").run(self.stop.is_set, time.monotonic))
        return metrics

    def _must(self, values: dict[str, float] | None) -> dict[str, float]:
        if values is None:
            raise Stopped("stopped while it was evaluated")
        return values

    def _evaluate(
        self, split: str, step: int, *, may_stop: bool = True, most_batches: int | None = None
    ) -> dict[str, float] | None:
        """The metrics on `split`, told as a point; None where a signal came and `may_stop`."""
        self._progress("evaluating", step)
        is_stopped = self.stop.is_set if may_stop else lambda: False
        values = self._evaluation(split).run(is_stopped, time.monotonic, most_batches=most_batches)
        if values is not None:
            if split == "eval":
                self._evaluated = (step, values)
            self.teller.point(split, step, values)
            self._files[split].write(step, values)
        return values

    def _evaluation(self, split: str) -> Evaluation:
        if split not in self._evaluations:
            self._evaluations[split] = Evaluation(self.model, self.built.rows[split], self.spec.data.batch_size)
        return self._evaluations[split]

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
            position=newest.saved.examples_seen if newest else self.start_step * self.spec.data.batch_size,
            batch_size=self.spec.data.batch_size,
        )

    def _event_file(self, split: str, folder: str) -> EventFile:
        return EventFile(
            Path(self.folder.path, folder),
            resumed_at=self.newest.saved.step if self.newest else None,
            now=time.time,
            head=self._head if split == "train" else None,
        )

    def _head(self) -> Iterator[dict[str, Any]]:
        """What the event file of training begins with."""
        resolved = self.spec.resolved()
        graph = self.loop.inner.trace().graph.as_graph_def().SerializeToString()
        return summaries.head(
            graph=graph if self.spec.run_config.checkpoint_save_graph_def else None,
            spec=self._spec_text(resolved),
            hparams={**flat(learned_from(resolved)), "seed": self.request.seed},
            group=f"{self.request.variant} {self.request.commit[:12]}",
            now=time.time(),
        )

    def _spec_text(self, resolved: Mapping[str, Any]) -> str:
        """spec.yaml as it was written; else what it came to."""
        try:
            return (self.request.experiment_dir / "spec.yaml").read_text(encoding="utf-8")
        except OSError:
            return json.dumps(resolved, indent=1)

    def _progress(self, phase: str, step: int) -> None:
        loss = metric_values(self.model).get("loss") if phase == "training" else None
        secs = self.loop.schedule.secs_to_checkpoint()
        self.teller.progress(
            phase,
            step,
            self.request.max_steps,
            loss=loss,
            steps_per_s=self._rate,
            metric=self._shown_metric(phase),
            checkpoint_in={"steps": self.loop.schedule.steps_to_checkpoint(step), "secs": secs},
        )

    def _shown_metric(self, phase: str) -> dict[str, float] | None:
        """The metric that is compared, as it runs in training."""
        name = self.spec.compared.metric
        value = metric_values(self.model).get(name) if phase == "training" and name != "loss" else None
        return None if value is None else {name: value}
