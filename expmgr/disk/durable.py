"""Writes a file whole or not at all, with fsync, and computes its sha256."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from expmgr.errors import DiskFull

#: Errors of the disk itself, not of the user's request.
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG})


@contextlib.contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn a full disk or an input/output error into `DiskFull`, which says what was being written."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise DiskFull(f"{what} could not be written: {os.strerror(error.errno or 0)}") from error
        raise


def fsync_dir(folder: Path) -> None:
    """Make the names in `folder` durable (a rename is not, until its folder is)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make `folder` and those above it that are missing, their names durable."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in reversed(missing):
        fsync_dir(place.parent)


def fsync_file(path: Path) -> None:
    """Make the content of `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_file(source: Path, target: Path) -> None:
    """Let `target` be a second name of `source`, or, on another file system, a copy; its content is on the disk."""
    fsync_file(source)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise
        shutil.copyfile(source, target)  # another file system, or one without links
        fsync_file(target)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content`: written beside it, flushed, fsynced, renamed, the folder fsynced."""
    beside = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    try:
        with open(beside, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    fsync_dir(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as JSON, keys in the order given, readable by people."""
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def append_line(path: Path, value: Any) -> None:
    """Append `value` as one line `<length> <crc32> <json>`, so that a cut or damaged line shows (`read_lines`)."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    line = b"%d %08x %s\n" % (len(body), zlib.crc32(body), body)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":  # a crash cut the line before: end it
            line = b"\n" + line
        written = os.write(descriptor, line)
        if written != len(line):  # a full disk takes part of a line: the CRC shows it, and we say it
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(descriptor)


def read_lines(path: Path, start: int = 0, damaged: list[bytes] | None = None) -> tuple[list[Any], int]:
    """The whole lines of `path` from byte `start`, and the byte after the last of them.

    A line that a crash cut, or whose CRC does not hold, is skipped and added to `damaged`; a line without its end is left for
    the next call.
    """
    try:
        with open(path, "rb") as file:
            file.seek(start)
            content = file.read()
    except FileNotFoundError:
        return [], start
    values = []
    whole, newline, _rest = content.rpartition(b"\n")
    for line in whole.split(b"\n") if newline else []:
        length, _, remainder = line.partition(b" ")
        crc, _, body = remainder.partition(b" ")
        try:
            is_whole = int(length) == len(body) and int(crc, 16) == zlib.crc32(body)
        except ValueError:
            is_whole = False
        if is_whole:
            values.append(json.loads(body))
        elif damaged is not None:
            damaged.append(line)
    return values, start + len(whole) + len(newline)


def unwritable(folder: Path) -> str | None:
    """Why nothing can be made in `folder`, or where it is missing, in the nearest folder above; None where it can."""
    place = folder
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return os.strerror(errno.ENOTDIR)
    if os.access(place, os.W_OK | os.X_OK):
        return None
    read_only = os.statvfs(place).f_flag & os.ST_RDONLY
    return os.strerror(errno.EROFS if read_only else errno.EACCES)


def sha256(path: Path) -> str:
    digest: Any = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return str(digest.hexdigest())
