"""A crash at every single operation on the disk, and the order of these operations. No TensorFlow.

A story is told once whole, and what lies on the disk is kept after each of its steps. Then each step is done again from
where it began, once for every operation that it consists of, and at that operation the process is killed, or the disk
answers with an error, or it is full from there on.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import json
import os
import pathlib
import re
import shutil
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

from checkpoints.test_model_dir import Folder, signature, write
from expmgr.checkpoints.manifest import CheckpointMetadata, SavedCheckpoint, SavedFile
from expmgr.checkpoints.model_dir import ModelDir
from expmgr.disk import durable
from expmgr.errors import CheckpointRefused, DiskFull
from expmgr.paths import Layout
from expmgr.project import Project
from expmgr.runs.record import Attempt, RunRecord
from expmgr.runs.records import Records
from runs.test_records import DEAD, ended, point, ready, record, saved
from world import Repo

Way = Literal["killed", "an error", "a full disk"]
WAYS: tuple[Way, ...] = ("killed", "an error", "a full disk")
KILLED = 9


class Call(NamedTuple):
    """One operation that changes a disk; paths below the root of the `Disk`, random parts left out."""

    kind: str
    path: str
    target: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.path}{' to ' if self.target else ''}{self.target}"


class Disk:
    """While it is entered, `os` and `open` write down in `calls` what they do below `root`, and really do it.

    The operation number `fails_at` is not done, but: `killed`, a file is made with nothing in it, half of a line is
    written; and the process is gone. `an error` is EIO, once. `a full disk` says ENOSPC from there on, and still
    deletes.
    """

    def __init__(self, root: Path, fails_at: int = 0, way: Way = "killed") -> None:
        self.root = root
        self.calls: list[Call] = []
        self._fails_at = fails_at
        self._way = way
        self._paths: dict[int, str] = {}
        self._patches = pytest.MonkeyPatch()

    def __enter__(self) -> Disk:
        for name, kind in (("unlink", "unlink"), ("remove", "unlink"), ("rmdir", "rmdir"), ("mkdir", "mkdir")):
            self._replace(name, self._of_one(kind, getattr(os, name)))
        for name, kind in (("replace", "rename"), ("rename", "rename"), ("link", "link")):
            self._replace(name, self._of_two(kind, getattr(os, name)))
        self._patches.setattr(os, "fsync", self._fsync(os.fsync))
        self._patches.setattr(os, "write", self._write(os.write))
        self._patches.setattr(os, "open", self._os_open(os.open))
        self._replace("open", self._open(builtins.open), (builtins, io))
        return self

    def __exit__(self, *_: object) -> None:
        self._patches.undo()

    def _replace(self, name: str, wrapper: Callable[..., Any], owners: Sequence[Any] = (os,)) -> None:
        for owner in owners:
            self._patches.setattr(owner, name, wrapper)
        accessor = getattr(pathlib, "_NormalAccessor", None)  # Python 3.10: pathlib keeps its own
        if accessor is not None and hasattr(accessor, name):
            self._patches.setattr(accessor, name, staticmethod(wrapper))

    def _of_one(self, kind: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def acting(path: Any, *args: Any, dir_fd: int | None = None, **kwargs: Any) -> Any:
            if is_there(path, dir_fd) == (kind != "mkdir"):  # otherwise it changes nothing
                self._now(Call(kind, self._named(path, dir_fd)))
            return act(path, *args, dir_fd=dir_fd, **kwargs)

        return acting

    def _of_two(self, kind: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def acting(path: Any, target: Any, **kwargs: Any) -> Any:
            self._now(Call(kind, self._named(path), self._named(target)))
            return act(path, target, **kwargs)

        return acting

    def _fsync(self, act: Callable[[int], None]) -> Callable[[int], None]:
        def acting(descriptor: int) -> None:
            self._now(Call("fsync", self._paths[descriptor]))
            act(descriptor)

        return acting

    def _write(self, act: Callable[[int, bytes], int]) -> Callable[[int, bytes], int]:
        def acting(descriptor: int, content: bytes) -> int:
            half = content[: len(content) // 2]
            try:
                self._now(Call("write", self._paths[descriptor]), lambda: act(descriptor, half))
            except OSError as error:
                if error.errno == errno.ENOSPC:  # the system takes what there is room for, and says how much
                    return act(descriptor, half)
                raise
            return act(descriptor, content)

        return acting

    def _os_open(self, act: Callable[..., int]) -> Callable[..., int]:
        def acting(path: Any, flags: int, *args: Any, dir_fd: int | None = None, **kwargs: Any) -> int:
            name = self._named(path, dir_fd)
            if flags & os.O_CREAT and not is_there(path, dir_fd):
                self._now(Call("make", name), lambda: act(path, flags, *args, **kwargs))
            descriptor = act(path, flags, *args, dir_fd=dir_fd, **kwargs)
            self._paths[descriptor] = name
            return descriptor

        return acting

    def _open(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def acting(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if set(mode) & set("wxa+"):
                self._now(Call("make", self._named(path)), lambda: act(path, mode, *args, **kwargs))
            file = act(path, mode, *args, **kwargs)
            self._paths[file.fileno()] = self._named(path)
            return file

        return acting

    def _now(self, call: Call, half: Callable[[], object] = lambda: None) -> None:
        self.calls.append(call)
        number = len(self.calls)
        if self._way == "killed" and number == self._fails_at:
            half()
            os._exit(KILLED)
        if self._way == "an error" and number == self._fails_at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self._way == "a full disk" and 0 < self._fails_at <= number and call.kind not in ("unlink", "rmdir"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _named(self, path: Any, dir_fd: int | None = None) -> str:
        if isinstance(path, int):
            return self._paths[path]
        if dir_fd is not None:
            return f"{self._paths[dir_fd]}/{os.fspath(path)}"
        name = os.path.relpath(path, self.root)
        name = re.sub(r"\.saving-(\d+)-[0-9a-f]{8}", r".saving-\1", name)
        return re.sub(r"\.([^/]+)\.[0-9a-f]{8}\.tmp$", r"\1 (beside)", name)


def is_there(path: Any, dir_fd: int | None) -> bool:
    try:
        os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def cut(root: Path, work: Callable[[], object], at: int, way: Way) -> None:
    """Do `work` up to its operation number `at`, which goes as `way` says: in a process of its own where it dies."""
    if way != "killed":
        with Disk(root, at, way), contextlib.suppress(DiskFull, OSError):
            work()
        return
    pid = os.fork()
    if pid == 0:
        try:
            with Disk(root, at):
                work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == KILLED


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for the disk, where only processes die: what they wrote stays in the system's memory."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


# The model_dir.


def admitting(step: int) -> Callable[[ModelDir], object]:
    """A checkpoint that came from elsewhere: its files lie beside the model_dir, and stay there."""

    def admit(opened: ModelDir) -> None:
        parts = opened.variant_dir.parent.parent / "parts"
        files = {path.name: path for path in sorted(parts.iterdir())}
        about = {name: SavedFile(size_bytes=path.stat().st_size, sha256=digest(path)) for name, path in files.items()}
        opened.admit(SavedCheckpoint(step=step, saved_at=1.0, examples_seen=1, finite=True, files=about), files)

    return admit


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def bring(root: Path, step: int) -> None:
    """Let the files of a checkpoint lie in `root/parts`, as they do once they were fetched."""
    elsewhere = Folder(root / "elsewhere")
    elsewhere.save(step)
    (root / "parts").mkdir(exist_ok=True)
    for path in elsewhere.path.glob("model.ckpt-*"):
        path.rename(root / "parts" / path.name)
    shutil.rmtree(root / "elsewhere")


def saving(step: int) -> Callable[[ModelDir], object]:
    about = CheckpointMetadata(float(step), step * 8, {"eval": {"loss": 1.0}}, {"eval": "rows"})
    return lambda opened: opened.save(step, write, signature(step), about)


#: What happens to a model_dir, one thing after the other, each in a process of its own.
STORY: dict[str, Callable[[ModelDir], object]] = {
    "prepare": lambda opened: opened.prepare(0.0),
    "save 100": saving(100),
    "save 200": saving(200),
    "retain 200": lambda opened: opened.retain(1, None),
    "select 200": lambda opened: opened.select(200),
    "save 300": saving(300),
    "note_metrics of 300": lambda opened: opened.note_metrics(300, {"eval": {"loss": 0.5}}, {"eval": "others"}),
    "save 400": saving(400),
    "retain 200 and 400": lambda opened: opened.retain(1, None),
    "save 500": saving(500),
    "select 400": lambda opened: opened.select(400),
    "rewind to 200": lambda opened: opened.rewind(200, 1.0),
    "save 300 again": saving(300),
    "admit 450": admitting(450),
    "set_aside": lambda opened: opened.set_aside(2.0),
    "prepare again": lambda opened: opened.prepare(2.0),
    "save 0": saving(0),
}
STEPS = list(STORY)
#: Those that do something of their own: of saves the first, one beside a checkpoint that is the best, one after a rewind.
CUT = [step for step in STEPS if step not in ("save 200", "save 400", "save 500", "save 0")]


def opened_for(step: str, root: Path) -> ModelDir:
    """The model_dir, as the process that does `step` has it before."""
    opened = Folder(root).opened()
    if not step.startswith(("prepare", "set_aside")):
        opened.prepare(0.0)
    return opened


Counting = tuple[list[dict[str, Any]], "int | None"]


@dataclass(frozen=True)
class State:
    """What lies below `root`, what of it counts, and the files of checkpoints with their content."""

    root: Path
    counting: Counting
    contents: set[tuple[str, str]]


@dataclass(frozen=True)
class Told:
    """A story told whole: what lay on the disk before each step and after the last, and what each step did there."""

    states: list[State]
    calls: dict[str, list[Call]]

    def around(self, step: str) -> tuple[State, State]:
        """The states before and after `step`."""
        number = STEPS.index(step)
        return self.states[number], self.states[number + 1]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Told:
    place = tmp_path_factory.mktemp("story")
    root = place / "0"
    root.mkdir()
    bring(root, 450)
    states, calls = [State(root, what_counts(root), contents(root))], {}
    for number, (name, act) in enumerate(STORY.items(), start=1):
        root = place / str(number)
        shutil.copytree(states[-1].root, root)
        opened = opened_for(name, root)
        with Disk(root) as disk:
            act(opened)
        calls[name] = disk.calls
        states.append(State(root, what_counts(root), contents(root)))
    return Told(states, calls)


def what_counts(root: Path) -> Counting:
    """The checkpoints that are listed, each of them found whole, and which is the best."""
    manifest = Folder(root).opened().read_manifest()
    if manifest is None:
        assert Folder(root).opened().inspect() is None
        return [], None
    for one in manifest.checkpoints:
        found = Folder(root).opened().inspect(one.step)
        assert found is not None
        assert found.saved == one
    assert manifest.selected_step is None or manifest.at(manifest.selected_step) is not None
    return [one.model_dump() for one in manifest.checkpoints], manifest.selected_step


def contents(root: Path) -> set[tuple[str, str]]:
    """Files of checkpoints with their content, wherever they lie."""
    return {(path.name, sha256(path.read_bytes()).hexdigest()) for path in root.rglob("model.ckpt-*") if path.is_file()}


def wrong(root: Path, before: State, after: State) -> Iterator[str]:
    """What a crash between `before` and `after` has left wrong in `root`, as it is found and once it is prepared."""
    try:
        found = what_counts(root)
    except CheckpointRefused as refusal:
        yield refusal.message
        return
    steps = [one["step"] for one in found[0]]
    if found not in (before.counting, after.counting):
        yield f"counts neither as before nor as after: {steps}"
    folder = Folder(root)
    folder.opened().prepare(now=9.0)
    if what_counts(root) != found:
        yield "prepare changes what counts"
    newest = folder.opened().inspect()
    if (newest.saved.step if newest else None) != (steps[-1] if steps else None):
        yield "the newest is not what was listed last"
    unlisted = {path.name for path in folder.path.iterdir()} - {name for one in found[0] for name in one["files"]}
    if unlisted != {"manifest.json", "checkpoint"}:
        yield f"not listed: {sorted(unlisted - {'manifest.json', 'checkpoint'})}"
    lost = (before.contents & after.contents) - contents(root)
    if lost:
        yield f"lost: {sorted(name for name, _ in lost)}"
    lines = [f'model_checkpoint_path: "model.ckpt-{step}"\n' for step in steps[-1:]]
    lines += [f'all_model_checkpoint_paths: "model.ckpt-{step}"\n' for step in steps]
    if (folder.path / "checkpoint").read_text() != "".join(lines):
        yield "TensorFlow's file names other checkpoints"
    folder.save(999)
    if [one["step"] for one in what_counts(root)[0]] != [*steps, 999]:
        yield "nothing can be saved any more"


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", CUT)
def test_a_step_that_is_cut_anywhere_is_done_or_not_done(story: Told, tmp_path: Path, step: str, way: Way) -> None:
    """What counts is as before or as after, and whole; nothing that lies there both before and after is ever missing;
    and `prepare` leaves no file that is not listed."""
    before, after = story.around(step)
    found = []
    for at, call in enumerate(story.calls[step], start=1):
        root = tmp_path / str(at)
        shutil.copytree(before.root, root)
        cut(root, partial(STORY[step], opened_for(step, root)), at, way)
        found += [f"{way} at {at}, {call}: {line}" for line in wrong(root, before, after)]
    assert found == []


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("way", WAYS)
def test_an_admission_from_another_disk_is_done_or_not_done(
    story: Told, tmp_path: Path, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file has its own name while it is copied."""
    calls = from_another_disk(story, tmp_path / "whole", monkeypatch)
    before, after = story.around("admit 450")
    found = []
    for at, call in enumerate(calls, start=1):
        root = tmp_path / str(at)
        shutil.copytree(before.root, root)
        cut(root, partial(STORY["admit 450"], opened_for("admit 450", root)), at, way)
        found += [f"{way} at {at}, {call}: {line}" for line in wrong(root, before, after)]
    assert found == []


