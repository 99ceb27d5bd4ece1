"""The probe: what a model answers for a few stored rows, compared again after restoring.

It finds what the guard's rules forgot. A rule names the values that its change may move; anything else that moves is a
fault of ours, and the run is refused. All is computed on a copy of the state: the model is afterwards as it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from expmgr.checkpoints.probe_rows import read_rows, rows_content
from expmgr.checkpoints.signature import ProbeValues
from expmgr.disk import durable
from expmgr.errors import ProbeMoved
from expmgr.train.model.checkpoints import live_variables
from expmgr.train.model.step import StepFunction
from expmgr.train.model.structure import leaves, packed, parts_of
from expmgr.train.signature.measures import measures_of

ROWS = 32
MOST_BYTES = 1_000_000
#: More outputs than so many are projected to as many numbers.
_OUTPUTS = 256
#: How far a value may lie from the saved one, as a share of the largest: the same device, precision and versions; and
#: another. A step divides small numbers by small numbers, and one row that lies between two classes may change sides.
_NEAR = {"outputs": 1e-4, "loss": 1e-4, "metrics": 5e-2, "step": 1e-2}
_FAR = {"outputs": 3e-2, "loss": 3e-2, "metrics": 2e-1, "step": 2e-1}


class Batch:
    """The rows of the probe: arrays in the structure that the model's steps take."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    @classmethod
    def of(cls, batch: Any) -> Batch | None:
        """The first rows, as many as the cap allows; None where a single one is too large, or they are ragged."""
        parts = list(leaves(batch))
        if not all(isinstance(one, tf.Tensor) and one.shape.rank for one in parts):
            return None
        arrays = [np.asarray(one) for one in parts]
        row_bytes = sum(array.nbytes // max(len(array), 1) for array in arrays)
        count = min(ROWS, MOST_BYTES // max(row_bytes, 1))
        return cls(packed(batch, (array[:count] for array in arrays))) if count else None

    @property
    def digest(self) -> str:
        digest = hashlib.sha256()
        for array in map(_plain, leaves(self.batch)):
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def write(self, folder: Path) -> None:
        """`probe-<digest>.npz` in `folder`, once."""
        path = folder / _name(self.digest)
        if path.exists():
            return
        durable.write_bytes(path, rows_content(map(_plain, leaves(self.batch))))


def read_batch(folder: Path, digest: str, like: Any) -> Batch | None:
    """The batch that a checkpoint was probed with, in the structure of `like`; None where it is not there or damaged."""
    arrays = read_rows(folder / _name(digest))
    if arrays is None or len(arrays) != sum(1 for _ in leaves(like)):
        return None
    batch = Batch(packed(like, iter(arrays)))
    return batch if batch.digest == digest else None


def _name(digest: str) -> str:
    return f"probe-{digest[:16]}.npz"


def _plain(array: Any) -> Any:
    """An array without Python objects: words as bytes of one width."""
    return np.asarray(array).astype("S") if np.asarray(array).dtype.kind in "OU" else np.asarray(array)


def values_of(model: Any, batch: Batch) -> ProbeValues:
    """What `model` says of `batch` now: outputs, loss and metrics, and what one training step changes.

    What is another thing each time that it is asked (a draw from tf.random) and what the code cannot say of these rows
    is left out.
    """
    data = packed(batch.batch, (_tensor(one) for one in leaves(batch.batch)))
    with as_it_was(model):
        first = _Said(model, data)
    again = first
    if _has_own_code(model):
        with as_it_was(model):
            again = _Said(model, data)
    return ProbeValues(
        batch=batch.digest,
        where=_where(model),
        outputs=_rounded(first.outputs) if np.allclose(first.outputs, again.outputs) else [],
        loss=first.loss
        if first.loss is not None and again.loss is not None and np.isclose(first.loss, again.loss)
        else None,
        metrics={name: value for name, value in first.metrics.items() if np.isclose(value, again.metrics[name])},
        step=_rounded(first.step) if np.allclose(first.step, again.step, rtol=1e-3) else [],
        measures={key: value for key, value in measures_of(model).items() if key != "loss"},
    )


class _Said:
    """What a model says of some rows once. Its state is moved by it."""

    def __init__(self, model: Any, data: Any) -> None:
        inputs, _, _ = parts_of(data)
        self.outputs = self.step = np.zeros(0)
        self.loss: float | None = None
        self.metrics: dict[str, float] = {}
        is_own = _has_own_code(model)
        with _what_can_be_said(is_own):
            given = [
                np.asarray(tf.cast(one, tf.float32)).ravel() for one in tf.nest.flatten(model(inputs, training=False))
            ]
            self.outputs = _projected(_finite(np.concatenate(given)))
        model.reset_metrics()
        with _what_can_be_said(is_own):
            step = StepFunction(model, "test_step")
            found = step.values(step.logs(model.test_step(data)))
            self.loss = found.pop("loss", None)  # `values` leaves out what is not finite
            self.metrics = found
        before = [np.asarray(tf.cast(one.value, tf.float32)) for one in model.trainable_variables]
        with _what_can_be_said(is_own):
            model.train_step(data)
            after = [np.asarray(tf.cast(one.value, tf.float32)) for one in model.trainable_variables]
            norms = [float(np.linalg.norm(new - old)) for old, new in zip(before, after, strict=True)]
            self.step = np.array(norms if np.isfinite(norms).all() else [])


def _has_own_code(model: Any) -> bool:
    return any(not type(one).__module__.startswith("keras.") for one in model._flatten_layers())


@contextlib.contextmanager
def _what_can_be_said(is_own: bool) -> Iterator[None]:
    """A step of the user's own may not take these rows: one of training has others. Then it says nothing."""
    try:
        yield
    except Exception:
        if not is_own:
            raise


def _tensor(array: Any) -> Any:
    return tf.constant(array.astype("S") if array.dtype.kind == "U" else array)


def _where(model: Any) -> str:
    """The device, the precision and the versions: where values agree closely."""
    gpus = tf.config.list_physical_devices("GPU")
    device = str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")) if gpus else _cpu()
    policies = sorted({layer.dtype_policy.name for layer in model._flatten_layers() if hasattr(layer, "dtype_policy")})
    return f"{device} {'+'.join(policies)} tensorflow {tf.__version__} keras {keras.__version__}"


def _cpu() -> str:
    """The processor's model: another one sums in another order."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _finite(values: Any) -> Any:
    """What is infinite (a mask of logits) or NaN as 0: a signature is JSON, which has neither."""
    return np.where(np.isfinite(values), values, np.float32(0.0))


def _projected(values: Any) -> Any:
    if len(values) <= _OUTPUTS:
        return values
    # A projection on fixed random directions: equal outputs give equal numbers, and others do not.
    draw = np.random.default_rng(0)
    return np.array([values @ draw.standard_normal(len(values), dtype="float32") for _ in range(16)])


def _rounded(values: Any) -> list[float]:
    return [float(f"{value:.7g}") for value in values]


@contextlib.contextmanager
def as_it_was(model: Any) -> Iterator[None]:
    """The model's whole state, optimizer and seeds and metrics too, is put back at the end."""
    live = live_variables(model)
    variables = [one for group in live.groups.values() for one in group.values()]
    before = [tf.identity(one.value) for one in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.value.assign(value)


def require_unmoved(model: Any, batch: Batch, saved: ProbeValues, may_move: Collection[str], shown: str) -> None:
    """`ProbeMoved` where `model`, restored from the checkpoint `shown`, does not say of `batch` what was saved."""
    lines = moved(saved, values_of(model, batch), may_move)
    if lines:
        raise ProbeMoved(
            f"{shown} was not restored: its model does not say what it said when it was saved",
            details=lines,
            left_alone="Nothing was changed on disk.",
            hint="no rule of the guard explains it, which is a fault of ours: please send the report",
        )


def moved(saved: ProbeValues, found: ProbeValues, may_move: Collection[str]) -> list[str]:
    """What moved that may not, a line each: by how much, as a share of the largest value."""
    allowed = _NEAR if saved.where == found.where else _FAR
    lines = []
    measured_otherwise = _measured_otherwise(saved, found)
    for name, old, new in _pairs(saved, found):
        if name in may_move or name in measured_otherwise or not old or not new:
            continue
        if len(old) != len(new):
            lines.append(f"{name}: {len(old)} values, now {len(new)}")
            continue
        share = _distance(np.array(old), np.array(new))
        if not share <= allowed[name]:
            lines.append(f"{name} moved by {share:.1%}, {allowed[name]:.2%} is allowed")
    return lines


def _measured_otherwise(saved: ProbeValues, found: ProbeValues) -> set[str]:
    """What other metrics, or other code of an evaluation, may say otherwise; nothing where that was not saved."""
    if not saved.measures or saved.measures == found.measures:
        return set()
    is_other_step = saved.measures.get("steps") != found.measures.get("steps")
    return {"metrics", "loss"} if is_other_step else {"metrics"}


def _pairs(saved: ProbeValues, found: ProbeValues) -> Iterator[tuple[str, list[float], list[float]]]:
    yield "outputs", saved.outputs, found.outputs
    losses = [[] if one.loss is None else [one.loss] for one in (saved, found)]
    yield "loss", losses[0], losses[1]
    both = [name for name in saved.metrics if name in found.metrics]  # another metric is no movement
    yield "metrics", [saved.metrics[name] for name in both], [found.metrics[name] for name in both]
    yield "step", saved.step, found.step


def _distance(old: Any, new: Any) -> float:
    if not len(old):
        return 0.0
    if not np.array_equal(np.isfinite(old), np.isfinite(new)):
        return float("inf")
    old, new = np.nan_to_num(old), np.nan_to_num(new)
    return float(np.max(np.abs(old - new)) / max(np.max(np.abs(old)), 1e-6))
