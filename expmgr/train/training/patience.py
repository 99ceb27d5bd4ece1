"""Early stopping: a pure function of the evaluations; its state is saved in the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expmgr.spec.metrics import Mode
from expmgr.spec.training import EarlyStopping


@dataclass
class Patience:
    """Counts evaluations since the metric was last better than the best before."""

    rule: EarlyStopping
    mode: Mode
    best: float | None = None
    best_step: int | None = None
    waited: int = 0

    def look(self, step: int, values: Mapping[str, float]) -> None:
        """One evaluation. A metric that is NaN or infinite is missing in `values`, and no better."""
        value = values.get(self.rule.metric)
        if value is not None and self._is_better(value):
            self.best, self.best_step, self.waited = value, step, 0
        else:
            self.waited += 1

    def _is_better(self, value: float) -> bool:
        if self.best is None:
            return True
        gain = value - self.best if self.mode == "max" else self.best - value
        return gain > self.rule.min_delta

    @property
    def is_over(self) -> bool:
        return self.waited >= self.rule.patience

    @property
    def story(self) -> str:
        """Why training ended."""
        times = "evaluation" if self.waited == 1 else "evaluations"
        since = "ever" if self.best_step is None else f"since step {self.best_step} ({self.best:.6g})"
        return f"early stopping: {self.rule.metric} has not become better for {self.waited} {times}, {since}"

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint has to keep of it, as JSON."""
        return {"metric": self.rule.metric, "best": self.best, "best_step": self.best_step, "waited": self.waited}

    def go_on(self, state: Mapping[str, Any] | None) -> None:
        """Go on from the state of a checkpoint; anew where it looked at another metric, or at none."""
        if state and state.get("metric") == self.rule.metric:
            self.best, self.best_step, self.waited = state["best"], state["best_step"], int(state["waited"])
