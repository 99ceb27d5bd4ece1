"""Pieces and their lists: how often a store is asked, how much is read, and where the limits of a list are."""

from __future__ import annotations

import hashlib
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from expmgr.errors import DiskFull, StoreProblem
from expmgr.store.backends import PIECE_BYTES, FolderStore, UrlStore, open_store
from expmgr.store.contents import MOST_LIST_BYTES, MOST_PIECES, Contents, Pieces, first_problem

DIGEST = hashlib.sha256(b"weights").hexdigest()


class Files:
    """A file system that fails as often as it is told."""

    def __init__(self, failures: int, error: Exception, size: int | None = 7) -> None:
        self.failures, self.error, self.size = failures, error, size
        self.asked: list[tuple[int, int]] = []
        self.forgotten = 0

    def _turn(self) -> None:
        if self.failures:
            self.failures -= 1
            raise self.error

    def exists(self, _: str) -> bool:
        self._turn()
        return True

    def info(self, _: str) -> dict[str, int | None]:
        self._turn()
        return {"size": self.size}

    def cat_file(self, _: str, start: int, end: int) -> bytes:
        self.asked.append((start, end))
        return b"weights"[start:end]

    def invalidate_cache(self) -> None:
        self.forgotten += 1
        raise OSError("nothing is cached")


def store_on(files: Files) -> UrlStore:
    store = UrlStore("memory://pieces")
    store._files = files
    return store


def test_a_connection_is_tried_three_times() -> None:
    files = Files(2, ConnectionError("cut"))
    assert store_on(files).get(DIGEST) == b"weights"
    assert files.forgotten == 2
    files = Files(3, ConnectionError("cut\nand more"))
    with pytest.raises(StoreProblem) as caught:
        store_on(files).get(DIGEST)
    assert caught.value.lines()[0] == "Error: the store memory://pieces cannot be used: ConnectionError: cut"
    assert (files.failures, files.forgotten) == (0, 2)
    files = Files(1, FileNotFoundError("gone"))
    with pytest.raises(StoreProblem, match=f"^memory://pieces does not hold {DIGEST[:12]}\n"):
        store_on(files).get(DIGEST)
    assert files.failures == 0
    long = Files(3, ConnectionError("x" * 500))
    with pytest.raises(StoreProblem) as caught:
        store_on(long).has(DIGEST)
    assert caught.value.message == "the store memory://pieces cannot be used: ConnectionError: " + "x" * 283
    with pytest.raises(StoreProblem, match=r"cannot be used: the reason$"), store_on(long)._problems():
        raise StoreProblem("cannot be used: the reason")


def test_no_more_is_read_than_is_there_or_wanted() -> None:
    for size, most, end in ((7, 100, 7), (7, 7, 7), (7, 6, 7), (7, 5, 6), (None, 100, 101)):
        files = Files(0, OSError(), size)
        store_on(files)._get(DIGEST, most)
        assert files.asked == [(0, end)]
    empty = Files(0, OSError(), 0)
    assert store_on(empty)._get(DIGEST, 5) == b""
    assert empty.asked == []
    assert store_on(Files(0, OSError())).get(DIGEST, 7) == b"weights"
    with pytest.raises(StoreProblem, match="holds other content"):
        store_on(Files(0, OSError())).get(DIGEST, 6)


