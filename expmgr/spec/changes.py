"""A resolved spec as flat keys, and the keys in which two specs differ."""

from __future__ import annotations

from typing import Any


def learned_from(resolved: dict[str, Any]) -> dict[str, Any]:
    """The parts of a resolved spec that a checkpoint depends on: not how long, how often, or what is compared."""
    seed = resolved["run_config"]["tf_random_seed"]
    parts = {key: resolved[key] for key in ("data", "model", "optimizer", "callbacks")}
    parts |= {key: resolved[key] for key in ("loss", "loss_weights") if resolved.get(key) is not None}
    of_training = {key: resolved["train"][key] for key in ("class_weight", "precision", "determinism")}
    return {**parts, **of_training, "tf_random_seed": seed}


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"model": {"kind": "x"}}` as `{"model.kind": "x"}`; lists stay whole."""
    flattened: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            flattened.update(flat(value, f"{path}."))
        else:
            flattened[path] = value
    return flattened


def changes(base: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What `other` has otherwise than `base`, two resolved specs: dotted path to both values, None for a missing one."""
    one, two = flat(base), flat(other)
    paths = [*one, *(path for path in two if path not in one)]
    found = {path: (one.get(path), two.get(path)) for path in paths if one.get(path) != two.get(path)}
    # A mapping that is empty on one side: what stands in it on the other says it all.
    found = {path: sides for path, sides in found.items() if any(side not in (None, {}) for side in sides)}
    orders = [list(values.get("data", {}).get("features") or ()) for values in (base, other)]
    if orders[0] != orders[1] and set(orders[0]) == set(orders[1]):  # the order of the columns is the first layer's
        found["data.features"] = (orders[0], orders[1])
    return found
