"""The signature, `model.ckpt-<step>.json`: what a checkpoint requires of a model.

Format 2: the variables and the part that each plays, two fingerprints of what is computed, the configuration, what the
data looked like, and how training went on. `docs/reference/signature.md` explains each field.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_serializer, model_validator

from expmgr.checkpoints.bundle import VALUE, NotAnIndex, Tensor, key_of, read_index
from expmgr.disk.json_text import NotJson, parse_foreign_json, parse_json
from expmgr.errors import CheckpointRefused

FORMAT = 2

#: A field whose JSON is longer is packed: a model of 1,000 variables stays under 100 KB, a small one stays readable.
_PACKED_BYTES = 8_000
#: Some bytes of zlib stand for any number of zeros.
_UNPACKED_BYTES = 64_000_000
_PACKED = "zlib+base64:"
#: How the path of a moving average of a weight ends, among the optimizer's variables.
AVERAGE = "_average"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Variable(_Part):
    """One variable: its path in the model, its shape (empty for a scalar), its dtype."""

    path: str
    shape: list[int]
    dtype: str
    trainable: bool = True
    role: int | None = None
    """The part that it plays in the inference fingerprint: its number there; None where the graph does not use it."""
    blind_role: int | None = None
    """The same in the fingerprint that is blind to precision."""

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join(map(str, self.shape))})"


class Fingerprint(_Part):
    """What a part of the model computes, as one digest."""

    by: Literal["graph", "code", "none"]
    """What decided: the traced graph, or, where the Python cannot be traced, the syntax tree of the model's code."""
    digest: str = ""
    blind: str = ""
    """The digest of the graph without regard to precision; only `by: graph` has it."""
    named: str = ""
    """The digest of the graph in which a variable is known by its name; only `by: graph` has it, and so `neutral`."""
    neutral: str = ""
    """The digest of the graph in which single numbers (rates, coefficients) do not count."""
    reason: str | None = None
    """Why the graph could not be traced."""


class Feature(_Part):
    """One column as the model sees it. `vocabulary` and `scale` belong to categorical and normalised columns."""

    name: str
    kind: Literal["numeric", "categorical", "tensor"]
    vocabulary: list[str] | None = None
    scale: list[float] | None = None
    """Mean and variance that numeric values are normalised by."""
    sha256: str | None = None
    """Digest of its values in the training split, whatever its name."""
    spec: str | None = None
    """Dtype and shape of one batch of it."""


class SplitContent(_Part):
    """The rows of one split: how many, and a digest of inputs and targets in order, names apart."""

    rows: int | None = None
    sha256: str


class DataContract(_Part):
    """What the model was given to learn from."""

    features: list[Feature]
    label: str | None = None
    """The column that is predicted."""
    labels: list[str] | None = None
    """Classes in the order of the outputs; None for a regressor, or where nobody declared them."""
    targets: str | None = None
    """Digest of the training split's targets."""
    splits: dict[str, SplitContent] = Field(default_factory=dict)
    first_batch: dict[str, str] = Field(default_factory=dict)
    """`inputs` and `targets`: digest of the first rows of the eval split as they enter the model."""
    declared: dict[str, str] = Field(default_factory=dict)
    """What the experiment declares of its preprocessing: name to digest of the content."""


class TrainingSetup(_Part):
    """How training goes on."""

    loss: Any = None
    optimizer: dict[str, Any]
    """`kind`, and the whole configuration of the optimizer."""
    loss_scale: dict[str, Any] | None = None
    """Configuration of the loss scale of mixed precision."""
    batch_size: int | None = None
    shuffle: bool | None = None
    seed: int | None = None


class ProbeValues(_Part):
    """What the model of a checkpoint says of the stored batch `probe-<batch>.npz`."""

    batch: str
    """sha256 of the batch."""
    where: str
    """Kind of device, precision, versions: where values agree closely."""
    outputs: list[float]
    """Empty where they are others each time that the model is asked; so is `step`, and `loss` is null."""
    loss: float | None
    metrics: dict[str, float]
    step: list[float]
    """Norm of what one training step on the batch changes in each trained variable."""
    measures: dict[str, str] = Field(default_factory=dict)
    """Digests of `metrics` and `steps` (an evaluation of the model's own): where they moved, metrics may."""

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, values: Any) -> Any:
        # An infinite output was once written as null: then nothing is known of it.
        if not isinstance(values, dict):
            return values
        lists = {key: values.get(key) for key in ("outputs", "step")}
        return {**values, **{key: [] for key, one in lists.items() if isinstance(one, list) and None in one}}


