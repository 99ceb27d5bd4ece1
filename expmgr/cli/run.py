"""`expmgr run`: trains variants and reports how each run ended."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from expmgr.cli import output
from expmgr.cli.options import parse_pairs, parse_rules, parse_seeds, usage
from expmgr.errors import ExitCode, ExpmgrError, worst
from expmgr.paths import has_tensorflow, seeds_text

if TYPE_CHECKING:
    from expmgr.launch.call import RunCall
    from expmgr.launch.plan import Outcome, Task
    from expmgr.project import Project


def add_to(app: typer.Typer) -> None:
    app.command(name="run")(run)


def run(
    variants: Annotated[list[str], typer.Argument(metavar="VARIANT", help="The variants to train.")],
    seeds: Annotated[
        str | None, typer.Option("--seeds", metavar="SEEDS", help="Such as 0-4 or 0,3,5; default: 0.")
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option("--max-steps", min=1, metavar="N", help="Train to this step, not the spec's.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, metavar="N", help="How many runs at a time.")] = 1,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew; the old model_dir is set aside, never deleted.")
    ] = False,
    from_step: Annotated[
        int | None,
        typer.Option(
            "--from-step",
            min=0,
            metavar="STEP",
            help="Go back to the checkpoint of STEP; what came after it is set aside, never deleted.",
        ),
    ] = None,
    scratch: Annotated[
        bool, typer.Option("--scratch", help="Train in a temporary model_dir, and record nothing.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Leave it running, and come back at once: expmgr status, logs, stop.")
    ] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", metavar="RULE", help="Let a refusal of the guard pass by its rule's id; recorded."),
    ] = None,
    warm_start_from: Annotated[
        str | None,
        typer.Option(
            "--warm-start-from",
            metavar="VARIANT[@STEP]",
            help="Start at step 0 from the weights of another checkpoint.",
        ),
    ] = None,
    maps: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="OLD=NEW", help="Warm start: which variable is which; or OLD/*=NEW/*."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="PATTERN", help="Warm start: only variables called so.")
    ] = None,
    with_optimizer: Annotated[
        bool, typer.Option("--with-optimizer", help="Warm start: the optimizer's slots too.")
    ] = False,
    grow: Annotated[
        bool, typer.Option("--grow", help="Warm start: a larger layer takes the slice that it overlaps with.")
    ] = False,
    message: Annotated[
        str | None,
        typer.Option("--commit", metavar="MESSAGE", help="First commit the variant's changes in its checkout."),
    ] = None,
    as_json: output.AsJson = False,
) -> None:
    """Train variants: checkpoint, evaluate, and resume from the newest checkpoint that the guard lets through.

    Example: expmgr run iris/baseline iris/wide --seeds 0-2
    """
    from expmgr.launch.call import RunCall

    rules = tuple(parse_rules(allow or [], variants[0]))
    with usage():
        call = RunCall(
            tuple(variants),
            tuple(parse_seeds(seeds)) if seeds is not None else None,
            max_steps,
            jobs,
            fresh,
            from_step,
            scratch,
            detach,
            rules,
            warm_start_from,
            parse_pairs(maps or []),
            tuple(only or ()),
            with_optimizer,
            grow,
            message,
        )
    if detach:
        _detach(call, as_json)
    else:
        _train(call, as_json)


def _train(call: RunCall, as_json: bool) -> None:
    """Run it here, and wait for the end."""
    from expmgr.launch.worker import WorkerProcess, take_early

    # It imports TensorFlow, which takes longest, while we look at what there is to do; ended at once if that is nothing.
    worker = take_early() or (WorkerProcess() if has_tensorflow() else None)
    done: list[str] = []
    try:
        from expmgr.cli.watch import watcher
        from expmgr.launch.call import place_of
        from expmgr.launch.local import is_own_worker, run_tasks

        project, tasks = _planned(call, done)
        if worker is not None and not any(is_own_worker(task) for task in tasks):
            worker.close()
            worker = None
        project = place_of(project, call)
        with watcher(tasks, quiet=as_json) as watching:
            outcomes = run_tasks(project, tasks, jobs=call.jobs, watcher=watching, worker=worker)
    except ExpmgrError as error:
        error.after(done)
        raise
    finally:
        if worker is not None:
            worker.close()
    for story in {id(one.error): one.error for one in outcomes if one.error is not None}.values():
        story.after(done)
    code = worst([outcome.exit_code for outcome in outcomes])
    if as_json:
        output.show_json({"format": 1, "exit_code": code, "runs": [one.as_dict() for one in outcomes]})
    else:
        _show(project, outcomes)
    if call.scratch:
        output.tell(["nothing was recorded; what was trained lies in:"])
        output.tell([f"  {project.layout.model_dir(task.name, task.seed)}/" for task in tasks])
    else:
        _tell_unsaid(project)
    raise typer.Exit(code)


def _planned(call: RunCall, done: list[str]) -> tuple[Project, list[Task]]:
    """The repository, and what the call amounts to in it, with the commit made first that was asked for. What was done and
    stays is added to `done`."""
    from expmgr.launch.call import plan_call
    from expmgr.project import Project

    project = Project.open(output.folder(), output.note)
    if call.commit is not None and (commit := _commit(project, call.variants[0], call.commit)):
        # The error of a command in the background prints more lines than its own, so it names the commit.
        done.append(f"the commit {commit[:12]}" if call.detach else "the commit")
    with usage():
        return project, plan_call(project, call, output.note, done)


def _commit(project: Project, variant: str, message: str) -> str | None:
    """Commit what a run would not see. The commit; None if there was nothing to commit."""
    from expmgr.launch.call import commit_changes

    made = commit_changes(project, variant, message)
    if not made.files:
        output.tell([f"{made.name} has nothing to commit"])
        return None
    count = f"{len(made.files)} {'file' if len(made.files) == 1 else 'files'}"
    output.tell([f"committed {count} on {made.name.branch} ({made.commit[:12]})"])
    return made.commit


def _detach(call: RunCall, as_json: bool) -> None:
    """The same call in a session of its own; back when its first run has begun, or as soon as it fails."""
    from expmgr.launch.announce import announce
    from expmgr.launch.before import telling_what_stays
    from expmgr.launch.detached import start_detached

    done: list[str] = []
    with telling_what_stays(done):
        project, tasks = _planned(call, done)
        told = [announce(project, task) for task in {one.code_digest: one for one in tasks}.values()]
        started = start_detached(project, call.arguments, tasks, [f"Note: {one}" for one in told if one is not None])
    if as_json:
        output.show_json(
            {"format": 1, "pid": started.pid, "log": str(started.log), "runs": [one.run_id for one in started.runs]}
        )
        return
    for record in started.runs:
        output.tell([f"{record.variant} seed {record.seed}: runs (run {record.run_id})"])
    waiting = len(tasks) - len(started.runs)
    if not started.runs:
        output.tell(started.log.read_text(encoding="utf-8", errors="replace").splitlines())
        return
    if waiting:
        output.tell([f"{waiting} more {'run waits for its turn' if waiting == 1 else 'runs wait for their turn'}"])
    output.tell([f"process {started.pid}, log {project.shown(started.log)}"])
    output.tell([f"Next: expmgr status; expmgr logs {tasks[0].name} -f; expmgr stop {tasks[0].name}"])


def _tell_unsaid(project: Project) -> None:
    """Say why the log does not say what ended, where it does not."""
    from expmgr.team.publish import tell_runs, why_unsaid

    try:
        tell_runs(project)
    except (OSError, ExpmgrError) as problem:
        output.tell_unsaid(why_unsaid(problem))


def _show(project: Project, outcomes: Sequence[Outcome]) -> None:
    """A table of the runs that there are; then what went wrong, each story once."""
    table = output.Table(
        ("run", "variant", "seed", "status", "step", "result", "time"),
        frozenset({"seed", "step", "time"}),
        dropped=("time", "run"),
    )
    for outcome in outcomes:
        record = outcome.record
        if record is not None and record.has_ended:
            table.rows.append(
                (
                    record.run_id,
                    record.variant,
                    str(record.seed),
                    "complete before" if outcome.complete else record.status,
                    str(record.step),
                    output.result(record, outcome.task.spec.compared) or "-",
                    output.seconds(record.train_s),
                )
            )
    if table.rows:
        table.show(output.Form.TERMINAL)
    _tell_stories(project, outcomes)
    if project.is_scratch:
        return
    done = [str(outcome.task.name) for outcome in outcomes if outcome.exit_code == ExitCode.DONE]
    experiments = {name.partition("/")[0] for name in done}
    if len(set(done)) > 1 and len(experiments) == 1:
        output.tell([f"Next: expmgr compare {' '.join(dict.fromkeys(done))}"])
    elif len(set(done)) > 1:
        output.tell(["Next: expmgr list"])
    elif done:
        output.tell([f"Next: expmgr show {done[0]}"])


def _tell_stories(project: Project, outcomes: Sequence[Outcome]) -> None:
    """What went wrong: each story once, with the runs that it holds for where its words do not name them."""
    stories: dict[tuple[str, ...], list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.error is not None:
            # The same story of two seeds differs in nothing but their numbers.
            plain = tuple(_without_seed(line, outcome.task.seed) for line in _story(project, outcome))
            stories.setdefault(plain, []).append(outcome)
    for told in stories.values():
        tasks = [outcome.task for outcome in told]
        lines = _story(project, told[0])
        if len(told) > 1:
            seeds = seeds_text(task.seed for task in tasks)
            lines = [_for_seeds(line, tasks[0], seeds) for line in lines]
            output.tell([f"{tasks[0].name} seeds {seeds}:"])
        elif len(outcomes) > 1 and str(tasks[0].name) not in lines[0]:
            output.tell([f"{tasks[0]}:"])
        output.tell(lines)


def _story(project: Project, outcome: Outcome) -> list[str]:
    assert outcome.error is not None
    lines = outcome.error.lines()
    if outcome.log is not None and outcome.exit_code in (ExitCode.BUG, ExitCode.MISTAKE) and outcome.log.exists():
        lines.append(f"Log: {project.shown(outcome.log)}")
    return lines


def _without_seed(line: str, seed: int) -> str:
    return re.sub(rf"(seed[- ]|--seeds ){seed}\b", r"\1*", line).replace("--seeds * ", "").replace(" --seeds *", "")


def _for_seeds(line: str, task: Task, seeds: str) -> str:
    """The commands in `line` for several seeds."""
    name = re.escape(str(task.name))
    bare = line.replace(f" --seeds {task.seed}", "")
    return re.sub(rf"(expmgr (?:run|check) {name})(?![\w.-])", rf"\1 --seeds {seeds}", bare)
