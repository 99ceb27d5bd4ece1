"""`--confirm`: seeds that nobody has seen yet are trained, and decide alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from expmgr.cli import output
from expmgr.paths import seeds_text

if TYPE_CHECKING:
    from expmgr.comparison.used_runs import Chosen
    from expmgr.project import Project


#: Seeds that `--confirm` takes where nobody says how many.
_FRESH_SEEDS = 5

#: Blocks that runs on other seeds may mend.
_MENDED_BY_RUNS = frozenset({"stale", "budget", "same-weights", "checkpoint"})


def is_hopeless(found: Chosen, metric: str | None) -> bool:
    """Whether the best variant and the baseline could not be compared on other seeds either."""
    from expmgr.comparison.comparison import best_of
    from expmgr.comparison.comparison import compare as compared

    winner, base = best_of(found, metric)
    pair = [one for one in found.subjects if one.name in (winner, base)]
    checks = compared(pair, baseline=base, metric=metric, tried=found.tried).checks
    return any(one.answer.value == "block" and one.id not in _MENDED_BY_RUNS for one in checks)


def confirmed(
    project: Project, found: Chosen, metric: str | None, seeds: Sequence[int] | None, command: str | None = None
) -> tuple[Chosen, Sequence[int]]:
    """The best variant and the baseline, both run on seeds that had no result before; and these seeds. `command`: what to
    type again where a run fails."""
    from expmgr.cli.watch import watcher
    from expmgr.comparison.comparison import best_of
    from expmgr.comparison.used_runs import chosen, fresh_seeds
    from expmgr.errors import worst
    from expmgr.launch.local import run_tasks
    from expmgr.launch.plan import plan_tasks

    winner, base = best_of(found, metric)
    taken = list(seeds) if seeds is not None else fresh_seeds(project, base.experiment, _FRESH_SEEDS)
    names = [str(base), str(winner)]
    both = f"{winner} is the best so far; it" if len(found.subjects) > 2 else str(winner)
    output.tell([f"{both} and {base} are run on seeds {seeds_text(taken)}"])
    of_metric = f" --metric {metric}" if metric is not None else ""
    command = command or f"expmgr compare {' '.join(names)} --baseline {base}{of_metric}"
    again = f"{command} --confirm --seeds {seeds_text(taken)}"
    tasks = plan_tasks(project, names, taken)
    with watcher(tasks, quiet=False) as watching:
        outcomes = run_tasks(project, tasks, watcher=watching)
    for outcome in outcomes:
        if outcome.error is not None:
            output.tell(outcome.error.lines())
    if code := worst([outcome.exit_code for outcome in outcomes]):
        output.tell([f"Next: {again}"])
        raise typer.Exit(code)
    return chosen(project, names, str(base)), taken
