"""The worker, `python -m expmgr.train.worker`: imports TensorFlow once and forks a child per run.

Commands come as JSON lines on stdin, answers go as JSON lines to stdout (see docs/architecture.md). When stdin ends,
the command that started us is gone: all children are asked to stop, and killed after `train.grace_secs`. A child that loses
its worker stops by itself. So nothing outlives the command as an orphan.

`--one RUN_DIR` does a single run in this process, for systems where a fork after the import is not safe.
"""

from __future__ import annotations

import contextlib
import fnmatch
import gc
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from expmgr.disk.durable import system_error
from expmgr.errors import ExitCode, ExpmgrError, NoTensorFlow, OurBug
from expmgr.paths import RunDir
from expmgr.train.loop.stopping import GRACE_SECS, StopFlag, follow_lifeline

#: Only Linux forks safely after TensorFlow is imported; elsewhere every run imports it for itself.
_FORKS = sys.platform == "linux"

_ASKING = {signal.SIGTERM, signal.SIGINT}

#: For TensorFlow, where the user did not say otherwise: no chatter on stderr.
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "GRPC_VERBOSITY": "ERROR", "KERAS_BACKEND": "tensorflow"}


#: Variables that say how the machine works, not what somebody may do with it.
_OF_THE_SYSTEM = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "TERM", "PYTHON*"),
    *("VIRTUAL_ENV", "CONDA_*", "LD_*", "DYLD_*", "CUDA_*", "NVIDIA_*", "XLA_*", "TF_*", "KERAS_*", "OMP_*", "MKL_*"),
    *("OPENBLAS_*", "GRPC_*", "SSL_CERT_*", "XDG_*", "EXPMGR_*"),
)


