"""The list of pieces of a stored checkpoint, read and validated."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from expmgr.checkpoints.manifest import SavedCheckpoint, is_file_of
from expmgr.checkpoints.model_dir import ModelDir
from expmgr.disk.json_text import parse_foreign_json
from expmgr.disk.stored import StoredPart
from expmgr.errors import StoreProblem
from expmgr.log.events import Digest, Moment, RunName, Stored, Variant
from expmgr.runs.record import RunRecord
from expmgr.store.backends import PIECE_BYTES, Store

Progress = Callable[[int], None]

#: A checkpoint of 1 TiB, in pieces of 8 MiB; and the list of such a one.
MOST_PIECES = 1 << 17
MOST_LIST_BYTES = 16 << 20
_PROBE = re.compile(r"probe-[0-9a-f]{16}\.npz\Z")

Count = Annotated[int, Field(ge=0, lt=2**63)]


class Pieces(StoredPart):
    """One file of a checkpoint in the store: every piece of `PIECE_BYTES`, the last of the rest."""

    size_bytes: Count
    sha256: Digest
    pieces: Annotated[list[Digest], Field(max_length=MOST_PIECES)]

    @model_validator(mode="after")
    def _is_as_large_as_its_pieces(self) -> Pieces:
        if len(self.pieces) != -(-self.size_bytes // PIECE_BYTES):
            raise ValueError(f"{self.size_bytes} bytes are not {len(self.pieces)} pieces")
        return self

    def sized(self) -> list[tuple[str, int]]:
        """The pieces, each with its size in bytes."""
        starts = range(0, self.size_bytes, PIECE_BYTES)
        return [
            (one, min(PIECE_BYTES, self.size_bytes - start)) for one, start in zip(self.pieces, starts, strict=True)
        ]


class Listed(SavedCheckpoint):
    """A checkpoint as the manifest of its model_dir lists it, held to what can be."""

    step: Count
    saved_at: Moment
    examples_seen: Count

    @model_validator(mode="after")
    def _is_json(self) -> Listed:
        json.dumps(self.model_dump(mode="json"), allow_nan=False)  # else no manifest could hold it
        return self


class Contents(StoredPart):
    """A checkpoint in the store."""

    format: Literal[1] = 1
    run_id: RunName
    variant: Variant
    seed: Count
    saved: Listed
    files: dict[str, Pieces]
    """Those of `saved`, and the rows of its probe."""

    @model_validator(mode="after")
    def _is_of_a_checkpoint(self) -> Contents:
        own = self.saved.files
        beside = self.files.keys() - own.keys()
        if not all(is_file_of(self.saved.step, name) for name in own) or not own:
            raise ValueError(f"it names other files than a checkpoint of step {self.saved.step} has")
        if len(beside) > 1 or not all(_PROBE.match(name) for name in beside):
            raise ValueError("it names files beside the checkpoint's own and its probe's")
        told = {name: (file.size_bytes, file.sha256) for name, file in self.files.items() if name in own}
        if told != {name: (file.size_bytes, file.sha256) for name, file in own.items()}:
            raise ValueError("it tells of the checkpoint's files in two ways")
        if sum(len(file.pieces) for file in self.files.values()) > MOST_PIECES:
            raise ValueError(f"it has more than {MOST_PIECES} pieces")
        return self


def parse_contents(content: bytes) -> Contents:
    """The list in `content`. Raises `ValueError` (of pydantic or of `parse_foreign_json`) for what is none."""
    contents = Contents.model_validate_json(content)
    parse_foreign_json(content)
    return contents


def first_problem(error: ValueError) -> str:
    """The first thing that is wrong; not where, which would repeat the words of whoever wrote it."""
    if not isinstance(error, ValidationError):
        return str(error)
    return str(error.errors()[0]["msg"]).removeprefix("Value error, ")


def read_contents(store: Store, record: RunRecord, stored: Stored) -> Contents:
    """The list of a checkpoint's files, which is of no other one than the record names."""
    try:
        contents = parse_contents(store.get(stored.contents, MOST_LIST_BYTES))
    except ValueError as error:
        raise StoreProblem(
            f"what {store.name} lists of run {record.run_id} is no checkpoint: {first_problem(error)}",
            left_alone="Nothing was changed.",
            hint=f"ask {record.user or 'whoever trained it'}; expmgr log {record.run_id} says who stored it",
        ) from None
    about = (contents.run_id, contents.variant, contents.seed, contents.saved.step)
    is_right = about == (record.run_id, record.variant, record.seed, stored.step)
    if not is_right or digests_of(contents.saved) != recorded_digests(record, stored.step):
        raise StoreProblem(
            f"what {store.name} has of run {record.run_id} is not the checkpoint of step {stored.step} that its record names",
            left_alone="Nothing was changed.",
            hint=f"ask {record.user or 'whoever trained it'}; expmgr log {record.run_id} says who stored it",
        )
    return contents


def digests_of(saved: SavedCheckpoint) -> dict[str, str]:
    return {name: file.sha256 for name, file in saved.files.items()}


def recorded_digests(record: RunRecord, step: int) -> dict[str, str] | None:
    """The digests of the files of a checkpoint, as the record has them."""
    return next((one.files for one in reversed(record.checkpoints) if one.step == step), None)


def is_in_model_dir(folder: ModelDir, contents: Contents) -> bool:
    """Whether the model_dir holds the checkpoint: its manifest lists it, and its files have the content that was saved."""
    manifest = folder.read_manifest()
    saved = manifest.at(contents.saved.step) if manifest is not None else None
    return saved is not None and digests_of(saved) == digests_of(contents.saved) and not folder.damage(saved)


def is_of(folder: ModelDir, record: RunRecord) -> bool:
    """Whether the folder is empty, or holds checkpoints of that run alone."""
    manifest = folder.read_manifest()
    steps = manifest.checkpoints if manifest is not None else []
    return all(digests_of(one) == recorded_digests(record, one.step) for one in steps)
