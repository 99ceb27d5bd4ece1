"""`expmgr push` and `pull`: logs and variants through a git remote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from expmgr.cli import output
from expmgr.errors import ExitCode

if TYPE_CHECKING:
    from expmgr.remote import Pulled

Remote = Annotated[
    str | None,
    typer.Option("--remote", metavar="NAME", help="The git remote; default: that of your branch, or origin."),
]


def add_to(app: typer.Typer) -> None:
    app.command(name="push")(push)
    app.command(name="pull")(pull)


def push(remote: Remote = None, as_json: output.AsJson = False) -> None:
    """Push what this clone has to say (variants, runs, notes) and the branches of all variants. Nothing is forced.

    Example: expmgr push
    """
    from expmgr import remote as remotes
    from expmgr.project import Project

    project = Project.open(output.folder())
    done = remotes.push(project, remotes.remote_of(project, remote))
    code = ExitCode.MISTAKE if done.refused else ExitCode.DONE
    if as_json:
        about = {"remote": done.remote, "events": done.events, "branches": done.branches, "refused": done.refused}
        output.show_json({"format": 1, **about, "new_writer": done.new_writer})
        raise typer.Exit(code)
    if done.new_writer:
        output.tell(
            [
                f"Note: {done.remote} has events of this clone that it does not know: it was copied, or brought back from a "
                f"backup. It goes on as {done.new_writer}; nothing is lost"
            ]
        )
    output.show(_pushed(done.events, done.branches, done.remote))
    for branch in done.refused:
        output.tell(
            [
                f"Error: {branch} was not pushed: {done.remote} has commits of it that this clone has not",
                f"Hint: expmgr pull; git switch {branch}; git merge {done.remote}/{branch}; then expmgr push",
            ]
        )
    raise typer.Exit(code)


def _pushed(events: int, branches: list[str], remote: str) -> str:
    if not events and not branches:
        return f"{remote} has everything already"
    told = [f"{events:,} event{'' if events == 1 else 's'}"] if events else []
    told += [", ".join(branches)] if 0 < len(branches) <= 5 else [f"{len(branches)} branches"] if branches else []
    return f"pushed to {remote}: {'; '.join(told)}"


def pull(remote: Remote = None, as_json: output.AsJson = False) -> None:
    """Fetch what others have said, take over their runs, and make or move the branches of variants where that loses nothing.

    Example: expmgr pull
    """
    from expmgr import remote as remotes
    from expmgr.project import Project

    project = Project.open(output.folder())
    done = remotes.pull(project, remotes.remote_of(project, remote))
    if as_json and not done.rewritten:
        output.show_json(
            {
                "format": 1,
                "remote": done.remote,
                "events": done.events,
                "runs": [one.run_id for one in done.taken.runs],
                "passed_over": done.taken.passed_over,
                "made": done.made,
                "moved": done.moved,
                "left": done.left,
            }
        )
    elif not as_json:
        _show(done)
    remotes.check_continued(done)


def _show(done: Pulled) -> None:
    runs = len(done.taken.runs)
    if not (done.events or runs or done.made or done.moved):
        output.show(f"nothing new at {done.remote}")
    else:
        told = [f"{done.events:,} event{'' if done.events == 1 else 's'}", f"{runs:,} run{'' if runs == 1 else 's'}"]
        output.show(f"pulled from {done.remote}: {', '.join(told)}")
    for branch in done.made:
        output.show(f"  {branch}: new here")
    for branch in done.moved:
        output.show(f"  {branch}: moved on")
    for branch, reason in done.left.items():
        output.tell([f"Note: {branch} was left where it is: {reason}"])
    for run_id, reason in sorted(done.taken.passed_over.items()):
        output.tell([f"Note: run {run_id} was passed over: {reason}"])