class Signature(_Part):
    """What a checkpoint requires of a model, or what a model offers to a checkpoint."""

    format: Literal[2] = 2
    keys: Literal["paths", "names"] = "paths"
    """How the checkpoint calls its tensors: `variables/<path>/...` and so on, or by name, as an Estimator's does."""
    step: int
    variables: list[Variable]
    """The model's weights, in the order of its layers."""
    optimizer_variables: list[Variable]
    """Slots of the optimizer, its step counter and learning rate."""
    state: list[Variable]
    """What neither is a weight nor belongs to the optimizer: seed generators, running metrics. Not compared."""
    inference: Fingerprint
    training_step: Fingerprint
    """What one step does to weights and optimizer: the loss and the update rule."""
    code: str | None = None
    """Digest of the syntax trees of the repository's code that the model is made of; None for a premade model."""
    step_code: str | None = None
    """The same where the training step or the loss is the repository's own code; else None."""
    architecture: dict[str, Any] | None = None
    """The `model` section of the spec, resolved: defaults included."""
    layers: dict[str, dict[str, Any]]
    """The Keras configuration of every layer, by its path."""
    data: DataContract
    training: TrainingSetup
    probe: ProbeValues | None = None
    """At the first, the last and the selected checkpoint, unless the spec says `probe: off`. Looked at after
    restoring."""
    provenance: dict[str, Any]
    """Commit, run, seed, versions. Not compared, but for the versions of TensorFlow and Keras, which trace."""

    def unlike(self, index: Mapping[str, Tensor]) -> Iterator[str]:
        """What a checkpoint's index says otherwise of weights and optimizer than this signature, a line each."""
        if self.keys == "names":
            promised = {one.path: one for one in (*self.variables, *self.optimizer_variables, *self.state)}
            held = {key: one for key, one in index.items() if key != "global_step"}
        else:
            groups = {"variables": self.variables, "optimizer": self.optimizer_variables}
            promised = {key_of(name, one.path): one for name, group in groups.items() for one in group}
            held = {key: one for key, one in index.items() if key.partition("/")[0] in groups and key.endswith(VALUE)}
        for key in sorted(promised.keys() | held.keys()):
            name = key.removesuffix(VALUE)
            one, tensor = promised.get(key), held.get(key)
            if one is None:
                yield f"{name}: its signature does not know it"
            elif tensor is None:
                yield f"{name}: the checkpoint does not hold it"
            elif (tuple(one.shape), one.dtype) != (tensor.shape, tensor.dtype):
                yield f"{name}: {tensor} in the checkpoint, {one} in its signature"

    @model_validator(mode="before")
    @classmethod
    def _unpack(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {key: unpacked(value) if isinstance(value, str) else value for key, value in values.items()}

    @field_validator("architecture")
    @classmethod
    def _names_its_kind(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and not isinstance(value.get("kind", ""), str):
            raise ValueError("kind is no text")
        return value

    @model_serializer(mode="wrap")
    def _pack(self, serialize: Any) -> dict[str, Any]:
        return {key: packed(value) for key, value in serialize(self).items()}


def packed(value: Any) -> Any:
    """`value`, as text where its JSON is long."""
    if not isinstance(value, (dict, list)):
        return value
    content = json.dumps(value, separators=(",", ":")).encode()
    if len(content) <= _PACKED_BYTES:
        return value
    return _PACKED + base64.b64encode(zlib.compress(content, 9)).decode("ascii")


def unpacked(value: str) -> Any:
    """What `packed` was given. Raises `ValueError` for text that it did not make."""
    if not value.startswith(_PACKED):
        return value
    try:
        unpacking = zlib.decompressobj()
        content = unpacking.decompress(base64.b64decode(value[len(_PACKED) :]), _UNPACKED_BYTES)
        if not unpacking.eof:
            raise ValueError(f"a packed field has more than {_UNPACKED_BYTES:,} bytes, or is cut")
        return parse_foreign_json(content)
    except zlib.error as error:
        raise ValueError(f"a packed field cannot be read: {error}") from None


def slot_path(path: str, renames: dict[str, str]) -> str:
    """The path of an optimizer's slot after its variable was renamed. Keras 3 makes `<optimizer>/<path>_<slot>`."""
    optimizer, slash, rest = path.partition("/")
    for old in sorted(renames, key=len, reverse=True):
        flat = old.replace("/", "_")
        if rest.startswith(f"{flat}_"):
            return f"{optimizer}{slash}{renames[old].replace('/', '_')}{rest[len(flat) :]}"
    return path


def read_signature(prefix: Path, checkpoint: str, way_out: str | None = None) -> Signature:
    """The signature of the checkpoint `prefix`, which its index bears out. `way_out` is the hint of an error.

    `CheckpointRefused` where it is missing, cannot be read, or speaks of another checkpoint: that is never a yes.
    """
    path = prefix.with_name(f"{prefix.name}.json")
    refusal = f"{checkpoint} was not restored"
    kept = "Nothing was changed on disk."
    try:
        content = path.read_bytes()
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError)
        what = "is missing" if is_missing else f"cannot be read: {os.strerror(error.errno or errno.EIO)}"
        raise CheckpointRefused(f"{refusal}: its signature {path.name} {what}", left_alone=kept, hint=way_out) from None
    try:
        signature = Signature.model_validate_json(content, strict=True)
        parse_foreign_json(content)
    except NotJson as error:
        raise CheckpointRefused(
            f"{refusal}: its signature {path.name} cannot be read", details=[str(error)], left_alone=kept, hint=way_out
        ) from None
    except ValidationError as error:
        found = _format_of(content)
        if found not in (None, FORMAT):
            raise CheckpointRefused(
                f"{refusal}: {path.name} has format {str(found)[:40]}, this expmgr reads format {FORMAT}",
                left_alone=kept,
                hint="use the expmgr that wrote it, or a newer one",
            ) from None
        first = error.errors()[0]
        raise CheckpointRefused(
            f"{refusal}: its signature {path.name} cannot be read",
            details=[f"{'.'.join(map(str, first['loc']))}: {first['msg']}"],
            left_alone=kept,
            hint=way_out,
        ) from None
    try:
        lines = list(signature.unlike(read_index(prefix.with_name(f"{prefix.name}.index"))))
    except (OSError, NotAnIndex) as error:
        lines = [str(error) if isinstance(error, NotAnIndex) else f"{prefix.name}.index: {error.strerror}"]
    if lines:
        more = [f"and {len(lines) - 5} more"] if len(lines) > 5 else []
        raise CheckpointRefused(
            f"{refusal}: its signature is not that of its files",
            details=[*lines[:5], *more],
            left_alone=kept,
            hint=way_out,
        )
    return signature


def _format_of(content: bytes) -> Any:
    try:
        values = parse_json(content)
    except ValueError:
        return None
    return values.get("format") if isinstance(values, dict) else None