def test_a_folder_holds_pieces_by_their_digest(tmp_path: Path) -> None:
    for place in ("pieces", "file:///pieces", str(tmp_path / "pieces")):
        store = open_store(place.replace("file:///", f"file://{tmp_path}/"), tmp_path)
        assert isinstance(store, FolderStore)
        assert store.name == str(tmp_path / "pieces")
    assert isinstance(open_store("memory://pieces", tmp_path), UrlStore)
    assert not store.is_there()
    with pytest.raises(StoreProblem, match="is not there"):
        store.get(DIGEST)
    assert store.put(b"weights") == DIGEST
    path = tmp_path / "pieces" / "sha256" / DIGEST[:2] / DIGEST
    before = path.stat()
    assert store.put(b"weights") == DIGEST
    assert path.stat().st_mtime_ns == before.st_mtime_ns  # nothing is written twice
    assert (store.is_there(), store.has(DIGEST), store.has("0" * 64)) == (True, True, False)
    assert store.get(DIGEST, 7) == b"weights"
    assert store._get(DIGEST, 3) == b"weig"
    with pytest.raises(StoreProblem, match=f"{path} holds other content than "):
        store.get(DIGEST, 6)
    with pytest.raises(StoreProblem, match=f"^{store.name} does not hold 000000000000\n"):
        store.get("0" * 64)
    path.write_bytes(b"weightS")
    with pytest.raises(StoreProblem, match="holds other content"):
        store.get(DIGEST)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StoreProblem, match="does not hold"):
        store.get(DIGEST)


def test_errors_of_a_folder_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = FolderStore(tmp_path / "file")
    with pytest.raises(StoreProblem) as caught:
        store.put(b"weights")
    assert caught.value.lines()[0] == f"Error: the store {tmp_path / 'file'} cannot be used: Not a directory"
    with pytest.raises(DiskFull), store._problems():
        raise OSError(28, "full")
    with pytest.raises(StoreProblem, match="no reason given"), UrlStore("memory://x")._problems():
        raise StoreProblem("no reason given")


def test_a_file_system_in_memory_makes_its_folders(tmp_path: Path) -> None:
    for url in ("memory://pieces-made", f"local://{tmp_path}/pieces"):
        store = UrlStore(url)
        assert not store.has(DIGEST)
        assert store.put(b"weights") == DIGEST
        assert (store.has(DIGEST), store.get(DIGEST)) == (True, b"weights")
        assert store._at(DIGEST).endswith(f"/sha256/{DIGEST[:2]}/{DIGEST}")
        assert "//sha256" not in store._at(DIGEST)


# The list of a checkpoint's pieces.


