"""Standard input, output and error as a command finds them: closed, full, not UTF-8, or without a reader."""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import stat
import sys
from typing import Any

#: While Python starts again in UTF-8 mode: the PYTHONIOENCODING that was set before.
_STARTED_AGAIN = "_EXPMGR_PYTHONIOENCODING"


def prepare_streams() -> None:
    """Let a command read and print, whatever its streams are. Call it once per process, before anything is opened: a file or
    pipe would take the number of a closed stream."""
    _use_utf8_for_names()
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        _open_closed(descriptor, mode)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = _text(Output(1, "wb", closefd=False), sys.stdout)
    sys.stderr = _text(_Messages(2, "wb", closefd=False), sys.stderr)


def has_reader() -> bool:
    """Whether somebody still reads stdout, as far as is known."""
    raw = _raw_output()
    return raw is None or not raw.is_given_up


def give_up_output() -> None:
    """Print nothing more on stdout, not even what is still in its buffer."""
    if (raw := _raw_output()) is not None:
        raw.is_given_up = True


def _raw_output() -> Output | None:
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw if isinstance(raw, Output) else None


class Output(io.FileIO):
    """Data. After its reader has gone, the rest is dropped, and the command exits with its own code."""

    is_given_up = False

    def write(self, data: Any, /) -> int:
        while not self.is_given_up:
            try:
                written: int | None = super().write(data)
            except OSError as error:
                if not _is_gone(error, self.fileno()):
                    raise
                self.is_given_up = True
            else:
                if written is not None:
                    return written
                select.select([], [self], [])  # a pipe that is full, and does not block
        return memoryview(data).nbytes


class _Messages(io.FileIO):
    """Messages. No command fails because nobody can read them."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or memoryview(data).nbytes  # None: a pipe that is full, and does not block
        except OSError:
            return memoryview(data).nbytes


def _is_gone(error: OSError, descriptor: int) -> bool:
    """Whether a pipe's reader has ended (`| head`), a terminal was closed, or it was opened only for reading."""
    if error.errno == errno.EIO:
        return stat.S_ISCHR(os.fstat(descriptor).st_mode)
    return error.errno in (errno.EPIPE, errno.EBADF)


def _text(raw: io.FileIO, given: io.TextIOBase | Any) -> io.TextIOWrapper:
    """`raw` with the encoding of the stream that was `given`. A character that it does not have is replaced."""
    errors = getattr(given, "errors", None)
    is_unbuffered = bool(getattr(given, "write_through", False))  # PYTHONUNBUFFERED: in one file with the messages
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(given, "encoding", None) or "utf-8",
        errors="replace" if errors in (None, "strict", "surrogateescape") else errors,
        line_buffering=isinstance(raw, _Messages) or raw.isatty() or is_unbuffered,
        write_through=isinstance(raw, _Messages),
    )


def _open_closed(descriptor: int, mode: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, mode)
        if opened != descriptor:
            os.dup2(opened, descriptor)
            os.close(opened)
        os.set_inheritable(descriptor, True)


def _use_utf8_for_names() -> None:
    """Start again in Python's UTF-8 mode if the locale has only ASCII: arguments, names of files and git's output are UTF-8,
    whatever the terminal shows. What is printed keeps its encoding."""
    before = os.environ.pop(_STARTED_AGAIN, None)
    if before:
        os.environ["PYTHONIOENCODING"] = before
    elif before is not None:
        del os.environ["PYTHONIOENCODING"]
    elif codecs.lookup(sys.getfilesystemencoding()).name == "ascii":
        os.environ[_STARTED_AGAIN] = os.environ.get("PYTHONIOENCODING", "")
        printed = sys.stdout.encoding if sys.stdout is not None else "ascii"
        os.environ.update(PYTHONUTF8="1", PYTHONIOENCODING=f"{printed}:replace")
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
