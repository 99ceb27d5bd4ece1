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

from expmgr.disk.json_text import parse_json
from expmgr.errors import DiskFull, ExpmgrError, FileProblem

#: Errors of the disk itself, not of the user's request.
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS})
#: Errors of what somebody may do, or of what is in the place of a file.
_FILE_ERRORS = frozenset(
    {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EMFILE, errno.ENFILE,
     errno.ESTALE, errno.EBUSY}
)  # fmt: skip


@contextlib.contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn a full disk or an input/output error into `DiskFull`, which says what was being written."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise disk_full(error, what) from error
        raise


@contextlib.contextmanager
def naming(path: Path, needed_bytes: int | None = None) -> Iterator[None]:
    """Have an error of the system name the file that is written, and how many bytes it needs."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = os.fspath(path), None
        if needed_bytes is not None:
            error.needed_bytes = needed_bytes  # type: ignore[attr-defined]
        raise


def disk_full(error: OSError, what: str | None = None) -> DiskFull:
    """`error`, one of `DISK_ERRORS`, with `what` was being written, the file, and how many bytes it needs."""
    path, needed = error.filename, getattr(error, "needed_bytes", None)
    shown = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else None
    verb = "read or written" if error.errno == errno.EIO and needed is None else "written"
    return DiskFull(
        f"{what or shown or 'the output'} could not be {verb}: {os.strerror(error.errno or errno.EIO)}",
        details=[place_and_bytes(shown, needed)] if shown else [],
    )


def place_and_bytes(path: str, needed_bytes: int | None) -> str:
    """A file that could not be written, the bytes that it needs, and those that are free."""
    if needed_bytes is None:
        return path
    needs = f"{path}: {needed_bytes:,} bytes are needed"
    free = free_bytes(Path(path))
    return needs if free is None else f"{needs}, {free:,} are free"


def nearest_folder(path: Path) -> Path | None:
    """`path`, or if it is no folder, the nearest folder above it."""
    return next((one for one in (path, *path.parents) if one.is_dir()), None)


def free_bytes(path: Path) -> int | None:
    """Free room on the file system where `path` is or would be; 0 if it can hold no more files, None if nothing says."""
    place = nearest_folder(path)
    try:
        found = os.statvfs(place) if place is not None else None
    except OSError:
        return None
    if found is None:
        return None
    return 0 if found.f_files and not found.f_favail else found.f_bavail * found.f_frsize


def system_error(error: OSError) -> ExpmgrError | None:
    """`error` as a story where it is of the disk or of a right; None for every other."""
    if error.errno in DISK_ERRORS:
        return disk_full(error)
    if "No usable temporary directory" in str(error):
        return DiskFull(
            "no temporary folder can be written to",
            details=[str(error.strerror)],
            hint="make room there, or let TMPDIR name a folder that has room",
        )
    if error.errno in _FILE_ERRORS and error.filename is not None:
        is_right = error.errno in (errno.EACCES, errno.EPERM)
        return FileProblem(
            f"{os.fsdecode(error.filename)} cannot be used: {os.strerror(error.errno)}",
            hint="give yourself the right to use it" if is_right else None,
        )
    return None


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
    with naming(folder):
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
    with naming(source):
        fsync_file(source)
        size_bytes = source.stat().st_size
    with naming(target, size_bytes):
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
    with naming(path, len(content)):
        try:
            with open(beside, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            with contextlib.suppress(OSError):
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
    with naming(path, len(line)):
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
            value = parse_json(body) if is_whole else None
        except ValueError:
            is_whole = False
        if is_whole:
            values.append(value)
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
