"""`expmgr review waive`, `approve`, `veto`, `lift`, `close` and `merge`."""

from __future__ import annotations

from typing import Annotated

import typer

from expmgr.cli import output
from expmgr.cli.options import usage
from expmgr.cli.review.messages import Message, Named, opened, show_event


def waive(
    review: Named,
    name: Annotated[str, typer.Argument(metavar="CHECK", help="The check that blocks.")],
    message: Message,
    as_json: output.AsJson = False,
) -> None:
    """Excuse a check that blocks, for the results that there are now; by somebody whose work it is not.

    Example: expmgr review waive 3f2a9c overlap -m "the customer's own split"
    """
    from expmgr.reviews import votes

    project = opened()
    with usage():
        event = votes.waive(project, review, name, message)
    show_event(project, event, as_json)


def approve(
    review: Named,
    message: Annotated[str, typer.Option("-m", "--message", metavar="TEXT", help="The words.")] = "",
    as_json: output.AsJson = False,
) -> None:
    """Approve what would be merged, with the results that there are now. Takes the place of a veto of yours.

    Example: expmgr review approve 3f2a9c -m "I ran seed 11 myself"
    """
    from expmgr.reviews import votes

    project = opened()
    show_event(project, votes.approve(project, review, message), as_json)


def veto(review: Named, message: Message, as_json: output.AsJson = False) -> None:
    """Keep it from being merged, until you lift that, whatever changes.

    Example: expmgr review veto 3f2a9c -m "the eval rows come from production logs of one day"
    """
    from expmgr.reviews import votes

    project = opened()
    with usage():
        event = votes.veto(project, review, message, output.note)
    show_event(project, event, as_json)


def lift(
    review: Named,
    message: Annotated[str, typer.Option("-m", "--message", metavar="TEXT", help="The words.")] = "",
    as_json: output.AsJson = False,
) -> None:
    """Take back your veto, or your approval.

    Example: expmgr review lift 3f2a9c
    """
    from expmgr.reviews import votes

    project = opened()
    show_event(project, votes.lift(project, review, message, output.note), as_json)


def close(
    review: Named,
    reason: Annotated[
        str,
        typer.Option("--reason", metavar="WHY", help="no gain, worse, not comparable, superseded, or abandoned."),
    ],
    message: Annotated[str, typer.Option("-m", "--message", metavar="TEXT", help="The words.")] = "",
    as_json: output.AsJson = False,
) -> None:
    """End a review without a merge. The answer is kept, with the numbers that it rests on.

    Example: expmgr review close 3f2a9c --reason "no gain" -m "twice the parameters for nothing"
    """
    from expmgr.reviews import votes

    project = opened()
    with usage():
        event = votes.close(project, review, reason, message, output.note)
    show_event(project, event, as_json, is_end=True)


def merge(review: Named, as_json: output.AsJson = False) -> None:
    """Merge the candidate into the target branch, with what was decided in it. Exit code 5 where a check blocks.

    Example: expmgr review merge 3f2a9c
    """
    from expmgr.git.remotes import remote_names
    from expmgr.reviews.current import judged_now
    from expmgr.reviews.merging import merge as merged

    project = opened()
    now, evidence = judged_now(project, review)
    done, found = merged(project, now), now.review
    target = evidence.question.target
    if as_json:
        about = {"review": found.id, "target": target, "commit": done.commit, "files": done.files}
        output.show_json({"format": 1, **about, "checkout": done.checkout, "was_merged": done.was_there})
        return
    if done.was_there:
        output.show(
            f"{found.opened.candidate} was merged into {target} before, as {done.commit[:12]}: the log says so now"
        )
    else:
        output.show(f"merged {found.opened.candidate} into {target} as {done.commit[:12]}")
        output.show(*(f"  {one}" for one in done.files))
        if done.checkout:
            output.tell([f"Note: {done.checkout}, where {target} is checked out, has it"])
    remotes = remote_names(project.repo)
    if remotes:
        name = "origin" if "origin" in remotes else remotes[0]
        output.tell([f"Next: git push {name} {target} && expmgr push"])
