"""The store: the same promises of a folder and of a real S3 server, also where the wire is cut."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from buckets import KEYS, Wire, make_bucket, s3_server
from clones import Team, ok, put, record_of, saved, told
from expmgr.disk.locks import Lock
from expmgr.errors import Busy, ExpmgrError, StoreProblem
from expmgr.launch.environments import environment_of
from expmgr.launch.plan import already_complete, gone_on_from, plan_tasks
from expmgr.launch.prepare import prepare, take_back
from expmgr.log.events import Stored
from expmgr.log.logs import Draft
from expmgr.paths import VariantName
from expmgr.project import Project
from expmgr.runs.record import Checkpoint, RunRecord
from expmgr.store import contents, fetch, find, upload
from expmgr.store.backends import PIECE_BYTES, Store, open_store
from expmgr.team.publish import tell
from world import Repo

PIECE = 64 << 10
"""Of 8 MiB pieces these tests would take minutes."""


@pytest.fixture(scope="module")
def s3_port() -> Iterator[int]:
    with s3_server() as port:
        yield port


@pytest.fixture
def wire(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """What lies between a client and the S3 server."""
    found = Wire(s3_port)
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{found.port}"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    yield found
    found.close()


#: For the test that goes all the way with it in CI too; the others that know both do so in `make nightly`.
_S3 = pytest.param("s3", marks=pytest.mark.wide)


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.nightly)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store is to be: it holds nothing yet."""
    if request.param == "folder":
        return str(tmp_path / "shared")
    request.getfixturevalue("wire")
    bucket = f"team-{os.urandom(4).hex()}"
    make_bucket(request.getfixturevalue("s3_port"), bucket)
    return f"s3://{bucket}/models"


@pytest.fixture
def store(place: str, tmp_path: Path) -> Store:
    return open_store(place, tmp_path)


def settled(repo: Repo, place: str) -> Repo:
    (repo.path / "pyproject.toml").write_text(f'[tool.expmgr]\nstore = "{place}"\n')
    return repo


def damage(place: str, digest: str, content: bytes) -> None:
    """Put something else where a piece is."""
    import fsspec

    files, root = fsspec.core.url_to_fs(place, skip_instance_cache=True)
    files.pipe_file(f"{root.rstrip('/')}/sha256/{digest[:2]}/{digest}", content)


# The contract.


def test_what_is_put_is_got(store: Store) -> None:
    content = os.urandom(1000)
    digest = store.put(content)
    assert digest == hashlib.sha256(content).hexdigest()
    assert (store.has(digest), store.has("0" * 64)) == (True, False)
    assert store.get(digest) == content
    assert store.put(content) == digest
    assert store.put(b"") == hashlib.sha256(b"").hexdigest()
    assert store.get(store.put(b"")) == b""


def test_what_is_not_there_or_another_is_an_error(store: Store, place: str) -> None:
    with pytest.raises(StoreProblem, match=r"does not hold 000000000000|is not there"):
        store.get("0" * 64)
    digest = store.put(b"weights")
    with pytest.raises(StoreProblem, match="does not hold 000000000000"):
        store.get("0" * 64)
    damage(place, digest, b"weighty")
    with pytest.raises(StoreProblem, match="holds other content than") as caught:
        store.get(digest)
    assert "push it again" in str(caught.value.hint)


def test_what_another_puts_is_seen_at_once(store: Store, place: str, tmp_path: Path) -> None:
    digest = hashlib.sha256(b"late").hexdigest()
    assert not store.has(digest)
    open_store(place, tmp_path).put(b"late")
    assert store.has(digest)


def test_a_store_that_is_not_there_is_said(tmp_path: Path, wire: Wire, s3_port: int) -> None:
    (tmp_path / "file").write_text("")
    for place in (str(tmp_path / "file" / "store"), "s3://nobody-made-this/models"):
        with pytest.raises(StoreProblem, match=r"the store .* cannot be used: ") as caught:
            open_store(place, tmp_path).put(b"weights")
        assert "[tool.expmgr]" in str(caught.value.hint)
    with pytest.raises(StoreProblem):
        open_store("nosuch://place", tmp_path)


# Checkpoints, there and back.


@pytest.fixture
def ann(team: Team, place: str, monkeypatch: pytest.MonkeyPatch) -> Repo:
    for module in (contents, fetch, upload):
        monkeypatch.setattr(module, "PIECE_BYTES", PIECE)
    repo = settled(team.join("ann"), place)
    ok(repo, "new", "iris/baseline")
    return repo


def model_dir(repo: Repo, seed: int = 0) -> Path:
    return repo.path / f"models/iris/baseline/seed-{seed}"


def pulled(team: Team, place: str, name: str = "bob") -> Repo:
    repo = settled(team.join(name), place)
    ok(repo, "pull")
    return repo


