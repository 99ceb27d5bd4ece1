"""Files and folders that code reads: known by their content, wherever they lie, and read once."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from expmgr.data.files import Content, contents
from expmgr.data.locations import Places
from expmgr.errors import DataProblem


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/expmgr/digests.sqlite"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "data/images"
    (folder / "cats").mkdir(parents=True)
    (folder / "one.png").write_bytes(b"one")
    (folder / "cats/two.png").write_bytes(b"two")
    return folder


def content(name: str, tmp_path: Path, **places: object) -> Content:
    return contents({"images": name}, tmp_path, Places(**places))["images"]  # type: ignore[arg-type]


def test_a_folder_is_known_by_all_its_files(images: Path, tmp_path: Path) -> None:
    found = content("${data_root}/images", tmp_path, data_root=str(tmp_path / "data"))
    assert (found.path, found.files) == (str(images), 2)
    assert content(str(images), tmp_path).sha256 == found.sha256  # wherever it lies
    (images / "cats/two.png").write_bytes(b"TWO")
    moved = content(str(images), tmp_path)
    assert moved.sha256 != found.sha256
    (images / "cats/two.png").rename(images / "two.png")
    assert content(str(images), tmp_path).sha256 != moved.sha256


def test_a_file_is_read_once_as_long_as_size_and_time_stay(images: Path, tmp_path: Path, cache: Path) -> None:
    path = images / "one.png"
    first = content(str(path), tmp_path)
    assert first.sha256 == hashlib.sha256(b"one").hexdigest()
    stamp = path.stat()
    path.write_bytes(b"eno")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert content(str(path), tmp_path).sha256 == hashlib.sha256(b"eno").hexdigest()
    cache.write_bytes(b"no database")
    assert content(str(path), tmp_path).sha256 == hashlib.sha256(b"eno").hexdigest()  # a cache: it loses nothing


def test_what_dvc_keeps_is_known_by_the_committed_hash_and_lies_in_the_checkout_by_links(tmp_path: Path) -> None:
    user, checkout = tmp_path / "user", tmp_path / "checkout"
    checkout.mkdir()

    def kept(data: bytes, end: str = "") -> str:
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        path = user / ".dvc/cache/files/md5" / md5[:2] / f"{md5[2:]}{end}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return f"{md5}{end}"

    one, two = kept(b"one"), kept(b"two")
    listing = json.dumps([{"md5": one, "relpath": "one.png"}, {"md5": two, "relpath": "cats/two.png"}]).encode()
    (checkout / "images.dvc").write_text(f"outs:\n- md5: {kept(listing, '.dir')}\n  path: images\n")
    before = {path: path.read_bytes() for path in user.rglob("*") if path.is_file()}
    found = content("images", checkout, repository=user)
    assert (found.path, found.files) == (str(checkout / "images"), 2)
    assert (checkout / "images/cats/two.png").read_bytes() == b"two"
    assert {path: path.read_bytes() for path in user.rglob("*") if path.is_file()} == before
    (checkout / "other.dvc").write_text("outs:\n- md5: 00000000000000000000000000000000.dir\n  path: other\n")
    with pytest.raises(DataProblem) as caught:
        content("other", checkout, repository=user)
    assert caught.value.lines() == [
        "Error: data.files.images: other is kept by DVC, and its cache does not hold 00000000000000000000000000000000.dir",
        "Nothing was changed.",
        "Hint: dvc pull",
    ]


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataProblem, match=r"data\.files\.images: there is no "):
        content("${data_root}/nowhere", tmp_path, data_root=str(tmp_path))


def test_a_pipe_in_a_folder_is_not_read(images: Path, tmp_path: Path) -> None:
    os.mkfifo(images / "pipe")
    with pytest.raises(DataProblem) as caught:
        content(str(images), tmp_path)
    told = f"data.files: {images}/pipe cannot be read: it is a device, a pipe or a socket, not a file"
    assert caught.value.message == told
