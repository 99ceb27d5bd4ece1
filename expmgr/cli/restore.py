"""`expmgr restore`: puts back records of runs from the event log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from expmgr.cli import output
from expmgr.errors import ExpmgrError, worst

if TYPE_CHECKING:
    from expmgr.team.restore import RestoredRun


def add_to(app: typer.Typer) -> None:
    app.command(name="restore")(restore)


def restore(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN", help="Run ids, unique prefixes, or VARIANT:SEED. Default: all damaged or deleted."
        ),
    ] = None,
    as_json: output.AsJson = False,
) -> None:
    """Restore damaged records of runs from the event log.

    A record is damaged if its run.json was edited or cannot be read. The damaged file is kept beside the restored one.

    Example: expmgr restore 20260101-120000000-a1b2c3
    """
    from expmgr.project import Project
    from expmgr.team.restore import restore as restored

    problems: list[ExpmgrError] = []
    found = restored(Project.open(output.folder()), runs or (), problems.append)
    if as_json:
        failed = [one.as_dict() for one in problems]
        output.show_json({"format": 1, "runs": [one.as_dict() for one in found], "errors": failed})
    else:
        _show(found)
        if not found and not problems:
            output.tell(["No record is damaged. Nothing was changed."])
    for problem in problems:
        output.tell(problem.lines())
    raise typer.Exit(worst([one.exit_code for one in problems]))


def _show(found: Sequence[RestoredRun]) -> None:
    for one in found:
        record = one.record
        run = f"run {record.run_id} ({record.variant} seed {record.seed})"
        if not one.was_damaged:
            output.show(f"{run} was not damaged")
        else:
            kept = f"; what was there is kept in {' and '.join(one.kept)}" if one.kept else ""
            output.show(f"restored {run}{kept}")