@pytest.mark.parametrize("place", ["folder", _S3], indirect=True)
def test_there_and_back(ann: Repo, team: Team, place: str) -> None:
    content = os.urandom(5 * PIECE + 7)
    record = saved(ann, "iris/baseline", 0, content, steps=2)
    said = told(ann, "push")
    assert (said["checkpoints"], said["sent_bytes"] > 5 * PIECE) == (1, True)  # the selected one alone
    bob = pulled(team, place)
    assert not model_dir(bob).exists()
    ok(bob, "pull", "iris/baseline")
    name = f"model.ckpt-{record.step}"
    assert (model_dir(bob) / f"{name}.data-00000-of-00001").read_bytes() == content + b"x"
    for part in (".index", ".json", ".data-00000-of-00001"):
        assert (model_dir(bob) / f"{name}{part}").read_bytes() == (model_dir(ann) / f"{name}{part}").read_bytes()
    assert [one["step"] for one in told(bob, "checkpoints", "iris/baseline")["checkpoints"]] == [record.step]
    assert bob.git("status", "--porcelain").split() == ["??", "pyproject.toml"]
    assert told(bob, "pull", "iris/baseline")["fetched"] == []
    assert not list((bob.path / ".git/expmgr/fetching").iterdir())
    (event,) = [one for one in told(bob, "log")["events"] if one["kind"] == "stored"]
    assert (event["run_id"], event["step"]) == (record.run_id, record.step)


def test_all_that_are_kept_and_one_of_them(ann: Repo, team: Team, place: str) -> None:
    record = saved(ann, "iris/baseline", 0, b"weights", steps=3)
    assert told(ann, "push", "--checkpoints", "none")["checkpoints"] == 0
    bob = pulled(team, place)
    missing = bob.expmgr("pull", f"iris/baseline@{record.step - 1}")
    assert missing.code == 1
    assert f"the store has no checkpoint of step {record.step - 1} of run {record.run_id}" in missing.stderr
    assert told(ann, "push", "--checkpoints", "all")["checkpoints"] == 3
    assert told(ann, "push", "--checkpoints", "all")["checkpoints"] == 0
    ok(bob, "pull", f"iris/baseline@{record.step - 1}")
    ok(bob, "pull", "iris/baseline")
    steps = [one["step"] for one in told(bob, "checkpoints", "iris/baseline")["checkpoints"]]
    assert steps == [record.step - 1, record.step]


def test_nothing_is_sent_twice(ann: Repo, team: Team, place: str) -> None:
    content = os.urandom(3 * PIECE)
    saved(ann, "iris/baseline", 0, content)
    first = told(ann, "push")["sent_bytes"]
    assert first > 3 * PIECE
    assert told(ann, "push")["sent_bytes"] == 0
    saved(ann, "iris/baseline", 1, content)  # the same weights: their list is new, and the signature of another save
    assert told(ann, "push")["sent_bytes"] < PIECE


@pytest.mark.wide
@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_an_upload_that_is_cut_is_invisible_and_goes_on(ann: Repo, team: Team, wire: Wire, s3_port: int) -> None:
    make_bucket(s3_port, "cut-up")
    settled(ann, "s3://cut-up/models")
    content = os.urandom(20 * PIECE)
    saved(ann, "iris/baseline", 0, content)
    wire.cut_after = wire.sent + wire.received + 10 * PIECE
    before = [one["kind"] for one in told(ann, "log")["events"]]
    cut = ann.expmgr("push")
    assert cut.code == 1
    assert "the store s3://cut-up/models cannot be used: " in cut.stderr
    assert "the same command goes on where it was" in cut.stderr
    assert [one["kind"] for one in told(ann, "log")["events"]] == before  # nobody is told of a half one
    wire.cut_after = None
    sent = wire.sent
    said = told(ann, "push")
    assert said["checkpoints"] == 1
    assert 9 * PIECE < said["sent_bytes"] < 13 * PIECE
    assert wire.sent - sent < 14 * PIECE
    bob = pulled(team, "s3://cut-up/models")
    ok(bob, "pull", "iris/baseline")
    assert next(model_dir(bob).glob("*.data-*")).read_bytes() == content


@pytest.mark.wide
@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_a_download_that_is_cut_goes_on(ann: Repo, team: Team, wire: Wire, s3_port: int) -> None:
    make_bucket(s3_port, "cut-down")
    settled(ann, "s3://cut-down/models")
    content = os.urandom(20 * PIECE)
    saved(ann, "iris/baseline", 0, content)
    ok(ann, "push")
    bob = pulled(team, "s3://cut-down/models")
    wire.cut_after = wire.sent + wire.received + 10 * PIECE
    cut = bob.expmgr("pull", "iris/baseline")
    assert cut.code == 1
    assert "the same command goes on where it was" in cut.stderr
    assert not model_dir(bob).exists()  # complete or invisible
    wire.cut_after = None
    received = wire.received
    ok(bob, "pull", "iris/baseline")
    assert wire.received - received < 14 * PIECE
    assert next(model_dir(bob).glob("*.data-*")).read_bytes() == content


