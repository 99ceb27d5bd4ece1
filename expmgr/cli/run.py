"""`expmgr run`."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from expmgr.cli import output
from expmgr.cli.options import parse_rules, parse_seeds
from expmgr.errors import ExitCode, ExpmgrError, worst
from expmgr.paths import seeds_text

if TYPE_CHECKING:
    from expmgr.launch.plan import Outcome, Task, WarmStartOption
    from expmgr.project import Project


def add_to(app: typer.Typer) -> None:
    app.command(name="run")(run)


def run(
    variants: Annotated[list[str], typer.Argument(metavar="VARIANT...", help="The variants to train.")],
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
    from expmgr.launch.worker import WorkerProcess, take_early

    chosen = parse_seeds(seeds) if seeds is not None else None
    allowed = parse_rules(allow or [])
    if message is not None and len(variants) != 1:
        raise typer.BadParameter("--commit takes one variant, the one that is checked out")
    if warm_start_from is None and (maps or only or with_optimizer or grow):
        raise typer.BadParameter("--map, --only, --with-optimizer and --grow need --warm-start-from")
    if fresh and from_step is not None:
        raise typer.BadParameter("--fresh starts anew, --from-step goes back: one of them")
    if scratch and (fresh or from_step is not None or warm_start_from is not None or detach):
        raise typer.BadParameter("--scratch starts at step 0 in a folder of its own, and waits for the end")
    # It imports TensorFlow, which takes longest, while we look at what there is to do; ended at once if that is nothing.
    worker = None if detach else take_early() or WorkerProcess()
    try:
        from expmgr.cli.watch import watcher
        from expmgr.launch.local import is_own_worker, run_tasks
        from expmgr.launch.plan import How, plan_tasks
        from expmgr.project import Project

        project = Project.open(output.folder())
        if message is not None:
            _commit(project, variants[0], message)
        warm = None
        if warm_start_from is not None:
            warm = _warm_start(project, warm_start_from, maps or [], only or [], with_optimizer, grow)
        how = How(max_steps, fresh, from_step, tuple(allowed), warm)
        tasks = plan_tasks(project, variants, chosen, how)
        _tell_of_others(project, tasks)
        if not (fresh or scratch):
            _fetch_lost(project, tasks, warm)
        if worker is not None and not any(is_own_worker(task) for task in tasks):
            worker.close()
            worker = None
        if detach:
            options = {"--seeds": seeds, "--max-steps": max_steps, "--jobs": jobs, "--from-step": from_step}
            options["--warm-start-from"] = warm_start_from
            lists = {"--allow": allow, "--map": maps, "--only": only}
            flags = {"--fresh": fresh, "--with-optimizer": with_optimizer, "--grow": grow}
            _detach(project, tasks, [*variants, *_as_arguments(options, lists, flags)], as_json)
            return
        from expmgr.cli.preparing import tell_backend

        tell_backend()
        if scratch:
            project = project.scratch(Path(tempfile.mkdtemp(prefix="expmgr-scratch-")))
        with watcher(tasks, quiet=as_json) as watching:
            outcomes = run_tasks(project, tasks, jobs=jobs, watcher=watching, worker=worker)
    finally:
        if worker is not None:
            worker.close()
    code = worst([outcome.exit_code for outcome in outcomes])
    if as_json:
        output.show_json({"format": 1, "exit_code": code, "runs": [_outcome(one) for one in outcomes]})
    else:
        _show(project, outcomes)
    if not scratch:
        _tell_unsaid(project)
    if scratch:
        output.tell(["nothing was recorded; what was trained lies in:"])
        output.tell([f"  {project.layout.model_dir(task.name, task.seed)}/" for task in tasks])
    raise typer.Exit(code)


def _tell_of_others(project: Project, tasks: Sequence[Task]) -> None:
    """Say which of the runs somebody else has made already, at the same commit."""
    from expmgr.runs.origin import is_foreign

    heads = {(one.variant, one.seed, one.commit): one for one in project.records.heads() if one.status == "finished"}
    for task in tasks:
        head = heads.get((str(task.name), task.seed, task.commit))
        if head is not None and is_foreign(project.records.run_dir(head.run_id)):
            output.tell(
                [f"Note: {task} was trained in another clone already, by run {head.run_id}; here it is trained again"]
            )


def _fetch_lost(project: Project, tasks: Sequence[Task], warm: WarmStartOption | None) -> None:
    """Bring from the store what runs of this clone go on from, or start from, where it is not here any more."""
    if project.settings.store is None:
        return
    from expmgr.cli.preparing import from_store

    for task in tasks:
        mine = project.records.newest(task.name, task.seed)
        if mine is not None:
            from_store(project, str(task.name), task.seed, None, record=mine)
        if warm is not None:
            from_store(project, str(warm.name), task.seed if warm.seed is None else warm.seed, warm.step)


def _as_arguments(
    options: Mapping[str, object], lists: Mapping[str, Sequence[str] | None], flags: Mapping[str, bool]
) -> Iterator[str]:
    """What was given, as it would be typed."""
    for name, value in options.items():
        yield from () if value is None else (name, str(value))
    for name, values in lists.items():
        for one in values or ():
            yield from (name, one)
    yield from (name for name, is_set in flags.items() if is_set)


def _detach(project: Project, tasks: Sequence[Task], arguments: Sequence[str], as_json: bool) -> None:
    """The same call in a session of its own; back when its first run has begun, or as soon as it fails."""
    from expmgr.launch.detached import start_detached

    started = start_detached(project, ["run", *arguments], tasks)
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


def _warm_start(
    project: Project, text: str, maps: Sequence[str], only: Sequence[str], with_optimizer: bool, grow: bool
) -> WarmStartOption:
    from expmgr.launch.plan import WarmStartOption
    from expmgr.launch.questions import parse_checkpoint
    from expmgr.variants.variants import find_variant

    name, step = parse_checkpoint(text)
    name, colon, seed = name.partition(":")
    if colon and not (seed.isascii() and seed.isdigit()):
        raise typer.BadParameter(f"{text!r} names no checkpoint: VARIANT[:SEED][@STEP]")
    pairs = []
    for one in maps:
        old, equals, new = one.partition("=")
        if not (old and equals and new) or old.endswith("/*") != new.endswith("/*"):
            raise typer.BadParameter(f"--map {one}: it takes OLD=NEW, or OLD/*=NEW/*")
        pairs.append((old, new))
    variant = find_variant(project.repo, name).name
    return WarmStartOption(variant, step, int(seed) if colon else None, tuple(pairs), tuple(only), with_optimizer, grow)


def _tell_unsaid(project: Project) -> None:
    """Say why the log does not say what ended, where it does not."""
    from expmgr.team.publish import tell_runs

    try:
        tell_runs(project)
    except (OSError, ExpmgrError) as problem:
        output.tell_unsaid(str(problem))


def _commit(project: Project, text: str, message: str) -> None:
    """Commit what a run of the variant would not see, in the checkout where it is checked out."""
    from expmgr.errors import UncommittedChanges
    from expmgr.git.checkouts import commit_paths, worktrees
    from expmgr.spec.file import read_spec
    from expmgr.variants.code import uncommitted_code
    from expmgr.variants.variants import find_variant

    variant = find_variant(project.repo, text)
    if all(worktree.ref != variant.name.ref for worktree in worktrees(project.repo)):
        raise UncommittedChanges(
            f"{variant.name} is not checked out, so there is nothing of it to commit",
            left_alone="Nothing was changed.",
            hint=f"git switch {variant.name.branch}, or run it as it is: expmgr run {variant.name}",
        )
    found = uncommitted_code(project.repo, variant.commit, variant.name)
    if found is None:
        output.tell([f"{variant.name} has nothing to commit"])
        return
    root, files = found
    spec_path = Path(root, variant.name.spec_path)
    if spec_path.is_file():  # a spec that is wrong is no commit
        read_spec(spec_path.read_bytes(), variant.name.spec_path, variant.name.experiment)
    project.repo.identity()
    commit = commit_paths(project.repo, Path(root), files, message)
    output.tell(
        [f"committed {len(files)} {'file' if len(files) == 1 else 'files'} on {variant.name.branch} ({commit[:12]})"]
    )


def _outcome(outcome: Outcome) -> dict[str, Any]:
    record = outcome.record
    return {
        "variant": str(outcome.task.name),
        "seed": outcome.task.seed,
        "exit_code": int(outcome.exit_code),
        "complete_before": outcome.complete,
        "run_id": record.run_id if record else None,
        "status": record.status if record else None,
        "step": record.step if record else None,
        "metrics": record.metrics if record else {},
        "error": outcome.error.as_dict() if outcome.error else None,
    }


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
