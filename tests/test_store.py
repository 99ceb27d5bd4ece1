"""The store: the same promises of a folder and of a real S3 server, also where the wire is cut."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from buckets import KEYS, Wire, make_bucket, s3_server
from expmgr import stored
from expmgr.errors import ExpmgrError, StoreProblem
from expmgr.project import Project
from expmgr.store import Store, open_store
from team import Team, ok, saved, told
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


@pytest.fixture(params=["folder", "s3"])
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
    with pytest.raises(StoreProblem, match="does not hold 000000000000"):
        store.get("0" * 64)
    digest = store.put(b"weights")
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
    monkeypatch.setattr(stored, "PIECE_BYTES", PIECE)
    repo = settled(team.join("ann"), place)
    ok(repo, "new", "iris/baseline")
    return repo


def model_dir(repo: Repo, seed: int = 0) -> Path:
    return repo.path / f"models/iris/baseline/seed-{seed}"


def pulled(team: Team, place: str, name: str = "bob") -> Repo:
    repo = settled(team.join(name), place)
    ok(repo, "pull")
    return repo


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
    digest = next(d for name, d in record_files(ann, record.run_id).items() if ".data-" in name)
    parts = bob.path / ".git/expmgr/fetching"
    parts.mkdir(parents=True)
    name = f"{digest}-model.ckpt-{record.step}.data-00000-of-00001"
    (parts / f"{name}.part").write_bytes(content[:PIECE] + b"?" * PIECE + content[2 * PIECE : 3 * PIECE])
    ok(bob, "pull", "iris/baseline")
    assert next(model_dir(bob).glob("*.data-*")).read_bytes() == content


def record_files(repo: Repo, run_id: str) -> dict[str, str]:
    return Project.open(repo.path).records.load(run_id).checkpoints[-1].files


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


def test_a_list_that_names_other_files_than_the_record_does_not_come_in(ann: Repo, team: Team, place: str) -> None:
    """Whoever writes to the store and the log cannot give another checkpoint than the run's record has."""
    one, two = saved(ann, "iris/baseline", 0, b"right"), saved(ann, "iris/baseline", 1, b"wrong")
    ok(ann, "push")
    bob = pulled(team, place)
    project = Project.open(bob.path)
    events = {e.event.run_id: e.event for e in project.logs.events("stored") if isinstance(e.event, stored.Stored)}
    forged = events[one.run_id].model_copy(update={"contents": events[two.run_id].contents})
    with pytest.raises(StoreProblem, match="is not the checkpoint of step"):
        stored.fetch(project, stored.store_of(project), project.records.load(one.run_id), forged)
    assert not model_dir(bob).exists()


@pytest.mark.parametrize("place", ["folder"], indirect=True)
@pytest.mark.parametrize("name", ["../escaped", ".hidden", "probe-../../escaped"])
def test_a_list_cannot_name_a_place_of_its_own(ann: Repo, team: Team, place: str, name: str) -> None:
    record = saved(ann, "iris/baseline", 0, b"right")
    ok(ann, "push")
    bob = pulled(team, place)
    project = Project.open(bob.path)
    store = stored.store_of(project)
    (event,) = [e.event for e in project.logs.events("stored") if isinstance(e.event, stored.Stored)]
    contents = stored.Contents.model_validate_json(store.get(event.contents))
    piece = stored.Pieces(size_bytes=1, sha256=hashlib.sha256(b"!").hexdigest(), pieces=[store.put(b"!")])
    contents = contents.model_copy(update={"files": {**contents.files, name: piece}})
    forged = event.model_copy(update={"contents": store.put(contents.model_dump_json().encode())})
    before = bob.digest(skip_git=True)
    with pytest.raises(StoreProblem, match="is not the checkpoint of step"):
        stored.fetch(project, store, project.records.load(record.run_id), forged)
    assert bob.digest(skip_git=True) == before


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
