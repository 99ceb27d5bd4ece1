"""Folds a run's events into its record."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from expmgr.runs.events import CheckpointSaved, CurvePoint, Ended, Ready, RunEvent
from expmgr.runs.record import (
    CURVE_POINTS,
    Checkpoint,
    DataSplit,
    RunRecord,
    Status,
)


def fold(record: RunRecord, events: Iterable[RunEvent]) -> RunRecord:
    """`record` with what happened since it was written. Pure: the same events give the same record."""
    record = record.model_copy(deep=True)
    attempt = record.attempts[-1]
    curves = {
        split: {name: list(points) for name, points in metrics.items()} for split, metrics in record.curves.items()
    }
    for event in events:
        is_of_training = isinstance(event, (Ready, CurvePoint, CheckpointSaved, Ended))
        if is_of_training and attempt.status == "starting":  # also if the line `ready` is damaged
            attempt.status = record.status = "running"
        if isinstance(event, Ready):
            attempt.worker = event.worker
            attempt.from_step = record.step = event.from_step
            attempt.changes = event.changes
            attempt.probe = event.probe
            attempt.not_exact = event.not_exact
            record.data = {split: DataSplit.model_validate(told) for split, told in event.data.items()}
            record.parameters = event.parameters
            record.params = event.params
            record.measures = event.measures
            record.environment = event.environment
            record.adopted = event.adopted or record.adopted
            record.warm_start = event.warm_start or record.warm_start
            record.selected_step, record.metrics = None, {}  # this attempt has none yet
            _cut_back(record, curves, event.from_step)
        elif isinstance(event, CurvePoint):
            for name, value in event.values.items():
                points = curves.setdefault(event.split, {}).setdefault(name, [])
                if points and points[-1][0] == event.step:  # evaluated again, without a step in between
                    points.pop()
                points.append((event.step, value))
            record.step = max(record.step, event.step)
        elif isinstance(event, CheckpointSaved):
            record.checkpoints.append(Checkpoint(step=event.step, saved_at=event.at, files=event.files))
            record.step = max(record.step, event.step)
            if event.examples_seen is not None:
                record.examples_seen = event.examples_seen
            if event.train_s is not None:
                attempt.train_s = event.train_s
            record.train_s = sum(one.train_s or 0.0 for one in record.attempts)
        elif isinstance(event, Ended):
            record.selected_step = attempt.selected_step = event.selected_step
            record.metrics = attempt.metrics = event.metrics
            record.step = event.step
            record.examples_seen = event.examples_seen
            attempt.train_s = event.train_s
            attempt.ended_early = event.ended_early
            record = ended_by(record, event.status, event.error, event.at)
            attempt = record.attempts[-1]
    record.curves = {
        split: {name: thinned(points) for name, points in metrics.items()} for split, metrics in curves.items()
    }
    return record


def _cut_back(record: RunRecord, curves: dict[str, dict[str, list[tuple[int, float]]]], step: int) -> None:
    """Forget what an earlier attempt did after the checkpoint that this one starts from: it is done again."""
    for metrics in curves.values():
        for name, points in metrics.items():
            metrics[name] = [point for point in points if point[0] <= step]
    record.checkpoints = [checkpoint for checkpoint in record.checkpoints if checkpoint.step <= step]


def ended_by(record: RunRecord, status: Status, error: dict[str, Any] | None, at: float | None = None) -> RunRecord:
    record = record.model_copy(deep=True)
    attempt = record.attempts[-1]
    record.status = attempt.status = status
    attempt.error = error
    attempt.to_step = record.step
    attempt.ended_at = at
    record.train_s = sum(one.train_s or 0.0 for one in record.attempts)
    return record


def thinned(points: list[tuple[int, float]], most: int = CURVE_POINTS) -> list[tuple[int, float]]:
    """At most `most` of `points`, the smallest and largest value of each stretch kept, the first and last too."""
    if len(points) <= most:
        return points
    stretches = (most - 2) // 2
    kept = {0, len(points) - 1}
    for index in range(stretches):
        stretch = range(index * len(points) // stretches, (index + 1) * len(points) // stretches)
        kept.add(min(stretch, key=lambda at: points[at][1]))
        kept.add(max(stretch, key=lambda at: points[at][1]))
    return [points[at] for at in sorted(kept)]