@pytest.mark.wide
@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_connections_that_are_cut_in_the_middle_are_made_again(ann: Repo, team: Team, wire: Wire, s3_port: int) -> None:
    make_bucket(s3_port, "flaky")
    settled(ann, "s3://flaky/models")
    content = os.urandom(6 * PIECE)
    saved(ann, "iris/baseline", 0, content)
    wire.cuts = 2
    ok(ann, "push")
    assert wire.cuts == 0
    bob = pulled(team, "s3://flaky/models")
    wire.cuts = 2
    ok(bob, "pull", "iris/baseline")
    assert wire.cuts == 0
    assert next(model_dir(bob).glob("*.data-*")).read_bytes() == content


def test_what_was_left_of_a_fetch_is_verified(ann: Repo, team: Team, place: str) -> None:
    """A part that was damaged on the disk meanwhile is fetched again, not trusted."""
    content = os.urandom(4 * PIECE)
    record = saved(ann, "iris/baseline", 0, content)
    ok(ann, "push")
    bob = pulled(team, place)
    damage(place, hashlib.sha256(content[3 * PIECE :]).hexdigest(), b"?")
    assert bob.expmgr("pull", "iris/baseline").code == 1
    (part,) = (bob.path / ".git/expmgr/fetching").rglob("*.part")
    assert part.name == f"model.ckpt-{record.step}.data-00000-of-00001.part"
    assert part.read_bytes() == content[: 3 * PIECE]
    part.write_bytes(content[:PIECE] + b"?" * PIECE + content[2 * PIECE : 3 * PIECE])
    damage(place, hashlib.sha256(content[3 * PIECE :]).hexdigest(), content[3 * PIECE :])
    ok(bob, "pull", "iris/baseline")
    assert next(model_dir(bob).glob("*.data-*")).read_bytes() == content
    assert not list((bob.path / ".git/expmgr/fetching").iterdir())


def test_another_or_a_damaged_piece_does_not_come_in(ann: Repo, team: Team, place: str) -> None:
    content = os.urandom(2 * PIECE)
    saved(ann, "iris/baseline", 0, content)
    ok(ann, "push")
    bob = pulled(team, place)
    damage(place, hashlib.sha256(content[PIECE:]).hexdigest(), content[:PIECE])
    before = bob.digest(skip_git=True)
    refused = bob.expmgr("pull", "iris/baseline")
    assert refused.code == 1
    assert "holds other content than" in refused.stderr
    assert bob.digest(skip_git=True) == before


DAMAGES = {
    "cut": lambda content: content[:-1],
    "a byte flipped": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "empty": lambda content: b"",
}


@pytest.mark.parametrize("of", ["weights", "list"])
@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_piece_is_named_and_sent_again(ann: Repo, team: Team, place: str, how: str, of: str) -> None:
    content = os.urandom(2 * PIECE)
    record = saved(ann, "iris/baseline", 0, content)
    ok(ann, "push")
    bob, eve = pulled(team, place), pulled(team, place, "eve")
    ok(eve, "pull", "iris/baseline")
    (event,) = [one for one in told(ann, "log")["events"] if one["kind"] == "stored"]
    piece = open_store(place, team.root).get(event["contents"]) if of == "list" else content[PIECE:]
    digest = hashlib.sha256(piece).hexdigest()
    damaged = DAMAGES[how](piece)
    damage(place, digest, damaged)
    refused = bob.expmgr("pull", "iris/baseline")
    assert refused.code == 1
    lines = refused.stderr.splitlines()
    assert lines[0] == f"Error: {place}/sha256/{digest[:2]}/{digest} holds other content than was stored"
    assert lines[1].startswith(f"  it has {len(damaged):,} bytes")
    assert lines[2] == (
        f"  the checkpoint of step {record.step} was pushed by Ann (writer {event['writer']}); run {record.run_id} was "
        f"trained on {record.host}"
        if record.host
        else f"  the checkpoint of step {record.step} was pushed by Ann (writer {event['writer']})"
    )
    hint = "Hint: push it again, from a clone that has it: "
    assert lines[-1].startswith(hint)
    command = lines[-1].removeprefix(hint).split()[1:]
    for one in (ann, eve):  # who trained it, and who fetched it before
        sent = told(one, *command)
        assert sent["checkpoints"] == 1
        assert open_store(place, team.root).get(digest) == piece
        assert told(one, *command)["checkpoints"] == 0
        damage(place, digest, damaged)
    assert told(ann, *(word for word in command if place.startswith("s3") or word != "--verify"))["checkpoints"] == 1
    ok(bob, "pull", "iris/baseline")
    assert next(model_dir(bob).glob("*.data-*")).read_bytes() == content


def test_a_list_that_names_other_files_than_the_record_does_not_come_in(ann: Repo, team: Team, place: str) -> None:
    """Whoever writes to the store and the log cannot give another checkpoint than the run's record has."""
    one, two = saved(ann, "iris/baseline", 0, b"right"), saved(ann, "iris/baseline", 1, b"wrong")
    ok(ann, "push")
    bob = pulled(team, place)
    project = Project.open(bob.path)
    events = {e.event.run_id: e.event for e in project.logs.events("stored") if isinstance(e.event, Stored)}
    forged = events[one.run_id].model_copy(update={"contents": events[two.run_id].contents})
    with pytest.raises(StoreProblem, match="is not the checkpoint of step"):
        fetch.fetch(project, find.store_of(project), project.records.load(one.run_id), [forged])
    assert not model_dir(bob).exists()


