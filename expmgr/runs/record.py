"""`run.json`, the record of a run: its fields, and which runs a comparison or a list may use."""

from __future__ import annotations

import contextlib
import getpass
import os
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from expmgr import __version__
from expmgr.disk.index import LARGEST
from expmgr.disk.json_text import parse_json
from expmgr.disk.locks import Process
from expmgr.disk.stored import StoredPart
from expmgr.errors import NewerFormat, RecordDamaged
from expmgr.paths import RunId, VariantName, run_command

Status = Literal["starting", "running", "finished", "failed", "preempted", "killed"]

CURVE_POINTS = 1_000

#: Nobody takes so long to write a file of a line.
ON_ITS_WAY_SECS = 60.0


class Attempt(StoredPart):
    """One process that trained the run; a run that was taken up again has several."""

    number: int
    status: Status = "starting"
    started_at: float
    """Seconds since 1970, UTC."""
    ended_at: float | None = None
    from_step: int | None = None
    to_step: int | None = None
    train_s: float | None = None
    """Seconds in the training loop, evaluation and saving included."""
    max_steps: int
    launcher: dict[str, Any]
    """The process that started the attempt."""
    worker: dict[str, Any] | None = None
    """The process that trained."""
    changes: list[dict[str, Any]] = Field(default_factory=list)
    """What the guard let through at a resume (verdict `resume`), each with its rule."""
    error: dict[str, Any] | None = None
    probe: str | None = None
    """What the probe said of the restored model; None where nothing was restored."""
    not_exact: list[str] = Field(default_factory=list)
    """Why it may not end bit for bit as a run that was left alone; a line each."""
    damaged_lines: int = 0
    """Lines of its `events.jsonl` that could not be read: what they said is missing here. The file is kept."""
    ended_early: str | None = None
    """Why training ended before `max_steps`, where it did: early stopping, or a callback."""
    selected_step: int | None = None
    metrics: dict[str, dict[str, dict[str, float]]] = Field(default_factory=dict)
    """As the record's, when this attempt ended: a later one does not take them away."""


class DataSplit(StoredPart):
    """What was read for one split."""

    path: str
    rows: int | None = None
    """None where nobody counted them: a stream of training data."""
    sha256: str | None = None
    also_in_train: int | None = None
    """How many of its rows have the inputs of a row of training; None where that is not known."""


class Checkpoint(StoredPart):
    """A checkpoint that was saved, whether or not it is still kept."""

    step: int
    saved_at: float
    files: dict[str, str] = Field(default_factory=dict)
    """File name to sha256."""


class RunRecord(StoredPart):
    """Everything that is known of one run. `docs/reference/record.md` explains each field."""

    format: Literal[1] = 1
    run_id: str
    variant: str
    seed: int
    commit: str
    tree: str
    code_digest: str
    parent_run: str | None = None
    spec: dict[str, Any]
    """The resolved spec, defaults included."""
    status: Status = "starting"
    created_at: float
    host: str | None = None
    user: str | None = None
    model_dir: str
    attempts: Annotated[list[Attempt], Field(min_length=1)]
    data: dict[str, DataSplit] = Field(default_factory=dict)
    parameters: int | None = None
    """Trainable parameters of the model."""
    params: dict[str, Any] = Field(default_factory=dict)
    """What code of the repository was given (`model.params.*`, `data.params.*`), its defaults included."""
    measures: dict[str, str] = Field(default_factory=dict)
    """By what it is evaluated: digests of `metrics`, `loss` and `steps`."""
    environment: dict[str, Any] = Field(default_factory=dict)
    warm_start: dict[str, Any] | None = None
    """From which checkpoint training started, and what was taken of it."""
    adopted: dict[str, Any] | None = None
    """The checkpoint that was made elsewhere, what of it was taken, and who vouched for what it does not say."""
    by_hand: dict[str, Any] | None = None
    """For a script that was called by hand: `script`, and `changed`, the files by which `commit` (a snapshot of the tree)
    differs from `head`; empty where nothing did."""
    step: int = 0
    """The last step that was trained."""
    examples_seen: int = 0
    train_s: float = 0.0
    """Seconds in the training loop, over all attempts."""
    checkpoints: list[Checkpoint] = Field(default_factory=list)
    selected_step: int | None = None
    """The step of the checkpoint that the spec's selection names."""
    metrics: dict[str, dict[str, dict[str, float]]] = Field(default_factory=dict)
    """`selected` and `last`, each split to metric to value."""
    curves: dict[str, dict[str, list[tuple[int, float]]]] = Field(default_factory=dict)
    """Split to metric to (step, value), at most 1,000 points each, the extremes kept."""

    @property
    def name(self) -> VariantName:
        experiment, _, variant = self.variant.partition("/")
        return VariantName(experiment, variant)

    @property
    def has_ended(self) -> bool:
        return self.status not in ("starting", "running")

    @property
    def is_complete(self) -> bool:
        """Whether it finished all the steps that it was last asked for."""
        return self.status == "finished"

    @property
    def command(self) -> str:
        """What to type to go on with it, to the step that it was last asked for."""
        is_fixed = self._part("run_config").get("tf_random_seed") is not None
        asked, said = self.attempts[-1].max_steps, self._part("train").get("max_steps")
        return run_command(self.variant, None if is_fixed else self.seed, None if asked == said else asked)

    @property
    def allowed(self) -> list[str]:
        """The guard's rules whose refusal was let pass, in any attempt."""
        changes = [change for attempt in self.attempts for change in attempt.changes]
        return sorted({change["rule"] for change in changes if change.get("allowed")})

    def metric(self, metric: str, split: str) -> float | None:
        """The value at the selected checkpoint, None where it was not evaluated, or to no number."""
        value = self.metrics.get("selected", {}).get(split, {}).get(metric)
        return value if value is not None and abs(value) < LARGEST else None

    def _part(self, name: str) -> dict[str, Any]:
        """A part of the spec; empty if it is missing or no mapping."""
        part = self.spec.get(name)
        return part if isinstance(part, dict) else {}

    def as_dict(self) -> dict[str, Any]:
        """The record as `expmgr show RUN --json` prints it."""
        return self.model_dump(mode="json")

    def __repr__(self) -> str:
        compared = self._part("compare")
        metric, split = str(compared.get("metric", "")), str(compared.get("split", ""))
        value = self.metric(metric, split)
        told = "" if value is None else f", {metric} {value:.4f} ({split})"
        return f"<run {self.run_id}: {self.variant} seed {self.seed}, {self.status} at step {self.step}{told}>"

    __str__ = __repr__


