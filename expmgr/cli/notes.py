"""Notes on a variant or a run, as `show` and `log` print them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from expmgr.cli import output
from expmgr.escape import one_line

if TYPE_CHECKING:
    from expmgr.log.logs import Told
    from expmgr.project import Project


def who(told: Told) -> str:
    return told.event.actor.name if told.event.actor is not None else told.event.writer


def notes_on(project: Project, variant: str, run_id: str | None) -> Iterator[str]:
    """The notes on a variant or a run that stand, a line each."""
    from expmgr.team.signing import taken_back

    told = project.logs.events("note")
    gone = taken_back(project, told)
    for one in told:
        event = one.event
        about = (getattr(event, "variant", None), getattr(event, "run_id", None))
        if one.kind == "note" and one.id not in gone and about == (variant, run_id):
            text = one_line(str(getattr(event, "text", "")))
            yield f"{output.moment(event.at)} {who(one)}: {text} ({one.id[:12]})"
