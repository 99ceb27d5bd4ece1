"""The metrics of premade models, and whether a larger or a smaller value is better."""

from __future__ import annotations

from typing import Literal

#: Metrics of the premade models, and the direction in which each is better.
CLASSIFIER_METRICS = {"accuracy": "max", "loss": "min"}
REGRESSOR_METRICS = {"mean_absolute_error": "min", "root_mean_squared_error": "min", "loss": "min"}

#: Words at the end of a metric's name that tell the direction in which it is better.
_BETTER_ABOVE: tuple[str, ...] = (
    "accuracy",
    "acc",
    "auc",
    "precision",
    "recall",
    "f1",
    "f1_score",
    "fbeta",
    "iou",
    "io_u",
    "r2",
    "r2_score",
    "specificity",
    "sensitivity",
    "similarity",
    "bleu",
)
_BETTER_BELOW = ("loss", "error", "entropy", "crossentropy", "mae", "mse", "rmse", "perplexity", "divergence", "hinge")

Mode = Literal["max", "min"]


def direction_of(metric: str) -> Mode | None:
    """Where a metric of this name is better, as far as its last words tell."""
    name = metric.lower()
    for words, mode in ((_BETTER_ABOVE, "max"), (_BETTER_BELOW, "min")):
        if any(name == word or name.endswith(f"_{word}") for word in words):
            return "max" if mode == "max" else "min"
    return None
