"""Files that are written whole or not at all, and lines that say when they were cut."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from expmgr.disk import durable
from expmgr.errors import DiskFull

LINES = [{"step": 1}, {"step": 2, "text": "é\u2028"}, [3]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def refuse(code: int) -> Any:
    def fails(*_args: object, **_named: object) -> None:
        raise OSError(code, os.strerror(code))

    return fails


def test_lines_there_and_back(path: Path) -> None:
    assert durable.read_lines(path) == ([], 0)
    for one in LINES:
        durable.append_line(path, one)
    assert durable.read_lines(path) == (LINES, path.stat().st_size)
    first = path.read_bytes().index(b"\n") + 1
    assert durable.read_lines(path, first) == (LINES[1:], path.stat().st_size)


@pytest.mark.parametrize("missing", [2, 5])
def test_a_short_write_is_an_error_and_the_next_line_is_whole(
    path: Path, missing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up takes the first bytes of a line and says how many: nobody may think that it was written."""
    durable.append_line(path, LINES[0])
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, content: real(file, content[:-missing]))
    with pytest.raises(DiskFull, match=r"^the record could not be written: No space left"):  # noqa: SIM117
        with durable.disk_errors("the record"):
            durable.append_line(path, LINES[1])
    monkeypatch.undo()
    assert durable.read_lines(path)[0] == LINES[:1]
    durable.append_line(path, LINES[2])
    assert durable.read_lines(path) == ([LINES[0], LINES[2]], path.stat().st_size)


def test_a_line_without_its_end_is_left_for_the_next_reading(path: Path) -> None:
    durable.append_line(path, LINES[0])
    whole = path.stat().st_size
    durable.append_line(path, LINES[1])
    content = path.read_bytes()
    for cut in (whole, whole + 1, len(content) - 1):
        path.write_bytes(content[:cut])
        assert durable.read_lines(path) == (LINES[:1], whole)
    path.write_bytes(content)
    assert durable.read_lines(path, whole) == (LINES[1:2], len(content))


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line.replace(b"step", b"stop"),
        lambda line: line.replace(b" ", b" 0", 1).replace(b"{", b"{ "),  # longer than it says
        lambda line: b"9" + line,
        lambda line: line[:3] + bytes([line[3] ^ 1]) + line[4:],  # the checksum
        lambda _line: b"no line at all\n",
        lambda _line: b"\n",
    ],
)
def test_a_damaged_line_is_passed_over_alone(path: Path, damage: Any) -> None:
    durable.append_line(path, LINES[0])
    start = path.stat().st_size
    durable.append_line(path, LINES[1])
    end = path.stat().st_size
    durable.append_line(path, LINES[2])
    content = path.read_bytes()
    damaged = damage(content[start:end])
    assert damaged != content[start:end]
    path.write_bytes(content[:start] + damaged + content[end:])
    assert durable.read_lines(path) == ([LINES[0], LINES[2]], path.stat().st_size)


def test_what_cannot_be_written_leaves_what_was_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    durable.write_bytes(path, b"before")
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, refuse(errno.EIO))
            with pytest.raises(OSError, match="Input/output error"):
                durable.write_bytes(path, b"after")
        assert (path.read_bytes(), [one.name for one in path.parent.iterdir()]) == (b"before", [path.name])
    durable.write_bytes(path, b"after")
    assert (path.read_bytes(), [one.name for one in path.parent.iterdir()]) == (b"after", [path.name])


def test_file_and_folder_are_on_the_disk_before_it_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this order: the content, the new name, and the folder that has the name."""
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def kind(file: int) -> str:
        return "folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file"

    monkeypatch.setattr(os, "fsync", lambda file: (done.append(f"fsync {kind(file)}"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("rename"), replace(*names)))
    durable.write_json(path, {"a": 1})
    assert done == ["fsync file", "rename", "fsync folder"]
    done.clear()
    durable.make_folder(path.parent / "one" / "two")
    durable.make_folder(path.parent / "one" / "two")
    assert done == ["fsync folder", "fsync folder"]  # of one, and of two


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG])
def test_an_error_of_the_disk_is_said_as_one(code: int) -> None:
    with pytest.raises(DiskFull) as caught, durable.disk_errors("models/iris"):
        raise OSError(code, os.strerror(code))
    what = "read or written" if code == errno.EIO else "written"
    assert caught.value.message == f"models/iris could not be {what}: {os.strerror(code)}"


def test_an_error_of_the_request_stays_what_it_is() -> None:
    with pytest.raises(PermissionError), durable.disk_errors("models/iris"):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))


def test_a_file_is_linked_where_that_can_be_and_else_copied(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(b"weights")
    durable.copy_file(path, path.with_name("linked"))
    assert path.with_name("linked").stat().st_ino == path.stat().st_ino
    monkeypatch.setattr(os, "link", refuse(errno.EXDEV))
    durable.copy_file(path, path.with_name("copied"))
    assert path.with_name("copied").read_bytes() == b"weights"
    assert path.with_name("copied").stat().st_ino != path.stat().st_ino
    monkeypatch.setattr(os, "link", refuse(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        durable.copy_file(path, path.with_name("no room"))
    assert not path.with_name("no room").exists()


def test_where_nothing_can_be_made_is_known_before(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert durable.unwritable(tmp_path / "a" / "b") is None
    assert durable.unwritable(file / "a" / "b") == "Not a directory"
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    expected = None if os.access(folder, os.W_OK) else "Permission denied"  # root may write everywhere
    assert durable.unwritable(folder / "a" / "b") == expected
