"""The record of a run: what happened, for ever, and the folder that it grows in.

While a run goes on, its folder holds `run.json` (what was known at the start) and `events.jsonl` (what happened since).
When it ends, both are folded into `run.json`, which is then never rewritten: a further attempt is added. A reader folds
by itself what nobody folded, so a run whose process was killed is shown as killed without anybody's help.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from expmgr.disk import durable
from expmgr.disk.index import LARGEST, Head, Index, is_final
from expmgr.disk.locks import Process
from expmgr.errors import ExpmgrError, OurBug, UnknownRun
from expmgr.paths import Layout, RunDir, RunId, VariantName, run_command
from expmgr.spec.changes import changes
from expmgr.spec.experiment import ExperimentSpec

Status = Literal["starting", "running", "finished", "failed", "preempted", "killed"]

CURVE_POINTS = 1_000
#: In the folder of a run that another clone has told of.
ORIGIN = "origin.json"
#: Nobody takes so long to write a file of a line.
_ON_ITS_WAY_SECS = 60.0

#: Parts of the spec that do not change what a run computes.
ABOUT = ("experiment", "question", "probe", "compare.")


class _Part(BaseModel):
    # Unknown keys are kept, so that an older expmgr passes on what a newer one wrote.
    model_config = ConfigDict(extra="allow")


class Attempt(_Part):
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
    ended_early: str | None = None
    """Why training ended before `max_steps`, where it did: early stopping, or a callback."""
    selected_step: int | None = None
    metrics: dict[str, dict[str, dict[str, float]]] = Field(default_factory=dict)
    """As the record's, when this attempt ended: a later one does not take them away."""


class DataSplit(_Part):
    """What was read for one split."""

    path: str
    rows: int | None = None
    """None where nobody counted them: a stream of training data."""
    sha256: str | None = None
    also_in_train: int | None = None
    """How many of its rows have the inputs of a row of training; None where that is not known."""


class Checkpoint(_Part):
    """A checkpoint that was saved, whether or not it is still kept."""

    step: int
    saved_at: float
    files: dict[str, str] = Field(default_factory=dict)
    """File name to sha256."""


class RunRecord(_Part):
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
    attempts: list[Attempt]
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
        is_fixed = self.spec.get("run_config", {}).get("tf_random_seed") is not None
        asked, said = self.attempts[-1].max_steps, self.spec.get("train", {}).get("max_steps")
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


def new_run_id(now: float | None = None) -> RunId:
    """An id that sorts by time (UTC, to the millisecond) and is unique across machines."""
    moment = datetime.fromtimestamp(time.time() if now is None else now, timezone.utc)
    return RunId(f"{moment:%Y%m%d-%H%M%S}{moment.microsecond // 1000:03d}-{os.urandom(3).hex()}")


def user_name() -> str | None:
    with contextlib.suppress(KeyError, OSError):
        return getpass.getuser()
    return None