def import_tensorflow(trainer: str = "keras") -> None:
    """Import everything that a run of `trainer` needs; nothing is computed, so that a fork stays safe."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    gc.disable()  # a fifth of the import's time is the collector's, which finds nothing; and see below
    if trainer == "estimator":
        _import_estimators()
    else:
        _import_keras()
    gc.freeze()  # what was imported stays: never looked at again, and its pages are shared by every fork
    gc.enable()


def _import_keras() -> None:
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if os.environ.get("TF_USE_LEGACY_KERAS", "0").lower() in ("1", "true"):
        raise NoTensorFlow(
            "TF_USE_LEGACY_KERAS is set, which makes tf.keras the old Keras 2; expmgr trains models of Keras 3",
            hint="unset TF_USE_LEGACY_KERAS",
        )
    try:
        import keras
        import tensorflow as tf
    except ImportError as error:
        raise NoTensorFlow(
            f"TensorFlow cannot be imported: {error}", hint="pip install tensorflow (2.16 or newer, with Keras 3)"
        ) from error
    if int(keras.__version__.partition(".")[0]) < 3:
        raise NoTensorFlow(
            f"Keras {keras.__version__} came with TensorFlow {tf.__version__}; expmgr needs Keras 3",
            hint="pip install 'tensorflow>=2.16', and unset TF_USE_LEGACY_KERAS",
        )
    import expmgr.train.job  # noqa: F401

    sum_in_order()


def _import_estimators() -> None:
    try:
        import tensorflow as tf
    except ImportError as error:
        raise NoTensorFlow(
            f"TensorFlow cannot be imported: {error}", hint="pip install 'tensorflow==2.15.*'"
        ) from error
    if not hasattr(tf, "estimator"):
        raise NoTensorFlow(
            f"TensorFlow {tf.__version__} has no Estimators: 2.15 was the last that had",
            hint="pip install 'tensorflow==2.15.*'",
        )
    import expmgr.train.estimators.building
    import expmgr.train.job  # noqa: F401


def sum_in_order() -> None:
    """Have TensorFlow add up in the order that the code is written in.

    Its arithmetic optimizer makes one AddN of `a + (b + c)`, and AddN's kernel for CPUs begins with whichever input
    lies in a buffer that nobody else holds at that moment: a race, so that two evaluations of one checkpoint differ in
    the last bit. (AddN of the gradients stays: its inputs are held by nobody else.)
    """
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})


class Worker:
    """Serves the commands on `stdin` until it ends and every child is gone."""

    def __init__(self, stdin: int, stdout: int, trainer: str) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self._trainer = trainer
        self._children: dict[int, str] = {}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}  # kept: a forgotten Popen would take our waitpid
        self._unread = self._heard = b""
        self._stories: dict[str, Any] = {}
        self._kill_at: float | None = None
        self._is_asked_to_leave = False
        self._lifeline, self._lifeline_end = os.pipe()
        self._woken, self._waker = os.pipe()
        self._untold, self._untold_end = os.pipe()
        """What children could not write to a full disk: how they ended."""
        for descriptor in (self._woken, self._waker, self._untold):
            os.set_blocking(descriptor, False)

    def serve(self) -> None:
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.signal(signal.SIGTERM, lambda _number, _frame: self._be_asked_to_leave())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._say({"ready": True})
        while self._kill_at is None or self._children:
            self._turn()
            self._reap()
        if scratch := os.environ.get("EXPMGR_WORKER_FOLDER"):  # the command, which would do it, may have been killed
            os.chdir("/")
            shutil.rmtree(scratch, ignore_errors=True)

    def _turn(self) -> None:
        """Wait for a command, a signal or a child's end, and act on it."""
        if self._is_asked_to_leave:
            self._leave()
        sources = [self._woken] if self._kill_at is not None else [self._woken, self._stdin]
        left_s = None if self._kill_at is None else max(0.0, self._kill_at - time.monotonic())
        readable, _, _ = select.select(sources, [], [], left_s)
        if self._woken in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(self._woken, 4096)
        if self._stdin in readable:
            self._read()
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._signal_all(signal.SIGKILL)
            self._kill_at = time.monotonic() + 1.0

    def _read(self) -> None:
        content = os.read(self._stdin, 65536)
        if not content:
            self._leave()
            return
        *lines, self._unread = (self._unread + content).split(b"\n")
        for line in lines:
            if line.strip():
                self._obey(json.loads(line))

    def _obey(self, command: dict[str, str]) -> None:
        ((verb, run_dir),) = command.items()
        if verb == "start":
            self._start(run_dir)
            return
        number = {"stop": signal.SIGTERM, "kill": signal.SIGKILL}[verb]
        for pid in [pid for pid, name in self._children.items() if name == run_dir]:
            _signal(pid, number)

    def _start(self, run_dir: str) -> None:
        if _FORKS:
            # A signal between the fork and the child's own handlers would run ours in the child.
            signal.pthread_sigmask(signal.SIG_BLOCK, _ASKING)
            pid = os.fork()
            if pid == 0:
                self._become_child(run_dir)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKING)
        else:
            single = ["--one", run_dir, "--trainer", self._trainer, "--lifeline", str(self._lifeline)]
            single += ["--untold", str(self._untold_end)]
            process = subprocess.Popen(
                [sys.executable, "-m", "expmgr.train.worker", *single],
                stdin=subprocess.DEVNULL,
                pass_fds=[self._lifeline, self._untold_end],
            )
            pid = process.pid
            self._processes[pid] = process
        self._children[pid] = run_dir

    def _become_child(self, run_dir: str) -> NoReturn:
        """After the fork: nothing of the worker's stays open but the lifeline, whose other end is the worker's life."""
        code = int(ExitCode.BUG)
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for descriptor in (self._lifeline_end, self._woken, self._waker, self._untold, self._stdout):
                os.close(descriptor)
            code = run_one(Path(run_dir), self._lifeline, self._untold_end)
        except BaseException:  # nothing may return into the worker's own loop
            with contextlib.suppress(BaseException):
                import traceback

                traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        for pid in list(self._children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                if process := self._processes.pop(pid, None):
                    process.returncode = code
                run_dir = self._children.pop(pid)
                self._hear()
                story = self._stories.pop(run_dir, None)
                self._say({"ended": run_dir, "status": code, **({"story": story} if story else {})})

    def _hear(self) -> None:
        """Read how children ended that could not write it."""
        with contextlib.suppress(BlockingIOError):
            while content := os.read(self._untold, 65536):
                *lines, self._heard = (self._heard + content).split(b"\n")
                for line in lines:
                    self._stories |= json.loads(line)

    def _be_asked_to_leave(self) -> None:
        self._is_asked_to_leave = True

    def _leave(self) -> None:
        """The command is gone, or asks us to go: stop every child, and end when all are gone."""
        if self._kill_at is None:
            self._kill_at = time.monotonic() + max((_grace_of(path) for path in self._children.values()), default=0.0)
            self._signal_all(signal.SIGTERM)

    def _signal_all(self, number: int) -> None:
        for pid in self._children:
            _signal(pid, number)

    def _say(self, answer: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more: stdin tells it
            os.write(self._stdout, json.dumps(answer).encode() + b"\n")


def _grace_of(run_dir: str) -> float:
    """Seconds that a child has to save itself: it ends by itself then, and this is for one that does not."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        request = json.loads(RunDir(Path(run_dir)).request.read_bytes())
        return float(request["spec"]["train"]["grace_secs"]) + 1.0
    return GRACE_SECS


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def run_one(path: Path, lifeline: int | None, untold: int | None = None) -> int:
    """Do the run of the folder `path` in this process, with its log as stdout and stderr. What a full disk does not take of
    its end goes to the pipe `untold`."""

    def on_untold(story: dict[str, Any]) -> None:
        if untold is not None:  # the pipe takes 4 KiB at once, so that lines of several children do not mix
            line = json.dumps({str(path): story}).encode() + b"\n"
            if len(line) > select.PIPE_BUF:
                line = json.dumps({str(path): {**story, "details": []}}).encode() + b"\n"
            os.write(untold, line)

    stop = StopFlag()
    stop.listen()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKING)
    run_dir = RunDir(path)
    try:
        _redirect(run_dir)
    except OSError as error:
        story = system_error(error)
        if story is None:
            raise
        on_untold(story.as_dict())
        return int(story.exit_code)
    if lifeline is not None:
        follow_lifeline(lifeline, stop)
    _enter(run_dir)
    from expmgr.train.job import run_job

    return run_job(run_dir, stop, on_untold)


def _redirect(run_dir: RunDir) -> None:
    log = os.open(run_dir.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(nothing)
    os.close(log)


def _enter(run_dir: RunDir) -> None:
    """The run's own checkout as working folder; what user code may know of its run.

    It is no place for imports: a premade model needs none, and a repository's own `numpy.py` would stand in for NumPy.
    """
    with contextlib.suppress(OSError, ValueError, KeyError):
        request = json.loads(run_dir.request.read_bytes())
        _keep(request.get("pass_environment"))
        os.environ.update(
            EXPMGR_RUN_ID=request["run_id"], EXPMGR_RUN_DIR=str(run_dir.path), EXPMGR_MODEL_DIR=request["model_dir"]
        )
    os.chdir(run_dir.code)


def _keep(names: Sequence[str] | None) -> None:
    """Forget every variable of the environment that is neither the system's nor among `names`; None: keep all."""
    if names is None:
        return
    for name in list(os.environ):
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in (*_OF_THE_SYSTEM, *names)):
            del os.environ[name]


def main(arguments: Sequence[str]) -> int:
    # What anybody prints goes to stderr: stdout speaks the protocol alone.
    stdout = os.dup(1)
    os.dup2(2, 1)
    is_single = "--one" in arguments
    trainer = _value(arguments, "--trainer") if "--trainer" in arguments else "keras"
    if _FORKS or is_single:
        try:
            import_tensorflow(trainer)
        except Exception as error:  # whatever a broken installation raises
            story = error if isinstance(error, ExpmgrError) else OurBug(f"TensorFlow cannot be used: {error}")
            _tell_failed(story, stdout, arguments)
            return int(ExitCode.MISTAKE)
    if is_single:
        untold = int(_value(arguments, "--untold")) if "--untold" in arguments else None
        return run_one(Path(_value(arguments, "--one")), _lifeline_of(arguments), untold)
    Worker(0, stdout, trainer).serve()
    os._exit(int(ExitCode.DONE))  # all is told and written: TensorFlow takes a tenth of a second to tidy up


def _tell_failed(story: ExpmgrError, stdout: int, arguments: Sequence[str]) -> None:
    if "--one" in arguments:
        from expmgr.runs.events import Withdrawn
        from expmgr.train.training.reporting import Teller

        Teller(RunDir(Path(_value(arguments, "--one")))).tell(Withdrawn(error=story.as_dict()))
    else:
        os.write(stdout, json.dumps({"failed": story.as_dict()}).encode() + b"\n")


def _value(arguments: Sequence[str], option: str) -> str:
    return arguments[arguments.index(option) + 1]


def _lifeline_of(arguments: Sequence[str]) -> int | None:
    return int(_value(arguments, "--lifeline")) if "--lifeline" in arguments else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
