"""`origin.json`: whether a record comes from this clone or from another."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from expmgr.disk.json_text import parse_json
from expmgr.paths import RunDir

if TYPE_CHECKING:
    from expmgr.runs.record import RunRecord

#: In the folder of a run that another clone has told of.
ORIGIN = "origin.json"


def is_foreign(folder: RunDir) -> bool:
    """Whether the run was made in another clone, whose log told of it."""
    return (folder.path / ORIGIN).exists()


def origin_of(folder: RunDir) -> str | None:
    """The writer whose log told of the run; None for one of this clone."""
    try:
        return str(parse_json((folder.path / ORIGIN).read_bytes())["writer"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return ""  # nobody's


def teller_of(folder: RunDir, record: RunRecord) -> str:
    """Whoever trained a run, as people call them: the person who told of it, else the user of that machine."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if by := parse_json((folder.path / ORIGIN).read_bytes())["by"]:
            return str(by)
    return record.user or "whoever trained it"
