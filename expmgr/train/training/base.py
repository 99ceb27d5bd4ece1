"""What Keras and Estimator trainings share: what they save, when they are over, how they end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from expmgr.checkpoints.manifest import CheckpointMetadata
from expmgr.checkpoints.model_dir import Aside, ModelDir, Whole
from expmgr.checkpoints.signature import Signature
from expmgr.disk.locks import Lock
from expmgr.errors import Busy, Stopped, TrainingFailed
from expmgr.guard.adoption import Adoption
from expmgr.guard.warm_start import Plan
from expmgr.paths import run_command
from expmgr.runs.events import CheckpointSaved
from expmgr.runs.record import Status
from expmgr.runs.request import Request
from expmgr.spec.experiment import ExperimentSpec
from expmgr.spec.training import BestCheckpoint
from expmgr.train.loop.loop import Listener
from expmgr.train.loop.schedule import Interval, Schedule
from expmgr.train.loop.stopping import StopFlag
from expmgr.train.model.step import NotFinite
from expmgr.train.training.curves import Look
from expmgr.train.training.evaluations import Evaluations, Metrics
from expmgr.train.training.patience import Patience
from expmgr.train.training.reporting import Teller

#: What a stop may cut short at a step.
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


class TrainingSubject(Protocol):
    """What a training is of, as far as every trainer knows it."""

    @property
    def request(self) -> Request: ...

    @property
    def spec(self) -> ExperimentSpec: ...

    @property
    def folder(self) -> ModelDir: ...


@dataclass
class TrainingResult:
    """How a training ended: what the event `ended` says of it."""

    status: Status
    ended_early: str | None = None
    """Why training ended before the last step, where it did."""
    selected_step: int | None = None
    metrics: dict[str, Metrics] = field(default_factory=dict)


class BaseTraining(Listener):
    """What every training does, whoever computes its steps: what it saves, when it is over, how it ends."""

    def __init__(
        self, built: TrainingSubject, *, lock: Lock, teller: Teller, stop: StopFlag, newest: Whole | None
    ) -> None:
        self.request, self.spec, self.folder = built.request, built.spec, built.folder
        self.newest, self.lock, self.teller, self.stop = newest, lock, teller, stop
        self.probed: str | None = None
        """What the probe said of the restored model; None where nothing was restored."""
        self._patience = self._made_patience()
        self._pending: list[str] = []
        """What a stop cut short at the step that is saved: done first when the run goes on."""
        self.folder.may_write = self._check_lock
        self.max_steps: int
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

    def _schedule(self, *, epoch_steps: int | None = None, most_steps: int | None = None) -> Schedule:
        """What is due when, by the spec's `run_config` and `eval`."""
        config, evaluation = self.spec.run_config, self.spec.eval
        return Schedule(
            saved_step=self.newest.saved.step if self.newest else None,
            max_steps=self.max_steps,
            checkpoints=Interval(config.save_checkpoints_steps, config.save_checkpoints_secs),
            summaries=Interval(config.save_summary_steps),
            logs=Interval(config.log_step_count_steps),
            evaluations=Interval(evaluation.every_steps, evaluation.every_secs),
            epoch_steps=epoch_steps,
            most_steps=most_steps,
            clock=time.monotonic,
        )

    def _prepare_folder(self) -> None:
        now = time.time()
        if self.request.fresh:
            self.folder.set_aside(now)
        self.folder.prepare(now)
        if self.request.from_step is not None:
            self.folder.rewind(self.request.from_step, now)
        self._curves.cut_back()

    def _finished(self, max_steps: int) -> TrainingResult:
        selected_step, metrics = self._evaluations.at_the_end(self.step)
        return TrainingResult("finished", self._over() if self.step < max_steps else None, selected_step, metrics)

    def _failed(self, error: NotFinite) -> TrainingFailed:
        return TrainingFailed(
            f"{error.what} of {self.request.variant} (seed {self.request.seed}) is {error.word} at step {error.step}",
            left_alone=self._kept(),
            hint=self._remedy,
        )

    _remedy = "look at the data, lower optimizer.learning_rate, or bound the gradients by optimizer.clipnorm"

    @property
    def _room_hint(self) -> str:
        """What to do about a full disk."""
        steps = self.request.max_steps
        is_fixed = self.spec.run_config.tf_random_seed is not None
        command = run_command(
            self.request.variant,
            None if is_fixed else self.request.seed,
            None if steps == self.spec.train.max_steps else steps,
        )
        return f"make room, then run it again: it resumes from its newest checkpoint: {command}"

    def _kept(self) -> str | None:
        if not self.folder.is_prepared:
            return None
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

    def _about(self, position: int, metrics: Metrics) -> CheckpointMetadata:
        """What the manifest says of a checkpoint that is saved now."""
        return CheckpointMetadata(time.time(), position, metrics, self._evaluations.digests(metrics), self._carried())

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

    def _take_in(self, aside: Aside, signature: Signature, about: CheckpointMetadata) -> None:
        """What was written counts from now on."""
        self._check_lock()
        saved = self.folder.take_in(aside, signature, about)
        best = self._evaluations.best_step()
        if best is not None and best != self.folder.manifest.selected_step:
            self.folder.select(best)
        config = self.spec.run_config
        self.folder.retain(config.keep_checkpoint_max, config.keep_checkpoint_every_n_hours)
        self.teller.tell(
            CheckpointSaved(
                step=saved.step,
                files={name: file.sha256 for name, file in saved.files.items()},
                examples_seen=saved.examples_seen,
                train_s=self.train_s,
            )
        )
