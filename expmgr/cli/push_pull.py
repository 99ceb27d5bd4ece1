"""`expmgr push` and `pull`: share logs and variants through git, checkpoints through a store."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from expmgr.cli import output
from expmgr.errors import ExitCode, ExpmgrError, worst
from expmgr.escape import one_line

if TYPE_CHECKING:
    from expmgr.project import Project
    from expmgr.team.remote import Pulled

Remote = Annotated[
    str | None,
    typer.Option("--remote", metavar="NAME", help="The git remote; default: that of your branch, or origin."),
]


#: Of what others said, this much is printed.
_MOST_WORDS = 10
#: Of branches that are no variants, so many are named.
_MOST_NAMES = 3


def add_to(app: typer.Typer) -> None:
    app.command(name="push")(push)
    app.command(name="pull")(pull)


class Which(str, Enum):
    """Which checkpoints go to the store."""

    SELECTED = "selected"
    ALL = "all"
    NONE = "none"


def push(
    remote: Remote = None,
    checkpoints: Annotated[
        Which | None,
        typer.Option(
            "--checkpoints", help="Which go to the store: of each run the selected one (default), all kept, none."
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Read the store's checkpoints and send damaged pieces again; always for a folder with --checkpoints.",
        ),
    ] = False,
    as_json: output.AsJson = False,
) -> None:
    """Push what this clone has to say (variants, runs, notes), the branches of all variants, and checkpoints to the store.

    Example: expmgr push
    """
    from expmgr.project import Project
    from expmgr.team import remote as remotes

    project = Project.open(output.folder(), output.note)
    name = remotes.remote_of(project, remote)
    stored, sent, problems = 0, 0, list[ExpmgrError]()
    if checkpoints not in (None, Which.NONE) or (project.settings.store is not None and checkpoints is None):
        which, is_asked = (checkpoints or Which.SELECTED).value, checkpoints is not None or verify
        stored, sent, problems = _upload(project, which, is_asked=is_asked, verify=verify, quiet=as_json)
    done = remotes.push(project, name)
    for problem in problems:
        output.tell(problem.lines())
    for branch, reason in done.declined.items():
        output.tell([f"Error: {branch} was not pushed: {done.remote} declined it: {reason}"])
    if done.declined:
        output.tell([*(f"  {line}" for line in done.words), f"Hint: fix that at {done.remote}, then expmgr push"])
    code = worst([ExitCode.MISTAKE if done.refused else ExitCode.DONE, *(one.exit_code for one in problems)])
    if as_json:
        about = {"remote": done.remote, "events": done.events, "branches": done.branches, "refused": done.refused}
        about["declined"] = done.declined
        about |= {"checkpoints": stored, "sent_bytes": sent}
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
    if done.events:
        output.tell_unheard(project)
    for branch in (one for one in done.refused if one not in done.declined):
        output.tell(
            [
                f"Error: {branch} was not pushed: {done.remote} has commits of it that this clone has not",
                f"Hint: expmgr pull; git switch {branch}; git merge {done.remote}/{branch}; then expmgr push",
            ]
        )
    raise typer.Exit(code)


def _upload(
    project: Project, which: Any, *, is_asked: bool, verify: bool, quiet: bool
) -> tuple[int, int, list[ExpmgrError]]:
    """Send checkpoints to the store: how many, the bytes that it did not have, and which model_dirs cannot be read. Where
    somebody asked for them, the store is asked whether it still holds what the log says."""
    from expmgr.store import find, upload

    store = find.store_of(project)
    problems: list[ExpmgrError] = []
    verify = verify or (is_asked and store.is_near)
    wanted = upload.plan_uploads(project, which, store if is_asked else None, problems.append, verify=verify)
    total = sum(one.size_bytes for one in wanted)
    with _progress("to the store", total, quiet=quiet) as moved:
        sent = upload.upload(project, store, wanted, moved, verify=verify)
    if wanted and not quiet:
        count = f"{len(wanted)} checkpoint{'' if len(wanted) == 1 else 's'}"
        output.show(f"stored {count} in {store.name}: {output.size(total)}, {output.size(sent)} of it new there")
    return len(wanted), sent, problems


@contextlib.contextmanager
def _progress(what: str, total: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar where somebody looks at a terminal."""
    if quiet or not total or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


