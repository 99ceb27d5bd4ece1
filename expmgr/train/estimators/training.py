"""One training of an Estimator, from `ready` to its end, with expmgr's checkpoints instead of its own.

The Estimator restores what TensorFlow's `checkpoint` file names, which is written from the manifest, after the guard
said yes. It saves when our schedule says, each checkpoint whole and on the disk before it counts, and is looked at once
more between restoring and its first step.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from expmgr.checkpoints.bundle import read_index
from expmgr.checkpoints.manifest import checkpoint_name, is_file_of
from expmgr.checkpoints.model_dir import Aside, Whole
from expmgr.checkpoints.signature import Signature, Variable
from expmgr.disk.locks import Lock
from expmgr.errors import CheckpointRefused, DiskFull, OurBug, Stopped
from expmgr.train.environment import moved_bits
from expmgr.train.estimators.building import BuiltEstimator
from expmgr.train.loop.stopping import StopFlag
from expmgr.train.model.checkpoints import disk_error
from expmgr.train.model.step import NotFinite
from expmgr.train.training.base import BaseTraining, ForeignStart, TrainingResult
from expmgr.train.training.evaluations import Evaluations
from expmgr.train.training.reporting import Teller
from expmgr.train.training.summaries import EventFile

_FOLDERS = (".", "eval", "eval_test")


class EstimatorTraining(BaseTraining):
    """Trains from `newest` (None: from step 0) to the request's `max_steps`. The lock is held all along."""

    _remedy = "look at the data, lower the learning rate, or bound the gradients, in the code of the Estimator"

    def __init__(
        self,
        built: BuiltEstimator,
        newest: Whole | None,
        *,
        lock: Lock,
        teller: Teller,
        stop: StopFlag,
        renames: Mapping[str, str] | None = None,
        warm: Any = None,
        foreign: ForeignStart | None = None,
    ) -> None:
        super().__init__(built, lock=lock, teller=teller, stop=stop, newest=newest)
        self.built = built
        self._foreign = foreign
        self.start_step = newest.saved.step if newest else foreign.step if foreign else 0
        self.max_steps = foreign.step if foreign else self.request.max_steps
        self._step = self.start_step
        self._seen = newest.saved.examples_seen if newest else 0
        self._curves: EstimatorCurves = EstimatorCurves(self, newest.saved.step if newest else None)
        self._evaluations = Evaluations(built, self._curves, stop, self._look_at)
        self.schedule = self._schedule()
        self.curves = self._curves

    @property
    def step(self) -> int:
        return self._step

    @property
    def examples_seen(self) -> int:
        """Rows trained on, over all attempts; 0 where batches have the size that a Dataset gives them."""
        return self._seen

    def restore(self, _may_move: Collection[str]) -> None:
        """What can be known before the Estimator itself restores: whether what it will read is what was judged."""
        if self.newest is None:
            return
        self.probed = "not stored"
        reader = tf.train.load_checkpoint(str(self.newest.prefix))
        if int(reader.get_tensor("global_step")) != self.newest.saved.step:
            raise CheckpointRefused(
                f"{self.newest.shown} was not restored: its global_step is not {self.newest.saved.step}",
                left_alone="Nothing was changed on disk.",
            )
        self._go_on(self.newest.saved.carried)

    def not_exact(self) -> list[str]:
        """Why the run, taken up again, may not end bit for bit as one that was left alone; a line each."""
        if self.newest is None or self.start_step == 0:
            return []
        lines = list(moved_bits(self.newest.signature.provenance, self.built.provenance))
        if not self.built.data.is_exact():
            lines.append("an Estimator begins a Dataset anew: it keeps no place in it over a stop")
        if draws := self.built.training_mode.draws:
            lines.append(f"a training step draws what no checkpoint keeps ({', '.join(draws)})")
        lines += self.built.training_mode.unkept
        if self.spec.run_config.train_distribute is not None:
            lines.append("run_config.train_distribute: rows are dealt out anew to the replicas")
        return lines

    def run(self) -> TrainingResult:
        """Train, save, evaluate. Raises whatever stops it, but for a signal."""
        self._prepare_folder()
        self.built.settle()
        try:
            if self._foreign is not None:
                self._take_over(self._foreign)
            else:
                self._go_on_training()
            if self.stop.is_set() and self._step < self.max_steps and not self.is_over():
                return TrainingResult("preempted")
            self._look_at(self.folder.at(self.folder.manifest.checkpoints[-1].step))
            return self._finished(self.max_steps)
        except NotFinite as error:
            raise self._failed(error) from None
        except DiskFull as error:
            error.left_alone, error.hint = self._kept(), self._room_hint
            raise

    def _go_on_training(self) -> None:
        if self.newest is not None:
            self._look_at(self.newest)
            self._catch_up(self._step)
        if self._step < self.max_steps and not self.is_over():
            self._train()

    def _prepare_folder(self) -> None:
        super()._prepare_folder()
        if not self.folder.manifest.checkpoints:  # an Estimator takes an empty state file for a broken one
            (self.folder.path / "checkpoint").unlink(missing_ok=True)

    def _over(self) -> str | None:
        ended = self.stop.is_set() or self._step >= self.max_steps or not self._has_trained
        return super()._over() or (
            None if ended else f"the training input ended, or a hook asked for it, at step {self._step}"
        )

    _has_trained = False
    _evaluates_saved = True
    scaffold: Any = None
    """That of the graph which is trained."""
    _before = 0
    """The step before the last run of the session."""

    def is_over(self) -> bool:
        return super()._over() is not None

    def _look_at(self, whole: Whole) -> None:
        self.built.newest = whole.prefix

    def _train(self) -> None:
        fed = self.built.data.train(self.start_step, self._seen)
        estimator = self.built.estimator
        made = estimator._call_model_fn

        def keep(features: Any, labels: Any, mode: Any, config: Any) -> Any:
            found = made(features, labels, mode, config)
            if mode == tf.estimator.ModeKeys.TRAIN:
                self.scaffold = found.scaffold
            return found

        estimator._call_model_fn = keep
        ended: Exception | None = None
        with self.built.code.errors("training failed"):
            try:
                estimator.train(fed.input_fn, hooks=[Watch(self), Saves(self)], max_steps=self.max_steps)
            except (NotFinite, Stopped) as error:
                ended = error
            except tf.estimator.NanLossDuringTrainingError:
                ended = NotFinite("the loss", "NaN", self._step + 1)
            except tf.errors.OpError as error:
                raise disk_error(error, "a checkpoint") or error from None
            finally:
                del estimator._call_model_fn
        if isinstance(ended, NotFinite):
            raise ended
        self._has_trained = ended is None

    def stepped(self, loss: float, step: int) -> None:
        """A session's run was trained, which ended at `step`: most count one, some count none, or two."""
        self._before, self._step = self._step, step
        self._seen += self.built.data.batch_size or 0
        if not math.isfinite(loss):
            raise NotFinite("the loss", "NaN" if math.isnan(loss) else "infinite", self._step)
        self._curves.stepped(loss)

    def crossed(self, steps: int | None) -> bool:
        """Whether the last run of the session went over a multiple of `steps`."""
        return bool(steps) and self._step // (steps or 1) != self._before // (steps or 1)

    def _take_over(self, foreign: ForeignStart) -> None:
        """Let a checkpoint that was made elsewhere count, as it is."""

        def copy(prefix: Path) -> None:
            source = Path(foreign.prefix)
            for path in source.parent.glob(f"{source.name}.*"):
                target = prefix.with_name(f"{prefix.name}{path.name[len(source.name) :]}")
                if is_file_of(self._step, target.name):
                    shutil.copyfile(path, target)

        self.count(self.folder.write_aside(self._step, copy), self._step)

    def count(self, aside: Aside, step: int) -> None:
        """Let a checkpoint that was written aside count, evaluated where that is due."""
        prefix = aside.folder / checkpoint_name(step)
        self.built.newest = prefix
        signature = self._signature_of(prefix, step)
        metrics: dict[str, dict[str, float]] = {}
        every = self.spec.eval.every_steps
        is_due = self.schedule.evaluation_is_due(step) or bool(every and step // every != self._before // every)
        if self.stop.is_set() and not is_due and not self._is_saved_at(step) and step:
            pass  # saved for the stop alone: which checkpoint is the best must not hang on when a signal came
        else:
            with contextlib.suppress(Stopped):  # then it is saved as it is, and evaluated when the run goes on
                if is_due:
                    self.evaluation_is_due(step)
                    self.schedule.evaluation_was_done()
                metrics = self._checkpoint_metrics(step)
        self._take_in(aside, signature, self._about(self._seen, metrics))
        self.schedule.checkpoint_was_saved(step)
        self._look_at(self.folder.at(step))

    def _signature_of(self, prefix: Path, step: int) -> Signature:
        """With what the checkpoint holds beside variables (the place of an iterator) as state. Raises `NotFinite`."""
        signature = self.built.signature(step)
        known = {one.path for one in (*signature.variables, *signature.optimizer_variables)}
        index = read_index(prefix.with_name(f"{prefix.name}.index"))
        reader = tf.train.load_checkpoint(str(prefix))
        for key in index:
            value = np.asarray(reader.get_tensor(key))
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise NotFinite("a weight", "NaN or infinite", step)
        state = [
            Variable(path=key, shape=list(one.shape), dtype=one.dtype, trainable=False)
            for key, one in index.items()
            if key not in known and key not in ("", "global_step")
        ]
        return signature.model_copy(update={"state": state})

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is to be saved at `step`."""
        steps = (self.spec.run_config.save_checkpoints_steps, self.spec.eval.every_steps)
        if any(one and step // one != self._before // one for one in steps):
            return True  # also where the step that it is due at was leapt over
        return self.schedule.checkpoint_is_due(step, is_last=self.is_over()) or self.schedule.evaluation_is_due(step)

    def look_again(self, session: Any) -> None:
        """Between restoring and the first step: every variable holds what the checkpoint does, in the shape that the
        model wants; settings that changed take effect."""
        if self.newest is None:
            return
        reader = tf.train.load_checkpoint(str(self.newest.prefix))
        anew = self._set_anew()
        for variable in tf.compat.v1.global_variables():
            name, value = variable.op.name, session.run(variable)
            if name in anew:
                session.run(variable.initializer)
                continue
            info = variable._get_save_slice_info() if hasattr(variable, "_get_save_slice_info") else None
            key = info.full_name if info is not None else name
            if not reader.has_tensor(key):
                continue
            saved = np.asarray(reader.get_tensor(key))
            if info is not None:
                ends = zip(info.var_offset, info.var_shape, strict=True)
                saved = saved[tuple(slice(start, start + size) for start, size in ends)]
            if tuple(variable.shape) != np.shape(value) or not np.array_equal(
                value, saved, equal_nan=saved.dtype.kind == "f"
            ):
                raise OurBug(
                    f"{self.newest.shown}: {key} holds {np.shape(value)} after restoring, not what was saved in the shape "
                    f"{tuple(variable.shape)} that the model wants"
                )

    def _set_anew(self) -> set[str]:
        """Names of the variables that hold a setting which is another now than when the checkpoint was saved."""
        assert self.newest is not None
        old = self.newest.signature.training.optimizer
        mode = self.built.training_mode
        return {name for setting, name in mode.hyper.items() if old.get(setting) != mode.settings.get(setting)}


class Saves(tf.estimator.CheckpointSaverHook):  # type: ignore[misc]
    """Stands in for the Estimator's own saving: the Estimator makes none where it finds one of this class."""

    def __init__(self, training: EstimatorTraining) -> None:
        folder = str(training.folder.path)
        graph = training.spec.run_config.checkpoint_save_graph_def
        super().__init__(folder, save_steps=1, save_graph_def=graph)
        self._training = training

    def after_create_session(self, session: Any, coord: Any) -> None:
        self._training.look_again(session)
        if self._training.spec.run_config.checkpoint_save_graph_def:
            tf.io.write_graph(tf.compat.v1.get_default_graph(), str(self._training.folder.path), "graph.pbtxt")
        self._look(session)
        if self._training.stop.is_set():
            raise Stopped("stopped before the first step")

    def before_run(self, run_context: Any) -> None:
        return None

    def after_run(self, run_context: Any, run_values: Any) -> None:
        if self._look(run_context.session):
            run_context.request_stop()

    def end(self, session: Any) -> None:
        self._look(session, is_last=True)

    def _look(self, session: Any, *, is_last: bool = False) -> bool:
        """Save where it is due, or where training ends at a step that is not saved; whether training is over."""
        training = self._training
        step = training.step
        is_saved = training.folder.manifest.at(step) is not None
        if not is_saved and (is_last or training.is_due(step)):
            training.curves.progress("saving", step)
            training._check_lock()
            aside = training.folder.write_aside(step, lambda prefix: self._write(session, prefix))
            training.count(aside, int(session.run(self._global_step_tensor)))
        return training.is_over()

    def _saver_of_the_graph(self) -> Any:
        scaffold = self._training.scaffold
        own = scaffold.saver if scaffold is not None else None
        return own if own is not None else self._get_saver()

    def _write(self, session: Any, prefix: Path) -> None:
        meta = self._training.spec.run_config.checkpoint_save_graph_def
        try:
            self._saver_of_the_graph().save(session, str(prefix), write_meta_graph=meta, write_state=False)
        except tf.errors.OpError as error:
            raise disk_error(error, f"checkpoint {prefix.name}") or error from None


class Watch(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]
    """Counts steps, draws the curve of the loss, and hands a wish to stop on."""

    def __init__(self, training: EstimatorTraining) -> None:
        self._training = training
        self._loss: Any = None

    def begin(self) -> None:
        # Estimator puts the loss that it trains there, behind those of its parts.
        self._loss = tf.compat.v1.get_collection(tf.compat.v1.GraphKeys.LOSSES)[-1]
        self._global_step = tf.compat.v1.train.get_global_step()

    def before_run(self, run_context: Any) -> Any:
        return tf.compat.v1.train.SessionRunArgs(self._loss)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        step = int(run_context.session.run(self._global_step))
        self._training.stepped(float(np.mean(run_values.results)), step)
        if self._training.stop.is_set():
            run_context.request_stop()


class EstimatorCurves:
    """Points of curves as events, lines of the log, and where the run stands. Event files are the Estimator's own."""

    def __init__(self, training: EstimatorTraining, resumed_at: int | None) -> None:
        self._training = training
        self._files = [
            EventFile(Path(training.folder.path, folder), resumed_at=resumed_at, now=time.time) for folder in _FOLDERS
        ]
        self._reported = (training.start_step, time.monotonic())
        self._rate: float | None = None
        self._loss: float | None = None

    def cut_back(self) -> None:
        for file in self._files:
            file.cut_back()

    def stepped(self, loss: float) -> None:
        """One step was trained."""
        training, step = self._training, self._training.step
        self._loss = loss
        if training.crossed(training.spec.run_config.save_summary_steps) or step >= training.max_steps:
            training.teller.point("train", step, {"loss": loss})
        if training.crossed(training.spec.run_config.log_step_count_steps):
            now = time.monotonic()
            since_step, since_s = self._reported
            self._reported, self._rate = (step, now), (step - since_step) / max(now - since_s, 1e-9)
            print(f"step {step}: loss = {loss:.6g} ({self._rate:,.0f} steps/s)", flush=True)
        if training.teller.progress_is_due():
            self.progress("training", step)

    def evaluated(self, split: str, step: int, values: Mapping[str, float]) -> None:
        shown = ", ".join(f"{name} = {value:.6g}" for name, value in values.items())
        print(f"evaluated {split} at {step}: {shown}", flush=True)
        self._training.teller.point(split, step, values)

    def progress(self, phase: str, step: int) -> None:
        schedule = self._training.schedule
        self._training.teller.progress(
            phase,
            step,
            self._training.max_steps,
            loss=self._loss if phase == "training" else None,
            steps_per_s=self._rate,
            metric=None,
            checkpoint_in={"steps": schedule.steps_to_checkpoint(step), "secs": schedule.secs_to_checkpoint()},
        )
