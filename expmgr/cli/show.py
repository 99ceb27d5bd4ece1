"""`expmgr list` and `expmgr show`: what there is, read from records and git alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from expmgr.cli import output
from expmgr.errors import UnknownVariant
from expmgr.variants.named_run import run_named

if TYPE_CHECKING:
    from expmgr.disk.index import Head
    from expmgr.project import Project
    from expmgr.runs.record import RunRecord
    from expmgr.variants.variants import Variant


def add_to(app: typer.Typer) -> None:
    app.command(name="list")(list_variants)
    app.command(name="ls", hidden=True)(list_variants)
    app.command(name="show")(show)


def list_variants(
    experiment: Annotated[
        str | None, typer.Argument(metavar="[EXPERIMENT]", help="Only the variants of one experiment.")
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
    from expmgr.git.remotes import remote_names
    from expmgr.project import Project
    from expmgr.variants.variants import all_variants, origins

    how = output.form(as_json, as_csv, as_markdown)
    project = Project.open(output.folder())
    made = origins(project.repo)
    by_variant: dict[str, list[Head]] = {}
    by_hand: list[Head] = []
    for record in project.records.heads():
        if record.by_hand is not None:
            by_hand.append(record)
        else:
            by_variant.setdefault(record.variant, []).append(record)
    output.tell_unreadable(project.records)
    known = all_variants(project.repo)
    variants = [one for one in known if experiment in (None, one.name.experiment)]
    experiments = sorted({one.name.experiment for one in known} | {name.partition("/")[0] for name in by_variant})
    if experiment is not None and experiment not in experiments and experiments:
        raise UnknownVariant(
            f"there is no variant of an experiment {experiment}", hint=f"there is {', '.join(experiments)}"
        )
    if experiment is not None:
        by_variant = {name: runs for name, runs in by_variant.items() if name.startswith(f"{experiment}/")}
    runs_of = {variant.name: by_variant.pop(str(variant.name), []) for variant in variants}
    rows = [_summary(project, one, made.get(one.name), runs_of[one.name]) for one in variants]
    if where or sort or limit:
        from expmgr.cli.filters import chosen

        by_name = {str(one.name): one for one in variants}
        rows = chosen(
            rows,
            lambda name: _flat_spec(project, by_name[name], runs_of[by_name[name].name]),
            where=where or (),
            sort=sort,
            limit=limit,
        )
    if how is output.Form.JSON:
        about = {"without_branch": sorted(by_variant), "by_hand": [record.run_id for record in by_hand]}
        output.show_json({"format": 1, "variants": rows, **about})
        return
    table = output.Table(
        ("variant", "from", "runs", "result", "last run", "why"),
        wrap=frozenset({"why", "from"}),
        dropped=("last run", "runs"),
    )
    for row in rows:
        table.rows.append(
            (
                row["variant"],
                _from(row),
                _runs(row),
                _result(row),
                output.moment(row["last_run_at"]),
                row["why"],
            )
        )
    if rows:
        table.show(how)
    elif variants:
        output.tell(["no variant is like that"])
    else:
        pull = "expmgr pull fetches those of others; or " if remote_names(project.repo) else ""
        output.tell(
            [f"No variant yet. Hint: {pull}expmgr new EXPERIMENT/VARIANT, or first expmgr init --example iris --commit"]
        )
    for name in sorted(by_variant):
        output.tell([f"Note: {name} has {len(by_variant[name])} runs, but its branch is gone (expmgr show {name}:0)"])
    if by_hand:
        runs = "run is" if len(by_hand) == 1 else "runs are"
        output.tell(
            [f"Note: {len(by_hand)} {runs} of scripts called by hand, the newest: expmgr show {by_hand[-1].run_id}"]
        )


def _flat_spec(project: Project, variant: Variant, runs: Sequence[Head]) -> dict[str, Any]:
    """The variant's spec at its newest commit, by dotted key; empty where it cannot be read."""
    from expmgr.errors import ExpmgrError
    from expmgr.spec.changes import flat
    from expmgr.variants.variants import spec_of

    if runs and runs[-1].commit == variant.commit:
        return flat(runs[-1].spec)
    try:
        return flat(spec_of(project.repo, variant).resolved())
    except ExpmgrError:  # `run` and `compare` say what is wrong with it
        return {}


