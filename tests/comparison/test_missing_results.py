"""A side without a result: what is said of it, once."""

from __future__ import annotations

from comparison.test_checks import case, run, runs, stale, subject
from expmgr.comparison.checks.finding import Found
from expmgr.comparison.checks.runs import results
from expmgr.comparison.sides import Subject


def said(other: Subject, **about: object) -> list[str | tuple[str, str | None]]:
    found = results(case(other=other, **about))
    return [(one.told, one.mend) if isinstance(one, Found) else one for one in found]


BASE = "iris/base seeds 0-4"


def test_a_side_whose_runs_are_all_stale_is_the_stale_checks_affair() -> None:
    assert said(stale("wide", 5)) == [BASE]
    assert said(stale("wide", 4)) == [BASE, "iris/wide seeds 4"]


def test_a_side_that_has_begun_has_no_finished_run() -> None:
    begun = [run("iris/wide", seed, 0.5, status="running") for seed in (1, 2)]
    assert [one[0] for one in said(subject("wide", begun))[1:]] == ["iris/wide has no finished run"]
    some = [*runs("wide", seeds=2), run("iris/wide", 4, 0.5, status="failed")]
    assert all(isinstance(one, str) for one in said(subject("wide", some)))


def test_a_side_without_any_run_is_told_with_the_seeds_of_the_other() -> None:
    ((told, command),) = said(subject("wide", []))[1:]
    assert (told, command) == ("iris/wide has no run", "expmgr run iris/wide --seeds 0-4")
