"""Runs that go on: left in the background, watched, stopped, taken back to an older checkpoint, or not recorded."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from world import Repo

pytestmark = pytest.mark.tf


@pytest.fixture
def base(iris: Repo) -> Repo:
    made = iris.expmgr(
        "new", "iris/baseline",
        "--set", "run_config.save_checkpoints_steps=100", "--set", "run_config.checkpoint_save_graph_def=false",
        "--set", "train.max_steps=300",
    )  # fmt: skip
    assert made.code == 0, made.stderr
    return iris


def until_step(repo: Repo, step: int) -> None:
    for _ in range(600):
        runs = json.loads(repo.expmgr("status", "--json").stdout)["runs"]
        if any((one["progress"] or {}).get("step", 0) > step for one in runs):
            return
        time.sleep(0.1)
    raise AssertionError("no run came so far")


@pytest.mark.slow
def test_a_detached_run_is_watched_and_stopped_and_what_waits_of_it_does_not_begin(base: Repo) -> None:
    started = base.expmgr("run", "iris/baseline", "--seeds", "0-1", "--max-steps", "5000000", "--detach")
    assert started.code == 0, started.stderr
    assert "iris/baseline seed 0: runs (run " in started.stderr
    assert "1 more run waits for its turn" in started.stderr
    try:
        until_step(base, 200)
        shown = base.expmgr("status").stdout.splitlines()
        assert shown[0].split() == ["run", "variant", "seed", "phase", "step", "of", "loss", "steps/s", "left"]
        assert shown[1].split()[1:4] == ["iris/baseline", "0", shown[1].split()[3]]
        assert shown[1].split()[3] in ("training", "saving")
        assert shown[1].split()[5] == "5,000,000"
        run_id = shown[1].split()[0]
        assert "step 100: loss = " in base.expmgr("logs", run_id).stdout
        assert base.expmgr("run", "iris/baseline").code == 4
    finally:
        stopped = base.expmgr("stop", "iris/baseline")
    assert stopped.code == 0, stopped.stderr
    assert stopped.stderr.startswith("iris/baseline seed 0: preempted at step ")
    assert stopped.stderr.endswith("\nNext: expmgr run iris/baseline --max-steps 5000000\n")
    log = next((base.path / ".git/expmgr/detached").glob("*.log"))
    for _ in range(200):
        if "seed 1 was not started: its variant was stopped" in log.read_text():
            break
        time.sleep(0.1)
    assert base.expmgr("status").stderr == "nothing runs\n"
    assert "Hint: run it again to go on: expmgr run iris/baseline --max-steps 5000000" in log.read_text()
    nothing = base.expmgr("stop", "iris/baseline")
    assert nothing.code == 0
    assert nothing.stderr == "no run of iris/baseline goes on; one that waits for its turn will not be started\n"
    assert base.expmgr("stop", run_id).stderr == f"Error: run {run_id} does not run: it is preempted\n"
    again = base.expmgr("run", "iris/baseline", "--max-steps", "1000000", "--detach", "--json")
    assert [again.code, json.loads(again.stdout)["runs"]] == [0, [run_id]]
    assert base.expmgr("stop", run_id).code == 0


@pytest.mark.slow
def test_a_detached_call_that_cannot_begin_says_so_at_once(base: Repo) -> None:
    before = base.snapshot()
    wrong = base.expmgr("run", "iris/baseline", "--from-step", "100", "--detach")
    assert wrong.code == 1
    assert "Error: no run has begun\n" in wrong.stderr
    assert "models/iris/baseline/seed-0 has no checkpoint, so none of step 100" in wrong.stderr
    assert base.snapshot()["refs"] == before["refs"]
    assert base.expmgr("run", "iris/baseline").code == 0
    done = base.expmgr("run", "iris/baseline", "--detach")
    assert (done.code, "complete at step 300, nothing to do" in done.stderr) == (0, True)


@pytest.mark.slow
def test_logs_follow_to_the_end(base: Repo) -> None:
    assert base.expmgr("run", "iris/baseline", "--max-steps", "6000", "--detach").code == 0
    followed = base.expmgr_process("logs", "iris/baseline", "-f")
    assert followed.code == 0
    assert "step 6000: loss = " in followed.stdout
    assert "\nstep 100: loss = " in f"\n{followed.stdout}"


@pytest.mark.wide
def test_a_scratch_run_records_nothing(base: Repo) -> None:
    """As `tf.estimator` without a model_dir: a temporary folder, by mkdtemp."""
    before = base.snapshot()
    done = base.expmgr("run", "iris/baseline", "--scratch", "--max-steps", "50")
    assert done.code == 0, done.stderr
    assert base.snapshot() == before
    folder = Path(done.stderr.splitlines()[-1].strip())
    assert done.stderr.splitlines()[-2] == "nothing was recorded; what was trained lies in:"
    assert (folder / "model.ckpt-50.index").is_file()
    assert base.expmgr("run", "iris/baseline", "--scratch", "--fresh").code == 2


def checkpoints(repo: Repo) -> list[int]:
    listed = json.loads(repo.expmgr("checkpoints", "iris/baseline", "--json").stdout)
    return [one["step"] for one in listed["checkpoints"]]


@pytest.mark.slow
def test_a_damaged_checkpoint_offers_the_one_before_and_going_back_is_exact(base: Repo) -> None:
    assert base.expmgr("run", "iris/baseline").code == 0
    folder = base.path / "models/iris/baseline/seed-0"
    whole = (folder / "model.ckpt-300.data-00000-of-00001").read_bytes()
    (folder / "model.ckpt-300.data-00000-of-00001").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    before = base.snapshot()
    refused = base.expmgr("run", "iris/baseline", "--max-steps", "400")
    assert refused.code == 3
    assert "  model.ckpt-300.data-00000-of-00001 has other content than was saved\n" in refused.stderr
    assert "  model.ckpt-200, saved before it, is whole\n" in refused.stderr
    way = "expmgr run iris/baseline --from-step 200"
    assert refused.stderr.splitlines()[-1] == (
        f"Hint: to go on from step 200, with what came after it kept aside: {way}"
    )
    assert base.snapshot() == before
    back = base.expmgr(*way.split()[1:])
    assert back.code == 0, back.stderr
    assert "iris/baseline seed 0: resumes at step 200, to step 300" in back.stderr
    assert (folder / "model.ckpt-300.data-00000-of-00001").read_bytes() == whole
    assert checkpoints(base) == [0, 100, 200, 300]
    (aside,) = (folder.parent / ".set-aside").iterdir()
    assert aside.name.endswith("Z-after-200")
    assert sorted(path.name for path in aside.iterdir()) == [
        "model.ckpt-300.data-00000-of-00001", "model.ckpt-300.index", "model.ckpt-300.json"
    ]  # fmt: skip
    missing = base.expmgr("run", "iris/baseline", "--from-step", "150")
    assert (missing.code, "it has 0, 100, 200, 300" in missing.stderr) == (1, True)
    assert base.expmgr("run", "iris/baseline", "--from-step", "0", "--max-steps", "100").code == 0
    assert checkpoints(base) == [0, 100]


@pytest.mark.slow
def test_tensorboard_shows_variants_by_name(base: Repo) -> None:
    pytest.importorskip("tensorboard")
    assert base.expmgr("tensorboard").code == 1
    assert base.expmgr("run", "iris/baseline", "--seeds", "0-1").code == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "expmgr", "tensorboard", "iris/baseline", "--port", str(port)],
        cwd=base.path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        # Who starts the tests in the background has ^C ignored, and every process below inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        names: list[str] = []
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/data/runs", timeout=5) as answer:
                    names = json.load(answer)
            except OSError:
                pass
            if len(names) == 4:
                break
            time.sleep(0.1)
        assert sorted(names) == [f"iris/baseline/seed-{n}{part}" for n in (0, 1) for part in ("", "/eval")]
    finally:
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 0
