"""Checkpoints in the store: what of a run goes there, and how it comes back into a model_dir.

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
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from expmgr.checkpoints.manifest import SavedCheckpoint, is_file_of
from expmgr.checkpoints.model_dir import ModelDir
from expmgr.checkpoints.signature import read_signature
from expmgr.disk import durable
from expmgr.disk.locks import Heartbeat, Lock
from expmgr.errors import Busy, ExpmgrError, ModelDirProblem, StoreProblem, UnknownCheckpoint
from expmgr.log.events import Digest, Moment, RunName, Stored, Variant
from expmgr.log.logs import OWN, Draft, writer_of
from expmgr.log.writers import all_writers
from expmgr.paths import VariantName
from expmgr.project import Project
from expmgr.runs.origin import is_foreign, origin_of, teller_of
from expmgr.runs.record import RunRecord, counted_runs, is_outdated
from expmgr.store.backends import PIECE_BYTES, Store, open_store
from expmgr.team.publish import tell, tell_runs
from expmgr.team.signing import trusted

Which = Literal["selected", "all", "none"]
Progress = Callable[[int], None]


#: A checkpoint of 1 TiB, in pieces of 8 MiB; and the list of such a one.
MOST_PIECES = 1 << 17
MOST_LIST_BYTES = 16 << 20
_PROBE = re.compile(r"probe-[0-9a-f]{16}\.npz\Z")

Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow")


class Pieces(_Part):
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


class Contents(_Part):
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


def store_of(project: Project) -> Store:
    """The store that the settings name; `StoreProblem` where they name none."""
    if project.settings.store is None:
        raise StoreProblem(
            "no store is set up",
            left_alone="Nothing was changed.",
            hint='store = "s3://bucket/prefix", or a folder that the team shares, in [tool.expmgr]',
        )
    return open_store(project.settings.store, project.repo.main_root)


# To the store.


def plan_uploads(project: Project, which: Which, store: Store | None = None) -> list[Upload]:
    """The checkpoints of this clone's runs of which it has not told that they are in the store: of each run the selected
    one, or the newest where none was selected; or all that are kept. What is not as the record says is left.

    A `store` is asked whether it still holds what was told of; what it lost is to go there again.
    """
    if which == "none":
        return []
    mine = _own_writers(project)
    told: dict[tuple[str, int], list[Stored]] = {}
    for event in _stored_events(project):
        if event.writer in mine:
            told.setdefault((event.run_id, event.step), []).append(event)
    found: list[Upload] = []
    for head in project.records.heads():
        if head.status in ("starting", "running") or head.by_hand is not None:
            continue
        name = VariantName(*head.variant.split("/", 1))
        folder = _folder(project, name, head.seed)
        if not (folder.path / "manifest.json").exists() or is_foreign(project.records.run_dir(head.run_id)):
            continue
        for record in project.records.whole([head]):
            for saved in _wanted_of(folder, record, which):
                before = told.get((record.run_id, saved.step), [])
                is_there = before if store is None else any(_is_whole(store, record, one) for one in reversed(before))
                if not is_there:
                    lists = frozenset(one.contents for one in before)
                    found.append(Upload(record, folder, saved, _probe_of(folder, saved), lists))
    return found


def _wanted_of(folder: ModelDir, record: RunRecord, which: Which) -> Iterator[SavedCheckpoint]:
    try:
        manifest = folder.read_manifest()
    except ExpmgrError:
        return
    wanted = selected_step(record)
    for saved in manifest.checkpoints if manifest else ():
        if (which == "all" or saved.step == wanted) and _recorded(record, saved.step) == _digests(saved):
            yield saved


def _is_whole(store: Store, record: RunRecord, stored: Stored) -> bool:
    """Whether the store still holds a checkpoint: the list of its files, and every piece by name."""
    if not store.has(stored.contents):
        return False
    pieces = {piece for file in _contents(store, record, stored).files.values() for piece in file.pieces}
    return all(store.has(piece) for piece in pieces)


def selected_step(record: RunRecord) -> int:
    """The step of the checkpoint that a run is known by."""
    return record.step if record.selected_step is None else record.selected_step


def _probe_of(folder: ModelDir, saved: SavedCheckpoint) -> tuple[str, ...]:
    with contextlib.suppress(ExpmgrError, OSError):
        probe = read_signature(folder.path / saved.name, saved.name).probe
        name = f"probe-{probe.batch[:16]}.npz" if probe is not None else ""
        if name and (folder.path / name).is_file():
            return (name,)
    return ()


def upload(project: Project, store: Store, wanted: Sequence[Upload], progress: Progress = lambda _: None) -> int:
    """Send what the store does not have, and say in the log what is there; the bytes that were sent."""
    if wanted and not store.is_there() and _stored_events(project):
        raise _not_there(store)
    tell_runs(project)
    sent = 0
    for one in wanted:
        files = {}
        for name in (*one.saved.files, *one.extra):
            file, bytes_sent = _send(store, one.folder.path / name, progress)
            files[name] = file
            sent += bytes_sent
        _check_sent(one, files)
        digest = store.put(_list_of(one, files))
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
            f"{one.shown} was not stored: {_first_of(error)}",
            left_alone="Nobody is told of it; what was stored before is as it was.",
        ) from None
    return (json.dumps(contents.model_dump(mode="json")) + "\n").encode()


def _first_of(error: ValidationError) -> str:
    """The first thing that is wrong; not where, which would repeat the words of whoever wrote it."""
    return str(error.errors()[0]["msg"]).removeprefix("Value error, ")


def _not_there(store: Store) -> StoreProblem:
    return StoreProblem(
        f"the store {store.name} is not there, and the log says that checkpoints are in it",
        left_alone="Nothing was changed.",
        hint="is it mounted? store in [tool.expmgr] says where it is",
    )


def _send(store: Store, path: Path, progress: Progress) -> tuple[Pieces, int]:
    whole, pieces, size, sent = hashlib.sha256(), [], 0, 0
    with open(path, "rb") as file:
        while block := file.read(PIECE_BYTES):
            whole.update(block)
            digest = hashlib.sha256(block).hexdigest()
            if not store.has(digest):
                store.put(block)
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


# From the store.


def _stored_events(project: Project) -> list[Stored]:
    told = trusted(project, project.logs.events("stored"))
    return [one.event for one in told if isinstance(one.event, Stored)]


def runs_of(project: Project, name: VariantName, seed: int | None = None) -> list[RunRecord]:
    """The runs whose checkpoints stand for the variant: of each seed the newest finished one that is not outdated, or
    else the newest that ended; before others those of which the store has a checkpoint."""
    from expmgr.variants.code import code_digest
    from expmgr.variants.variants import find_variant, spec_of

    runs = [one for one in project.records.of_variant(name) if one.has_ended and one.by_hand is None]
    runs = [one for one in runs if seed is None or one.seed == seed]
    there = _in_the_store(project, runs)
    found = {one.seed: one for one in (*runs, *(one for one in runs if one.run_id in there))}
    with contextlib.suppress(ExpmgrError):
        variant = find_variant(project.repo, str(name))
        spec, digest = spec_of(project.repo, variant), code_digest(project.repo, variant.commit, name)
        fresh = [one for one in runs if not is_outdated(one, spec, digest)]
        for some in (fresh, [one for one in fresh if one.run_id in there]):
            found |= {one.seed: one for one in counted_runs(some)}
    return [found[seed] for seed in sorted(found)]


def _own_writers(project: Project) -> set[str]:
    logs = (writer_of(ref) for ref in project.logs.refs() if ref.startswith(OWN))
    return {one for one in logs if one} | all_writers(project.layout.own)


def _writers_of(project: Project, run_id: str) -> set[str]:
    """Whose word on a run is that of who trained it: the log that its record came from, or those of this clone."""
    origin = origin_of(project.records.run_dir(run_id))
    return _own_writers(project) if origin is None else {origin}


def _in_the_store(project: Project, runs: Iterable[RunRecord]) -> set[str]:
    """The ids of those of `runs` of which the store has a checkpoint, by the word of who trained them."""
    told: dict[str, set[str]] = {}
    for one in _stored_events(project):
        told.setdefault(one.run_id, set()).add(one.writer)
    ids = [one.run_id for one in runs if one.run_id in told]
    return {run_id for run_id in ids if told[run_id] & _writers_of(project, run_id)}


def find_stored(project: Project, record: RunRecord, step: int | None) -> list[Stored]:
    """Where the checkpoint of `step` (None: the selected one) of a run is in the store, in the order to look there: what
    who trained it said, the newest first, then the newest word of each other writer.

    `UnknownCheckpoint` where nobody said that it is there.
    """
    events = [one for one in _stored_events(project) if one.run_id == record.run_id]
    wanted = selected_step(record) if step is None else step
    found = places([one for one in events if one.step == wanted], _writers_of(project, record.run_id))
    if not found:
        there = ", ".join(str(one) for one in sorted({one.step for one in events}))
        by = teller_of(project.records.run_dir(record.run_id), record)
        raise UnknownCheckpoint(
            f"the store has no checkpoint of step {wanted} of run {record.run_id} ({record.variant}, seed {record.seed})",
            details=[f"it has {there}"] if there else [],
            left_alone="Nothing was changed.",
            hint=f"expmgr push, in the clone of {by}; --checkpoints all for those that were not selected",
        )
    return found


def places(events: Sequence[Stored], trainers: set[str]) -> list[Stored]:
    """`events`, the oldest first, in the order to believe them; a list that was told of twice once."""
    theirs = [one for one in reversed(events) if one.writer in trainers]
    others: dict[str, Stored] = {}
    for one in reversed(events):
        if one.writer not in trainers:
            others.setdefault(one.writer, one)
    found: dict[str, Stored] = {}
    for one in (*theirs, *others.values()):
        found.setdefault(one.contents, one)
    return list(found.values())


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
    last = problems[-1]
    last.details = (*last.details, *(f"tried before: {one.message}" for one in problems[:-1][:5]))
    raise last


def _fetch(
    project: Project, store: Store, record: RunRecord, stored: Stored, fresh: bool, progress: Progress
) -> str | None:
    folder = _folder(project, VariantName(*record.variant.split("/", 1)), record.seed)
    contents = _contents(store, record, stored)
    if _is_there(folder, contents):
        return None
    if not fresh:
        _check_free(folder, record)
    folder.check_usable()
    with _locked(folder):
        if _is_there(folder, contents):  # somebody else was quicker
            return None
        if not fresh:
            _check_free(folder, record)
        parts = project.layout.own / "fetching" / _name_of_parts(folder, contents)
        durable.make_folder(parts)
        for name, file in contents.files.items():
            _assemble(store, parts / name, file, progress)
        _take_in(folder, record, contents, parts)
    shutil.rmtree(parts, ignore_errors=True)
    project.ignore_models()
    return f"{folder.shown}/{contents.saved.name}"


@contextlib.contextmanager
def _locked(folder: ModelDir) -> Iterator[None]:
    """The lock of a model_dir, kept alive. After an error it is as if it had never been taken."""
    lock = Lock(folder.lock_dir)

    def check() -> None:
        if not lock.is_held():
            raise Busy(f"{folder.shown} was taken over by another process, so nothing more was written to it")

    lock.acquire(folder.shown)
    folder.may_write = check
    try:
        with Heartbeat(lock.beat):
            yield
    except BaseException:
        lock.withdraw()
        raise
    lock.release()


def _name_of_parts(folder: ModelDir, contents: Contents) -> str:
    """Of one checkpoint in one model_dir, whose lock is ours: nobody else writes there."""
    place = hashlib.sha256(os.fsencode(folder.path.resolve())).hexdigest()
    return f"{contents.run_id}-{contents.saved.step}-{place[:16]}"


def _take_in(folder: ModelDir, record: RunRecord, contents: Contents, parts: Path) -> None:
    """Let what was put together in `parts` count."""
    if folder.may_write is not None:
        folder.may_write()
    if not _is_of(folder, record):  # with --fresh
        folder.set_aside(time.time())
    folder.prepare(time.time())
    mark = json.dumps({"format": 1, "run_id": record.run_id}) + "\n"
    durable.write_bytes(folder.path / FETCHED, mark.encode())  # first: whose it is must be known once it counts
    folder.admit(contents.saved, {name: parts / name for name in contents.files})
    if isinstance(record.spec.get("selection"), dict) and "metric" in record.spec["selection"]:
        folder.select(record.selected_step)


#: In a model_dir whose checkpoints came from the store: whose they are.
FETCHED = "fetched.json"


def fetched_here(project: Project, folder: ModelDir) -> tuple[str, int] | None:
    """The run whose checkpoint, fetched from the store, is the newest of a model_dir, and its step: training goes on from
    there. None where the newest was trained here."""
    run_id = fetched_run(folder.path)
    if run_id is None:
        return None
    with contextlib.suppress(ExpmgrError, OSError):
        manifest = folder.read_manifest()
        record = project.records.load(run_id)
        newest = manifest.checkpoints[-1] if manifest is not None and manifest.checkpoints else None
        if newest is not None and _digests(newest) == _recorded(record, newest.step):
            return record.run_id, newest.step
    return None


def fetched_run(model_dir: Path) -> str | None:
    """The run whose checkpoints were fetched into a model_dir; None where none were."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads((model_dir / FETCHED).read_bytes())["run_id"])
    return None


