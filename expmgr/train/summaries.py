"""Event files that TensorBoard reads, written without TensorBoard: curves by step, readable after a kill."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import tensorflow as tf


class EventFile:
    """One event file in `folder`, made at the first point. Every point is flushed.

    `resumed_at`: the step of the checkpoint that a run was resumed from. TensorBoard then drops what an earlier file
    holds after it.
    """

    def __init__(self, folder: Path, *, resumed_at: int | None, now: Callable[[], float]) -> None:
        self._folder = folder
        self._resumed_at = resumed_at
        self._now = now
        self._writer = None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One point a tag; a value that is not finite is left out."""
        if self._writer is None:
            self._open()
        scalars = [
            tf.compat.v1.Summary.Value(tag=tag, simple_value=value)
            for tag, value in values.items()
            if math.isfinite(value)
        ]
        self._put(step=step, summary=tf.compat.v1.Summary(value=scalars))

    def close(self) -> None:
        """Close the file; a further point would begin another."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._writer = tf.io.TFRecordWriter(str(self._path()))
        self._put(file_version="brain.Event:2")
        if self._resumed_at is not None:
            # TensorBoard drops what other files hold from this step on, so it is the first step that is done again.
            start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
            self._put(step=self._resumed_at + 1, session_log=start)

    def _put(self, **fields: object) -> None:
        assert self._writer is not None
        event = tf.compat.v1.Event(wall_time=self._now(), **fields)
        self._writer.write(event.SerializeToString())
        self._writer.flush()

    def _path(self) -> Path:
        """`events.out.tfevents.<secs>.<host>.<pid>`, with a number where such a file is there already."""
        name = f"events.out.tfevents.{int(self._now())}.{socket.gethostname()}.{os.getpid()}"
        path, number = self._folder / name, 1
        while path.exists():
            path, number = self._folder / f"{name}.{number}", number + 1
        return path
