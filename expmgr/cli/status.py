"""`expmgr status`, `logs` and `stop`: list, follow and stop runs that are still running."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from expmgr.cli import output
from expmgr.cli.streams import has_reader
from expmgr.disk import durable
from expmgr.errors import Busy, ExitCode, OnlyElsewhere, UnknownRun
from expmgr.escape import clean

if TYPE_CHECKING:
    from pathlib import Path

    from expmgr.project import Project
    from expmgr.runs.record import RunRecord

_POLL_S = 0.2

Run = Annotated[str, typer.Argument(metavar="RUN", help="A run's id or its beginning, VARIANT:SEED, or a variant.")]


def add_to(app: typer.Typer) -> None:
    for command in (status, logs, stop):
        app.command(name=command.__name__)(command)


def status(as_json: output.AsJson = False) -> None:
    """Show what runs now, in this clone: step, loss, speed, time left.

    Example: expmgr status
    """
    from expmgr.cli.watch import time_left
    from expmgr.project import Project

    project = Project.open(output.folder(), output.note)
    running = [(record, project.records.progress(record.run_id)) for record in _running(project)]
    if as_json:
        told = [{**_about(record), "progress": progress or None} for record, progress in running]
        output.show_json({"format": 1, "runs": told})
        return
    if not running:
        output.tell(["nothing runs"])
        return
    table = output.Table(
        ("run", "variant", "seed", "phase", "step", "of", "loss", "steps/s", "left"),
        frozenset({"seed", "step", "of", "loss", "steps/s", "left"}),
        dropped=("phase", "of", "run"),
    )
    for record, progress in running:
        rate, loss = progress.get("steps_per_s"), progress.get("loss")
        table.rows.append(
            (
                record.run_id,
                record.variant,
                str(record.seed),
                str(progress.get("phase", record.status)),
                f"{progress.get('step', record.step):,}",
                f"{record.attempts[-1].max_steps:,}",
                "-" if loss is None else f"{loss:.4g}",
                "-" if rate is None else f"{rate:,.0f}",
                time_left(progress) or "-" if progress else "-",
            )
        )
    table.show(output.Form.TERMINAL)


def _running(project: Project) -> list[RunRecord]:
    going = [head for head in project.records.heads() if head.status in ("starting", "running")]
    return [record for record in project.records.whole(going) if not record.has_ended]


def _about(record: RunRecord) -> dict[str, Any]:
    attempt = record.attempts[-1]
    about = {"run_id": record.run_id, "variant": record.variant, "seed": record.seed, "status": record.status}
    return {**about, "step": record.step, "max_steps": attempt.max_steps, "started_at": attempt.started_at}


def logs(
    run: Run,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
) -> None:
    """Print the log of a run: what it and its code wrote.

    Example: expmgr logs iris/wide -f
    """
    from expmgr.project import Project

    project = Project.open(output.folder(), output.note)
    record = _named(project, run)
    if run != record.run_id:
        output.tell([f"run {record.run_id}: {record.variant} seed {record.seed}"])
    path = project.records.run_dir(record.run_id).log
    _require_log(project, record, path)
    place = 0
    while True:
        has_ended = project.records.load(record.run_id).has_ended
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            file.seek(place)
            content = file.read()
            place += len(content)
            lines = content.decode("utf-8", "replace").expandtabs().split("\n")
            sys.stdout.write("\n".join(map(clean, lines)))
            sys.stdout.flush()
        if has_ended or not follow or not has_reader():
            return
        time.sleep(_POLL_S)


def _require_log(project: Project, record: RunRecord, path: Path) -> None:
    """`OnlyElsewhere` for the log of another clone's run, which is no part of what is shared."""
    from expmgr.runs.origin import is_foreign

    if is_foreign(project.records.run_dir(record.run_id)) and not path.exists():
        from expmgr.store.find import whereabouts

        raise OnlyElsewhere(
            f"the log of run {record.run_id} is not here",
            details=whereabouts(project, record),
            hint=f"see what is here of it: expmgr show {record.run_id}",
        )


def stop(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN", help="Runs, or variants: all their runs, also those that wait.")
    ],
    as_json: output.AsJson = False,
) -> None:
    """Ask runs to finish their step, save and end. `expmgr run` takes them up again.

    Example: expmgr stop iris/wide
    """
    from expmgr.project import Project

    project = Project.open(output.folder(), output.note)
    asked = {record.run_id: record for name in runs for record in _of(project, name)}
    for record in asked.values():
        _ask(record)
    ended = [_ended(project, record) for record in asked.values()]
    if as_json:
        output.show_json({"format": 1, "runs": [_about(record) for record in ended]})
        return
    for record in ended:
        output.tell([f"{record.variant} seed {record.seed}: {record.status} at step {record.step}"])
        if record.status == "preempted":
            output.tell([f"Next: {record.command}"])


def _of(project: Project, name: str) -> list[RunRecord]:
    """The runs that `name` means and that go on."""
    from expmgr.variants.named_run import run_named
    from expmgr.variants.variants import find_variant

    record = run_named(project, name)
    if record is not None:
        if record.has_ended:
            raise UnknownRun(f"run {record.run_id} does not run: it is {record.status}")
        return [record]
    variant = find_variant(project.repo, name).name
    found = [one for one in project.records.of_variant(variant) if not one.has_ended]
    path = project.layout.stop_file(variant)  # first: those that wait for their turn are never started
    durable.make_folder(path.parent)
    durable.write_bytes(path, b"")
    if not found:
        output.tell([f"no run of {variant} goes on; one that waits for its turn will not be started"])
    return found


def _named(project: Project, name: str) -> RunRecord:
    """The run that `name` means; of a variant the newest."""
    from expmgr.variants.named_run import run_named
    from expmgr.variants.variants import find_variant

    record = run_named(project, name)
    if record is not None:
        return record
    variant = find_variant(project.repo, name).name
    found = project.records.of_variant(variant)
    if not found:
        raise UnknownRun(f"{variant} has no run yet", hint=f"expmgr run {variant}")
    return found[-1]


def _ask(record: RunRecord) -> None:
    from expmgr.disk.locks import Process

    about = record.attempts[-1].worker or record.attempts[-1].launcher
    process = Process.from_dict(about)
    alive = process.is_alive()
    if alive is None:
        raise Busy(
            f"run {record.run_id} goes on on {process.host}, or in another container: it can be stopped there alone",
            left_alone="Nothing was changed.",
        )
    if alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)


def _ended(project: Project, record: RunRecord) -> RunRecord:
    """The record, once the run has ended."""
    limit = time.monotonic() + 2.0 * float(record.spec.get("train", {}).get("grace_secs", 30))
    while True:
        found = project.records.load(record.run_id)
        if found.has_ended:
            project.sweep_up()
            return found
        if time.monotonic() > limit:
            error = Busy(f"run {record.run_id} was asked to stop, and still goes on", hint="expmgr status")
            error.exit_code = ExitCode.BUSY
            raise error
        time.sleep(_POLL_S)