def _current(project: Project, variant: Variant, runs: Sequence[Head]) -> list[Head]:
    """The runs that were made with the spec and the code that the branch has now."""
    if all(record.commit == variant.commit for record in runs):
        return list(runs)
    from expmgr.comparison.used_runs import code_digest_of
    from expmgr.errors import ExpmgrError
    from expmgr.runs.record import is_outdated
    from expmgr.variants.variants import spec_of

    try:
        spec = spec_of(project.repo, variant)
    except ExpmgrError:  # `run` and `compare` say what is wrong with it
        return [record for record in runs if record.commit == variant.commit]
    digest = code_digest_of(project, variant)
    return [record for record in runs if record.commit == variant.commit or not is_outdated(record, spec, digest)]


def _summary(project: Project, variant: Variant, origin: Any, runs: Sequence[Head]) -> dict[str, Any]:
    from expmgr.comparison.statistics import mean_and_std
    from expmgr.runs.record import counted_runs

    metric, split = (runs[-1].metric_name, runs[-1].split) if runs else (None, None)
    values = []
    current = _current(project, variant, runs)
    if metric is not None and split is not None:
        found = [record.metric(metric, split) for record in counted_runs(current)]
        values = [value for value in found if value is not None]
    mean, std = mean_and_std(values)
    return {
        "variant": str(variant.name),
        "branch": variant.name.branch,
        "commit": variant.commit,
        "from": origin.base if origin else None,
        "why": origin.why if origin else variant.subject,
        "warm_start": _warm_start(next((one.warm_start for one in reversed(runs) if one.warm_start), None)),
        "runs": dict(Counter(record.status for record in runs)),
        "seeds": sorted({record.seed for record in runs}),
        "metric": metric,
        "split": split,
        "current": [record.run_id for record in current],
        "mean": mean,
        "std": std,
        "last_run_at": max((record.started_at for record in runs), default=None),
    }


def _compared(record: RunRecord) -> tuple[str, str]:
    """The metric and split that the run's spec compares by."""
    compared = record.spec["compare"]
    return compared["metric"], compared["split"]


def _warm_start(told: dict[str, Any] | None) -> str | None:
    return f"{told['variant']}@{told['step']}" if told else None


def _from(row: dict[str, Any]) -> str:
    """What the variant was made of, and whose weights its runs started from."""
    base = row["from"] or "-"
    return f"{base}, weights of {row['warm_start']}" if row["warm_start"] else base


def _runs(row: dict[str, Any]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(row["runs"].items())) or "none"


def _result(row: dict[str, Any]) -> str:
    if row["mean"] is None:
        return "- (changed since it was run)" if row["runs"].get("finished") and not row["current"] else "-"
    spread = f" ± {row['std']:.4f}" if row["std"] is not None else ""
    return f"{row['metric']} {row['mean']:.4f}{spread}"


