"""Statistics over seeds: paired and unpaired differences, intervals, corrections, seeds needed.

A difference is the other variant's value less the baseline's, turned so that more is better. Sources: the paired t interval
and Welch's (Welch 1947; Satterthwaite's degrees of freedom), Holm 1979, Fisher's randomization of signs. The distributions
are scipy.special's, which is imported when it is needed: scipy.stats, which calls the same functions, takes three times as
long to import.
"""

from __future__ import annotations

import enum
import math
import statistics
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

#: Seeds on each side below which nothing is claimed, and below which a claim is said to rest on few.
FEWEST_SEEDS, FEW_SEEDS = 3, 5
#: Pairs of seeds from which the signs alone can speak: of six, 2 patterns in 64 lie as far out.
_SIGNED_PAIRS = 6
#: Pairs up to which every pattern of signs is looked at.
_MOST_PAIRS = 16
_POWER = 0.8
#: Metrics that are shares of the rows: their noise follows from how many rows there are.
_SHARES = ("accuracy", "acc")
_MOST_SEEDS = 1_000


def begin_to_import() -> None:
    """Import what the statistics need beside what the caller does next, which waits for git now and then."""
    import expmgr.git.process  # noqa: F401  # before: it takes modules out of `sys.modules`

    def load() -> None:
        import scipy.special  # noqa: F401

    threading.Thread(target=load, daemon=True).start()


def mean_and_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation, None where there are too few values."""
    mean = statistics.fmean(values) if values else None
    return mean, statistics.stdev(values) if len(values) > 1 else None


class ComparisonVerdict(enum.Enum):
    """What the interval of a difference says, held against the declared smallest difference that matters."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    BETTER_SIZE_UNSURE = "better, size unsure"
    WORSE_SIZE_UNSURE = "worse, size unsure"
    BETTER_SIZE_NOT_JUDGED = "better, size not judged"
    WORSE_SIZE_NOT_JUDGED = "worse, size not judged"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class ConfidenceInterval:
    """Where a difference lies, with the confidence `level`."""

    low: float
    high: float
    level: float

    @property
    def holds_zero(self) -> bool:
        """Whether no difference at all is among what it holds."""
        return self.low <= 0 <= self.high

    def verdict(self, effect: float | None) -> ComparisonVerdict:
        """What it says where `effect`, above 0, is the smallest difference that matters; None: nobody said."""
        if effect is not None:
            if self.low >= effect:
                return ComparisonVerdict.BETTER
            if self.high <= -effect:
                return ComparisonVerdict.WORSE
            if -effect < self.low and self.high < effect:
                return ComparisonVerdict.EQUIVALENT
        if self.low > 0:
            return ComparisonVerdict.BETTER_SIZE_NOT_JUDGED if effect is None else ComparisonVerdict.BETTER_SIZE_UNSURE
        if self.high < 0:
            return ComparisonVerdict.WORSE_SIZE_NOT_JUDGED if effect is None else ComparisonVerdict.WORSE_SIZE_UNSURE
        return ComparisonVerdict.INCONCLUSIVE


@dataclass(frozen=True)
class MeanDifference:
    """The difference of two variants over their seeds, three or more on each side."""

    mean: float
    error: float
    """Standard error of `mean`."""
    freedom: float
    """Degrees of freedom of the t distribution."""
    method: Literal["paired", "welch"]
    """`paired`: of the differences seed by seed. `welch`: of the difference of the means."""
    seeds: tuple[int, int]
    """How many the baseline has, and the other."""
    spread: float
    """Standard deviation: of the differences where they are paired, else of one run (the mean of both variances)."""
    p: float
    """Two-sided, of the same test."""
    signs_p: float | None
    """Two-sided, of the signs of six pairs or more; None for fewer."""
    p_better: float
    """Share of pairs of runs in which the other is better, ties by half: seed by seed where they are paired."""

    def interval(self, level: float = 0.95) -> ConfidenceInterval:
        """The t interval. Without any spread it has no width: whether the values can be told apart at all is another
        question, which the size of the evaluation set answers."""
        half = _t(1 - (1 - level) / 2, self.freedom) * self.error if self.error else 0.0
        return ConfidenceInterval(self.mean - half, self.mean + half, level)

    def signs_disagree(self, level: float) -> bool:
        """Whether the signs say something else than the interval."""
        return self.signs_p is not None and (self.signs_p < 1 - level) == self.interval(level).holds_zero

    def seeds_needed(self, effect: float | None, level: float = 0.95) -> int | None:
        """Seeds on each side with which a true difference of `effect` (None: of the size that was found) would be seen
        with a power of 0.8; None for more than a thousand, or where the spread is not known."""
        effect = abs(self.mean) if effect is None else effect
        if not effect or not self.spread:
            return None
        for count in range(FEWEST_SEEDS, _MOST_SEEDS + 1):
            if self._power(count, effect, 1 - level) >= _POWER:
                return count
        return None

    def _power(self, count: int, effect: float, alpha: float) -> float:
        from scipy import special

        is_paired = self.method == "paired"
        error = self.spread / math.sqrt(count) * (1 if is_paired else math.sqrt(2))
        freedom = count - 1 if is_paired else 2 * (count - 1)
        found = 1 - float(special.nctdtr(freedom, effect / error, _t(1 - alpha / 2, freedom)))
        return 1.0 if math.isnan(found) else found  # so far out that scipy has no number for it