def pieces(size_bytes: int, count: int | None = None) -> dict[str, Any]:
    wanted = -(-size_bytes // PIECE_BYTES) if count is None else count
    return {"size_bytes": size_bytes, "sha256": DIGEST, "pieces": ["1" * 64] * wanted}


@pytest.mark.parametrize(
    ("size_bytes", "count"), [(0, 0), (1, 1), (PIECE_BYTES, 1), (PIECE_BYTES + 1, 2), (2 * PIECE_BYTES, 2)]
)
def test_a_file_is_as_large_as_its_pieces(size_bytes: int, count: int) -> None:
    found = Pieces.model_validate(pieces(size_bytes, count))
    sizes = [size for _, size in found.sized()]
    assert sum(sizes) == size_bytes
    assert all(size == PIECE_BYTES for size in sizes[:-1])
    for wrong in (count + 1, count - 1):
        if wrong >= 0:
            with pytest.raises(ValidationError) as caught:
                Pieces.model_validate(pieces(size_bytes, wrong))
            assert first_problem(caught.value) == f"{size_bytes} bytes are not {wrong} pieces"


def contents(names: tuple[str, ...] = ("model.ckpt-7.index",), **values: Any) -> dict[str, Any]:
    files = values.pop("files", {name: pieces(1) for name in names})
    own = {
        name: {"size_bytes": one["size_bytes"], "sha256": DIGEST} for name, one in files.items() if "probe" not in name
    }
    saved = {"step": 7, "saved_at": 1.0, "examples_seen": 3, "finite": True, "files": own, **values.pop("saved", {})}
    return {
        "format": 1, "run_id": "20260101-000000000-00000a", "variant": "iris/wide", "seed": 0, "saved": saved, "files": files,
        **values,
    }  # fmt: skip


def wrong(made: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        Contents.model_validate(made)
    return first_problem(caught.value)


def test_a_list_is_that_of_one_checkpoint() -> None:
    probe = f"probe-{'a' * 16}.npz"
    names = ("model.ckpt-7.index", "model.ckpt-7.json", "model.ckpt-7.data-00000-of-00001")
    assert Contents.model_validate(contents(names)).saved.step == 7
    assert Contents.model_validate(contents((*names, probe))).files.keys() == {*names, probe}
    other = "it names other files than a checkpoint of step 7 has"
    assert wrong(contents(("model.ckpt-8.index",))) == other
    assert wrong(contents(("model.ckpt-7.index", "model.ckpt-8.index"))) == other
    assert wrong(contents(())) == other
    beside = "it names files beside the checkpoint's own and its probe's"
    assert wrong(contents((*names, probe, f"probe-{'b' * 16}.npz"))) == beside
    assert wrong(contents((*names, "probe-a.npz"))) == beside
    two = "it tells of the checkpoint's files in two ways"
    made = contents(names)
    made["files"][names[0]] = pieces(2)
    assert wrong(made) == two
    made = contents(names)
    made["files"][names[0]]["sha256"] = "2" * 64
    assert wrong(made) == two
    made = contents(names)
    del made["files"][names[0]]
    assert wrong(made) == two


def test_the_limits_of_a_list() -> None:
    assert (MOST_PIECES * PIECE_BYTES, MOST_LIST_BYTES) == (1 << 40, 1 << 24)
    most = pieces(MOST_PIECES * PIECE_BYTES)
    assert Contents.model_validate(contents(files={"model.ckpt-7.index": most}))
    more = {"model.ckpt-7.index": most, "model.ckpt-7.json": pieces(1)}
    assert wrong(contents(files=more)) == f"it has more than {MOST_PIECES} pieces"
    assert "at most" in wrong(contents(files={"model.ckpt-7.index": pieces((MOST_PIECES + 1) * PIECE_BYTES)}))
    assert Contents.model_validate(contents(seed=2**63 - 1, saved={"examples_seen": 0, "saved_at": 0}))
    for values in (
        {"seed": -1}, {"seed": 2**63}, {"saved": {"step": -1}}, {"saved": {"examples_seen": 2**63}}, {"format": 2},
        {"saved": {"saved_at": -1}}, {"run_id": "x"}, {"variant": "x"}, {"saved": {"metrics": {"eval": {"x": float("nan")}}}},
    ):  # fmt: skip
        assert wrong(contents(**values))


@pytest.mark.parametrize("url", ["https://h.invalid/x", "http://127.0.0.1:1/x"])
def test_a_host_that_does_not_answer_is_no_missing_piece(url: str) -> None:
    """fsspec calls both a missing file."""
    store = UrlStore(url)
    for ask in (store.has, store.get):
        with pytest.raises(StoreProblem, match=f"^the store {url} cannot be used: Client"):
            ask(DIGEST)


@pytest.mark.parametrize(("status", "is_missing"), [(404, True), (403, False), (500, False)])
def test_only_a_server_that_has_no_such_piece_says_that_it_is_missing(status: int, is_missing: bool) -> None:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever).start()
        store = UrlStore(f"http://127.0.0.1:{server.server_port}/x")
        try:
            if is_missing:
                assert not store.has(DIGEST)
            else:
                with pytest.raises(StoreProblem, match=f"cannot be used: ClientResponseError: {status}"):
                    store.has(DIGEST)
        finally:
            server.shutdown()


def test_a_folder_in_the_place_of_a_piece_is_named(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), tmp_path)
    place = Path(store.place(hashlib.sha256(b"piece").hexdigest()))
    place.mkdir(parents=True)
    for do in (lambda: store.put(b"piece"), lambda: store.get(place.name), lambda: store.has(place.name)):
        with pytest.raises(StoreProblem) as caught:
            do()
        assert caught.value.message == f"{place} is a folder, and a piece of a checkpoint belongs in its place"
        assert str(caught.value.hint).startswith("move it away, then push the checkpoint again")
    place.rmdir()
    place.parent.rmdir()
    place.parent.write_text("a file")
    with pytest.raises(StoreProblem, match=f"cannot be used: {place.parent}: "):
        store.put(b"piece")