def show(
    what: Annotated[
        str, typer.Argument(metavar="VARIANT|RUN", help="A variant, a run's id or its beginning, or VARIANT:SEED.")
    ],
    as_json: output.AsJson = False,
) -> None:
    """Show everything about one variant or one run.

    Example: expmgr show iris/wide
    """
    from expmgr.project import Project
    from expmgr.variants.variants import find_variant, require_commit

    project = Project.open(output.folder())
    require_commit(project.repo)
    record = run_named(project, what)
    if record is not None:
        _show_run(project, record, as_json)
        return
    try:
        variant = find_variant(project.repo, what)
    except UnknownVariant as error:
        runs = [one for one in project.records.heads() if one.variant == what]
        by_hand = [one.run_id for one in runs if one.by_hand is not None]
        gone = sorted({one.seed for one in runs if one.by_hand is None})
        if by_hand and not gone:
            raise UnknownVariant(
                f"{what} is no variant: {len(by_hand)} runs of a script were called by hand there",
                hint=", ".join(f"expmgr show {run_id}" for run_id in by_hand[-5:]),
            ) from None
        if gone:
            named = ", ".join(f"expmgr show {what}:{seed}" for seed in gone[:5])
            raise UnknownVariant(f"the branch of {what} is gone, its runs are kept", hint=named) from None
        if "short name" in error.message:
            raise
        raise UnknownVariant(f"there is neither a variant nor a run {what}", hint=error.hint) from None
    _show_variant(project, variant, as_json)


def _show_variant(project: Project, variant: Variant, as_json: bool) -> None:
    from expmgr.runs.record import counted_runs
    from expmgr.variants.variants import origins

    heads = [head for head in project.records.heads() if head.variant == str(variant.name)]
    runs = project.records.whole(heads)
    output.tell_unreadable(project.records)
    origin = origins(project.repo).get(variant.name)
    spec_text = (project.repo.read(variant.commit, variant.name.spec_path) or b"").decode("utf-8", "replace")
    row = _summary(project, variant, origin, heads)
    model_dir = project.shown(project.layout.variant_dir(variant.name))
    if as_json:
        told = [_run_line(record) for record in runs]
        output.show_json({"format": 1, **row, "model_dir": model_dir, "spec": spec_text, "run_list": told})
        return
    facts = [
        ("variant", str(variant.name)),
        ("why", row["why"]),
        ("from", _from(row)),
        ("branch", f"{variant.name.branch} at {variant.commit[:12]}, {output.moment(variant.committed_at)}"),
        ("model_dir", f"{model_dir}/"),
        ("result", _result(row)),
    ]
    _show_facts(facts)
    output.show()
    output.show(f"spec ({variant.name.spec_path}):")
    for line in spec_text.splitlines():
        output.show(f"  {line}")
    output.show()
    _show_notes(project, str(variant.name), None)
    if not runs:
        output.show(f"no run yet: expmgr run {variant.name}")
        return
    table = output.Table(
        ("run", "seed", "status", "step", "result", "time", "started", "commit", "counts"),
        frozenset({"seed", "step", "time"}),
        dropped=("commit", "time", "started"),
    )
    counts = {record.run_id for record in counted_runs([one for one in runs if one.run_id in set(row["current"])])}
    for record in runs:
        compared = _compared(record)
        value = record.metric(*compared)
        result = f"{compared[0]} {value:.4f}" if value is not None else "-"
        table.rows.append(
            (
                record.run_id,
                str(record.seed),
                record.status,
                str(record.step),
                result,
                output.seconds(record.train_s),
                output.moment(record.attempts[-1].started_at),
                record.commit[:12],
                "yes" if record.run_id in counts else "no",
            )
        )
    table.show(output.Form.TERMINAL)


def _run_line(record: RunRecord) -> dict[str, Any]:
    return {
        "run_id": record.run_id,
        "seed": record.seed,
        "status": record.status,
        "step": record.step,
        "commit": record.commit,
        "metrics": record.metrics,
        "train_s": record.train_s,
    }


def _show_notes(project: Project, variant: str, run_id: str | None) -> None:
    from expmgr.cli.notes import notes_on

    notes = list(notes_on(project, variant, run_id))
    if notes:
        output.show("notes:", *(f"  {line}" for line in notes), "")


