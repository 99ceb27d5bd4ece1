"""Runs that are killed, stopped, or left behind: what the next command finds."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from world import Repo

pytestmark = [pytest.mark.tf, pytest.mark.cold]

LONG = ("--max-steps", "500000")
PATIENCE_S = 90.0


def workers_of(command: int) -> list[int]:
    """The workers that a command has started."""
    children = Path(f"/proc/{command}/task/{command}/children").read_text().split()
    return [int(pid) for pid in children if b"expmgr.train.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.fixture
def base(iris: Repo) -> Repo:
    """iris/baseline with checkpoints so often that a kill finds some."""
    made = iris.expmgr(
        "new", "iris/baseline",
        "--set", "run_config.save_checkpoints_steps=200", "--set", "run_config.checkpoint_save_graph_def=false",
    )  # fmt: skip
    assert made.code == 0, made.stderr
    return iris


class Started:
    """`expmgr <argv>` in the background, in a process group of its own."""

    def __init__(self, repo: Repo, *argv: str) -> None:
        self.repo = repo
        self.process = subprocess.Popen(
            [sys.executable, "-m", "expmgr", *argv],
            cwd=repo.path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def until(self, what: Callable[[], bool]) -> None:
        """Wait for `what`, as long as the command runs."""
        until(lambda: what() or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.communicate()

    def has_saved(self, *seeds: int) -> Callable[[], bool]:
        """Whether each of `seeds` has a checkpoint past the first."""
        folders = [self.repo.path / f"models/iris/baseline/seed-{seed}" for seed in seeds or (0,)]
        return lambda: all(any(newest_step(folder) > 0 for _ in "1") for folder in folders)

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, err


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def newest_step(folder: Path) -> int:
    try:
        checkpoints = json.loads((folder / "manifest.json").read_text())["checkpoints"]
    except (FileNotFoundError, KeyError):
        return -1
    return max((one["step"] for one in checkpoints), default=-1)


def processes_of(repo: Repo) -> list[int]:
    """Processes that work in a run of `repo`."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            variables = (path / "environ").read_bytes().split(b"\0")
            folder = os.readlink(path / "cwd")
        except OSError:
            continue
        if (str(repo.path) in folder and "expmgr/runs" in folder) or any(
            part.startswith(b"EXPMGR_RUN_DIR=" + os.fsencode(repo.path)) for part in variables
        ):
            found.append(int(path.name))
    return found


@pytest.fixture
def training(base: Repo) -> Iterator[Started]:
    """A long run that has saved a checkpoint."""
    started = Started(base, "run", "iris/baseline", *LONG)
    started.until(started.has_saved())
    yield started
    if started.process.poll() is None:
        started.process.kill()
        started.process.communicate()


def shown(repo: Repo, seed: int = 0) -> dict[str, object]:
    told = json.loads(repo.expmgr("show", f"iris/baseline:{seed}", "--json").stdout)
    assert isinstance(told, dict)
    return told


@pytest.mark.slow
@pytest.mark.alone
def test_everything_killed(base: Repo, training: Started) -> None:
    (run_dir,) = (base.path / ".git/expmgr/runs").iterdir()
    assert json.loads((run_dir / "run.json").read_text())["status"] == "starting"
    assert shown(base)["status"] == "running"
    assert (run_dir / "code" / "experiments").is_dir()
    children = processes_of(base)
    assert children
    training.process.kill()
    for child in children:
        with contextlib.suppress(ProcessLookupError):  # the worker is among them, and the runs go with it
            os.kill(child, signal.SIGKILL)
    training.process.communicate()
    until(lambda: not processes_of(base))
    record = json.loads((run_dir / "run.json").read_text())
    assert record["format"] == 1

    listed = json.loads(base.expmgr("list", "--json").stdout)["variants"][0]
    assert listed["runs"] == {"killed": 1}
    after = json.loads((run_dir / "run.json").read_text())
    assert after["status"] == after["attempts"][0]["status"] == "killed"
    assert sorted(path.name for path in run_dir.iterdir()) == ["log.txt", "run.json"]
    assert list((base.path / ".git/expmgr/active").iterdir()) == []

    commit = str(after["commit"])
    base.git("branch", "-D", "exp/iris/baseline")
    base.git("reflog", "expire", "--expire=now", "--all")
    base.git("gc", "--quiet", "--prune=now")
    assert base.git("cat-file", "-t", commit).strip() == "commit"

    base.git("branch", "exp/iris/baseline", commit)
    step = newest_step(base.path / "models/iris/baseline/seed-0")
    again = base.expmgr("run", "iris/baseline", "--max-steps", str(step + 10))
    assert again.code == 0, again.stderr
    attempts = shown(base)["attempts"]
    assert isinstance(attempts, list)
    assert [(one["status"], one["from_step"]) for one in attempts] == [("killed", 0), ("finished", step)]


