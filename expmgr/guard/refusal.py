"""The error for a refused checkpoint: the differences, and the command to use instead."""

from __future__ import annotations

from expmgr.errors import CheckpointRefused
from expmgr.guard.judge import Judgement
from expmgr.paths import seeds_option


def refusal(judgement: Judgement, checkpoint: str, variant: str, seed: int = 0) -> CheckpointRefused:
    """The error for a judgement that does not let `checkpoint` (a path to show) into `variant`."""
    shown = judgement.differences[:5]
    widths = [max(len(getattr(one, side)) for one in shown) for side in ("what", "saved")]
    lines = [f"{one.what:<{widths[0]}}   saved {one.saved:<{widths[1]}}   wanted {one.wanted}" for one in shown]
    rest = len(judgement.differences) - len(shown)
    if rest:
        lines.append(f"and {rest} more (expmgr check {variant}{seeds_option(seed)} --all)")
    return CheckpointRefused(
        f"{checkpoint} was not restored: it does not fit variant {variant}",
        details=[line.rstrip() for line in [*lines, *judgement.notes]],
        left_alone="Nothing was changed on disk.",
        hint=judgement.differences[0].rule.way_out(variant, seed) + _allowing(judgement),
    )


def _allowing(judgement: Judgement) -> str:
    """How a person takes the refusal upon themselves, where that can be."""
    # Those that were given too: what is typed next has to name them all.
    refused = [one for one in judgement.differences if one.is_allowed or not one.verdict.may_restore]
    if not all(one.rule.may_be_allowed for one in refused):
        return ""
    rules = dict.fromkeys(one.rule.id for one in refused)
    return "; or, where you know better, go on with " + " ".join(f"--allow {rule}" for rule in rules)