def difference(
    base: Mapping[int, float], other: Mapping[int, float], *, is_more_better: bool = True
) -> MeanDifference | None:
    """The difference of `other` to `base`, values by seed; None where a side has fewer than three seeds.

    With the same seeds on both sides it is that of the pairs.
    """
    if min(len(base), len(other)) < FEWEST_SEEDS:
        return None
    sign = 1.0 if is_more_better else -1.0
    olds, news = ([sign * side[seed] for seed in sorted(side)] for side in (base, other))
    if base.keys() != other.keys():
        return _unpaired(olds, news)
    pairs = [new - old for old, new in zip(olds, news, strict=True)]
    mean, spread = statistics.fmean(pairs), statistics.stdev(pairs)
    error, freedom = spread / math.sqrt(len(pairs)), len(pairs) - 1
    return MeanDifference(
        mean=mean,
        error=error,
        freedom=freedom,
        method="paired",
        seeds=(len(olds), len(news)),
        spread=spread,
        p=_p(mean, error, freedom),
        signs_p=_signs_p(pairs) if len(pairs) >= _SIGNED_PAIRS else None,
        p_better=_p_better(pairs),
    )


def _unpaired(olds: Sequence[float], news: Sequence[float]) -> MeanDifference:
    variances = [statistics.variance(side) for side in (olds, news)]
    parts = [variance / len(side) for variance, side in zip(variances, (olds, news), strict=True)]
    total = sum(parts)
    weights = sum(part**2 / (len(side) - 1) for part, side in zip(parts, (olds, news), strict=True))
    mean = statistics.fmean(news) - statistics.fmean(olds)
    freedom = total**2 / weights if weights else float(len(olds) + len(news) - 2)
    return MeanDifference(
        mean=mean,
        error=math.sqrt(total),
        freedom=freedom,
        method="welch",
        seeds=(len(olds), len(news)),
        spread=math.sqrt(statistics.fmean(variances)),
        p=_p(mean, math.sqrt(total), freedom),
        signs_p=None,
        p_better=_p_better([new - old for old in olds for new in news]),
    )


def _t(share: float, freedom: float) -> float:
    from scipy import special

    return float(special.stdtrit(freedom, share))


def _p(mean: float, error: float, freedom: float) -> float:
    from scipy import special

    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * special.stdtr(freedom, -abs(mean) / error))


def _signs_p(pairs: Sequence[float]) -> float:
    """How often the mean of the differences lies as far from 0 as it does, were their signs a matter of chance: exact up
    to 16 pairs; beyond, over as many patterns drawn from a fixed seed, and the one that was found."""
    import numpy as np

    values = np.asarray(pairs)
    if len(pairs) <= _MOST_PAIRS:
        patterns = 1 - 2 * (np.arange(2 ** len(pairs))[:, None] >> np.arange(len(pairs)) & 1)
    else:
        drawn = np.random.default_rng(0).integers(2, size=(2**_MOST_PAIRS - 1, len(pairs)))
        patterns = np.concatenate([np.ones((1, len(pairs))), 1 - 2 * drawn])
    # What is as far but for the noise of float32, in which metrics are found, is as far.
    far = abs(values.sum()) - 1e-5 * np.abs(values).sum()
    return float(np.mean(np.abs(patterns @ values) >= far))


def _p_better(differences: Sequence[float]) -> float:
    return statistics.fmean(1.0 if one > 0 else 0.5 if one == 0 else 0.0 for one in differences)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p of each, in the same order."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def noise_of(share: float, rows: int) -> float:
    """Standard error of a share (accuracy) that was found on `rows` independent rows: binomial."""
    return math.sqrt(max(share * (1 - share), 0.0) / rows)


def is_share(metric: str) -> bool:
    """Whether a metric is a share of rows, as far as its name tells: `accuracy`, `val_acc`, `top_k_accuracy`, `accuracy_1`."""
    words = metric.lower().split("_")
    return words[-1] in _SHARES or words[0] in _SHARES
