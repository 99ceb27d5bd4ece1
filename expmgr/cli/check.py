"""`expmgr check` and `expmgr checkpoints`: the guard's verdict, and the checkpoints of a variant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from expmgr.cli import output
from expmgr.cli.options import parse_seeds

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from expmgr.errors import ExpmgrError
    from expmgr.guard.judge import Judgement
    from expmgr.launch.check_answers import GuardAnswer, GuardAnswers, KeptCheckpoint
    from expmgr.launch.rebuild import Rebuilt
    from expmgr.project import Project

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
    from expmgr.launch.check_answers import ask_guard
    from expmgr.project import Project

    chosen = parse_seeds(seeds) if seeds is not None else None
    found = ask_guard(
        Project.open(output.folder(), output.note), variant, chosen, against=against or (), on_note=output.note
    )
    if as_json:
        output.show_json(found.as_dict())
    elif against:
        _show_matrix(found)
    else:
        _tell_errors([answer.error for answer in found if answer.source is None])
        for answer in found:
            _show_answer(answer, everything)
    raise typer.Exit(found.exit_code)


def _tell_errors(errors: Iterable[ExpmgrError | None]) -> None:
    """What kept the guard from being asked, each story once."""
    for lines in dict.fromkeys(tuple(error.lines()) for error in errors if error is not None):
        output.tell(lines)


def _show_answer(answer: GuardAnswer, everything: bool) -> None:
    if answer.source is None:
        return
    if answer.error is not None:
        output.tell(answer.error.lines())
    elif answer.judgement is None:
        output.show(f"{answer.variant} seed {answer.seed}: no checkpoint yet, training starts at step 0")
    else:
        _show_judgement(answer, answer.judgement, everything)


def _show_judgement(answer: GuardAnswer, judgement: Judgement, everything: bool) -> None:
    output.show(f"{answer.variant} seed {answer.seed}: {judgement.verdict.value} ({answer.checkpoint})")
    found = judgement.differences
    shown = found if everything else found[:5]
    if shown:
        table = output.Table(("what", "saved", "wanted", "rule", "why"))
        table.rows.extend((one.what, one.saved, one.wanted, one.rule.id, one.rule.why) for one in shown)
        table.show(output.Form.TERMINAL)
    if len(found) > len(shown):
        output.show(f"and {len(found) - len(shown)} more ({answer.command} --all)")
    for note in judgement.notes:
        output.show(f"Note: {note}")
    if answer.way_out is not None:
        output.tell([f"Hint: {answer.way_out}"])


def _show_matrix(found: GuardAnswers) -> None:
    """A line a variant that would start, a column a checkpoint that it would start from."""
    _tell_errors(answer.error for answer in found if answer.source is None)
    for seed in dict.fromkeys(answer.seed for answer in found):
        table = output.Table((f"seed {seed}", *(f"from {name}" for name in found.sources)))
        rows: dict[str, list[GuardAnswer]] = {}
        for answer in found:
            if answer.seed == seed:
                rows.setdefault(answer.variant, []).append(answer)
        for variant, answers in rows.items():
            if answers[0].source is not None:
                table.rows.append((variant, *(_cell(answer) for answer in answers)))
        if table.rows:
            table.show(output.Form.TERMINAL)


def _cell(answer: GuardAnswer) -> str:
    if answer.error is not None:
        return "unreadable"
    if answer.judgement is None:
        return "no checkpoint"
    verdict = answer.judgement.verdict
    rules = dict.fromkeys(one.rule.id for one in answer.judgement.differences if one.verdict is verdict)
    return f"{verdict.value}: {', '.join(rules)}" if rules else verdict.value


def checkpoints(
    variant: Annotated[str, typer.Argument(metavar="VARIANT", help="The variant to look at.")],
    seeds: Annotated[
        str | None, typer.Option("--seeds", "--seed", metavar="SEEDS", help="Such as 0-4 or 0,3,5; default: 0.")
    ] = None,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild", help="Rebuild a damaged manifest.json or variant.json from the checkpoints that are whole."
        ),
    ] = False,
    as_json: output.AsJson = False,
    as_csv: output.AsCsv = False,
    as_markdown: output.AsMarkdown = False,
) -> None:
    """List the checkpoints that are kept: step, time, metric, size, signature, and the guard's verdict now.

    Example: expmgr checkpoints iris/wide
    """
    from expmgr.launch.check_answers import kept_checkpoints
    from expmgr.project import Project

    how = output.form(as_json, as_csv, as_markdown)
    chosen = parse_seeds(seeds) if seeds is not None else None
    if rebuild:
        _rebuild(variant, chosen, how)
        return
    project = Project.open(output.folder(), output.note)
    found = kept_checkpoints(project, variant, chosen, on_note=output.note)
    _tell_errors(found.errors)
    if how is output.Form.JSON:
        output.show_json(found.as_dict())
    elif found.checkpoints:
        _show_rows(found.checkpoints, how)
    elif not found.errors:
        output.tell(_none_here(project, variant, chosen or [0]))
    raise typer.Exit(found.exit_code)


def _rebuild(variant: str, seeds: Sequence[int] | None, how: output.Form) -> None:
    from expmgr.launch.rebuild import rebuild_manifests
    from expmgr.project import Project

    if how not in (output.Form.TERMINAL, output.Form.JSON):
        raise typer.BadParameter("--rebuild prints no table: leave out --csv and --md")
    found = rebuild_manifests(Project.open(output.folder(), output.note), variant, seeds)
    if how is output.Form.JSON:
        output.show_json(found.as_dict())
    else:
        for one in found:
            _show_rebuilt(one)
    _tell_errors(found.errors)
    raise typer.Exit(found.exit_code)


def _show_rebuilt(one: Rebuilt) -> None:
    manifest, steps = f"{one.model_dir}/manifest.json", ", ".join(map(str, one.steps))
    if one.owner_set_aside is not None:
        owner = f"{one.model_dir.rpartition('/')[0]}/variant.json"
        output.show(f"{owner} was rebuilt; the damaged one is kept in {one.owner_set_aside}")
    if not one.has_manifest:
        output.show(f"{one.model_dir} has no checkpoints, so there is no manifest to rebuild")
        return
    if one.was_whole:
        output.show(f"{manifest} can be read, so it was not changed: it lists steps {steps or 'none'}")
        return
    selected = "" if one.selected_step is None else f"; step {one.selected_step} is selected"
    output.show(f"{manifest} was rebuilt: it lists steps {steps}{selected}")
    if one.set_aside is not None:
        output.show(f"the damaged one is kept in {one.set_aside}")
    for left in one.not_taken:
        output.show(f"not taken: {left.name}: {left.why}")
    for note in one.notes:
        output.show(f"Note: {note}")


def _none_here(project: Project, variant: str, seeds: Sequence[int]) -> list[str]:
    """That no checkpoint is here, and where those of other clones' runs are."""
    from expmgr.launch.inference import seeds_with_checkpoints
    from expmgr.paths import seeds_option, seeds_text
    from expmgr.runs.origin import is_foreign
    from expmgr.store.find import whereabouts
    from expmgr.variants.variants import find_variant

    name = find_variant(project.repo, variant).name
    runs = [one for one in project.records.of_variant(name) if is_foreign(project.records.run_dir(one.run_id))]
    if told := [line for one in runs if one.seed in seeds for line in whereabouts(project, one)]:
        return ["No checkpoint is here.", *told]
    there = seeds_with_checkpoints(project, name)
    hint = f"Hint: expmgr run {name}{seeds_option(seeds[0])}"
    if not there:
        return [f"No checkpoint yet. {hint}"]
    return [f"No checkpoint of seed {seeds_text(seeds)} yet; seeds with checkpoints: {seeds_text(there)}. {hint}"]


def _show_rows(rows: Sequence[KeptCheckpoint], how: output.Form) -> None:
    columns = ("seed", "step", "saved", "metric", "size", "signature", "verdict now", "")
    table = output.Table(columns, frozenset({"seed", "step", "size"}))
    for row in rows:
        value = "-" if row.value is None else f"{row.metric} {row.value:.4f}"
        marks = [name for name in ("selected", "preserved") if getattr(row, name)]
        table.rows.append(
            (
                str(row.seed),
                str(row.step),
                output.moment(row.saved_at),
                value,
                output.size(row.size_bytes),
                (row.signature or "-")[:12],
                row.verdict,
                ", ".join(marks),
            )
        )
    table.show(how)