@dataclass
class Fetching:
    """Bob's clone, which knows of Ann's checkpoint, and the store as somebody else may write to it."""

    repo: Repo
    project: Project
    store: Store
    record: RunRecord

    @property
    def events(self) -> list[Stored]:
        return [one.event for one in self.project.logs.events("stored") if isinstance(one.event, Stored)]

    @property
    def values(self) -> dict[str, Any]:
        """What the store lists, as JSON."""
        found = json.loads(self.store.get(self.events[0].contents))
        assert isinstance(found, dict)
        return found

    def listed(self, content: bytes) -> Stored:
        """An event that names another list."""
        return self.events[0].model_copy(update={"contents": self.store.put(content)})

    def fetch(self, *places: Stored) -> str | None:
        return fetch.fetch(self.project, self.store, self.record, places or self.events[:1])

    def refused(self, content: bytes, match: str) -> None:
        """The list does not come in, and every byte is where it was."""
        place = self.listed(content)
        before = self.repo.digest(self.repo.path, *self.repo.path.parent.glob("*"))
        with pytest.raises(StoreProblem, match=match) as caught:
            self.fetch(place)
        assert caught.value.left_alone == "Nothing was changed."
        assert self.repo.digest(self.repo.path, *self.repo.path.parent.glob("*")) == before


@pytest.fixture
def fetching(ann: Repo, team: Team, place: str) -> Fetching:
    content = os.urandom(2 * PIECE + 5)
    record = saved(ann, "iris/baseline", 0, content)
    ok(ann, "push")
    bob = pulled(team, place)
    project = Project.open(bob.path)
    return Fetching(bob, project, find.store_of(project), project.records.load(record.run_id))


in_a_folder = pytest.mark.parametrize("place", ["folder"], indirect=True)
NAMES = (
    "../escaped", "/tmp/escaped", "probe-../../escaped", ".hidden", "", ".", "..", "C:escaped", "C:\\escaped",
    "..\\escaped", "model.ckpt-9\0.index", "model.ckpt-9.index/../../escaped", "model.ckpt-09.index",
    "model.ckpt-\u0669.index", "model.ckpt-9.data-00000-of-00001\n", "model.ckpt-9.exe", "manifest.json", "checkpoint",
    "variant.json", "probe-0123456789ABCDEF.npz", "probe-0123456789abcde.npz", "probe-0123456789abcdef.npz/x",
)  # fmt: skip


@in_a_folder
@pytest.mark.parametrize("where", ["beside the checkpoint's files", "among them"])
def test_a_list_cannot_name_a_place_of_its_own(fetching: Fetching, where: str) -> None:
    digest = fetching.store.put(b"!")
    for name in NAMES:
        values = fetching.values
        name = name.replace("ckpt-9", f"ckpt-{fetching.record.step}")
        values["files"][name] = {"size_bytes": 1, "sha256": digest, "pieces": [digest]}
        if where == "among them":
            values["saved"]["files"][name] = {"size_bytes": 1, "sha256": digest}
        fetching.refused(json.dumps(values).encode(), "is no checkpoint: it names ")


def changed(values: dict[str, Any], *keys: str | int, to: object) -> bytes:
    at: Any = values
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = to
    return json.dumps(values).encode()


@in_a_folder
def test_a_list_cannot_say_what_cannot_be(fetching: Fetching) -> None:
    """Digests, sizes and numbers are held to what they can be before anything is fetched."""
    data = f"model.ckpt-{fetching.record.step}.data-00000-of-00001"
    piece = fetching.values["files"][data]["pieces"][0]
    no = "is no checkpoint: "
    for to in (
        "../../../../escaped",
        piece.upper(),
        piece[:-1],
        f"{piece}\n",
        f"{piece[:-1]}\0",
        f"{piece[:2]}/{piece}",
    ):
        fetching.refused(changed(fetching.values, "files", data, "pieces", 0, to=to), f"{no}is not a sha256")
        fetching.refused(changed(fetching.values, "files", data, "sha256", to=to), f"{no}is not a sha256")
    for size in (2 * PIECE, 0, 1, 3 * PIECE + 1):
        fetching.refused(
            changed(fetching.values, "files", data, "size_bytes", to=size), f"{no}{size} bytes are not 3 pieces"
        )
    for size in (2 * PIECE + 1, 3 * PIECE):  # as many pieces, and others than were saved
        fetching.refused(
            changed(fetching.values, "files", data, "size_bytes", to=size),
            f"{no}it tells of the checkpoint's files in two",
        )
    for huge in (-1, 2**63, 10**400):
        fetching.refused(changed(fetching.values, "files", data, "size_bytes", to=huge), no)
        fetching.refused(changed(fetching.values, "saved", "examples_seen", to=huge), no)
    fetching.refused(changed(fetching.values, "saved", "saved_at", to=1e300), no)
    fetching.refused(changed(fetching.values, "saved", "metrics", to={"eval": {"loss": float("nan")}}), no)
    fetching.refused(changed(fetching.values, "run_id", to="../../escaped"), f"{no}is not a run's id")
    fetching.refused(changed(fetching.values, "variant", to="../escaped"), no)
    fetching.refused(changed(fetching.values, "format", to=2), no)
    fetching.refused(b'{"a":' * 100_000, no)
    fetching.refused(b"\xff\xfe", no)
    fetching.refused(changed(fetching.values, "saved", "step", to=7), no)
    fetching.refused(changed(fetching.values, "seed", to=7), "is not the checkpoint of step")
    assert fetching.fetch() is not None


