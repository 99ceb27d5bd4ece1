"""Which of the guard's rules a person may allow (`--allow`)."""

from __future__ import annotations

from collections.abc import Sequence

from expmgr.errors import BadArgument, did_you_mean
from expmgr.guard.rules import RULES


def allowed_rules(ids: Sequence[str], variant: str) -> list[str]:
    """The ids of rules that a person allows, each once; `BadArgument` for an unknown rule, or one that is never
    allowed. `variant` is the one whose checkpoint it is about."""
    for one in ids:
        if one not in RULES:
            hint = did_you_mean(one, RULES, f"expmgr check {variant} names the rules that fired")
            raise BadArgument(f"there is no rule {one!r}: {hint}")
        if not RULES[one].may_be_allowed:
            raise BadArgument(f"{one} is never allowed: {RULES[one].why}")
    return list(dict.fromkeys(ids))
