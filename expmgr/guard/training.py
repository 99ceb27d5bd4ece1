"""How the training setups of a checkpoint and a model differ: optimizer, schedule, loss, batches."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from expmgr.checkpoints.signature import TrainingSetup
from expmgr.guard.difference import Difference, both_sides, pairs_of
from expmgr.guard.rules import RULES

#: Settings of an optimizer that take effect from any step on.
_LIVE_SETTINGS = frozenset(
    {"learning_rate", "clipnorm", "clipvalue", "global_clipnorm", "momentum", "nesterov", "rho", "epsilon"}
    | {"beta_1", "beta_2", "weight_decay", "learning_rate_power", "l1_regularization_strength", "beta"}
    | {"l2_regularization_strength", "l2_shrinkage_regularization_strength", "ema_momentum", "loss_scale_factor"}
)


def training_differences(saved: TrainingSetup, wanted: TrainingSetup) -> Iterator[Difference]:
    for key, rule in (("loss", "loss"), ("batch_size", "batch-size"), ("shuffle", "data-order"), ("seed", "seed")):
        old, new = getattr(saved, key), getattr(wanted, key)
        if isinstance(old, dict) and isinstance(new, dict):
            for part, *sides in pairs_of(old, new):
                yield Difference(RULES[rule], part, sides[0], sides[1])
        elif old != new:
            yield Difference(RULES[rule], key, *both_sides(old, new))
    if saved.loss_scale != wanted.loss_scale:
        yield Difference(RULES["precision"], "loss scale", *both_sides(saved.loss_scale, wanted.loss_scale))
    one, two = saved.optimizer, wanted.optimizer
    if one.get("kind") != two.get("kind"):
        yield Difference(RULES["optimizer"], "optimizer", str(one.get("kind")), str(two.get("kind")))
        return
    for key, *sides in pairs_of(one, two):
        if key == "ema_momentum" and one.get("use_ema") != two.get("use_ema"):
            continue  # said by use_ema
        first, _, inner = key.partition(".")
        old, new = one.get(first), two.get(first)
        if (
            inner and first != "learning_rate" and isinstance(old, dict) and isinstance(new, dict)
        ):  # a further optimizer
            first = inner.partition(".")[0]
            old, new = old.get(first), new.get(first)
        yield Difference(RULES[_optimizer_rule(first, old, new)], f"optimizer.{key}", sides[0], sides[1])


def _optimizer_rule(key: str, old: Any, new: Any) -> str:
    if key == "learning_rate" and (isinstance(old, dict) or isinstance(new, dict)):
        return "learning-rate-schedule"
    if key == "gradient_accumulation_steps":
        return "gradient-accumulation"
    if key == "use_ema":
        return "weight-average"
    if key in ("amsgrad", "centered"):
        return "optimizer-variables"
    return "optimizer-setting" if re.split(r"[./]", key)[-1] in _LIVE_SETTINGS else "optimizer-start"