def test_what_is_admitted_is_on_the_disk_before_it_has_another_name(story: Told) -> None:
    calls = story.calls["admit 450"]
    for part in ("data-00000-of-00001", "index", "json"):
        assert first(calls, "fsync", f"parts/model.ckpt-450.{part}") < first(
            calls, "link", f"parts/model.ckpt-450.{part}"
        )


def test_what_is_admitted_from_another_disk_is_on_this_one_before_it_has_its_name(
    story: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = from_another_disk(story, tmp_path / "whole", monkeypatch)
    assert unsettled(calls) == []
    for part in ("data-00000-of-00001", "index", "json"):
        made = first(calls, "make", f"{SEED}/.saving-450/model.ckpt-450.{part}")
        assert made < first(calls, "fsync", f"{SEED}/.saving-450/model.ckpt-450.{part}")
        assert made < first(calls, "rename", f"{SEED}/.saving-450/model.ckpt-450.{part}")
    assert not [call for call in calls if call.kind == "make" and call.path.startswith(f"{SEED}/model.ckpt-")]


def from_another_disk(story: Told, root: Path, monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """What an admission does where the files lie on another file system."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    before, _ = story.around("admit 450")
    shutil.copytree(before.root, root)
    opened = opened_for("admit 450", root)
    with Disk(root) as disk:
        STORY["admit 450"](opened)
    return disk.calls


def test_only_retain_deletes(story: Told) -> None:
    """What goes from the folder otherwise, to go back or to start anew, lies in `.set-aside` as it was."""
    deleted = {step: story.around(step)[0].contents - story.around(step)[1].contents for step in STEPS}
    assert {
        step: sorted({name.partition(".data")[0] for name, _ in files}) for step, files in deleted.items() if files
    } == {
        "retain 200": ["model.ckpt-100", "model.ckpt-100.index", "model.ckpt-100.json"],
        "retain 200 and 400": ["model.ckpt-300", "model.ckpt-300.index", "model.ckpt-300.json"],
    }


def prepared(root: Path) -> None:
    Folder(root).opened().prepare(now=5.0)


def changing(calls: Sequence[Call]) -> Iterator[tuple[int, Call]]:
    """The operations with their numbers, but for `fsync`: a kill there leaves what a kill at the next one leaves."""
    return ((at, call) for at, call in enumerate(calls, start=1) if call.kind != "fsync")


@pytest.mark.slow
@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("step", ["save 300", "retain 200 and 400", "rewind to 200", "set_aside"])
def test_clearing_up_can_be_cut_too(story: Told, tmp_path: Path, step: str) -> None:
    """A process is killed, and so is the next one, while it clears away what the first one left."""
    before, after = story.around(step)
    found = []
    for at, call in changing(story.calls[step]):
        left, cleared = tmp_path / str(at), tmp_path / f"{at}-cleared"
        shutil.copytree(before.root, left)
        cut(left, partial(STORY[step], opened_for(step, left)), at, "killed")
        shutil.copytree(left, cleared)
        with Disk(cleared) as disk:
            prepared(cleared)
        for again, then in changing(disk.calls):
            root = tmp_path / f"{at}-{again}"
            shutil.copytree(left, root)
            cut(root, partial(prepared, root), again, "killed")
            found += [f"killed at {call}, then at {then}: {line}" for line in wrong(root, before, after)]
    assert found == []


@pytest.mark.usefixtures("soon")
def test_a_crash_leaves_nothing_beside_the_model_dir(story: Told, tmp_path: Path) -> None:
    """The variant's folder holds its name and its seeds, also where the very first `prepare` was cut."""
    found = []
    for at, call in enumerate(story.calls["prepare"], start=1):
        root = tmp_path / str(at)
        root.mkdir()
        cut(root, partial(prepared, root), at, "killed")
        prepared(root)
        names = sorted(path.name for path in Folder(root).path.parent.iterdir())
        found += [f"killed at {at}, {call}: {names}"] if names != ["seed-0", "variant.json"] else []
    assert found == []


# The order of writes.


def folder_of(path: str) -> str:
    return path.rpartition("/")[0] or "."


def unsettled(calls: Sequence[Call]) -> list[str]:
    """What a loss of power would take after it was relied on.

    A file is renamed with its content on the disk. When the manifest appears, nothing in its folder waits for the disk.
    At the end, every name that was made is there for good; what was deleted may come back.
    """
    found = []
    content: set[str] = set()
    names: set[str] = set()
    for call in calls:
        if call.kind in ("make", "write"):
            content.add(call.path)
        if call.kind in ("make", "mkdir"):
            names.add(call.path)
        elif call.kind == "fsync":
            content.discard(call.path)
            names = {name for name in names if folder_of(name) != call.path}
        elif call.kind in ("unlink", "rmdir"):
            content.discard(call.path)
            names.discard(call.path)
        elif call.kind in ("rename", "link"):
            if call.path in content:
                found.append(f"{call}: its content is not on the disk")
            names = names - {call.path}
            waiting = {one for one in names | content if one.startswith(f"{folder_of(call.target)}/model.ckpt-")}
            if call.target.endswith("/manifest.json") and waiting:
                found.append(f"{call}: {sorted(waiting)} not on the disk")
            names.add(call.target)
            is_moved = call.kind == "rename" and folder_of(call.path) != folder_of(call.target)
            if is_moved and ".saving-" not in call.path:
                names.add(call.path)  # that it is gone
    return found + [f"at the end: {name} not on the disk" for name in sorted(names | content)]


def places(calls: Sequence[Call], kind: str, path: str) -> list[int]:
    """Where the operations of that kind stand, of which there is one; `path` is how theirs ends."""
    found = [number for number, call in enumerate(calls) if call.kind == kind and call.path.endswith(path)]
    assert found, (kind, path, [str(call) for call in calls])
    return found


def first(calls: Sequence[Call], kind: str, path: str) -> int:
    return places(calls, kind, path)[0]


def last(calls: Sequence[Call], kind: str, path: str) -> int:
    return places(calls, kind, path)[-1]


SEED = "iris/wide/seed-0"


@pytest.mark.parametrize("step", STEPS)
def test_what_a_step_relies_on_is_on_the_disk(story: Told, step: str) -> None:
    """Content before its name, names before the manifest that lists them, and all of it when the step is over."""
    assert unsettled(story.calls[step]) == []


def test_files_come_in_before_the_signature_then_the_manifest_then_tensorflow_s_file(story: Told) -> None:
    """Each is on the disk before it gets its name, and its name before the next is written."""
    calls = story.calls["save 200"]
    parts = [f"model.ckpt-200.{part}" for part in ("data-00000-of-00001", "index")]
    synced = [last(calls, "fsync", f".saving-200/{part}") for part in parts]
    moved = [last(calls, "rename", f".saving-200/{part}") for part in parts]
    rest = [
        last(calls, "rename", f"{SEED}/{name} (beside)")
        for name in ("model.ckpt-200.json", "manifest.json", "checkpoint")
    ]
    assert max(synced) < min(moved)
    assert max(moved) < rest[0] < rest[1] < rest[2]
    for at in rest:
        assert calls[at - 1] == Call("fsync", calls[at].path)
        assert calls[at + 1] == Call("fsync", SEED)


@pytest.mark.parametrize(
    ("step", "gone"), [("retain 200", (100,)), ("retain 200 and 400", (300,)), ("rewind to 200", (400, 500))]
)
def test_the_manifest_forgets_before_files_go(story: Told, step: str, gone: tuple[int, ...]) -> None:
    """No file leaves the folder before a manifest without it is there for good; then all of its files do."""
    calls = story.calls[step]
    settled = calls.index(Call("fsync", SEED), first(calls, "rename", f"{SEED}/manifest.json (beside)"))
    left = {
        call.path: number
        for number, call in enumerate(calls)
        if call.kind in ("rename", "unlink") and call.path.startswith(f"{SEED}/model.ckpt-")
    }
    parts = ("data-00000-of-00001", "index", "json")
    assert set(left) == {f"{SEED}/model.ckpt-{step}.{part}" for step in gone for part in parts}
    assert min(left.values()) > settled


@pytest.mark.parametrize("step", [one for one in STEPS if one not in ("prepare", "set_aside", "prepare again")])
def test_tensorflow_s_file_never_comes_before_the_manifest(story: Told, step: str) -> None:
    """Nobody reads there of a checkpoint that does not count, or of none that does."""
    calls = story.calls[step]
    for find in (first, last):
        manifest = find(calls, "rename", f"{SEED}/manifest.json (beside)")
        assert manifest < find(calls, "make", f"{SEED}/checkpoint (beside)")


# The records.

RUN = record(launcher=DEAD).run_id


def telling(event: dict[str, Any]) -> Callable[[Records], object]:
    return lambda records: durable.append_line(records.run_dir(RUN).events, event)


def begin_again(records: Records) -> object:
    again = records.load(RUN)
    again.attempts.append(Attempt(number=2, started_at=5.0, max_steps=200, launcher=DEAD))
    again.status = "starting"
    return records.begin(again)


#: What happens to a run, one thing after the other; its processes are gone whenever somebody looks.
RUNNING: dict[str, Callable[[Records], object]] = {
    "begin": lambda records: records.begin(record(launcher=DEAD)),
    "ready": telling(ready(worker=DEAD)),
    "point 50": telling(point(50)),
    "checkpoint 50": telling(saved(50)),
    "point 100": telling(point(100)),
    "ended": telling(ended("finished", 100)),
    "finish": lambda records: records.finish(RUN),
    "begin again": begin_again,
    "ready again": telling(ready(100, worker=DEAD)),
    "point 150": telling(point(150)),
    "finish as killed": lambda records: records.finish(RUN, killed=True),
}
MOMENTS = list(RUNNING)


@dataclass(frozen=True)
class Ran:
    """A run whose story is told whole: copies of `.git/expmgr` before each step and after the last, and its calls."""

    project: Project
    states: list[Path]
    calls: dict[str, list[Call]]

    @property
    def own(self) -> Path:
        return self.project.layout.own

    @property
    def record(self) -> Path:
        return self.project.records.run_dir(RUN).record

    def at(self, state: Path) -> None:
        """Go back to `state`."""
        shutil.rmtree(self.own, ignore_errors=True)
        shutil.copytree(state, self.own)

    def json(self) -> Any:
        """`run.json`, None where there is none."""
        return json.loads(self.record.read_bytes()) if self.record.exists() else None

    def swept_up(self) -> RunRecord | None:
        """The record after the next command, None where the run is forgotten."""
        self.project.sweep_up()
        assert self.project.records.abandoned() == []
        assert self.project.records.skipped == {}
        if not self.record.exists():
            return None
        found = self.project.records.load(RUN)
        if found.attempts[-1].damaged_lines:  # the one that was cut, and its file is kept
            assert self.project.records.run_dir(RUN).damaged_events(len(found.attempts)).exists()
            found.attempts[-1].damaged_lines = 0
        return found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], dict[str, list[Call]]]:
    """The story of a run told whole: `Ran.states` and `Ran.calls`."""
    place = tmp_path_factory.mktemp("running")
    layout = Layout(place / ".git", place / "models")
    states = [place / "0"]
    calls: dict[str, list[Call]] = {}
    layout.own.mkdir(parents=True)
    states[0].mkdir()
    for number, (name, act) in enumerate(RUNNING.items(), start=1):
        with Disk(layout.own) as disk:
            act(Records(layout))
        calls[name] = disk.calls
        states.append(place / str(number))
        shutil.copytree(layout.own, states[-1])
    return states, calls


