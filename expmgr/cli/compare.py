"""`expmgr compare`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from expmgr.cli import output
from expmgr.paths import seeds_text

if TYPE_CHECKING:
    from expmgr.compare import Comparison, Row

_SORT_KEYS = ("variant", "mean", "difference", "parameters", "time")


def add_to(app: typer.Typer) -> None:
    app.command(name="compare")(compare)


def compare(
    variants: Annotated[
        list[str], typer.Argument(metavar="VARIANT...", help="The first is the baseline, unless said.")
    ],
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", metavar="VARIANT", help="What to compare with; default: the spec's, or the first."),
    ] = None,
    metric: Annotated[str | None, typer.Option("--metric", metavar="METRIC", help="Default: the spec's.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All keys of the spec, not only what differs.")] = False,
    sort_by: Annotated[
        str | None, typer.Option("--sort-by", metavar="KEY", help=f"One of {', '.join(_SORT_KEYS)}.")
    ] = None,
    precision: Annotated[int, typer.Option("--precision", min=0, max=12, metavar="N", help="Digits shown.")] = 4,
    as_json: output.AsJson = False,
    as_csv: output.AsCsv = False,
    as_markdown: output.AsMarkdown = False,
) -> None:
    """Put variants side by side: mean and deviation over seeds, difference to the baseline, what the spec changes.

    Example: expmgr compare iris/baseline iris/wide
    """
    from expmgr.compare import chosen
    from expmgr.compare import compare as compared
    from expmgr.project import Project

    how = output.form(as_json, as_csv, as_markdown)
    if sort_by is not None and sort_by not in _SORT_KEYS:
        raise typer.BadParameter(f"--sort-by takes one of {', '.join(_SORT_KEYS)}")
    project = Project.open(output.folder())
    subjects, base = chosen(project, variants, baseline)
    comparison = compared(subjects, baseline=base, metric=metric, everything=everything)
    _sort(comparison, sort_by)
    output.tell_unreadable(project.records)
    if how is output.Form.JSON:
        output.show_json(comparison.as_dict())
        return
    _show(comparison, how, precision, machine=how is output.Form.CSV)


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


def _show(comparison: Comparison, how: output.Form, precision: int, machine: bool) -> None:
    measured = f"{comparison.metric} ({comparison.split})"
    is_terminal = how is output.Form.TERMINAL
    changes = () if is_terminal else ("what the spec changes",)
    columns = ("variant", "seeds", measured, "std", "difference", *changes, "parameters", "time")
    table = output.Table(
        columns,
        frozenset({"seeds", measured, "std", "difference", "parameters", "time"}),
        dropped=("time", "parameters"),
    )
    for row in comparison.rows:
        table.rows.append(
            (
                row.variant,
                _counted(row, machine),
                output.number(row.mean, precision),
                output.number(row.std, precision),
                "baseline" if row.is_baseline else _signed(row.difference, precision),
                *([] if is_terminal else [_changes(row)]),
                "-" if row.parameters is None else (str(row.parameters) if machine else f"{row.parameters:,}"),
                output.number(row.train_s, 3) if machine else output.seconds(row.train_s),
            )
        )
    table.show(how)
    if is_terminal:
        _show_changes(comparison)
    output.tell([*_notes(comparison)])


def _show_changes(comparison: Comparison) -> None:
    """A line a key that differs, a column a variant."""
    keys = list(dict.fromkeys(key for row in comparison.rows for key in row.changes))
    if not keys:
        return
    output.show()
    table = output.Table(("what the spec changes", *(row.variant for row in comparison.rows)))
    for key in keys:
        base = next(row.changes[key][0] for row in comparison.rows if key in row.changes)
        values = (row.changes[key][1] if key in row.changes else base for row in comparison.rows)
        table.rows.append((key, *(output.value_text(value) for value in values)))
    table.show(output.Form.TERMINAL)


def _counted(row: Row, machine: bool) -> str:
    """How many seeds have a value, and of how many where some were not evaluated."""
    runs = len(row.values) + len(row.without_metric)
    return f"{len(row.values)} of {runs}" if row.without_metric and not machine else str(len(row.values))


def _signed(value: float | None, precision: int) -> str:
    return "-" if value is None else f"{value:+.{precision}f}"


def _changes(row: Row) -> str:
    if not row.changes:
        return "" if row.is_baseline else "nothing"
    return ", ".join(f"{key}={output.value_text(new)}" for key, (_old, new) in row.changes.items())


def _notes(comparison: Comparison) -> Iterator[str]:
    """What a reader has to know before the numbers are believed."""
    for row in comparison.rows:
        yield from _notes_on(row, comparison)
    for split in (comparison.split, "train"):
        told = {digest for row in comparison.rows for digest in row.data[split]}
        if len(told) > 1:
            what = "evaluated" if split == comparison.split else "trained"
            yield f"Note: these runs were {what} on different rows ({split}), so their numbers say little of each other"
    seeds = {row.variant: seeds_text(row.values) for row in comparison.rows if row.values}
    if len(set(seeds.values())) > 1:
        yield f"Note: the seeds differ: {', '.join(f'{name} {text}' for name, text in seeds.items())}"
    if comparison.minimum_effect is not None:
        yield f"The smallest difference that matters, by the baseline's spec: {comparison.minimum_effect:g}"


def _notes_on(row: Row, comparison: Comparison) -> Iterator[str]:
    name = row.variant
    if not (row.values or row.left_aside or row.waiting or row.without_metric):
        seeds = next((one.values for one in comparison.rows if one.values), None) or (0, 1, 2)
        option = "" if row.fixed_seed else f" --seeds {seeds_text(seeds)}"
        yield f"Note: {name} has no run: expmgr run {name}{option}"
    if row.other_code:
        refs = " ".join(f"exp/{one}" for one in (comparison.baseline, name))
        yield f"Note: {name} has other code or data files than {comparison.baseline}: git diff {refs}"
    if row.left_aside:
        option = "" if row.fixed_seed else f" --seeds {seeds_text(row.left_aside)}"
        yield (
            f"Note: {name} has changed since seeds {seeds_text(row.left_aside)} were run, "
            f"which are left aside: expmgr run {name}{option}"
        )
    for seed, status in row.waiting.items():
        option = "" if row.fixed_seed else f" --seeds {seed}"
        more = {
            "running": "is being trained",
            "starting": "is being started",
            "failed": f"failed: expmgr show {name}:{seed}",
        }.get(status, f"was stopped before its end ({status}): expmgr run {name}{option}")
        yield f"Note: {name} seed {seed} {more}"
    for same in row.same_weights:
        yield (
            f"Note: {name} seeds {seeds_text(same)} ended with the same weights, bit for bit: they are one result; "
            "does the code fix its seed? keras.utils.set_random_seed(expmgr.seed())"
        )
    if row.without_metric:
        yield f"Note: {name} was not evaluated by {comparison.metric} on {comparison.split}"
    if row.allowed:
        yield f"Note: {name} has runs that the guard refused, let pass by --allow {' '.join(row.allowed)}"
    elif row.changed_on_the_way:
        yield f"Note: {name} has runs that went on with another setting than they began with: expmgr show {name}"
    other = sorted({step for step in row.steps.values() if step != row.max_steps})
    if other:
        told = " and ".join(f"{step:,}" for step in other)
        yield f"Note: {name} was trained for {told} steps, its spec says {row.max_steps:,}"
