"""The part `data` of a spec: CSV files, Python functions, or the data of a script."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    Field,
    PositiveInt,
)

from expmgr.spec.part import Part, Reference

SplitName = Literal["train", "eval", "test"]


class CsvData(Part):
    """Rows in CSV files with a header, beside the spec."""

    kind: Literal["csv"]
    train: str = Field(min_length=1)
    """File of the training split, relative to the experiment's folder."""
    eval: str = Field(min_length=1)
    """File of the split that is evaluated."""
    test: str | None = None
    """File of a third split, kept for the end."""
    label: str
    """The column that is predicted."""
    labels: list[str] | None = None
    """Classes in the order of the model's outputs; None: those of the training split, sorted."""
    features: dict[str, Literal["numeric", "categorical"]] | None = None
    """Columns that the model sees, in this order; None: every column but the label, numeric where all values are."""
    normalize: bool = False
    """Scale numeric columns to mean 0 and variance 1, by the training split."""
    batch_size: PositiveInt = 100
    """Rows a step."""
    shuffle: bool = True
    """Another order in every epoch, a pure function of seed and epoch."""


class PythonData(Part):
    """What functions of the repository give: `tf.data.Dataset`, arrays, or `keras.utils.PyDataset`.

    A function is called with those of `params`, `seed` and `batch_size` that it names.
    """

    kind: Literal["python"]
    train: Reference
    """The function that gives the training split."""
    eval: Reference
    """The function that gives the split that is evaluated; one that names `path` can read `evaluate --data`."""
    test: Reference | None = None
    """The function of a third split, kept for the end."""
    predict: Reference | None = None
    """The function that reads what `predict --data` names, its `path`: inputs without labels."""
    params: dict[str, Any] = {}
    """What the functions are given as `params`."""
    params_model: Reference | None = None
    """A pydantic model that `params` are made."""
    labels: list[str] | None = None
    """Classes in the order of the model's outputs."""
    vocabularies: dict[str, list[str] | str] = {}
    """Words in their order, or the file of the experiment's folder that holds them: their content counts."""
    preprocessing: dict[str, Any] = {}
    """What else is done to the data before it enters the model: any values, which count by their content."""
    files: dict[str, str] = {}
    """Files, folders and URLs that the functions read, by name: their content counts, and `files` gives their paths."""
    batch_size: PositiveInt = 100
    """Rows a step, where the functions give arrays; a Dataset or PyDataset gives batches itself."""
    shuffle: bool = True
    """Whether arrays, and the batches of a PyDataset, have another order in every epoch; a Dataset shuffles itself."""
    steps_per_epoch: PositiveInt | None = None
    """Steps of an epoch for callbacks, where a Dataset does not know its own length."""


class ScriptData(Part):
    """What a training script gives to `expmgr.fit`: arrays, a `tf.data.Dataset`, a PyDataset, or a generator."""

    kind: Literal["script"] = "script"
    predict: Reference | None = None
    """The function that reads what `predict --data` names, its `path`: inputs without labels."""
    evaluate: Reference | None = None
    """The function that reads what `evaluate --data` names, its `path`: inputs and labels."""
    labels: list[str] | None = None
    """Classes in the order of the model's outputs."""
    vocabularies: dict[str, list[str] | str] = {}
    """Words in their order, or the file of the experiment's folder that holds them: their content counts."""
    preprocessing: dict[str, Any] = {}
    """What else is done to the data before it enters the model: any values, which count by their content."""
    files: dict[str, str] = {}
    """Files, folders and URLs that the script reads, by name: their content counts."""
    batch_size: PositiveInt | None = None
    """Rows a step, where the script gives arrays; None: what `fit` is called with."""
    shuffle: bool | None = None
    """Whether arrays have another order in every epoch; None: what `fit` is called with."""
    steps_per_epoch: PositiveInt | None = None
    """Steps of an epoch for callbacks, where nothing else tells; None: what `fit` is called with."""

    @property
    def test(self) -> None:
        """A script has no third split."""
