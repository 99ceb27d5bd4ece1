"""`expmgr.fit`, `expmgr.params` and `expmgr.seed`: what a training script calls instead of `model.fit`.

In a run of expmgr the script hands its model and its data over there, and expmgr trains: with checkpoints, the guard, and
resuming. Called by hand, `python train.py`, it is `model.fit`, and the run is recorded with a snapshot of the tree.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expmgr.errors import SpecProblem, did_you_mean
from expmgr.runs import user_logging

#: The positional arguments of `keras.Model.fit`, in their order.
_ARGUMENTS: tuple[str, ...] = (
    "x",
    "y",
    "batch_size",
    "epochs",
    "verbose",
    "callbacks",
    "validation_split",
    "validation_data",
    "shuffle",
)
_ARGUMENTS += ("class_weight", "sample_weight", "initial_epoch", "steps_per_epoch", "validation_steps")
_ARGUMENTS += ("validation_batch_size", "validation_freq")


def params(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`defaults`, with what the variant's spec says otherwise in `model.params`.

    Raises `SpecProblem` where the spec names one that is not among them.
    """
    given = user_logging.lent.params if user_logging.lent is not None else {}
    for name in given:
        if name not in defaults:
            raise SpecProblem(
                f"model.params.{name}: the script has no such parameter",
                left_alone="Nothing was changed.",
                hint=did_you_mean(
                    name,
                    defaults,
                    f"it has {', '.join(defaults) or 'none'}",
                    typed=lambda near: f"model.params.{near}",
                ),
            )
    values = {**defaults, **given}
    if user_logging.lent is not None:
        user_logging.lent.taken.update(values)
    return values


def seed(default: int = 0) -> int:
    """The run's seed; `default` outside of a run."""
    return user_logging.lent.seed if user_logging.lent is not None else default


def fit(model: Any, *args: Any, **how: Any) -> Any:
    """Train `model`, which is compiled, as `model.fit(*args, **how)` would.

    In a run (`expmgr run` of a spec with `model.kind: script`) expmgr trains it and the script ends here. Called by hand it
    is `model.fit`, recorded where the script lies in an experiment's folder: with the commit, or where the tree has
    changes, a snapshot of it. Returns Keras' `History`.
    """
    given = {**dict(zip(_ARGUMENTS, args, strict=False)), **how}
    if user_logging.lent is not None:
        user_logging.lent.take(model, given)
    script = Path(getattr(sys.modules["__main__"], "__file__", None) or "")
    if user_logging.is_inside() or not script.is_file():
        return model.fit(**given)
    from expmgr.api.by_hand import recorded

    return recorded(model, given, script.resolve())
