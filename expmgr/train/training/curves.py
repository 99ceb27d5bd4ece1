"""The curves of a training: points for the record, TensorBoard and the progress display."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from expmgr.runs import user_logging
from expmgr.spec.changes import flat, learned_from
from expmgr.train.building import Built
from expmgr.train.loop.schedule import Schedule
from expmgr.train.model.optimizers import inner_optimizer
from expmgr.train.training import summaries
from expmgr.train.training.reporting import Teller
from expmgr.train.training.summaries import EventFile

#: Where the event files of a split lie in the model_dir, as an Estimator's do.
_FOLDERS = {"train": ".", "eval": "eval", "test": "eval_test", "logged": "logged"}


class Look(Protocol):
    """What is looked at of a training, whoever trains."""

    def cut_back(self) -> None:
        """Forget what earlier event files hold beyond the checkpoint."""

    def progress(self, phase: str, step: int) -> None:
        """Where the run stands."""

    def evaluated(self, split: str, step: int, values: Mapping[str, float]) -> None:
        """A point of the curves of a split."""


class Curves:
    """The curves of one training, which goes on from `start_step`; `resumed_at` is None where it begins."""

    def __init__(
        self, built: Built, teller: Teller, schedule: Schedule, start_step: int, resumed_at: int | None
    ) -> None:
        self._built, self._teller, self._schedule = built, teller, schedule
        self._files = {
            split: EventFile(
                Path(built.folder.path, folder),
                resumed_at=resumed_at,
                now=time.time,
                head=self._head if split == "train" else None,
            )
            for split, folder in _FOLDERS.items()
        }
        user_logging.listeners.append(self._files["logged"].write)  # what the user's code logs
        self._reported = (start_step, time.monotonic())
        self._rate: float | None = None
        self._block_at: float | None = None

    def cut_back(self) -> None:
        """Forget what earlier event files hold beyond the checkpoint: it is done again."""
        for file in self._files.values():
            file.cut_back()

    def close(self) -> None:
        user_logging.listeners.clear()
        for file in self._files.values():
            file.close()

    def block_ended(self, step: int, block_steps: int, took_s: float) -> None:
        """Some steps were trained; the speed counts what callbacks took of the time since the last ones."""
        now = time.monotonic()
        took_s = took_s if self._block_at is None else max(took_s, now - self._block_at)
        self._block_at = now
        self._rate = block_steps / took_s if took_s > 0 else None
        if self._teller.progress_is_due():
            self.progress("training", step)

    def trained(self, step: int, values: Mapping[str, float]) -> None:
        """A point of the training curves."""
        self._teller.point("train", step, values)
        since_step, since_s = self._reported
        now = time.monotonic()
        self._reported = (step, now)
        extra = {"global_step/sec": (step - since_step) / (now - since_s)} if now > since_s else {}
        optimizer = inner_optimizer(self._built.model)
        if optimizer is not None:
            extra["learning_rate"] = float(optimizer.learning_rate)
        self._files["train"].write(step, {**values, **extra})

    def evaluated(self, split: str, step: int, values: Mapping[str, float]) -> None:
        """A point of the curves of a split, and a line of the log."""
        shown = ", ".join(f"{name} = {value:.6g}" for name, value in values.items())
        print(f"evaluated {split} at {step}: {shown}", flush=True)
        self._teller.point(split, step, values)
        self._files[split].write(step, values)

    def log(self, step: int) -> None:
        """A line of the log."""
        values = ", ".join(f"{name} = {value:.6g}" for name, value in self._built.inner.values().items())
        rate = f" ({self._rate:,.0f} steps/s)" if self._rate else ""
        print(f"step {step}: {values}{rate}", flush=True)

    def progress(self, phase: str, step: int) -> None:
        """Where the run stands: only shown."""
        if phase != "training":
            self._block_at = None  # what evaluating and saving take is no speed of training
        values = self._built.inner.values() if phase == "training" else {}
        name = self._built.spec.compared.metric
        schedule = self._schedule
        self._teller.progress(
            phase,
            step,
            self._built.request.max_steps,
            loss=values.get("loss"),
            steps_per_s=self._rate,
            metric={name: values[name]} if name in values and name != "loss" else None,
            checkpoint_in={"steps": schedule.steps_to_checkpoint(step), "secs": schedule.secs_to_checkpoint()},
        )

    def _head(self) -> Iterator[dict[str, Any]]:
        """What the event file of training begins with."""
        built = self._built
        resolved = built.spec.resolved()
        traced = built.inner.trace() if built.spec.run_config.checkpoint_save_graph_def else None
        return summaries.head(
            graph=traced.graph.as_graph_def().SerializeToString() if traced is not None else None,
            spec_text=self._spec_text(resolved),
            hparams={**flat(learned_from(resolved)), "seed": built.request.seed},
            group=f"{built.request.variant} {built.request.commit[:12]}",
            now=time.time(),
        )

    def _spec_text(self, resolved: Mapping[str, Any]) -> str:
        """spec.yaml as it was written; else what it came to."""
        try:
            return (self._built.request.experiment_dir / "spec.yaml").read_text(encoding="utf-8")
        except OSError:
            return json.dumps(resolved, indent=1)
