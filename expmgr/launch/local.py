"""Runs tasks on this machine: prepares each, hands it to a worker, follows it, ends its record."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any

from expmgr.disk import durable
from expmgr.errors import (
    DiskFull,
    ExitCode,
    ExpmgrError,
    OurBug,
    RunFolderProblem,
    Stopped,
    TrainingFailed,
    UserCodeFailed,
    reported,
    worst,
)
from expmgr.launch.announce import announce, remember
from expmgr.launch.before import with_store
from expmgr.launch.check_plan import decided
from expmgr.launch.environments import Environment, environment_of
from expmgr.launch.plan import Outcome, Task, already_complete
from expmgr.launch.preemption import watching
from expmgr.launch.prepare import Prepared, give_back, prepare, reserve, take_back
from expmgr.launch.worker import WorkerProcess
from expmgr.project import Project
from expmgr.runs.events import (
    CandidateJudged,
    CheckpointSaved,
    Ended,
    JudgedEvent,
    Ready,
    RunEvent,
    Withdrawn,
    last_of,
    read_events,
)
from expmgr.runs.record import RunRecord
from expmgr.spec.model import EstimatorModel
from expmgr.team.publish import tell_runs
from expmgr.variants.code_lookup import check_packages

_POLL_S = 0.1
#: How TensorFlow's own lines on stderr begin, which explain nothing.
_CHATTER = ("I0000", "W0000", "WARNING: All log messages", "To enable the following")

#: What a worker serves: the name of an environment, and the trainer in it.
_Kind = tuple[str | None, str]
_OWN: _Kind = (None, "keras")


def _kind_of(task: Task) -> _Kind:
    return task.spec.environment, "estimator" if isinstance(task.spec.model, EstimatorModel) else "keras"


def is_own_worker(task: Task) -> bool:
    """Whether `task` runs in expmgr's own environment, by the worker that is started first."""
    return _kind_of(task) == _OWN


class Watcher:
    """Who wants to see what happens. Every method may be left as it is."""

    def started(self, prepared: Prepared) -> None: ...

    def event(self, prepared: Prepared, event: RunEvent) -> None: ...

    def progress(self, prepared: Prepared, progress: dict[str, Any]) -> None: ...

    def ended(self, outcome: Outcome) -> None: ...

    def stopping(self) -> None: ...


def run_tasks(
    project: Project,
    tasks: Sequence[Task],
    *,
    jobs: int = 1,
    watcher: Watcher | None = None,
    worker: WorkerProcess | None = None,
) -> list[Outcome]:
    """Run `tasks`, `jobs` at a time, and return their outcomes in the same order. `worker`: one of expmgr's own
    environment that was started before, and that is closed at the end.

    One that fails does not stop the others. SIGINT and SIGTERM ask every run to save and end; a second one kills.
    """
    batch = _Batch(project, deque(enumerate(tasks)), jobs, watcher or Watcher(), worker)
    with batch.signals(), watching(project.settings.preemption_notice, batch.preempt):
        batch.run()
    if any(task.mode == "train" for task in tasks):
        with contextlib.suppress(OSError, ExpmgrError):  # the next command tells it
            tell_runs(project)
    return [batch.outcomes[number] for number in range(len(tasks))]


@dataclass
class _Running:
    """A task in the worker's hands."""

    number: int
    prepared: Prepared
    environment: Environment
    read_to: int = 0
    told: list[RunEvent] = field(default_factory=list)
    damaged: list[bytes] = field(default_factory=list)
    """Lines of its events that cannot be read."""
    untold: dict[str, Any] | None = None
    """The error that ended it, where its own disk took no event."""
    shown: float = 0.0


