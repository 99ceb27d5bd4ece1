"""Runs a training script up to `expmgr.fit`, which hands over its model and its data."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from expmgr.checkpoints.signature import DataContract
from expmgr.data.files import Content
from expmgr.errors import DataProblem, UserCodeFailed
from expmgr.runs import user_logging
from expmgr.spec.data import ScriptData
from expmgr.spec.experiment import ExperimentSpec
from expmgr.spec.model import ScriptModel
from expmgr.train.data.datasets import Rows
from expmgr.train.data.pipelines import Stream, tensors
from expmgr.train.model.structure import any_rows, leaves, packed
from expmgr.train.signature.live import FIRST_ROWS
from expmgr.train.user.code import UserCode
from expmgr.train.user.data import Functions, PyDataset

_UNTOUCHED = "Nothing was changed."
#: Callbacks of Keras whose work is expmgr's own: weights that they bring back would pass the guard by.
_OURS = ("BackupAndRestore", "ModelCheckpoint", "TensorBoard", "History", "ProgbarLogger", "CallbackList")
#: What `fit` is told that has no meaning here: how long, how loud, and from where.
_SILENT = frozenset({"epochs", "verbose", "initial_epoch", "validation_batch_size", "validation_freq"})
_KNOWN = frozenset({"x", "y", "sample_weight", "batch_size", "shuffle", "callbacks", "class_weight", "steps_per_epoch"})
_KNOWN |= {"validation_data", "validation_split", "validation_steps"}


@dataclass
class Call:
    """What `expmgr.fit` was called with."""

    model: Any
    given: Mapping[str, Any]
    callbacks: list[Any] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Callbacks that are not called, since expmgr does what they do."""
    params: dict[str, Any] = field(default_factory=dict)
    """What `expmgr.params` gave the script."""


class _Taken(BaseException):
    """Ends the script at `expmgr.fit`; no `except Exception` of its own catches it."""


def run_script(spec: ExperimentSpec, code: UserCode, seed: int) -> Call:
    """Run the script as `python <script>` in its folder would, up to `expmgr.fit`; everything that it draws is drawn
    from `seed`. Raises `UserCodeFailed`."""
    about = spec.model
    assert isinstance(about, ScriptModel)
    path = code.experiment_dir / about.script
    found: list[Call] = []

    def take(model: Any, given: Mapping[str, Any]) -> NoReturn:
        found.append(Call(model, given))
        raise _Taken

    lent = user_logging.lent = user_logging.Lent(dict(about.params), seed, take)
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed % 2**32)
    code.prepare()
    if str(path.parent) not in sys.path[:1]:  # as Python does for a script
        sys.path.insert(0, str(path.parent))
    os.chdir(path.parent)
    sys.argv[:] = [str(path)]
    try:
        with code.errors(f"model.script: {about.script} failed"):
            _execute(path)
    except _Taken:
        pass
    except (Exception, SystemExit):
        if not found:
            raise
        # What the script did on its way out, behind the call, counts no more.
    finally:
        user_logging.lent = None
    code.look_at_modules("model.script")
    if not found:
        raise UserCodeFailed(
            f"model.script: {about.script} ended without a call of expmgr.fit",
            left_alone=_UNTOUCHED,
            hint="expmgr.fit(model, ...) in the place of model.fit(...); what stands below "
            'if __name__ == "__main__": is run',
        )
    found[0].params = lent.taken
    return _looked_at(found[0], spec, about.script)


def _execute(path: Path) -> None:
    module = types.ModuleType("__main__")
    module.__file__ = str(path)
    sys.modules["__main__"] = module  # stays: classes of the script are looked up there
    source = path.read_bytes()
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except SystemExit as end:
        raise RuntimeError(f"the script ended itself with {end.code}") from None


