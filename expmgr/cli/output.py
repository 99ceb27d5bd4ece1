"""What all commands print with: tables in four formats on stdout, messages on stderr."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from expmgr import escape
from expmgr.errors import ExpmgrError
from expmgr.escape import CONTROL, clean, markdown
from expmgr.redact import redacted

if TYPE_CHECKING:
    from expmgr.project import Project
    from expmgr.runs.record import RunRecord
    from expmgr.spec.experiment import Compared

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, stable and documented.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV.")]
AsMarkdown = Annotated[bool, typer.Option("--md", help="Print a Markdown table.")]


class Form(Enum):
    """How a table is printed."""

    TERMINAL = "terminal"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "md"


def form(as_json: bool, as_csv: bool, as_markdown: bool) -> Form:
    """The one form that was asked for."""
    asked = [one for one, wanted in ((Form.JSON, as_json), (Form.CSV, as_csv), (Form.MARKDOWN, as_markdown)) if wanted]
    if len(asked) > 1:
        raise typer.BadParameter("only one of --json, --csv and --md can be given")
    return asked[0] if asked else Form.TERMINAL


def folder() -> Path:
    """Where the command works."""
    try:
        return Path.cwd()
    except OSError as error:
        raise ExpmgrError(
            f"the current folder cannot be used: {error.strerror}",
            left_alone="Nothing was changed.",
            hint="change to a folder that exists, or name it: expmgr -C DIR ...",
        ) from None


def tell_unsaid(reason: str) -> None:
    """Say that something happened which could not be written into the log."""
    tell([f"Note: the log does not say it yet: {reason.splitlines()[0]}; push says it, once that is mended"])


def tell_unheard(project: Project) -> None:
    """Say that what was said counts for nobody else, where signatures are asked for and it has none that counts."""
    from expmgr.team.verify_signatures import unheard

    reason = unheard(project)
    if reason is not None:
        tell([f"Note: for others this is an unsigned claim: {reason}"])


def tell(lines: Iterable[str]) -> None:
    """Words to the person, on stderr."""
    for line in lines:
        print(clean(redacted(line)), file=sys.stderr)


def note(told: str) -> None:
    """A sentence that a person should know, on stderr."""
    tell([f"Note: {told}"])


def show(*lines: str) -> None:
    """Data, on stdout; an empty line where nothing is given."""
    for line in lines or ("",):
        print(clean(line))


def show_json(value: Any, *, indent: int | None = 1) -> None:
    plain = not _prints_all()
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=plain, allow_nan=False)
    except ValueError:  # JSON has no such numbers, and most of its readers fail on Python's words for them
        text = json.dumps(_finite(value), indent=indent, ensure_ascii=plain)
    # Escapes mean the same to whoever parses it, and nothing to a terminal.
    print(CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def _prints_all() -> bool:
    """Whether stdout takes every character."""
    return (sys.stdout.encoding or "utf-8").lower().replace("_", "-") in ("utf-8", "utf8")


#: A terminal with fewer columns has no room for a table: lines are as long as they need to be.
_NARROWEST = 20


def _room() -> int:
    """The columns of the terminal."""
    import shutil

    return (
        int(os.environ["COLUMNS"]) if os.environ.get("COLUMNS", "").isdecimal() else shutil.get_terminal_size().columns
    )


def _finite(value: Any) -> Any:
    """`value` with null for each number that is not finite."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass
class Table:
    """Columns and rows of text. `right` names the columns that hold numbers; `wrap` the one that may take lines."""

    columns: Sequence[str]
    right: frozenset[str] = frozenset()
    wrap: frozenset[str] = frozenset()
    dropped: Sequence[str] = ()
    """Columns that a narrow terminal goes without, the first to go first."""
    rows: list[Sequence[str]] = field(default_factory=list)

    def show(self, how: Form) -> None:
        """Print the table as `how`; JSON has a shape of its own and is not printed here."""
        if how is Form.CSV:
            self._csv()
        elif how is Form.MARKDOWN:
            self._markdown()
        else:
            self._terminal()

    def _csv(self) -> None:
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([clean(cell) for cell in row] for row in (self.columns, *self.rows))
        sys.stdout.write(stream.getvalue())

    def _markdown(self) -> None:
        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(markdown(cell) for cell in cells) + " |"

        print(line(self.columns))
        print("|" + "|".join("---:" if name in self.right else "---" for name in self.columns) + "|")
        for row in self.rows:
            print(line(row))

    def _terminal(self) -> None:
        """Fitted to the terminal; a pipe has no width, so lines there are as long as they need to be."""
        if sys.stdout.isatty() and _room() >= _NARROWEST:
            self._narrowed().show_fitted()
            return
        cells = [[clean(cell) for cell in row] for row in (self.columns, *self.rows)]
        widths = [max(len(row[at]) for row in cells) for at in range(len(self.columns))]
        for row in cells:
            padded = (
                cell.rjust(width) if name in self.right else cell.ljust(width)
                for name, cell, width in zip(self.columns, row, widths, strict=True)
            )
            print("  ".join(padded).rstrip())

    def _narrowed(self) -> Table:
        """Without the columns that have no room."""
        room = _room()
        columns, rows = list(self.columns), [list(row) for row in self.rows]
        for name in self.dropped:
            lengths = [[len(cell) for cell in row] for row in (columns, *rows)]
            widths = [
                min(max(row[at] for row in lengths), 24)
                if columns[at] in self.wrap
                else max(row[at] for row in lengths)
                for at in range(len(columns))
            ]
            if sum(widths) + 2 * (len(widths) - 1) <= room:
                break
            if name in columns:
                at = columns.index(name)
                for row in (columns, *rows):
                    del row[at]
        return Table(columns, self.right, self.wrap, (), [*rows])

    def show_fitted(self) -> None:
        """As wide as the terminal, cells folded where they have to be."""
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=None, pad_edge=False, header_style="bold")
        for name in self.columns:
            justify: Any = "right" if name in self.right else "left"
            wrapped = name in self.wrap
            table.add_column(name, justify=justify, no_wrap=not wrapped, overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(clean(cell)) for cell in row))
        Console(highlight=False).print(table)


def number(value: float | None, precision: int = 4) -> str:
    """A measured value with `precision` digits behind the point; a dash for none."""
    return "-" if value is None else f"{value:.{precision}f}"


def result(record: RunRecord, compared: Compared) -> str:
    """The metric that a run is compared by, at its selected checkpoint; empty where it was not evaluated."""
    value = record.metric(compared.metric, compared.split)
    return "" if value is None else f"{compared.metric} {number(value)} ({compared.split})"


def seconds(value: float | None) -> str:
    """A duration as people say it."""
    if value is None:
        return "-"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def size(size_bytes: int) -> str:
    """A number of bytes as people say it."""
    value = float(size_bytes)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def moment(at: float | None) -> str:
    """Seconds since 1970 as date and time in UTC, as reviews have it; a dash for none."""
    return "-" if at is None else escape.moment(at)


def value_text(value: Any) -> str:
    """A value of a spec as `--set` would take it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(value_text(item) for item in value) + "]"
    return str(value)
