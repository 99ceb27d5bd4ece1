"""Where a store is: a shared folder, or a URL that fsspec opens; pieces named by their sha256.

```
<store>/sha256/<two digits>/<digest>      a piece of a file, 8 MiB at most; or the list of pieces of a checkpoint
```
Pieces are named by their sha256, so nothing is sent twice, a transfer that was cut goes on where it was, and everything
is verified when it comes back. A piece appears whole or not at all: on a disk by a rename, in an object store because one
request puts it. What is made of pieces is named last, so it is complete or invisible.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from expmgr.data.locations import is_url
from expmgr.disk import durable
from expmgr.errors import PieceDamaged, StoreProblem
from expmgr.paths import home_path
from expmgr.redact import redacted

PIECE_BYTES = 8 << 20
#: What sends again what the store has lost.
SEND_AGAIN = "expmgr push --checkpoints selected --verify"
#: How often one piece is tried before the whole is said to have failed.
_TRIES = 3


class Store(ABC):
    """Pieces by their digest. `name` is the store as people see it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def is_there(self) -> bool:
        """Whether the store can be seen; False for a folder that is not there, or not mounted."""
        return True

    #: Whether reading a piece costs little more than asking for its size.
    is_near = False

    def place(self, digest: str) -> str:
        """Where a piece is, as people see it."""
        return f"{self.name.rstrip('/')}/{_path(digest)}"

    def has(self, digest: str, size_bytes: int | None = None, *, verify: bool = False) -> bool:
        """Whether the piece is there, with the size that it has to have. To `verify`, its content is read."""
        found = self._size(digest)
        if found is None or size_bytes not in (None, found):
            return False
        if not verify:
            return True
        content = self._get(digest, found)
        return content is not None and hashlib.sha256(content).hexdigest() == digest

    def _size(self, digest: str) -> int | None:
        """The size of the piece in bytes; None where it is not there."""
        raise NotImplementedError

    @abstractmethod
    def _put(self, digest: str, content: bytes) -> None: ...

    @abstractmethod
    def _get(self, digest: str, most: int) -> bytes | None:
        """The piece, None where it is not there; of a larger one than `most` bytes, `most` and one."""

    def put(self, content: bytes, *, verify: bool = False) -> str:
        """Store a piece, unless it is there; its digest. To `verify`, what is there is read, and replaced if it is damaged."""
        digest = hashlib.sha256(content).hexdigest()
        if not self.has(digest, len(content), verify=verify):
            self._put(digest, content)
        return digest

    def get(self, digest: str, most: int = PIECE_BYTES) -> bytes:
        """The piece, verified; `StoreProblem` where it is not there, or another one is, which may be larger than the
        memory: more than `most` bytes are not read."""
        content = self._get(digest, most)
        if content is None:
            if not self.is_there():
                raise StoreProblem(
                    f"the store {self.name} is not there",
                    left_alone="Nothing was changed.",
                    hint="is it mounted? store in [tool.expmgr] says where it is",
                )
            raise PieceDamaged(
                f"{self.name} does not hold {digest[:12]}",
                details=[f"{self.place(digest)} is missing"],
                left_alone="Nothing was changed.",
                hint=f"push it again, from a clone that has it: {SEND_AGAIN}",
            )
        if len(content) > most or hashlib.sha256(content).hexdigest() != digest:
            size = f"more than {most:,}" if len(content) > most else f"{len(content):,}"
            raise PieceDamaged(
                f"{self.place(digest)} holds other content than was stored",
                details=[
                    f"it has {size} bytes, whose sha256 is not its name: it was damaged, or written by somebody else"
                ],
                left_alone="Nothing was changed.",
                hint=f"push it again, from a clone that has it: {SEND_AGAIN}",
            )
        return content


def open_store(place: str, root: Path) -> Store:
    """The store at `place`: a URL, or a folder that is absolute, below `~`, or relative to `root`."""
    if is_url(place) and not place.startswith("file://"):
        return UrlStore(place)
    return FolderStore(root / home_path(place.removeprefix("file://"), "store"))


def _path(digest: str) -> str:
    return f"sha256/{digest[:2]}/{digest}"


