"""The probe: what a checkpoint's model says of a small stored batch, asked again when it was restored.

It finds what the guard's rules forgot. A rule names the values that its change may move; anything else that moves is a
fault of ours, and the run is refused. All is computed on a copy of the state: the model is afterwards as it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import platform
import zipfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from expmgr import durable
from expmgr.errors import ProbeMoved
from expmgr.signature import ProbeValues
from expmgr.train.checkpoints import live_variables

ROWS = 32
MOST_BYTES = 1_000_000
#: More outputs than so many are projected to as many numbers.
_OUTPUTS = 256
#: How far a value may lie from the saved one, as a share of the largest: the same device, precision and versions; and
#: another. A step divides small numbers by small numbers, and one row that lies between two classes may change sides.
_NEAR = {"outputs": 1e-4, "loss": 1e-4, "metrics": 5e-2, "step": 1e-2}
_FAR = {"outputs": 3e-2, "loss": 3e-2, "metrics": 2e-1, "step": 2e-1}


class Batch:
    """The rows of the probe, as tensors that enter the model: inputs by name in order, and targets."""

    def __init__(self, inputs: dict[str, Any], targets: Any) -> None:
        self.inputs, self.targets = inputs, targets

    @classmethod
    def of(cls, inputs: dict[str, Any], targets: Any) -> Batch | None:
        """The first rows, as many as the cap allows; None where a single one is too large."""
        arrays = [np.asarray(one) for one in (*inputs.values(), targets)]
        row_bytes = sum(array.nbytes // max(len(array), 1) for array in arrays)
        count = min(ROWS, MOST_BYTES // max(row_bytes, 1))
        if not count:
            return None
        return cls({name: np.asarray(one)[:count] for name, one in inputs.items()}, np.asarray(targets)[:count])

    @property
    def digest(self) -> str:
        digest = hashlib.sha256()
        for array in map(_plain, (*self.inputs.values(), self.targets)):
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def write(self, folder: Path) -> None:
        """`probe-<digest>.npz` in `folder`, once."""
        path = folder / _name(self.digest)
        if path.exists():
            return
        content = io.BytesIO()
        arrays = {f"input_{number}": _plain(one) for number, one in enumerate(self.inputs.values())}
        np.savez(content, targets=_plain(self.targets), names=np.array([*self.inputs]), **arrays)
        durable.write_bytes(path, content.getvalue())


def read_batch(folder: Path, digest: str, names: Sequence[str]) -> Batch | None:
    """The batch that a checkpoint was probed with, its inputs under the model's `names`; None where it is not there or
    damaged."""
    try:
        with np.load(folder / _name(digest), allow_pickle=False) as stored:
            arrays = [stored[f"input_{number}"] for number in range(len(stored["names"]))]
            targets = stored["targets"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    if len(arrays) != len(names):
        return None
    batch = Batch(dict(zip(names, arrays, strict=True)), targets)
    return batch if batch.digest == digest else None


def _name(digest: str) -> str:
    return f"probe-{digest[:16]}.npz"


def _plain(array: Any) -> Any:
    """An array without Python objects: words as bytes of one width."""
    return np.asarray(array).astype("S") if np.asarray(array).dtype.kind in "OU" else np.asarray(array)


def values_of(model: Any, batch: Batch) -> ProbeValues:
    """What `model` says of `batch` now: outputs, loss and metrics, and what one training step changes."""
    inputs = {name: _tensor(one) for name, one in batch.inputs.items()}
    data = (inputs, tf.constant(batch.targets))
    with _as_it_was(model):
        outputs = np.concatenate(
            [np.asarray(tf.cast(one, tf.float32)).ravel() for one in tf.nest.flatten(model(inputs, training=False))]
        )
        model.reset_metrics()
        model.test_step(data)
        found = {name: float(value) for name, value in model.get_metrics_result().items()}
        before = [np.asarray(tf.cast(one.value, tf.float32)) for one in model.trainable_variables]
        model.train_step(data)
        after = [np.asarray(tf.cast(one.value, tf.float32)) for one in model.trainable_variables]
    loss = found.pop("loss", 0.0)
    step = [float(np.linalg.norm(new - old)) for old, new in zip(before, after, strict=True)]
    return ProbeValues(
        batch=batch.digest,
        where=_where(model),
        outputs=_rounded(_projected(outputs)),
        loss=loss,
        metrics=found,
        step=_rounded(np.array(step)),
    )


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


def _projected(values: Any) -> Any:
    if len(values) <= _OUTPUTS:
        return values
    # A projection on fixed random directions: equal outputs give equal numbers, and others do not.
    draw = np.random.default_rng(0)
    return np.array([values @ draw.standard_normal(len(values), dtype="float32") for _ in range(16)])


def _rounded(values: Any) -> list[float]:
    return [float(f"{value:.7g}") for value in values]


@contextlib.contextmanager
def _as_it_was(model: Any) -> Iterator[None]:
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
    for name, old, new in _pairs(saved, found):
        if name in may_move:
            continue
        if len(old) != len(new):
            lines.append(f"{name}: {len(old)} values, now {len(new)}")
            continue
        share = _distance(np.array(old), np.array(new))
        if not share <= allowed[name]:
            lines.append(f"{name} moved by {share:.1%}, {allowed[name]:.2%} is allowed")
    return lines


def _pairs(saved: ProbeValues, found: ProbeValues) -> Iterator[tuple[str, list[float], list[float]]]:
    yield "outputs", saved.outputs, found.outputs
    yield "loss", [saved.loss], [found.loss]
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
