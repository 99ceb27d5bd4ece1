"""Matches the tensors of a checkpoint from elsewhere with the variables of a variant's model.

Read are the names and shapes that the checkpoint itself holds: name-based (Estimator, TensorFlow 1 and 2) or
object-based (`tf.train.Checkpoint`, Keras). What it does not say, a person has to vouch for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from expmgr.checkpoints.bundle import VALUE
from expmgr.checkpoints.signature import Signature, Variable
from expmgr.errors import CheckpointRefused, WarmStartProblem

_STEPS = ("global_step", f"global_step{VALUE}", f"save_counter{VALUE}")
#: Slots of Keras 3, and what TensorFlow's optimizers before it called them: name-based keys of TF 2 and TF 1.
_SLOTS = {
    ("adagrad", "accumulator"): ("training/Adagrad/{}/accumulator", "{}/Adagrad", "{}/t_0/Adagrad"),
    ("adam", "momentum"): ("training/Adam/{}/m", "{}/Adam"),
    ("adam", "velocity"): ("training/Adam/{}/v", "{}/Adam_1"),
    ("ftrl", "accumulator"): ("training/Ftrl/{}/accumulator", "{}/Ftrl"),
    ("ftrl", "linear"): ("training/Ftrl/{}/linear", "{}/Ftrl_1"),
    ("rmsprop", "velocity"): ("training/RMSprop/{}/rms", "{}/RMSProp"),
    ("sgd", "momentum"): ("training/SGD/{}/momentum", "{}/Momentum"),
}
_HIDDEN = re.compile(r"hidden_(\d+)/(kernel|bias)\Z")


@dataclass(frozen=True)
class NamedTensor:
    """One tensor of a checkpoint: its key, its shape, and the name that its object graph gives it."""

    key: str
    shape: tuple[int, ...]
    full_name: str | None = None


@dataclass(frozen=True)
class Match:
    """A tensor, the variable that takes it (`group` is `variables` or `optimizer`), and the order of its rows."""

    key: str
    group: str
    path: str
    shape: tuple[int, ...]
    rows: tuple[int, ...] | None = None
    """Where the model has the columns in another order: row of the tensor for each row of the variable."""


@dataclass(frozen=True)
class Adoption:
    """What is taken, what starts anew, what is left, and what nobody can read from the checkpoint."""

    matches: tuple[Match, ...]
    fresh: tuple[str, ...]
    left: tuple[str, ...]
    step_key: str | None
    unknown: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        taken = [
            {"from": one.key, "to": one.path, "shape": list(one.shape), "rows_reordered": one.rows is not None}
            for one in self.matches
        ]
        return {"taken": taken, "fresh": list(self.fresh), "left": list(self.left), "unknown": list(self.unknown)}


def plan_adoption(
    tensors: Sequence[NamedTensor], wanted: Signature, shown: str, variant: str, maps: Sequence[tuple[str, str]] = ()
) -> Adoption:
    """Which tensor goes where. `CheckpointRefused` where a weight has none, or one of another shape."""
    by_key = {one.key: one for one in tensors}
    by_name = {**{one.full_name: one for one in tensors if one.full_name}, **by_key}
    said = {new: old for old, new in maps}
    for old, new in maps:
        if old not in by_name or new not in {one.path for one in wanted.variables}:
            side = f"the checkpoint has no tensor {old}" if old not in by_name else f"the model has no variable {new}"
            raise WarmStartProblem(f"--map {old}={new}: {side}")
    found = {one.path: by_name.get(said.get(one.path, "")) or _tensor_of(one.path, tensors) for one in wanted.variables}
    _require_fit(found, wanted.variables, tensors, shown, variant)
    matches = [_match(tensor, "variables", path, wanted) for path, tensor in found.items() if tensor is not None]
    fresh = []
    for slot in wanted.optimizer_variables:
        if slot.path.endswith("/learning_rate"):
            continue
        tensor = _slot(slot.path, wanted, found, by_key)
        if tensor is None or (tensor.shape != tuple(slot.shape)):
            fresh.append(slot.path)
        else:
            matches.append(_match(tensor, "optimizer", slot.path, wanted))
    step_key = next((key for key in _STEPS if key in by_key), None)
    used = {one.key for one in matches} | {step_key or ""}
    left = tuple(one.key for one in tensors if one.key not in used)
    return Adoption(tuple(matches), tuple(fresh), left, step_key, tuple(_unknown(wanted)))


def _tensor_of(path: str, tensors: Sequence[NamedTensor]) -> NamedTensor | None:
    """The tensor of a variable, by one of the names that it may have."""
    names = {path, f"variables/{path}{VALUE}", f"dnn/{path}"}
    if hidden := _HIDDEN.match(path):
        names.add(f"dnn/hiddenlayer_{hidden[1]}/{hidden[2]}")
    exact = [one for one in tensors if one.key in names or one.full_name == path]
    if exact:
        return exact[0]
    ends = [one for one in tensors if (one.full_name or "").endswith(f"/{path}") and not _is_slot(one)]
    return ends[0] if len(ends) == 1 else None


def _is_slot(tensor: NamedTensor) -> bool:
    return ".OPTIMIZER_SLOT" in tensor.key or "optimizer" in tensor.key.lower()


def _slot(
    path: str, wanted: Signature, weights: Mapping[str, NamedTensor | None], by_key: Mapping[str, NamedTensor]
) -> NamedTensor | None:
    if wanted.keys == "names":  # an Estimator's own model_dir: its names are the model's
        return by_key.get(path)
    kind = str(wanted.training.optimizer.get("kind"))
    optimizer, _, rest = path.partition("/")
    if rest == "iteration":
        names = [f"training/{name}/iter" for name in ("Adagrad", "Adam", "Ftrl", "RMSprop", "SGD")]
        return next((by_key[name] for name in [*names, *_STEPS[:2]] if name in by_key), None)
    for weight, tensor in weights.items():
        flat = weight.replace("/", "_")
        if tensor is not None and rest.startswith(f"{flat}_"):
            forms = _SLOTS.get((kind, rest[len(flat) + 1 :]), ())
            return next((by_key[one.format(tensor.key)] for one in forms if one.format(tensor.key) in by_key), None)
    return by_key.get(f"{optimizer}/{rest}{VALUE}")


def _require_fit(
    found: Mapping[str, NamedTensor | None],
    variables: Sequence[Variable],
    tensors: Sequence[NamedTensor],
    shown: str,
    variant: str,
) -> None:
    lines = []
    for variable in variables:
        tensor = found[variable.path]
        if tensor is None:
            lines.append(f"{variable.path}   saved nothing   wanted {variable}")
        elif tensor.shape != tuple(variable.shape):
            lines.append(f"{variable.path}   saved ({', '.join(map(str, tensor.shape))})   wanted {variable}")
    if not lines:
        return
    more = [f"and {len(lines) - 5} more"] if len(lines) > 5 else []
    names = ", ".join(one.full_name or one.key for one in tensors[:6])
    raise CheckpointRefused(
        f"{shown} was not adopted: it does not fit variant {variant}",
        details=[*lines[:5], *more, f"it holds {names}{' and more' if len(tensors) > 6 else ''}"],
        left_alone="Nothing was changed on disk.",
        hint="say what is what with --map OLD=NEW, or give the variant the model that it was made of: "
        f"expmgr new {variant}-2 --from {variant} --set ...",
    )


def _match(tensor: NamedTensor, group: str, path: str, wanted: Signature) -> Match:
    rows = None
    if "dnn/hiddenlayer_0/kernel" in tensor.key and wanted.keys == "paths":
        rows = _rows(wanted, tensor.shape[0] if tensor.shape else 0)
    return Match(tensor.key, group, path, tensor.shape, rows)


def _rows(wanted: Signature, count: int) -> tuple[int, ...] | None:
    """Estimator sorts feature columns by name: the row of each of the model's columns."""
    names = [one.name for one in wanted.data.features]
    if len(names) != count or any(one.kind != "numeric" for one in wanted.data.features):
        return None
    order = sorted(names)
    rows = tuple(order.index(name) for name in names)
    return rows if rows != tuple(range(count)) else None


def _unknown(wanted: Signature) -> Iterator[str]:
    """What no checkpoint says: each a sentence that somebody has to stand for."""
    model = wanted.architecture or {}
    if "activation" in model:
        yield f"the activation was {model['activation']}"
    names = ", ".join(one.name for one in wanted.data.features)
    yield f"the columns were {names}, and nothing else was done to them before they entered the model"
    if wanted.data.labels is not None:
        yield f"the outputs stood for {', '.join(wanted.data.labels)}, in this order"
    yield f"it was trained on the rows of the training split, with {wanted.training.optimizer.get('kind')} and this loss"
