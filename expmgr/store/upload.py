"""Uploads checkpoints to the store, for `expmgr push --checkpoints`."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from expmgr.checkpoints.manifest import Manifest, SavedCheckpoint
from expmgr.checkpoints.model_dir import ModelDir
from expmgr.checkpoints.signature import read_signature
from expmgr.errors import ExpmgrError, PieceDamaged, StoreProblem
from expmgr.log.events import Stored
from expmgr.log.logs import Draft
from expmgr.paths import VariantName
from expmgr.project import Project
from expmgr.runs.origin import is_foreign
from expmgr.runs.record import RunRecord, selected_step
from expmgr.store.backends import PIECE_BYTES, Store
from expmgr.store.contents import (
    Contents,
    Pieces,
    Progress,
    digests_of,
    first_problem,
    read_contents,
    recorded_digests,
)
from expmgr.store.fetched import fetched_run
from expmgr.store.find import own_writers, stored_events, writers_of
from expmgr.team.publish import tell, tell_runs

Which = Literal["selected", "all", "none"]


@dataclass(frozen=True)
class Upload:
    """A checkpoint that is to go to the store."""

    record: RunRecord
    folder: ModelDir
    saved: SavedCheckpoint
    extra: tuple[str, ...] = ()
    told: frozenset[str] = frozenset()
    """Lists of it in the store that this clone has told of before."""

    @property
    def shown(self) -> str:
        return f"{self.folder.shown}/{self.saved.name}"

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        beside = ((self.folder.path / name).stat().st_size for name in self.extra)
        return sum((*(file.size_bytes for file in self.saved.files.values()), *beside))


def plan_uploads(
    project: Project,
    which: Which,
    store: Store | None = None,
    on_problem: Callable[[ExpmgrError], object] = lambda _: None,
    *,
    verify: bool = False,
) -> list[Upload]:
    """The checkpoints of this clone's runs of which it has not told that they are in the store: of each run the selected
    one, or the newest where none was selected; or all that are kept. What is not as the record says is left.

    A `store` is asked whether it still holds what was told of, also by whoever trained a run whose checkpoint was fetched here:
    what it lost is to go there again. To `verify`, it is read. `on_problem` is told, once,
    of a model_dir that cannot be read though something of it may have to go there.
    """
    if which == "none":
        return []
    mine = own_writers(project)
    told: dict[tuple[str, int], list[Stored]] = {}
    for event in stored_events(project):
        if event.writer in mine or event.writer in writers_of(project, event.run_id):
            told.setdefault((event.run_id, event.step), []).append(event)
    found: list[Upload] = []
    problems: set[str] = set()
    for head in project.records.heads():
        if head.status in ("starting", "running") or head.by_hand is not None:
            continue
        name = VariantName(*head.variant.split("/", 1))
        folder = project.model_dir(name, head.seed)
        foreign = is_foreign(project.records.run_dir(head.run_id))
        if not folder.path.is_dir() or (foreign and (store is None or fetched_run(folder.path) != head.run_id)):
            continue
        for record in project.records.whole([head]):
            try:
                manifest = folder.read_manifest()
            except ExpmgrError as problem:
                is_told = store is None and (record.run_id, selected_step(record)) in told
                if record.checkpoints and not is_told and problem.message not in problems:
                    problems.add(problem.message)
                    on_problem(problem)
                continue
            for saved in _wanted_of(manifest, record, which):
                before = told.get((record.run_id, saved.step), [])
                if store is None:
                    is_there = bool(before)
                else:
                    is_there = any(_is_whole(store, record, one, verify=verify) for one in reversed(before))
                if not is_there and (before or not foreign):
                    lists = frozenset(one.contents for one in before)
                    found.append(Upload(record, folder, saved, _probe_of(folder, saved), lists))
    return found


def _wanted_of(manifest: Manifest | None, record: RunRecord, which: Which) -> Iterator[SavedCheckpoint]:
    wanted = selected_step(record)
    for saved in manifest.checkpoints if manifest else ():
        if (which == "all" or saved.step == wanted) and recorded_digests(record, saved.step) == digests_of(saved):
            yield saved


def _is_whole(store: Store, record: RunRecord, stored: Stored, *, verify: bool) -> bool:
    """Whether the store still holds a checkpoint: the list of its files, and every piece with its size; to `verify`, with its
    content."""
    try:
        contents = read_contents(store, record, stored)
    except PieceDamaged:
        return False
    pieces = dict(one for file in contents.files.values() for one in file.sized())
    return all(store.has(piece, size, verify=verify) for piece, size in pieces.items())


def _probe_of(folder: ModelDir, saved: SavedCheckpoint) -> tuple[str, ...]:
    with contextlib.suppress(ExpmgrError, OSError):
        probe = read_signature(folder.path / saved.name, saved.name).probe
        name = f"probe-{probe.batch[:16]}.npz" if probe is not None else ""
        if name and (folder.path / name).is_file():
            return (name,)
    return ()


def upload(
    project: Project,
    store: Store,
    wanted: Sequence[Upload],
    progress: Progress = lambda _: None,
    *,
    verify: bool = False,
) -> int:
    """Send what the store does not have, and say in the log what is there; the bytes that were sent. To `verify`, pieces that
    are there are read, and replaced if they are damaged."""
    if wanted and not store.is_there() and stored_events(project):
        raise _not_there(store)
    tell_runs(project)
    sent = 0
    for one in wanted:
        files = {}
        for name in (*one.saved.files, *one.extra):
            file, bytes_sent = _send(store, one.folder.path / name, progress, verify=verify)
            files[name] = file
            sent += bytes_sent
        _check_sent(one, files)
        digest = store.put(_list_of(one, files), verify=True)
        if digest not in one.told:
            about = {"run_id": one.record.run_id, "variant": one.record.variant, "seed": one.record.seed}
            size = sum(file.size_bytes for file in files.values())
            values = {**about, "step": one.saved.step, "contents": digest, "size_bytes": size}
            tell(project, [Draft(Stored, values)])
    return sent


def _list_of(one: Upload, files: Mapping[str, Pieces]) -> bytes:
    """The piece that lists a checkpoint's files; `StoreProblem` where `fetch` would not take it."""
    about = {"run_id": one.record.run_id, "variant": one.record.variant, "seed": one.record.seed}
    values = {**about, "saved": one.saved.model_dump(mode="json"), "files": files}
    try:
        contents = Contents.model_validate(values)
    except ValidationError as error:
        raise StoreProblem(
            f"{one.shown} was not stored: {first_problem(error)}",
            left_alone="Nobody is told of it; what was stored before is as it was.",
        ) from None
    return (json.dumps(contents.model_dump(mode="json")) + "\n").encode()


