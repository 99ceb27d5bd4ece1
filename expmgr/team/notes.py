"""Notes on a variant or a run that nobody has retracted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from expmgr.escape import one_line

if TYPE_CHECKING:
    from expmgr.log.logs import Told
    from expmgr.project import Project


@dataclass(frozen=True)
class Note:
    """What somebody noted."""

    id: str
    at: float
    """Seconds since 1970, UTC."""
    by: str
    text: str
    """On one line."""


def who(told: Told) -> str:
    """Who says an event: the person, or the clone where that names nobody."""
    return told.event.actor.name if told.event.actor is not None else told.event.writer


def notes_on(project: Project, variant: str, run_id: str | None) -> list[Note]:
    """The notes on a variant (`run_id` None), or on one of its runs, the oldest first."""
    from expmgr.team.verify_signatures import taken_back

    told = project.logs.events("note")
    gone = taken_back(project, told)
    found = []
    for one in told:
        event = one.event
        about = (getattr(event, "variant", None), getattr(event, "run_id", None))
        if one.kind == "note" and one.id not in gone and about == (variant, run_id):
            found.append(Note(one.id, event.at, who(one), one_line(str(getattr(event, "text", "")))))
    return found