def new_run_id(now: float | None = None) -> RunId:
    """An id that sorts by time (UTC, to the millisecond) and is unique across machines."""
    moment = datetime.fromtimestamp(time.time() if now is None else now, timezone.utc)
    return RunId(f"{moment:%Y%m%d-%H%M%S}{moment.microsecond // 1000:03d}-{os.urandom(3).hex()}")


def user_name() -> str | None:
    with contextlib.suppress(KeyError, OSError):
        return getpass.getuser()
    return None


def parse_record(path: Path) -> RunRecord:
    return record_in(path.read_bytes(), path)


def record_in(content: bytes, path: Path) -> RunRecord:
    """The record in `content`, of the file `path`; `NewerFormat` or `RecordDamaged` if it cannot be read."""
    try:
        return RunRecord.model_validate_json(content)
    except ValidationError as error:
        with contextlib.suppress(ValueError):
            values = parse_json(content)
            found = values.get("format") if isinstance(values, dict) else None
            if isinstance(found, int) and found > 1:
                raise NewerFormat(
                    f"the record {path} has format {found}, this expmgr reads format 1",
                    left_alone="Nothing was changed.",
                    hint=f"a newer expmgr than {__version__} wrote it: install that version",
                ) from None
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))[:100]
        hint = f"no event log has this record yet; to do without the run, move its folder away: {path.parent}"
        reason = f"cannot be read: {f'{place}: ' if place else ''}{first['msg']}"
        raise RecordDamaged(path.parent.name, reason, hint) from None


def is_gone(marker: Path) -> bool:
    """Whether the process that wrote the marker of an active run is not there any more."""
    try:
        return Process.from_dict(parse_json(marker.read_bytes())).is_alive() is False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def has_process(marker: Path) -> bool:
    """Whether the marker of an active run names a process, alive or not."""
    try:
        Process.from_dict(parse_json(marker.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def is_abandoned(record: RunRecord) -> bool:
    """Whether neither the process that started the newest attempt nor the one that trains it is there any more."""
    return all(one is not None and one.is_alive() is False for one in _processes(record))


def is_seen_running(record: RunRecord) -> bool:
    """Whether a process of the newest attempt is seen alive from here; another machine's or container's cannot be."""
    return any(one is not None and one.is_alive() for one in _processes(record))


def _processes(record: RunRecord) -> list[Process | None]:
    """The processes that start and train the newest attempt; None for one of which the record says too little."""
    found: list[Process | None] = []
    for values in (record.attempts[-1].launcher, record.attempts[-1].worker):
        if values:
            try:
                found.append(Process.from_dict(values))
            except (KeyError, TypeError):
                found.append(None)
    return found


def selected_step(record: RunRecord) -> int:
    """The step of the checkpoint that a run is known by."""
    return record.step if record.selected_step is None else record.selected_step
