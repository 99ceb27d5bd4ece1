"""The data of a run, as one interface: CSV tables, or arrays and datasets of a user's functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from expmgr.checkpoints.signature import DataContract
from expmgr.data import csvdata
from expmgr.data.csvdata import Dataset
from expmgr.data.locations import Places
from expmgr.errors import DataProblem
from expmgr.spec.data import CsvData
from expmgr.train.data.datasets import Batches, Rows, csv_rows
from expmgr.train.data.feed import Feed
from expmgr.train.data.overlap import also_in
from expmgr.train.data.pipelines import Stream
from expmgr.train.model.premade import input_names
from expmgr.train.model.structure import parts_of
from expmgr.train.signature import live


class Source(Protocol):
    """The splits of a run."""

    labels: list[str] | None
    """Classes in the order of the model's outputs."""

    @property
    def order(self) -> Sequence[str]:
        """Names of inputs whose places count, and not their names."""

    @property
    def splits(self) -> list[str]:
        """The splits that there are."""

    @property
    def input_names(self) -> Mapping[str, str]:
        """Column to the name of the model's input, where there are columns."""

    def rows(self, split: str) -> Rows | Stream:
        """A split to be evaluated."""

    def feed(self, seed: int, class_weight: Sequence[float] | None) -> Feed:
        """The training batches."""

    def first(self) -> Any:
        """The first rows of the eval split, as they enter the model's steps."""

    @property
    def train_type_spec(self) -> Any:
        """The type specs of a training batch, without class weights."""

    def contract(self) -> DataContract:
        """What a checkpoint that learns from this data requires of data."""

    def sha256(self, split: str) -> str:
        """Digest of a split that is evaluated."""

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """What a record holds of the splits: `path`, `rows`, `sha256`."""

    def read(self, path: Path) -> Rows | Stream:
        """A file with labels, which somebody wants evaluated."""

    def read_inputs(self, path: Path) -> Rows | Stream:
        """A file without labels, of which somebody wants predictions."""


class Tables:
    """CSV files: columns by name, and a label."""

    def __init__(self, data: CsvData, *, is_classifier: bool, experiment_dir: Path, root: Path, places: Places) -> None:
        self._data = data
        self.table: Dataset = csvdata.load(
            data, is_classifier=is_classifier, experiment_dir=experiment_dir, root=root, places=places
        )
        self.labels = self.table.labels
        self.input_names = input_names(self.table.features)
        self.order = [self.input_names[one.name] for one in self.table.features]

    @property
    def splits(self) -> list[str]:
        return [*self.table.splits]

    @cached_property
    def _rows(self) -> dict[str, Rows]:
        return {name: self._on_device(split) for name, split in self.table.splits.items()}

    def _on_device(self, split: csvdata.Split) -> Rows:
        return csv_rows(split, self.table.features, self.labels)

    def rows(self, split: str) -> Rows:
        return self._rows[split]

    def feed(self, seed: int, class_weight: Sequence[float] | None) -> Batches:
        data = self._data
        return Batches(
            self.rows("train"),
            batch_size=data.batch_size,
            seed=seed,
            shuffle=data.shuffle,
            class_weight=class_weight,
        )

    def first(self) -> Any:
        return self.rows("eval").first(live.FIRST_ROWS)

    @property
    def train_type_spec(self) -> Any:
        return self.rows("train").type_spec

    def contract(self) -> DataContract:
        inputs, targets, _ = parts_of(self.first())
        return self.table.contract().model_copy(update={"first_batch": live.first_batch(inputs, targets)})

    def sha256(self, split: str) -> str:
        return self.table.splits[split].sha256

    def as_dict(self) -> dict[str, dict[str, Any]]:
        about: dict[str, dict[str, Any]] = {name: dict(told) for name, told in self.table.as_dict().items()}
        for name in about.keys() - {"train"}:
            about[name]["also_in_train"] = also_in(self.rows("train"), self.rows(name))
        return about

    def read(self, path: Path) -> Rows:
        table = csvdata.read_table(content_of(path), str(path))
        csvdata.require_column(table, self.table.label)
        return self._on_device(csvdata.encode(table, self.table.features, self.table.label, self.labels))

    def read_inputs(self, path: Path) -> Rows:
        table = csvdata.read_table(content_of(path), str(path))
        return csv_rows(csvdata.encode_inputs(table, self.table.features), self.table.features, None)


def content_of(path: Path) -> bytes:
    """The bytes of a file that somebody named."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataProblem(f"{path} cannot be read: {error.strerror}", left_alone="Nothing was changed.") from None
