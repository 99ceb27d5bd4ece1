"""Differences over seeds: intervals against scipy's own and tables, verdicts, and how often they are wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from expmgr.comparison.statistics import ComparisonVerdict, ConfidenceInterval, difference, holm, is_share, noise_of


def by_seed(values: Sequence[float], first: int = 0) -> dict[int, float]:
    return {first + number: value for number, value in enumerate(values)}


def test_same_seeds_are_paired() -> None:
    """Student's sleep data (1908): a mean of 1.58 hours, an interval of 0.70 to 2.46."""
    one = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    two = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = difference(by_seed(one), by_seed(two))
    assert found is not None
    interval = found.interval()
    assert (found.method, found.seeds, found.freedom) == ("paired", (10, 10), 9)
    assert (found.mean, interval.low, interval.high) == pytest.approx((1.58, 0.7001, 2.4599), abs=1e-4)
    assert found.p == pytest.approx(0.002833, abs=1e-6)
    assert found.p_better == 0.95
    assert found.signs_p == pytest.approx(
        4 / 1024
    )  # the signs of nine count: only all alike, and those with the 0 turned


def test_other_seeds_are_not() -> None:
    one, two = [0.90, 0.94, 0.92], [0.95, 0.97, 0.99, 0.93]
    found = difference(by_seed(one), by_seed(two, first=1))
    assert found is not None
    wanted = stats.ttest_ind(two, one, equal_var=False)
    interval, known = found.interval(), wanted.confidence_interval(0.95)
    assert (found.method, found.seeds, found.signs_p) == ("welch", (3, 4), None)
    assert (found.p, interval.low, interval.high) == pytest.approx((wanted.pvalue, known.low, known.high))


def test_less_is_better_turns_it_round() -> None:
    one, two = by_seed([0.5, 0.6, 0.7]), by_seed([0.4, 0.45, 0.6])
    up, down = difference(one, two), difference(one, two, is_more_better=False)
    assert up is not None
    assert down is not None
    assert (up.mean, up.interval().low) == pytest.approx((-down.mean, -down.interval().high))
    assert (up.p_better, down.p_better) == (0, 1)


def test_two_seeds_claim_nothing() -> None:
    assert difference(by_seed([1, 2]), by_seed([1, 2, 3])) is None
    assert difference(by_seed([1, 2, 3]), {}) is None


@pytest.mark.parametrize(
    ("low", "high", "effect", "verdict"),
    [
        (1.0, 2.0, 1.0, ComparisonVerdict.BETTER),
        (-2.0, -1.0, 1.0, ComparisonVerdict.WORSE),
        (-0.9, 0.9, 1.0, ComparisonVerdict.EQUIVALENT),
        (0.1, 0.9, 1.0, ComparisonVerdict.EQUIVALENT),
        (0.1, 1.0, 1.0, ComparisonVerdict.BETTER_SIZE_UNSURE),
        (-1.0, -0.1, 1.0, ComparisonVerdict.WORSE_SIZE_UNSURE),
        (-0.1, 1.0, 1.0, ComparisonVerdict.INCONCLUSIVE),
        (-1.0, 0.5, 1.0, ComparisonVerdict.INCONCLUSIVE),
        (0.1, 0.2, None, ComparisonVerdict.BETTER_SIZE_NOT_JUDGED),
        (-0.2, -0.1, None, ComparisonVerdict.WORSE_SIZE_NOT_JUDGED),
        (-0.1, 0.1, None, ComparisonVerdict.INCONCLUSIVE),
        (0.0, 0.1, None, ComparisonVerdict.INCONCLUSIVE),
    ],
)
def test_the_first_that_holds(low: float, high: float, effect: float | None, verdict: ComparisonVerdict) -> None:
    assert ConfidenceInterval(low, high, 0.95).verdict(effect) is verdict


values = st.lists(st.floats(-100, 100), min_size=3, max_size=12)


@given(values, values, st.floats(0.001, 10))
def test_turned_round_the_verdict_is_turned_round(one: list[float], two: list[float], effect: float) -> None:
    turned = {
        ComparisonVerdict.BETTER: ComparisonVerdict.WORSE,
        ComparisonVerdict.BETTER_SIZE_UNSURE: ComparisonVerdict.WORSE_SIZE_UNSURE,
    }
    turned |= {new: old for old, new in turned.items()}
    there, back = difference(by_seed(one), by_seed(two)), difference(by_seed(two), by_seed(one))
    assert there is not None
    assert back is not None
    verdict = there.interval().verdict(effect)
    assert back.interval().verdict(effect) is turned.get(verdict, verdict)
    assert back.signs_p == there.signs_p


def test_without_spread_it_is_what_it_is() -> None:
    same = difference(by_seed([0.9] * 3), by_seed([0.9] * 3))
    more = difference(by_seed([0.5] * 3), by_seed([0.75] * 3))
    assert same is not None
    assert more is not None
    assert (same.interval(), same.p, same.p_better) == (ConfidenceInterval(0, 0, 0.95), 1.0, 0.5)
    assert (more.interval(), more.p) == (ConfidenceInterval(0.25, 0.25, 0.95), 0.0)
    assert (same.seeds_needed(0.1), more.seeds_needed(None)) == (None, None)


