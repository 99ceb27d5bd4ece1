"""Notices of the big clouds, from servers on loopback that speak as theirs do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from expmgr.launch.preemption import is_announced, watching
from world import Repo

NAME = "worker-7"


@contextmanager
def metadata(monkeypatch: pytest.MonkeyPatch, said: dict[str, str]) -> Iterator[None]:
    """A server of metadata; `said` is what it answers by path, and what is missing there is not found."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            path = self.path.partition("?")[0]
            needs = {"/computeMetadata": "Metadata-Flavor", "/metadata": "Metadata"}
            needed = next((header for start, header in needs.items() if path.startswith(start)), None)
            if path.startswith("/latest/meta-data") and self.headers.get("X-aws-ec2-metadata-token") != "a token":
                self.send_error(401)
            elif (needed and needed not in self.headers) or path not in said:
                self.send_error(404)
            else:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(said[path].encode())

        def do_GET(self) -> None:
            self.answer()

        def do_PUT(self) -> None:
            self.answer()

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("EXPMGR_METADATA_URL", f"http://127.0.0.1:{server.server_port}")
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def azure(kind: str, *names: str) -> dict[str, str]:
    events = [{"EventType": kind, "Resources": list(names)}]
    return {
        "/metadata/scheduledevents": json.dumps({"DocumentIncarnation": 1, "Events": events}),
        "/metadata/instance/compute/name": NAME,
    }


TOKEN = {"/latest/api/token": "a token"}
ACTION = "/latest/meta-data/spot/instance-action"
CASES = [
    ("gce", {"/computeMetadata/v1/instance/preempted": "FALSE"}, False),
    ("gce", {"/computeMetadata/v1/instance/preempted": "TRUE\n"}, True),
    ("aws", TOKEN, False),
    ("aws", {**TOKEN, ACTION: '{"action": "terminate", "time": "2026-09-18T08:22:00Z"}'}, True),
    ("aws", {ACTION: '{"action": "terminate"}'}, False),
    ("aws", {**TOKEN, ACTION: "no JSON"}, False),
    ("azure", azure("Preempt", NAME), True),
    ("azure", azure("Preempt", "worker-8"), False),
    ("azure", azure("Reboot", NAME), False),
    ("azure", {}, False),
]


@pytest.mark.parametrize(("cloud", "said", "announced"), CASES)
def test_each_cloud(monkeypatch: pytest.MonkeyPatch, cloud: str, said: dict[str, str], announced: bool) -> None:
    with metadata(monkeypatch, said):
        assert is_announced(cloud) is announced


def test_no_metadata_is_no_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPMGR_METADATA_URL", "http://127.0.0.1:9")
    assert not any(is_announced(cloud) for cloud in ("gce", "aws", "azure"))


def test_it_is_told_once_and_off_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"/computeMetadata/v1/instance/preempted": "FALSE"}
    told: list[float] = []
    with metadata(monkeypatch, said):
        with watching("gce", lambda: told.append(time.monotonic()), every_s=0.01):
            time.sleep(0.1)
            assert not told
            said["/computeMetadata/v1/instance/preempted"] = "TRUE"
            deadline = time.monotonic() + 20
            while not told and time.monotonic() < deadline:
                time.sleep(0.01)
        assert len(told) == 1
        with watching("off", lambda: told.append(0.0), every_s=0.01):
            time.sleep(0.1)
    assert len(told) == 1


@pytest.mark.slow
@pytest.mark.tf
@pytest.mark.alone
@pytest.mark.cold
def test_a_run_saves_and_ends_with_75(iris: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    assert iris.expmgr("new", "iris/baseline").code == 0
    iris.write(".git/expmgr/config.toml", 'preemption_notice = "gce"\n')
    said = {"/computeMetadata/v1/instance/preempted": "FALSE"}
    with metadata(monkeypatch, said):
        announce = threading.Timer(8, lambda: said.update({"/computeMetadata/v1/instance/preempted": "TRUE"}))
        announce.start()
        stopped = iris.expmgr("run", "iris/baseline", "--max-steps", "5000000")
        announce.cancel()
    assert stopped.code == 75, stopped.stderr
    assert "its checkpoint is saved\n" in stopped.stderr
    (run,) = json.loads(iris.expmgr("show", "iris/baseline", "--json").stdout)["run_list"]
    assert run["status"] == "preempted"