def _looked_at(call: Call, spec: ExperimentSpec, script: str) -> Call:
    model, given = call.model, call.given
    if not isinstance(model, keras.Model) or not model.compiled:
        what = "a model that is not compiled" if isinstance(model, keras.Model) else type(model).__name__
        raise UserCodeFailed(
            f"model.script: {script} gives {what} to expmgr.fit", left_alone=_UNTOUCHED, hint="model.compile(...) first"
        )
    unknown = sorted(given.keys() - _KNOWN - _SILENT)
    if unknown:
        raise UserCodeFailed(
            f"model.script: expmgr.fit knows no {', '.join(unknown)}",
            left_alone=_UNTOUCHED,
            hint=f"of fit's arguments it takes {', '.join(sorted(_KNOWN))}",
        )
    if spec.evaluates and not _has_validation(given):
        raise DataProblem(
            f"model.script: {script} calls expmgr.fit without validation_data, so nothing can be evaluated",
            left_alone=_UNTOUCHED,
            hint="validation_data=(x, y), a Dataset, or validation_split=0.2; or evaluate nothing: eval: {at_end: false}",
        )
    named = given.get("callbacks") or []
    for one in named if isinstance(named, (list, tuple)) else [named]:
        if type(one).__name__ in _OURS and type(one).__module__.startswith("keras."):
            call.left_out.append(type(one).__name__)
        else:
            call.callbacks.append(one)
    return call


def _has_validation(given: Mapping[str, Any]) -> bool:
    return given.get("validation_data") is not None or bool(given.get("validation_split"))


def class_weight_of(call: Call) -> list[float] | None:
    """What an example of each class counts, by its number."""
    weights = call.given.get("class_weight")
    if not weights:
        return None
    highest = max(int(one) for one in weights)
    targets = call.given.get("y")
    if targets is not None and np.asarray(targets).dtype.kind in "iu":
        highest = max(highest, int(np.max(targets)))
    return [float(weights.get(number, 1.0)) for number in range(highest + 1)]


class Given(Functions):
    """The splits that a script gave to `expmgr.fit`."""

    def __init__(
        self,
        call: Call,
        spec: ExperimentSpec,
        code: UserCode,
        *,
        seed: int,
        data_root: str | None,
        files: Mapping[str, Content],
    ) -> None:
        assert isinstance(spec.data, ScriptData)
        assert isinstance(spec.model, ScriptModel)
        self._given, self._script = call.given, spec.model.script
        self._said = spec.data
        self._once: dict[str, Any] = {}
        self._begun: dict[str, Any] = {}
        self.has_eval = _has_validation(call.given)
        """Whether there are rows to be evaluated."""
        steps = call.given.get("validation_steps") or spec.eval.steps
        said = _Splits(spec.data, call, self._script)
        super().__init__(said, code, seed=seed, most_eval=steps, data_root=data_root, files=files)

    @property
    def splits(self) -> list[str]:
        return ["train", "eval"] if self.has_eval else ["train"]

    def contract(self) -> DataContract:
        # Without rows to be evaluated, the first batch is one of training: a draw, that says nothing.
        return super().contract() if self.has_eval else super().contract().model_copy(update={"first_batch": {}})

    def _call(self, what: str, seed: int, path: Path | None = None) -> Any:
        if path is not None:
            return super()._call(what, seed, path)
        with self._code.errors(f"model.script: what {self._script} gives to expmgr.fit cannot be read"):
            train, evaluated = self._split()
            if what == "train":
                return self._as_data(train, "x", self._given.get("steps_per_epoch"))
            return self._as_data(evaluated, "validation_data", self._given.get("validation_steps"))

    def _rows(self, split: str) -> Rows | Stream:
        if split == "eval" and not self.has_eval and split not in self._streams:
            batch = self._first_of_train()  # taken once: the next one would be another
            self._streams[split] = Stream(lambda: iter([batch]), key="model.script")
        return super()._rows(split)

    def _first_of_train(self) -> Any:
        """A batch of training, for what has to be tried on some rows where none are evaluated."""
        train = self.given("train")
        if isinstance(train, Rows):
            return train.first(FIRST_ROWS)
        with self._code.errors(f"model.script: what {self._script} gives to expmgr.fit cannot be read"):
            if isinstance(train, PyDataset):
                return tensors(train[0])
            return self._begun["x"] if "x" in self._begun else next(iter(train.take(1)))

    def _split(self) -> tuple[Any, Any]:
        """What is trained on, and what is evaluated; the last share of the rows where `validation_split` says so."""
        given = self._given
        whole = given["x"] if given.get("y") is None else (given["x"], given["y"])
        if given.get("sample_weight") is not None:
            whole = (given["x"], given.get("y"), given["sample_weight"])
        if not given.get("validation_split") or given.get("validation_data") is not None:
            return whole, given.get("validation_data")
        parts = [np.asarray(one) for one in leaves(whole)]
        at = int(len(parts[0]) * (1.0 - float(given["validation_split"])))
        return tuple(packed(whole, iter([part[cut] for part in parts])) for cut in (slice(0, at), slice(at, None)))

    def _as_data(self, given: Any, name: str, steps: int | None) -> Any:
        if isinstance(given, (tf.data.Dataset, PyDataset)):
            return given
        if isinstance(given, Iterator):  # it goes on where it is: never made twice
            if name not in self._once:
                self._begun[name] = _first_batch(given, name)
                self._once[name] = _batches_of(self._begun[name], given, name, steps)
            return self._once[name]
        if callable(given):
            return tf.data.Dataset.from_generator(given)  # says what it misses
        return self._arrays(given, f"model.script: {name} of expmgr.fit")

    def read(self, path: Path) -> Rows | Stream:
        if self._said.evaluate is None:
            raise DataProblem(
                "the spec names no function that reads what is to be evaluated",
                left_alone=_UNTOUCHED,
                hint='data.evaluate: "data:evaluate", a function with an argument `path` that gives inputs and labels',
            )
        return self._source(super()._call("evaluate", self._seed, path), f"--data {path}", None)


