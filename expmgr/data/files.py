"""`data.files` in a spec: files and folders that a user's code reads, identified by content digests.

Each file's digest is kept in a cache of this machine by path, size and time, so that large data is read once. A folder is
known by a manifest of its files. What DVC keeps is known by the committed hash, and laid into the run's checkout by links
into DVC's own cache, which is not written to.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from expmgr.data.locations import Places, is_outside, is_url, require_regular
from expmgr.errors import DataProblem, SpecProblem
from expmgr.paths import home_path

_BLOCK_BYTES = 1 << 20
_LEFT = "Nothing was changed."


@dataclass(frozen=True)
class Content:
    """What lies at a place: where, how many files, and the digest of it all."""

    name: str
    """As the spec names it."""
    path: str
    """Where it lies on this machine; a URL as it is."""
    files: int
    sha256: str


def contents(files: Mapping[str, str], experiment_dir: Path, places: Places) -> dict[str, Content]:
    """The content of each of `files` (name to path, as in a spec). Raises `DataProblem` where one is not there."""
    with _Cache.opened() as cache:
        return {
            name: _content(f"data.files.{name}", path, experiment_dir, places, cache) for name, path in files.items()
        }


def _content(key: str, name: str, experiment_dir: Path, places: Places, cache: _Cache) -> Content:
    if is_url(name):
        return Content(name, name, 1, hashlib.sha256(places.read(name, key)).hexdigest())
    path = places.path(name, key) if is_outside(name) else experiment_dir / name
    if not is_outside(name) and not os.path.lexists(path):
        kept = places.kept_by_dvc(path, key)
        if kept is not None:
            _lay(path, kept)
            digest = hashlib.sha256("".join(f"{where}\0{md5}\n" for where, md5, _ in kept).encode()).hexdigest()
            return Content(name, str(path), len(kept), digest)
    if path.is_file():
        return Content(name, str(path), 1, cache.sha256(path))
    if not path.is_dir():
        raise DataProblem(
            f"{key}: there is no {path}",
            left_alone=_LEFT,
            hint=f"data_root is {places.data_root} on this machine" if "data_root" in name else None,
        )
    lines = [f"{where}\0{cache.sha256(file)}\n" for where, file in _files_of(path)]
    return Content(name, str(path), len(lines), hashlib.sha256("".join(lines).encode()).hexdigest())


def _files_of(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file below `folder` by its path in it, in order."""
    found, seen = [], set()
    for place, below, names in os.walk(folder, followlinks=True):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        found += [(os.path.relpath(os.path.join(place, name), folder), Path(place, name)) for name in names]
    yield from sorted(found)


def _lay(path: Path, kept: list[tuple[str, str, Path]]) -> None:
    """Links into DVC's cache, at the place in the run's own checkout where the file or folder would lie."""
    for where, _, source in kept:
        target = path / where if where else path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)


class _Cache:
    """sha256 of files by path, size and time of the last change. A cache: deleting it loses nothing."""

    def __init__(self, database: sqlite3.Connection | None) -> None:
        self._database = database

    @classmethod
    @contextlib.contextmanager
    def opened(cls) -> Iterator[_Cache]:
        """The one of this user on this machine; none where it cannot be had."""
        try:
            folder = home_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "the folder of caches") / "expmgr"
            folder.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(folder / "digests.sqlite", timeout=10.0)
            database.execute("create table if not exists digests (path text primary key, stamp text, sha256 text)")
        except (OSError, SpecProblem, sqlite3.Error):
            yield cls(None)
            return
        try:
            yield cls(database)
        finally:
            with contextlib.suppress(sqlite3.Error):
                database.commit()
            database.close()

    def sha256(self, path: Path) -> str:
        """The digest of a file's content."""
        try:
            status = path.stat()
            require_regular(status)
            stamp = json.dumps([status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino])
            if (found := self._known(str(path.resolve()), stamp)) is not None:
                return found
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    digest.update(block)
        except OSError as error:
            raise DataProblem(f"data.files: {path} cannot be read: {error.strerror}", left_alone=_LEFT) from None
        if path.stat().st_mtime_ns == status.st_mtime_ns:
            self._note(str(path.resolve()), stamp, digest.hexdigest())
        return digest.hexdigest()

    def _known(self, path: str, stamp: str) -> str | None:
        if self._database is None:
            return None
        with contextlib.suppress(sqlite3.Error):
            row = self._database.execute("select stamp, sha256 from digests where path = ?", (path,)).fetchone()
            if row is not None and row[0] == stamp:
                return str(row[1])
        return None

    def _note(self, path: str, stamp: str, sha256: str) -> None:
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("insert or replace into digests values (?, ?, ?)", (path, stamp, sha256))
