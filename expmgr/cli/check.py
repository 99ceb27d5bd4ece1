"""`expmgr check` and `expmgr checkpoints`: what the guard says, and what there is for it to say it of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from expmgr.cli import output
from expmgr.cli.options import parse_seeds
from expmgr.cli.preparing import tell_uncommitted
from expmgr.errors import reported, worst

if TYPE_CHECKING:
    from collections.abc import Sequence

    from expmgr.checkpoints.manifest import SavedCheckpoint
    from expmgr.launch.plan import Outcome, Task
    from expmgr.project import Project
    from expmgr.runs.events import CandidateJudged

Seeds = Annotated[str | None, typer.Option("--seeds", metavar="SEEDS", help="Such as 0-4 or 0,3,5; default: 0.")]


def add_to(app: typer.Typer) -> None:
    app.command(name="check")(check)
    app.command(name="checkpoints")(checkpoints)


def check(
    variant: Annotated[str, typer.Argument(metavar="VARIANT[@STEP]", help="The variant; @STEP, @best or @last.")],
    against: Annotated[
        list[str] | None,
        typer.Option("--against", metavar="VARIANT", help="Who may start from whom, both ways; may be repeated."),
    ] = None,
    seeds: Seeds = None,
    everything: Annotated[bool, typer.Option("--all", help="Every difference, not the first five.")] = False,
    as_json: output.AsJson = False,
) -> None:
    """Ask the guard whether a checkpoint may be restored into the variant as it is now. Changes nothing.

    Example: expmgr check iris/wide
    """
    from expmgr.launch.questions import plan_checks
    from expmgr.project import Project

    chosen = parse_seeds(seeds) if seeds is not None else None
    project = Project.open(output.folder())
    tasks = plan_checks(project, variant, chosen, against=against or ())
    outcomes = _asked(project, tasks)
    code = worst([outcome.exit_code for outcome in outcomes])
    if as_json:
        output.show_json({"format": 1, "exit_code": code, "checks": _lines(outcomes)})
    elif against:
        _show_matrix(outcomes)
    else:
        for outcome in outcomes:
            _show_check(outcome, everything)
    raise typer.Exit(code)


def _asked(project: Project, tasks: Sequence[Task]) -> list[Outcome]:
    from expmgr.cli.watch import watcher
    from expmgr.launch.local import run_tasks

    tell_uncommitted(project, tasks)
    with watcher(tasks, quiet=True) as watching:
        return run_tasks(project, tasks, watcher=watching)


def _lines(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    lines = []
    for outcome in outcomes:
        about = {"variant": str(outcome.task.name), "seed": outcome.task.seed}
        if outcome.error is not None:
            lines.append({**about, "exit_code": int(outcome.exit_code), "error": outcome.error.as_dict()})
        keys = ("from", "checkpoint", "step", "exit_code", "judgement", "error")
        lines.extend({**about, **{key: told.body()[key] for key in keys}} for told in outcome.candidates)
    return lines


def _show_check(outcome: Outcome, everything: bool) -> None:
    task = outcome.task
    if outcome.error is not None:
        output.tell(outcome.error.lines())
    for told in outcome.candidates:
        if told.error is not None:
            output.tell(reported(told.error).lines())
        elif told.judgement is None:
            output.show(f"{task}: no checkpoint yet, training starts at step 0")
        else:
            _show_judgement(task, told, everything)


def _show_judgement(task: Task, told: CandidateJudged, everything: bool) -> None:
    from expmgr.guard.rules import RULES

    judgement = told.judgement
    assert judgement is not None
    output.show(f"{task}: {judgement['verdict']} ({told.checkpoint})")
    found = judgement["differences"]
    shown = found if everything else found[:5]
    if shown:
        table = output.Table(("what", "saved", "wanted", "rule", "why"))
        table.rows.extend((one["what"], one["saved"], one["wanted"], one["rule"], one["why"]) for one in shown)
        table.show(output.Form.TERMINAL)
    if len(found) > len(shown):
        output.show(f"and {len(found) - len(shown)} more (expmgr check {task.name} --all)")
    for note in judgement["notes"]:
        output.show(f"Note: {note}")
    if judgement["verdict"] in ("warm-start", "refuse"):
        rule = RULES[found[0]["rule"]]
        output.tell([f"Hint: {rule.way_out(str(task.name))}"])


def _show_matrix(outcomes: Sequence[Outcome]) -> None:
    """A line a variant that would start, a column a checkpoint that it would start from."""
    for seed in dict.fromkeys(outcome.task.seed for outcome in outcomes):
        rows = [outcome for outcome in outcomes if outcome.task.seed == seed]
        names = [candidate.variant for candidate in rows[0].task.candidates]
        table = output.Table((f"seed {seed}", *(f"from {name}" for name in names)))
        for outcome in rows:
            if outcome.error is not None:
                output.tell(outcome.error.lines())
                continue
            table.rows.append((str(outcome.task.name), *(_cell(told) for told in outcome.candidates)))
        table.show(output.Form.TERMINAL)


def _cell(told: CandidateJudged) -> str:
    if told.error is not None:
        return "unreadable"
    if told.judgement is None:
        return "no checkpoint"
    judgement = told.judgement
    rules = dict.fromkeys(one["rule"] for one in judgement["differences"] if one["verdict"] == judgement["verdict"])
    return f"{judgement['verdict']}: {', '.join(rules)}" if rules else str(judgement["verdict"])


def checkpoints(
    variant: Annotated[str, typer.Argument(metavar="VARIANT", help="The variant to look at.")],
    seeds: Seeds = None,
    as_json: output.AsJson = False,
    as_csv: output.AsCsv = False,
    as_markdown: output.AsMarkdown = False,
) -> None:
    """List the checkpoints that are kept: step, time, metric, size, signature, and the guard's verdict now.

    Example: expmgr checkpoints iris/wide
    """
    from expmgr.launch.questions import plan_listing
    from expmgr.project import Project

    how = output.form(as_json, as_csv, as_markdown)
    chosen = parse_seeds(seeds) if seeds is not None else None
    project = Project.open(output.folder())
    outcomes = _asked(project, plan_listing(project, variant, chosen))
    rows = []
    for outcome in outcomes:
        manifest = project.model_dir(outcome.task.name, outcome.task.seed).read_manifest()
        for told in outcome.candidates:
            saved = manifest.at(told.step) if manifest and told.step is not None else None
            if saved is not None and manifest is not None:
                rows.append(_row(outcome, saved, told, saved.step == manifest.selected_step))
    for outcome in outcomes:
        if outcome.error is not None:
            output.tell(outcome.error.lines())
    if how is output.Form.JSON:
        output.show_json({"format": 1, "checkpoints": rows})
    elif rows:
        _show_rows(rows, how)
    else:
        output.tell([f"No checkpoint yet. Hint: expmgr run {variant}"])
    raise typer.Exit(worst([outcome.exit_code for outcome in outcomes if outcome.error is not None]))


def _row(outcome: Outcome, saved: SavedCheckpoint, told: CandidateJudged, is_selected: bool) -> dict[str, Any]:
    chosen, compared = outcome.task.spec.selection, outcome.task.spec.compared
    # What the selection goes by, where it does: it is what makes one `selected`.
    metric = getattr(chosen, "metric", compared.metric)
    split = getattr(chosen, "split", compared.split)
    signature = next((file.sha256 for name, file in saved.files.items() if name.endswith(".json")), None)
    return {
        "variant": str(outcome.task.name),
        "seed": outcome.task.seed,
        "step": saved.step,
        "saved_at": saved.saved_at,
        "metric": metric,
        "value": saved.metrics.get(split, {}).get(metric),
        "size_bytes": sum(file.size_bytes for file in saved.files.values()),
        "signature": signature,
        "verdict": told.judgement["verdict"] if told.judgement else "damaged",
        "selected": is_selected,
        "preserved": saved.preserved,
    }


def _show_rows(rows: Sequence[dict[str, Any]], how: output.Form) -> None:
    columns = ("seed", "step", "saved", "metric", "size", "signature", "verdict now", "")
    table = output.Table(columns, frozenset({"seed", "step", "size"}))
    for row in rows:
        value = "-" if row["value"] is None else f"{row['metric']} {row['value']:.4f}"
        marks = [name for name in ("selected", "preserved") if row[name]]
        table.rows.append(
            (
                str(row["seed"]),
                str(row["step"]),
                output.moment(row["saved_at"]),
                value,
                output.size(row["size_bytes"]),
                (row["signature"] or "-")[:12],
                row["verdict"],
                ", ".join(marks),
            )
        )
    table.show(how)
