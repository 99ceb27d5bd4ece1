"""Rebuilds a lost or damaged `manifest.json` from the checkpoints that are whole. No TensorFlow.

A checkpoint is whole if its signature can be read, all its files are there with the sizes and digests that the signature
lists, and its index says what the signature says. The signature also holds what the manifest said when the checkpoint was
saved (`provenance.saved`), so a run resumes from a rebuilt manifest as from the lost one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from expmgr.checkpoints.manifest import (
    LATEST,
    Carried,
    CheckpointMetadata,
    FileName,
    Manifest,
    SavedCheckpoint,
    SavedFile,
    Step,
    Time,
    checkpoint_name,
    step_of,
)
from expmgr.checkpoints.signature import Signature, read_signature
from expmgr.disk.durable import sha256
from expmgr.disk.stored import StoredPart
from expmgr.errors import CheckpointRefused

#: The key in a signature's `provenance` for what the manifest said when the checkpoint was saved.
SAVED = "saved"

#: Digests of the files of the checkpoint of a step, by the record of a run: (run id, step) to name to sha256; None where no
#: record tells.
Recorded = Callable[[str | None, int], "Mapping[str, str] | None"]


class _About(StoredPart):
    """What a signature says of its checkpoint's line in the manifest (`about_of`). Others may have written it."""

    saved_at: Time | None = None
    examples_seen: Step | None = None
    finite: bool = True  # only finite checkpoints are saved
    metrics: dict[str, dict[str, float]] = Field(default_factory=dict)
    evaluated_on: dict[str, str] = Field(default_factory=dict)
    carried: Carried = Field(default_factory=dict)
    files: dict[FileName, SavedFile] = Field(default_factory=dict)
    last_preserved_at: Time | None = None


@dataclass(frozen=True)
class NotTaken:
    """A checkpoint that is not whole, and why."""

    name: str
    why: str

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "why": self.why}


@dataclass(frozen=True)
class Known:
    """What the records and the spec say of a model_dir besides its files."""

    recorded: Recorded = lambda _run_id, _step: None
    examples_seen: Mapping[int, int] = field(default_factory=dict)
    """Of checkpoints whose signature does not hold it: step to rows trained on."""
    points: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """The metrics of the eval split by step, where the whole split was evaluated."""
    rows: Mapping[str, str] = field(default_factory=dict)
    """Split to the sha256 of its rows."""
    selection: Mapping[str, str] | None = None
    """`metric`, `split` and `mode`, where the spec selects by a metric."""
    selected_step: int | None = None
    """The selected checkpoint, by the record of a finished run."""
    began_at: float = 0.0
    """When training began."""


@dataclass(frozen=True)
class RebuiltManifest:
    """A manifest that was put together again, the checkpoints that it does not list, and what is not known."""

    manifest: Manifest
    not_taken: Sequence[NotTaken]
    notes: Sequence[str]