class _Batch:
    def __init__(
        self,
        project: Project,
        waiting: deque[tuple[int, Task]],
        jobs: int,
        watcher: Watcher,
        worker: WorkerProcess | None,
    ) -> None:
        self.project = project
        self.waiting = waiting
        self.jobs = jobs
        self.watcher = watcher
        self.running: dict[str, _Running] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.workers: dict[_Kind, WorkerProcess] = {_OWN: worker} if worker is not None else {}
        self.interrupts = 0
        self.signal: int | None = None
        self._answered = 0
        self._began_at = time.time()
        self._reserved: dict[int, IO[bytes]] = {}
        self._announced: dict[str, bool] = {}
        """By the digest of code, whether it was said whose it is."""

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Count SIGINT, SIGTERM and SIGHUP instead of dying of them."""

        def count(number: int, _frame: FrameType | None) -> None:
            if number == signal.SIGHUP and self.interrupts:
                return  # a terminal that is closed sends it several times: no person insists
            self.interrupts += 1
            self.signal = number

        old: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}
        with contextlib.suppress(ValueError):  # not the main thread: the caller's signals stay the caller's
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                    continue  # nohup: the terminal may go
                old[number] = signal.signal(number, count)
        try:
            yield
        finally:
            for handled, handler in old.items():
                if handled == signal.SIGHUP and self.signal == handled and handler == signal.SIG_DFL:
                    handler = signal.SIG_IGN  # the terminal is gone; what was saved has still to be recorded
                signal.signal(handled, handler)

    def preempt(self) -> None:
        """The machine is about to go: as if SIGTERM came."""
        self.interrupts += 1
        self.signal = signal.SIGTERM

    def run(self) -> None:
        try:
            while self.waiting or self.running:
                self._answer_interrupts()
                while self.waiting and len(self.running) < self.jobs and not self.interrupts:
                    self._start(*self.waiting.popleft())
                if self.interrupts:
                    self._drop_waiting()
                if self.running:
                    self._follow()
        finally:
            self._close()

    def _start(self, number: int, task: Task) -> None:
        try:
            if task.mode == "train":
                self._check_wanted(task)
                self._reserved[number] = reserve(self.project, task)
            record = already_complete(self.project, task) if task.mode == "train" else None
            if record is not None:
                self._end(number, Outcome(task, ExitCode.DONE, record, complete=True))
                return
            asks_guard = task.mode == "check" and task.adopt is None and task.ask is None
            if asks_guard and (judged := decided(self.project, task)) is not None:
                self._end(number, Outcome(task, worst([one.exit_code for one in judged]), judged=judged))
                return
            if task.mode == "train":
                self.project.model_dir(
                    task.name, task.seed
                ).check_usable()  # before seconds go into starting TensorFlow
            environment = environment_of(self.project, task.spec)
            check_packages(self.project.repo, task.commit, task.name, task.spec, self.project.settings.code_packages)
            if task.code_digest not in self._announced:
                self._announced[task.code_digest] = announce(self.project, task) is not None
            worker = self._worker(task, environment)  # it imports TensorFlow while the checkout is made
            with durable.disk_errors("the run's folder"):
                prepared = prepare(self.project, task, environment)
        except ExpmgrError as error:
            told = self._not_begun(task) if self.interrupts else error  # ^C reaches git too, which then says no
            self._end(number, Outcome(task, told.exit_code, error=told))
            return
        except OSError as problem:
            story: ExpmgrError
            if (full := durable.system_error(problem)) is not None and full.exit_code == ExitCode.DISK:
                story = full
                story.left_alone, story.hint = "No run was started.", story.hint or f"make room, then: {task.command}"
            else:
                story = RunFolderProblem(f"{task} could not be started: {problem}", left_alone="No run was started.")
            self._end(number, Outcome(task, story.exit_code, error=story))
            return
        self.running[str(prepared.folder.path)] = _Running(number, prepared, environment)
        self.watcher.started(prepared)
        worker.start(prepared.folder.path)

    def _worker(self, task: Task, environment: Environment) -> WorkerProcess:
        kind = _kind_of(task)
        if kind not in self.workers:
            self.workers[kind] = WorkerProcess(str(environment.python), kind[1])
        return self.workers[kind]

    def _check_wanted(self, task: Task) -> None:
        """`Stopped` where somebody said `expmgr stop VARIANT` while the task waited for its turn."""
        with contextlib.suppress(FileNotFoundError):
            if self.project.layout.stop_file(task.name).stat().st_mtime > self._began_at:
                raise Stopped(f"{task} was not started: its variant was stopped", hint=task.command)

    def _follow(self) -> None:
        for kind, worker in list(self.workers.items()):
            for message in worker.said(_POLL_S / len(self.workers)):
                if "ended" in message and message["ended"] in self.running:
                    ended = self.running.pop(message["ended"])
                    ended.untold = message.get("story")
                    self._finish_or_tell(ended, message["status"])
                elif "failed" in message:
                    self._all_failed(kind, reported(message["failed"]))
                elif "gone" in message:
                    self._all_failed(kind, self._worker_gone(worker, message["gone"]))
        for running in self.running.values():
            self._read(running)
            self._show_progress(running)

    def _read(self, running: _Running) -> None:
        events, running.read_to = read_events(running.prepared.folder, running.read_to, running.damaged)
        for event in events:
            running.told.append(event)
            if isinstance(event, Ready | CheckpointSaved | JudgedEvent):
                self._code_runs(running.prepared.task)
            if isinstance(event, Ready):  # a clone in which nobody called init
                self.project.ignore_models()
                with contextlib.suppress(OSError):  # its digest stands in the record
                    running.environment.keep_lock(self.project.layout.own / "environments")
                self._bury(running.prepared.unseen)
            self.watcher.event(running.prepared, event)

    def _code_runs(self, task: Task) -> None:
        if self._announced.get(task.code_digest):
            remember(self.project, task)
            self._announced[task.code_digest] = False

    def _bury(self, unseen: RunRecord | None) -> None:
        """The model_dir's lock is ours: a run that said it goes on elsewhere had lost it, so its record ends."""
        if unseen is not None:
            with contextlib.suppress(OSError, ExpmgrError):
                self.project.records.finish(unseen.run_id, killed=True)

    def _show_progress(self, running: _Running) -> None:
        with contextlib.suppress(OSError, ValueError):
            path = running.prepared.folder.progress
            stamp = path.stat().st_mtime
            if stamp != running.shown:
                running.shown = stamp
                self.watcher.progress(running.prepared, json.loads(path.read_text(encoding="utf-8")))

    def _finish_or_tell(self, running: _Running, status: int) -> None:
        """As `_finish`; where the disk or git says no at the end of one run, the others go on."""
        try:
            self._finish(running, status)
        except ExpmgrError as error:
            self._end(running.number, Outcome(running.prepared.task, error.exit_code, error=error))
        except OSError as problem:
            run_id = running.prepared.record.run_id
            hint = "once the folder can be written again, the next command of expmgr records it"
            story: ExpmgrError = RunFolderProblem(
                f"the end of run {run_id} could not be recorded: {problem}", hint=hint
            )
            if problem.errno in durable.DISK_ERRORS:
                story = durable.disk_full(problem, f"the end of run {run_id}")
                story.hint = hint
            self._end(running.number, Outcome(running.prepared.task, story.exit_code, error=story))

    def _finish(self, running: _Running, status: int) -> None:
        """The run's process has ended with `status`: an exit code, or a signal's number below zero."""
        self._read(running)
        prepared, task = running.prepared, running.prepared.task
        has_begun = last_of(Ready, running.told) is not None or last_of(CheckpointSaved, running.told) is not None
        if has_begun or (running.damaged and task.mode == "train" and last_of(Withdrawn, running.told) is None):
            self._end(running.number, self._outcome(running, last_of(Ended, running.told), status))
            return
        log = self._kept_log(prepared, status)
        take_back(self.project, prepared)
        judged = _answers(running)
        withdrawn = last_of(Withdrawn, running.told)
        error: ExpmgrError
        if withdrawn is None and _is_whole(task, judged, status):
            self._end(running.number, Outcome(task, status, judged=judged))
            return
        if self.interrupts and status in (ExitCode.STOPPED, -signal.SIGTERM, -signal.SIGKILL):
            error, log = self._not_begun(task), None
        elif withdrawn is not None:
            error = reported(withdrawn.error)
        elif running.untold is not None:
            error = reported(running.untold)
        else:
            error = _died(task, status)
        if isinstance(error, UserCodeFailed) and error.details:  # its own traceback; one that was refused has none
            self._code_runs(task)
        self._end(running.number, Outcome(task, error.exit_code, error=error, judged=judged, log=log))

    def _not_begun(self, task: Task) -> ExpmgrError:
        error = Stopped(f"{task} was stopped before it began", hint=task.command)
        if self.signal == signal.SIGINT:
            error.exit_code = ExitCode.INTERRUPTED
        return error

    def _outcome(self, running: _Running, ended: Ended | None, status: int) -> Outcome:
        prepared, task = running.prepared, running.prepared.task
        with durable.disk_errors(f"the record of run {prepared.record.run_id}"):
            record = self.project.records.finish(prepared.record.run_id, killed=ended is None)
        log = prepared.folder.log
        if ended is None:
            if running.untold is not None:
                error: ExpmgrError = reported(running.untold)
            else:
                error = _no_last_word(prepared) if running.damaged and status == 0 else _died(task, status)
            return Outcome(task, error.exit_code, record, error, log=log)
        if ended.error:
            error = reported(ended.error)
            return Outcome(task, error.exit_code, record, error, log=log)
        if record.status == "preempted":
            error = Stopped(
                f"{task} was stopped at step {record.step}; its checkpoint is saved",
                hint=f"run it again to go on: {task.command}",
            )
            return Outcome(task, ExitCode.STOPPED, record, error, log=log)
        return Outcome(task, ExitCode.DONE, record, log=log)

    def _kept_log(self, prepared: Prepared, status: int) -> Path | None:
        """The log of a run that did not begin, saved from its folder where it may explain a fault of ours."""
        if status in (ExitCode.DONE, ExitCode.MISTAKE, ExitCode.REFUSED, ExitCode.BUSY, ExitCode.STOPPED):
            return None
        if not prepared.folder.log.exists():
            return None
        with contextlib.suppress(OSError):  # no room for it
            kept = Path(tempfile.mkdtemp(prefix="expmgr-report-")) / f"{prepared.record.run_id}.log"
            shutil.copyfile(prepared.folder.log, kept)
            return kept
        return None

    def _all_failed(self, kind: _Kind, error: ExpmgrError) -> None:
        """A worker itself is at an end: its children too, before anything is said of them."""
        worker = self.workers.pop(kind, None)
        if worker is None:
            return
        worker.kill()
        for running in [one for one in self.running.values() if _kind_of(one.prepared.task) == kind]:
            self.running.pop(str(running.prepared.folder.path))
            try:
                self._finish_without_worker(running, error)
            except (OSError, ExpmgrError):  # the next command records what became of it
                self._end(running.number, Outcome(running.prepared.task, error.exit_code, error=error))
        worker.close()
        if not isinstance(error, Stopped):
            for number, task in [one for one in self.waiting if _kind_of(one[1]) == kind]:
                self._end(number, Outcome(task, error.exit_code, error=error))
            self.waiting = deque(one for one in self.waiting if _kind_of(one[1]) != kind)

    def _finish_without_worker(self, running: _Running, error: ExpmgrError) -> None:
        self._read(running)
        prepared = running.prepared
        if last_of(Ready, running.told) is not None:
            record = self.project.records.finish(prepared.record.run_id, killed=True)
            self._end(running.number, Outcome(prepared.task, error.exit_code, record, error, log=prepared.folder.log))
        else:
            take_back(self.project, prepared)
            judged = _answers(running)
            self._end(running.number, Outcome(prepared.task, error.exit_code, error=error, judged=judged))

    def _worker_gone(self, worker: WorkerProcess, status: int) -> ExpmgrError:
        if self.interrupts > 1:
            return _interrupted()
        if self.interrupts:  # whoever asked to stop asked the worker too
            return Stopped("the runs were stopped", hint="run again to go on from the newest checkpoint")
        words = []
        with contextlib.suppress(OSError):
            lines = worker.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            words = [line for line in lines if not line.startswith(_CHATTER)][-5:]
        if status == -signal.SIGKILL:
            return TrainingFailed(
                "the worker process was killed by SIGKILL",
                details=words,
                hint="the system may have been out of memory; run again to go on from the newest checkpoint",
            )
        return OurBug(f"the worker process ended by itself ({_status(status)})", details=words)

    def _answer_interrupts(self) -> None:
        if self.interrupts == self._answered or not self.workers:
            return
        self._answered = self.interrupts
        if self.interrupts > 1:
            for worker in self.workers.values():
                worker.kill()
            return
        self.watcher.stopping()
        for running in self.running.values():
            self.workers[_kind_of(running.prepared.task)].stop(running.prepared.folder.path)

    def _drop_waiting(self) -> None:
        for number, task in self.waiting:
            error = Stopped(f"{task} was not started", hint=task.command)
            self._end(number, Outcome(task, ExitCode.STOPPED, error=error))
        self.waiting.clear()

    def _end(self, number: int, outcome: Outcome) -> None:
        with_store(self.project, outcome.task, outcome.error)
        self.outcomes[number] = outcome
        if number in self._reserved:
            give_back(self._reserved.pop(number))
        self.watcher.ended(outcome)

    def _close(self) -> None:
        for worker in self.workers.values():
            worker.close()