def _not_there(store: Store) -> StoreProblem:
    return StoreProblem(
        f"the store {store.name} is not there, and the log says that checkpoints are in it",
        left_alone="Nothing was changed.",
        hint="is it mounted? store in [tool.expmgr] says where it is",
    )


def _send(store: Store, path: Path, progress: Progress, *, verify: bool) -> tuple[Pieces, int]:
    whole, pieces, size, sent = hashlib.sha256(), [], 0, 0
    with open(path, "rb") as file:
        while block := file.read(PIECE_BYTES):
            whole.update(block)
            digest = hashlib.sha256(block).hexdigest()
            if not store.has(digest, len(block), verify=verify):
                store.put(block, verify=verify)
                sent += len(block)
            pieces.append(digest)
            size += len(block)
            progress(len(block))
    return Pieces(size_bytes=size, sha256=whole.hexdigest(), pieces=pieces), sent


def _check_sent(one: Upload, files: dict[str, Pieces]) -> None:
    """What was read has to be what was saved: it might have been replaced, or be damaged."""
    wrong = [name for name, file in one.saved.files.items() if files[name].sha256 != file.sha256]
    if wrong:
        raise StoreProblem(
            f"{one.shown} was not stored: it has other content than was saved",
            details=wrong,
            left_alone="Nobody is told of it; what was stored before is as it was.",
            hint=f"expmgr checkpoints {one.record.variant}",
        )
