"""`expmgr evaluate`, `predict` and `export`: use a checkpoint that the guard accepts."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from expmgr.cli import output
from expmgr.cli.options import parse_rules, usage

if TYPE_CHECKING:
    from expmgr.project import Project

Which = Annotated[str, typer.Argument(metavar="VARIANT[@STEP]", help="The variant; @STEP, @best or @last.")]
Seed = Annotated[int, typer.Option("--seed", min=0, metavar="N", help="The seed whose checkpoint is asked.")]
Allow = Annotated[
    list[str] | None, typer.Option("--allow", metavar="RULE", help="Let a refusal of the guard pass by its rule's id.")
]


class SplitChoice(str, Enum):
    """A split of the variant's own data."""

    TRAIN = "train"
    EVAL = "eval"
    TEST = "test"


class Format(str, Enum):
    """What an export is."""

    SAVEDMODEL = "savedmodel"
    KERAS = "keras"


def add_to(app: typer.Typer) -> None:
    app.command(name="evaluate")(evaluate)
    app.command(name="predict")(predict)
    app.command(name="export")(export)


def evaluate(
    variant: Which,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FILE", help="A CSV with the label's column; or what `data.eval` reads."),
    ] = None,
    split: Annotated[SplitChoice, typer.Option("--split", help="The split of the variant's data.")] = SplitChoice.EVAL,
    seed: Seed = 0,
    allow: Allow = None,
    log: Annotated[bool, typer.Option("--log", help="Say it in the log, for the team.")] = False,
    as_json: output.AsJson = False,
) -> None:
    """Evaluate a checkpoint: on the variant's eval split, or on a file of yours. Nothing is recorded, unless `--log` says it.

    Example: expmgr evaluate iris/wide

    Example: expmgr evaluate iris/wide --data customers.csv --log
    """
    from expmgr.git.remotes import remote_names
    from expmgr.launch import inference

    rules = parse_rules(allow or [], variant)
    project = _opened()
    with usage():
        found = inference.evaluate(
            project,
            variant,
            data=data,
            split=split.value,
            seed=seed,
            allow=rules,
            log=log,
            on_note=output.note,
        )
    if log and remote_names(project.repo):
        output.tell(["Next: expmgr push"])
    if as_json:
        output.show_json(found.as_dict())
        return
    rows = "the" if found.rows is None else f"{found.rows:,}"
    output.show(f"{found.checkpoint} on {rows} rows of {found.data}")
    table = output.Table(("metric", "value"), frozenset({"value"}))
    table.rows.extend((name, output.number(value, 6)) for name, value in found.metrics.items())
    table.rows.extend(found.not_finite.items())
    table.show(output.Form.TERMINAL)


def predict(
    variant: Which,
    data: Annotated[
        Path,
        typer.Option("--data", metavar="FILE", help="A CSV with the model's columns; or what `data.predict` reads."),
    ],
    to: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="CSV, or JSON lines where it ends in .jsonl.")
    ],
    seed: Seed = 0,
    allow: Allow = None,
    as_json: output.AsJson = False,
) -> None:
    """Predict every row of a file: the class and the probability of each, or the number.

    Example: expmgr predict iris/wide --data new.csv -o predicted.csv
    """
    from expmgr.launch import inference

    rules = parse_rules(allow or [], variant)
    found = inference.predict(_opened(), variant, data, to, seed=seed, allow=rules, on_note=output.note)
    if as_json:
        output.show_json(found.as_dict())
        return
    output.show(f"{to}: {found.rows:,} rows, predicted by {found.checkpoint}")


def export(
    variant: Which,
    to: Annotated[Path | None, typer.Option("-o", "--output", metavar="DIR", help="Default: <variant>-<step>.")] = None,
    form: Annotated[
        Format | None, typer.Option("--format", help="What is written; default: as -o ends, else a SavedModel.")
    ] = None,
    seed: Seed = 0,
    allow: Allow = None,
    as_json: output.AsJson = False,
) -> None:
    """Export a checkpoint as a SavedModel or a .keras file, which need neither the code nor expmgr.

    Example: expmgr export iris/wide -o served
    """
    from expmgr.launch import inference

    rules = parse_rules(allow or [], variant)
    project = _opened()
    with usage():
        found = inference.export(
            project, variant, to, form=None if form is None else form.value, seed=seed, allow=rules, on_note=output.note
        )
    if as_json:
        output.show_json(found.as_dict())
        return
    output.show(f"{to or Path(found.output).name}: {found.checkpoint} as {found.form}")
    if found.needs_code:
        output.note("it has classes of your own: who loads a .keras file needs their code, of a SavedModel not")
    renamed = [f"{column} is {name}" for column, name in found.inputs.items() if column != name]
    if renamed:
        more = f" and {len(renamed) - 5} more (--json)" if len(renamed) > 5 else ""
        output.note(f"its inputs have legal names: {'; '.join(renamed[:5])}{more}")
    if found.outputs == "logits":
        output.note("it gives logits, one a class in the order of the labels; softmax makes them probabilities")


def _opened() -> Project:
    from expmgr.project import Project

    return Project.open(output.folder(), output.note)
