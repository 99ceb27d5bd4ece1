"""`expmgr diff`: prints what differs between variants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from expmgr.cli import output
from expmgr.cli.options import usage

if TYPE_CHECKING:
    from expmgr.comparison.differences import Differences, PartRow, VariantPart

_MOST_ROWS = 12


def add_to(app: typer.Typer) -> None:
    app.command(name="diff")(diff)


def diff(
    variants: Annotated[
        list[str], typer.Argument(metavar="VARIANT", help="Two or more; the others are compared with the first.")
    ],
    everything: Annotated[
        bool, typer.Option("--all/--changed-only", help="Also what is the same, and every row.")
    ] = False,
    as_json: output.AsJson = False,
    as_csv: output.AsCsv = False,
    as_markdown: output.AsMarkdown = False,
) -> None:
    """What differs between variants: spec, code, data, environment, architecture, training; and that nothing else does.

    Example: expmgr diff iris/baseline iris/wide
    """
    from expmgr.comparison.differences import differences_of
    from expmgr.project import Project

    how = output.form(as_json, as_csv, as_markdown)
    project = Project.open(output.folder(), output.note)
    with usage():
        found = differences_of(project, variants)
    if how is output.Form.JSON:
        output.show_json(found.as_dict())
        return
    if how is not output.Form.TERMINAL:
        _one_table(found, everything).show(how)
    else:
        _show(found, everything)
    output.tell(_unknown(found))


def _one_table(found: Differences, everything: bool) -> output.Table:
    table = output.Table(("part", "what", *found.variants))
    for part in found.parts:
        table.rows += [(part.name, *_cells(part, row)) for row in (part.rows if everything else part.changed)]
    return table


def _cells(part: VariantPart, row: PartRow) -> tuple[str, ...]:
    none = "null" if part.name == "spec" else "-"
    values = zip(part.variants, row.values, strict=True)
    return row.what, *(
        "?" if name in part.unknown else none if value is None else output.value_text(value) for name, value in values
    )


def _show(found: Differences, everything: bool) -> None:
    for part in found.parts:
        rows = list(part.rows) if everything else part.changed
        if not rows:
            continue
        if part.name == "spec" and len(found.variants) > 2 and not everything:
            _turned(part, found).show(output.Form.TERMINAL)
        else:
            table = output.Table((part.name, *found.variants))
            shown = rows if everything else rows[:_MOST_ROWS]
            table.rows += [_cells(part, row) for row in shown]
            table.show(output.Form.TERMINAL)
            if len(rows) > len(shown):
                output.show(f"and {len(rows) - len(shown)} more (--all)")
        output.show()
    output.show(found.sentence)


def _turned(part: VariantPart, found: Differences) -> output.Table:
    """A line a variant, a column a key that varies."""
    table = output.Table(("variant", *(row.what for row in part.changed)))
    for place, name in enumerate(found.variants):
        table.rows.append((name, *(_cells(part, row)[1 + place] for row in part.changed)))
    return table


def _unknown(found: Differences) -> Iterator[str]:
    for variant in found.variants:
        reasons: dict[str, list[str]] = {}
        for part in found.parts:
            if variant in part.unknown:
                reasons.setdefault(part.unknown[variant], []).append(part.name)
        for reason, parts in reasons.items():
            yield f"Not known of {variant}: {', '.join(parts)}, since {reason}: {found.mends[variant]}"