def rebuilt(
    folder: Path, shown: str, variant: str, seed: int, known: Known, among: Sequence[str] | None = None
) -> RebuiltManifest:
    """The manifest of the checkpoints in `folder` that are whole, `among` these files. Reads every file of them; writes
    nothing."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and (among is None or path.name in among))
    steps = sorted({step for step in map(step_of, names) if step is not None})
    taken: list[SavedCheckpoint] = []
    preserved_at: list[float] = []
    not_taken, notes = [], []
    for step in steps:
        name = checkpoint_name(step)
        files = [one for one in names if step_of(one) == step]
        found = _whole(folder, shown, step, files, known)
        if isinstance(found, str):
            not_taken.append(NotTaken(name, found))
            continue
        saved, before, unknown = found
        taken.append(saved)
        preserved_at += [before] if before is not None else []
        notes += [f"{name}: {line}" for line in unknown]
    selected = _selected(taken, known)
    if known.selection is not None and selected is None and taken:
        notes.append(f"no checkpoint is selected: none has {known.selection['split']} {known.selection['metric']}")
    if known.selected_step is not None and selected is not None and selected != known.selected_step:
        notes.append(
            f"the record names step {known.selected_step} as the selected one, which is not among them; "
            f"of the others step {selected} is the best"
        )
    # Each one says when the newest preserved one before it was saved. What was preserved right after the newest was saved is
    # decided again, in the same way, after the next save.
    checkpoints = [one.model_copy(update={"preserved": one.saved_at in preserved_at}) for one in taken]
    manifest = Manifest(
        variant=variant,
        seed=seed,
        last_preserved_at=max(preserved_at, default=_time(known.began_at)),
        selected_step=selected,
        not_taken=[one for one in names for refused in not_taken if one.startswith(f"{refused.name}.")],
        checkpoints=checkpoints,
    )
    return RebuiltManifest(manifest, not_taken, notes)


def is_as_signed(folder: Path, shown: str, step: int, names: Sequence[str]) -> bool:
    """Whether the checkpoint of `step`, of the files `names`, is whole by what its own signature says."""
    found = _whole(folder, shown, step, [one for one in names if step_of(one) == step], Known())
    return not isinstance(found, str)


def signed_digests(signature: Signature) -> dict[str, str]:
    """The sha256 of the files by name, where the signature has them."""
    about = signature.provenance.get(SAVED)
    files = about.get("files") if isinstance(about, dict) else None
    found = files.items() if isinstance(files, dict) else ()
    return {name: one["sha256"] for name, one in found if isinstance(one, dict) and isinstance(one.get("sha256"), str)}


def has_checkpoints_of_ours(names: Sequence[str]) -> bool:
    """Whether a folder with the files `names` may hold a whole checkpoint: an index, and a signature."""
    there = set(names)
    return any(f"{checkpoint_name(step)}.json" in there for name in names if name.endswith(".index")
               if (step := step_of(name)) is not None)  # fmt: skip


def about_of(saved: SavedCheckpoint, last_preserved_at: float) -> dict[str, Any]:
    """What the signature keeps of a checkpoint's line in the manifest: all of it except the signature's own file."""
    keys = {"saved_at", "examples_seen", "finite", "metrics", "evaluated_on", "carried", "files"}
    return {**saved.model_dump(mode="json", include=keys), "last_preserved_at": last_preserved_at}


def _whole(
    folder: Path, shown: str, step: int, names: Sequence[str], known: Known
) -> tuple[SavedCheckpoint, float | None, list[str]] | str:
    """The checkpoint of `step`, when the newest preserved one before it was saved, and what is not known of it; or why it
    is not whole."""
    name = checkpoint_name(step)
    if f"{name}.json" not in names:
        return f"its signature {name}.json is missing"
    if f"{name}.index" not in names:
        return f"{name}.index is missing"
    try:
        signature = read_signature(folder / name, f"{shown}/{name}")
        if signature.step != step:
            return f"its signature is of step {signature.step}"
        return _verified(folder, signature, step, names, known)
    except CheckpointRefused as refusal:
        return "; ".join(refusal.details) or refusal.message.partition(": ")[2]
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, (SAVED, *first["loc"])))
        return f"{name}.json has a {place[:200]} that no expmgr writes: {first['msg']}"
    except OSError as error:
        return f"{Path(error.filename or name).name} cannot be read: {error.strerror}"
    except (ValueError, TypeError, AttributeError):  # anybody may have written the signature
        return f"what {name}.json says of its files cannot be read"


def _verified(
    folder: Path, signature: Signature, step: int, names: Sequence[str], known: Known
) -> tuple[SavedCheckpoint, float | None, list[str]] | str:
    name = checkpoint_name(step)
    about = _About.model_validate(signature.provenance.get(SAVED, {}), strict=True)
    listed, run_id = about.files, signature.provenance.get("run_id")
    recorded = known.recorded(run_id if isinstance(run_id, str) else None, step)
    missing = sorted({*listed, *(recorded or {})} - set(names))
    if missing:
        return f"{missing[0]} is missing"
    if not any(".data-" in one for one in names):
        return f"{name}.data-00000-of-00001 is missing"
    files = {}
    for one in names:
        path = folder / one
        size, digest = path.stat().st_size, sha256(path)
        wanted = listed.get(one)
        if wanted is not None and size != wanted.size_bytes:
            return f"{one} has {size:,} bytes, {wanted.size_bytes:,} were saved"
        if (wanted is not None and digest != wanted.sha256) or (recorded is not None and digest != recorded.get(one)):
            return f"{one} has other content than was saved"
        files[one] = SavedFile(size_bytes=size, sha256=digest)
    unknown = []
    if not listed and recorded is None:
        return "neither its signature nor a record has the digests of its files"
    examples_seen = about.examples_seen if about.examples_seen is not None else known.examples_seen.get(step)
    if examples_seen is None:
        return "how many rows it was trained on is not known: an older expmgr saved it"
    metadata = CheckpointMetadata(
        saved_at=_time((folder / f"{name}.index").stat().st_mtime) if about.saved_at is None else about.saved_at,
        examples_seen=examples_seen,
        metrics=about.metrics,
        evaluated_on=about.evaluated_on,
        carried=about.carried,
    )
    if not about.model_fields_set:
        unknown.append("its metrics and the state of early stopping and callbacks are not known")
    # What a stop cut short was evaluated when the run was resumed.
    if not metadata.metrics and "checkpoint" in metadata.carried.get("pending", []) and step in known.points:
        metadata = CheckpointMetadata(
            metadata.saved_at,
            metadata.examples_seen,
            {"eval": dict(known.points[step])},
            {"eval": known.rows.get("eval", "")},
            metadata.carried,
        )
    saved = SavedCheckpoint(step=step, finite=about.finite, files=files, **vars(metadata))
    return saved, about.last_preserved_at, unknown


def _time(seconds: float) -> float:
    """`seconds` since 1970 as a manifest may hold it; a file, or a record of others, may have any date."""
    return min(max(seconds, 0.0), LATEST)


def _selected(taken: Sequence[SavedCheckpoint], known: Known) -> int | None:
    """The best of `taken` by the spec's selection, on the rows that the record names; the first of equals."""
    if known.selection is None:
        return None
    if known.selected_step is not None and any(one.step == known.selected_step for one in taken):
        return known.selected_step
    split, metric = known.selection["split"], known.selection["metric"]
    sign = 1 if known.selection["mode"] == "max" else -1
    rows = known.rows.get(split)
    found = [
        (sign * one.metrics[split][metric], -one.step)
        for one in taken
        if metric in one.metrics.get(split, {}) and rows in (None, one.evaluated_on.get(split))
    ]
    return -max(found)[1] if found else None