@pytest.fixture
def run(repo: Repo, running: tuple[list[Path], dict[str, list[Call]]]) -> Ran:
    return Ran(Project.open(repo.path), *running)


@pytest.mark.usefixtures("soon")
def test_every_event_that_was_told_is_in_the_record_that_the_next_command_makes(run: Ran) -> None:
    found: list[tuple[Any, ...] | None] = []
    for state in run.states:
        run.at(state)
        done = run.swept_up()
        points = [step for step, _ in done.curves.get("train", {}).get("loss", [])] if done else []
        saved_at = [one.step for one in done.checkpoints] if done else []
        found.append((len(done.attempts), done.status, points, saved_at) if done else None)
    assert found == [
        None,
        None,  # it never began
        (1, "killed", [], []),
        (1, "killed", [50], []),
        (1, "killed", [50], [50]),
        (1, "killed", [50, 100], [50]),
        (1, "finished", [50, 100], [50]),
        (1, "finished", [50, 100], [50]),
        (1, "finished", [50, 100], [50]),  # the second attempt never began
        (2, "killed", [50, 100], [50]),
        (2, "killed", [50, 100, 150], [50]),
        (2, "killed", [50, 100, 150], [50]),
    ]


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("way", WAYS)
def test_a_record_is_whole_at_every_moment_and_no_event_is_lost(run: Ran, way: Way) -> None:
    """`run.json` is what it was or what it becomes, and the next command makes of it what it would have made before
    that step or after it."""
    records = Records(run.project.layout)  # without git, which this disk does not know
    made, swept = [], []
    for state in run.states:
        run.at(state)
        made.append(run.json())
        swept.append(run.swept_up())
    found = []
    for number, (name, act) in enumerate(RUNNING.items()):
        for at, call in enumerate(run.calls[name], start=1):
            run.at(run.states[number])
            cut(run.own, partial(act, records), at, way)
            where = f"{name}, {way} at {at}, {call}"
            if run.json() not in made[number : number + 2]:
                found.append(f"{where}: run.json is neither as before nor as after")
            if run.swept_up() not in swept[number : number + 2]:
                found.append(f"{where}: the next command finds neither what was told before nor after")
            if (records.layout.active / RUN).exists():
                found.append(f"{where}: it counts as running for ever")
    assert found == []


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("moment", ["begin", "finish", "begin again", "finish as killed"])
def test_a_run_that_is_cut_leaves_its_record_alone(run: Ran, moment: str) -> None:
    """Once the next command has looked, `active` is empty, and the folder of the run holds nothing but the record."""
    found = []
    for at, call in enumerate(run.calls[moment], start=1):
        run.at(run.states[MOMENTS.index(moment)])
        cut(run.own, partial(RUNNING[moment], Records(run.project.layout)), at, "killed")
        for beside in run.project.layout.active.glob(".*"):  # it counts as left behind after a minute
            os.utime(beside, (0, 0))
        run.swept_up()
        layout = run.project.layout
        names = [str(path.relative_to(run.own)) for place in (layout.active, layout.runs) for path in place.rglob("*")]
        left = sorted(set(names) - {f"runs/{RUN}", f"runs/{RUN}/run.json"})
        found += [f"killed at {at}, {call}: {left}"] if left else []
    assert found == []


@pytest.mark.parametrize("moment", ["begin", "finish", "begin again", "finish as killed"])
def test_what_a_record_relies_on_is_on_the_disk(run: Ran, moment: str) -> None:
    assert unsettled(run.calls[moment]) == []


@pytest.mark.parametrize("moment", ["begin", "begin again"])
def test_a_run_is_listed_as_active_before_it_has_a_record(run: Ran, moment: str) -> None:
    calls = run.calls[moment]
    listed = first(calls, "rename", f"active/{RUN} (beside)")
    assert calls[listed + 1] == Call("fsync", "active")
    assert listed + 1 < first(calls, "make", f"runs/{RUN}/run.json (beside)")


@pytest.mark.parametrize("moment", ["finish", "finish as killed"])
def test_events_go_when_the_record_holds_them_and_the_run_stays_active_until_then(run: Ran, moment: str) -> None:
    calls = run.calls[moment]
    written = first(calls, "rename", f"runs/{RUN}/run.json (beside)")
    assert calls[written + 1] == Call("fsync", f"runs/{RUN}")
    assert written + 1 < first(calls, "unlink", f"runs/{RUN}/events.jsonl") < first(calls, "unlink", f"active/{RUN}")