@in_a_folder
def test_a_list_of_any_length_is_not_read(fetching: Fetching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "MOST_LIST_BYTES", 10_000)
    fetching.refused(b" " * 10_001, "holds other content than")
    monkeypatch.setattr(contents, "MOST_PIECES", 3)
    fetching.refused(json.dumps(fetching.values).encode(), "it has more than 3 pieces")


def test_a_piece_of_any_length_is_not_read(store: Store, place: str) -> None:
    """Whoever can write to the store cannot fill the memory of those who read."""
    digest = store.put(b"a piece")
    damage(place, digest, b"?" * (40 << 20))
    for most in (7, PIECE_BYTES):
        tracemalloc.start()
        with pytest.raises(StoreProblem, match="holds other content than"):
            store.get(digest, most)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 3 * most + (4 << 20)


@in_a_folder
def test_what_is_no_file_is_not_waited_for(store: Store, place: str) -> None:
    digest = hashlib.sha256(b"a pipe").hexdigest()
    path = Path(place) / "sha256" / digest[:2] / digest
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with pytest.raises(StoreProblem, match="does not hold"):
        store.get(digest)


# Several at once.


class Waiting(Store):
    """A store in which the piece `at` is not had before somebody says so."""

    def __init__(self, inner: Store, at: str) -> None:
        super().__init__(inner.name)
        self._inner, self._at = inner, at
        self.is_there, self.may_go = threading.Event(), threading.Event()

    def has(self, digest: str) -> bool:
        return self._inner.has(digest)

    def _put(self, digest: str, content: bytes) -> None:
        self._inner._put(digest, content)

    def _get(self, digest: str, most: int) -> bytes | None:
        if digest == self._at:
            self.is_there.set()
            assert self.may_go.wait(60)
        return self._inner._get(digest, most)


@contextlib.contextmanager
def half_way(fetching: Fetching) -> Iterator[None]:
    """While another fetch of the same checkpoint is in the middle of its largest file."""
    data = max(fetching.values["files"].values(), key=lambda one: one["size_bytes"])
    slow = Waiting(fetching.store, data["pieces"][1])
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(fetch.fetch, fetching.project, slow, fetching.record, fetching.events)
        try:
            assert slow.is_there.wait(60)
            yield
        finally:
            slow.may_go.set()
        assert done.result() is not None


def right(fetching: Fetching, folder: Path) -> bool:
    (data,) = folder.glob("*.data-*")
    return hashlib.sha256(data.read_bytes()).hexdigest() == fetching.record.checkpoints[-1].files[data.name]


@in_a_folder
def test_of_two_fetches_at_once_one_is_told_that_the_other_goes_on(fetching: Fetching) -> None:
    with half_way(fetching):
        with pytest.raises(Busy, match=r"models/iris/baseline/seed-0 is in use by process \d+"):
            fetching.fetch()
        other = fetching.repo.expmgr("pull", "iris/baseline")
        assert (other.code, "is in use by process" in other.stderr) == (4, True)
        asked = fetching.repo.expmgr("evaluate", "iris/baseline")
        assert (asked.code, "is in use by process" in asked.stderr) == (4, True)
    assert right(fetching, model_dir(fetching.repo))
    assert fetching.fetch() is None
    assert not list((fetching.repo.path / ".git/expmgr/fetching").iterdir())


@in_a_folder
@pytest.mark.parametrize("fresh", [False, True])
def test_who_lost_the_lock_on_the_way_writes_nothing(fetching: Fetching, fresh: bool) -> None:
    """Another machine took a fetch for dead that was only slow."""
    if fresh:
        saved(fetching.repo, "iris/baseline", 0, b"Bob's")
    before = fetching.repo.digest("models/iris/baseline/seed-0") if fresh else {}

    def lose(_: int) -> None:
        locks = model_dir(fetching.repo).parent / ".locks/seed-0"
        (locks / "00000009.json").write_text('{"format": 1, "released": true}')

    with pytest.raises(Busy, match="was taken over by another process"):
        fetch.fetch(
            fetching.project, fetching.store, fetching.record, fetching.events, fresh=fresh, progress=lose
        )  # fmt: skip
    assert fetching.repo.digest("models/iris/baseline/seed-0") == before


