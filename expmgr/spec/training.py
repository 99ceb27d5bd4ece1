"""The parts `train`, `eval`, `callbacks` and `selection` of a spec."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    NonNegativeFloat,
    PositiveInt,
    model_validator,
)

from expmgr.spec.metrics import Mode
from expmgr.spec.part import Part, Reference


class EarlyStopping(Part):
    """Training ends where a metric of the eval split has not become better for `patience` evaluations."""

    metric: str
    mode: Mode | None = None
    """The direction that is better; None: the metric's own."""
    patience: PositiveInt
    """Evaluations (of `eval.every_steps` or `eval.every_secs`) without a better value."""
    min_delta: NonNegativeFloat = 0.0
    """By how much a value has to be better to count."""


class Train(Part):
    max_steps: PositiveInt
    """Training ends at this step, counted from the variant's first."""
    class_weight: dict[str, NonNegativeFloat] | None = None
    """What an example of a class counts in the loss of training; 1 for a class that is not named."""
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    """What layers compute in; weights and the last layer are float32."""
    early_stopping: EarlyStopping | None = None
    determinism: bool = False
    """Only operations that give the same bits again (on a GPU; on a CPU they do anyhow): slower."""
    grace_secs: PositiveInt = 30
    """Seconds that a run which was asked to stop has to finish its step and save."""


class Eval(Part):
    """When the eval split is evaluated. Each checkpoint is, besides, where `selection` goes by a metric."""

    every_steps: PositiveInt | None = None
    every_secs: PositiveInt | None = None
    at_end: bool = True
    """Whether it is evaluated at the last step."""
    steps: PositiveInt | None = None
    """Batches of an evaluation in training; None: all. At the end all count."""

    @model_validator(mode="after")
    def _one_schedule(self) -> Eval:
        if self.every_steps is not None and self.every_secs is not None:
            raise ValueError("every_steps and every_secs cannot both be set")
        return self


class Callback(Part):
    """A Keras callback: of the experiment's own code, or of Keras."""

    use: Reference
    params: dict[str, Any] = {}
    """What it is called with."""


class LastCheckpoint(Part):
    """The checkpoint at the end of training stands for the run."""

    checkpoint: Literal["last"] = "last"


class BestCheckpoint(Part):
    """The checkpoint with the best value of a metric stands for the run; every checkpoint is evaluated."""

    metric: str
    mode: Mode | None = None
    """The direction that is better; None: the metric's own."""
    split: Literal["eval"] = "eval"


def check_class_weight(weights: dict[str, float], labels: list[str] | None, model: str, is_classifier: bool) -> None:
    if not is_classifier:
        raise ValueError(f"train.class_weight names classes, but {model} predicts a number")
    unknown = [name for name in weights if labels is not None and name not in labels]
    if unknown:
        raise ValueError(f"train.class_weight: {unknown[0]!r} is none of data.labels ({', '.join(labels or ())})")
