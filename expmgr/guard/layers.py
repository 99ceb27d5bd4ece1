"""How the configurations of two models' layers differ, and which rule applies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: Layers that do nothing but in training, and have no weights.
TRAINING_ONLY = frozenset({"Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout"})
TRAINING_ONLY |= {"GaussianNoise", "GaussianDropout", "ActivityRegularization", "RandomFlip", "RandomRotation"}
TRAINING_ONLY |= {"RandomZoom", "RandomTranslation", "RandomContrast", "RandomBrightness", "RandomCrop"}

_POOLING = ("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool")
_ACTIVATIONS = frozenset({"Activation", "ReLU", "LeakyReLU", "ELU", "Softmax"})


def layer_differences(
    saved: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, Any, Any, str | None]]:
    """What, both sides, and the rule; None for a setting that no rule knows by itself."""
    for name, one, two in _paired(saved, wanted):
        if one is None or two is None or one.get("class") != two.get("class"):
            classes = [side.get("class") if side else None for side in (one, two)]
            yield name, classes[0] or "nothing", classes[1] or "nothing", _class_rule(classes)
            continue
        for key in [*one, *(key for key in two if key not in one)]:
            if one.get(key) != two.get(key):
                rule = _setting_rule(str(one.get("class")), key)
                yield f"{name}.{key}", one.get(key, "nothing"), two.get(key, "nothing"), rule


def _paired(
    saved: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, Mapping[str, Any] | None, Mapping[str, Any] | None]]:
    """Layers of one name; then those that are left, in their order, of one class with one another."""
    for name, config in saved.items():
        if name in wanted:
            yield name, config, wanted[name]
    left = [(name, config) for name, config in wanted.items() if name not in saved]
    for name, config in saved.items():
        if name in wanted:
            continue
        match = next((one for one in left if one[1].get("class") == config.get("class")), None)
        if match is not None:
            left.remove(match)
        yield name, config, match[1] if match else None
    for name, config in left:
        yield name, None, config


def _class_rule(classes: Sequence[str | None]) -> str | None:
    if all(one is None or one in TRAINING_ONLY for one in classes):
        return "dropout"
    if all(one is not None and one.startswith(_POOLING) for one in classes):
        return "pooling"
    if all(one in _ACTIVATIONS for one in classes):
        return "activation"
    return None


def _setting_rule(layer: str, key: str) -> str | None:
    if key.endswith("initializer"):
        return "initializer"
    if key.endswith(("regularizer", "constraint")):
        return "regularizer"
    if key == "state":
        return "normalisation" if layer == "Normalization" else "vocabulary"
    if key in ("vocabulary", "salt"):
        return "vocabulary"
    if key == "dtype":
        return "precision"
    if key == "epsilon" and "Norm" in layer:
        return "epsilon"
    if key == "momentum" and "BatchNorm" in layer:
        return "momentum"
    if layer in TRAINING_ONLY or key in ("dropout", "recurrent_dropout"):
        return "dropout"
    if layer in _ACTIVATIONS or key in ("activation", "stateful"):
        return "stateful" if key == "stateful" else "activation"
    return None