def _pushed(events: int, branches: list[str], remote: str) -> str:
    if not events and not branches:
        return f"{remote} has everything already"
    told = [f"{events:,} event{'' if events == 1 else 's'}"] if events else []
    told += [", ".join(branches)] if 0 < len(branches) <= 5 else [f"{len(branches)} branches"] if branches else []
    return f"pushed to {remote}: {'; '.join(told)}"


def pull(
    variant: Annotated[
        str | None,
        typer.Argument(
            metavar="VARIANT[@STEP]",
            help="Fetch its checkpoints from the store too, or a run's; @STEP: of that step.",
        ),
    ] = None,
    remote: Remote = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, metavar="N", help="The checkpoint of one seed alone.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Keep aside what another run left in the model_dir; never deleted.")
    ] = False,
    as_json: output.AsJson = False,
) -> None:
    """Fetch what others have said, take over their runs, and make or move the branches of variants where that loses nothing.

    Example: expmgr pull
    """
    from expmgr.project import Project
    from expmgr.team import remote as remotes

    if variant is None and (seed is not None or fresh):
        raise typer.BadParameter("--seed and --fresh need a VARIANT whose checkpoints are fetched")
    project = Project.open(output.folder(), output.note)
    done = remotes.pull(project, remotes.remote_of(project, remote))
    fetched = [] if variant is None else _fetch(project, variant, seed, fresh=fresh, quiet=as_json)
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
                "not_variants": done.not_variants,
                "fetched": fetched,
            }
        )
    elif not as_json:
        _show(done)
        for shown in fetched:
            output.show(f"  {shown}: from the store")
        if variant is not None and not fetched:
            output.show(f"  the checkpoints of {variant} are here already")
    remotes.check_continued(done)


def _fetch(project: Project, text: str, seed: int | None, *, fresh: bool, quiet: bool) -> list[str]:
    """The checkpoints of a variant from the store; those that were not here."""
    from expmgr.errors import UnknownRun
    from expmgr.launch.check_plan import parse_checkpoint
    from expmgr.store import fetch, find
    from expmgr.variants.variants import find_variant

    store = find.store_of(project)
    named, step = parse_checkpoint(text)
    run = project.records.find(named)
    name = run.name if run is not None else find_variant(project.repo, named).name
    runs = [run] if run is not None else find.runs_of(project, name, seed)
    if not runs:
        of_seed = "" if seed is None else f" with seed {seed}"
        raise UnknownRun(f"nobody has told of a run of {name}{of_seed}", hint=f"expmgr log {name}")
    wanted = [(one, find.find_stored(project, one, step if isinstance(step, int) else None)) for one in runs]
    for record in () if fresh else runs:
        fetch.check_free(project, record)
    with _progress("from the store", sum(places[0].size_bytes for _, places in wanted), quiet=quiet) as moved:
        found = [fetch.fetch(project, store, record, places, fresh=fresh, progress=moved) for record, places in wanted]
    return [one for one in found if one is not None]


def _show(done: Pulled) -> None:
    runs = len(done.taken.runs)
    if not (done.events or runs or done.made or done.moved):
        output.show(f"nothing new at {done.remote}")
    else:
        told = [f"{done.events:,} event{'' if done.events == 1 else 's'}", f"{runs:,} run{'' if runs == 1 else 's'}"]
        output.show(f"pulled from {done.remote}: {', '.join(told)}")
    for one in done.said[-_MOST_WORDS:]:
        who = one.event.actor.name if one.event.actor is not None else one.event.writer
        output.show(f"  {who}: {one_line(one.event.title)}")
    if len(done.said) > _MOST_WORDS:
        output.show(f"  and {len(done.said) - _MOST_WORDS} words before that: expmgr log")
    for branch in done.made:
        output.show(f"  {branch}: new here")
    for branch in done.moved:
        output.show(f"  {branch}: moved on")
    for branch, reason in done.left.items():
        output.tell([f"Note: {branch} was left where it is: {reason}"])
    if done.not_variants:
        count = len(done.not_variants)
        names = ", ".join(one if len(one) <= 70 else f"{one[:67]}..." for one in done.not_variants[:_MOST_NAMES])
        more = f" and {count - _MOST_NAMES} more" if count > _MOST_NAMES else ""
        what = (
            "1 branch was skipped: its name is no variant's"
            if count == 1
            else f"{count} branches were skipped: their names are no variants"
        )
        output.tell([f"Note: {what} (exp/EXPERIMENT/VARIANT): {names}{more}"])
    for run_id, reason in sorted(done.taken.passed_over.items()):
        output.tell([f"Note: run {run_id} was skipped: {reason}"])
