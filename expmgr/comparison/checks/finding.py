"""What a check returns, and what several checks share: thresholds, digests, the suggested command."""

from __future__ import annotations

from dataclasses import dataclass

from expmgr.comparison.sides import Answer, Case
from expmgr.paths import seeds_text
from expmgr.runs.record import RunRecord

#: By how much budgets, sizes and times may differ.
SHARE = 0.10
#: Seconds below which nobody waits for a difference, and in which a machine's own noise is large.
SHORT_S = 5.0


@dataclass(frozen=True)
class Found:
    """What a check found wrong, or has to say."""

    answer: Answer
    told: str
    mend: str | None = None


#: What a check says that looks at results, where there are none: never that all is well.
NO_RESULT = Found(Answer.UNKNOWN, "a side has no result")


def digest_of(record: RunRecord, split: str) -> str | None:
    return record.data[split].sha256 if split in record.data else None


def again(case: Case) -> str:
    """Checkpoints that are there are evaluated by the code that the branches have now, without training."""
    seeds = sorted({one.seed for side in case.sides for one in side.counted})
    return f"expmgr run {case.base.name} {case.other.name}{f' --seeds {seeds_text(seeds)}' if seeds else ''}"


def differ(one: float, two: float) -> bool:
    return abs(one - two) > SHARE * min(one, two)