@in_a_folder
def test_who_waited_for_the_lock_looks_again(fetching: Fetching, monkeypatch: pytest.MonkeyPatch) -> None:
    acquire, turns = Lock.acquire, iter([True])

    def late(lock: Lock, *args: Any) -> None:
        if next(turns, False):
            assert fetching.fetch() is not None  # somebody else is quicker
        acquire(lock, *args)

    monkeypatch.setattr(Lock, "acquire", late)
    seen: list[int] = []
    assert fetch.fetch(fetching.project, fetching.store, fetching.record, fetching.events, progress=seen.append) is None
    assert seen == []
    assert right(fetching, model_dir(fetching.repo))


@in_a_folder
def test_fetches_into_two_model_dirs_do_not_meet(fetching: Fetching, tmp_path: Path) -> None:
    """Two worktrees may have roots of their own, and share what lies in .git."""
    elsewhere = replace(
        fetching.project, layout=replace(fetching.project.layout, models_root=tmp_path / "elsewhere")
    )  # fmt: skip
    with half_way(fetching):
        assert fetch.fetch(elsewhere, fetching.store, fetching.record, fetching.events) is not None
    assert right(fetching, model_dir(fetching.repo))
    assert right(fetching, tmp_path / "elsewhere/iris/baseline/seed-0")


# Whose word it is.


def tell_stored(repo: Repo, event: Stored, **values: object) -> None:
    """Let somebody say, in a log of their own, where a checkpoint lies."""
    about = {"run_id": event.run_id, "variant": event.variant, "seed": event.seed, "step": event.step}
    tell(Project.open(repo.path), [Draft(Stored, {**about, "contents": "0" * 64, "size_bytes": 1, **values})])


@pytest.fixture
def mallory(team: Team, place: str, fetching: Fetching) -> Repo:
    return pulled(team, place, "mallory")


@in_a_folder
def test_a_wrong_word_of_another_is_not_looked_at(fetching: Fetching, mallory: Repo) -> None:
    tell_stored(mallory, fetching.events[0], size_bytes=5)
    ok(mallory, "push")
    ok(fetching.repo, "pull")
    (record, (first, second)) = (fetching.record, find.find_stored(fetching.project, fetching.record, None))
    assert (first.size_bytes > 5, second.size_bytes) == (True, 5)
    assert fetch.InTheStore(fetching.project).has(record, record.step)
    ok(fetching.repo, "pull", "iris/baseline")
    assert right(fetching, model_dir(fetching.repo))


@in_a_folder
def test_the_word_of_another_is_taken_where_the_trainer_s_does_not_hold(fetching: Fetching, mallory: Repo) -> None:
    """The list that Ann told of is gone; somebody has put it there again, in other words."""
    again = json.dumps(fetching.values).encode()  # the same list, written otherwise
    tell_stored(mallory, fetching.events[0], contents=fetching.store.put(again), size_bytes=5)
    ok(mallory, "push")
    remove(fetching.store, fetching.events[0].contents)
    ok(fetching.repo, "pull")
    ok(fetching.repo, "pull", "iris/baseline")
    assert right(fetching, model_dir(fetching.repo))


@in_a_folder
def test_an_older_word_is_tried_before_giving_up(fetching: Fetching, ann: Repo) -> None:
    """Of one's own too; and where none holds, the last error is told, and what was tried before it."""
    tell_stored(ann, fetching.events[0], contents="1" * 64)
    tell_stored(ann, fetching.events[0], contents="2" * 64)
    ok(ann, "push")
    ok(fetching.repo, "pull")
    ok(fetching.repo, "pull", "iris/baseline")
    assert right(fetching, model_dir(fetching.repo))
    shutil.rmtree(model_dir(fetching.repo))
    real = fetching.events[0].contents
    remove(fetching.store, real)
    failed = fetching.repo.expmgr("pull", "iris/baseline")
    name = fetching.store.name
    assert (failed.code, failed.stderr) == (
        1,
        f"Error: {name} does not hold {real[:12]}\n"
        f"  {fetching.store.place(real)} is missing\n"
        f"  the checkpoint of step {fetching.record.step} was pushed by Ann (writer {fetching.events[0].writer})\n"
        f"  tried before: {name} does not hold 222222222222\n"
        f"  tried before: {name} does not hold 111111111111\n"
        "Nothing was changed.\n"
        "Hint: push it again, from a clone that has it: expmgr push --checkpoints selected --verify\n",
    )


@in_a_folder
def test_a_run_is_not_preferred_by_the_word_of_another(fetching: Fetching, ann: Repo, mallory: Repo) -> None:
    """Of two runs of a seed the newest stands for the variant, also where somebody claims to have the other one."""
    newer = saved(ann, "iris/baseline", 0, b"newer")
    older = saved(ann, "iris/baseline", 1, b"older")
    newest = saved(ann, "iris/baseline", 1, b"newest")
    assert ann.expmgr("push", "--checkpoints", "none").code == 0
    ok(mallory, "pull")
    (event,) = fetching.events
    tell_stored(mallory, event, run_id=older.run_id, seed=1)
    ok(mallory, "push")
    ok(fetching.repo, "pull")
    name = VariantName("iris", "baseline")
    runs = find.runs_of(Project.open(fetching.repo.path), name)
    assert [one.run_id for one in runs] == [fetching.record.run_id, newest.run_id]  # of seed 0 the one that is stored
    assert newer.run_id != fetching.record.run_id
    assert not fetch.InTheStore(fetching.project).has(older, older.step)


