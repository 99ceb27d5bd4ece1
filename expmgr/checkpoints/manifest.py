"""`manifest.json`: the complete checkpoints of a model_dir, with size and sha256 of each file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from expmgr.disk.stored import StoredPart

_CHECKPOINT_FILE = re.compile(r"model\.ckpt-(0|[1-9][0-9]*)\.(?:index|json|meta|data-[0-9]{5}-of-[0-9]{5})\Z")


def _is_plain(name: str) -> str:
    if not name or name in (".", "..") or "/" in name or "\0" in name or len(name) > 255:
        raise ValueError("it names a file that is not in the model_dir")
    return name


def _is_integer(value: Any) -> Any:
    if type(value) is not int:  # true and 1.0 are equal to 1
        raise ValueError("it is no integer")
    return value


def _carries(value: dict[str, Any]) -> dict[str, Any]:
    pending = value.get("pending", [])
    if not isinstance(pending, list) or not all(isinstance(one, str) for one in pending):
        raise ValueError("pending is no list of texts")
    for key in ("early_stopping", "callbacks"):
        if not isinstance(value.get(key, {}), dict):
            raise ValueError(f"{key} is no object")
    return value


#: The manifest may have come from a store or a shared folder: its files are in the model_dir, and its times are dates.
FileName = Annotated[str, AfterValidator(_is_plain)]
Step = Annotated[int, Field(ge=0, lt=2**63)]
LATEST = 250_000_000_000.0
Time = Annotated[float, Field(ge=0, le=LATEST)]

#: What goes on over a stop beside the tensors: of early stopping, of callbacks, and what a stop cut short.
Carried = Annotated[dict[str, Any], AfterValidator(_carries)]


class SavedFile(StoredPart):
    """One file, as it was written."""

    size_bytes: Step
    sha256: str


class SavedCheckpoint(StoredPart):
    """One checkpoint that counts."""

    step: Step
    saved_at: Time
    """Seconds since 1970, UTC."""
    examples_seen: Step
    """Rows trained on so far: the position in the data."""
    finite: bool
    preserved: bool = False
    """Kept beside the newest, by `keep_checkpoint_every_n_hours`."""
    metrics: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Split to metric to value, where the checkpoint was evaluated when it was saved."""
    evaluated_on: dict[str, str] = Field(default_factory=dict)
    """Split to the sha256 of the rows that `metrics` were found on."""
    carried: Carried = Field(default_factory=dict)
    files: dict[FileName, SavedFile]

    @property
    def name(self) -> str:
        return checkpoint_name(self.step)


class Manifest(StoredPart):
    """`manifest.json`."""

    format: Annotated[Literal[1], BeforeValidator(_is_integer)] = 1
    variant: str
    seed: int
    last_preserved_at: Time
    """When the newest preserved checkpoint was saved, or training began."""
    selected_step: Step | None = None
    """The best checkpoint, where the spec selects by a metric. Never deleted."""
    removed: list[FileName] = Field(default_factory=list)
    """Files that go; listed first, so that a crash cannot leave them for ever."""
    set_aside: dict[FileName, list[FileName]] = Field(default_factory=dict)
    """Folder in `.set-aside/` to the files that are on their way there."""
    not_taken: list[FileName] = Field(default_factory=list)
    """Files of checkpoints that were not whole when the manifest was rebuilt."""
    checkpoints: list[SavedCheckpoint] = Field(default_factory=list)

    def at(self, step: int) -> SavedCheckpoint | None:
        return next((one for one in self.checkpoints if one.step == step), None)


@dataclass(frozen=True)
class CheckpointMetadata:
    """What the manifest says of a checkpoint beside its files (`SavedCheckpoint`)."""

    saved_at: float
    examples_seen: int
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    evaluated_on: dict[str, str] = field(default_factory=dict)
    carried: dict[str, Any] = field(default_factory=dict)


def checkpoint_name(step: int) -> str:
    return f"model.ckpt-{step}"


def is_file_of(step: int, name: str) -> bool:
    """Whether a file is called as those of the checkpoint of `step` are; an Estimator's has a `.meta` too."""
    match = _CHECKPOINT_FILE.match(name)
    return match is not None and match[1] == str(step)


def step_of(name: str) -> int | None:
    match = _CHECKPOINT_FILE.match(name)
    return int(match[1]) if match else None