def _show_facts(facts: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        output.show(f"{name:<{width}}  {value}".rstrip())


def _now(project: Project, record: RunRecord) -> list[tuple[str, str]]:
    """What a run that goes on is at."""
    from expmgr.cli.watch import time_left, told_of

    if record.has_ended:
        return []
    try:
        progress = json.loads(project.records.run_dir(record.run_id).progress.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    left = time_left(progress)
    about = f"{progress.get('phase')}, step {progress['step']:,}{told_of(progress)}"
    return [("now", f"{about}, {left} left" if left else about)]


def _of_steps(record: RunRecord) -> str:
    """How many steps it was asked for; a script that was called by hand has its own."""
    return f" of {record.attempts[-1].max_steps}" if record.by_hand is None else ""


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


def _show_run(project: Project, record: RunRecord, as_json: bool) -> None:
    if as_json:
        output.show_json(record.model_dump(mode="json"))
        return
    from expmgr.cli.notes import notes_on

    environment = record.environment
    versions = ", ".join(
        f"{name} {environment[name]}" for name in ("tensorflow", "keras", "python") if name in environment
    )
    if environment.get("name"):
        versions += f" ({environment['name']})"
    if environment.get("lock"):
        versions += f", packages {environment['lock'][:12]}"
    facts = [
        ("run", record.run_id),
        ("variant", f"{record.variant}, seed {record.seed}"),
        ("status", f"{record.status} at step {record.step}{_of_steps(record)}"),
        *_now(project, record),
        ("commit", record.commit),
        *_by_hand(record),
        ("parent run", record.parent_run or "-"),
        ("warm start", _warm_start(record.warm_start) or "-"),
        ("model_dir", f"{record.model_dir}/" if record.model_dir else "-"),
        (
            "selected",
            f"model.ckpt-{record.selected_step}" if record.selected_step is not None and record.checkpoints else "-",
        ),
        ("parameters", "-" if record.parameters is None else f"{record.parameters:,}"),
        ("examples seen", f"{record.examples_seen:,}{'' if record.has_ended else ' at the newest checkpoint'}"),
        ("time", output.seconds(record.train_s)),
        ("by", f"{record.user or 'not recorded'} on {record.host or 'not recorded'}"),
        ("environment", versions or "-"),
    ]
    _show_facts(facts)
    notes = list(notes_on(project, record.variant, record.run_id))
    if notes:
        output.show("", "notes:", *(f"  {line}" for line in notes))
    if record.metrics.get("selected"):
        output.show()
        table = output.Table(("split", "metric", "selected", "last"), frozenset({"selected", "last"}))
        for split, metrics in record.metrics["selected"].items():
            last = record.metrics.get("last", {}).get(split, {})
            table.rows.extend(
                (split, name, output.number(value, 6), output.number(last.get(name), 6))
                for name, value in metrics.items()
            )
        table.show(output.Form.TERMINAL)
    if record.data:
        output.show()
        data = output.Table(("split", "from", "rows", "sha256"), frozenset({"rows"}))
        data.rows.extend(
            (name, one.path, "-" if one.rows is None else f"{one.rows:,}", (one.sha256 or "not read")[:12])
            for name, one in record.data.items()
        )
        data.show(output.Form.TERMINAL)
    output.show()
    attempts = output.Table(
        ("attempt", "status", "from step", "to step", "started", "time"), frozenset({"from step", "to step", "time"})
    )
    for one in record.attempts:
        steps = ["-" if step is None else str(step) for step in (one.from_step, one.to_step)]
        attempts.rows.append(
            (str(one.number), one.status, *steps, output.moment(one.started_at), output.seconds(one.train_s))
        )
    attempts.show(output.Form.TERMINAL)
    for one in record.attempts:
        for change in one.changes:
            allowed = f", let pass by --allow {change['rule']}" if change.get("allowed") else ""
            output.show(f"attempt {one.number}: {change['what']} {change['saved']} -> {change['wanted']}{allowed}")
        for reason in one.not_exact:
            output.show(f"attempt {one.number}: not exact: {reason}")
        for told in (one.ended_early, one.error["message"] if one.error else None):
            if told:
                output.show(f"attempt {one.number}: {told}")
    log = project.records.run_dir(record.run_id).log
    if log.exists():
        output.show()
        output.show(f"log: {project.shown(log)}")
