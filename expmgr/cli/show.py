"""`expmgr list` and `expmgr show`: a table of variants, and the details of one variant or run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from expmgr.cli import output
from expmgr.cli.options import usage

if TYPE_CHECKING:
    from expmgr.api.details import RunDetails, VariantDetails
    from expmgr.api.listing import Listing
    from expmgr.project import Project
    from expmgr.runs.record import RunRecord
    from expmgr.team.notes import Note


def add_to(app: typer.Typer) -> None:
    app.command(name="list")(list_variants)
    app.command(name="ls", hidden=True)(list_variants)
    app.command(name="show")(show)


def list_variants(
    experiment: Annotated[
        str | None, typer.Argument(metavar="EXPERIMENT", help="Only the variants of one experiment.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="CONDITION", help="As 'model.hidden_units=[20, 20]' or 'accuracy>0.9'."),
    ] = None,
    sort: Annotated[
        str | None, typer.Option("--sort", metavar="KEY", help="A key of the spec, a metric, a column; -KEY falls.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="The first N alone.")] = None,
    as_json: output.AsJson = False,
    as_csv: output.AsCsv = False,
    as_markdown: output.AsMarkdown = False,
) -> None:
    """List all variants: from what each was made, its runs, its result, and why it is there.

    Example: expmgr list
    """
    from expmgr.api import listing
    from expmgr.project import Project

    how = output.form(as_json, as_csv, as_markdown)
    project = Project.open(output.folder(), output.note)
    with usage():
        found = listing.list_variants(project, experiment, where=where or (), sort=sort, limit=limit)
    if how is output.Form.JSON:
        output.show_json(found.as_dict())
        return
    if found.variants:
        _table(found).show(how)
    else:
        output.tell([_why_empty(project, found)])
    for name, runs in found.without_branch.items():
        output.tell([f"Note: {name} has {runs} runs, but its branch is gone (expmgr show {name}:0)"])
    if found.by_hand:
        runs_are = "run is" if len(found.by_hand) == 1 else "runs are"
        newest = found.by_hand[-1]
        output.tell(
            [f"Note: {len(found.by_hand)} {runs_are} of scripts called by hand, the newest: expmgr show {newest}"]
        )


def _table(found: Listing) -> output.Table:
    table = output.Table(
        ("variant", "from", "runs", "result", "last run", "why"),
        wrap=frozenset({"why", "from"}),
        dropped=("last run", "runs"),
    )
    for row in found.variants:
        last = output.moment(row.last_run_at)
        table.rows.append((row.variant, row.made_from, row.counts, row.result, last, row.why))
    return table


def _why_empty(project: Project, found: Listing) -> str:
    from expmgr.git.remotes import remote_names
    from expmgr.variants.variants import first_variant

    if found.left_out:
        return "no variant is like that"
    pull = "expmgr pull fetches those of others; or " if remote_names(project.repo) else ""
    return f"No variant yet. Hint: {pull}{first_variant(project.repo)}"


def show(
    what: Annotated[
        str, typer.Argument(metavar="VARIANT|RUN", help="A variant, a run's id or its beginning, or VARIANT:SEED.")
    ],
    as_json: output.AsJson = False,
) -> None:
    """Show everything about one variant or one run.

    Example: expmgr show iris/wide
    """
    from expmgr.api.details import RunDetails, details
    from expmgr.project import Project

    project = Project.open(output.folder(), output.note)
    found = details(project, what)
    if as_json:
        output.show_json(found.as_dict())
    elif isinstance(found, RunDetails):
        _show_run(found)
    else:
        _show_variant(found)


def _show_variant(found: VariantDetails) -> None:
    row = found.row
    facts = [
        ("variant", row.variant),
        ("why", row.why),
        ("from", row.made_from),
        ("branch", f"{row.branch} at {row.commit[:12]}, {output.moment(found.committed_at)}"),
        ("model_dir", f"{found.model_dir}/"),
        ("result", row.result),
    ]
    _show_facts(facts)
    output.show()
    output.show(f"spec ({found.spec_path}):")
    for line in found.spec_text.splitlines():
        output.show(f"  {line}")
    output.show()
    if found.notes:
        output.show(*_notes(found.notes), "")
    if found.runs or found.skipped:
        _runs(found).show(output.Form.TERMINAL)
    if not found.runs:
        readable = " that can be read" if found.skipped else " yet"
        output.show(f"no run{readable}: expmgr run {row.variant}")


def _runs(found: VariantDetails) -> output.Table:
    table = output.Table(
        ("run", "seed", "status", "step", "result", "time", "started", "commit", "counts"),
        frozenset({"seed", "step", "time"}),
        dropped=("commit", "time", "started"),
    )
    for record in found.runs:
        compared = record.spec["compare"]
        value = record.metric(compared["metric"], compared["split"])
        table.rows.append(
            (
                record.run_id,
                str(record.seed),
                record.status,
                str(record.step),
                "-" if value is None else f"{compared['metric']} {value:.4f}",
                output.seconds(record.train_s),
                output.moment(record.attempts[-1].started_at),
                record.commit[:12],
                "yes" if record.run_id in found.counted else "no",
            )
        )
    for one in found.skipped:
        seed = "-" if one.seed is None else str(one.seed)
        table.rows.append((one.run_id, seed, one.status, "-", "-", "-", "-", "-", "no"))
    return table


def _notes(notes: Sequence[Note]) -> Iterator[str]:
    yield "notes:"
    for one in notes:
        yield f"  {output.moment(one.at)} {one.by}: {one.text} ({one.id[:12]})"


def _show_facts(facts: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        output.show(f"{name:<{width}}  {value}".rstrip())


def _show_run(found: RunDetails) -> None:
    record = found.record
    _show_facts(_facts(found))
    if found.notes:
        output.show("", *_notes(found.notes))
    if record.metrics.get("selected"):
        output.show()
        _metrics(record).show(output.Form.TERMINAL)
    if record.data:
        output.show()
        _data(record).show(output.Form.TERMINAL)
    output.show()
    _attempts(record).show(output.Form.TERMINAL)
    for line in _said(record):
        output.show(line)
    if found.log is not None:
        output.show()
        output.show(f"log: {found.log}")
    if found.elsewhere:
        output.show("", *found.elsewhere)


def _facts(found: RunDetails) -> list[tuple[str, str]]:
    from expmgr.api.listing import warm_started

    record = found.record
    # A script that was called by hand has steps of its own.
    of_steps = f" of {record.attempts[-1].max_steps}" if record.by_hand is None else ""
    is_selected = record.selected_step is not None and record.checkpoints
    return [
        ("run", record.run_id),
        ("variant", f"{record.variant}, seed {record.seed}"),
        ("status", f"{record.status} at step {record.step}{of_steps}"),
        *_now(found),
        ("commit", record.commit),
        *_by_hand(record),
        ("parent run", record.parent_run or "-"),
        ("warm start", warm_started(record.warm_start) or "-"),
        ("model_dir", f"{record.model_dir}/" if record.model_dir else "-"),
        ("selected", f"model.ckpt-{record.selected_step}" if is_selected else "-"),
        ("parameters", "-" if record.parameters is None else f"{record.parameters:,}"),
        ("examples seen", f"{record.examples_seen:,}{'' if record.has_ended else ' at the newest checkpoint'}"),
        ("time", output.seconds(record.train_s)),
        ("by", f"{record.user or 'not recorded'} on {record.host or 'not recorded'}"),
        ("environment", _environment(record) or "-"),
    ]


def _now(found: RunDetails) -> list[tuple[str, str]]:
    """What a run that goes on is at."""
    from expmgr.cli.watch import time_left, told_of

    progress = dict(found.progress)
    if not progress:
        return []
    left = time_left(progress)
    about = f"{progress.get('phase')}, step {progress['step']:,}{told_of(progress)}"
    return [("now", f"{about}, {left} left" if left else about)]


def _by_hand(record: RunRecord) -> list[tuple[str, str]]:
    """What a script that was called by hand ran from."""
    if record.by_hand is None:
        return []
    changed = record.by_hand["changed"]
    more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
    of = (
        f"a snapshot: {record.by_hand['head'][:12]} with {', '.join(changed[:5])}{more} changed"
        if changed
        else "as it is"
    )
    return [("by hand", f"{record.by_hand['script']}, {of}")]


def _environment(record: RunRecord) -> str:
    environment = record.environment
    versions = ", ".join(
        f"{name} {environment[name]}" for name in ("tensorflow", "keras", "python") if name in environment
    )
    if environment.get("name"):
        versions += f" ({environment['name']})"
    if environment.get("lock"):
        versions += f", packages {environment['lock'][:12]}"
    return versions


def _metrics(record: RunRecord) -> output.Table:
    table = output.Table(("split", "metric", "selected", "last"), frozenset({"selected", "last"}))
    for split, metrics in record.metrics["selected"].items():
        last = record.metrics.get("last", {}).get(split, {})
        table.rows.extend(
            (split, name, output.number(value, 6), output.number(last.get(name), 6)) for name, value in metrics.items()
        )
    return table


def _data(record: RunRecord) -> output.Table:
    table = output.Table(("split", "from", "rows", "sha256"), frozenset({"rows"}))
    table.rows.extend(
        (name, one.path, "-" if one.rows is None else f"{one.rows:,}", (one.sha256 or "not read")[:12])
        for name, one in record.data.items()
    )
    return table


def _attempts(record: RunRecord) -> output.Table:
    table = output.Table(
        ("attempt", "status", "from step", "to step", "started", "time"), frozenset({"from step", "to step", "time"})
    )
    for one in record.attempts:
        steps = ["-" if step is None else str(step) for step in (one.from_step, one.to_step)]
        table.rows.append(
            (str(one.number), one.status, *steps, output.moment(one.started_at), output.seconds(one.train_s))
        )
    return table


def _said(record: RunRecord) -> Iterator[str]:
    """What the guard let pass, what is not exact, and why an attempt ended, a line each."""
    from expmgr.guard.rules import allowed_by

    for one in record.attempts:
        for change in one.changes:
            allowed = f", {allowed_by(change['rule'])}" if change.get("allowed") else ""
            yield f"attempt {one.number}: {change['what']} {change['saved']} -> {change['wanted']}{allowed}"
        if one.damaged_lines:
            kept = f"events-{one.number}.damaged.jsonl"
            lines = "1 line" if one.damaged_lines == 1 else f"{one.damaged_lines} lines"
            yield f"attempt {one.number}: {lines} of its events could not be read, and are missing here; kept in {kept}"
        for reason in one.not_exact:
            yield f"attempt {one.number}: not exact: {reason}"
        for told in (one.ended_early, one.error["message"] if one.error else None):
            if told:
                yield f"attempt {one.number}: {told}"
