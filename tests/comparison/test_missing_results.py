"""A side without a result, or with a run that was made again: what is said of it, once."""

from __future__ import annotations

from comparison.test_checks import ATTEMPT, case, run, runs, stale, subject
from expmgr.comparison.checks.finding import Found, again
from expmgr.comparison.checks.outcome import evaluation_noise
from expmgr.comparison.checks.rows import measured
from expmgr.comparison.checks.runs import left_out, results
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


def test_only_runs_of_one_spec_and_code_by_expmgr_were_made_again() -> None:
    def trained(**first: object) -> list[str]:
        made = [run("iris/wide", 0, 0.5, **first).model_copy(update={"run_id": "2026-a"}), *runs("wide", gain=0.1)]
        found = left_out(case(other=subject("wide", made)))
        return [one.told for one in found if isinstance(one, Found)]

    assert trained() == ["iris/wide seed 0 was trained 2 times from its first step; the newest counts"]
    assert trained(by_hand={"script": "a.py", "head": "h", "changed": []}) == []
    assert trained(code_digest="old") == []
    assert trained(status="preempted") == []
    assert trained(attempts=[ATTEMPT.model_copy(update={"from_step": 5})]) == []


def test_how_far_another_choice_of_rows_may_move_a_difference() -> None:
    """Of shares of 0.72 and 0.82 of 5,000 rows each: 1.96 times the root of both variances."""
    (told,) = evaluation_noise(case())
    assert told == "a difference of 10.0 points, on 5,000 rows that are good for 1.6"


def test_runs_are_made_again_with_the_seeds_that_are_compared() -> None:
    assert again(case()) == "expmgr run iris/base iris/wide --seeds 0-4"
    nothing = case(subject("base", []), subject("wide", []))
    assert again(nothing) == "expmgr run iris/base iris/wide"
    (found,) = measured(nothing)
    assert isinstance(found, Found)
    assert found.told == "by what they were evaluated is not recorded"
