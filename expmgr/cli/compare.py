"""`expmgr compare`: prints the table, the verdict and the checks of a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from expmgr.cli import output
from expmgr.cli.confirming import confirmed
from expmgr.cli.options import parse_seeds
from expmgr.errors import ExitCode
from expmgr.render.drawing import forest, sparkline

if TYPE_CHECKING:
    from expmgr.comparison.comparison import Comparison, Row
    from expmgr.project import Project

_SORT_KEYS = ("variant", "mean", "difference", "parameters", "time")


def add_to(app: typer.Typer) -> None:
    app.command(name="compare")(compare)


def compare(
    variants: Annotated[list[str], typer.Argument(metavar="VARIANT", help="The first is the baseline, unless said.")],
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", metavar="VARIANT", help="What to compare with; default: the spec's, or the first."),
    ] = None,
    metric: Annotated[str | None, typer.Option("--metric", metavar="METRIC", help="Default: the spec's.")] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", metavar="SEEDS", help="Only these, as 0-4,7; with --confirm: those to run.")
    ] = None,
    confirm: Annotated[
        bool,
        typer.Option("--confirm", help="Run the best one and the baseline on fresh seeds, and judge by them alone."),
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="All keys of the spec, and all checks.")] = False,
    sort_by: Annotated[
        str | None, typer.Option("--sort-by", metavar="KEY", help=f"One of {', '.join(_SORT_KEYS)}.")
    ] = None,
    precision: Annotated[int, typer.Option("--precision", min=0, max=12, metavar="N", help="Digits shown.")] = 4,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="A picture: FILE.svg, FILE.png or FILE.html.")
    ] = None,
    as_json: output.AsJson = False,
    as_csv: output.AsCsv = False,
    as_markdown: output.AsMarkdown = False,
) -> None:
    """Is a variant better than another? Whether they can be compared, numbers over seeds, and a verdict.

    Exit code 5 where they cannot be compared: the numbers are shown, and no verdict.

    Example: expmgr compare iris/baseline iris/wide
    """
    from expmgr.comparison.statistics import begin_to_import

    begin_to_import()
    from expmgr.comparison.comparison import compare as compared
    from expmgr.comparison.confirming import is_hopeless
    from expmgr.comparison.used_runs import chosen
    from expmgr.project import Project
    from expmgr.render.plots import require

    how = output.form(as_json, as_csv, as_markdown)
    if sort_by is not None and sort_by not in _SORT_KEYS:
        raise typer.BadParameter(f"--sort-by takes one of {', '.join(_SORT_KEYS)}")
    if plot is not None:
        require(plot)
    taken: Sequence[int] | None = parse_seeds(seeds) if seeds is not None else None
    project = Project.open(output.folder(), output.note)
    found = chosen(project, variants, baseline)
    in_vain = confirm and is_hopeless(found, metric)
    if in_vain:
        output.tell(["Nothing was run: other seeds do not make these comparable"])
    elif confirm:
        found, taken = confirmed(project, found, metric, taken)
    comparison = compared(
        found.subjects,
        baseline=found.baseline,
        metric=metric,
        everything=everything,
        tried=found.tried,
        seeds=taken,
        is_confirmed=confirm and not in_vain,
    )
    _sort(comparison, sort_by)
    if plot is not None:
        _draw(project, comparison, plot)
    if how is output.Form.JSON:
        output.show_json(comparison.as_dict())
    else:
        _show(project, comparison, how, precision, everything)
    if comparison.is_blocked:
        raise typer.Exit(ExitCode.NOT_COMPARABLE)


# What is shown.


def _sort(comparison: Comparison, key: str | None) -> None:
    keys = {
        "variant": lambda row: (row.variant,),
        "mean": lambda row: (row.mean is None, _toward(row.mean, comparison.mode)),
        "difference": lambda row: (row.difference is None, _toward(row.difference, comparison.mode)),
        "parameters": lambda row: (row.parameters is None, row.parameters or 0),
        "time": lambda row: (row.train_s is None, row.train_s or 0.0),
    }
    if key is not None:
        comparison.rows.sort(key=keys[key])


def _toward(value: float | None, mode: str) -> float:
    """A key that puts the better value first."""
    return 0.0 if value is None else (-value if mode == "max" else value)


def _show(project: Project, comparison: Comparison, how: output.Form, precision: int, everything: bool) -> None:
    _table(project, comparison, how, precision).show(how)
    if how is output.Form.CSV:
        output.tell(_checks(comparison, everything))
        return
    judged = [row for row in comparison.rows if row.result is not None]
    if how is output.Form.MARKDOWN:
        output.show("", *(f"- {line}" for row in judged for line in _verdict(row)))
        _show_changes(comparison, how)
        _show_rest(project, comparison)
        output.show("", *(f"- {line}" for line in _checks(comparison, everything)))
        return
    if judged:
        output.show("", *(line for row in judged for line in _verdict(row)))
        if lines := forest([(row.variant, row.result) for row in judged if row.result]):
            output.show(*lines)
    _show_changes(comparison, how)
    _show_rest(project, comparison)
    output.tell(_checks(comparison, everything))


def _table(project: Project, comparison: Comparison, how: output.Form, precision: int) -> output.Table:
    is_terminal, machine = how is output.Form.TERMINAL, how is output.Form.CSV
    measured = f"{comparison.metric} ({comparison.split})"
    last = ("course",) if is_terminal else ("verdict", "what the spec changes")
    columns = ("variant", "seeds", measured, "std", "difference", "values", "parameters", "time", *last)
    right = frozenset({"seeds", measured, "std", "difference", "parameters", "time"})
    table = output.Table(columns, right, dropped=("course", "time", "parameters", "values"))
    for row in comparison.rows:
        words = row.result.sentence if row.result else ""
        table.rows.append(
            (
                row.variant,
                _counted(row, machine),
                output.number(row.mean, precision),
                output.number(row.std, precision),
                "baseline" if row.is_baseline else _signed(row.difference, precision),
                " ".join(output.number(value, precision) for _, value in sorted(row.values.items())),
                "-" if row.parameters is None else (str(row.parameters) if machine else f"{row.parameters:,}"),
                output.number(row.train_s, 3) if machine else output.seconds(row.train_s),
                *((_course(project, row),) if is_terminal else (words, _changes(row))),
            )
        )
    return table


def _course(project: Project, row: Row) -> str:
    """The curve of the first run: of the metric where it was evaluated on the way, else of the loss of training."""
    if not row.side.runs:
        return ""
    curves = project.records.load(row.side.runs[0].run_id).curves
    points = curves.get("eval", {}).get(row.side.metric, [])
    if len(points) < 3:
        points = curves.get("train", {}).get("loss", [])
    return sparkline([value for _, value in points])


def _verdict(row: Row) -> Iterator[str]:
    assert row.result is not None
    notes = "; ".join(row.result.notes)
    yield f"{row.variant}: {row.result.sentence}{f'; {notes}' if notes else ''}"


def _show_changes(comparison: Comparison, how: output.Form) -> None:
    """A line a key that differs, a column a variant."""
    keys = list(dict.fromkeys(key for row in comparison.rows for key in row.changes))
    if not keys:
        return
    output.show("")
    table = output.Table(("what the spec changes", *(row.variant for row in comparison.rows)))
    for key in keys:
        base = next(row.changes[key][0] for row in comparison.rows if key in row.changes)
        values = (row.changes[key][1] if key in row.changes else base for row in comparison.rows)
        table.rows.append((key, *(output.value_text(value) for value in values)))
    table.show(how)


def _show_rest(project: Project, comparison: Comparison) -> None:
    """What differs besides the spec, or that nothing does."""
    from expmgr.comparison.differences import differences

    if len(comparison.rows) < 2:
        return
    found = differences(project, [row.side.subject for row in comparison.rows], with_same=False)
    others = {part.name: part.changed for part in found.parts if part.name not in ("spec", "architecture", "training")}
    said = [f"{name} ({', '.join(row.what for row in rows[:3])})" for name, rows in others.items() if rows]
    unknown = [part.name for part in found.parts if part.unknown]
    names = " ".join(found.variants)
    if said:
        output.show("", f"Besides the spec differ {' and '.join(said)}: expmgr diff {names}")
    elif unknown:
        output.show("", f"Whether {', '.join(unknown)} differ is not known: expmgr diff {names}")
    else:
        output.show("", "Nothing else differs: code, data and environment are the same.")


def _counted(row: Row, machine: bool) -> str:
    """How many seeds have a value, and of how many where some were not evaluated."""
    missing = row.side.without_metric
    return str(len(row.values)) if machine or not missing else f"{len(row.values)} of {len(row.values) + len(missing)}"


def _signed(value: float | None, precision: int) -> str:
    return "-" if value is None else f"{value:+.{precision}f}"


def _changes(row: Row) -> str:
    if not row.changes:
        return "" if row.is_baseline else "nothing"
    return ", ".join(f"{key}={output.value_text(new)}" for key, (_old, new) in row.changes.items())


_WORDS = {"block": "Not comparable", "warn": "Warning", "unknown": "Unknown", "ok": "ok"}


def _checks(comparison: Comparison, everything: bool) -> list[str]:
    """What has to be known before the numbers are believed, the gravest first; the same words once."""
    ids: dict[tuple[str, str, str], list[str]] = {}
    for check in sorted(comparison.checks, key=lambda check: -check.answer.weight):
        if everything or check.answer.value != "ok":
            mend = f": {check.mend}" if check.mend else ""
            ids.setdefault((check.answer.value, check.told, mend), []).append(check.id)
    lines = [
        f"{_WORDS[answer]} ({', '.join(dict.fromkeys(of))}): {told}{mend}" for (answer, told, mend), of in ids.items()
    ]
    fine = sum(check.answer.value == "ok" for check in comparison.checks)
    if len(comparison.rows) > 1 and not everything:
        lines.append(f"{fine} of {len(comparison.checks)} checks are ok; --all shows them")
    return lines


def _draw(project: Project, comparison: Comparison, path: Path) -> None:
    from expmgr.render.plots import draw

    draw(comparison, lambda run_id: project.records.load(run_id).curves, path)
    output.tell([f"wrote {path}"])