# What the store has lost.


def remove(store: Store, digest: str) -> None:
    (path,) = Path(store.name).glob(f"sha256/*/{digest}")
    path.unlink()


@in_a_folder
@pytest.mark.parametrize("lost", ["the list", "a piece", "everything"])
def test_what_the_store_lost_is_sent_again_when_it_is_asked_for(fetching: Fetching, ann: Repo, lost: str) -> None:
    kinds = [one["kind"] for one in told(ann, "log")["events"]]
    if lost == "everything":
        shutil.rmtree(Path(fetching.store.name) / "sha256")
    elif lost == "the list":
        remove(fetching.store, fetching.events[0].contents)
    else:
        data = max(fetching.values["files"].values(), key=lambda one: one["size_bytes"])
        remove(fetching.store, data["pieces"][1])
    assert told(ann, "push")["checkpoints"] == 0  # nobody asked: the log is believed
    assert told(ann, "push", "--checkpoints", "none")["checkpoints"] == 0
    said = told(ann, "push", "--checkpoints", "selected")
    assert said["checkpoints"] == 1
    assert said["sent_bytes"] == {"the list": 0, "a piece": PIECE}.get(lost, fetching.events[0].size_bytes)
    assert told(ann, "push", "--checkpoints", "all")["checkpoints"] == 0
    assert [one["kind"] for one in told(ann, "log")["events"]] == kinds  # it was told before
    ok(fetching.repo, "pull", "iris/baseline")
    assert right(fetching, model_dir(fetching.repo))


@in_a_folder
def test_the_word_of_another_keeps_nobody_from_sending(fetching: Fetching, ann: Repo, mallory: Repo) -> None:
    record = saved(ann, "iris/baseline", 1, b"weights")
    ok(ann, "push", "--checkpoints", "none")
    tell_stored(mallory, fetching.events[0], run_id=record.run_id, seed=1)
    ok(mallory, "push")
    ok(ann, "pull")
    assert told(ann, "push")["checkpoints"] == 1


# Going on from what was fetched.


@in_a_folder
def test_a_run_goes_on_from_what_was_fetched_not_from_an_older_one_of_this_clone(fetching: Fetching) -> None:
    """Bob has a run of the seed himself, and takes Ann's checkpoint instead: what follows is a run of its own."""
    bob, project = fetching.repo, fetching.project
    mine = saved(bob, "iris/baseline", 0, b"Bob's")
    (task,) = plan_tasks(project, ["iris/baseline"], None)
    assert gone_on_from(project, task) == (project.records.load(mine.run_id), None)
    assert already_complete(project, task) is not None
    ok(bob, "pull", "iris/baseline", "--fresh")
    assert gone_on_from(project, task) == (None, fetching.record.run_id)
    assert already_complete(project, task) is None
    before = bob.digest(".git/expmgr/runs", ".git/expmgr/active")
    prepared = prepare(project, task, environment_of(project, task.spec))
    assert (prepared.before, prepared.record.parent_run) == (None, fetching.record.run_id)
    assert prepared.record.run_id not in (mine.run_id, fetching.record.run_id)
    take_back(project, prepared)
    assert bob.digest(".git/expmgr/runs") | bob.digest(".git/expmgr/active") == before
    fresh = prepare(project, replace(task, fresh=True), environment_of(project, task.spec))
    assert (fresh.before, fresh.record.parent_run) == (None, None)
    take_back(project, fresh)


def begun(project: Project, parent: str, *steps: int, began: int) -> RunRecord:
    """A run of this clone that began from the checkpoint of `began` and saved others of `steps`."""
    record = record_of(project, "iris/baseline", 0, 0.9, parent_run=parent, status="killed")
    attempt = record.attempts[0].model_copy(update={"from_step": began})
    there = [Checkpoint(step=step, saved_at=1.0, files={"x": "y"}) for step in steps]
    record = record.model_copy(update={"attempts": [attempt], "checkpoints": there})
    put(project, record)
    return record


@in_a_folder
def test_a_run_that_began_from_what_was_fetched_is_taken_up_again(fetching: Fetching) -> None:
    """Unless what it saved since is not there any more: then the same checkpoint was fetched once more."""
    project, theirs = fetching.project, fetching.record
    ok(fetching.repo, "pull", "iris/baseline")
    (task,) = plan_tasks(project, ["iris/baseline"], None)
    assert gone_on_from(project, task) == (None, theirs.run_id)
    mine = begun(project, theirs.run_id, began=theirs.step)
    assert gone_on_from(project, task) == (project.records.load(mine.run_id), None)
    begun(project, theirs.run_id, theirs.step + 50, began=theirs.step)
    assert gone_on_from(project, task) == (None, theirs.run_id)
    begun(project, theirs.run_id, began=theirs.step - 50)
    assert gone_on_from(project, task) == (None, theirs.run_id)
    begun(project, "another", began=theirs.step)
    assert gone_on_from(project, task) == (None, theirs.run_id)


