"""`origin.json`: whether a record comes from this clone or from another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expmgr.disk.json_text import parse_json
from expmgr.paths import RunDir

if TYPE_CHECKING:
    from expmgr.runs.record import RunRecord

#: In the folder of a run that another clone has told of.
ORIGIN = "origin.json"


def is_foreign(folder: RunDir) -> bool:
    """Whether the run was made in another clone, whose log told of it."""
    return (folder.path / ORIGIN).exists()


def read_origin(folder: RunDir) -> dict[str, Any] | None:
    """What `origin.json` says; nothing if it is damaged, None for a run of this clone."""
    try:
        found = parse_json((folder.path / ORIGIN).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def origin_of(folder: RunDir) -> str | None:
    """The writer whose log told of the run, empty if that is not known; None for one of this clone."""
    found = read_origin(folder)
    return None if found is None else str(found.get("writer", ""))


def teller_of(folder: RunDir, record: RunRecord) -> str:
    """Whoever trained a run, as people call them: the person who told of it, else the user of that machine."""
    by = (read_origin(folder) or {}).get("by")
    return str(by or record.user or "whoever trained it")
