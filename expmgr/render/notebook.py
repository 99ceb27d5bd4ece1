"""Tables and curves as HTML, for notebooks."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from expmgr.runs.record import RunRecord

_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2")


def html_table(head: Sequence[str], rows: Iterable[tuple[str, ...]]) -> str:
    """A table; every cell is text, never markup."""

    def line(cells: Sequence[str], kind: str) -> str:
        return "<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in cells) + "</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def loss_curves(records: Sequence[RunRecord]) -> str:
    """The loss of training of each run over its steps, as a picture; empty where there is none."""
    curves = {f"{one.variant}:{one.seed}": one.curves.get("train", {}).get("loss", []) for one in records}
    curves = {name: points for name, points in curves.items() if len(points) > 1}
    if not curves:
        return ""
    steps = [step for points in curves.values() for step, _ in points]
    values = [value for points in curves.values() for _, value in points]
    low, high, first, last = min(values), max(values), min(steps), max(steps)
    width, height, left, top = 560, 200, 60, 10

    def place(step: int, value: float) -> str:
        x = left + width * (step - first) / max(last - first, 1)
        y = top + height * (high - value) / ((high - low) or 1.0)
        return f"{x:.1f},{y:.1f}"

    lines, names = [], []
    for number, (name, points) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(place(step, value) for step, value in points)
        lines.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{path}"/>')
        names.append(
            f'<text x="{left + width + 10}" y="{top + 12 + 16 * number}" fill="{colour}">{html.escape(name)}</text>'
        )
    bottom = top + height
    axes = (
        f'<path d="M{left},{top}V{bottom}H{left + width}" fill="none" stroke="#888"/>'
        f'<text x="{left - 6}" y="{top + 10}" text-anchor="end">{high:.3g}</text>'
        f'<text x="{left - 6}" y="{bottom}" text-anchor="end">{low:.3g}</text>'
        f'<text x="{left}" y="{bottom + 16}">{first}</text>'
        f'<text x="{left + width}" y="{bottom + 16}" text-anchor="end">step {last}</text>'
        f'<text x="{left + width / 2}" y="{bottom + 16}" text-anchor="middle">loss of training</text>'
    )
    size = f'width="{left + width + 180}" height="{max(bottom + 24, 30 + 16 * len(curves))}"'
    style = 'font-family="sans-serif" font-size="12"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{axes}{"".join(lines)}{"".join(names)}</svg>'
