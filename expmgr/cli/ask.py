"""`expmgr evaluate`, `expmgr predict` and `expmgr export`: what a checkpoint is asked, through the guard."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from expmgr.cli import output
from expmgr.cli.options import parse_rules
from expmgr.cli.preparing import from_store, tell_uncommitted
from expmgr.errors import OutputProblem

if TYPE_CHECKING:
    from expmgr.launch.plan import Task

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
    task = _task(variant, seed, allow, what="evaluate", data=data, split=split.value)
    if data is None and split is SplitChoice.TEST and task.spec.data.test is None:
        raise typer.BadParameter(f"{task.name} has no test split (data.test)")
    told = _answer(task, variant)
    if log:
        _tell(task, told, split.value if data is None else data.name)
    if as_json:
        output.show_json({"format": 1, **told})
        return
    rows = "the" if told["rows"] is None else f"{told['rows']:,}"
    output.show(f"{told['checkpoint']} on {rows} rows of {told['data']}")
    table = output.Table(("metric", "value"), frozenset({"value"}))
    table.rows.extend((name, output.number(value, 6)) for name, value in told["metrics"].items())
    table.rows.extend(told["not_finite"].items())
    table.show(output.Form.TERMINAL)


def _tell(task: Task, told: dict[str, Any], split: str) -> None:
    """Say in the log what a checkpoint was evaluated to."""
    from expmgr.git.remotes import remote_names
    from expmgr.log.events import Evaluated
    from expmgr.log.logs import Draft
    from expmgr.project import Project
    from expmgr.team.publish import tell

    project = Project.open(output.folder())
    runs = [one for one in project.records.of_variant(task.name) if one.seed == task.seed]
    made = [one.run_id for one in runs if any(saved.step == told["step"] for saved in one.checkpoints)]
    values: dict[str, object] = {
        "variant": str(task.name),
        "seed": task.seed,
        "step": told["step"],
        "split": split,
        "metrics": told["metrics"],
        "run_id": made[-1] if made else None,
        "commit": task.commit,
    }
    (event,) = tell(project, [Draft(Evaluated, values)])
    told["event"] = event.id
    if remote_names(project.repo):
        output.tell(["Next: expmgr push"])


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
    _require_free(to)
    told = _answer(_task(variant, seed, allow, what="predict", data=data, output=to.absolute()), variant)
    if as_json:
        output.show_json({"format": 1, **told})
        return
    output.show(f"{to}: {told['rows']:,} rows, predicted by {told['checkpoint']}")


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
    if form is None:
        form = Format.KERAS if to is not None and to.suffix == ".keras" else Format.SAVEDMODEL
    task = _task(variant, seed, allow, what="export", form=form.value)
    end = ".keras" if form is Format.KERAS else ""
    assert task.ask is not None
    target = to or Path(f"{task.name.variant}{'' if task.ask.source.step is None else f'-{task.ask.source.step}'}{end}")
    if (form is Format.KERAS) != (target.suffix == ".keras"):
        raise typer.BadParameter(f"{target}: a Keras file ends in .keras, and a SavedModel does not")
    _require_free(target)
    told = _answer(replace(task, ask=task.ask.model_copy(update={"output": target.absolute()})), variant)
    if as_json:
        output.show_json({"format": 1, **told})
        return
    output.show(f"{target}: {told['checkpoint']} as {told['as']}")
    if told["needs_code"]:
        output.tell(["Note: it has classes of your own: who loads a .keras file needs their code, of a SavedModel not"])
    renamed = [f"{column} is {name}" for column, name in told["inputs"].items() if column != name]
    if renamed:
        more = f" and {len(renamed) - 5} more (--json)" if len(renamed) > 5 else ""
        output.tell([f"Note: its inputs have legal names: {'; '.join(renamed[:5])}{more}"])
    if told["outputs"] == "logits":
        output.tell(["Note: it gives logits, one a class in the order of the labels; softmax makes them probabilities"])


def _task(
    text: str,
    seed: int,
    allow: list[str] | None,
    *,
    what: Any,
    data: Path | None = None,
    split: str = "eval",
    output: Path | None = None,
    form: str = "savedmodel",
) -> Task:
    from expmgr.cli.output import folder
    from expmgr.launch.plan import How, checkpoint_ref, plan_tasks, step_of
    from expmgr.launch.questions import parse_checkpoint
    from expmgr.project import Project
    from expmgr.runs.request import Ask

    rules = parse_rules(allow or [])
    project = Project.open(folder())
    name, step = parse_checkpoint(text)
    from_store(project, name, seed, step)
    (task,) = plan_tasks(project, [name], [seed] if seed else None, How(allow=tuple(rules)), mode="check")
    source = checkpoint_ref(project, task.name, task.seed, step_of(project, task.name, task.seed, step))
    file = data.absolute() if data is not None else None
    about = {"what": what, "source": source, "split": split, "data": file, "output": output, "format": form}
    return replace(task, ask=Ask.model_validate(about))


def _require_free(path: Path) -> None:
    if path.exists():
        raise OutputProblem(f"{path} is there already", left_alone="Nothing was changed.", hint="take another name")
    if not path.absolute().parent.is_dir():
        raise OutputProblem(f"there is no folder {path.parent}", left_alone="Nothing was changed.")


def _answer(task: Task, text: str) -> dict[str, Any]:
    from expmgr.cli.watch import watcher
    from expmgr.launch.local import is_own_worker, run_tasks
    from expmgr.launch.worker import close_early, take_early
    from expmgr.project import Project

    project = Project.open(output.folder())
    tell_uncommitted(project, [task])
    if not is_own_worker(task):  # one in another environment answers
        close_early()
    with watcher([task], quiet=True) as watching:
        (outcome,) = run_tasks(project, [task], watcher=watching, worker=take_early())
    if outcome.error is not None:
        raise outcome.error
    (answered,) = outcome.judged
    told = answered.body()
    for one in told["judgement"]["differences"]:
        if one["allowed"]:
            output.tell([f"Note: {one['what']}: {one['saved']} -> {one['wanted']}, let pass by --allow {one['rule']}"])
    selected = told.get("selected_step")
    is_last = text.endswith("@last")
    if task.ask is not None and task.ask.source.step is None and not is_last and selected not in (None, told["step"]):
        output.tell([f"Note: this is the newest checkpoint; the selected one is of step {selected}: {task.name}@best"])
    return {"variant": str(task.name), "seed": task.seed, **told}
