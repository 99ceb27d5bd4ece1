"""Writes event files that TensorBoard reads, without TensorBoard.

A file begins with the graph, the text of the spec, and what the HParams plugin reads. A run that is taken up again
first cuts the files back to its checkpoint, so that no step stands in them twice.
"""

from __future__ import annotations

import math
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf import struct_pb2

from expmgr.disk import durable
from expmgr.train.model.checkpoints import disk_error

_PATTERN = "events.out.tfevents.*"
Event = tf.compat.v1.Event


class EventFile:
    """One event file in `folder`, made at the first point. Every point is flushed.

    `resumed_at`: the step of the checkpoint that a run was resumed from, None where there was none. What earlier files
    hold after it goes. `head` gives what the first file starts with.
    """

    def __init__(
        self,
        folder: Path,
        *,
        resumed_at: int | None,
        now: Callable[[], float],
        head: Callable[[], Iterator[dict[str, Any]]] | None = None,
    ) -> None:
        self._folder = folder
        self._resumed_at = resumed_at
        self._now = now
        self._head = head
        self._writer = None
        self._written: Path | None = None

    def cut_back(self, step: int | None = None) -> None:
        """Take out of earlier files what stands at `step` or later, by default after the checkpoint resumed from."""
        first = step if step is not None else 0 if self._resumed_at is None else self._resumed_at + 1
        for path in sorted(self._folder.glob(_PATTERN)):
            events, is_whole = _read(path)
            kept = [event for event in events if event.step < first or not _is_point(event)]
            if is_whole and len(kept) == len(events):
                continue
            with durable.disk_errors(str(path.name)):
                if any(map(_is_point, kept)):
                    _rewrite(path, kept)
                else:
                    path.unlink()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One point a tag; a value that is not finite is left out."""
        if self._writer is None:
            self._open(step)
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

    def _open(self, step: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.cut_back(step)  # a step that is evaluated again
        is_first = not any(self._folder.glob(_PATTERN))
        self._written = self._path()
        try:
            self._writer = tf.io.TFRecordWriter(str(self._written))
        except tf.errors.OpError as error:
            raise disk_error(error, self._written.name, self._written) or error from None
        self._put(file_version="brain.Event:2")
        if self._resumed_at is not None:
            # A TensorBoard that runs has read what was cut: it drops what it has from this step on.
            start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
            self._put(step=self._resumed_at + 1, session_log=start)
        if is_first and self._head is not None:
            for fields in self._head():
                self._put(**fields)

    def _put(self, **fields: object) -> None:
        assert self._writer is not None
        event = Event(wall_time=self._now(), **fields).SerializeToString()
        try:
            self._writer.write(event)
            self._writer.flush()
        except tf.errors.OpError as error:
            assert self._written is not None
            full = disk_error(error, self._written.name, self._written, len(event))
            raise full or error from None

    def _path(self) -> Path:
        """`events.out.tfevents.<secs>.<host>.<pid>`, with a number where such a file is there already."""
        name = f"events.out.tfevents.{int(self._now())}.{socket.gethostname()}.{os.getpid()}"
        path, number = self._folder / name, 1
        while path.exists():
            path, number = self._folder / f"{name}.{number}", number + 1
        return path


def _is_point(event: Any) -> bool:
    """Whether an event is a point of a curve."""
    return any(value.HasField("simple_value") for value in event.summary.value)


def _read(path: Path) -> tuple[list[Any], bool]:
    """The events of a file, as far as it is whole; and whether it is."""
    events = []
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            events.append(Event.FromString(record))
    except tf.errors.DataLossError:
        return events, False
    return events, True


def _rewrite(path: Path, events: list[Any]) -> None:
    beside = path.with_name(f".{path.name}.tmp")
    with tf.io.TFRecordWriter(str(beside)) as writer:
        for event in events:
            writer.write(event.SerializeToString())
    durable.fsync_file(beside)
    os.replace(beside, path)
    durable.fsync_dir(path.parent)


# What a file begins with.


def head(
    *, graph: bytes | None, spec_text: str, hparams: Mapping[str, Any], group: str, now: float
) -> Iterator[dict[str, Any]]:
    """The graph, the spec as text, and the hyperparameters of the run, as fields of events at step 0."""
    if graph is not None:
        yield {"step": 0, "graph_def": graph}
    text = tf.compat.v1.Summary.Value(
        tag="spec",
        metadata=_metadata("text"),
        tensor=tf.make_tensor_proto(_as_markdown(spec_text), tf.string),
    )
    start = tf.compat.v1.Summary.Value(
        tag="_hparams_/session_start_info",
        metadata=_metadata("hparams", _session_start(hparams, group, now)),
        tensor=tf.make_tensor_proto(0.0),
    )
    yield {"step": 0, "summary": tf.compat.v1.Summary(value=[text, start])}


def _as_markdown(spec_text: str) -> str:
    """As code, line by line: TensorBoard renders Markdown."""
    return "\n".join(f"    {line}" for line in spec_text.splitlines())


def _metadata(plugin: str, content: bytes = b"") -> Any:
    data = tf.compat.v1.SummaryMetadata.PluginData(plugin_name=plugin, content=content)
    return tf.compat.v1.SummaryMetadata(plugin_data=data)


def _session_start(hparams: Mapping[str, Any], group: str, now: float) -> bytes:
    """`HParamsPluginData` with a `SessionStartInfo` (tensorboard/plugins/hparams/plugin_data.proto), whose classes come
    with TensorBoard alone."""
    entries = b"".join(
        _field(1, _field(1, key.encode()) + _field(2, _value(value).SerializeToString()))
        for key, value in hparams.items()
        if value is not None  # one word among numbers would make the column one of words
    )
    secs = bytes([5 << 3 | 1]) + struct.pack("<d", now)
    return _field(3, entries + _field(4, group.encode()) + secs)


def _value(value: Any) -> Any:
    if isinstance(value, bool):
        return struct_pb2.Value(bool_value=value)
    if isinstance(value, (int, float)):
        return struct_pb2.Value(number_value=value)
    return struct_pb2.Value(string_value=str(value))


def _field(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer that holds bytes."""
    size, length = len(content), b""
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content
