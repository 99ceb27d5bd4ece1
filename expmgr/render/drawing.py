"""Draws with characters: intervals of differences, and sparklines of curves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from expmgr.comparison.statistics import is_share

if TYPE_CHECKING:
    from expmgr.comparison.results import Result

_WIDTH = 56
_LEVELS = "▁▂▃▄▅▆▇█"
_SPARKS = 16


def sparkline(values: Sequence[float]) -> str:
    """The course of `values` in at most 16 characters; empty for fewer than three."""
    found = [value for value in values if math.isfinite(value)]
    if len(found) < 3:
        return ""
    count = min(_SPARKS, len(found))
    picked = [found[round(place * (len(found) - 1) / (count - 1))] for place in range(count)]
    low, high = min(picked), max(picked)
    if low == high:
        return _LEVELS[0] * count
    return "".join(_LEVELS[min(int((value - low) / (high - low) * len(_LEVELS)), len(_LEVELS) - 1)] for value in picked)


def forest(named: Sequence[tuple[str, Result]]) -> list[str]:
    """A line a variant: the interval that decides (`├─┤`), the one at 95 % in it where it is narrower (`━`), the mean (`●`),
    no difference (`│`), and the minimum effect (`┊`). Empty where there is no interval."""
    drawn = [(name, result) for name, result in named if result.interval and result.family]
    return list(_forest(drawn)) if drawn else []


def _forest(drawn: Sequence[tuple[str, Result]]) -> Iterator[str]:
    effect = drawn[0][1].case.effect or 0.0
    ends = [0.0, effect, -effect]
    for _, result in drawn:
        assert result.family is not None
        ends += [result.family.low, result.family.high]
    low, high = min(ends), max(ends)
    room = (high - low) * 0.04 or 1.0
    scale = _Scale(low - room, high + room)
    margin = max(len(name) for name, _ in drawn)
    yield ""
    for name, result in drawn:
        yield f"{name.ljust(margin)}  {_line(result, effect, scale)}".rstrip()
    is_points = is_share(drawn[0][1].case.base.metric)
    yield f"{''.ljust(margin)}  {_axis(scale, is_points)}"
    yield f"{''.ljust(margin)}  {'← worse'.ljust(_WIDTH - 8)}{'better →'}"


class _Scale:
    """Values to columns."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def __call__(self, value: float) -> int:
        share = (value - self.low) / (self.high - self.low)
        return min(max(round(share * (_WIDTH - 1)), 0), _WIDTH - 1)


def _line(result: Result, effect: float, scale: _Scale) -> str:
    assert result.interval is not None
    assert result.family is not None
    assert result.difference is not None
    cells = [" "] * _WIDTH
    for value in (effect, -effect) if effect else ():
        cells[scale(value)] = "┊"
    cells[scale(0.0)] = "│"
    for column in range(scale(result.family.low), scale(result.family.high) + 1):
        cells[column] = "─"
    for column in range(scale(result.interval.low), scale(result.interval.high) + 1):
        cells[column] = "━" if result.family != result.interval else "─"
    cells[scale(result.family.low)], cells[scale(result.family.high)] = "├", "┤"
    cells[scale(result.difference.mean)] = "●"
    return "".join(cells)


def _axis(scale: _Scale, is_points: bool) -> str:
    cells = [" "] * (_WIDTH + 10)
    for value in (scale.low, 0.0, scale.high):
        text = f"{100 * value:+.1f}" if is_points else f"{value:+.3g}"
        text = "0" if value == 0.0 else text
        at = min(max(scale(value) - len(text) // 2, 0), _WIDTH - len(text))
        if all(cell == " " for cell in cells[max(at - 1, 0) : at + len(text) + 1]):
            cells[at : at + len(text)] = text
    return "".join(cells).rstrip()
