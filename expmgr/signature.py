"""What a checkpoint requires of a model, written beside it as `model.ckpt-<step>.json`.

Format 1 holds the variables, the resolved architecture, what the data looked like, and how training went on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from expmgr.errors import CheckpointRefused

FORMAT = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Variable(_Part):
    """One variable: its path in the model, its shape (empty for a scalar), its dtype."""

    path: str
    shape: list[int]
    dtype: str
    trainable: bool = True

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join(map(str, self.shape))})"


class Feature(_Part):
    """One column as the model sees it. `vocabulary` and `scale` belong to categorical and normalised columns."""

    name: str
    kind: Literal["numeric", "categorical"]
    vocabulary: list[str] | None = None
    scale: list[float] | None = None
    """Mean and variance that numeric values are normalised by."""


class Signature(_Part):
    """What a checkpoint requires of a model, or what a model offers to a checkpoint."""

    format: Literal[1] = 1
    step: int
    variables: list[Variable]
    """The model's weights, in the order of its layers."""
    optimizer_variables: list[Variable]
    """Slots of the optimizer, its step counter and learning rate."""
    state: list[Variable]
    """What neither is a weight nor belongs to the optimizer: seed generators, running metrics."""
    model: dict[str, Any]
    """The `model` section of the spec, resolved: defaults included."""
    features: list[Feature]
    label: str
    """The column that is predicted."""
    labels: list[str] | None
    """Classes in the order of the outputs; None for a regressor."""
    data: dict[str, str]
    """Split to sha256 of its content."""
    training: dict[str, Any]
    """How training goes on: batch size, order of the data, loss."""
    optimizer: dict[str, Any]
    """The `optimizer` section of the spec, resolved."""
    provenance: dict[str, Any]
    """Commit, run, seed, versions. Never compared."""


def read_signature(path: Path, checkpoint: str) -> Signature:
    """The signature in `path`; `CheckpointRefused` where it is missing or cannot be read: that is never a yes."""
    refusal = f"{checkpoint} was not restored"
    kept = "Nothing was changed on disk."
    fresh = "to start anew and keep the old model_dir aside: expmgr run --fresh"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointRefused(
            f"{refusal}: its signature {path.name} is missing", left_alone=kept, hint=fresh
        ) from None
    try:
        return Signature.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("format",):
            raise CheckpointRefused(
                f"{refusal}: {path.name} has format {first['input']}, this expmgr reads format {FORMAT}",
                left_alone=kept,
                hint="use the expmgr that wrote it, or a newer one",
            ) from None
        raise CheckpointRefused(
            f"{refusal}: its signature {path.name} cannot be read", left_alone=kept, hint=fresh
        ) from None
