"""`expmgr review open`, `comment` and `resolve`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from expmgr.cli import output
from expmgr.cli.options import usage
from expmgr.cli.review.messages import Message, Named, opened, show_event, tell_next

if TYPE_CHECKING:
    from expmgr.project import Project
    from expmgr.reviews.opening import Opening


def open_review(
    variant: Annotated[str, typer.Argument(metavar="VARIANT", help="The candidate.")],
    against: Annotated[
        str | None, typer.Option("--against", metavar="BASELINE", help="Default: compare.baseline of its spec.")
    ] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", metavar="SEEDS", help="These alone count: 10-14.")] = None,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="Run both on fresh seeds first, and judge by these alone.")
    ] = False,
    message: Annotated[
        str, typer.Option("-m", "--message", metavar="TEXT", help="What is to be decided, and why.")
    ] = "",
    as_json: output.AsJson = False,
) -> None:
    """Ask for a decision: is this variant to be merged, instead of the baseline?

    Example: expmgr review open iris/wide --against iris/baseline
    """
    from expmgr.cli.options import parse_seeds
    from expmgr.render.review import as_lines
    from expmgr.reviews import opening
    from expmgr.reviews.report import report

    project = opened()
    asked = opening.plan_opening(project, variant, against)
    taken: Sequence[int] | None = parse_seeds(seeds) if seeds is not None else None
    if confirm:
        taken = _fresh(project, asked, taken)
    found = report(opening.open_review(project, asked, seeds=taken, is_confirmed=confirm, text=message))
    if as_json:
        output.show_json(found)
        return
    output.show(*as_lines(found))
    tell_next(project)


def _fresh(project: Project, asked: Opening, seeds: Sequence[int] | None) -> tuple[int, ...]:
    """Run both on seeds that no run has had, unless no seed could make them comparable."""
    from expmgr.cli.confirming import confirmed
    from expmgr.comparison.confirming import is_hopeless
    from expmgr.reviews.opening import to_confirm

    found = to_confirm(project, asked, seeds)
    if is_hopeless(found, None):
        output.tell(["Nothing was run: other seeds do not make these comparable"])
        return tuple(seeds or ())
    candidate, baseline = asked.names
    return tuple(confirmed(project, found, None, seeds, f"expmgr review open {candidate} --against {baseline}")[1])


def comment(
    review: Named,
    message: Message,
    on: Annotated[
        str | None,
        typer.Option("--on", metavar="WHAT", help="check:ID, run:ID, run:VARIANT:SEED, or FILE:LINE of the candidate."),
    ] = None,
    as_json: output.AsJson = False,
) -> None:
    """Say something in a review, of all of it, a check, a run, or a line of code.

    Example: expmgr review comment 3f2a9c -m "why this rate?" --on experiments/iris/spec.yaml:5
    """
    from expmgr.reviews import votes

    project = opened()
    with usage():
        event = votes.comment(project, review, message, on)
    show_event(project, event, as_json)


def resolve(
    review: Named,
    comment: Annotated[str, typer.Argument(metavar="COMMENT", help="Its id, or the beginning.")],
    as_json: output.AsJson = False,
) -> None:
    """Say that what a comment asked for is settled.

    Example: expmgr review resolve 3f2a9c 81d0
    """
    from expmgr.reviews import votes

    project = opened()
    show_event(project, votes.resolve(project, review, comment), as_json)
