"""Evaluates the splits when due, and finds the checkpoint that the spec's `selection` names."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from expmgr.checkpoints.manifest import SavedCheckpoint
from expmgr.checkpoints.model_dir import ModelDir, Whole
from expmgr.errors import Stopped
from expmgr.spec.experiment import ExperimentSpec
from expmgr.spec.training import BestCheckpoint
from expmgr.train.loop.stopping import StopFlag
from expmgr.train.training.curves import Look

Values = dict[str, float]
Metrics = dict[str, Values]


class EvaluatedModel(Protocol):
    """A model with its data, whoever evaluates it."""

    @property
    def spec(self) -> ExperimentSpec: ...

    @property
    def folder(self) -> ModelDir: ...

    @property
    def data(self) -> Splits: ...

    def evaluation(self, source: Any) -> OneEvaluation:
        """An evaluation of what `data.rows` gives."""


class Splits(Protocol):
    """The splits that can be evaluated."""

    @property
    def splits(self) -> list[str]: ...

    def rows(self, split: str) -> Any: ...

    def sha256(self, split: str) -> str: ...


class OneEvaluation(Protocol):
    """An evaluation of one split."""

    def run(
        self, is_stopped: Callable[[], bool], clock: Callable[[], float], *, most_batches: int | None = None
    ) -> Values | None:
        """The metrics; None where `is_stopped` said so."""


class Evaluations:
    """The evaluations of one training. `restore` puts a checkpoint of it into the model."""

    def __init__(
        self,
        built: EvaluatedModel,
        curves: Look,
        stop: StopFlag,
        restore: Callable[[Whole], None],
        *,
        is_told: bool = False,
    ) -> None:
        """`is_told`: callbacks are told of evaluations, and may change weights behind them."""
        self._is_told = is_told
        self._built, self._curves, self._stop, self._restore = built, curves, stop, restore
        self._spec, self._folder = built.spec, built.folder
        selection = built.spec.selection
        self._selection = selection if isinstance(selection, BestCheckpoint) else None
        self._made: dict[str, OneEvaluation] = {}
        self._newest: tuple[int, Values] | None = None

    # In training.

    def at(self, step: int) -> Values:
        """What the eval split gave at `step`; empty where it was not evaluated there."""
        return self._newest[1] if self._newest is not None and self._newest[0] == step else {}

    def _known(self, step: int) -> Values:
        """What is known of all of the eval split at `step`, with the weights as they are."""
        return self.at(step) if self._spec.eval.steps is None and not self._is_told else {}

    def in_training(self, step: int) -> Values:
        """An evaluation that is due: of `eval.steps` batches. Raises `Stopped` where a signal came."""
        return self._evaluate("eval", step, may_stop=True, most_batches=self._spec.eval.steps)

    def for_checkpoint(self, step: int) -> Metrics:
        """What has to be known of a checkpoint when it is saved: the eval split, where the selection goes by it."""
        if self._selection is None:
            return {}
        known = self._known(step)
        return {"eval": known or self._evaluate("eval", step, may_stop=True)}

    def digests(self, splits: Iterable[str]) -> dict[str, str]:
        """sha256 of the rows of `splits`."""
        return {split: self._built.data.sha256(split) for split in splits}

    # What a selection says.

    def is_best(self, metrics: Metrics) -> bool:
        """Whether a checkpoint with `metrics` is better than all before it; never without a selection."""
        if self._selection is None:
            return False
        best = self.best_step()
        saved = self._folder.manifest.at(best) if best is not None else None
        if saved is None:
            return True
        split, metric = self._selection.split, self._selection.metric
        old, new = saved.metrics.get(split, {}).get(metric), metrics.get(split, {}).get(metric)
        if old is None or new is None:
            return False
        return new > old if self._selection.mode == "max" else new < old

    def best_step(self) -> int | None:
        """The checkpoint that the selection names, among those that were evaluated; the first of equals."""
        if self._selection is None:
            return None
        split, metric = self._selection.split, self._selection.metric
        sign = 1 if self._selection.mode == "max" else -1
        found = [
            (sign * one.metrics[split][metric], -one.step)
            for one in self._folder.manifest.checkpoints
            if metric in one.metrics.get(split, {}) and self._is_current(one, split)
        ]
        return -max(found)[1] if found else None

    def _is_current(self, saved: SavedCheckpoint, split: str) -> bool:
        """Whether the metrics of a checkpoint were found on the rows that the split has now."""
        return saved.evaluated_on.get(split) == self.digests((split,))[split]

    # The end.

    def at_the_end(self, step: int) -> tuple[int, dict[str, Metrics]]:
        """The selected step, and the metrics at it and at the last one."""
        last: Metrics = {}
        for split in ("eval", "test"):
            if split in self._built.data.splits and (values := self._last(split, step)) is not None:
                last[split] = values
        self._again()
        best = self.best_step()
        selected_step = step if best is None else best
        selected = last if selected_step == step else self._selected(selected_step)
        return selected_step, {"selected": selected, "last": last}

    def _last(self, split: str, step: int) -> Values | None:
        saved = self._folder.manifest.at(step)
        if saved is not None and split in saved.metrics and self._is_current(saved, split):
            return saved.metrics[split]
        if split == "eval" and self._known(step):
            return self._known(step)
        return self._evaluate(split, step, may_stop=True) if self._spec.eval.at_end else None

    def _again(self) -> None:
        """What a selection chose from on other rows than the split has now is evaluated on these."""
        if self._selection is None:
            return
        split = self._selection.split
        for saved in list(self._folder.manifest.checkpoints):
            if split in saved.metrics and not self._is_current(saved, split):
                self._curves.progress("evaluating", saved.step)
                values = self._of_checkpoint(split, saved.step)
                self._folder.note_metrics(saved.step, {split: values}, self.digests((split,)))
        self._folder.select(self.best_step())

    def _selected(self, step: int) -> Metrics:
        """The metrics at the best checkpoint: what was found at its save, and test, for which it is read again."""
        saved = self._folder.manifest.at(step)
        assert saved is not None
        metrics = dict(saved.metrics)
        if "test" in self._built.data.splits:
            metrics["test"] = self._of_checkpoint("test", step)
        return metrics

    def _of_checkpoint(self, split: str, step: int) -> Values:
        self._restore(self._folder.at(step))
        return self._run(split, may_stop=True)

    def _evaluate(self, split: str, step: int, *, may_stop: bool = False, most_batches: int | None = None) -> Values:
        """The metrics on `split`, told as a point."""
        self._curves.progress("evaluating", step)
        values = self._run(split, may_stop=may_stop, most_batches=most_batches)
        if split == "eval":
            self._newest = (step, values)
        self._curves.evaluated(split, step, values)
        return values

    def _run(self, split: str, **how: Any) -> Values:
        """`Stopped` where a signal came and it may stop for it."""
        if split not in self._made:
            self._made[split] = self._built.evaluation(self._built.data.rows(split))
        is_stopped = self._stop.is_set if how["may_stop"] else lambda: False
        values = self._made[split].run(is_stopped, time.monotonic, most_batches=how.get("most_batches"))
        if values is None:
            raise Stopped("stopped while it was evaluated")
        return values
