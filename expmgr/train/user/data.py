"""Data from functions of the repository: arrays, `tf.data.Dataset` or `keras.utils.PyDataset`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import keras
import tensorflow as tf

from expmgr.checkpoints.signature import DataContract, Feature, SplitContent
from expmgr.data.files import Content
from expmgr.data.locations import read_regular
from expmgr.errors import DataProblem
from expmgr.paths import home_path
from expmgr.train.data.datasets import Batches, Rows
from expmgr.train.data.feed import Feed
from expmgr.train.data.overlap import also_in
from expmgr.train.data.pipelines import Generated, Pipeline, Stream, empty, tensors
from expmgr.train.model.structure import any_rows, leaves, parts_of, type_spec_of
from expmgr.train.signature import live
from expmgr.train.signature.leaves import digest_of
from expmgr.train.user.code import UserCode
from expmgr.train.user.params import params_of

_SPLITS = ("train", "eval", "test")
#: Keras 2, which comes with the last TensorFlow that has Estimators, knows it as Sequence.
PyDataset = getattr(keras.utils, "PyDataset", None) or keras.utils.Sequence


class Said(Protocol):
    """What has to be known of data that code gives, whoever says it (`spec.data.PythonData`)."""

    @property
    def train(self) -> str: ...
    @property
    def eval(self) -> str: ...
    @property
    def test(self) -> str | None: ...
    @property
    def predict(self) -> str | None: ...
    @property
    def params(self) -> Mapping[str, Any]: ...
    @property
    def params_model(self) -> str | None: ...
    @property
    def labels(self) -> list[str] | None: ...
    @property
    def vocabularies(self) -> Mapping[str, list[str] | str]: ...
    @property
    def preprocessing(self) -> Mapping[str, Any]: ...
    @property
    def files(self) -> Mapping[str, str]: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def shuffle(self) -> bool: ...
    @property
    def steps_per_epoch(self) -> int | None: ...


class Functions:
    """The splits that functions give. Each function is called once, but for a Dataset that has to be made anew."""

    order: Sequence[str] = ()
    input_names: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self,
        data: Said,
        code: UserCode,
        *,
        seed: int,
        most_eval: int | None,
        data_root: str | None,
        files: Mapping[str, Content] | None = None,
    ) -> None:
        self._data, self._code, self._seed, self._most_eval = data, code, seed, most_eval
        self._data_root = str(home_path(data_root, "data_root")) if data_root else None
        self.labels = list(data.labels) if data.labels is not None else None
        self._params = params_of(data.params, data.params_model, code, "data")
        self._files = dict(files or {})
        self._results: dict[str, Any] = {}
        self._streams: dict[str, Rows | Stream] = {}
        self._rows("eval")  # what fails is to fail before the model is built

    @property
    def splits(self) -> list[str]:
        return [name for name in _SPLITS if getattr(self._data, name) is not None]

    def rows(self, split: str) -> Rows | Stream:
        return self._rows(split)

    def _rows(self, split: str) -> Rows | Stream:
        if split not in self._streams:
            most = self._most_eval if split == "eval" else None
            self._streams[split] = self._source(self.given(split), f"data.{split}", most)
        return self._streams[split]

    def given(self, split: str) -> Any:
        """What the function of a split gave: `Rows`, a Dataset or a PyDataset."""
        if split not in self._results:
            self._results[split] = self._call(split, self._seed)
        return self._results[split]

    def call_again(self, what: str, seed: int, path: Path | None = None) -> Any:
        """What a function gives in the graph that is being made now."""
        return self._called(what, seed, path)

    def _call(self, what: str, seed: int, path: Path | None = None) -> Any:
        """What the function of a split, or of `predict`, gives; everything that it draws is drawn from `seed`."""
        keras.utils.set_random_seed(seed % 2**32)
        result = self._called(what, seed, path)
        if not isinstance(result, (tf.data.Dataset, PyDataset)):
            result = self._arrays(result, f"data.{what}: {getattr(self._data, what)}")
        return result

    def _called(self, what: str, seed: int, path: Path | None) -> Any:
        given = {"params": self._params, "seed": seed, "batch_size": self._data.batch_size}
        given["data_root"] = self._data_root
        given["files"] = {name: one.path for name, one in self._files.items()}
        if path is not None:
            given["path"] = str(path)
        return self._code.call(getattr(self._data, what), f"data.{what}", given)

    def _arrays(self, given: Any, what: str) -> Rows:
        """Arrays on the device, each with as many rows."""
        if given is None or isinstance(given, (str, bytes, int, float, Iterator)):
            raise DataProblem(
                f"{what} gives {type(given).__name__}",
                left_alone="Nothing was changed.",
                hint="a function of data gives arrays (inputs, targets), a tf.data.Dataset, or a keras.utils.PyDataset; "
                "a generator: tf.data.Dataset.from_generator",
            )
        with self._code.errors(f"{what} gives what is no array"):
            batch = tensors(_plain(given))
        counts = {int(one.shape[0]) if one.shape.rank else -1 for one in leaves(batch)}
        if len(counts) != 1 or not counts or min(counts) < 0:
            told = ", ".join(str(tuple(one.shape)) for one in leaves(batch))
            raise DataProblem(
                f"{what} gives arrays of different lengths: {told or 'none'}", left_alone="Nothing was changed."
            )
        if counts == {0}:
            raise empty(what)
        return Rows(batch)

    def _source(self, given: Any, key: str, most: int | None) -> Rows | Stream:
        """What was given, to be gone through from the first example to the last."""
        if isinstance(given, Rows):
            return given
        with self._code.errors(f"{key}: its data cannot be read"):
            if isinstance(given, PyDataset):
                return Stream(lambda: (tensors(given[place]) for place in range(len(given))), key=key)
            is_endless = int(given.cardinality()) == tf.data.INFINITE_CARDINALITY
            if is_endless and most is None:
                raise DataProblem(
                    f"{key} gives batches without end",
                    left_alone="Nothing was changed.",
                    hint="leave out repeat(), or say how many count: eval.steps",
                )
            return Stream(lambda: iter(given), key=key, most=most if is_endless else None)

    def feed(self, seed: int, class_weight: Sequence[float] | None) -> Feed:
        given, data = self.given("train"), self._data
        if isinstance(given, Rows):
            return Batches(
                given, batch_size=data.batch_size, seed=seed, shuffle=data.shuffle, class_weight=class_weight
            )
        key = f"data.train ({data.train})"
        with self._code.errors(f"data.train: {data.train} failed"):
            if isinstance(given, PyDataset):
                return Generated(given, key=key, seed=seed, shuffle=data.shuffle, class_weight=class_weight)
            return Pipeline(
                given,
                lambda seed: self._call("train", seed),
                key=key,
                seed=seed,
                class_weight=class_weight,
                steps_per_epoch=data.steps_per_epoch,
            )

    def first(self) -> Any:
        return self._rows("eval").first(live.FIRST_ROWS)

    @property
    def train_type_spec(self) -> Any:
        given = self.given("train")
        if isinstance(given, Rows):
            return given.type_spec
        if isinstance(given, PyDataset):
            with self._code.errors(f"data.train: {self._data.train} failed"):
                return any_rows(tensors(given[0]))
        return any_rows(given.element_spec)

    # What it is, for the guard and the record.

    def contract(self) -> DataContract:
        train = self.given("train")
        inputs, targets, weights = parts_of(self.first())
        is_there = isinstance(train, Rows)
        of_train = parts_of(train.batch if is_there else self.train_type_spec)
        splits = {
            split: SplitContent(rows=self._count(split), sha256=self.sha256(split))
            for split in self.splits
            if split != "train" or is_there
        }
        return DataContract(
            features=list(_features(of_train[0])),
            labels=self.labels,
            targets=live.digest_of_arrays(of_train[1:]) if is_there else _shown(of_train[1]),
            splits=splits,
            first_batch=live.first_batch(inputs, (targets, weights)),
            declared=dict(self._declared()),
        )

    def _declared(self) -> Iterator[tuple[str, str]]:
        for name, words in self._data.vocabularies.items():
            yield f"vocabulary of {name}", digest_of(self._words(name, words))
        for name, value in self._data.preprocessing.items():
            yield name, digest_of([json.dumps(value, sort_keys=True)])
        for name, content in self._files.items():
            yield f"files.{name}", content.sha256

    def _words(self, name: str, words: list[str] | str) -> list[str]:
        if not isinstance(words, str):
            return words
        path = self._code.experiment_dir / words
        try:
            return read_regular(path).decode("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataProblem(
                f"data.vocabularies.{name}: {words} cannot be read: {getattr(error, 'strerror', None) or 'no UTF-8'}",
                left_alone="Nothing was changed.",
                hint="name a file of the experiment's folder, a word a line, or give the words as a list",
            ) from None

    def sha256(self, split: str) -> str:
        rows = self._rows(split)
        return live.digest_of_arrays(rows.batch) if isinstance(rows, Rows) else rows.sha256

    def _count(self, split: str) -> int | None:
        return self._rows(split).count

    def as_dict(self) -> dict[str, dict[str, Any]]:
        about: dict[str, dict[str, Any]] = {}
        for split in self.splits:
            is_known = split != "train" or isinstance(self.given("train"), Rows)
            about[split] = {
                "path": getattr(self._data, split),
                "rows": self._count(split) if is_known else None,
                "sha256": self.sha256(split) if is_known else None,
            }
            if split != "train":
                about[split]["also_in_train"] = also_in(self.given("train"), self._rows(split))
        for name, one in self._files.items():
            about[f"files.{name}"] = {"path": one.name, "rows": None, "sha256": one.sha256}
        return about

    # What somebody asks of a file.

    def read(self, path: Path) -> Rows | Stream:
        if not self._code.takes(self._data.eval, "data.eval", "path"):
            raise DataProblem(
                f"data.eval: {self._data.eval} reads no file that you name",
                left_alone="Nothing was changed.",
                hint="let it name an argument `path`: the file of --data; None where the spec's own split is meant",
            )
        return self._source(self._call("eval", self._seed, path), f"--data {path}", None)

    def read_inputs(self, path: Path) -> Rows | Stream:
        if self._data.predict is None:
            raise DataProblem(
                "the spec names no function that reads what is to be predicted",
                left_alone="Nothing was changed.",
                hint='data.predict: "data:predict", a function with an argument `path` that gives inputs',
            )
        return self._source(self._call("predict", self._seed, path), f"--data {path}", None)


def _plain(given: Any) -> Any:
    """A table of pandas' as its columns; a list of numbers as an array."""
    if isinstance(given, tuple):
        return tuple(_plain(one) for one in given)
    if isinstance(given, Mapping):
        return {str(key): _plain(one) for key, one in given.items()}
    if hasattr(given, "to_numpy"):
        return given.to_numpy()
    if isinstance(given, list) and given and len(getattr(given[0], "shape", ())) > 0:
        return tuple(given)  # several inputs, as Keras takes them
    return given


def _features(inputs: Any) -> Iterator[Feature]:
    """Each input by its name or place: dtype and shape, and its content where it is there."""
    if isinstance(inputs, Mapping):
        pairs = list(inputs.items())
    elif isinstance(inputs, (list, tuple)):
        pairs = list(enumerate(inputs))
    else:
        pairs = [("inputs", inputs)]
    for name, one in pairs:
        is_array = isinstance(one, tf.Tensor)
        yield Feature(
            name=str(name),
            kind="tensor",
            sha256=live.digest_of_arrays(one) if is_array else None,
            spec=_shown(one),
        )


def _shown(structure: Any) -> str | None:
    """Dtype and shape of one example of each part; None where there is none."""
    if structure is None:
        return None
    words = []
    for one in leaves(structure):
        type_spec = type_spec_of(one)
        shape = type_spec.shape[1:] if type_spec.shape.rank is not None else "?"
        words.append(f"{type_spec.dtype.name} ({', '.join('?' if size is None else str(size) for size in shape)})")
    return ", ".join(words)
