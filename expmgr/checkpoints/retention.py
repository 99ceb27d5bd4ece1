"""Decides which checkpoints are kept and which are deleted, by the `keep_*` settings. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Saved:
    """A checkpoint, as far as keeping it goes. `preserved`: kept for `keep_checkpoint_every_n_hours`."""

    step: int
    saved_at: float
    preserved: bool = False


@dataclass(frozen=True)
class Retention:
    """Which checkpoints go, which become preserved, and when the last one of those was saved."""

    delete: tuple[int, ...]
    preserve: tuple[int, ...]
    last_preserved_at: float


def retention(
    checkpoints: Sequence[Saved],
    *,
    keep_max: int | None,
    every_n_hours: float | None,
    last_preserved_at: float,
    protected: Iterable[int] = (),
) -> Retention:
    """Which of `checkpoints` (oldest first) go, so that the newest `keep_max` stay; None or 0 keeps all.

    One that would go is preserved if it was saved `every_n_hours` or more after the last one that was preserved (or
    after training began): TensorFlow 2.15, `CheckpointManager._sweep`. Those in `protected` never go; the newest
    neither.
    """
    candidates = [one for one in checkpoints if not one.preserved]
    over = candidates[:-keep_max] if keep_max else []
    never = {*protected, *(one.step for one in checkpoints[-1:])}
    delete: list[int] = []
    preserve: list[int] = []
    for one in over:
        if one.step in never:
            continue
        if every_n_hours and one.saved_at - last_preserved_at >= every_n_hours * 3600:
            preserve.append(one.step)
            last_preserved_at = one.saved_at
        else:
            delete.append(one.step)
    return Retention(tuple(delete), tuple(preserve), last_preserved_at)
