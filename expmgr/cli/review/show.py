"""`expmgr review list` and `expmgr review show`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from expmgr.cli import output
from expmgr.cli.review.messages import Named, opened
from expmgr.escape import one_line


def list_reviews(
    everything: Annotated[bool, typer.Option("--all", help="Those that were decided, too.")] = False,
    as_json: output.AsJson = False,
    as_csv: output.AsCsv = False,
    as_markdown: output.AsMarkdown = False,
) -> None:
    """List the open reviews, with what is missing for a merge; with `--all` every one.

    Example: expmgr review list --all
    """
    from expmgr.reviews.current import reports

    how = output.form(as_json, as_csv, as_markdown)
    found = reports(opened(), everything=everything, on_problem=output.note)
    if how is output.Form.JSON:
        output.show_json({"format": 1, "reviews": found})
        return
    table = output.Table(
        ("review", "candidate", "against", "state", "remarks", "result", "asked by", "at"),
        wrap=frozenset({"result", "remarks"}),
        dropped=("at", "asked by"),
    )
    for one in found:
        table.rows.append(
            (
                one["id"][:12],
                one["candidate"],
                one["baseline"],
                one["state"],
                _remarks(one),
                one["sentence"] or "",
                one_line(one["author"]["name"]),
                output.moment(one["opened_at"]),
            )
        )
    if not found and how is output.Form.TERMINAL:
        more = "" if everything else "; --all shows those that were decided"
        output.tell([f"no review is open{more}"])
        return
    table.show(how)


def _remarks(found: dict[str, Any]) -> str:
    """What there is to say of a review in a list, and what a merge still needs of people."""
    vetoed = [f"vetoed by {one['by']['name']}" for one in found["opinions"] if one["verdict"] == "veto"]
    lacks = found["state"] == "open" and not any(one["counts"] for one in found["opinions"])
    said = [*found["remarks"], *(vetoed if found["state"] == "open" else ()), *(["not approved"] if lacks else ())]
    return one_line(", ".join(said))


def show(
    review: Named,
    everything: Annotated[bool, typer.Option("--all", help="Checks that are ok, too.")] = False,
    as_json: output.AsJson = False,
    as_markdown: output.AsMarkdown = False,
) -> None:
    """Show a review: numbers, checks, verdicts, comments, and what a merge still needs.

    Example: expmgr review show 3f2a9c
    """
    from expmgr.render.review import as_lines
    from expmgr.render.review import as_markdown as to_markdown
    from expmgr.reviews.current import report_named

    how = output.form(as_json, False, as_markdown)
    found = report_named(opened(), review)
    if how is output.Form.JSON:
        output.show_json(found)
    elif how is output.Form.MARKDOWN:
        output.show(to_markdown(found).rstrip("\n"))
    else:
        output.show(*as_lines(found, everything=everything))