def test_the_command_killed_leaves_no_orphan(base: Repo, training: Started) -> None:
    assert processes_of(base)
    training.process.kill()
    training.process.communicate()
    until(lambda: not processes_of(base))
    assert shown(base)["status"] in ("preempted", "killed")
    assert not (next((base.path / ".git/expmgr/runs").iterdir()) / "code").exists()


@pytest.mark.slow
@pytest.mark.alone
def test_the_process_of_one_seed_killed_does_not_stop_the_others(base: Repo) -> None:
    started = Started(base, "run", "iris/baseline", "--seeds", "0-1", "--jobs", "2", "--max-steps", "3000")
    started.until(started.has_saved(0, 1))
    victim = next(
        pid for pid in processes_of(base)
        if str(shown(base, 1)["run_id"]) in os.readlink(f"/proc/{pid}/cwd")
    )  # fmt: skip
    os.kill(victim, signal.SIGKILL)
    code, _out, err = started.end()
    assert code == 1
    assert "Error: iris/baseline seed 1 was killed by SIGKILL\n" in err
    assert (shown(base, 0)["status"], shown(base, 1)["status"]) == ("finished", "killed")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.alone
def test_a_signal_saves_and_a_second_run_goes_on_to_the_same_weights(base: Repo, number: signal.Signals) -> None:
    started = Started(base, "run", "iris/baseline", *LONG)
    started.until(started.has_saved())
    started.process.send_signal(number)
    code, _out, err = started.end()
    record = shown(base)
    assert (code, record["status"]) == (75, "preempted")
    assert err.endswith(
        f"Error: iris/baseline seed 0 was stopped at step {record['step']}; its checkpoint is saved\n"
        "Hint: run it again to go on: expmgr run iris/baseline --max-steps 500000\n"
    )
    assert newest_step(base.path / "models/iris/baseline/seed-0") == record["step"]
    end = str(newest_step(base.path / "models/iris/baseline/seed-0") + 300)

    assert base.expmgr("run", "iris/baseline", "--max-steps", end).code == 0
    assert base.expmgr("new", "iris/alone", "--from", "iris/baseline").code == 0
    assert base.expmgr("run", "iris/alone", "--max-steps", end).code == 0
    one, two = (
        (base.path / f"models/iris/{name}/seed-0/model.ckpt-{end}.data-00000-of-00001").read_bytes()
        for name in ("baseline", "alone")
    )
    assert one == two
    curves = [
        json.loads(base.expmgr("show", f"iris/{name}:0", "--json").stdout)["curves"] for name in ("baseline", "alone")
    ]
    assert curves[0] == curves[1]


def test_a_second_interrupt_kills(base: Repo, training: Started) -> None:
    # The first is sent while the process cannot answer, so that the second finds it still there.
    for child in processes_of(base):
        os.kill(child, signal.SIGSTOP)
    training.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    training.process.send_signal(signal.SIGINT)
    code, _out, _err = training.end()
    assert code == 130
    until(lambda: not processes_of(base))
    assert shown(base)["status"] == "killed"


@pytest.mark.slow
def test_edits_during_a_run_do_not_reach_it(base: Repo, training: Started) -> None:
    before = shown(base)
    base.git("switch", "--quiet", "exp/iris/baseline")
    base.write("experiments/iris/iris_test.csv", "broken\n")
    base.commit("broken")
    assert json.loads(base.expmgr("list", "--json").stdout)["variants"][0]["runs"] == {"running": 1}
    training.process.send_signal(signal.SIGTERM)
    assert training.end()[0] == 75
    base.git("reset", "--quiet", "--hard", "HEAD^")
    step = shown(base)["step"]
    assert base.expmgr("run", "iris/baseline", "--max-steps", str(step)).code == 0
    after = shown(base)
    assert (after["status"], after["commit"], after["data"]) == ("finished", before["commit"], before["data"])


def test_a_run_that_is_being_trained_is_busy(base: Repo, training: Started) -> None:
    result = base.expmgr("run", "iris/baseline")
    run_id = shown(base)["run_id"]
    assert result.stderr == (
        "iris/baseline seed 0: not run\n"
        f"Error: iris/baseline seed 0 is being trained by run {run_id}\nNothing was changed.\n"
        f"Hint: wait for it to end; expmgr show {run_id}\n"
    )
    assert result.code == 4


@pytest.mark.slow
def test_hooks_of_the_user_do_not_fire(base: Repo) -> None:
    for hook in ("post-checkout", "pre-commit", "post-commit", "reference-transaction"):
        base.write(f".git/hooks/{hook}", f"#!/bin/sh\ntouch '{base.path}/{hook}-ran'\nexit 1\n").chmod(0o755)
    base.write(".git/hooks/config-hook", "")
    assert base.expmgr("new", "iris/hooked").code == 0
    assert base.expmgr("run", "iris/hooked", "--max-steps", "2").code == 0
    assert not list(base.path.glob("*-ran"))