class Records:
    """All runs of a repository, as folders below `.git/expmgr/runs/`."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.unreadable: dict[str, str] = {}
        """Run id to reason: records that `heads` and `abandoned` passed over."""
        self.index = Index(layout.own / "index.sqlite", layout.runs)

    def run_dir(self, run_id: str) -> RunDir:
        return RunDir(self.layout.run_dir(run_id))

    # Writing.

    def begin(self, record: RunRecord) -> RunDir:
        """Write the record of a run that starts now, or of one that starts another attempt."""
        folder = self.run_dir(record.run_id)
        durable.make_folder(self.layout.active)
        durable.make_folder(folder.path)
        # Before the record: a crash in between must leave something that the next command finds.
        durable.write_json(self.layout.active / record.run_id, record.attempts[-1].launcher)
        folder.events.unlink(missing_ok=True)
        self._write(record)
        return folder

    def withdraw(self, run_id: str, before: RunRecord | None = None) -> None:
        """Take back a run that did not begin: as if it had never been asked for (`before`: its earlier attempts)."""
        folder = self.run_dir(run_id)
        if before is None:
            shutil.rmtree(folder.path, ignore_errors=True)
        else:
            self._write(before)
            self._clear(folder)
        (self.layout.active / run_id).unlink(missing_ok=True)

    def finish(self, run_id: str, *, killed: bool = False) -> RunRecord:
        """Fold the events into the record, for good; `killed` where the run's process did not say its last word."""
        folder = self.run_dir(run_id)
        record = self._folded(run_id)
        if killed and not record.has_ended:
            record = _ended(record, "killed", None)
        self._write(record)
        self._clear(folder)
        (self.layout.active / run_id).unlink(missing_ok=True)
        return record

    def _write(self, record: RunRecord) -> None:
        durable.write_json(self.run_dir(record.run_id).record, record.model_dump(mode="json"))

    @staticmethod
    def _clear(folder: RunDir) -> None:
        shutil.rmtree(folder.code, ignore_errors=True)
        for path in (folder.events, folder.progress, folder.request, *folder.path.glob(".*.tmp")):
            path.unlink(missing_ok=True)

    # Reading.

    def load(self, run_id: str) -> RunRecord:
        """The record, as it stands: `killed` where it says that it runs and its processes are gone."""
        record = self._folded(run_id)
        if not record.has_ended and is_abandoned(record):
            record = _ended(record, "killed", None)
        return record

    def heads(self) -> list[Head]:
        """The head of every run, the oldest first, by the index.

        A folder without a record (a start that a crash cut) is passed over; so is one whose record cannot be read,
        which `unreadable` then names.
        """
        return self.index.heads(self._listed)

    def _listed(self, run_id: str) -> tuple[dict[str, Any], bool] | None:
        """A record as its JSON has it, and whether that is its last word; None for one that is not to be listed."""
        try:
            content = json.loads(self.run_dir(run_id).record.read_bytes())
            if is_final(content):
                return content, True
        except (OSError, ValueError):
            pass  # below it is told in words
        found = next(self._loaded([run_id]), None)
        return (found.model_dump(mode="json"), False) if found is not None else None

    def all(self) -> Iterator[RunRecord]:
        """Every run, whole, the oldest first; see `heads`."""
        yield from self._loaded(head.run_id for head in self.heads())

    def _loaded(self, run_ids: Iterable[str]) -> Iterator[RunRecord]:
        for run_id in run_ids:
            try:
                record = self.load(run_id)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (ExpmgrError, OSError) as problem:
                self.unreadable[run_id] = getattr(problem, "message", str(problem))
                continue
            if record.status != "starting":
                yield record

    def whole(self, heads: Iterable[Head]) -> list[RunRecord]:
        """The records of `heads`, in the same order; what went or broke in between is left out."""
        return list(self._loaded(head.run_id for head in heads))

    def of_variant(self, variant: VariantName) -> list[RunRecord]:
        """The variant's runs, the oldest first."""
        return self.whole(head for head in self.heads() if head.variant == str(variant))

    def newest(self, variant: VariantName, seed: int, *, foreign: bool = False) -> RunRecord | None:
        """The newest run of that seed that expmgr trained in this clone; with `foreign` in any."""
        found = (head for head in reversed(self.heads()) if (head.variant, head.seed) == (str(variant), seed))
        wanted = (
            one.run_id for one in found if one.by_hand is None and (foreign or not is_foreign(self.run_dir(one.run_id)))
        )
        return next(self._loaded(wanted), None)

    def code_digest(self, commit: str, name: VariantName, made: Callable[[], str]) -> str:
        """The code digest of a variant at a commit, made once."""
        return self.index.code_digest(commit, str(name), made)

    def find(self, name: str) -> RunRecord | None:
        """The run whose id is `name` or begins with it; `UnknownRun` where several do, None where none does."""
        if not name or "/" in name or not self.layout.runs.is_dir():
            return None
        found = [path.name for path in self.layout.runs.iterdir() if path.name.startswith(name)]
        if len(found) > 1:
            more = [f"and {len(found) - 5} more"] if len(found) > 5 else []
            raise UnknownRun(f"{len(found)} runs begin with {name}", details=[*sorted(found)[:5], *more])
        try:
            return self.load(found[0]) if found else None
        except FileNotFoundError:
            return None

    def abandoned(self) -> list[str]:
        """Runs whose processes are gone without having said so: what a crash left for the next command."""
        found = []
        for path in sorted(self.layout.active.iterdir()) if self.layout.active.is_dir() else []:
            if path.name.startswith("."):  # a marker on its way; a crash may have left it there
                with contextlib.suppress(OSError):
                    if time.time() - path.stat().st_mtime > _ON_ITS_WAY_SECS:
                        path.unlink()
                continue
            try:
                record = self._folded(path.name)
            except FileNotFoundError:
                if _is_gone(path):
                    found.append(path.name)
                continue
            except ExpmgrError as problem:
                self.unreadable[path.name] = getattr(problem, "message", str(problem))
                continue
            if record.has_ended and not _is_gone(path):  # another attempt is being begun
                continue
            if is_abandoned(record):
                found.append(path.name)
        return found

    def _folded(self, run_id: str) -> RunRecord:
        folder = self.run_dir(run_id)
        record = _parse(folder.record)
        if record.has_ended:  # folded before, and the crash came before the events went
            return record
        events, _ = durable.read_lines(folder.events)
        return fold(record, events) if events else record


