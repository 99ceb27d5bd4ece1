"""`compare --confirm`: which variant to run again on which unused seeds, and whether that can help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from expmgr.comparison.comparison import best_of
from expmgr.comparison.comparison import compare as compared
from expmgr.comparison.used_runs import Chosen, fresh_seeds
from expmgr.paths import VariantName

if TYPE_CHECKING:
    from expmgr.project import Project

#: Seeds that are taken where nobody says how many.
_FRESH_SEEDS = 5

#: Blocks that runs on other seeds may mend.
_MENDED_BY_RUNS = frozenset({"stale", "budget", "same-weights", "checkpoint"})


@dataclass(frozen=True)
class Confirmation:
    """What is to be run before it is judged again, by these seeds alone."""

    winner: VariantName
    base: VariantName
    seeds: Sequence[int]


def is_hopeless(found: Chosen, metric: str | None) -> bool:
    """Whether the best variant and the baseline could not be compared on other seeds either."""
    winner, base = best_of(found, metric)
    pair = [one for one in found.subjects if one.name in (winner, base)]
    checks = compared(pair, baseline=base, metric=metric, tried=found.tried).checks
    return any(one.answer.value == "block" and one.id not in _MENDED_BY_RUNS for one in checks)


def plan_confirmation(project: Project, found: Chosen, metric: str | None, seeds: Sequence[int] | None) -> Confirmation:
    """The best variant and the baseline, on `seeds` or else on five that no run of the experiment has had."""
    winner, base = best_of(found, metric)
    taken = list(seeds) if seeds is not None else fresh_seeds(project, base.experiment, _FRESH_SEEDS)
    return Confirmation(winner, base, taken)