@pytest.mark.slow
@pytest.mark.alone
def test_sixteen_runs_at_once(base: Repo) -> None:
    names = [f"iris/v{number}" for number in range(16)]
    for name in names:
        assert base.expmgr("new", name, "--from", "iris/baseline").code == 0
    started = [Started(base, "run", name, "--max-steps", "20") for name in names]
    told = [one.end() for one in started]
    assert [code for code, _out, _err in told] == [0] * 16, told
    listed = json.loads(base.expmgr("list", "--json").stdout)["variants"]
    assert [one["runs"] for one in listed if one["variant"] in names] == [{"finished": 1}] * 16


@pytest.mark.slow
@pytest.mark.alone
def test_of_sixteen_runs_of_one_seed_one_trains(base: Repo) -> None:
    started = [Started(base, "run", "iris/baseline", "--max-steps", "300") for _ in range(16)]
    codes = sorted(one.end()[0] for one in started)
    assert set(codes) <= {0, 4}
    assert codes[0] == 0
    runs = json.loads(base.expmgr("list", "--json").stdout)["variants"][0]["runs"]
    assert runs == {"finished": 1}


@pytest.mark.parametrize(
    ("number", "wanted"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 75, marks=pytest.mark.slow)]
)
def test_stopped_before_anything_began(base: Repo, number: signal.Signals, wanted: int) -> None:
    before = base.snapshot()
    started = Started(base, "run", "iris/baseline", *LONG)
    # Its worker imports TensorFlow for seconds, and is held while the command hears the signal.
    started.until(lambda: bool(processes_of(base)))
    held = workers_of(started.process.pid)  # not a git of the command, which waits for it
    assert held
    for pid in held:
        os.kill(pid, signal.SIGSTOP)
    assert not json.loads(base.expmgr("list", "--json").stdout)["variants"][0]["runs"]
    started.process.send_signal(number)
    assert started.process.stderr is not None
    heard = started.process.stderr.readline()
    for pid in held:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    code, out, err = started.end()
    assert (code, out) == (wanted, "")
    assert heard + err == (
        "stopping: each run finishes its step and saves (once more to kill)\niris/baseline seed 0: not run\n"
        "Error: iris/baseline seed 0 was stopped before it began\n"
        "Hint: expmgr run iris/baseline --max-steps 500000\n"
    )
    after = base.snapshot()
    assert {**after, "expmgr": None} == {**before, "expmgr": None}
    assert not processes_of(base)


class OnTerminal:
    """`expmgr <argv>` on a terminal of its own, as the leader of its session; `through` is what a shell puts before it."""

    def __init__(self, repo: Repo, *argv: str, through: str = 'exec "$@"', streams: str = "all") -> None:
        self.repo = repo
        self.terminal, self.stream = pty.openpty()

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            ["sh", "-c", through, "sh", sys.executable, "-m", "expmgr", *argv],
            cwd=repo.path,
            stdin=self.stream,
            stdout=self.stream if streams == "all" else subprocess.DEVNULL,
            stderr=self.stream,
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        os.close(self.stream)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._is_closed = threading.Event()
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while not self._is_closed.is_set():
                if select.select([self.terminal], [], [], 0.05)[0] and not os.read(self.terminal, 4096):
                    return

    def close(self) -> None:
        """As a person who closes the window."""
        self._is_closed.set()
        self._reader.join()
        os.close(self.terminal)


def test_a_terminal_that_is_closed_stops_a_run_which_saves(base: Repo) -> None:
    """The system sends SIGHUP, a shell does too, and nothing more can be printed."""
    started = OnTerminal(base, "run", "iris/baseline", *LONG)
    until(lambda: newest_step(base.path / "models/iris/baseline/seed-0") > 0)
    started.close()
    for _ in range(2):
        started.process.send_signal(signal.SIGHUP)
    assert started.process.wait(timeout=PATIENCE_S) == 75
    assert shown(base)["status"] == "preempted"
    assert shown(base)["step"] == newest_step(base.path / "models/iris/baseline/seed-0")
    assert not processes_of(base)


@pytest.mark.slow
def test_a_terminal_that_is_closed_is_nothing_to_nohup(base: Repo) -> None:
    """SIGHUP stays ignored, and what cannot be printed fails nothing."""
    started = OnTerminal(base, "run", "iris/baseline", "--max-steps", "3000", through='trap "" HUP; exec "$@"')
    until(lambda: newest_step(base.path / "models/iris/baseline/seed-0") > 0)
    started.close()
    assert started.process.wait(timeout=PATIENCE_S) == 0
    assert (shown(base)["status"], shown(base)["step"]) == ("finished", 3000)


@pytest.mark.slow
def test_a_detached_run_outlives_its_terminal(base: Repo) -> None:
    started = OnTerminal(base, "run", "iris/baseline", "--max-steps", "3000", "--detach", through='"$@"; exec sleep 60')
    until(lambda: newest_step(base.path / "models/iris/baseline/seed-0") > 0)
    started.close()
    started.process.wait(timeout=PATIENCE_S)
    until(lambda: shown(base)["status"] != "running")
    assert (shown(base)["status"], shown(base)["step"]) == ("finished", 3000)
