"""The rows of a probe, `probe-<digest>.npz`: arrays, read within the size of their file. No TensorFlow."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

#: The rows have 1 MB at most (`train/signature/probe.py`); beside them are headers.
_MOST_BYTES = 8_000_000


def rows_content(arrays: Iterable[Any]) -> bytes:
    """The file that holds `arrays`, in their order."""
    content = io.BytesIO()
    np.savez(content, **{f"part_{number}": one for number, one in enumerate(arrays)})
    return content.getvalue()


def read_rows(path: Path) -> list[Any] | None:
    """The arrays in the file, in their order; None if it is missing, damaged, or none that `rows_content` made.

    Nothing is unpacked or allocated beyond the size of the file.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            return None
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            names = packed.namelist()
            if sorted(names) != sorted(f"part_{number}.npy" for number in range(len(names))):
                return None
            return [_array(packed, f"part_{number}.npy", len(content)) for number in range(len(names))]
    except Exception:  # zipfile, zlib and numpy fail in many ways on what is damaged: its rows are not compared
        return None


def _array(packed: zipfile.ZipFile, name: str, most: int) -> Any:
    about = packed.getinfo(name)
    if about.compress_type != zipfile.ZIP_STORED or about.file_size > most:
        raise ValueError("packed rows")
    file = io.BytesIO(packed.read(name))
    version = npy.read_magic(file)
    shape, _, dtype = npy.read_array_header_1_0(file) if version == (1, 0) else npy.read_array_header_2_0(file)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != about.file_size - file.tell():
        raise ValueError("rows of another size than their header says")
    file.seek(0)
    return npy.read_array(file, allow_pickle=False)
