"""The worker process as the command sees it: starts it, sends commands, reads its answers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from expmgr.paths import REPOSITORY_VARIABLES, has_tensorflow


class WorkerProcess:
    """One `python -m expmgr.train.worker`: it imports TensorFlow once and forks a child a run.

    It is in a session of its own, so ^C reaches the command alone, which then asks the children to stop. When the
    command dies, its end of the pipe closes, and the worker ends its children.
    """

    def __init__(self, python: str = sys.executable, trainer: str = "keras") -> None:
        """Start it with the interpreter `python`, for models that `trainer` (`keras`, `estimator`) trains, in a folder
        of its own, which is its place for temporary files too.

        `close` removes the folder, and so does the worker itself when it ends: TensorFlow leaves files of autograph
        there when a process is killed.
        """
        folder = self._folder = Path(tempfile.mkdtemp(prefix="expmgr-worker-"))
        self.log = folder / "worker.log"
        self._is_used = False
        # Without what would point a git call of the user's code to another repository than its folder.
        environment = {name: value for name, value in os.environ.items() if name not in REPOSITORY_VARIABLES}
        environment["TMPDIR"] = str(folder)
        environment["EXPMGR_WORKER_FOLDER"] = str(folder)
        environment["PYTHONPATH"] = self._import_path(python, environment.pop("PYTHONPATH", ""))
        if python != sys.executable:
            environment.pop("PYTHONHOME", None)
        with open(self.log, "wb") as stderr:
            self._process = subprocess.Popen(
                [python, "-m", "expmgr.train.worker", "--trainer", trainer],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )
        self._said: SimpleQueue[dict[str, Any]] = SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _import_path(self, python: str, given: str) -> str:
        """Where the worker finds expmgr. For another interpreter the package alone: what lies beside it belongs to this
        environment, and so does the PYTHONPATH that was given."""
        package = Path(__file__).parents[1]
        if python == sys.executable:
            return os.pathsep.join(part for part in (str(package.parent), given) if part)
        folder = self._folder / "package"
        folder.mkdir()
        (folder / package.name).symlink_to(package)
        return str(folder)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                self._said.put(json.loads(line))
            except ValueError:
                continue  # something that TensorFlow printed
        self._said.put({"gone": self._process.wait()})

    def start(self, run_dir: Path) -> None:
        self._is_used = True
        self._tell({"start": str(run_dir)})

    def stop(self, run_dir: Path) -> None:
        """Ask a run to finish its step, save and end."""
        self._tell({"stop": str(run_dir)})

    def kill(self) -> None:
        """End the worker and all its children at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _tell(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone: the listener says so
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def said(self, wait_s: float) -> Iterator[dict[str, Any]]:
        """What it has said since the last call; waits for at most `wait_s` seconds for the first message."""
        try:
            yield self._said.get(timeout=wait_s)
            while True:
                yield self._said.get_nowait()
        except Empty:
            return

    def close(self) -> None:
        """Let it end, and see that it does; at once where it was given nothing to do. May be called again."""
        assert self._process.stdin is not None
        if not self._is_used and self._process.poll() is None:
            self.kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


_early: WorkerProcess | None = None


def start_early() -> None:
    """Start a worker of expmgr's own environment before it is known what for, where that has TensorFlow."""
    global _early
    if not has_tensorflow():
        return
    with contextlib.suppress(OSError):  # whoever needs it starts one, and says what is wrong
        _early = WorkerProcess()


def take_early() -> WorkerProcess | None:
    """The worker that was started early, once; its taker closes it."""
    global _early
    taken, _early = _early, None
    return taken


def close_early() -> None:
    """End it where nobody took it."""
    if worker := take_early():
        worker.close()