def _answers(running: _Running) -> list[JudgedEvent]:
    return [event for event in running.told if isinstance(event, JudgedEvent)]


def _is_whole(task: Task, judged: Sequence[JudgedEvent], status: int) -> bool:
    """Whether a question got all its answers, and its process ended as they say. A process that failed after some of them
    has not answered."""
    asked = len(task.candidates) if task.adopt is None and task.ask is None else 1
    codes = [one.exit_code for one in judged if isinstance(one, CandidateJudged)]
    return bool(judged) and len(judged) == asked and status == worst(codes)


def _no_last_word(prepared: Prepared) -> ExpmgrError:
    """The run's process did its work, and what it said of the end cannot be read."""
    kept = prepared.folder.damaged_events(prepared.record.attempts[-1].number)
    return RunFolderProblem(
        f"the end of run {prepared.record.run_id} is not recorded: lines of its events.jsonl are damaged",
        details=[f"kept: {kept}"],
        left_alone="Its checkpoints are as they were saved.",
        hint=f"check the disk, then run it again: it resumes from its newest checkpoint: {prepared.task.command}",
    )


def _died(task: Task, status: int) -> ExpmgrError:
    """The run's process ended without its last word."""
    if status == ExitCode.DISK:
        return DiskFull(f"{task}: no space left, or an input/output error", hint=f"make room, then: {task.command}")
    if status == ExitCode.STOPPED:
        return Stopped(
            f"{task} was asked to stop, and had not saved after train.grace_secs ({task.spec.train.grace_secs} s)",
            left_alone="Its newest checkpoint is as it was.",
            hint=f"run it again to go on from there: {task.command}",
        )
    if status < 0:
        how = "the system may have been out of memory" if -status == signal.SIGKILL else "a crash below Python"
        return TrainingFailed(
            f"{task} was killed by {_status(status)}",
            hint=f"{how}; run it again to go on from its newest checkpoint: {task.command}",
        )
    return OurBug(f"{task} ended without a word ({_status(status)})")


def _interrupted() -> ExpmgrError:
    error = Stopped(
        "interrupted a second time: the runs were killed", hint="run again to go on from the newest checkpoint"
    )
    error.exit_code = ExitCode.INTERRUPTED
    return error


def _status(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-status).name
    return f"exit {status}"
