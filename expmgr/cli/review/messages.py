"""What the commands of `expmgr review` share: options, opening the repository, messages afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from expmgr.cli import output
from expmgr.escape import one_line

if TYPE_CHECKING:
    from expmgr.log.events import Event
    from expmgr.project import Project

Named = Annotated[str, typer.Argument(metavar="REVIEW", help="Its id or the beginning, or the variant under review.")]
Message = Annotated[str, typer.Option("-m", "--message", metavar="TEXT", help="The words.")]


def opened() -> Project:
    from expmgr.comparison.statistics import begin_to_import
    from expmgr.project import Project

    begin_to_import()
    return Project.open(output.folder(), output.note)


def show_event(project: Project, event: Event, as_json: bool, *, is_end: bool = False) -> None:
    """What was said; whether it counts for others, unless it ended the review; and what comes next."""
    if as_json:
        output.show_json({"format": 1, "id": event.id})
        return
    output.show(f"{event.id[:12]}: {one_line(event.title)}")
    if not is_end:
        output.tell_unheard(project)
    tell_next(project)


def tell_next(project: Project) -> None:
    from expmgr.git.remotes import remote_names

    if remote_names(project.repo):
        output.tell(["Next: expmgr push"])
