"""`expmgr compare --confirm`: trains unused seeds, and only these decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from expmgr.cli import output
from expmgr.paths import seeds_text

if TYPE_CHECKING:
    from expmgr.comparison.used_runs import Chosen
    from expmgr.project import Project


def confirmed(
    project: Project, found: Chosen, metric: str | None, seeds: Sequence[int] | None, command: str | None = None
) -> tuple[Chosen, Sequence[int]]:
    """The best variant and the baseline, both run on seeds that had no result before; and these seeds. `command`: what to
    type again where a run fails."""
    from expmgr.cli.watch import watcher
    from expmgr.comparison.confirming import plan_confirmation
    from expmgr.comparison.used_runs import chosen
    from expmgr.errors import worst
    from expmgr.launch.local import run_tasks
    from expmgr.launch.plan import plan_tasks

    plan = plan_confirmation(project, found, metric, seeds)
    taken, base, names = plan.seeds, plan.base, [str(plan.base), str(plan.winner)]
    both = f"{plan.winner} is the best so far; it" if len(found.subjects) > 2 else str(plan.winner)
    of_metric = f" --metric {metric}" if metric is not None else ""
    command = command or f"expmgr compare {' '.join(names)} --baseline {base}{of_metric}"
    again = f"{command} --confirm --seeds {seeds_text(taken)}"
    tasks = plan_tasks(project, names, taken)  # raises what stops them from being run
    output.tell([f"{both} and {base} are run on seeds {seeds_text(taken)}"])
    with watcher(tasks, quiet=False) as watching:
        outcomes = run_tasks(project, tasks, watcher=watching)
    for outcome in outcomes:
        if outcome.error is not None:
            output.tell(outcome.error.lines())
    if code := worst([outcome.exit_code for outcome in outcomes]):
        output.tell([f"Next: {again}"])
        raise typer.Exit(code)
    return chosen(project, names, str(base)), taken