@in_a_folder
def test_what_one_trained_oneself_and_lost_is_gone_on_with(fetching: Fetching, ann: Repo) -> None:
    shutil.rmtree(model_dir(ann))
    ok(ann, "pull", "iris/baseline")
    project = Project.open(ann.path)
    (task,) = plan_tasks(project, ["iris/baseline"], None)
    assert gone_on_from(project, task) == (project.records.load(fetching.record.run_id), None)


def test_a_file_that_is_not_as_it_was_saved_is_not_told_of(ann: Repo, team: Team, place: str) -> None:
    saved(ann, "iris/baseline", 0, b"right")
    next(model_dir(ann).glob("*.data-*")).write_bytes(b"wrong")
    result = ann.expmgr("push")
    assert result.code == 1
    assert "was not stored: it has other content than was saved" in result.stderr
    assert "stored" not in [one["kind"] for one in told(ann, "log")["events"]]


def test_checkpoints_of_another_run_stay(ann: Repo, team: Team, place: str) -> None:
    saved(ann, "iris/baseline", 0, b"Ann's")
    ok(ann, "push")
    bob = settled(team.join("bob"), place)
    ok(bob, "pull")
    saved(bob, "iris/baseline", 0, b"Bob's")
    before = bob.digest("models")
    refused = bob.expmgr("pull", "iris/baseline")
    assert refused.code == 1
    assert "holds the checkpoints of another run" in refused.stderr
    assert "expmgr pull iris/baseline --seed 0 --fresh" in refused.stderr
    assert bob.digest("models") == before
    ok(bob, "pull", "iris/baseline", "--seed", "0", "--fresh")
    assert next(model_dir(bob).glob("*.data-*")).read_bytes() == b"Ann's"
    aside = [one for one in (bob.path / "models/iris/baseline").rglob("*.data-*") if ".set-aside" in str(one)]
    assert [one.read_bytes() for one in aside] == [b"Bob's"]


def test_words_where_there_is_no_store_or_nothing_in_it(ann: Repo, team: Team, place: str) -> None:
    ok(ann, "push")
    bob = pulled(team, place)
    nobody = bob.expmgr("pull", "iris/baseline")
    assert (nobody.code, "nobody has told of a run of iris/baseline" in nobody.stderr) == (1, True)
    assert bob.expmgr("pull", "--seed", "1").code == 2
    (bob.path / "pyproject.toml").unlink()
    for argv in (("pull", "iris/baseline"), ("push", "--checkpoints", "all")):
        none = bob.expmgr(*argv)
        assert none.code == 1
        assert 'Error: no store is set up\nNothing was changed.\nHint: store = "s3://bucket/prefix"' in none.stderr


def test_a_url_without_fsspec_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(ExpmgrError, match="which is not installed") as caught:
        open_store("s3://bucket/prefix", tmp_path)
    assert 'pip install "expmgr[s3]"' in str(caught.value.hint)


@in_a_folder
def test_a_store_that_is_not_mounted_gets_nothing(fetching: Fetching, ann: Repo, place: str) -> None:
    """A folder of its name is not made anew: whoever looks in the real one later would not find what the log promises."""
    Path(place).rename(f"{place}-away")
    saved(ann, "iris/baseline", 1, b"more")
    before = ann.git("for-each-ref")
    refused = ann.expmgr("push")
    assert (refused.code, Path(place).exists(), ann.git("for-each-ref")) == (1, False, before)
    assert refused.stderr.startswith(
        f"Error: the store {place} is not there, and the log says that checkpoints are in it\n"
    )
    fetched = fetching.repo.expmgr("pull", "iris/baseline")
    assert f"the store {place} is not there" in fetched.stderr
    Path(f"{place}-away").rename(place)
    ok(ann, "push")


@in_a_folder
def test_a_run_is_fetched_by_its_id_and_nothing_where_one_seed_cannot_come_in(
    fetching: Fetching, ann: Repo, place: str
) -> None:
    second = saved(ann, "iris/baseline", 1, b"second")
    ok(ann, "push")
    saved(fetching.repo, "iris/baseline", 1, b"one of my own")
    before = fetching.repo.snapshot()
    refused = fetching.repo.expmgr("pull", "iris/baseline")
    assert refused.code == 1
    assert "seed-1 holds the checkpoints of another run" in refused.stderr
    after = fetching.repo.snapshot()
    assert {name for name in before if before[name] != after[name]} <= {"refs", "expmgr"}  # what was said came in
    ok(fetching.repo, "pull", second.run_id, "--fresh")
    assert not (fetching.repo.path / "models/iris/baseline/seed-0").exists()
