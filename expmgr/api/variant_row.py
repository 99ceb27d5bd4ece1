"""One row of a list of variants: a variant with its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class VariantRow:
    """One variant with its result. `as_dict()` is a line of `expmgr list --json`."""

    variant: str
    branch: str
    commit: str
    base: str | None
    """What it was made from (`from` in JSON)."""
    why: str
    warm_start: str | None
    """Whose weights its runs started from, as VARIANT@STEP."""
    runs: Mapping[str, int]
    """Status to the number of runs; `damaged` and `unreadable` for records that are not used."""
    seeds: Sequence[int]
    metric: str | None
    split: str | None
    current: Sequence[str]
    """Ids of the runs with the spec and the code that the branch has now."""
    mean: float | None
    """Of the metric over the seeds of the current runs that finished."""
    std: float | None
    last_run_at: float | None
    """Seconds since 1970, UTC."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "variant": self.variant,
            "branch": self.branch,
            "commit": self.commit,
            "from": self.base,
            "why": self.why,
            "warm_start": self.warm_start,
            "runs": dict(self.runs),
            "seeds": list(self.seeds),
            "metric": self.metric,
            "split": self.split,
            "current": list(self.current),
            "mean": self.mean,
            "std": self.std,
            "last_run_at": self.last_run_at,
        }

    @property
    def made_from(self) -> str:
        """What it was made from, and whose weights its runs started from, as people read it."""
        base = self.base or "-"
        return f"{base}, weights of {self.warm_start}" if self.warm_start else base

    @property
    def result(self) -> str:
        """The metric over the seeds, as people read it; a dash where there is none."""
        if self.mean is None:
            return "- (changed since it was run)" if self.runs.get("finished") and not self.current else "-"
        spread = f" ± {self.std:.4f}" if self.std is not None else ""
        return f"{self.metric} {self.mean:.4f}{spread}"

    @property
    def counts(self) -> str:
        """How many runs there are of each status, as people read it."""
        return ", ".join(f"{count} {status}" for status, count in sorted(self.runs.items())) or "none"

    def __repr__(self) -> str:
        return f"<variant {self.variant}: {self.result}, runs: {self.counts}>"