def _contents(store: Store, record: RunRecord, stored: Stored) -> Contents:
    """The list of a checkpoint's files, which is of no other one than the record names."""
    try:
        contents = Contents.model_validate_json(store.get(stored.contents, MOST_LIST_BYTES))
    except ValidationError as error:
        raise StoreProblem(
            f"what {store.name} lists of run {record.run_id} is no checkpoint: {_first_of(error)}",
            left_alone="Nothing was changed.",
            hint=f"ask {record.user or 'whoever trained it'}; expmgr log {record.run_id} says who stored it",
        ) from None
    about = (contents.run_id, contents.variant, contents.seed, contents.saved.step)
    is_right = about == (record.run_id, record.variant, record.seed, stored.step)
    if not is_right or _digests(contents.saved) != _recorded(record, stored.step):
        raise StoreProblem(
            f"what {store.name} has of run {record.run_id} is not the checkpoint of step {stored.step} that its record names",
            left_alone="Nothing was changed.",
            hint=f"ask {record.user or 'whoever trained it'}; expmgr log {record.run_id} says who stored it",
        )
    return contents


def _assemble(store: Store, target: Path, file: Pieces, progress: Progress) -> None:
    """`target` from its pieces; what an interrupted fetch left of it is verified and gone on from."""
    beside, digest = target.with_name(f"{target.name}.part"), hashlib.sha256()
    if target.is_file() and target.stat().st_size == file.size_bytes and _sha256(target) == file.sha256:
        progress(file.size_bytes)
        return
    done = 0
    with durable.disk_errors(f"what is fetched from {store.name}"), open(beside, "a+b") as out:
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


