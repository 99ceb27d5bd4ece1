"""`compare --plot`: intervals, values and curves as SVG, PNG or one HTML page.

matplotlib draws; it comes with `expmgr[plot]` and is imported here alone, when a picture is asked for.
"""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expmgr.comparison.statistics import is_share
from expmgr.disk import durable
from expmgr.errors import ExpmgrError, OutputProblem

if TYPE_CHECKING:
    from expmgr.comparison.comparison import Comparison, Row

Curves = Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]

ENDINGS = (".svg", ".png", ".html")
#: Okabe and Ito's colours, which people who see few colours can tell apart.
_COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MOST_VALUES = 60


def require(path: Path) -> None:
    """Raise where a picture cannot be made: another ending, no matplotlib, no folder."""
    if path.suffix.lower() not in ENDINGS:
        raise OutputProblem(f"a picture is {', '.join(ENDINGS)}, not {path.suffix or path.name}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ExpmgrError(
            "pictures are drawn by matplotlib, which is not installed", hint='pip install "expmgr[plot]"'
        ) from None
    if not path.absolute().parent.is_dir():
        raise OutputProblem(f"there is no folder {path.absolute().parent}")


def draw(comparison: Comparison, curves_of: Callable[[str], Curves], path: Path) -> None:
    """Write the picture `path`, whole or not at all. `curves_of` gives the curves of a run."""
    require(path)
    kind = path.suffix.lower()
    is_page = kind == ".html"
    content = page(comparison, curves_of).encode() if is_page else picture(comparison, curves_of, kind[1:])
    try:
        with durable.disk_errors(str(path)):
            durable.write_bytes(path, content)
    except OSError as error:
        raise OutputProblem(
            f"{path} cannot be written: {error.strerror}", hint="another folder, or the right to write there"
        ) from None


def page(comparison: Comparison, curves_of: Callable[[str], Curves]) -> str:
    """One page that needs nothing else: verdicts, picture, numbers, checks."""
    svg = inline(comparison, curves_of)
    verdicts = "".join(
        f"<li><b>{html.escape(row.variant)}</b>: {html.escape('; '.join([row.result.sentence, *row.result.notes]))}</li>"
        for row in comparison.rows
        if row.result
    )
    seen = dict.fromkeys((one.answer.value, one.id, one.told) for one in comparison.checks if one.answer.value != "ok")
    checks = "".join(f"<tr><td>{'</td><td>'.join(map(html.escape, one))}</td></tr>" for one in seen)
    title = html.escape(f"{comparison.metric} ({comparison.split}), against {comparison.baseline}")
    style = (
        "body{font:15px sans-serif;max-width:1000px;margin:2em auto;padding:0 1em}svg{max-width:100%;height:auto}"
        "td{padding:.2em .8em;border-top:1px solid #ddd;vertical-align:top}table{border-collapse:collapse}"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{style}</style>'
        f"<h1>{title}</h1><ul>{verdicts}</ul>{svg}<table>{_numbers(comparison)}</table>"
        f"<h2>What has to be known</h2><table>{checks}</table></html>\n"
    )


def inline(comparison: Comparison, curves_of: Callable[[str], Curves]) -> str:
    """The picture as a part of a page, as wide as there is room."""
    svg = picture(comparison, curves_of, "svg").decode()
    return svg[svg.index("<svg") :].replace("<svg ", '<svg style="max-width:100%;height:auto" ', 1)


def _numbers(comparison: Comparison) -> str:
    head = ("variant", "seeds", f"{comparison.metric} ({comparison.split})", "std", "difference")
    lines = ["".join(f"<th>{html.escape(name)}</th>" for name in head)]
    for row in comparison.rows:
        numbers = ["-" if one is None else f"{one:.4f}" for one in (row.mean, row.std, row.difference)]
        cells = [row.variant, str(len(row.values)), *numbers[:2], "baseline" if row.is_baseline else numbers[2]]
        lines.append("".join(f"<td>{html.escape(cell)}</td>" for cell in cells))
    return "".join(f"<tr>{line}</tr>" for line in lines)


