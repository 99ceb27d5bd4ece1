"""Options that several commands take, read into what they mean."""

from __future__ import annotations

import re
from collections.abc import Sequence

import typer

_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?\Z")
_MOST_SEEDS = 1000


def parse_seeds(text: str) -> list[int]:
    """`0-2,7` as [0, 1, 2, 7], in the order given, each once."""
    seeds: list[int] = []
    for part in text.split(","):
        match = _RANGE.match(part.strip())
        if not match:
            raise typer.BadParameter(f"{part!r} is neither a seed nor a range of seeds, such as 0-4 or 0,3,5")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise typer.BadParameter(f"{part!r}: the last seed is smaller than the first")
        if last - first >= _MOST_SEEDS:
            raise typer.BadParameter(f"{part!r} has more than {_MOST_SEEDS} seeds")
        seeds.extend(range(first, last + 1))
    return list(dict.fromkeys(seeds))


def parse_rules(ids: Sequence[str]) -> list[str]:
    """The ids of rules that may be let pass, as given."""
    from expmgr.errors import did_you_mean
    from expmgr.guard.rules import RULES

    for one in ids:
        if one not in RULES:
            hint = did_you_mean(one, RULES, "expmgr check VARIANT names the rules that fired")
            raise typer.BadParameter(f"there is no rule {one!r}: {hint}")
        if not RULES[one].may_be_allowed:
            raise typer.BadParameter(f"{one} is never let pass: {RULES[one].why}")
    return list(dict.fromkeys(ids))
