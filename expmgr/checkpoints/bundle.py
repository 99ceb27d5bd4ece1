"""Reads a checkpoint's `.index` file without TensorFlow: names, dtypes and shapes of its tensors.

`model.ckpt-<step>.index` is a table in LevelDB's format (tensorflow/tsl/lib/io/format.h), whose values are
`BundleEntryProto`s (tensorflow/core/protobuf/tensor_bundle.proto). It costs the same for weights of any size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER_BYTES = 48
_BLOCK_TRAILER_BYTES = 5
#: A model of a million variables has so large an index.
_MOST_BYTES = 256_000_000
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

#: Numbers of `DataType` (tensorflow/core/framework/types.proto) by the names that NumPy and Keras use.
_DTYPES = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 7: "string", 8: "complex64",
    9: "int64", 10: "bool", 14: "bfloat16", 17: "uint16", 18: "complex128", 19: "float16", 22: "uint32", 23: "uint64",
}  # fmt: skip

#: How a key of `tf.train.Checkpoint` ends.
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


class NotAnIndex(ValueError):
    """The file is no checkpoint's index."""


@dataclass(frozen=True)
class Tensor:
    """What the index says of one tensor. `dtype` is NumPy's name, `type <n>` where it has none."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join(map(str, self.shape))})"


def _is_slice(key: bytes) -> bool:
    """Whether a key is of a slice of a partitioned tensor, which its own key stands for: the number 0, then the name with
    its end (tensorflow/core/util/saved_tensor_slice_util.cc, EncodeTensorNameSlice)."""
    return key.startswith(b"\0") and b"\0\1" in key[1:]


def key_of(group: str, path: str) -> str:
    """The key of a variable in a checkpoint of ours."""
    # TensorFlow's own escape of a key's parts: tensorflow/python/checkpoint/trackable_view.py, escape_local_name.
    return f"{group}/{path.replace('.', '..')}{VALUE}"


def read_index(path: Path) -> dict[str, Tensor]:
    """Key to tensor, in the order of the keys. Raises `NotAnIndex`, and `OSError` where the file cannot be read."""
    with open(path, "rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise NotAnIndex(f"{path.name} has more than {_MOST_BYTES:,} bytes")
    if len(content) < _FOOTER_BYTES or content[-8:] != _MAGIC:
        raise NotAnIndex(f"{path.name} does not end as an index does")
    try:
        place = _varint(content, _varint(content, len(content) - _FOOTER_BYTES)[1])[1]  # behind the first handle
        pairs = _pairs(content, place)
        return {key.decode(): _tensor(value) for key, value in pairs if key and not _is_slice(key)}
    except (IndexError, UnicodeDecodeError) as error:
        raise NotAnIndex(f"{path.name} is cut or damaged: {error}") from None


def _pairs(content: bytes, place: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of all blocks that the index block at the handle at `place` lists. A damaged file may list one block
    again and again, or keys that grow from entry to entry: no file stands for more than a few times its own size."""
    room = 64 * len(content)
    for _, handle in _entries(_block(content, place)):
        block = _block(content, 0, handle)
        room -= len(block)
        for key, value in _entries(block):
            room -= len(key)
            if room < 0:
                raise IndexError("its blocks or keys overlap")
            yield key, value


def _block(content: bytes, place: int, handle: bytes | None = None) -> bytes:
    """The block that the handle at `place`, or in `handle`, points to."""
    offset, place = _varint(content if handle is None else handle, place)
    size, _ = _varint(content if handle is None else handle, place)
    if offset + size + _BLOCK_TRAILER_BYTES > len(content):
        raise IndexError("a block lies beyond the end")
    if content[offset + size]:
        raise NotAnIndex("a compressed index, which TensorFlow does not write")
    return content[offset : offset + size]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block: a key is stored as what it has beyond the start that it shares with the last."""
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (restarts + 1)
    if end < 0:
        raise IndexError("a block is shorter than its list of restarts")
    place, key = 0, b""
    while place < end:
        shared, place = _varint(block, place)
        own, place = _varint(block, place)
        size, place = _varint(block, place)
        key = key[:shared] + block[place : place + own]
        place += own
        yield key, block[place : place + size]
        place += size


def _tensor(entry: bytes) -> Tensor:
    fields = dict(_fields(entry))
    dtype = fields.get(1, 0)
    shape = fields.get(2, b"")
    if not (isinstance(dtype, int) and isinstance(shape, bytes)):
        raise IndexError("an entry that is none")
    sizes = []
    for number, dim in _fields(shape):
        if number == 2 and isinstance(dim, bytes):
            size = dict(_fields(dim)).get(1, 0)
            sizes.append(size if isinstance(size, int) else 0)
    return Tensor(_DTYPES.get(dtype, f"type {dtype}"), tuple(sizes))


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a protocol buffer's fields."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == _VARINT:
            value, place = _varint(message, place)
            yield tag >> 3, value
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(kind)
        if size is None:
            if kind != _BYTES:
                raise IndexError(f"a field of kind {kind}")
            size, place = _varint(message, place)
        yield tag >> 3, message[place : place + size]
        place += size


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the place behind it."""
    value = shift = 0
    while True:
        byte = content[place]
        place += 1
        if shift > 63:
            raise IndexError("a number of more than ten bytes")
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