def _sha256(path: Path) -> str:
    digest: Any = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return str(digest.hexdigest())


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
    folder = _folder(project, name, seed)
    try:
        manifest = folder.read_manifest()
        if manifest is not None and manifest.checkpoints:
            return None
        for one in [record] if record is not None else runs_of(project, name, seed):
            return fetch(project, store_of(project), one, find_stored(project, one, step))
    except Busy:
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
        for one in _stored_events(self._project):
            found.setdefault((one.run_id, one.step), set()).add(one.writer)
        return found

    def has(self, record: RunRecord, step: int) -> bool:
        """Whether it has a checkpoint of a run, by the word of who trained it."""
        return bool(self._told.get((record.run_id, step), set()) & _writers_of(self._project, record.run_id))


def _folder(project: Project, name: VariantName, seed: int) -> ModelDir:
    path = project.layout.model_dir(name, seed)
    return ModelDir(path, shown=project.shown(path), variant=str(name), seed=seed)


def _digests(saved: SavedCheckpoint) -> dict[str, str]:
    return {name: file.sha256 for name, file in saved.files.items()}


def _recorded(record: RunRecord, step: int) -> dict[str, str] | None:
    """The digests of the files of a checkpoint, as the record has them."""
    return next((one.files for one in reversed(record.checkpoints) if one.step == step), None)


def _is_there(folder: ModelDir, contents: Contents) -> bool:
    manifest = folder.read_manifest()
    saved = manifest.at(contents.saved.step) if manifest is not None else None
    return saved is not None and _digests(saved) == _digests(contents.saved)


def _is_of(folder: ModelDir, record: RunRecord) -> bool:
    """Whether the folder is empty, or holds checkpoints of that run alone."""
    manifest = folder.read_manifest()
    steps = manifest.checkpoints if manifest is not None else []
    return all(_digests(one) == _recorded(record, one.step) for one in steps)


def check_free(project: Project, record: RunRecord) -> None:
    """`ModelDirProblem` where the checkpoints of a run cannot come in: the folder holds those of another run."""
    _check_free(_folder(project, VariantName(*record.variant.split("/", 1)), record.seed), record)


def _check_free(folder: ModelDir, record: RunRecord) -> None:
    if not _is_of(folder, record):
        raise ModelDirProblem(
            f"{folder.shown} holds the checkpoints of another run than {record.run_id}",
            left_alone="Nothing was changed.",
            hint=f"to keep them aside and fetch these: expmgr pull {record.variant} --seed {record.seed} --fresh",
        )
