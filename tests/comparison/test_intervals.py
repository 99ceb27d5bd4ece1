"""The arithmetic of a comparison to the last digit: power, shares, adjusted p values and the edges of a verdict."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from comparison.test_statistics import by_seed
from expmgr.comparison.statistics import (
    ConfidenceInterval,
    MeanDifference,
    difference,
    holm,
    is_share,
    mean_and_std,
    noise_of,
)


def found(base: list[float], other: list[float], first: int = 0) -> MeanDifference:
    made = difference(by_seed(base), by_seed(other, first=first))
    assert made is not None
    return made


def test_the_power_of_unpaired_seeds_is_that_of_scipy() -> None:
    draw = np.random.default_rng(5)
    apart = found(list(draw.normal(size=6)), list(draw.normal(size=6)), first=6)
    for count in (3, 5, 17, 200):
        freedom = 2 * (count - 1)
        bound = stats.t.ppf(0.975, freedom)
        wanted = stats.nct.sf(bound, freedom, 0.4 / apart.spread * (count / 2) ** 0.5)
        assert apart._power(count, 0.4, 0.05) == pytest.approx(wanted, rel=1e-6)


def test_seeds_needed_ends_at_a_thousand() -> None:
    one = found([0.0, 0.0, 0.0, 0.0], [-1.0, 1.0, -1.0, 1.0])
    effects = {
        count: next(e / 1e5 for e in range(8_000, 20_000) if one._power(count, e / 1e5, 0.05) >= 0.8)
        for count in (999, 1000, 1001)
    }
    assert one.seeds_needed(effects[999]) == 999
    assert one.seeds_needed(effects[1000]) == 1000
    assert one.seeds_needed(effects[1001]) is None
    assert one.seeds_needed(0) is None


def test_the_interval_is_students_at_every_level() -> None:
    one = found([0.1, 0.4, 0.2], [0.3, 0.9, 0.2])
    pairs = np.array([0.2, 0.5, 0.0])
    for level in (0.5, 0.9, 0.99):
        low, high = stats.t.interval(level, 2, loc=pairs.mean(), scale=stats.sem(pairs))
        interval = one.interval(level)
        assert (interval.low, interval.high, interval.level) == pytest.approx((low, high, level))
    assert (one.spread, one.error) == pytest.approx((pairs.std(ddof=1), pairs.std(ddof=1) / 3**0.5))
    assert (one.seeds, one.freedom, one.p_better, one.signs_p) == ((3, 3), 2, pytest.approx(2.5 / 3), None)


def test_zero_is_held_at_the_edges() -> None:
    for low, high, holds in (
        (0.0, 1.0, True),
        (-1.0, 0.0, True),
        (-1.0, 1.0, True),
        (0.1, 1.0, False),
        (-1.0, -0.1, False),
    ):
        assert ConfidenceInterval(low, high, 0.95).holds_zero is holds


def test_six_pairs_have_signs() -> None:
    assert found([0.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0]).signs_p is None
    six = found([0.0] * 6, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert six.signs_p == 2 / 64
    assert not six.interval(1 - 2 / 64).holds_zero
    assert six.signs_disagree(1 - 2 / 64)  # as rare as the level allows is not rarer
    assert not six.signs_disagree(0.95)


def test_the_spread_of_unpaired_seeds() -> None:
    one, two = [1.0, 2.0, 4.0], [1.0, 1.5, 2.0, 7.0]
    made = found(one, two, first=5)
    variances = [np.var(side, ddof=1) for side in (one, two)]
    assert made.spread == pytest.approx(np.mean(variances) ** 0.5)
    parts = [variances[0] / 3, variances[1] / 4]
    assert made.error == pytest.approx(sum(parts) ** 0.5)
    assert made.freedom == pytest.approx(sum(parts) ** 2 / (parts[0] ** 2 / 2 + parts[1] ** 2 / 3))
    assert (made.mean, made.seeds) == (pytest.approx(2.875 - 7 / 3), (3, 4))
    assert made.p_better == 6 / 12
    same = found([1.0] * 3, [1.0] * 4, first=5)
    assert (same.freedom, same.p, same.p_better) == (5.0, 1.0, 0.5)


def test_mean_and_deviation_of_few() -> None:
    assert mean_and_std([]) == (None, None)
    assert mean_and_std([2.0]) == (2.0, None)
    assert mean_and_std([1.0, 3.0]) == (2.0, pytest.approx(2**0.5))


def test_holm_never_falls() -> None:
    assert holm([0.04, 0.01]) == pytest.approx([0.04, 0.02])
    assert holm([0.01, 0.02, 0.021]) == pytest.approx([0.03, 0.04, 0.04])
    assert holm([0.6, 0.5]) == [1.0, 1.0]


def test_shares_by_their_names() -> None:
    for name in ("Accuracy", "val_acc", "acc_top", "binary_accuracy"):
        assert is_share(name)
    for name in ("my_accuracy_loss", "x", "balanced_acc_gain"):
        assert not is_share(name)
    assert noise_of(0.5, 25) == 0.1
    assert noise_of(1.5, 10) == 0  # no share
