"""The writer id, which names one clone on one machine, and so its log.

The id names the log (`refs/expmgr/log/<writer>`), which this clone alone moves. A clone that was copied as a folder brings
the id of the other one along: it is kept with the machine and the inode of the git dir, and where neither fits, a new one
is made. So is none where the same clone is seen from a container and from its host, each of which keeps its own.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
from pathlib import Path
from typing import Any

from expmgr.disk import durable
from expmgr.disk.json_text import parse_foreign_json

_MACHINE_ID = Path("/etc/machine-id")


def writer_id(own: Path) -> str:
    """The id of this clone, whose folder in git's common dir is `own`; made where it has none yet."""
    path, place = own / "writer.json", _place(own)
    known = _read(path)
    found = next((one["id"] for one in reversed(known) if one["place"] == place), None)
    return found or _add(path, known, place)


def all_writers(own: Path) -> set[str]:
    """The ids that this clone has had, and those that a copy brought along."""
    return {str(one["id"]) for one in _read(own / "writer.json")}


def new_writer(own: Path) -> str:
    """Another id for this clone, from now on."""
    path = own / "writer.json"
    return _add(path, _read(path), _place(own))


def _add(path: Path, known: list[dict[str, Any]], place: list[Any]) -> str:
    durable.make_folder(path.parent)
    made = f"{_slug()}-{os.urandom(4).hex()}"
    durable.write_json(path, {"format": 1, "writers": [*known, {"id": made, "place": place}]})
    return made


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        content = parse_foreign_json(path.read_bytes())
        return [one for one in content["writers"] if isinstance(one["id"], str) and isinstance(one["place"], list)]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []


def _place(own: Path) -> list[Any]:
    """What a copy of the clone has not in common with it."""
    try:
        machine = _MACHINE_ID.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        machine = socket.gethostname()
    return [machine, own.parent.stat().st_ino]


def _slug() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "user"
    return re.sub(r"[^a-z0-9]+", "-", user.lower()).strip("-")[:32] or "user"