class FolderStore(Store):
    """A folder, also one that several machines share."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self._folder = folder

    def is_there(self) -> bool:
        return self._folder.is_dir()

    is_near = True

    def _size(self, digest: str) -> int | None:
        with self._problems():
            path = self._folder / _path(digest)
            if path.is_dir():
                raise StoreProblem(
                    f"{path} is a folder, and a piece of a checkpoint belongs in its place",
                    left_alone="Nothing was changed.",
                    hint=f"move it away, then push the checkpoint again, from a clone that has it: {SEND_AGAIN}",
                )
            return path.stat().st_size if path.is_file() else None

    def _put(self, digest: str, content: bytes) -> None:
        path = self._folder / _path(digest)
        with self._problems():
            durable.make_folder(path.parent)
            durable.write_bytes(path, content)

    def _get(self, digest: str, most: int) -> bytes | None:
        if not self.has(digest):  # nor is a pipe opened, which would wait for ever
            return None
        with self._problems():
            try:
                with open(self._folder / _path(digest), "rb") as file:
                    return file.read(most + 1)
            except FileNotFoundError:
                return None

    @contextlib.contextmanager
    def _problems(self) -> Iterator[None]:
        try:
            with durable.disk_errors(f"the store {self.name}"):
                yield
        except OSError as error:
            is_there = error.filename is not None and os.path.lexists(error.filename)
            place = f"{os.fsdecode(error.filename)}: " if is_there else ""
            raise _failed(self.name, f"{place}{os.strerror(error.errno or 0)}") from error


class UrlStore(Store):
    """What fsspec opens. Each piece is one request, so an object store shows it whole or not at all."""

    def __init__(self, url: str) -> None:
        super().__init__(redacted(url))
        try:
            import fsspec
        except ImportError:
            raise StoreProblem(
                f"the store is {url}: stores behind URLs are opened by fsspec, which is not installed",
                left_alone="Nothing was changed.",
                hint='pip install "expmgr[s3]", or "expmgr[fsspec]" with the file system of yours',
            ) from None
        with self._problems():
            # What others put there since is asked for, not remembered; nor is an endpoint that was another before.
            self._files, self._root = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)

    def _size(self, digest: str) -> int | None:
        def ask() -> int | None:
            try:
                about = self._files.info(self._at(digest))
            except FileNotFoundError as error:
                _raise_failure(error)
                return None
            size = about.get("size")
            return len(self._files.cat_file(self._at(digest))) if size is None else int(size)

        found = self._tried(ask)
        return found if isinstance(found, int) else None

    def _put(self, digest: str, content: bytes) -> None:
        self._tried(lambda: self._write(self._at(digest), content))

    def _write(self, path: str, content: bytes) -> None:
        if getattr(self._files, "protocol", None) in (("file", "local"), "file", "memory"):
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._files.pipe_file(path, content)

    def _get(self, digest: str, most: int) -> bytes | None:
        def read() -> bytes | None:
            try:
                size = self._files.info(self._at(digest)).get("size")
                end = most + 1 if size is None else min(size, most + 1)
                return bytes(self._files.cat_file(self._at(digest), start=0, end=end)) if end else b""
            except FileNotFoundError as error:
                _raise_failure(error)
                return None

        found = self._tried(read)
        return found if isinstance(found, bytes) else None

    def _at(self, digest: str) -> str:
        return f"{self._root.rstrip('/')}/{_path(digest)}"

    def _tried(self, do: Any) -> Any:
        """`do`, again where a connection was cut."""
        with self._problems():
            for number in range(_TRIES):
                try:
                    return do()
                except FileNotFoundError:
                    raise
                except Exception:
                    if number + 1 == _TRIES:
                        raise
                    with contextlib.suppress(Exception):
                        self._files.invalidate_cache()
        return None

    @contextlib.contextmanager
    def _problems(self) -> Iterator[None]:
        # Each file system has errors of its own: botocore's, aiohttp's, Google's.
        try:
            yield
        except StoreProblem:
            raise
        except Exception as error:
            raise _failed(self.name, f"{type(error).__name__}: {error}") from error


def _raise_failure(missing: FileNotFoundError) -> None:
    """Raise what stopped the request, if that is why nothing was found: fsspec's HTTP calls every failure a missing file."""
    cause = missing.__cause__
    while cause is not None:
        response = getattr(cause, "response", None)  # botocore's
        code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
        status = getattr(cause, "status", None)  # aiohttp's
        is_unsent = isinstance(cause, (OSError, TimeoutError)) and not isinstance(cause, FileNotFoundError)
        is_other_answer = isinstance(status, int) and status not in (404, 410)
        is_cut = status is None and type(cause).__module__.startswith("aiohttp")
        if is_unsent or is_other_answer or is_cut or code == "NoSuchBucket":
            raise cause
        cause = cause.__cause__


def _failed(name: str, reason: str) -> StoreProblem:
    return StoreProblem(
        f"the store {name} cannot be used: {reason.splitlines()[0][:300] if reason else 'no reason given'}",
        left_alone="What was transferred is kept: the same command goes on where it was.",
        hint="is it there, and are you allowed to use it? store in [tool.expmgr] says where it is",
    )