def test_how_many_seeds_settle_it() -> None:
    """Against the tables of Cohen 1988 and G*Power: paired, a difference of one deviation of differences, 10 pairs;
    unpaired, of one deviation, 17 on each side."""
    draw = np.random.default_rng(1).normal(size=8)
    draw = (draw - draw.mean()) / draw.std(ddof=1)
    paired = difference(by_seed([0.0] * 8), by_seed(list(draw)))
    apart = difference(by_seed(list(draw)), by_seed(list(draw), first=8))
    assert paired is not None
    assert apart is not None
    assert (paired.seeds_needed(1.0), apart.seeds_needed(1.0)) == (10, 17)
    assert paired.seeds_needed(0.5) == 34
    assert paired.seeds_needed(1e-6) is None
    assert paired.seeds_needed(1e6) == 3


def test_signs_that_say_something_else() -> None:
    # One wild seed: the interval holds 0, while all signs are alike.
    found = difference(by_seed([0.0] * 7), by_seed([0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 9.0]))
    assert found is not None
    assert found.interval().holds_zero
    assert found.signs_p == pytest.approx(2 / 128)
    assert found.signs_disagree(0.95)
    assert not found.signs_disagree(0.99)


def test_pairs_that_are_alike_but_for_the_noise_of_float32_are_alike() -> None:
    """Seven pairs, all 0.1 apart, one the other way: of 128 patterns 16 have six or seven signs alike."""
    one = [0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
    two = [float(np.float32(value + (-0.1 if number == 1 else 0.1))) for number, value in enumerate(one)]
    found = difference(by_seed(one), by_seed(two))
    assert found is not None
    assert found.signs_p == 16 / 128


def test_many_pairs_are_drawn_the_same_each_time() -> None:
    draw = np.random.default_rng(0).normal(0.3, 1, size=30)
    one, two = (difference(by_seed([0.0] * 30), by_seed(list(draw))) for _ in range(2))
    assert one == two
    assert one is not None
    assert one.signs_p == pytest.approx(one.p, abs=0.02)


@pytest.mark.parametrize("count", [6, 9, 16, 24])
def test_the_signs_are_those_of_scipy(count: int) -> None:
    draw = np.random.default_rng(count).normal(0.4, 1, size=count).round(2)
    found = difference(by_seed([0.0] * count), by_seed(list(draw)))
    wanted = stats.permutation_test(
        (draw,), lambda one, axis: np.mean(one, axis=axis), permutation_type="samples", n_resamples=2**16
    )
    assert found is not None
    assert found.signs_p == pytest.approx(wanted.pvalue, abs=1e-12 if count <= 16 else 0.01)


def test_the_power_is_that_of_scipy() -> None:
    draw = list(np.random.default_rng(3).normal(size=8))
    found = difference(by_seed([0.0] * 8), by_seed(draw))
    assert found is not None
    for count in (3, 5, 17, 200):
        wanted = stats.nct.sf(stats.t.ppf(0.975, count - 1), count - 1, 0.4 / found.spread * count**0.5)
        assert found._power(count, 0.4, 0.05) == pytest.approx(wanted, rel=1e-6)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_the_noise_of_an_evaluation_set() -> None:
    assert noise_of(0.9, 100) == pytest.approx(0.03)
    assert noise_of(1.0, 10) == 0


def test_which_metrics_are_shares_of_rows() -> None:
    shares = ("accuracy", "acc", "top_k_categorical_accuracy", "accuracy_1", "accuracy/baseline")
    assert [name for name in shares if not is_share(name)] == [
        "accuracy/baseline"
    ]  # an Estimator's: the share of one class
    assert [name for name in ("loss", "auc", "accident_rate", "inaccuracy", "rmse") if is_share(name)] == []


def test_scipy_is_imported_when_it_is_needed() -> None:
    program = "import sys, expmgr.comparison, expmgr.cli.main; print('scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


REPETITIONS = 3_000


def claims(seeds: int, gain: float, correlation: float, *, is_paired: bool, draw: np.random.Generator) -> float:
    """How often a difference is claimed, where the true one is `gain` deviations of a run."""
    claimed = 0
    for _ in range(REPETITIONS):
        shared = draw.normal(size=seeds) * np.sqrt(correlation)
        one, two = (shared + draw.normal(size=seeds) * np.sqrt(1 - correlation) for _ in range(2))
        found = difference(by_seed(list(one)), by_seed(list(two + gain), first=0 if is_paired else seeds))
        assert found is not None
        claimed += found.interval().verdict(None) is not ComparisonVerdict.INCONCLUSIVE
    return claimed / REPETITIONS


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("is_paired", [True, False])
def test_few_differences_are_claimed_where_there_is_none(seeds: int, is_paired: bool) -> None:
    draw = np.random.default_rng(20_000 + seeds)
    assert claims(seeds, 0.0, 0.6 if is_paired else 0.0, is_paired=is_paired, draw=draw) <= 0.06


@pytest.mark.slow
def test_a_difference_that_is_there_is_seen() -> None:
    """A true gain of 2 deviations of a run, five seeds, correlation 0.6."""
    assert claims(5, 2.0, 0.6, is_paired=True, draw=np.random.default_rng(7)) >= 0.9