def _first_batch(batches: Iterator[Any], name: str) -> Any:
    first = next(batches, None)
    if first is None:
        raise DataProblem(
            f"model.script: {name} of expmgr.fit is a generator that gives nothing", left_alone=_UNTOUCHED
        )
    return tf.nest.map_structure(tf.convert_to_tensor, tuple(first) if isinstance(first, list) else first)


def _batches_of(first: Any, batches: Iterator[Any], name: str, steps: int | None) -> Any:
    """A generator of batches, whose first was taken, as a Dataset: it can be gone through once."""
    if name != "x":  # it is read for every evaluation: held
        held = [first, *(one for _, one in zip(range((steps or 1_000_000) - 1), batches, strict=False))]
        joined = [
            np.concatenate([np.asarray(list(leaves(one))[at]) for one in held])
            for at in range(len(list(leaves(first))))
        ]
        size = int(next(leaves(first)).shape[0])
        return tf.data.Dataset.from_tensor_slices(packed(first, iter(joined))).batch(size)
    begun: list[Any] = [first]

    def again() -> Iterator[Any]:
        while begun:
            yield begun.pop()
        yield from batches

    return tf.data.Dataset.from_generator(again, output_signature=any_rows(first))


class _Splits:
    """What `Functions` asks of a spec's data, answered by the spec and by what `fit` was called with."""

    params: Mapping[str, Any] = types.MappingProxyType({})
    params_model: str | None = None
    test: str | None = None

    def __init__(self, said: ScriptData, call: Call, script: str) -> None:
        self.train = self.eval = script
        self.predict, self.evaluate, self.labels = said.predict, said.evaluate, said.labels
        self.vocabularies, self.preprocessing, self.files = said.vocabularies, said.preprocessing, said.files
        self.batch_size, self.shuffle = said.batch_size or 32, said.shuffle is not False  # `filled` came before
        self.steps_per_epoch = said.steps_per_epoch


def filled(spec: ExperimentSpec, call: Call) -> ExperimentSpec:
    """`spec` with what `fit` was called with, where the spec does not say otherwise."""
    assert isinstance(spec.data, ScriptData)
    given, data = call.given, spec.data
    values = {
        "batch_size": data.batch_size or given.get("batch_size") or 32,  # Keras' own default
        "shuffle": data.shuffle if data.shuffle is not None else bool(given.get("shuffle", True)),
        "steps_per_epoch": data.steps_per_epoch or given.get("steps_per_epoch"),
    }
    return spec.model_copy(update={"data": data.model_copy(update=values)})
