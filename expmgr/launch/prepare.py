"""Prepares a task: record, pin, checkout and request; removes them again if the run is discarded."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from expmgr import __version__
from expmgr.disk.locks import Process
from expmgr.errors import Busy, CheckpointRefused
from expmgr.launch.checkout import make_checkout
from expmgr.launch.environments import Environment
from expmgr.launch.plan import Task, checkpoint_ref, gone_on_from, spec_digest, step_of
from expmgr.log.refs import keep_ref
from expmgr.paths import RunDir
from expmgr.project import Project
from expmgr.runs.record import Attempt, RunRecord, is_seen_running, new_run_id, user_name
from expmgr.runs.request import Request, WarmStart
from expmgr.variants.code_digest import roots_of


@dataclass(frozen=True)
class Prepared:
    """A task whose folder, record and checkout are there; `before` is the record as it was, None for a new run."""

    task: Task
    record: RunRecord
    folder: RunDir
    before: RunRecord | None
    unseen: RunRecord | None = None
    """A run of the same seed that says it goes on, on another machine or in another container. Once the model_dir's
    lock is ours, it is known to have died."""


def reserve(project: Project, task: Task) -> IO[bytes]:
    """The right to start runs of this variant and seed in this clone, until the file is closed; else `Busy`.

    It goes with the process. Without it two commands would pick the same record to add an attempt to. What protects the
    model_dir itself, also from other machines, is its own lock.
    """
    project.layout.own.mkdir(parents=True, exist_ok=True)
    path = project.layout.own / f"{task.name.experiment}--{task.name.variant}--seed-{task.seed}.running"
    while True:
        file = open(path, "ab")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            break
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                return file
        file.close()  # whoever had it before took the file away: this is no longer the one that others would lock
    running = project.records.newest(task.name, task.seed)
    if running is not None and not running.has_ended:
        raise _busy(task, running)
    raise Busy(
        f"{task} is being started by another command",
        left_alone="Nothing was changed.",
        hint="wait for it to end; expmgr list shows what runs",
    )


def give_back(reserved: IO[bytes]) -> None:
    """End what `reserve` began, and leave nothing of it."""
    Path(reserved.name).unlink(missing_ok=True)
    reserved.close()


def _busy(task: Task, running: RunRecord) -> Busy:
    return Busy(
        f"{task} is being trained by run {running.run_id}",
        left_alone="Nothing was changed.",
        hint=f"wait for it to end; expmgr show {running.run_id}",
    )


def check_still_there(project: Project, task: Task, previous: RunRecord | None) -> None:
    """Never start from step 0 in silence where there was a checkpoint: its folder may be on a disk that is not there."""
    if previous is None or task.fresh:
        return
    has_trained = previous.step > 0 or any(attempt.from_step for attempt in previous.attempts)
    if not has_trained and not any(one.step for one in previous.checkpoints):
        return
    folder = project.model_dir(task.name, task.seed)
    if folder.read_manifest() is None:
        raise CheckpointRefused(
            f"{folder.shown} is empty, but run {previous.run_id} trained {task} to step {previous.step}",
            details=[f"its checkpoints were saved in {previous.model_dir}"],
            left_alone="Nothing was changed on disk.",
            hint=f"bring the folder back (is its disk mounted?), or start anew: {task.command} --fresh",
        )


def prepare(project: Project, task: Task, environment: Environment) -> Prepared:
    """Make everything that the worker needs: record, pin, checkout, request. On an error nothing of it stays."""
    previous = project.records.newest(task.name, task.seed)
    unseen = None
    if previous is not None and not previous.has_ended and task.mode == "train":
        if is_seen_running(previous):
            raise _busy(task, previous)
        unseen = previous  # whether it still runs, the model_dir's lock will tell
    previous, fetched = gone_on_from(project, task)
    if task.mode == "train":
        check_still_there(project, task, previous)
    takes_up = previous is not None and unseen is None and previous.commit == task.commit
    before = previous if takes_up and not task.fresh and task.mode == "train" else None
    record = _with_attempt(before, task) if before else _new_record(project, task, _parent(task, previous, fetched))
    folder = project.records.run_dir(record.run_id)
    try:
        project.records.begin(record)
        if not project.is_scratch:
            project.repo.set_ref(keep_ref(record.run_id), task.commit, "expmgr: run")
        make_checkout(project.repo, task.commit, folder.code)
        _request(project, task, record, folder, environment).write(folder)
    except BaseException:
        take_back(project, Prepared(task, record, folder, before))
        raise
    return Prepared(task, record, folder, before, unseen)


def take_back(project: Project, prepared: Prepared) -> None:
    """As if the task had never been asked for."""
    project.records.withdraw(prepared.record.run_id, prepared.before)
    if prepared.before is None and not project.is_scratch:
        project.repo.delete_ref(keep_ref(prepared.record.run_id))


def _attempt(number: int, task: Task) -> Attempt:
    return Attempt(
        number=number, started_at=time.time(), max_steps=task.max_steps, launcher=Process.current().as_dict()
    )


def _with_attempt(before: RunRecord, task: Task) -> RunRecord:
    record = before.model_copy(deep=True)
    record.attempts.append(_attempt(len(record.attempts) + 1, task))
    record.status = "starting"
    return record


def _new_record(project: Project, task: Task, parent: str | None) -> RunRecord:
    now = time.time()
    return RunRecord(
        run_id=new_run_id(now),
        variant=str(task.name),
        seed=task.seed,
        commit=task.commit,
        tree=task.tree,
        code_digest=task.code_digest,
        parent_run=parent,
        spec=task.spec.resolved(),
        created_at=now,
        host=socket.gethostname() if project.settings.record_host else None,
        user=user_name() if project.settings.record_user else None,
        model_dir=project.shown(project.layout.model_dir(task.name, task.seed)),
        attempts=[_attempt(1, task)],
    )


def _parent(task: Task, previous: RunRecord | None, fetched: str | None) -> str | None:
    """The run that this one goes on from: the one whose checkpoint was fetched, or the one before in this clone."""
    if task.fresh:
        return None
    return fetched or (previous.run_id if previous is not None and previous.step else None)


def _request(project: Project, task: Task, record: RunRecord, folder: RunDir, environment: Environment) -> Request:
    model_dir = project.model_dir(task.name, task.seed)
    return Request(
        mode=task.mode,
        run_id=record.run_id,
        variant=str(task.name),
        seed=task.seed,
        commit=task.commit,
        spec=record.spec,
        experiment_dir=folder.code / task.name.folder,
        variant_dir=project.layout.variant_dir(task.name),
        repository=project.repo.root,
        module_roots=roots_of(project.repo, task.commit, task.name),
        code_packages=project.settings.code_packages,
        data_root=project.settings.data_root,
        pass_environment=project.settings.pass_environment,
        environment=environment.as_dict(),
        model_dir=model_dir.path,
        shown_model_dir=model_dir.shown,
        max_steps=task.max_steps,
        fresh=task.fresh,
        from_step=task.from_step,
        allow=task.allow,
        candidates=task.candidates,
        warm_start=_warm_start(project, task),
        adopt=task.adopt,
        ask=task.ask,
        provenance={
            "commit": task.commit,
            "run_id": record.run_id,
            "seed": task.seed,
            "expmgr": __version__,
            "code_digest": task.code_digest,
            "spec_digest": spec_digest(task.spec),
        },
    )


def _warm_start(project: Project, task: Task) -> WarmStart | None:
    option = task.warm_start
    if option is None:
        return None
    seed = task.seed if option.seed is None else option.seed
    return WarmStart(
        source=checkpoint_ref(project, option.name, seed, step_of(project, option.name, seed, option.step)),
        maps=option.maps,
        only=option.only,
        with_optimizer=option.with_optimizer,
        grow=option.grow,
    )
