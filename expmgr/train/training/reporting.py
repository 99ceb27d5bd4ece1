"""Reports from a run to its command: `events.jsonl` for the record, `progress.json` for the display."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from expmgr.disk import durable
from expmgr.paths import RunDir
from expmgr.runs.events import CurvePoint, RunEvent, append_event

#: Seconds from one look at the progress to the next.
_PROGRESS_SECS = 0.2


class Teller:
    """Appends to `events.jsonl` and replaces `progress.json` of one run."""

    def __init__(self, folder: RunDir) -> None:
        self._folder = folder
        self._told_at = -math.inf
        self.on_untold: Callable[[dict[str, Any]], None] = lambda _: None
        """Given the last error as a story where the disk takes no event of it."""

    def tell(self, event: RunEvent) -> None:
        """One event."""
        with durable.disk_errors("the run's events"):
            append_event(self._folder, event)

    def point(self, split: str, step: int, values: Mapping[str, float]) -> None:
        """One point of a curve."""
        self.tell(CurvePoint(split=split, step=step, values=dict(values)))

    def progress_is_due(self) -> bool:
        return time.monotonic() - self._told_at >= _PROGRESS_SECS

    def progress(self, phase: str, step: int, max_steps: int, **about: Any) -> None:
        """Where the run stands. Only shown, so a disk that takes it not is no error here."""
        self._told_at = time.monotonic()
        values = {"loss": None, "steps_per_s": None, **about, "step": step, "max_steps": max_steps, "phase": phase}
        beside = self._folder.progress.with_suffix(".tmp")
        with contextlib.suppress(OSError):
            beside.write_text(json.dumps(values), encoding="utf-8")
            os.replace(beside, self._folder.progress)
