"""Fetches a checkpoint from the store, verifies it, and adds it to a model_dir.

A checkpoint in the store is a piece that lists its files, each with digest, size and the digests of its pieces. The event
`stored` in the log names that piece, so whoever has the log knows what there is, and by the record which files they are.
What comes back is put together beside the model_dir, verified against the record, and listed in the manifest last. Whether
it may enter a model, the guard says, as of every checkpoint.

Others write to the store and to logs. So the list is held to names, sizes and numbers that a checkpoint can have before
anything of it is fetched, and who trained the run is asked first where it lies.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

from expmgr.checkpoints.model_dir import ModelDir
from expmgr.disk import durable
from expmgr.disk.locks import held
from expmgr.errors import Busy, DiskFull, ExpmgrError, ModelDirProblem, PieceDamaged, StoreProblem
from expmgr.log.events import Stored
from expmgr.paths import VariantName
from expmgr.project import Project
from expmgr.runs.record import RunRecord, selected_step
from expmgr.store.backends import PIECE_BYTES, Store
from expmgr.store.contents import (
    Contents,
    Pieces,
    Progress,
    is_in_model_dir,
    is_of,
    read_contents,
)
from expmgr.store.fetched import FETCHED
from expmgr.store.find import find_stored, own_writers, runs_of, store_of, stored_events, writers_of


def fetch(
    project: Project,
    store: Store,
    record: RunRecord,
    stored: Sequence[Stored],
    *,
    fresh: bool = False,
    progress: Progress = lambda _: None,
) -> str | None:
    """Bring a checkpoint into its model_dir, from the first of the places `stored` that holds it; how it is shown, None
    where it is there already.

    `StoreProblem` where the store has another one than the record names; `ModelDirProblem` where the folder holds the
    checkpoints of another run, unless `fresh` sets them aside; `Busy` where somebody else fetches or trains there.
    """
    problems: list[StoreProblem] = []
    for one in stored:
        try:
            return _fetch(project, store, record, one, fresh, progress)
        except StoreProblem as problem:
            problems.append(problem)
    last, place = problems[-1], stored[-1]
    if isinstance(last, PieceDamaged):
        last.details = (*last.details, *_who_has_it(project, record, place))
        if place.step != selected_step(record):
            last.hint = (last.hint or "").replace("--checkpoints selected", "--checkpoints all")
    last.details = (*last.details, *(f"tried before: {one.message}" for one in problems[:-1][:5]))
    raise last


def _who_has_it(project: Project, record: RunRecord, stored: Stored) -> list[str]:
    """Who can send a checkpoint again, and in which clone."""
    by = stored.actor.name if stored.actor is not None else None
    told = f"writer {stored.writer}" if by is None else f"{by} (writer {stored.writer})"
    if stored.writer in own_writers(project):
        told = "this clone"
    trained = f"; run {record.run_id} was trained on {record.host}" if record.host else ""
    return [f"the checkpoint of step {stored.step} was pushed by {told}{trained}"]


def _fetch(
    project: Project, store: Store, record: RunRecord, stored: Stored, fresh: bool, progress: Progress
) -> str | None:
    folder = project.model_dir(VariantName(*record.variant.split("/", 1)), record.seed)
    contents = read_contents(store, record, stored)
    if is_in_model_dir(folder, contents):
        return None
    if not fresh:
        _check_free(folder, record)
    folder.check_usable()
    with _locked(folder):
        if is_in_model_dir(folder, contents):  # somebody else was quicker
            return None
        if not fresh:
            _check_free(folder, record)
        parts = project.layout.own / "fetching" / _name_of_parts(folder, contents)
        with durable.disk_errors(f"what is fetched from {store.name}"):
            durable.make_folder(parts)
            for name, file in contents.files.items():
                _assemble(store, parts / name, file, progress)
        _take_in(folder, record, contents, parts)
    shutil.rmtree(parts, ignore_errors=True)
    project.ignore_models()
    return f"{folder.shown}/{contents.saved.name}"


@contextlib.contextmanager
def _locked(folder: ModelDir) -> Iterator[None]:
    """The lock of a model_dir, asked before every write. After an error it is as if it had never been taken."""
    with held(folder.lock_dir, folder.shown, undo_on_error=True) as lock:

        def check() -> None:
            if not lock.is_held():
                raise Busy(f"{folder.shown} was taken over by another process, so nothing more was written to it")

        folder.may_write = check
        yield


def _name_of_parts(folder: ModelDir, contents: Contents) -> str:
    """Of one checkpoint in one model_dir, whose lock is ours: nobody else writes there."""
    place = hashlib.sha256(os.fsencode(folder.path.resolve())).hexdigest()
    return f"{contents.run_id}-{contents.saved.step}-{place[:16]}"


def _take_in(folder: ModelDir, record: RunRecord, contents: Contents, parts: Path) -> None:
    """Let what was put together in `parts` count."""
    if folder.may_write is not None:
        folder.may_write()
    if not is_of(folder, record):  # with --fresh
        folder.set_aside(time.time())
    folder.prepare(time.time())
    mark = json.dumps({"format": 1, "run_id": record.run_id}) + "\n"
    with durable.disk_errors(f"{folder.shown}/{FETCHED}"):
        durable.write_bytes(folder.path / FETCHED, mark.encode())  # first: whose it is must be known once it counts
    folder.admit(contents.saved, {name: parts / name for name in contents.files})
    if isinstance(record.spec.get("selection"), dict) and "metric" in record.spec["selection"]:
        folder.select(record.selected_step)


def _assemble(store: Store, target: Path, file: Pieces, progress: Progress) -> None:
    """`target` from its pieces; what an interrupted fetch left of it is verified and gone on from."""
    beside, digest = target.with_name(f"{target.name}.part"), hashlib.sha256()
    if target.is_file() and target.stat().st_size == file.size_bytes and durable.sha256(target) == file.sha256:
        progress(file.size_bytes)
        return
    done = 0
    with durable.naming(beside, file.size_bytes), open(beside, "a+b") as out:
        out.seek(0)
        for piece, size in file.sized():
            block = out.read(size)
            if hashlib.sha256(block).hexdigest() != piece:
                break
            digest.update(block)
            progress(len(block))
            done += 1
        out.truncate(min(done * PIECE_BYTES, file.size_bytes))
        for piece, size in file.sized()[done:]:
            block = store.get(piece, size)
            digest.update(block)
            out.write(block)
            out.flush()
            progress(len(block))
        os.fsync(out.fileno())
    if digest.hexdigest() != file.sha256 or beside.stat().st_size != file.size_bytes:
        beside.unlink()
        raise StoreProblem(
            f"what {store.name} has for {target.name} is not that file", left_alone="Nothing was changed."
        )
    os.replace(beside, target)


def ensure(
    project: Project,
    name: VariantName,
    seed: int,
    step: int | None,
    *,
    record: RunRecord | None = None,
    on_problem: Callable[[str], object] = lambda _: None,
) -> str | None:
    """Bring the checkpoint that is asked for (of `record`, or of the run that stands for the variant) from the store, where
    the model_dir holds none and a store has it; how it is shown.

    None where there was nothing to do, or nothing that could be done, of which `on_problem` is told: who wants to read it
    then says that it is not there. `Busy` where somebody else fetches or trains there.
    """
    if project.settings.store is None or project.is_scratch:
        return None
    folder = project.model_dir(name, seed)
    try:
        manifest = folder.read_manifest()
        if manifest is not None and manifest.checkpoints:
            return None
        for one in [record] if record is not None else runs_of(project, name, seed):
            return fetch(project, store_of(project), one, find_stored(project, one, step))
    except (Busy, DiskFull):
        raise
    except ExpmgrError as problem:
        on_problem(problem.message)
    return None


class InTheStore:
    """What the store has, by the logs, which are read once, and where somebody asks."""

    def __init__(self, project: Project) -> None:
        self._project = project

    @cached_property
    def _told(self) -> dict[tuple[str, int], set[str]]:
        found: dict[tuple[str, int], set[str]] = {}
        for one in stored_events(self._project):
            found.setdefault((one.run_id, one.step), set()).add(one.writer)
        return found

    def has(self, record: RunRecord, step: int) -> bool:
        """Whether it has a checkpoint of a run, by the word of who trained it."""
        return bool(self._told.get((record.run_id, step), set()) & writers_of(self._project, record.run_id))

    def command(self, record: RunRecord, step: int) -> str | None:
        """What to type to fetch a checkpoint of a run; None if the store does not have it."""
        if self._project.settings.store is None or not self.has(record, step):
            return None
        return f"expmgr pull {record.run_id}{'' if step == selected_step(record) else f'@{step}'}"


def check_free(project: Project, record: RunRecord) -> None:
    """`ModelDirProblem` where the checkpoints of a run cannot come in: the folder holds those of another run."""
    _check_free(project.model_dir(VariantName(*record.variant.split("/", 1)), record.seed), record)


def _check_free(folder: ModelDir, record: RunRecord) -> None:
    if not is_of(folder, record):
        raise ModelDirProblem(
            f"{folder.shown} holds the checkpoints of another run than {record.run_id}",
            left_alone="Nothing was changed.",
            hint=f"to keep them aside and fetch these: expmgr pull {record.variant} --seed {record.seed} --fresh",
        )
