"""A warm worker of the tests is as a cold one: what user code sees of its process, what it computes, how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from expmgr.launch.worker import WorkerProcess
from warmth import SOCKET, warm_workers, with_warmth, without_warmth
from world import ROOT, Repo, sealed

pytestmark = [
    pytest.mark.tf,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks safely after TensorFlow is imported"),
]

SPEC = """
experiment: seen
data: {kind: python, train: "data:rows", eval: "data:rows", batch_size: 4}
model: {kind: python, build: "model:build_model"}
optimizer: {kind: adam, learning_rate: 0.1}
loss: mean_squared_error
train: {max_steps: 4}
run_config: {checkpoint_save_graph_def: false}
"""
DATA = """
import numpy as np

def rows():
    draw = np.random.default_rng(3)
    return draw.normal(size=(32, 3)).astype("float32"), draw.normal(size=(32, 1)).astype("float32")
"""
#: Prints all that a process can tell apart, before TensorFlow has computed anything.
MODEL = """
import gc, json, locale, os, resource, signal, sys, tempfile, threading, time
import keras, numpy as np, tensorflow as tf

main = sys.modules["__main__"]
seen = {
    "argv": sys.argv, "orig_argv": sys.orig_argv, "path": sys.path, "flags": list(sys.flags), "environ": dict(os.environ),
    "modules": sorted(sys.modules), "main": [main.__file__, main.__spec__.name, *sorted(vars(main))],
    "folder": os.getcwd(), "temporary": tempfile.gettempdir(), "umask": os.umask(0o22), "nice": os.nice(0),
    "leads": [os.getsid(0) == os.getppid() == os.getpgid(0), os.getsid(os.getppid()) == os.getppid()],
    "signals": {int(one): str(signal.getsignal(one)).partition(" at ")[0] for one in signal.valid_signals()},
    "blocked": [int(one) for one in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    "limits": {one: resource.getrlimit(getattr(resource, one)) for one in dir(resource) if one.startswith("RLIMIT")},
    "gc": [gc.isenabled(), gc.get_threshold(), gc.get_freeze_count() > 100_000],
    "locale": locale.setlocale(locale.LC_ALL), "time": [time.tzname, time.timezone],
    "keras": [keras.config.floatx(), keras.config.epsilon(), keras.config.image_data_format(), keras.config.backend()],
    "tensorflow": [tf.executing_eagerly(), tf.config.optimizer.get_experimental_options(),
                   tf.config.threading.get_inter_op_parallelism_threads(), tf.config.get_soft_device_placement()],
    "threads": threading.active_count(), "streams": [repr(sys.stdin), repr(sys.stdout), repr(sys.stderr)],
    "files": sorted(os.readlink(f"/proc/self/fd/{one}").partition(":[")[0] for one in os.listdir("/proc/self/fd")
                    if os.path.exists(f"/proc/self/fd/{one}")),
}
print("SEEN " + json.dumps(seen), flush=True)

def build_model(params):
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
"""
OF_ONE_RUN = {
    *(
        "run_id",
        "created_at",
        "started_at",
        "ended_at",
        "saved_at",
        "train_s",
        "wall_s",
        "launcher",
        "worker",
        "seconds",
    ),
    *("steps_per_s", "examples_per_s", "startup_s"),
}


@pytest.fixture
def seen(repo: Repo) -> Repo:
    for name, text in (("spec.yaml", SPEC), ("data.py", DATA), ("model.py", MODEL)):
        repo.write(f"experiments/seen/{name}", text)
    repo.commit()
    assert repo.expmgr("new", "seen/base").code == 0
    return repo


def become_cold(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = without_warmth(os.environ)
    for name in set(os.environ) - set(kept):
        monkeypatch.delenv(name)
    for name, value in kept.items():
        monkeypatch.setenv(name, value)


def why_cold(requests: Path) -> list[list[str]]:
    """For each request to the session's warm process, what differed, so that the worker started cold."""
    lines = requests.read_text().splitlines(keepends=True)
    return [json.loads(line)["cold"] for line in lines if line.startswith("{") and line.endswith("\n")]


def is_warm(requests: Path) -> bool:
    """Whether the last request of a session's warm process was taken."""
    return why_cold(requests)[-1] == []


def outcome(repo: Repo) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """What user code saw, the record without what is one run's alone, the digests of the checkpoint's files."""
    done = repo.expmgr("run", "seen/base", "--fresh")
    assert done.code == 0, done.stderr
    record = json.loads(repo.expmgr("show", "seen/base:0", "--json").stdout)
    run_id = record["run_id"]
    log = repo.expmgr("logs", run_id).stdout.replace(run_id, "RUN")
    log = re.sub(r"expmgr-worker-\w+", "expmgr-worker-X", log)
    (line,) = [line for line in log.splitlines() if line.startswith("SEEN ")]
    manifest = json.loads((repo.path / "models/seen/base/seed-0/manifest.json").read_text())
    files = {name: one["sha256"] for saved in manifest["checkpoints"] for name, one in saved["files"].items()}
    files = {name: one for name, one in files.items() if not _is_signature(name)}
    return json.loads(line.removeprefix("SEEN ")), _without(record, OF_ONE_RUN), files


def _is_signature(name: str) -> bool:
    """Whether it is the signature of a checkpoint, which names its run."""
    return name.endswith(".json")


def _without(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        kept = {key: one for key, one in value.items() if key not in names and not _is_signature(key)}
        return {key: _without(one, names) for key, one in kept.items()}
    return [_without(one, names) for one in value] if isinstance(value, list) else value


def _flat(value: Any, name: str = "") -> set[str]:
    """A line a value, so that a failure shows those that differ."""
    if isinstance(value, dict):
        return {line for key, one in value.items() for line in _flat(one, f"{name}.{key}")}
    return {f"{name}: {one}" for one in value} if isinstance(value, list) else {f"{name}: {value}"}


def test_a_warm_worker_is_as_a_cold_one(seen: Repo, warm_requests: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warm, warm_record, warm_files = outcome(seen)
    assert is_warm(warm_requests)
    before = warm_requests.read_text()
    become_cold(monkeypatch)
    cold, cold_record, cold_files = outcome(seen)
    assert warm_requests.read_text() == before
    assert _flat(warm) == _flat(cold)
    assert warm_record == cold_record
    assert warm_files == cold_files
    assert any("data" in name for name in warm_files)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("TF_ENABLE_ONEDNN_OPTS", "0", "TF_ENABLE_ONEDNN_OPTS"),
        ("SOME_NEW_SWITCH", "1", "SOME_NEW_SWITCH"),
        ("PYTHONHASHSEED", "1", "PYTHONHASHSEED"),
        ("PYTHONPATH", "/nowhere", "path"),
        ("KERAS", "", "keras"),
    ],
)
def test_what_an_import_may_depend_on_makes_a_worker_cold(
    warm_requests: Path, monkeypatch: pytest.MonkeyPatch, home: Path, name: str, value: str, told: str
) -> None:
    if name == "KERAS":
        (home / ".keras").mkdir()
        (home / ".keras" / "keras.json").write_text('{"floatx": "float64"}')
    else:
        monkeypatch.setenv(name, value if name != "PYTHONPATH" else os.pathsep.join([value, os.environ[name]]))
    before = why_cold(warm_requests)
    worker = WorkerProcess()
    deadline = time.monotonic() + 60
    while len(why_cold(warm_requests)) == len(before) and time.monotonic() < deadline:
        time.sleep(0.01)
    worker.close()
    (reasons,) = why_cold(warm_requests)[len(before) :]
    assert told in [one.partition(": ")[0] for one in reasons]


class Ended:
    """A warm worker, how it was ended, and with what status."""

    def __init__(self, end: Callable[[WorkerProcess], object]) -> None:
        worker = WorkerProcess()
        assert next(worker.said(60)) == {"ready": True}
        self.pid = worker._process.pid
        (told,) = _children_of_workers(worker)
        end(worker)
        self.status = worker._process.wait(20)
        worker.close()
        deadline = time.monotonic() + 10
        while Path(f"/proc/{told}").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.is_gone = not Path(f"/proc/{told}").exists()


def _children_of_workers(worker: WorkerProcess) -> list[int]:
    """The processes whose working folder is the worker's own, but for the one that we started."""
    found = []
    for path in Path("/proc").iterdir():
        try:
            is_there = path.name.isdigit() and os.readlink(path / "cwd") == str(worker.log.parent)
        except OSError:
            continue
        if is_there and int(path.name) != worker._process.pid:
            found.append(int(path.name))
    return found


@pytest.mark.parametrize("how", ["its input ends", "asked", "killed"])
def test_a_warm_worker_ends_as_a_cold_one(warm_requests: Path, how: str) -> None:
    ends: dict[str, Callable[[WorkerProcess], object]] = {
        "its input ends": lambda worker: worker._process.stdin.close(),  # type: ignore[union-attr]
        "asked": lambda worker: os.kill(worker._process.pid, signal.SIGTERM),
        "killed": WorkerProcess.kill,
    }
    ended = Ended(ends[how])
    assert is_warm(warm_requests)
    assert ended.is_gone
    assert ended.status == {"killed": -signal.SIGKILL}.get(how, 0)


def test_a_client_that_is_killed_as_it_asks_ends_no_other(warm_requests: Path) -> None:
    for words in (b"", b"\0" * 4, (100).to_bytes(8, "big") + b"{"):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(os.environ[SOCKET])
            client.sendall(words)
    worker = WorkerProcess()
    assert next(worker.said(60)) == {"ready": True}
    worker.close()
    assert is_warm(warm_requests)


def test_without_its_session_a_worker_starts_cold_and_the_warm_process_is_gone(tmp_path: Path) -> None:
    with warm_workers(tmp_path / "told", sealed(tmp_path, os.environ)) as address:
        environ = with_warmth(without_warmth(os.environ), address)
        assert environ[SOCKET] == address
    assert not Path(address).exists()
    done = subprocess.run(
        [sys.executable, "-m", "expmgr.train.worker"], cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, env={**environ, "PYTHONPATH": f"{ROOT}:{environ['PYTHONPATH']}"}, check=False,
    )  # fmt: skip
    assert (done.returncode, json.loads(done.stdout)) == (0, {"ready": True})
