"""One difference between a checkpoint and a model, and how its saved and wanted sides are shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from expmgr.guard.rules import Rule, Verdict


@dataclass(frozen=True)
class Difference:
    """One thing that moved: which rule knows it, what it is called, and both sides."""

    rule: Rule
    what: str
    saved: str
    wanted: str
    is_allowed: bool = False
    """Whether a refusal was let pass by `--allow`."""

    @property
    def verdict(self) -> Verdict:
        return Verdict.RESUME if self.is_allowed else self.rule.verdict

    def as_dict(self) -> dict[str, Any]:
        return {
            "rule": self.rule.id,
            "verdict": self.verdict.value,
            "what": self.what,
            "saved": self.saved,
            "wanted": self.wanted,
            "why": self.rule.why,
            "allowed": self.is_allowed,
        }


def pairs_of(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Each key whose values differ, with both as they are shown; `key.inner` where both are configurations of one class."""
    for key in [*saved, *(key for key in wanted if key not in saved)]:
        old, new = saved.get(key, "nothing"), wanted.get(key, "nothing")
        if old == new and (key in saved) == (key in wanted):
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping) and old.get("class") == new.get("class"):
            yield from ((f"{key}.{inner}", one, two) for inner, one, two in pairs_of(old, new))
        else:
            yield key, *both_sides(old, new)


_SHOWN_CHARS = 40


def both_sides(old: Any, new: Any) -> tuple[str, str]:
    """Both as they are shown, long ones cut so that their first difference is seen."""
    texts = str(old), str(new)
    if max(map(len, texts)) <= _SHOWN_CHARS or texts[0][: _SHOWN_CHARS - 3] != texts[1][: _SHOWN_CHARS - 3]:
        return _shown(old), _shown(new)
    same = next(at for at, (one, two) in enumerate(zip_longest(*texts)) if one != two) if texts[0] != texts[1] else 0
    begin = max(0, same - 8)
    return _shown(f"...{texts[0][begin:]}"), _shown(f"...{texts[1][begin:]}")


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."
