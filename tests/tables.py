"""Writes the smallest index of a checkpoint, in the format that TensorFlow reads, for tests that have no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping

_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")


def index_bytes(tensors: Mapping[str, tuple[int, tuple[int, ...]]]) -> bytes:
    """An index of one block: key to the number of the dtype and the shape."""
    pairs = [(b"", b"\x08\x01\x1a\x02\x08\x01")]
    for key, (dtype, shape) in sorted(tensors.items()):
        dims = b"".join(_field(2, b"\x08" + _varint(size) if size else b"") for size in shape)
        pairs.append((key.encode(), b"\x08" + _varint(dtype) + _field(2, dims)))
    data = _block(pairs)
    meta = _block([])
    index = _block([(b"\xff", _varint(0) + _varint(len(data) - 5))])
    handles = _varint(len(data)) + _varint(len(meta) - 5) + _varint(len(data) + len(meta)) + _varint(len(index) - 5)
    return data + meta + index + handles.ljust(40, b"\0") + _MAGIC


def _block(pairs: list[tuple[bytes, bytes]]) -> bytes:
    entries, last = b"", b""
    for key, value in pairs:
        shared = next((n for n in range(min(len(key), len(last)), 0, -1) if key[:n] == last[:n]), 0)
        entries += _varint(shared) + _varint(len(key) - shared) + _varint(len(value)) + key[shared:] + value
        last = key
    return entries + (0).to_bytes(4, "little") + (1).to_bytes(4, "little") + b"\0" + b"\0\0\0\0"


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])