def is_foreign(folder: RunDir) -> bool:
    """Whether the run was made in another clone, whose log told of it."""
    return (folder.path / ORIGIN).exists()


def origin_of(folder: RunDir) -> str | None:
    """The writer whose log told of the run; None for one of this clone."""
    try:
        return str(json.loads((folder.path / ORIGIN).read_bytes())["writer"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return ""  # nobody's


def teller_of(folder: RunDir, record: RunRecord) -> str:
    """Whoever trained a run, as people call them: the person who told of it, else the user of that machine."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if by := json.loads((folder.path / ORIGIN).read_bytes())["by"]:
            return str(by)
    return record.user or "whoever trained it"


class Counted(Protocol):
    """What has to be known of a run to count it: a `RunRecord`, or a `Head`."""

    @property
    def run_id(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def status(self) -> str: ...
    @property
    def by_hand(self) -> object | None: ...
    @property
    def spec(self) -> dict[str, Any]: ...
    @property
    def code_digest(self) -> str: ...


A_RUN = TypeVar("A_RUN", bound=Counted)


def counted_runs(runs: Iterable[A_RUN]) -> list[A_RUN]:
    """The newest finished run of each seed, by seed."""
    newest: dict[int, A_RUN] = {}
    for record in sorted(runs, key=lambda record: record.run_id):
        if record.status == "finished" and record.by_hand is None:
            newest[record.seed] = record
    return [newest[seed] for seed in sorted(newest)]


def is_outdated(record: Counted, spec: ExperimentSpec, code_digest: str) -> bool:
    """Whether the branch has another spec or other code now than the run was made with."""
    moved = [key for key in changes(record.spec, spec.resolved()) if not key.startswith(ABOUT)]
    return bool(moved) or record.code_digest != code_digest


def _parse(path: Path) -> RunRecord:
    content = path.read_bytes()
    try:
        return RunRecord.model_validate_json(content)
    except ValidationError as error:
        with contextlib.suppress(ValueError):
            found = json.loads(content).get("format")
            if found != 1:
                raise OurBug(
                    f"{path} has format {found}, this expmgr reads format 1", hint="use a newer expmgr"
                ) from None
        raise OurBug(f"{path} is not a record: {error.errors()[0]['msg']}") from None


def _is_gone(marker: Path) -> bool:
    """Whether the process that wrote the marker of an active run is not there any more."""
    try:
        return Process.from_dict(json.loads(marker.read_text(encoding="utf-8"))).is_alive() is False
    except (OSError, ValueError, KeyError):
        return False


def is_abandoned(record: RunRecord) -> bool:
    """Whether neither the process that started the newest attempt nor the one that trains it is there any more."""
    attempt = record.attempts[-1]
    processes = [values for values in (attempt.launcher, attempt.worker) if values]
    return all(Process.from_dict(values).is_alive() is False for values in processes)


def is_seen_running(record: RunRecord) -> bool:
    """Whether a process of the newest attempt is seen alive from here; another machine's or container's cannot be."""
    attempt = record.attempts[-1]
    processes = [values for values in (attempt.launcher, attempt.worker) if values]
    return any(Process.from_dict(values).is_alive() for values in processes)


def fold(record: RunRecord, events: Iterable[dict[str, Any]]) -> RunRecord:
    """`record` with what happened since it was written. Pure: the same events give the same record."""
    record = record.model_copy(deep=True)
    attempt = record.attempts[-1]
    curves = {
        split: {name: list(points) for name, points in metrics.items()} for split, metrics in record.curves.items()
    }
    for event in events:
        kind = event["kind"]
        if kind == "ready":
            attempt.status = record.status = "running"
            attempt.worker = event["worker"]
            attempt.from_step = record.step = event["from_step"]
            attempt.changes = event["changes"]
            attempt.probe = event.get("probe")
            attempt.not_exact = event.get("not_exact", [])
            record.data = {split: DataSplit.model_validate(told) for split, told in event["data"].items()}
            record.parameters = event["parameters"]
            record.params = event.get("params", {})
            record.measures = event.get("measures", {})
            record.environment = event["environment"]
            record.adopted = event.get("adopted") or record.adopted
            record.warm_start = event.get("warm_start") or record.warm_start
            record.selected_step, record.metrics = None, {}  # this attempt has none yet
            _cut_back(record, curves, event["from_step"])
        elif kind == "point":
            for name, value in event["values"].items():
                points = curves.setdefault(event["split"], {}).setdefault(name, [])
                if points and points[-1][0] == event["step"]:  # evaluated again, without a step in between
                    points.pop()
                points.append((event["step"], value))
            record.step = max(record.step, event["step"])
        elif kind == "checkpoint":
            record.checkpoints.append(Checkpoint(step=event["step"], saved_at=event["at"], files=event["files"]))
            record.step = max(record.step, event["step"])
            record.examples_seen = event.get("examples_seen", record.examples_seen)
            attempt.train_s = event.get("train_s", attempt.train_s)
            record.train_s = sum(one.train_s or 0.0 for one in record.attempts)
        elif kind == "ended":
            record.selected_step = attempt.selected_step = event["selected_step"]
            record.metrics = attempt.metrics = event["metrics"]
            record.step = event["step"]
            record.examples_seen = event["examples_seen"]
            attempt.train_s = event["train_s"]
            attempt.ended_early = event.get("ended_early")
            record = _ended(record, event["status"], event["error"], event["at"])
            attempt = record.attempts[-1]
    record.curves = {
        split: {name: thinned(points) for name, points in metrics.items()} for split, metrics in curves.items()
    }
    return record


def _cut_back(record: RunRecord, curves: dict[str, dict[str, list[tuple[int, float]]]], step: int) -> None:
    """Forget what an earlier attempt did after the checkpoint that this one starts from: it is done again."""
    for metrics in curves.values():
        for name, points in metrics.items():
            metrics[name] = [point for point in points if point[0] <= step]
    record.checkpoints = [checkpoint for checkpoint in record.checkpoints if checkpoint.step <= step]


def _ended(record: RunRecord, status: Status, error: dict[str, Any] | None, at: float | None = None) -> RunRecord:
    record = record.model_copy(deep=True)
    attempt = record.attempts[-1]
    record.status = attempt.status = status
    attempt.error = error
    attempt.to_step = record.step
    attempt.ended_at = at
    record.train_s = sum(one.train_s or 0.0 for one in record.attempts)
    return record


def thinned(points: list[tuple[int, float]], most: int = CURVE_POINTS) -> list[tuple[int, float]]:
    """At most `most` of `points`, the smallest and largest value of each stretch kept, the first and last too."""
    if len(points) <= most:
        return points
    stretches = (most - 2) // 2
    kept = {0, len(points) - 1}
    for index in range(stretches):
        stretch = range(index * len(points) // stretches, (index + 1) * len(points) // stretches)
        kept.add(min(stretch, key=lambda at: points[at][1]))
        kept.add(max(stretch, key=lambda at: points[at][1]))
    return [points[at] for at in sorted(kept)]
