"""`expmgr adopt`: makes a checkpoint from elsewhere part of a variant."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from expmgr.cli import output
from expmgr.cli.options import parse_pairs
from expmgr.errors import BadName, ExpmgrError, UnknownVariant, WarmStartProblem


class NotVouched(ExpmgrError):
    """Nobody stands for what a checkpoint does not say."""


def add_to(app: typer.Typer) -> None:
    app.command(name="adopt")(adopt)


def adopt(
    model_dir: Annotated[
        Path, typer.Argument(metavar="MODEL_DIR", help="A model_dir, or a checkpoint's prefix in it.")
    ],
    variant: Annotated[str, typer.Option("--as", metavar="VARIANT", help="The variant whose model it becomes.")],
    step: Annotated[int | None, typer.Option("--step", min=0, metavar="N", help="Default: the newest.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="The seed whose folder it goes into.")] = 0,
    maps: Annotated[
        list[str] | None, typer.Option("--map", metavar="OLD=NEW", help="Which tensor is which variable.")
    ] = None,
    vouch: Annotated[
        str | None, typer.Option("--vouch", metavar="NAME", help="Who stands for what the checkpoint does not say.")
    ] = None,
    as_json: output.AsJson = False,
) -> None:
    """Take a checkpoint that was made elsewhere (Estimator, Keras, tf.train.Checkpoint) into a variant; it is copied.

    Example: expmgr adopt /data/iris_model --as iris/old --vouch "Ann Lee"
    """
    from expmgr.cli.watch import watcher
    from expmgr.launch.local import run_tasks
    from expmgr.launch.plan import plan_tasks
    from expmgr.project import Project
    from expmgr.runs.events import AdoptionPlanned
    from expmgr.runs.request import Adopt
    from expmgr.variants.variants import find_variant

    pairs = parse_pairs(maps or [])
    project = Project.open(output.folder(), output.note)
    try:
        find_variant(project.repo, variant)
    except UnknownVariant as error:
        raise _without_variant(error, variant) from None
    if not model_dir.exists() and not model_dir.with_name(f"{model_dir.name}.index").is_file():
        raise WarmStartProblem(f"{model_dir} does not exist", left_alone="Nothing was changed.")
    (task,) = plan_tasks(project, [variant], [seed] if seed else None)
    asked = Adopt(folder=model_dir.resolve(), step=step, maps=pairs, vouched_by=vouch)
    with watcher([task], quiet=True) as watching:
        (looked,) = run_tasks(project, [replace(task, mode="check", adopt=asked)], watcher=watching)
    if looked.error is not None:
        raise looked.error
    (planned,) = looked.judged
    assert isinstance(planned, AdoptionPlanned)
    found = planned.adoption
    if not as_json:
        _show(found, str(task.name))
    if vouch is None:
        vouch = _asked(as_json)
    with watcher([task], quiet=as_json) as watching:
        (outcome,) = run_tasks(
            project, [replace(task, adopt=asked.model_copy(update={"vouched_by": vouch}))], watcher=watching
        )
    if outcome.error is not None:
        raise outcome.error
    record = outcome.record
    if as_json:
        output.show_json({"format": 1, "run_id": record.run_id if record else None, "adopted": found})
    elif record is not None:
        output.show(f"{task}: step {record.step}, {output.result(record, task.spec.compared)} (run {record.run_id})")
        output.tell([f"Next: expmgr show {task.name}, or train on: expmgr run {task.name} --max-steps N"])
    raise typer.Exit(outcome.exit_code)


def _without_variant(error: UnknownVariant, variant: str) -> UnknownVariant:
    """`error` with the command that makes the variant, whose model a checkpoint needs."""
    from expmgr.paths import parse_variant

    try:
        make = f"make it first, with the model of the checkpoint: expmgr new {parse_variant(variant)}"
    except BadName:
        return error
    near = f"{error.hint}; or " if error.hint and error.hint.startswith("did you mean") else ""
    return UnknownVariant(error.message, left_alone=error.left_alone, hint=f"{near.replace('?; or', '; or')}{make}")


def _asked(as_json: bool) -> str:
    """The name of who vouches, from the terminal."""
    if sys.stdin.isatty() and not as_json:
        name = str(
            typer.prompt("Who vouches for this? (your name; empty: nobody)", default="", show_default=False)
        ).strip()
        if name:
            return name
    raise NotVouched(
        "a checkpoint made elsewhere needs somebody who stands for what it does not say",
        left_alone="Nothing was changed.",
        hint='the same command with --vouch "Your Name"; the name is recorded',
    )


def _show(found: dict[str, Any], variant: str) -> None:
    output.show(f"{found['path']} at step {found['step']}, for {variant}:")
    table = output.Table(("tensor", "becomes", "shape", ""))
    for one in found["taken"]:
        note = "rows put in the order of the columns" if one["rows_reordered"] else ""
        shape = ", ".join(map(str, one["shape"]))
        table.rows.append((one["from"], one["to"], f"({shape})", note))
    table.show(output.Form.TERMINAL)
    for word, names in (("starts anew", found["fresh"]), ("left", found["left"])):
        if names:
            output.show(f"{word}: {', '.join(names[:8])}{f' and {len(names) - 8} more' if len(names) > 8 else ''}")
    output.show()
    output.show("What the checkpoint does not say, and somebody has to vouch for:")
    for sentence in found["unknown"]:
        output.show(f"  - {sentence}")
