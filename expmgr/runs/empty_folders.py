"""Folders of runs without a record: what a crash left of a start, or somebody deleted `run.json` of."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from expmgr.paths import Layout
from expmgr.runs.record import ON_ITS_WAY_SECS, has_process, is_gone


@dataclass(frozen=True)
class EmptyFolder:
    """The folder of a run that has no record."""

    run_id: str
    path: Path
    age_s: float
    is_dead: bool
    """Whether the process that made it is known to be gone, or it named none and is older than a start takes."""
    holds: tuple[str, ...]
    """Names of what is in it, except what a start leaves: temporary files, and an empty run log."""

    @property
    def is_empty(self) -> bool:
        return not self.holds


def empty_folders(layout: Layout) -> list[EmptyFolder]:
    """All of them, those of which only the marker in `active/` is left too."""
    try:
        names = sorted(path.name for path in layout.runs.iterdir() if not (path / "run.json").exists())
    except (FileNotFoundError, NotADirectoryError):
        names = []
    markers = layout.active.iterdir() if layout.active.is_dir() else ()
    return list(examined(layout, [*names, *(one.name for one in markers if not layout.run_dir(one.name).exists())]))


def examined(layout: Layout, names: Iterable[str]) -> Iterator[EmptyFolder]:
    """Those of the runs `names` that have no record, with what is known of each."""
    now = time.time()
    for name in names:
        path, marker = layout.run_dir(name), layout.active / name
        with contextlib.suppress(OSError):
            if not path.is_dir():
                if path.exists() or not marker.is_file():
                    continue
                age_s = now - marker.stat().st_mtime
            else:
                age_s = now - path.stat().st_mtime
            held = sorted(one.name for one in path.iterdir()) if path.is_dir() else []
            if "run.json" in held:  # written since
                continue
            is_old = age_s > ON_ITS_WAY_SECS
            is_dead = is_gone(marker) or (is_old and not has_process(marker))
            left = [one for one in held if not _is_nothing(path / one)]
            yield EmptyFolder(name, path, age_s, is_dead=is_dead, holds=tuple(left))


def _is_nothing(path: Path) -> bool:
    """Whether a file contains nothing that anybody could miss: a temporary file, or an empty `log.txt`."""
    is_temporary = path.name.startswith(".") and path.name.endswith(".tmp")
    return is_temporary or (path.name == "log.txt" and path.is_file() and path.stat().st_size == 0)


def is_cut(marker: Path) -> bool:
    """Whether a marker names no process, and is older than it takes to write it."""
    with contextlib.suppress(OSError):
        return time.time() - marker.stat().st_mtime > ON_ITS_WAY_SECS and not has_process(marker)
    return False


def remove_dead(layout: Layout, names: Iterable[str]) -> None:
    """Remove the empty folders of runs that never began, and their markers: not one in which somebody writes now."""
    for one in examined(layout, names):
        if one.is_dead and one.is_empty:
            with contextlib.suppress(OSError):
                for path in [*one.path.iterdir()]:
                    if _is_nothing(path):
                        path.unlink(missing_ok=True)
                one.path.rmdir()
            if not one.path.exists():
                with contextlib.suppress(OSError):
                    (layout.active / one.run_id).unlink(missing_ok=True)
