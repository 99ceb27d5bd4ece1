"""Resolves a data path of a spec: inside the repository, absolute, `~`, `${data_root}`, a URL, or DVC.

A path may be absolute, begin with `~` or `${data_root}`, or be a URL that fsspec reads. A file that DVC keeps is taken
from DVC's own cache by the hash that was committed.
"""

from __future__ import annotations

import configparser
import contextlib
import errno
import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expmgr.disk.json_text import parse_json
from expmgr.errors import DataProblem
from expmgr.paths import home_path

DATA_ROOT = "${data_root}"
#: A file, as DVC names it.
_MD5 = re.compile(r"[0-9a-f]{32}")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_LEFT = "Nothing was changed."


@dataclass(frozen=True)
class Places:
    """What a machine knows of data outside of git."""

    data_root: str | None = None
    """The setting of that name."""
    repository: Path | None = None
    """The user's own checkout, where DVC keeps its cache."""

    def read(self, name: str, key: str) -> bytes:
        """The content of `name`, which `is_outside`; `DataProblem` names `key`, its place in the spec."""
        if _URL.match(name):
            return _fetched(name, key)
        path = self.path(name, key)
        try:
            return read_regular(path)
        except OSError as error:
            hint = None
            if name.startswith(DATA_ROOT):
                hint = f"data_root is {self.data_root} on this machine (.git/expmgr/config.toml)"
            raise DataProblem(f"{key}: {path} cannot be read: {error.strerror}", left_alone=_LEFT, hint=hint) from None

    def path(self, name: str, key: str) -> Path:
        """Where `name` leads on this machine."""
        if name.startswith(DATA_ROOT):
            if self.data_root is None:
                raise DataProblem(
                    f"{key} is {name}, and this machine has no data_root",
                    left_alone=_LEFT,
                    hint='say where data lies, in .git/expmgr/config.toml: data_root = "/data"',
                )
            return home_path(self.data_root, "data_root") / name.removeprefix(DATA_ROOT).lstrip("/")
        return home_path(name, key)

    def of_dvc(self, path: Path, key: str) -> bytes | None:
        """The content that DVC keeps for `path`, by the hash beside it; None where DVC knows nothing of it."""
        pointer = path.with_name(f"{path.name}.dvc")
        if not pointer.is_file():
            return None
        digest = _md5_of(pointer)
        if digest is None or digest.endswith(".dir"):
            return None
        for folder in self._caches(path):
            for inner in ("files/md5", ""):
                kept = folder / inner / digest[:2] / digest[2:]
                if kept.is_file():
                    content = kept.read_bytes()
                    if hashlib.md5(content, usedforsecurity=False).hexdigest() == digest:
                        return content
        raise DataProblem(
            f"{key}: {path.name} is kept by DVC, and its cache does not hold {digest}",
            left_alone=_LEFT,
            hint="dvc pull",
        )

    def kept_by_dvc(self, path: Path, key: str) -> list[tuple[str, str, Path]] | None:
        """What DVC keeps for the file or folder `path`, by the hash that is committed beside it: path in it (empty for a
        file), md5, and where it lies in DVC's cache. None where DVC knows nothing of it."""
        pointer = path.with_name(f"{path.name}.dvc")
        digest = _md5_of(pointer) if pointer.is_file() else None
        if digest is None:
            return None
        if not digest.endswith(".dir"):
            return [("", digest, self._cached(digest, path.name, key))]
        try:
            found = parse_json(self._cached(digest, path.name, key).read_bytes())
            listed = [(str(one["relpath"]), str(one["md5"])) for one in found]
            if not all(_MD5.fullmatch(md5) for _, md5 in listed):
                raise ValueError("a hash is none")
        except (ValueError, KeyError, TypeError):
            raise DataProblem(
                f"{key}: what DVC's cache has of {path.name} ({digest}) is not a list of files",
                left_alone=_LEFT,
                hint="dvc pull",
            ) from None
        return [(inner, md5, self._cached(md5, path.name, key)) for inner, md5 in listed]

    def _cached(self, digest: str, name: str, key: str) -> Path:
        for folder in self._caches(Path(name)):
            for inner in ("files/md5", ""):
                kept = folder / inner / digest[:2] / digest[2:]
                if kept.is_file():
                    return kept
        raise DataProblem(
            f"{key}: {name} is kept by DVC, and its cache does not hold {digest}", left_alone=_LEFT, hint="dvc pull"
        )

    def _caches(self, path: Path) -> list[Path]:
        found = []
        if self.repository is not None:
            found.append(self.repository / ".dvc" / "cache")
            for name in ("config", "config.local"):
                config = configparser.ConfigParser()
                with contextlib.suppress(OSError, UnicodeDecodeError, configparser.Error):
                    config.read_string((self.repository / ".dvc" / name).read_text(encoding="utf-8"))
                    if folder := config.get("cache", "dir", fallback=None):
                        found.append(self.repository / ".dvc" / home_path(folder, "cache.dir of .dvc/config"))
        return found


class NotRegular(OSError):
    """A device, a pipe or a socket: reading it may never end."""


def require_regular(status: os.stat_result) -> None:
    """`NotRegular` unless `status` is a file's or a folder's, which is read at once or not at all."""
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise NotRegular(errno.EINVAL, "it is a device, a pipe or a socket, not a file")


def read_regular(path: Path) -> bytes:
    """The content of a file that somebody else may have named; `NotRegular` for what is none."""
    require_regular(path.stat())
    return path.read_bytes()


def is_url(name: str) -> bool:
    """Whether a path in a spec is a URL."""
    return _URL.match(name) is not None


def is_outside(name: str) -> bool:
    """Whether a path in a spec leads out of the repository by intent."""
    return name.startswith((DATA_ROOT, "~")) or Path(name).is_absolute() or _URL.match(name) is not None


def _fetched(url: str, key: str) -> bytes:
    try:
        import fsspec
    except ImportError:
        raise DataProblem(
            f"{key} is {url}: URLs are read by fsspec, which is not installed",
            left_alone=_LEFT,
            hint="pip install 'expmgr[fsspec]', and what the protocol needs (s3fs, gcsfs, ...)",
        ) from None
    opened: Any
    try:
        with fsspec.open(url, "rb") as opened:
            return bytes(opened.read())
    except Exception as error:  # each protocol raises errors of its own
        first = next(iter(str(error).splitlines()), "")
        raise DataProblem(
            f"{key}: {url} cannot be read: {type(error).__name__}{f': {first[:200]}' if first else ''}",
            left_alone=_LEFT,
        ) from None


def _md5_of(pointer: Path) -> str | None:
    """The hash of the one file that a .dvc file speaks of."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        found = re.findall(
            r"^\s*-?\s*md5:\s*([0-9a-f]{32}(?:\.dir)?)\s*$", pointer.read_text(encoding="utf-8"), re.MULTILINE
        )
        return str(found[-1]) if found else None
    return None