def picture(comparison: Comparison, curves_of: Callable[[str], Curves], form: str) -> bytes:
    """The picture in `form`, `svg` or `png`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # Text stays text, and the same comparison gives the same bytes.
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": "expmgr",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    count = len(comparison.rows)
    with pyplot.rc_context(settings):
        figure, axes = pyplot.subplots(1, 3, figsize=(13, 1.6 + max(0.45 * count, 2.0)), layout="constrained")
        try:
            colours = {row.variant: _COLOURS[place % len(_COLOURS)] for place, row in enumerate(comparison.rows)}
            _intervals(axes[0], comparison, colours)
            _values(axes[1], comparison, colours)
            _curves(axes[2], comparison, curves_of, colours)
            stream = io.BytesIO()
            figure.savefig(
                stream,
                format=form,
                dpi=150,
                metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")) if form == "svg" else None,
            )
        finally:
            pyplot.close(figure)
    return stream.getvalue()


def _intervals(axes: Any, comparison: Comparison, colours: Mapping[str, str]) -> None:
    """The interval that decides, thin, and the one at 95 %, thick."""
    scale = 100 if is_share(comparison.metric) else 1
    judged = [row for row in comparison.rows if row.result]
    for place, row in enumerate(judged):
        result = row.result
        assert result is not None
        if result.interval and result.family and result.difference:
            colour = colours[row.variant]
            axes.plot(
                [scale * result.family.low, scale * result.family.high], [place, place], color=colour, linewidth=1.2
            )
            axes.plot(
                [scale * result.interval.low, scale * result.interval.high],
                [place, place],
                color=colour,
                linewidth=4,
                solid_capstyle="butt",
            )
            axes.plot(
                [scale * result.difference.mean], [place], "o", color="white", markeredgecolor=colour, markersize=6
            )
        axes.text(0, place + 0.32, result.sentence, fontsize=7, ha="center", va="center")
    axes.axvline(0, color="#888", linewidth=1)
    if comparison.minimum_effect:
        axes.axvspan(-scale * comparison.minimum_effect, scale * comparison.minimum_effect, color="#eee", zorder=0)
    axes.set_yticks(range(len(judged)), [row.variant for row in judged])
    axes.set_ylim(-0.6, max(len(judged), 1) - 0.4)
    axes.invert_yaxis()
    reach = max(map(abs, axes.get_xlim()))
    axes.set_xlim(-reach, reach)
    unit = "points" if scale == 100 else comparison.metric
    axes.set_xlabel(f"difference to {comparison.baseline} ({unit}; better to the right)")
    axes.set_title("difference", loc="left")


def _values(axes: Any, comparison: Comparison, colours: Mapping[str, str]) -> None:
    """Every value, by seed; those of one seed joined."""
    names = [row.variant for row in comparison.rows]
    for seed in sorted({seed for row in comparison.rows for seed in row.values})[:_MOST_VALUES]:
        points = [(place, row.values[seed]) for place, row in enumerate(comparison.rows) if seed in row.values]
        axes.plot(*zip(*points, strict=True), color="#ccc", linewidth=0.8, zorder=0)
    for place, row in enumerate(comparison.rows):
        axes.plot(
            [place] * len(row.values), [*row.values.values()], "o", color=colours[row.variant], markersize=4, alpha=0.8
        )
        if row.mean is not None:
            axes.plot([place - 0.2, place + 0.2], [row.mean, row.mean], color=colours[row.variant], linewidth=2)
    axes.set_xticks(range(len(names)), names, rotation=20 if max(map(len, names)) > 12 else 0)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_title(f"{comparison.metric} ({comparison.split}), a point a seed", loc="left")


def _curves(axes: Any, comparison: Comparison, curves_of: Callable[[str], Curves], colours: Mapping[str, str]) -> None:
    """Mean over the seeds, and the band from the least to the largest: of the metric where it was evaluated on the way,
    else of the loss of training."""
    found = {row.variant: [curves_of(one.run_id) for one in row.side.runs] for row in comparison.rows}
    paths = ((comparison.split, comparison.metric), ("eval", comparison.metric), ("train", "loss"))
    split, metric = next((path for path in paths if _has(found, *path)), paths[-1])
    for row in comparison.rows:
        _curve(axes, row, [one.get(split, {}).get(metric, []) for one in found[row.variant]], colours[row.variant])
    axes.set_xlabel("step")
    axes.set_title(f"{metric} ({split}), mean and range", loc="left")
    if any(axes.get_legend_handles_labels()[1]):
        axes.legend(frameon=False, fontsize=8)


def _has(found: Mapping[str, Sequence[Curves]], split: str, metric: str) -> bool:
    return any(len(one.get(split, {}).get(metric, [])) > 2 for curves in found.values() for one in curves)


def _curve(axes: Any, row: Row, curves: Sequence[Sequence[tuple[int, float]]], colour: str) -> None:
    by_step: dict[int, list[float]] = {}
    for points in curves:
        for step, value in points:
            by_step.setdefault(step, []).append(value)
    steps = sorted(step for step, values in by_step.items() if len(values) == len(curves))
    if len(steps) < 2:
        return
    means = [sum(by_step[step]) / len(by_step[step]) for step in steps]
    axes.plot(steps, means, color=colour, linewidth=1.5, label=row.variant)
    if len(curves) > 1:
        axes.fill_between(
            steps,
            [min(by_step[step]) for step in steps],
            [max(by_step[step]) for step in steps],
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
