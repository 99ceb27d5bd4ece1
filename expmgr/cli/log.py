"""`expmgr log`, `note` and `retract`: prints the event log, adds notes and retracts them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from expmgr.cli import output
from expmgr.errors import EventProblem, UnknownEvent
from expmgr.escape import one_line
from expmgr.team.notes import who

if TYPE_CHECKING:
    from expmgr.log.events import Event
    from expmgr.log.logs import Told
    from expmgr.project import Project

Message = Annotated[str, typer.Option("-m", "--message", metavar="TEXT", help="The words.")]


def add_to(app: typer.Typer) -> None:
    for command in (log, note, retract):
        app.command(name=command.__name__)(command)


def log(
    what: Annotated[
        str | None, typer.Argument(metavar="VARIANT|RUN", help="What was said of one variant or run alone.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="The newest N.")] = 30,
    as_json: output.AsJson = False,
    as_csv: output.AsCsv = False,
    as_markdown: output.AsMarkdown = False,
) -> None:
    """Show what this clone and those whose logs were pulled have said: variants, runs, notes, in their order.

    Example: expmgr log iris/wide
    """
    from expmgr.project import Project
    from expmgr.team.verify_signatures import taken_back

    how = output.form(as_json, as_csv, as_markdown)
    project = Project.open(output.folder(), output.note)
    told = project.logs.events()
    if what is not None:
        variant, run_id = _meant(project, what)
        reviews = {one.id for one in told if run_id is None and _is_asked(one, variant)}
        told = [
            one
            for one in told
            if one.id in reviews or getattr(one.event, "review", None) in reviews or _is_about(one, variant, run_id)
        ]
    shown = told[-limit:]
    claims = _claims(project, shown)
    gone = taken_back(project, told)
    if how is output.Form.JSON:
        output.show_json({"format": 1, "events": [_as_dict(one, one.id in gone, claims) for one in shown]})
    else:
        table = output.Table(("event", "at", "who", "what"), wrap=frozenset({"what"}))
        for one in shown:
            marks = [*(["retracted"] if one.id in gone else []), *(["unsigned claim"] if one.id in claims else [])]
            title = one_line(one.event.title)
            table.rows.append(
                (
                    one.id[:12],
                    output.moment(one.event.at),
                    who(one),
                    f"({', '.join(marks)}) {title}" if marks else title,
                )
            )
        table.show(how)
        if len(told) > len(shown):
            output.tell([f"{len(told) - len(shown):,} older ones: --limit {len(told)}"])
    for commit, reason in sorted(project.logs.unreadable.items())[:5]:
        output.tell([f"Note: commit {commit[:12]} of a log was skipped: {reason}"])


def _as_dict(told: Told, is_gone: bool, claims: set[str]) -> dict[str, Any]:
    import json

    return {"id": told.id, "retracted": is_gone, "unsigned_claim": told.id in claims, **json.loads(told.content)}


def _meant(project: Project, what: str) -> tuple[str | None, str | None]:
    """The variant, and the run, that `what` names."""
    from expmgr.errors import BadName, UnknownVariant
    from expmgr.paths import parse_variant
    from expmgr.variants.named_run import run_named
    from expmgr.variants.variants import find_variant

    record = run_named(project, what)
    if record is not None:
        return record.variant, record.run_id
    try:
        return str(find_variant(project.repo, what).name), None
    except UnknownVariant:
        try:
            name = str(parse_variant(what))  # its branch may be gone
        except BadName:
            name = ""
        if not any(_is_about(one, name, None) for one in project.logs.events()):
            raise
        return name, None


def _is_about(told: Told, variant: str | None, run_id: str | None) -> bool:
    event = told.event
    if run_id is not None:
        return getattr(event, "run_id", None) == run_id
    return getattr(event, "variant", None) == variant


def _is_asked(told: Told, variant: str | None) -> bool:
    """Whether it opens a review of the variant, or against it."""
    sides = (getattr(told.event, "candidate", None), getattr(told.event, "baseline", None))
    return told.kind == "review.open" and variant in sides


def _claims(project: Project, told: Sequence[Told]) -> set[str]:
    """The events that name somebody who has not signed them, where signatures are asked for."""
    from expmgr.team.verify_signatures import policy_of, signed

    policy = policy_of(project)
    if policy.signing == "off":
        return set()
    known = signed(project, told, policy)
    return {one.id for one in told if one.id not in known}


def note(
    what: Annotated[str, typer.Argument(metavar="VARIANT|RUN", help="A variant, a run's id, or VARIANT:SEED.")],
    message: Message,
    as_json: output.AsJson = False,
) -> None:
    """Say something of a variant or a run, for everybody: `show` has it, and `push` takes it along.

    Example: expmgr note iris/wide -m "the seeds differ more than I thought"
    """
    from expmgr.log.events import Noted
    from expmgr.log.logs import Draft
    from expmgr.project import Project

    project = Project.open(output.folder(), output.note)
    if not message.strip():
        raise typer.BadParameter("-m has no words")
    variant, run_id = _meant(project, what)
    values = {"variant": variant, "text": message.strip(), **({"run_id": run_id} if run_id else {})}
    _tell(project, Draft(Noted, values), as_json)


def _subject(event: Event) -> str:
    """What a note on the subject of an event names: its run, or its variant."""
    return str(getattr(event, "run_id", None) or getattr(event, "variant", "VARIANT"))


def retract(
    event: Annotated[str, typer.Argument(metavar="EVENT", help="The event's id or its beginning: expmgr log.")],
    message: Message,
    as_json: output.AsJson = False,
) -> None:
    """Take back a note of yours. It stays in the log, marked; a result is never taken back.

    Example: expmgr retract 3f2a9c -m "that was another variant"
    """
    from expmgr.log.events import TAKEN_BACK, Retracted
    from expmgr.log.logs import Draft
    from expmgr.log.writers import writer_id
    from expmgr.project import Project
    from expmgr.team.verify_signatures import taken_back

    project = Project.open(output.folder(), output.note)
    if not message.strip():
        raise typer.BadParameter("-m has no words")
    found = [one for one in project.logs.events() if one.id.startswith(event)] if event else []
    if len(found) != 1:
        what = f"{len(found)} events begin with {event}" if found else f"there is no event {event}"
        raise UnknownEvent(what, left_alone="Nothing was changed.", hint="expmgr log shows their ids")
    (told,) = found
    if told.event.writer != writer_id(project.layout.own):
        raise EventProblem(
            f"{who(told)} said this, and only they can take it back, in the clone that it was said in",
            left_alone="Nothing was changed.",
            hint=f'say otherwise: expmgr note {_subject(told.event)} -m "..."',
        )
    if told.kind not in TAKEN_BACK:
        raise EventProblem(
            f"what happened ({told.kind}) is not taken back",
            left_alone="Nothing was changed.",
            hint=f'say what is wrong with it: expmgr note {_subject(told.event)} -m "..."',
        )
    if told.id in taken_back(project, [told]):
        raise EventProblem(f"{told.id[:12]} was taken back before", left_alone="Nothing was changed.")
    _tell(project, Draft(Retracted, {"event": told.id, "reason": message.strip()}), as_json)


def _tell(project: Project, draft: Any, as_json: bool) -> None:
    from expmgr.git.remotes import remote_names
    from expmgr.team.publish import tell

    (event,) = tell(project, [draft])
    if as_json:
        output.show_json({"format": 1, "id": event.id})
        return
    output.show(f"{event.id[:12]}: {one_line(event.title)}")
    output.tell_unheard(project)
    if remote_names(project.repo):
        output.tell(["Next: expmgr push"])
