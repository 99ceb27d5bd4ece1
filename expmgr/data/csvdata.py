"""Reads CSV data and the types of its columns; an error names file, line and column.

No numpy and no TensorFlow here: `expmgr init` reads files with this as well. Cells and names are stripped of blanks at
both ends; blank lines are passed over. Files are UTF-8, with or without a byte order mark.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from expmgr.checkpoints.signature import DataContract, Feature, SplitContent
from expmgr.data.locations import NotRegular, Places, is_outside, read_regular
from expmgr.errors import DataProblem, did_you_mean
from expmgr.spec.data import CsvData

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\Z", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)\Z", re.IGNORECASE)
#: The model computes in float32; what is larger would be infinite there.
_LARGEST = 3.4028234663852886e38


#: A machine that knows of no data outside of git.
NOWHERE = Places()


@dataclass(frozen=True)
class CsvTable:
    """One file: `rows[i]` stands on line `lines[i]` and has a cell for each of `columns`."""

    source: str
    """The path, as it is shown."""
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    sha256: str

    def cells(self, column: str) -> Iterator[tuple[int, str]]:
        """Line and text of every cell of `column`; `DataProblem` where one is empty."""
        at = self.columns.index(column)
        for line, row in zip(self.lines, self.rows, strict=True):
            if not row[at]:
                raise _problem(
                    f"{self.source}:{line}: column {column} has no value", "fill it in, or leave the row out"
                )
            yield line, row[at]


@dataclass(frozen=True)
class Split:
    """One split as the model takes it: `columns` in the order of the features, `targets` a class index or a number."""

    path: str
    sha256: str
    rows: int
    columns: dict[str, list[float] | list[str]]
    targets: list[int] | list[float]

    def content(self) -> SplitContent:
        """What the model is given of it: values in order, whatever the columns are called and the file looks like."""
        digests = [content_digest(values) for values in (*self.columns.values(), self.targets)]
        return SplitContent(rows=self.rows, sha256=content_digest(digests))


@dataclass(frozen=True)
class Dataset:
    """All splits, and what the training split says about the columns."""

    features: list[Feature]
    label: str
    labels: list[str] | None
    splits: dict[str, Split]

    def contract(self) -> DataContract:
        """What a checkpoint that learns from this data requires of data."""
        return DataContract(
            features=self.features,
            label=self.label,
            labels=self.labels,
            targets=content_digest(self.splits["train"].targets),
            splits={name: split.content() for name, split in self.splits.items()},
        )

    def as_dict(self) -> dict[str, dict[str, str | int]]:
        """What a record holds of the data."""
        return {
            name: {"path": split.path, "rows": split.rows, "sha256": split.sha256}
            for name, split in self.splits.items()
        }


def load(data: CsvData, *, is_classifier: bool, experiment_dir: Path, root: Path, places: Places = NOWHERE) -> Dataset:
    """Read every split that `data` names from `experiment_dir`, which lies in the checkout `root`."""
    tables = {split: read_file(name, split, experiment_dir, root, places) for split, name in files_of(data).items()}
    return dataset(data, tables, is_classifier=is_classifier)


def files_of(data: CsvData) -> dict[str, str]:
    """Split to file, as the spec names it."""
    return {"train": data.train, "eval": data.eval, **({"test": data.test} if data.test else {})}


def dataset(data: CsvData, tables: Mapping[str, CsvTable], *, is_classifier: bool) -> Dataset:
    """The splits in `tables` as the model takes them."""
    for table in tables.values():
        require_column(table, data.label)
    labels = resolve_labels(data, tables["train"]) if is_classifier else None
    features = resolve_features(data, tables["train"])
    splits = {split: encode(table, features, data.label, labels) for split, table in tables.items()}
    train = splits["train"].columns
    features = [one.model_copy(update={"sha256": content_digest(train[one.name])}) for one in features]
    return Dataset(features, data.label, labels, splits)


def content_digest(values: Sequence[float] | Sequence[int] | Sequence[str]) -> str:
    """sha256 of a column: its numbers as 64-bit floats, or its words with their lengths."""
    digest = hashlib.sha256()
    if values and isinstance(values[0], str):
        for word in values:
            content = str(word).encode("utf-8", "surrogatepass")
            digest.update(b"%d:%b" % (len(content), content))
    else:
        digest.update(struct.pack(f"<{len(values)}d", *values))
    return digest.hexdigest()


def read_file(name: str, split: str, experiment_dir: Path, root: Path, places: Places = NOWHERE) -> CsvTable:
    """The table in the file `name`: relative to `experiment_dir` and in the checkout `root`, or outside by intent."""
    inside = root.resolve()
    if "\0" in name:
        raise _problem(f"data.{split} is {name!r}: no file has such a name", "name the file without the zero byte")
    if is_outside(name):
        return read_table(places.read(name, f"data.{split}"), name)
    path = (experiment_dir / name).resolve()
    if not path.is_relative_to(inside):
        raise _problem(
            f"data.{split} is {name}, which lies outside the repository",
            "a run reads what was committed: put the file into the experiment's folder and name it relative to that; "
            "data that is not in git has an absolute path, or ${data_root}/...",
        )
    shown = path.relative_to(inside).as_posix()
    try:
        return read_table(read_regular(path), shown)
    except FileNotFoundError:
        if (content := places.of_dvc(path, f"data.{split}")) is not None:
            return read_table(content, shown)
        raise _problem(
            f"{shown} is not in the commit (data.{split})",
            did_you_mean(path.name, (one.name for one in path.parent.glob("*.csv")), "add it with git, and commit"),
        ) from None
    except (IsADirectoryError, NotADirectoryError, PermissionError, NotRegular) as error:
        raise _problem(f"{shown} cannot be read (data.{split}): {error.strerror}") from None


def read_table(content: bytes, source: str) -> CsvTable:
    """The table in `content`; `DataProblem` names `source` and the line of what is wrong."""
    lines = list(_lines(_text(content, source), source))
    if not lines:
        raise _problem(f"{source} is empty", "the first line names the columns, every further line is a row")
    (header_line, header), *rows = lines
    _check_header(header, source, header_line)
    if not rows:
        raise _problem(f"{source} has a header and no rows")
    for line, row in rows:
        if len(row) != len(header):
            raise _problem(
                f"{source}:{line}: {_counted(len(row), 'value')} where the header names {len(header)} columns"
            )
    return CsvTable(
        source=source,
        columns=tuple(header),
        rows=tuple(tuple(row) for _, row in rows),
        lines=tuple(line for line, _ in rows),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _text(content: bytes, source: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _problem(
            f"{source}:{line}: byte 0x{content[error.start]:02x} is not UTF-8", "save the file as UTF-8"
        ) from None


def _lines(text: str, source: str) -> Iterator[tuple[int, list[str]]]:
    """The line that each row begins on, and its cells; blank lines left out."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    line = 1
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if len(cells) > 1 or any(cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise _problem(f"{source}:{line}: not CSV: {error}") from None


def _check_header(header: Sequence[str], source: str, line: int) -> None:
    hint = "the first line names the columns, each with a name of its own"
    for number, name in enumerate(header, 1):
        if not name:
            raise _problem(f"{source}:{line}: column {number} has no name", hint)
        if header.index(name) != number - 1:
            raise _problem(f"{source}:{line}: column {name} stands twice", hint)


def require_column(table: CsvTable, column: str) -> None:
    """`DataProblem` where `table` has no such column, with the one that was probably meant."""
    if column in table.columns:
        return
    problem = f"{table.source} has no column {column}"
    if lacks_header(table):
        raise _problem(
            f"{problem}: its first line holds values, not names", "write the names of the columns on the first line"
        )
    for mark, word in ((";", "semicolons"), ("\t", "tabs")):
        if len(table.columns) == 1 and mark in table.columns[0]:
            raise _problem(f"{problem}: its values are separated by {word}", "save the file with commas between values")
    lowered = {name.lower(): name for name in table.columns}
    has = f"it has {_listed(table.columns)}"
    raise _problem(problem, did_you_mean(column.lower(), lowered, has, typed=lambda near: lowered[near]))


def lacks_header(table: CsvTable) -> bool:
    """Whether the first line looks like values: at least half of it are numbers."""
    return 2 * sum(is_number(name) for name in table.columns) >= len(table.columns)


def is_number(text: str) -> bool:
    """Whether `text` is written as a number; nan and inf are, though no model takes them."""
    return bool(_NUMBER.match(text) or _NOT_FINITE.match(text))


def is_numeric(table: CsvTable, column: str) -> bool:
    """Whether all values of `column` are numbers."""
    return all(is_number(text) for _, text in table.cells(column))


def distinct(table: CsvTable, column: str) -> list[str]:
    """The different values of `column`, sorted."""
    return sorted({text for _, text in table.cells(column)})


def numbers(table: CsvTable, column: str) -> list[float]:
    """The values of `column`; `DataProblem` where one is not a finite number."""
    return [_number(table, column, line, text) for line, text in table.cells(column)]


def _number(table: CsvTable, column: str, line: int, text: str) -> float:
    place = f"{table.source}:{line}: column {column} has {_quoted(text)}"
    if not is_number(text):
        raise _problem(
            f"{place}, which is not a number",
            f"if the column names categories, say so in the spec: data.features: {{{column}: categorical, ...}}",
        )
    value = float(text)
    if not math.isfinite(value):
        raise _problem(f"{place}, which is not a finite number")
    if abs(value) > _LARGEST:
        raise _problem(f"{place}, which is too large for float32")
    return value


def resolve_labels(data: CsvData, train: CsvTable) -> list[str]:
    """The classes in the order of the model's outputs: the spec's, or those of the training split, sorted."""
    if data.labels is not None:
        return list(data.labels)
    found = distinct(train, data.label)
    if len(found) < 2:
        raise _problem(f"{train.source}: column {data.label} has one value only, {_quoted(found[0])}")
    return found


def resolve_features(data: CsvData, train: CsvTable) -> list[Feature]:
    """The columns that the model sees, in its order, with what the training split says of each."""
    if data.features is None:
        kinds = {name: is_numeric(train, name) for name in train.columns if name != data.label}
        if not kinds:
            raise _problem(f"{train.source} has no column beside the label {data.label}")
    else:
        for name in data.features:
            require_column(train, name)
        kinds = {name: kind == "numeric" for name, kind in data.features.items()}
    return [
        _numeric(train, name, data.normalize)
        if numeric
        else Feature(name=name, kind="categorical", vocabulary=distinct(train, name))
        for name, numeric in kinds.items()
    ]


def _numeric(train: CsvTable, name: str, normalize: bool) -> Feature:
    values = numbers(train, name)
    return Feature(name=name, kind="numeric", scale=list(mean_and_variance(values)) if normalize else None)


def mean_and_variance(values: Sequence[float]) -> tuple[float, float]:
    """Mean and population variance; a column that never changes has variance 1, so that it becomes 0."""
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
    return mean, variance or 1.0


def encode_inputs(table: CsvTable, features: Sequence[Feature]) -> Split:
    """`table`, which needs no label, as the model takes it."""
    columns: dict[str, list[float] | list[str]] = {}
    for feature in features:
        require_column(table, feature.name)
        if feature.kind == "numeric":
            columns[feature.name] = numbers(table, feature.name)
        else:
            columns[feature.name] = [text for _, text in table.cells(feature.name)]
    return Split(table.source, table.sha256, len(table.rows), columns, [0.0] * len(table.rows))


def encode(table: CsvTable, features: Sequence[Feature], label: str, labels: Sequence[str] | None) -> Split:
    """`table` as the model takes it. A category that the training split does not have is no error."""
    inputs = encode_inputs(table, features)
    targets = numbers(table, label) if labels is None else _classes(table, label, labels)
    return replace(inputs, targets=targets)


def _classes(table: CsvTable, label: str, labels: Sequence[str]) -> list[int]:
    known = {name: index for index, name in enumerate(labels)}
    classes = []
    for line, text in table.cells(label):
        if text not in known:
            hint = did_you_mean(text, known)
            raise _problem(
                f"{table.source}:{line}: column {label} has {_quoted(text)}, which is not among the labels",
                f"{hint} The labels are {_listed(labels)}" if hint else f"the labels are {_listed(labels)}",
            )
        classes.append(known[text])
    return classes


def _problem(message: str, hint: str | None = None) -> DataProblem:
    return DataProblem(message, hint=hint, left_alone="Nothing was changed.")


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 10 else f"{', '.join(names[:10])} and {len(names) - 10} more"


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
